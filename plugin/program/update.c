// From the gradients to the new weights: accumulated over batches, clipped, then one optimizer over the blocks, and the
// moving average behind it.
#include <stdio.h>
#include <stdlib.h>

#include "abi.h"
#include "program/builder.h"

// Part of the model's blocks, in floats.
typedef struct range {
    size_t first, count;
    bool decays;
    const char *name; // of its views: "" for the whole block
} range;

static lf_op *add_sweep(lf_builder *b, lf_op_kind kind, size_t count)
{
    lf_op *op = lf_builder_op(b, kind, LF_PHASE_UPDATE, (uint32_t)count, (uint32_t)count);
    op->rows = 1;
    return op;
}

// A range of a block as a tensor of its own; the block itself where the range is all of it.
static lf_tensor_id view(lf_builder *b, lf_tensor_id block, const range *r)
{
    if (block == LF_NO_TENSOR || r->count == b->params->model->block_count)
        return block;
    lf_tensor whole = b->program->tensors[block];
    size_t real = lf_dtype_size(whole.type);
    char prefix[16];
    snprintf(prefix, sizeof prefix, "%.14s/", whole.name);
    return lf_builder_view(b, whole.region, whole.type, 1, (uint32_t)r->count, whole.offset + r->first * real, prefix,
                           r->name);
}

static lf_tensor_id add_squares(lf_builder *b, lf_tensor_id x, const char *prefix, const char *name)
{
    lf_program *program = b->program;
    size_t count = (size_t)program->tensors[x].rows * program->tensors[x].cols;
    uint32_t partials = (uint32_t)((count + LF_SQUARES_CHUNK - 1) / LF_SQUARES_CHUNK);
    lf_op *op = add_sweep(b, LF_OP_SUM_SQUARES, count);
    op->operands[LF_SUM_SQUARES_X] = x;
    op->operands[LF_SUM_SQUARES_OUT] = lf_builder_tensor(b, LF_REGION_ACTS, program->real, 1, partials, prefix, name);
    return op->operands[LF_SUM_SQUARES_OUT];
}

// By what the whole gradient is multiplied so that its norm is at most clip_norm.
static lf_tensor_id build_clip(lf_builder *b, lf_tensor_id gradient)
{
    lf_tensor_id partials = add_squares(b, gradient, "squares/", "gradient");
    lf_op *op = add_sweep(b, LF_OP_CLIP, b->program->tensors[partials].cols);
    op->operands[LF_CLIP_PARTIALS] = partials;
    op->operands[LF_CLIP_SCALE] = lf_builder_tensor(b, LF_REGION_ACTS, b->program->real, 1, 1, "", "clip");
    op->clip_norm = b->params->optimizer.clip_norm;
    return op->operands[LF_CLIP_SCALE];
}

static lf_op_kind op_of(lf_optimizer_kind kind)
{
    switch (kind) {
    case LF_OPTIMIZER_SGD:
        return LF_OP_SGD;
    case LF_OPTIMIZER_RMSPROP:
        return LF_OP_RMSPROP;
    case LF_OPTIMIZER_LION:
        return LF_OP_LION;
    case LF_OPTIMIZER_LAMB:
        return LF_OP_LAMB;
    default:
        return LF_OP_ADAM;
    }
}

static lf_op *add_optimizer(lf_builder *b, const range *r, lf_tensor_id gradient, lf_tensor_id scale)
{
    const lf_program *program = b->program;
    const lf_optimizer *optimizer = &b->params->optimizer;
    lf_tensor_id grads = view(b, gradient, r), params = view(b, program->weights, r),
                 m = view(b, program->moment[LF_MOMENT_M], r), v = view(b, program->moment[LF_MOMENT_V], r);
    lf_op *op = add_sweep(b, op_of(optimizer->kind), r->count);
    op->operands[LF_UPDATE_SCHEDULE] = program->schedule;
    op->operands[LF_UPDATE_GRADS] = grads;
    op->operands[LF_UPDATE_PARAMS] = params;
    op->operands[LF_UPDATE_M] = m;
    op->operands[LF_UPDATE_V] = v;
    op->operands[LF_UPDATE_SCALE] = scale;
    op->beta1 = optimizer->beta1;
    op->beta2 = optimizer->beta2;
    op->eps = optimizer->eps;
    op->momentum = optimizer->momentum;
    op->nesterov = optimizer->nesterov;
    op->weight_decay = r->decays ? optimizer->weight_decay : 0;
    op->clip_value = optimizer->clip_value;
    op->decoupled = optimizer->kind == LF_OPTIMIZER_ADAMW;
    return op;
}

// w -= lr · scale · direction
static void add_step(lf_builder *b, lf_tensor_id direction, lf_tensor_id params, lf_tensor_id scale)
{
    lf_op *op = add_sweep(b, LF_OP_SGD, (size_t)b->program->tensors[params].rows * b->program->tensors[params].cols);
    op->operands[LF_UPDATE_SCHEDULE] = b->program->schedule;
    op->operands[LF_UPDATE_GRADS] = direction;
    op->operands[LF_UPDATE_PARAMS] = params;
    op->operands[LF_UPDATE_SCALE] = scale;
}

