// A model and its training options become a step program. Read build() for the order of things.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "program/hazards.h"
#include "program/program.h"

// A linear layer with the activation behind it, or an activation that stands alone.
typedef struct group {
    const lf_layer *linear, *activation; // either may be NULL, not both
    lf_tensor_id kernel, bias, dkernel, dbias;
    lf_tensor_id x, y;                   // (batch, inputs), (batch, outputs)
    lf_tensor_id saved;                  // what the activation's derivative is a function of
} group;

typedef struct builder {
    lf_program *program;
    const lf_compile_params *params;
    group *groups;
    size_t group_count;
    lf_tensor_id batch_y;
    bool failed; // out of memory
} builder;

static bool training(const builder *b)
{
    return b->params->optimizer.kind != LF_OPTIMIZER_NONE;
}

static size_t align(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

size_t lf_tensor_bytes(const lf_tensor *tensor)
{
    return (size_t)tensor->rows * tensor->cols * lf_dtype_size(tensor->type);
}

const lf_tensor *lf_op_tensor(const lf_program *program, const lf_op *op, unsigned operand)
{
    lf_tensor_id id = op->operands[operand];
    return id == LF_NO_TENSOR ? NULL : &program->tensors[id];
}

// A tensor at a place of its own in a region that another tensor already lays out.
static lf_tensor_id add_view(builder *b, lf_region region, lf_dtype type, uint32_t rows, uint32_t cols, size_t offset,
                             const char *prefix, const char *name)
{
    lf_program *program = b->program;
    lf_tensor *tensors = realloc(program->tensors, (program->tensor_count + 1) * sizeof *tensors);
    if (!tensors) {
        b->failed = true;
        return LF_NO_TENSOR;
    }
    program->tensors = tensors;
    lf_tensor *tensor = &tensors[program->tensor_count];
    *tensor = (lf_tensor){ .region = region, .type = type, .rows = rows, .cols = cols, .offset = offset };
    snprintf(tensor->name, sizeof tensor->name, "%s%.*s", prefix, LF_NAME_MAX - 8, name);
    return (lf_tensor_id)program->tensor_count++;
}

// A tensor at the end of its region.
static lf_tensor_id add_tensor(builder *b, lf_region region, lf_dtype type, uint32_t rows, uint32_t cols,
                               const char *prefix, const char *name)
{
    size_t *size = &b->program->region_size[region];
    lf_tensor_id id = add_view(b, region, type, rows, cols, *size, prefix, name);
    *size = align(*size + (size_t)rows * cols * lf_dtype_size(type));
    return id;
}

static lf_op *add_op(builder *b, lf_op_kind kind, lf_phase phase, uint32_t inputs, uint32_t outputs)
{
    static lf_op spare; // written to, and thrown away with the program, once memory has run out
    lf_program *program = b->program;
    lf_op *ops = realloc(program->ops, (program->op_count + 1) * sizeof *ops);
    lf_op *op = &spare;
    if (ops) {
        program->ops = ops;
        op = &ops[program->op_count++];
    } else {
        b->failed = true;
    }
    *op = (lf_op){ .kind = kind, .phase = phase, .rows = b->params->batch, .inputs = inputs, .outputs = outputs };
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++)
        op->operands[i] = LF_NO_TENSOR;
    return op;
}

static lf_tensor_id find_param(const builder *b, const char *prefix, const lf_layer *layer, const char *part)
{
    char name[LF_NAME_MAX];
    snprintf(name, sizeof name, "%s%.*s/%s", prefix, LF_LAYER_NAME_MAX, layer->name, part);
    for (size_t i = 0; i < b->program->tensor_count; i++)
        if (!strcmp(b->program->tensors[i].name, name))
            return (lf_tensor_id)i;
    return LF_NO_TENSOR;
}

static void add_params(builder *b, lf_region region, const char *prefix)
{
    const lf_model *model = b->params->model;
    size_t real = lf_dtype_size(b->program->real);
    for (size_t i = 0; i < model->tensor_count; i++) {
        const lf_param *param = &model->tensors[i];
        add_view(b, region, b->program->real, param->rows ? param->rows : 1, param->cols, param->offset * real, prefix,
                 param->name);
    }
}

