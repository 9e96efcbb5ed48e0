// Tensors in their regions, and the list of operations.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program/builder.h"

static size_t align(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

size_t lf_tensor_bytes(const lf_tensor *tensor)
{
    return (size_t)tensor->rows * tensor->cols * lf_dtype_size(tensor->type);
}

bool lf_tensors_overlap(const lf_tensor *a, const lf_tensor *b)
{
    return a->region == b->region && a->offset < b->offset + lf_tensor_bytes(b) &&
           b->offset < a->offset + lf_tensor_bytes(a);
}

const lf_tensor *lf_op_tensor(const lf_program *program, const lf_op *op, unsigned operand)
{
    lf_tensor_id id = op->operands[operand];
    return id == LF_NO_TENSOR ? NULL : &program->tensors[id];
}

bool lf_program_segments(const lf_program *program, lf_phase first, lf_phase last, uint32_t *from, uint32_t *to)
{
    bool found = false;
    for (size_t i = 0; i < program->op_count; i++) {
        const lf_op *op = &program->ops[i];
        if (op->phase < first || op->phase > last)
            continue;
        if (!found)
            *from = op->segment;
        *to = op->segment;
        found = true;
    }
    return found;
}

// A tensor at a place of its own in a region that another tensor already lays out.
lf_tensor_id lf_builder_view(lf_builder *b, lf_region region, lf_dtype type, uint32_t rows, uint32_t cols,
                             size_t offset, const char *prefix, const char *name)
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
    snprintf(tensor->name, sizeof tensor->name, "%s%.*s", prefix, LF_NAME_MAX - 1, name);
    return (lf_tensor_id)program->tensor_count++;
}

// A tensor at the end of its region.
lf_tensor_id lf_builder_tensor(lf_builder *b, lf_region region, lf_dtype type, uint32_t rows, uint32_t cols,
                               const char *prefix, const char *name)
{
    size_t *size = &b->program->region_size[region];
    lf_tensor_id id = lf_builder_view(b, region, type, rows, cols, *size, prefix, name);
    *size = align(*size + (size_t)rows * cols * lf_dtype_size(type));
    return id;
}

lf_op *lf_builder_op(lf_builder *b, lf_op_kind kind, lf_phase phase, uint32_t inputs, uint32_t outputs)
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
    *op = (lf_op){ .kind = kind,
                   .phase = phase,
                   .rows = b->params->batch,
                   .batch = b->params->batch,
                   .inputs = inputs,
                   .outputs = outputs };
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++)
        op->operands[i] = LF_NO_TENSOR;
    return op;
}

lf_tensor_id lf_builder_acts(lf_builder *b, uint32_t width, const char *prefix, const char *name)
{
    char whole[48];
    snprintf(whole, sizeof whole, "%s%s", b->prefix, prefix);
    return lf_builder_tensor(b, LF_REGION_ACTS, b->program->real, b->params->batch, width, whole, name);
}

lf_tensor_id lf_builder_param(const lf_builder *b, const char *prefix, const lf_layer *layer, const char *part)
{
    char name[LF_TENSOR_NAME_MAX];
    snprintf(name, sizeof name, "%s%s%.*s/%s", b->prefix, prefix, LF_LAYER_NAME_MAX, layer->name, part);
    for (size_t i = 0; i < b->program->tensor_count; i++)
        if (!strcmp(b->program->tensors[i].name, name))
            return (lf_tensor_id)i;
    return LF_NO_TENSOR;
}
