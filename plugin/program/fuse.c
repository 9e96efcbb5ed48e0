// The optimizer moves into the products that make its gradients: a linear_dw, and the part of an optimizer's sweep that
// is its kernel's and its bias's, become one linear_update in the sweep's place. It saves writing the gradients and
// reading them back. The last layer, its loss and its linear_dx become one linear_loss in the loss's place, which needs
// a third of the dispatches. Every other operation stays, and so does its order.
#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "program/builder.h"
#include "program/hazards.h"

typedef struct fusion {
    const lf_program *from;
    lf_builder b;          // of the new program
    size_t *sweeps[2];     // [op_count] each: of a linear_dw the sweeps of its kernel and its bias; op_count: none
    size_t last, loss, dx; // what becomes a linear_loss; op_count: none
} fusion;

static bool is_elementwise(lf_op_kind kind)
{
    return kind == LF_OP_SGD || kind == LF_OP_ADAM || kind == LF_OP_RMSPROP || kind == LF_OP_LION;
}

static bool covers(const lf_tensor *outer, const lf_tensor *inner)
{
    return outer->region == inner->region && inner->offset >= outer->offset &&
           inner->offset + lf_tensor_bytes(inner) <= outer->offset + lf_tensor_bytes(outer);
}

// The one operation that reads a gradient, if it is a sweep that takes it as it is; op_count otherwise.
static size_t find_sweep(const lf_program *p, const lf_tensor *gradient)
{
    size_t found = p->op_count;
    for (size_t i = 0; i < p->op_count; i++) {
        const lf_op *op = &p->ops[i];
        const lf_op_info *info = lf_op_info_of(op->kind);
        for (unsigned k = 0; k < LF_OPERAND_MAX; k++) {
            const lf_tensor *tensor = lf_op_tensor(p, op, k);
            if (!tensor || !info->operands[k].read || !lf_tensors_overlap(tensor, gradient))
                continue;
            bool takes = is_elementwise(op->kind) && k == LF_UPDATE_GRADS && covers(tensor, gradient) &&
                         op->operands[LF_UPDATE_SCALE] == LF_NO_TENSOR;
            if (!takes || found != p->op_count)
                return p->op_count;
            found = i;
        }
    }
    return found;
}

static void find_sweeps(fusion *f)
{
    const lf_program *p = f->from;
    for (size_t i = 0; i < p->op_count; i++) {
        const lf_op *op = &p->ops[i];
        size_t kernel = p->op_count, bias = p->op_count;
        if (op->kind == LF_OP_LINEAR_DW) {
            kernel = find_sweep(p, lf_op_tensor(p, op, LF_LINEAR_DW_DKERNEL));
            bias = find_sweep(p, lf_op_tensor(p, op, LF_LINEAR_DW_DBIAS));
        }
        bool both = kernel < p->op_count && bias < p->op_count;
        f->sweeps[0][i] = both ? kernel : p->op_count;
        f->sweeps[1][i] = both ? bias : p->op_count;
    }
}

// Whether an operation among `from` … to - 1 but `but` reads or writes what an operand of `op` does.
static bool is_touched(const lf_program *p, size_t from, size_t to, size_t but, const lf_op *op, unsigned operand)
{
    const lf_tensor *tensor = lf_op_tensor(p, op, operand);
    for (size_t i = from; i < to; i++)
        for (unsigned k = 0; k < LF_OPERAND_MAX; k++) {
            const lf_tensor *other = lf_op_tensor(p, &p->ops[i], k);
            if (i != but && &p->ops[i] != op && other && lf_tensors_overlap(other, tensor))
                return true;
        }
    return false;
}

static size_t find_op(const lf_program *p, lf_op_kind kind, size_t from)
{
    while (from < p->op_count && p->ops[from].kind != kind)
        from++;
    return from;
}

// The gradient to x comes at once where nothing between the loss and it has to do with it.
static size_t find_dx(const lf_program *p, size_t loss, const lf_op *last)
{
    const lf_tensor_id dz = p->ops[loss].operands[LF_LOSS_DZ];
    size_t dx = find_op(p, LF_OP_LINEAR_DX, loss);
    while (dx < p->op_count && (p->ops[dx].operands[LF_LINEAR_DX_DY] != dz ||
                                p->ops[dx].operands[LF_LINEAR_DX_KERNEL] != last->operands[LF_LINEAR_KERNEL]))
        dx = find_op(p, LF_OP_LINEAR_DX, dx + 1);
    if (dx == p->op_count || is_touched(p, 0, dx, p->op_count, &p->ops[dx], LF_LINEAR_DX_DX))
        return p->op_count;
    for (size_t i = loss + 1; i < dx; i++) // they only read what linear_loss reads, or have nothing to do with it
        if (p->ops[i].kind != LF_OP_LINEAR_DW)
            return p->op_count;
    return dx;
}

