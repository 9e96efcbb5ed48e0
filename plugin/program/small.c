#include "program/small.h"

#include <stdlib.h>
#include <string.h>

#include "abi.h"

// The operations of a small program, each found once; NULL: not there, or there are more of them.
typedef struct parts {
    const lf_op *gather, *linear[2], *loss, *dx, *gradient[2];
} parts;

static const lf_op **place_for(parts *found, lf_op_kind kind)
{
    switch (kind) {
    case LF_OP_GATHER:
        return &found->gather;
    case LF_OP_LINEAR:
        return &found->linear[found->linear[0] != NULL];
    case LF_OP_CROSS_ENTROPY:
        return &found->loss;
    case LF_OP_LINEAR_DX:
        return &found->dx;
    case LF_OP_LINEAR_DW:
        return &found->gradient[found->gradient[0] != NULL]; // of the last layer, then of the first
    default:
        return NULL;
    }
}

static bool is_sweep(const lf_op *op)
{
    return op->kind == LF_OP_SGD || op->kind == LF_OP_ADAM;
}

static bool find_parts(const lf_program *p, parts *found)
{
    *found = (parts){ 0 };
    for (size_t i = 0; i < p->op_count; i++) {
        const lf_op *op = &p->ops[i], **place = place_for(found, op->kind);
        if (!place && is_sweep(op))
            continue;
        if (!place || *place || op->rows != p->params.batch) // a shard has fewer rows
            return false;
        *place = op;
    }
    return found->gather && found->linear[1] && found->loss && found->dx && found->gradient[1];
}

// Operand `i` of `a` is operand `j` of `b`.
static bool joins(const lf_op *a, unsigned i, const lf_op *b, unsigned j)
{
    return a->operands[i] == b->operands[j];
}

static bool is_gradient_of(const lf_op *gradient, const lf_op *linear, const lf_op *from, unsigned dy)
{
    return joins(gradient, LF_LINEAR_DW_X, linear, LF_LINEAR_X) && joins(gradient, LF_LINEAR_DW_DY, from, dy);
}

static bool is_two_layers(const parts *f)
{
    const lf_op *first = f->linear[0], *last = f->linear[1];
    lf_tensor_id saved = first->operands[LF_LINEAR_Z];
    if (saved == LF_NO_TENSOR)
        saved = first->operands[LF_LINEAR_Y];
    return joins(f->gather, LF_GATHER_X, first, LF_LINEAR_X) &&
           joins(f->gather, LF_GATHER_Y, f->loss, LF_LOSS_TARGET) && joins(first, LF_LINEAR_Y, last, LF_LINEAR_X) &&
           joins(last, LF_LINEAR_Y, f->loss, LF_LOSS_Z) && last->activation == LF_ACT_NONE &&
           f->dx->activation == first->activation &&
           (f->dx->activation == LF_ACT_NONE || f->dx->operands[LF_LINEAR_DX_SAVED] == saved) &&
           joins(f->dx, LF_LINEAR_DX_DY, f->loss, LF_LOSS_DZ) &&
           joins(f->dx, LF_LINEAR_DX_KERNEL, last, LF_LINEAR_KERNEL) &&
           is_gradient_of(f->gradient[0], last, f->loss, LF_LOSS_DZ) &&
           is_gradient_of(f->gradient[1], first, f->dx, LF_LINEAR_DX_DX) &&
           f->loss->operands[LF_LOSS_WEIGHTS] == LF_NO_TENSOR && f->loss->operands[LF_LOSS_TEACHER] == LF_NO_TENSOR;
}

// An update that takes gradients as they are.
static bool is_plain_update(const lf_program *p, const lf_op *op, lf_op_kind optimizer)
{
    const lf_tensor *grads = lf_op_tensor(p, op, LF_UPDATE_GRADS), *params = lf_op_tensor(p, op, LF_UPDATE_PARAMS);
    return op->kind == optimizer && op->clip_value == 0 && grads->region == LF_REGION_GRADS &&
           grads->offset == params->offset && op->operands[LF_UPDATE_SCALE] == LF_NO_TENSOR;
}

// The operation that updates a tensor of parameters; NULL: none.
static const lf_op *update_of(const lf_program *p, const lf_tensor *param)
{
    for (size_t i = 0; param && i < p->op_count; i++) {
        const lf_op *op = &p->ops[i];
        if (is_sweep(op) && lf_tensors_overlap(lf_op_tensor(p, op, LF_UPDATE_PARAMS), param))
            return op;
    }
    return NULL;
}

static bool find_updates(const lf_program *p, lf_small *small)
{
    for (unsigned i = 0; i < 2; i++) {
        const lf_op *of_kernel = update_of(p, lf_op_tensor(p, small->linear[i], LF_LINEAR_KERNEL)),
                    *of_bias = update_of(p, lf_op_tensor(p, small->linear[i], LF_LINEAR_BIAS));
        if (!of_kernel || !of_bias ||
            (i && (of_kernel->weight_decay != small->kernel_decay || of_bias->weight_decay != small->bias_decay)))
            return false;
        small->update = of_kernel;
        small->kernel_decay = of_kernel->weight_decay;
        small->bias_decay = of_bias->weight_decay;
    }
    small->optimizer = small->update->kind;
    for (size_t i = 0; i < p->op_count; i++)
        if (is_sweep(&p->ops[i]) && !is_plain_update(p, &p->ops[i], small->optimizer))
            return false;
    return true;
}

bool lf_small_find(const lf_program *p, lf_small *small)
{
    const char *fuse = getenv("LAVAFLOW_FUSE");
    parts found;
    if ((fuse && !strcmp(fuse, "0")) || p->real != LF_F32 || p->exchange_count || !find_parts(p, &found) ||
        !is_two_layers(&found))
        return false;
    *small = (lf_small){ .gather = found.gather, .linear = { found.linear[0], found.linear[1] }, .loss = found.loss };
    return find_updates(p, small);
}

uint32_t lf_small_place(const lf_program *p, const lf_op *linear, unsigned operand)
{
    return (uint32_t)(lf_op_tensor(p, linear, operand)->offset / sizeof(float));
}
