// A model and its training options become a step program. Read build() for the order of things.
#include <stdlib.h>

#include "abi.h"
#include "program/builder.h"
#include "program/hazards.h"

bool lf_builder_trains(const lf_builder *b)
{
    return b->params->optimizer.kind != LF_OPTIMIZER_NONE;
}

// Views of the model's tensors in a region that is laid out as one of its blocks.
static void add_params(lf_builder *b, bool state, lf_region region, const char *prefix)
{
    const lf_model *model = b->params->model;
    size_t real = lf_dtype_size(b->program->real);
    for (size_t i = 0; i < model->tensor_count; i++) {
        const lf_param *param = &model->tensors[i];
        if (param->state == state)
            lf_builder_view(b, region, b->program->real, param->rows ? param->rows : 1, param->cols,
                            param->offset * real, prefix, param->name);
    }
}

static void lay_out_regions(lf_builder *b)
{
    lf_program *program = b->program;
    const lf_compile_params *p = b->params;
    const lf_model *model = p->model;
    uint32_t block = (uint32_t)model->block_count;
    lf_dtype real = program->real;

    program->data = lf_builder_tensor(b, LF_REGION_DATA, p->stored, p->rows, model->inputs, "", "data");
    program->scaling = lf_builder_tensor(b, LF_REGION_SCALING, LF_F32, 2, model->inputs, "", "scaling");
    program->order = lf_builder_tensor(b, LF_REGION_ORDER, LF_U32, 1, p->positions, "", "order");
    program->schedule =
        lf_builder_tensor(b, LF_REGION_SCHEDULE, LF_U32, p->steps + 1, LF_SCHEDULE_ROW_WORDS, "", "schedule");
    program->weights = lf_builder_tensor(b, LF_REGION_PARAMS, real, 1, block, "", "params");
    add_params(b, false, LF_REGION_PARAMS, "");
    program->state = LF_NO_TENSOR;
    if (model->state_count) {
        program->state = lf_builder_tensor(b, LF_REGION_STATE, real, 1, (uint32_t)model->state_count, "", "state");
        add_params(b, true, LF_REGION_STATE, "");
    }
    program->targets = program->metrics = program->grads = program->m = program->v = LF_NO_TENSOR;
    program->teacher = b->batch_y = LF_NO_TENSOR;
    if (p->loss != LF_LOSS_NONE) {
        bool classes = p->loss == LF_LOSS_CROSS_ENTROPY;
        uint32_t width = classes ? 1 : model->outputs;
        program->targets =
            lf_builder_tensor(b, LF_REGION_TARGETS, classes ? LF_U32 : LF_F32, p->rows, width, "", "targets");
        program->metrics =
            lf_builder_tensor(b, LF_REGION_METRICS, real, p->steps * p->batch, LF_METRIC_COUNT, "", "metrics");
        b->batch_y = lf_builder_tensor(b, LF_REGION_BATCH, classes ? LF_U32 : real, p->batch, width, "", "y");
    }
    if (p->distill.on)
        program->teacher = lf_builder_tensor(b, LF_REGION_TEACHER, LF_F32, p->rows, model->outputs, "", "teacher");
    if (lf_builder_trains(b)) {
        unsigned moments = lf_optimizer_moments(&p->optimizer);
        program->grads = lf_builder_tensor(b, LF_REGION_GRADS, real, 1, block, "", "grads");
        add_params(b, false, LF_REGION_GRADS, "grad/");
        if (moments >= 1)
            program->m = lf_builder_tensor(b, LF_REGION_MOMENTS, real, 1, block, "", "m");
        if (moments >= 2)
            program->v = lf_builder_tensor(b, LF_REGION_MOMENTS, real, 1, block, "", "v");
    }
}

static void build_load(lf_builder *b)
{
    lf_program *program = b->program;
    uint32_t inputs = b->params->model->inputs;
    b->batch_x = lf_builder_tensor(b, LF_REGION_BATCH, program->real, b->params->batch, inputs, "", "x");
    lf_op *gather = lf_builder_op(b, LF_OP_GATHER, LF_PHASE_LOAD, inputs, inputs);
    gather->operands[LF_GATHER_DATA] = program->data;
    gather->operands[LF_GATHER_TARGETS] = program->targets;
    gather->operands[LF_GATHER_SCALING] = program->scaling;
    gather->operands[LF_GATHER_ORDER] = program->order;
    gather->operands[LF_GATHER_SCHEDULE] = program->schedule;
    gather->operands[LF_GATHER_X] = b->batch_x;
    gather->operands[LF_GATHER_Y] = b->batch_y;
}

static lf_op_kind loss_op(const lf_compile_params *p)
{
    if (p->distill.on)
        return LF_OP_DISTILL;
    return p->loss == LF_LOSS_MSE ? LF_OP_MSE : LF_OP_CROSS_ENTROPY;
}

// The softened teacher's rows of the batch.
static lf_tensor_id build_teacher(lf_builder *b)
{
    lf_program *program = b->program;
    uint32_t width = b->params->model->outputs;
    lf_op *op = lf_builder_op(b, LF_OP_GATHER_ROWS, LF_PHASE_LOAD, width, width);
    op->operands[LF_GATHER_ROWS_SOURCE] = program->teacher;
    op->operands[LF_GATHER_ROWS_ORDER] = program->order;
    op->operands[LF_GATHER_ROWS_SCHEDULE] = program->schedule;
    op->operands[LF_GATHER_ROWS_OUT] =
        lf_builder_tensor(b, LF_REGION_BATCH, program->real, b->params->batch, width, "batch/", "teacher");
    return op->operands[LF_GATHER_ROWS_OUT];
}