static void lay_out_regions(builder *b)
{
    lf_program *program = b->program;
    const lf_compile_params *p = b->params;
    const lf_model *model = p->model;
    uint32_t block = (uint32_t)model->block_count;
    lf_dtype real = program->real;

    program->data = add_tensor(b, LF_REGION_DATA, p->stored, p->rows, model->inputs, "", "data");
    program->scaling = add_tensor(b, LF_REGION_SCALING, LF_F32, 2, model->inputs, "", "scaling");
    program->order = add_tensor(b, LF_REGION_ORDER, LF_U32, 1, p->positions, "", "order");
    program->schedule = add_tensor(b, LF_REGION_SCHEDULE, LF_U32, p->steps + 1, LF_SCHEDULE_ROW_WORDS, "", "schedule");
    program->weights = add_tensor(b, LF_REGION_PARAMS, real, 1, block, "", "params");
    add_params(b, LF_REGION_PARAMS, "");
    program->targets = program->metrics = program->grads = program->m = program->v = b->batch_y = LF_NO_TENSOR;
    if (p->loss != LF_LOSS_NONE) {
        bool classes = p->loss == LF_LOSS_CROSS_ENTROPY;
        uint32_t width = classes ? 1 : model->outputs;
        program->targets = add_tensor(b, LF_REGION_TARGETS, classes ? LF_U32 : LF_F32, p->rows, width, "", "targets");
        program->metrics = add_tensor(b, LF_REGION_METRICS, real, p->steps * p->batch, LF_METRIC_COUNT, "", "metrics");
        b->batch_y = add_tensor(b, LF_REGION_BATCH, classes ? LF_U32 : real, p->batch, width, "", "y");
    }
    if (training(b)) {
        unsigned moments = lf_optimizer_moments(&p->optimizer);
        program->grads = add_tensor(b, LF_REGION_GRADS, real, 1, block, "", "grads");
        add_params(b, LF_REGION_GRADS, "grad/");
        if (moments >= 1)
            program->m = add_tensor(b, LF_REGION_MOMENTS, real, 1, block, "", "m");
        if (moments >= 2)
            program->v = add_tensor(b, LF_REGION_MOMENTS, real, 1, block, "", "v");
    }
}

static bool find_groups(builder *b)
{
    const lf_model *model = b->params->model;
    b->groups = calloc(model->layer_count, sizeof *b->groups);
    if (!b->groups)
        return false;
    for (size_t i = 0; i < model->layer_count; i++) {
        const lf_layer *layer = &model->layers[i];
        group *last = b->group_count ? &b->groups[b->group_count - 1] : NULL;
        if (layer->kind == LF_LAYER_ACTIVATION && last && last->linear && !last->activation)
            last->activation = layer;
        else if (layer->kind == LF_LAYER_LINEAR)
            b->groups[b->group_count++] = (group){
                .linear = layer,
                .kernel = find_param(b, "", layer, "kernel"),
                .bias = find_param(b, "", layer, "bias"),
                .dkernel = find_param(b, "grad/", layer, "kernel"),
                .dbias = find_param(b, "grad/", layer, "bias"),
            };
        else
            b->groups[b->group_count++] = (group){ .activation = layer };
    }
    return true;
}

static uint32_t group_width(const group *g)
{
    return g->linear ? g->linear->outputs : g->activation->outputs;
}

static void set_activation(lf_op *op, const group *g)
{
    if (g->activation) {
        op->activation = g->activation->activation;
        op->alpha = g->activation->alpha;
    }
}