static void find_last(fusion *f, uint32_t classes)
{
    const lf_program *p = f->from;
    f->last = f->loss = f->dx = p->op_count;
    size_t at = find_op(p, LF_OP_CROSS_ENTROPY, 0);
    if (!at || at == p->op_count)
        return;
    const lf_op *loss = &p->ops[at], *last = loss - 1;
    if (last->kind != LF_OP_LINEAR || last->activation != LF_ACT_NONE || last->outputs > classes ||
        last->operands[LF_LINEAR_Y] != loss->operands[LF_LOSS_Z] || loss->operands[LF_LOSS_DZ] == LF_NO_TENSOR ||
        loss->operands[LF_LOSS_WEIGHTS] != LF_NO_TENSOR || is_touched(p, 0, p->op_count, at, last, LF_LINEAR_Y))
        return;
    f->loss = at;
    f->last = at - 1;
    f->dx = find_dx(p, at, last);
}

static lf_op *copy_op(fusion *f, const lf_op *op)
{
    lf_op *copy = lf_builder_op(&f->b, op->kind, op->phase, op->inputs, op->outputs);
    *copy = *op;
    copy->barrier = false;
    return copy;
}

// What of a sweep's operand belongs to a gradient: the tensor of that shape as far into it as the gradient is.
static lf_tensor_id part_of(fusion *f, const lf_op *sweep, unsigned operand, const lf_tensor *gradient)
{
    const lf_tensor *whole = lf_op_tensor(f->from, sweep, operand),
                    *grads = lf_op_tensor(f->from, sweep, LF_UPDATE_GRADS);
    if (!whole)
        return LF_NO_TENSOR;
    static const char *const prefixes[] = { [LF_UPDATE_PARAMS] = "", [LF_UPDATE_M] = "m/", [LF_UPDATE_V] = "v/" };
    const char *name = strchr(gradient->name, '/'); // "grad/linear_1/kernel"
    return lf_builder_view(&f->b, whole->region, whole->type, gradient->rows, gradient->cols,
                           whole->offset + (gradient->offset - grads->offset), prefixes[operand],
                           name ? name + 1 : gradient->name);
}

static void add_update(fusion *f, size_t dw)
{
    const lf_op *product = &f->from->ops[dw], *kernel = &f->from->ops[f->sweeps[0][dw]],
                *bias = &f->from->ops[f->sweeps[1][dw]];
    const lf_tensor *dkernel = lf_op_tensor(f->from, product, LF_LINEAR_DW_DKERNEL),
                    *dbias = lf_op_tensor(f->from, product, LF_LINEAR_DW_DBIAS);
    const lf_tensor_id operands[] = {
        [LF_LINEAR_UPDATE_X] = product->operands[LF_LINEAR_DW_X],
        [LF_LINEAR_UPDATE_DY] = product->operands[LF_LINEAR_DW_DY],
        [LF_LINEAR_UPDATE_SCHEDULE] = kernel->operands[LF_UPDATE_SCHEDULE],
        [LF_LINEAR_UPDATE_KERNEL] = part_of(f, kernel, LF_UPDATE_PARAMS, dkernel),
        [LF_LINEAR_UPDATE_KERNEL_M] = part_of(f, kernel, LF_UPDATE_M, dkernel),
        [LF_LINEAR_UPDATE_KERNEL_V] = part_of(f, kernel, LF_UPDATE_V, dkernel),
        [LF_LINEAR_UPDATE_BIAS] = part_of(f, bias, LF_UPDATE_PARAMS, dbias),
        [LF_LINEAR_UPDATE_BIAS_M] = part_of(f, bias, LF_UPDATE_M, dbias),
        [LF_LINEAR_UPDATE_BIAS_V] = part_of(f, bias, LF_UPDATE_V, dbias),
    };
    lf_op *op = copy_op(f, kernel); // with its rates, phase and segment
    op->kind = LF_OP_LINEAR_UPDATE;
    op->optimizer = kernel->kind;
    op->rows = product->rows;
    op->inputs = product->inputs;
    op->outputs = product->outputs;
    op->bias_decay = bias->weight_decay;
    memcpy(op->operands, operands, sizeof operands);
}

static void add_loss(fusion *f)
{
    const lf_program *p = f->from;
    const lf_op *last = &p->ops[f->last], *loss = &p->ops[f->loss], *dx = f->dx < p->op_count ? &p->ops[f->dx] : NULL;
    const lf_tensor_id operands[] = {
        [LF_LINEAR_LOSS_X] = last->operands[LF_LINEAR_X],
        [LF_LINEAR_LOSS_LABEL] = loss->operands[LF_LOSS_TARGET],
        [LF_LINEAR_LOSS_SCHEDULE] = loss->operands[LF_LOSS_SCHEDULE],
        [LF_LINEAR_LOSS_METRICS] = loss->operands[LF_LOSS_METRICS],
        [LF_LINEAR_LOSS_DZ] = loss->operands[LF_LOSS_DZ],
        [LF_LINEAR_LOSS_KERNEL] = last->operands[LF_LINEAR_KERNEL],
        [LF_LINEAR_LOSS_BIAS] = last->operands[LF_LINEAR_BIAS],
        [LF_LINEAR_LOSS_SAVED] = dx ? dx->operands[LF_LINEAR_DX_SAVED] : LF_NO_TENSOR,
        [LF_LINEAR_LOSS_DX] = dx ? dx->operands[LF_LINEAR_DX_DX] : LF_NO_TENSOR,
    };
    lf_op *op = copy_op(f, loss); // with its options, phase and segment
    op->kind = LF_OP_LINEAR_LOSS;
    op->inputs = last->inputs;
    op->activation = dx ? dx->activation : LF_ACT_NONE;
    op->alpha = dx ? dx->alpha : 0;
    memcpy(op->operands, operands, sizeof operands);
}