// Returns the gradient to the output; LF_NO_TENSOR outside training.
static lf_tensor_id build_loss(lf_builder *b, lf_tensor_id teacher)
{
    lf_program *program = b->program;
    const lf_compile_params *p = b->params;
    uint32_t width = p->model->outputs;
    lf_tensor_id dz = lf_builder_trains(b) ? lf_builder_acts(b, width, "grad/", "output") : LF_NO_TENSOR;
    lf_op *op = lf_builder_op(b, loss_op(p), LF_PHASE_FORWARD, width, width);
    op->operands[LF_LOSS_Z] = program->output;
    op->operands[LF_LOSS_TARGET] = b->batch_y;
    op->operands[LF_LOSS_SCHEDULE] = program->schedule;
    op->operands[LF_LOSS_METRICS] = program->metrics;
    op->operands[LF_LOSS_DZ] = dz;
    if (p->distill.on)
        op->operands[LF_DISTILL_TEACHER] = teacher;
    op->soft_weight = p->distill.alpha;
    op->temperature = p->distill.temperature;
    return dz;
}

static void build_update(lf_builder *b)
{
    lf_program *program = b->program;
    const lf_optimizer *optimizer = &b->params->optimizer;
    uint32_t count = (uint32_t)b->params->model->block_count;
    lf_op *op =
        lf_builder_op(b, optimizer->kind == LF_OPTIMIZER_SGD ? LF_OP_SGD : LF_OP_ADAM, LF_PHASE_UPDATE, count, count);
    op->rows = 1;
    op->operands[LF_UPDATE_SCHEDULE] = program->schedule;
    op->operands[LF_UPDATE_GRADS] = program->grads;
    op->operands[LF_UPDATE_PARAMS] = program->weights;
    op->operands[LF_UPDATE_M] = program->m;
    op->operands[LF_UPDATE_V] = program->v;
    op->beta1 = optimizer->beta1;
    op->beta2 = optimizer->beta2;
    op->eps = optimizer->eps;
    op->momentum = optimizer->momentum;
    op->nesterov = optimizer->nesterov;
    op->weight_decay = optimizer->weight_decay;
    op->decoupled = optimizer->kind == LF_OPTIMIZER_ADAMW;
}

static bool build(lf_builder *b)
{
    lay_out_regions(b);
    b->tape = calloc(2 * b->params->model->layer_count, sizeof *b->tape);
    if (b->failed || !b->tape)
        return false;
    build_load(b);
    lf_tensor_id teacher = b->params->distill.on ? build_teacher(b) : LF_NO_TENSOR;
    b->program->output = lf_builder_forward(b);
    if (b->params->loss != LF_LOSS_NONE) {
        lf_tensor_id dz = build_loss(b, teacher);
        if (lf_builder_trains(b))
            lf_builder_backward(b, dz);
    }
    if (lf_builder_trains(b))
        build_update(b);
    return !b->failed;
}

static bool check(const lf_compile_params *p, lf_error *err)
{
    if (!p->batch || !p->rows || !p->positions || !p->steps)
        lf_error_set(err, LF_EARG, "batch, rows, positions and steps must be at least 1, not %u, %u, %u and %u",
                     p->batch, p->rows, p->positions, p->steps);
    else if ((uint64_t)p->steps * p->batch > UINT32_MAX / LF_METRIC_COUNT)
        lf_error_set(err, LF_EARG, "a stretch of %u steps of %u rows is too long: at most %u rows", p->steps, p->batch,
                     UINT32_MAX / LF_METRIC_COUNT);
    else if (p->optimizer.kind != LF_OPTIMIZER_NONE && p->loss == LF_LOSS_NONE)
        lf_error_set(err, LF_EARG, "loss: training with %s needs one", lf_optimizer_name(p->optimizer.kind));
    else if (p->loss == LF_LOSS_CROSS_ENTROPY && p->model->outputs < 2)
        lf_error_set(err, LF_EARG,
                     "loss \"cross_entropy\" needs at least 2 outputs (one a class), but the model has %u",
                     p->model->outputs);
    else
        return true;
    return false;
}

lf_program *lf_program_compile(const lf_compile_params *params, lf_error *err)
{
    if (!check(params, err))
        return NULL;
    lf_program *program = calloc(1, sizeof *program);
    lf_builder b = { .program = program };
    bool built = false;
    if (program) {
        program->params = *params;
        program->real = params->oracle ? LF_F64 : LF_F32;
        b.params = &program->params;
        built = build(&b);
    }
    free(b.tape);
    if (!built) {
        lf_error_set(err, LF_ENOMEM, "step program of %zu layers: out of memory", params->model->layer_count);
        lf_program_destroy(program);
        return NULL;
    }
    lf_hazards_mark(program);
    return program;
}

void lf_program_destroy(lf_program *program)
{
    if (!program)
        return;
    free(program->tensors);
    free(program->ops);
    free(program);
}