static void build_forward(builder *b)
{
    lf_program *program = b->program;
    uint32_t batch = b->params->batch, inputs = b->params->model->inputs;
    lf_tensor_id x = add_tensor(b, LF_REGION_BATCH, program->real, batch, inputs, "", "x");
    lf_op *gather = add_op(b, LF_OP_GATHER, LF_PHASE_LOAD, inputs, inputs);
    gather->operands[LF_GATHER_DATA] = program->data;
    gather->operands[LF_GATHER_TARGETS] = program->targets;
    gather->operands[LF_GATHER_SCALING] = program->scaling;
    gather->operands[LF_GATHER_ORDER] = program->order;
    gather->operands[LF_GATHER_SCHEDULE] = program->schedule;
    gather->operands[LF_GATHER_X] = x;
    gather->operands[LF_GATHER_Y] = b->batch_y;

    for (size_t i = 0; i < b->group_count; i++) {
        group *g = &b->groups[i];
        uint32_t width = group_width(g);
        g->x = x;
        g->y = g->saved = add_tensor(b, LF_REGION_ACTS, program->real, batch, width, "",
                                     (g->activation ? g->activation : g->linear)->name);
        bool keep_input = training(b) && g->activation && lf_activation_needs_input(g->activation->activation);
        if (g->linear) {
            lf_op *op = add_op(b, LF_OP_LINEAR, LF_PHASE_FORWARD, g->linear->inputs, width);
            op->operands[LF_LINEAR_X] = x;
            op->operands[LF_LINEAR_KERNEL] = g->kernel;
            op->operands[LF_LINEAR_BIAS] = g->bias;
            op->operands[LF_LINEAR_Y] = g->y;
            set_activation(op, g);
            if (keep_input)
                op->operands[LF_LINEAR_Z] = g->saved =
                    add_tensor(b, LF_REGION_ACTS, program->real, batch, width, "", g->linear->name);
        } else {
            lf_op *op = add_op(b, LF_OP_ACTIVATION, LF_PHASE_FORWARD, width, width);
            op->operands[LF_ACTIVATION_X] = x;
            op->operands[LF_ACTIVATION_Y] = g->y;
            set_activation(op, g);
            if (keep_input)
                g->saved = x;
        }
        x = g->y;
    }
    program->output = x;
}

// dx = dy ⊙ act'(saved), where the gradient did not come through a product that could do it on the way.
static lf_tensor_id through_activation(builder *b, const group *g, lf_tensor_id dy)
{
    if (!g->activation)
        return dy;
    uint32_t width = group_width(g);
    lf_op *op = add_op(b, LF_OP_ACTIVATION_DX, LF_PHASE_BACKWARD, width, width);
    op->operands[LF_ACTIVATION_DX_DY] = dy;
    op->operands[LF_ACTIVATION_DX_SAVED] = g->saved;
    op->operands[LF_ACTIVATION_DX_DX] =
        add_tensor(b, LF_REGION_ACTS, b->program->real, b->params->batch, width, "grad/",
                   g->linear ? g->linear->name : g->activation->name);
    set_activation(op, g);
    return op->operands[LF_ACTIVATION_DX_DX];
}

static void build_loss(builder *b, lf_tensor_id *dz)
{
    lf_program *program = b->program;
    const lf_compile_params *p = b->params;
    uint32_t width = p->model->outputs;
    if (training(b))
        *dz = add_tensor(b, LF_REGION_ACTS, program->real, p->batch, width, "grad/", "output");
    lf_op *op = add_op(b, p->loss == LF_LOSS_MSE ? LF_OP_MSE : LF_OP_CROSS_ENTROPY, LF_PHASE_FORWARD, width, width);
    op->operands[LF_LOSS_Z] = program->output;
    op->operands[LF_LOSS_TARGET] = b->batch_y;
    op->operands[LF_LOSS_SCHEDULE] = program->schedule;
    op->operands[LF_LOSS_METRICS] = program->metrics;
    op->operands[LF_LOSS_DZ] = *dz;
}

static void build_linear_dw(builder *b, const group *g, lf_tensor_id dz)
{
    lf_op *op = add_op(b, LF_OP_LINEAR_DW, LF_PHASE_BACKWARD, g->linear->inputs, g->linear->outputs);
    op->operands[LF_LINEAR_DW_X] = g->x;
    op->operands[LF_LINEAR_DW_DY] = dz;
    op->operands[LF_LINEAR_DW_DKERNEL] = g->dkernel;
    op->operands[LF_LINEAR_DW_DBIAS] = g->dbias;
}