static size_t padded(size_t bytes, size_t real)
{
    size_t unit = LF_PARAM_ALIGN * real;
    return (bytes + unit - 1) / unit * unit;
}

// Where what is fused covers byte `at` of the gradients, the end of that cover; else `at`.
static size_t end_of_cover(const fusion *f, size_t at)
{
    const lf_program *p = f->from;
    for (size_t i = 0; i < p->op_count; i++) {
        if (f->sweeps[0][i] == p->op_count)
            continue;
        for (unsigned k = LF_LINEAR_DW_DKERNEL; k <= LF_LINEAR_DW_DBIAS; k++) {
            const lf_tensor *t = lf_op_tensor(p, &p->ops[i], k);
            size_t end = t->offset + padded(lf_tensor_bytes(t), lf_dtype_size(t->type));
            if (at >= t->offset && at < end)
                return end;
        }
    }
    return at;
}

static size_t next_cover(const fusion *f, size_t at, size_t end)
{
    while (at < end && end_of_cover(f, at) == at)
        at += LF_PARAM_ALIGN * lf_dtype_size(f->from->real);
    return at < end ? at : end;
}

// What is left of a sweep, in as many pieces as it takes.
static void add_rest(fusion *f, const lf_op *sweep)
{
    const lf_tensor *grads = lf_op_tensor(f->from, sweep, LF_UPDATE_GRADS);
    size_t real = lf_dtype_size(grads->type), end = grads->offset + lf_tensor_bytes(grads), at = grads->offset;
    while (at < end) {
        size_t covered = end_of_cover(f, at);
        if (covered > at) {
            at = covered;
            continue;
        }
        size_t stop = next_cover(f, at, end);
        lf_op *op = copy_op(f, sweep);
        op->inputs = op->outputs = (uint32_t)((stop - at) / real);
        for (unsigned k = LF_UPDATE_GRADS; k <= LF_UPDATE_V; k++) {
            const lf_tensor *whole = lf_op_tensor(f->from, sweep, k);
            if (whole)
                op->operands[k] = lf_builder_view(&f->b, whole->region, whole->type, 1, op->outputs,
                                                  whole->offset + (at - grads->offset), "rest/", whole->name);
        }
        at = stop;
    }
}

static void rewrite(fusion *f)
{
    const lf_program *p = f->from;
    for (size_t i = 0; i < p->op_count; i++) {
        if (f->sweeps[0][i] < p->op_count)
            continue; // comes with its sweep
        if (i == f->last || i == f->dx)
            continue; // come with the loss
        bool fused = false;
        for (size_t dw = 0; dw < p->op_count; dw++) {
            if (f->sweeps[0][dw] == i)
                add_update(f, dw);
            fused = fused || f->sweeps[0][dw] == i || f->sweeps[1][dw] == i;
        }
        if (i == f->loss)
            add_loss(f);
        else if (fused)
            add_rest(f, &p->ops[i]);
        else
            copy_op(f, &p->ops[i]);
    }
}

static bool copy_program(fusion *f)
{
    lf_program *to = f->b.program;
    const lf_program *from = f->from;
    *to = *from;
    to->ops = NULL;
    to->op_count = 0;
    to->tensors = malloc(from->tensor_count * sizeof *to->tensors);
    to->exchanges = NULL;
    to->exchange_count = 0;
    if (to->tensors)
        memcpy(to->tensors, from->tensors, from->tensor_count * sizeof *to->tensors);
    else
        to->tensor_count = 0;
    return to->tensors != NULL;
}

lf_program *lf_program_fuse(const lf_program *program, uint32_t classes, lf_error *err)
{
    lf_program *fused = calloc(1, sizeof *fused);
    fusion f = { .from = program, .b = { .program = fused, .params = &program->params } };
    for (unsigned i = 0; i < 2; i++)
        f.sweeps[i] = calloc(program->op_count, sizeof *f.sweeps[i]);
    bool ok = fused && f.sweeps[0] && f.sweeps[1] && copy_program(&f);
    if (ok) {
        find_sweeps(&f);
        find_last(&f, program->params.fuses && !program->exchange_count ? classes : 0);
        if (!program->params.fuses || program->exchange_count)
            for (size_t i = 0; i < program->op_count; i++)
                f.sweeps[0][i] = f.sweeps[1][i] = program->op_count;
        rewrite(&f);
        lf_hazards_mark(fused);
        ok = !f.b.failed;
    }
    free(f.sweeps[0]);
    free(f.sweeps[1]);
    if (ok)
        return fused;
    lf_error_set(err, LF_ENOMEM, "step program of %zu operations: out of memory", program->op_count);
    lf_program_destroy(fused);
    return NULL;
}
