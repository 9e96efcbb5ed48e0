// A model and its training options become a step program. Read build() for the order of things.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "program/builder.h"
#include "program/hazards.h"
#include "program/shards.h"

bool lf_builder_trains(const lf_builder *b)
{
    return !b->teaches && b->params->optimizer.kind != LF_OPTIMIZER_NONE;
}

// Views of a model's tensors in a region that is laid out as one of its blocks, from `block` floats on.
static void add_params(lf_builder *b, const lf_model *model, bool state, lf_region region, size_t block,
                       const char *prefix)
{
    size_t real = lf_dtype_size(b->program->real);
    for (size_t i = 0; i < model->tensor_count; i++) {
        const lf_param *param = &model->tensors[i];
        if (param->state == state)
            lf_builder_view(b, region, b->program->real, param->rows ? param->rows : 1, param->cols,
                            (block + param->offset) * real, prefix, param->name);
    }
}

enum { TEACHER_PREFIX = 24 };

static void name_teacher(unsigned index, char prefix[TEACHER_PREFIX])
{
    snprintf(prefix, TEACHER_PREFIX, "teacher_%u/", index + 1);
}

// The blocks of the teachers that run in the program.
static void lay_out_teachers(lf_builder *b)
{
    lf_program *program = b->program;
    const lf_compile_params *p = b->params;
    size_t params = 0, state = 0;
    for (unsigned i = 0; i < p->distill.teacher_count; i++) {
        params += p->distill.teachers[i]->block_count;
        state += p->distill.teachers[i]->state_count;
    }
    if (params)
        program->teacher_params =
            lf_builder_tensor(b, LF_REGION_TEACHER_PARAMS, program->real, 1, (uint32_t)params, "", "teacher_params");
    if (state)
        program->teacher_state =
            lf_builder_tensor(b, LF_REGION_TEACHER_STATE, program->real, 1, (uint32_t)state, "", "teacher_state");
    params = state = 0;
    for (unsigned i = 0; i < p->distill.teacher_count; i++) {
        const lf_model *teacher = p->distill.teachers[i];
        char prefix[TEACHER_PREFIX];
        name_teacher(i, prefix);
        add_params(b, teacher, false, LF_REGION_TEACHER_PARAMS, params, prefix);
        add_params(b, teacher, true, LF_REGION_TEACHER_STATE, state, prefix);
        params += teacher->block_count;
        state += teacher->state_count;
    }
}