// Returns the gradient to what goes into the activation of the group before, or to that group's output if it has none.
static lf_tensor_id build_linear_dx(builder *b, const group *g, const group *before, lf_tensor_id dz)
{
    lf_op *op = add_op(b, LF_OP_LINEAR_DX, LF_PHASE_BACKWARD, g->linear->inputs, g->linear->outputs);
    op->operands[LF_LINEAR_DX_DY] = dz;
    op->operands[LF_LINEAR_DX_KERNEL] = g->kernel;
    if (before->activation) {
        op->operands[LF_LINEAR_DX_SAVED] = before->saved;
        set_activation(op, before);
    }
    const lf_layer *named = before->linear ? before->linear : before->activation;
    lf_tensor_id dx = add_tensor(b, LF_REGION_ACTS, b->program->real, b->params->batch, g->linear->inputs, "grad/",
                                 named->name);
    op->operands[LF_LINEAR_DX_DX] = dx;
    return dx;
}

// `dy` is the gradient to the last group's output. In the loop, dz is the gradient to what goes into the activation of
// group i, or comes out of its product.
static void build_backward(builder *b, lf_tensor_id dy)
{
    size_t first_linear = 0; // nothing in front of it has parameters
    while (!b->groups[first_linear].linear)
        first_linear++;
    lf_tensor_id dz = through_activation(b, &b->groups[b->group_count - 1], dy);
    for (size_t i = b->group_count; i-- > first_linear;) {
        const group *g = &b->groups[i], *before = i > first_linear ? &b->groups[i - 1] : NULL;
        if (g->linear)
            build_linear_dw(b, g, dz);
        if (before)
            dz = g->linear ? build_linear_dx(b, g, before, dz) : through_activation(b, before, dz);
    }
}

static void build_update(builder *b)
{
    lf_program *program = b->program;
    const lf_optimizer *optimizer = &b->params->optimizer;
    uint32_t count = (uint32_t)b->params->model->block_count;
    lf_op *op = add_op(b, optimizer->kind == LF_OPTIMIZER_SGD ? LF_OP_SGD : LF_OP_ADAM, LF_PHASE_UPDATE, count, count);
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

static bool build(builder *b)
{
    lay_out_regions(b);
    if (b->failed || !find_groups(b))
        return false;
    build_forward(b);
    lf_tensor_id dz = LF_NO_TENSOR;
    if (b->params->loss != LF_LOSS_NONE)
        build_loss(b, &dz);
    if (training(b)) {
        build_backward(b, dz);
        build_update(b);
    }
    return !b->failed;
}

static bool check(const lf_compile_params *p, lf_error *err)
{
    if (!p->batch || !p->rows || !p->positions || !p->steps)
        lf_error_set(err, LF_EARG, "batch, rows, positions and steps must be at least 1, not %u, %u, %u and %u", p->batch,
                     p->rows, p->positions, p->steps);
    else if ((uint64_t)p->steps * p->batch > UINT32_MAX / LF_METRIC_COUNT)
        lf_error_set(err, LF_EARG, "a stretch of %u steps of %u rows is too long: at most %u rows", p->steps, p->batch,
                     UINT32_MAX / LF_METRIC_COUNT);
    else if (p->optimizer.kind != LF_OPTIMIZER_NONE && p->loss == LF_LOSS_NONE)
        lf_error_set(err, LF_EARG, "loss: training with %s needs one", lf_optimizer_name(p->optimizer.kind));
    else if (p->loss == LF_LOSS_CROSS_ENTROPY && p->model->outputs < 2)
        lf_error_set(err, LF_EARG, "loss \"cross_entropy\" needs at least 2 outputs (one a class), but the model has %u",
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
    builder b = { .program = program };
    bool built = false;
    if (program) {
        program->params = *params;
        program->real = params->oracle ? LF_F64 : LF_F32;
        b.params = &program->params;
        built = build(&b);
    }
    free(b.groups);
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