// One tensor's share of lamb's second half.
typedef struct trust {
    lf_tensor_id params, direction, weights, steps, scale;
} trust;

static trust add_norms(lf_builder *b, const lf_param *param, lf_tensor_id gradient)
{
    size_t padded = (lf_param_size(param) + LF_PARAM_ALIGN - 1) / LF_PARAM_ALIGN * LF_PARAM_ALIGN;
    const range one = { param->offset, padded, true, param->name };
    trust t = { .params = view(b, b->program->weights, &one), .direction = view(b, gradient, &one) };
    t.weights = add_squares(b, t.params, "squares/weights/", param->name);
    t.steps = add_squares(b, t.direction, "squares/direction/", param->name);
    return t;
}

static void add_trust(lf_builder *b, const char *name, trust *t)
{
    lf_op *op = add_sweep(b, LF_OP_TRUST, b->program->tensors[t->weights].cols);
    op->operands[LF_TRUST_WEIGHTS] = t->weights;
    op->operands[LF_TRUST_DIRECTION] = t->steps;
    t->scale = op->operands[LF_TRUST_SCALE] =
        lf_builder_tensor(b, LF_REGION_ACTS, b->program->real, 1, 1, "trust/", name);
}

// Each tensor of the range by itself, so far as its own norm allows: the second half of lamb. Stage after stage, since
// the tensors of a stage need no barriers between them.
static void build_trust(lf_builder *b, const range *r, lf_tensor_id gradient)
{
    const lf_model *model = b->params->model;
    trust *all = calloc(model->tensor_count, sizeof *all);
    b->failed |= !all;
    for (int stage = 0; all && stage < 3; stage++)
        for (size_t i = 0; i < model->tensor_count; i++) {
            const lf_param *param = &model->tensors[i];
            if (param->state || param->offset < r->first || param->offset >= r->first + r->count)
                continue;
            if (stage == 0)
                all[i] = add_norms(b, param, gradient);
            else if (stage == 1)
                add_trust(b, param->name, &all[i]);
            else
                add_step(b, all[i].direction, all[i].params, all[i].scale);
        }
    free(all);
}

static void build_range(lf_builder *b, const range *r, lf_tensor_id gradient, lf_tensor_id scale)
{
    add_optimizer(b, r, gradient, scale);
    if (b->params->optimizer.kind != LF_OPTIMIZER_LAMB)
        return;
    if (r->decays)
        build_trust(b, r, gradient);
    else
        add_step(b, view(b, gradient, r), view(b, b->program->weights, r), LF_NO_TENSOR);
}

// The sum of the gradients of the batches that share an update.
static lf_tensor_id build_sum(lf_builder *b)
{
    lf_program *program = b->program;
    uint32_t count = (uint32_t)b->params->model->block_count;
    // Not beside the gradients, whose region is made anew when shards are handed out again.
    lf_tensor_id sum = lf_builder_tensor(b, LF_REGION_MOMENTS, program->real, 1, count, "", "sum");
    lf_op *op = lf_builder_op(b, LF_OP_ACCUMULATE, LF_PHASE_REDUCE, count, count);
    op->rows = 1;
    op->operands[LF_ACCUMULATE_SCHEDULE] = program->schedule;
    op->operands[LF_ACCUMULATE_GRADS] = program->grads;
    op->operands[LF_ACCUMULATE_SUM] = sum;
    return sum;
}

void lf_builder_update(lf_builder *b)
{
    const lf_compile_params *p = b->params;
    const lf_optimizer *optimizer = &p->optimizer;
    size_t all = p->model->block_count, decays = p->model->decay_count;
    lf_tensor_id gradient = p->accumulates ? build_sum(b) : b->program->grads;
    lf_tensor_id scale = optimizer->clip_norm != 0 ? build_clip(b, gradient) : LF_NO_TENSOR;
    bool differ = optimizer->weight_decay != 0 || optimizer->kind == LF_OPTIMIZER_LAMB;
    if (differ && !optimizer->decay_bias && decays < all) {
        build_range(b, &(range){ 0, decays, true, "kernels" }, gradient, scale);
        build_range(b, &(range){ decays, all - decays, false, "others" }, gradient, scale);
    } else {
        build_range(b, &(range){ 0, all, true, "" }, gradient, scale);
    }
    if (p->average == 0)
        return;
    lf_op *op = add_sweep(b, LF_OP_AVERAGE, all);
    op->operands[LF_AVERAGE_SCHEDULE] = b->program->schedule;
    op->operands[LF_AVERAGE_PARAMS] = b->program->weights;
    op->operands[LF_AVERAGE_AVERAGE] = b->program->average;
    op->share = 1 - p->average;
}