static bool is_spread(const lf_compile_params *p)
{
    return p->shards > 1;
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
    add_params(b, model, false, LF_REGION_PARAMS, 0, "");
    if (model->state_count) {
        program->state = lf_builder_tensor(b, LF_REGION_STATE, real, 1, (uint32_t)model->state_count, "", "state");
        add_params(b, model, true, LF_REGION_STATE, 0, "");
    }
    b->batch_y = LF_NO_TENSOR;
    if (p->loss != LF_LOSS_NONE) {
        bool classes = lf_loss_of_classes(p->loss);
        uint32_t width = classes ? 1 : model->outputs;
        program->targets =
            lf_builder_tensor(b, LF_REGION_TARGETS, classes ? LF_U32 : LF_F32, p->rows, width, "", "targets");
        program->metrics =
            lf_builder_tensor(b, LF_REGION_METRICS, real, p->steps * p->batch * (is_spread(p) ? p->shards : 1),
                              LF_METRIC_COUNT, "", "metrics");
        b->batch_y = lf_builder_tensor(b, LF_REGION_BATCH, classes ? LF_U32 : real, p->batch, width, "", "y");
    }
    if (p->weighted)
        program->row_weights = lf_builder_tensor(b, LF_REGION_ROW_WEIGHTS, LF_F32, p->rows, 1, "", "row_weights");
    if (p->distill.on && !p->distill.teacher_count)
        program->teacher = lf_builder_tensor(b, LF_REGION_TEACHER, LF_F32, p->rows, model->outputs, "", "teacher");
    lay_out_teachers(b);
    if (lf_builder_trains(b)) {
        program->grads = lf_builder_tensor(b, LF_REGION_GRADS, real, 1, block, "", "grads");
        add_params(b, model, false, LF_REGION_GRADS, 0, "grad/");
        for (unsigned i = 0; i < LF_MOMENT_COUNT; i++)
            if (lf_optimizer_keeps(&p->optimizer, (lf_moment)i))
                program->moment[i] =
                    lf_builder_tensor(b, LF_REGION_MOMENTS, real, 1, block, "", lf_moment_name((lf_moment)i));
        if (p->average != 0)
            program->average = lf_builder_tensor(b, LF_REGION_AVERAGE, real, 1, block, "", "average");
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

// Rows of the batch, of an f32 tensor of the resident rows.
static lf_tensor_id build_rows(lf_builder *b, lf_tensor_id source)
{
    lf_program *program = b->program;
    uint32_t width = program->tensors[source].cols;
    char name[LF_TENSOR_NAME_MAX];
    memcpy(name, program->tensors[source].name, sizeof name); // the list of tensors moves when it grows
    lf_op *op = lf_builder_op(b, LF_OP_GATHER_ROWS, LF_PHASE_LOAD, width, width);
    op->operands[LF_GATHER_ROWS_SOURCE] = source;
    op->operands[LF_GATHER_ROWS_ORDER] = program->order;
    op->operands[LF_GATHER_ROWS_SCHEDULE] = program->schedule;
    op->operands[LF_GATHER_ROWS_OUT] =
        lf_builder_tensor(b, LF_REGION_BATCH, program->real, b->params->batch, width, "batch/", name);
    return op->operands[LF_GATHER_ROWS_OUT];
}

// The teachers' forward passes, and the mean of what they say, softened for classes.
static lf_tensor_id build_teachers(lf_builder *b)
{
    const lf_compile_params *p = b->params;
    uint32_t width = p->model->outputs;
    bool softens = lf_loss_of_classes(p->loss);
    lf_tensor_id mean = LF_NO_TENSOR;
    b->teaches = true;
    for (unsigned i = 0; i < p->distill.teacher_count; i++) {
        char prefix[TEACHER_PREFIX];
        name_teacher(i, prefix);
        b->model = p->distill.teachers[i];
        b->prefix = prefix;
        lf_tensor_id z = lf_builder_forward(b);
        b->tape_count = 0; // nothing is learned here
        b->prefix = "";
        if (!softens && p->distill.teacher_count == 1) {
            mean = z;
            break;
        }
        if (!i)
            mean = lf_builder_acts(b, width, "", "teacher");
        lf_op *op = lf_builder_op(b, LF_OP_SOFTEN, LF_PHASE_FORWARD, width, width);
        op->operands[LF_SOFTEN_Z] = z;
        op->operands[LF_SOFTEN_OUT] = mean;
        op->temperature = softens ? p->distill.temperature : 0;
        op->share = 1 / (float)p->distill.teacher_count;
        op->adds = i > 0;
    }
    b->teaches = false;
    b->model = p->model;
    return mean;
}

static void set_value_loss(lf_op *op, lf_loss loss, float share)
{
    static const uint32_t values[LF_LOSS_COUNT] = { [LF_LOSS_BINARY_CROSS_ENTROPY] = LF_VALUE_BINARY,
                                                    [LF_LOSS_MSE] = LF_VALUE_MSE,
                                                    [LF_LOSS_MAE] = LF_VALUE_MAE,
                                                    [LF_LOSS_HUBER] = LF_VALUE_HUBER };
    op->value = values[loss];
    op->share = share;
}

static lf_op *add_loss(lf_builder *b, lf_op_kind kind, uint32_t width, lf_tensor_id z, lf_tensor_id target,
                       lf_tensor_id weights)
{
    lf_op *op = lf_builder_op(b, kind, LF_PHASE_FORWARD, width, width);
    op->operands[LF_LOSS_Z] = z;
    op->operands[LF_LOSS_TARGET] = target;
    op->operands[LF_LOSS_SCHEDULE] = b->program->schedule;
    op->operands[LF_LOSS_METRICS] = b->program->metrics;
    op->operands[LF_LOSS_WEIGHTS] = weights;
    return op;
}

// The hints' losses, on top of the model's.
static void build_hints(lf_builder *b, lf_tensor_id weights)
{
    for (size_t i = 0; i < b->tape_count; i++) {
        lf_tape_entry *entry = &b->tape[i];
        if (entry->kind != LF_TAPE_HINT)
            continue;
        const lf_layer *layer = entry->layer;
        entry->waiting = lf_builder_acts(b, layer->projected, "grad/projected/", layer->name);
        lf_op *op =
            add_loss(b, LF_OP_VALUE_LOSS, layer->projected, entry->saved, b->taps[layer - b->model->layers], weights);
        op->operands[LF_LOSS_DZ] = entry->waiting;
        set_value_loss(op, LF_LOSS_MSE, layer->weight);
        op->adds = true;
    }
}

// Returns the gradient to the output; LF_NO_TENSOR outside training.
static lf_tensor_id build_loss(lf_builder *b, lf_tensor_id teacher, lf_tensor_id weights)
{
    const lf_compile_params *p = b->params;
    bool classes = lf_loss_of_classes(p->loss);
    uint32_t width = p->model->outputs;
    lf_tensor_id dz = lf_builder_trains(b) ? lf_builder_acts(b, width, "grad/", "output") : LF_NO_TENSOR;
    lf_op_kind kind = !classes ? LF_OP_VALUE_LOSS : p->distill.on ? LF_OP_DISTILL : LF_OP_CROSS_ENTROPY;
    lf_op *op = add_loss(b, kind, width, b->program->output, b->batch_y, weights);
    op->operands[LF_LOSS_DZ] = dz;
    op->operands[LF_LOSS_TEACHER] = teacher;
    op->soft_weight = p->distill.alpha;
    if (classes) {
        op->temperature = p->distill.temperature;
        op->label_smoothing = p->loss_options.label_smoothing;
    } else {
        set_value_loss(op, p->loss, 1);
        op->delta = p->loss == LF_LOSS_HUBER ? p->loss_options.delta : 0;
    }
    return dz;
}

static bool build(lf_builder *b)
{
    const lf_compile_params *p = b->params;
    size_t layers = p->model->layer_count;
    for (unsigned i = 0; i < p->distill.teacher_count; i++)
        if (p->distill.teachers[i]->layer_count > layers)
            layers = p->distill.teachers[i]->layer_count;
    lay_out_regions(b);
    b->tape = calloc(2 * layers, sizeof *b->tape);
    if (p->distill.teacher_count)
        b->taps = calloc(layers, sizeof *b->taps);
    if (b->failed || !b->tape || (p->distill.teacher_count && !b->taps))
        return false;
    build_load(b);
    lf_tensor_id teacher = LF_NO_TENSOR, weights = LF_NO_TENSOR;
    if (p->weighted)
        weights = build_rows(b, b->program->row_weights);
    if (p->distill.teacher_count)
        teacher = build_teachers(b);
    else if (p->distill.on)
        teacher = build_rows(b, b->program->teacher);
    b->program->output = lf_builder_forward(b);
    if (p->loss != LF_LOSS_NONE) {
        lf_tensor_id dz = build_loss(b, teacher, weights);
        if (lf_builder_trains(b)) {
            build_hints(b, weights);
            lf_builder_backward(b, dz);
        }
    }
    if (is_spread(p))
        lf_builder_spread(b);
    if (lf_builder_trains(b))
        lf_builder_update(b);
    return !b->failed;
}

// Element indices are 32 bits wide on devices.
static bool teachers_fit(const lf_compile_params *p)
{
    uint64_t params = 0, state = 0;
    for (unsigned i = 0; i < p->distill.teacher_count; i++) {
        params += p->distill.teachers[i]->block_count;
        state += p->distill.teachers[i]->state_count;
    }
    return params <= UINT32_MAX && state <= UINT32_MAX;
}

static bool check(const lf_compile_params *p, lf_error *err)
{
    if (!p->batch || !p->rows || !p->positions || !p->steps)
        lf_error_set(err, LF_EARG, "batch, rows, positions and steps must be at least 1, not %u, %u, %u and %u",
                     p->batch, p->rows, p->positions, p->steps);
    else if ((uint64_t)p->steps * p->batch > UINT32_MAX / LF_METRIC_COUNT)
        lf_error_set(err, LF_EARG, "a stretch of %u steps of %u rows is too long: at most %u rows", p->steps, p->batch,
                     UINT32_MAX / LF_METRIC_COUNT);
    else if (!(p->loss_options.label_smoothing >= 0 && p->loss_options.label_smoothing < 1))
        lf_error_set(err, LF_EARG, "label_smoothing must be at least 0 and below 1, not %g",
                     (double)p->loss_options.label_smoothing);
    else if (p->loss == LF_LOSS_HUBER && !(p->loss_options.delta > 0))
        lf_error_set(err, LF_EARG, "delta must be above 0, not %g", (double)p->loss_options.delta);
    else if (p->optimizer.clip_norm != 0 && p->optimizer.clip_value != 0)
        lf_error_set(err, LF_EARG, "clip_norm and clip_value exclude each other, but %g and %g are given",
                     (double)p->optimizer.clip_norm, (double)p->optimizer.clip_value);
    else if (!teachers_fit(p))
        lf_error_set(err, LF_EUNSUPPORTED, "%u teachers have too many parameters together: at most %u numbers",
                     p->distill.teacher_count, UINT32_MAX);
    else if (p->optimizer.kind != LF_OPTIMIZER_NONE && p->loss == LF_LOSS_NONE)
        lf_error_set(err, LF_EARG, "loss: training with %s needs one", lf_optimizer_name(p->optimizer.kind));
    else if (p->loss == LF_LOSS_CROSS_ENTROPY && p->model->outputs < 2)
        lf_error_set(err, LF_EARG,
                     "loss \"cross_entropy\" needs at least 2 outputs (one a class), but the model has %u",
                     p->model->outputs);
    else
        return lf_shards_check(p->shards, p->batch, err);
    return false;
}

static void clear_tensors(lf_program *program)
{
    program->targets = program->grads = program->metrics = program->state = program->teacher = LF_NO_TENSOR;
    program->row_weights = program->average = program->teacher_params = program->teacher_state = LF_NO_TENSOR;
    for (unsigned i = 0; i < LF_MOMENT_COUNT; i++)
        program->moment[i] = LF_NO_TENSOR;
}

lf_program *lf_program_compile(const lf_compile_params *params, lf_error *err)
{
    if (!check(params, err))
        return NULL;
    lf_program *program = calloc(1, sizeof *program);
    lf_builder b = { .program = program, .model = params->model, .prefix = "" };
    bool built = false;
    if (program) {
        program->params = *params;
        program->real = params->oracle ? LF_F64 : LF_F32;
        clear_tensors(program);
        b.params = &program->params;
        program->shard_rows = params->batch;
        if (is_spread(params)) // what is built first is one shard
            program->shard_rows = program->params.batch = (params->batch + params->shards - 1) / params->shards;
        built = build(&b);
        if (is_spread(params))
            program->params.batch *= params->shards;
        program->params.held = NULL;
    }
    free(b.tape);
    free(b.taps);
    if (!built) {
        lf_error_set(err, LF_ENOMEM, "step program of %zu layers: out of memory", params->model->layer_count);
        lf_program_destroy(program);
        return NULL;
    }
    lf_segments_number(program);
    lf_hazards_mark(program);
    return program;
}

void lf_program_destroy(lf_program *program)
{
    if (!program)
        return;
    for (size_t i = 0; i < program->exchange_count; i++)
        free(program->exchanges[i].parts);
    free(program->exchanges);
    free(program->tensors);
    free(program->ops);
    free(program);
}
