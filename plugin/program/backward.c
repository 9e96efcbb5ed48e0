// The tape, walked from its end: gradients to every parameter, and to inputs as far as parameters lie before them.
#include "program/builder.h"

// The gradient that is handed from entry to entry. `through`: it already went through the activation of the entry that
// it is handed to, since linear_dx does that on the way.
typedef struct gradient {
    lf_tensor_id at;
    bool through;
} gradient;

static lf_tensor_id grad_acts(lf_builder *b, uint32_t width, const lf_layer *layer)
{
    return lf_builder_acts(b, width, "grad/", layer->name);
}

static lf_tensor_id through_activation(lf_builder *b, const lf_tape_entry *entry, gradient dy)
{
    if (!entry->activation || dy.through)
        return dy.at;
    uint32_t width = entry->layer->outputs;
    lf_op *op = lf_builder_op(b, LF_OP_ACTIVATION_DX, LF_PHASE_BACKWARD, width, width);
    op->operands[LF_ACTIVATION_DX_DY] = dy.at;
    op->operands[LF_ACTIVATION_DX_SAVED] = entry->saved;
    op->operands[LF_ACTIVATION_DX_DX] = grad_acts(b, width, entry->layer);
    lf_builder_set_activation(op, entry->activation);
    return op->operands[LF_ACTIVATION_DX_DX];
}

static void add_linear_dw(lf_builder *b, const lf_layer *layer, lf_tensor_id x, lf_tensor_id dy)
{
    lf_op *op = lf_builder_op(b, LF_OP_LINEAR_DW, LF_PHASE_BACKWARD, layer->inputs, layer->outputs);
    op->operands[LF_LINEAR_DW_X] = x;
    op->operands[LF_LINEAR_DW_DY] = dy;
    op->operands[LF_LINEAR_DW_DKERNEL] = lf_builder_param(b, "grad/", layer, "kernel");
    op->operands[LF_LINEAR_DW_DBIAS] = lf_builder_param(b, "grad/", layer, "bias");
}

// `before`, if not NULL, has an activation whose derivative is taken on the way.
static lf_tensor_id add_linear_dx(lf_builder *b, const lf_layer *layer, const lf_tape_entry *before, lf_tensor_id dy)
{
    lf_op *op = lf_builder_op(b, LF_OP_LINEAR_DX, LF_PHASE_BACKWARD, layer->inputs, layer->outputs);
    op->operands[LF_LINEAR_DX_DY] = dy;
    op->operands[LF_LINEAR_DX_KERNEL] = lf_builder_param(b, "", layer, "kernel");
    if (before) {
        op->operands[LF_LINEAR_DX_SAVED] = before->saved;
        lf_builder_set_activation(op, before->activation);
    }
    op->operands[LF_LINEAR_DX_DX] = grad_acts(b, layer->inputs, before ? before->layer : layer);
    return op->operands[LF_LINEAR_DX_DX];
}

static gradient backward_linear(lf_builder *b, const lf_tape_entry *entry, const lf_tape_entry *before, gradient dy)
{
    lf_tensor_id dz = through_activation(b, entry, dy);
    add_linear_dw(b, entry->layer, entry->x, dz);
    if (!before)
        return (gradient){ LF_NO_TENSOR, false };
    bool fuses = before->activation != NULL;
    return (gradient){ add_linear_dx(b, entry->layer, fuses ? before : NULL, dz), fuses };
}

static gradient backward_dropout(lf_builder *b, const lf_tape_entry *entry, gradient dy)
{
    const lf_layer *layer = entry->layer;
    lf_op *op = lf_builder_op(b, LF_OP_DROPOUT, LF_PHASE_BACKWARD, layer->inputs, layer->outputs);
    op->operands[LF_DROPOUT_X] = dy.at;
    op->operands[LF_DROPOUT_SCHEDULE] = b->program->schedule;
    op->operands[LF_DROPOUT_Y] = grad_acts(b, layer->inputs, layer);
    op->rate = layer->rate;
    op->stream = (uint32_t)(layer - b->model->layers);
    return (gradient){ op->operands[LF_DROPOUT_Y], false };
}

static void add_norm_dw(lf_builder *b, const lf_tape_entry *entry, lf_tensor_id dy)
{
    const lf_layer *layer = entry->layer;
    lf_op *op = lf_builder_op(b, LF_OP_NORM_DW, LF_PHASE_BACKWARD, layer->inputs, layer->outputs);
    op->operands[LF_NORM_DW_X] = entry->x;
    op->operands[LF_NORM_DW_DY] = dy;
    op->operands[LF_NORM_DW_STATS] = entry->stats;
    op->operands[LF_NORM_DW_DGAMMA] = lf_builder_param(b, "grad/", layer, "gamma");
    op->operands[LF_NORM_DW_DBETA] = lf_builder_param(b, "grad/", layer, "beta");
    op->by_row = entry->kind == LF_TAPE_LAYER_NORM;
}

static gradient backward_layer_norm(lf_builder *b, const lf_tape_entry *entry, const lf_tape_entry *before, gradient dy)
{
    const lf_layer *layer = entry->layer;
    add_norm_dw(b, entry, dy.at);
    if (!before)
        return (gradient){ LF_NO_TENSOR, false };
    lf_op *op = lf_builder_op(b, LF_OP_LAYER_NORM_DX, LF_PHASE_BACKWARD, layer->inputs, layer->outputs);
    op->operands[LF_LAYER_NORM_DX_X] = entry->x;
    op->operands[LF_LAYER_NORM_DX_DY] = dy.at;
    op->operands[LF_LAYER_NORM_DX_GAMMA] = lf_builder_param(b, "", layer, "gamma");
    op->operands[LF_LAYER_NORM_DX_STATS] = entry->stats;
    op->operands[LF_LAYER_NORM_DX_DX] = grad_acts(b, layer->inputs, layer);
    return (gradient){ op->operands[LF_LAYER_NORM_DX_DX], false };
}

static gradient backward_batch_norm(lf_builder *b, const lf_tape_entry *entry, const lf_tape_entry *before, gradient dy)
{
    const lf_layer *layer = entry->layer;
    add_norm_dw(b, entry, dy.at);
    if (!before)
        return (gradient){ LF_NO_TENSOR, false };
    lf_op *op = lf_builder_op(b, LF_OP_BATCH_NORM_DX, LF_PHASE_BACKWARD, layer->inputs, layer->outputs);
    op->operands[LF_BATCH_NORM_DX_X] = entry->x;
    op->operands[LF_BATCH_NORM_DX_DY] = dy.at;
    op->operands[LF_BATCH_NORM_DX_GAMMA] = lf_builder_param(b, "", layer, "gamma");
    op->operands[LF_BATCH_NORM_DX_STATS] = entry->stats;
    op->operands[LF_BATCH_NORM_DX_DGAMMA] = lf_builder_param(b, "grad/", layer, "gamma");
    op->operands[LF_BATCH_NORM_DX_DBETA] = lf_builder_param(b, "grad/", layer, "beta");
    op->operands[LF_BATCH_NORM_DX_SCHEDULE] = b->program->schedule;
    op->operands[LF_BATCH_NORM_DX_DX] = grad_acts(b, layer->inputs, layer);
    return (gradient){ op->operands[LF_BATCH_NORM_DX_DX], false };
}

static lf_tensor_id add_sum(lf_builder *b, const lf_layer *layer, uint32_t width, lf_tensor_id a, lf_tensor_id c)
{
    lf_op *op = lf_builder_op(b, LF_OP_ADD, LF_PHASE_BACKWARD, width, width);
    op->operands[LF_ADD_A] = a;
    op->operands[LF_ADD_B] = c;
    op->operands[LF_ADD_Y] = lf_builder_acts(b, width, "grad/sum/", layer->name);
    return op->operands[LF_ADD_Y];
}

// The gradient of the projection joins the one that comes from behind.
static gradient backward_hint(lf_builder *b, const lf_tape_entry *entry, const lf_tape_entry *before, gradient dy)
{
    lf_layer projection = *entry->layer;
    projection.outputs = projection.projected;
    add_linear_dw(b, &projection, entry->x, entry->waiting);
    if (!before)
        return (gradient){ LF_NO_TENSOR, false };
    lf_tensor_id dx = add_linear_dx(b, &projection, NULL, entry->waiting);
    return (gradient){ add_sum(b, entry->layer, entry->layer->inputs, dy.at, dx), false };
}

static bool has_params(const lf_tape_entry *entry)
{
    bool projects = entry->kind == LF_TAPE_JOIN && entry->layer->inputs != entry->layer->outputs;
    return projects || entry->kind == LF_TAPE_HINT || entry->kind == LF_TAPE_LINEAR ||
           entry->kind == LF_TAPE_LAYER_NORM || entry->kind == LF_TAPE_BATCH_NORM;
}

// The entry in front of entry `index`; NULL when no parameter lies there, so that no gradient is needed.
static const lf_tape_entry *find_before(const lf_builder *b, size_t index)
{
    for (size_t i = 0; i < index; i++)
        if (has_params(&b->tape[i]))
            return &b->tape[index - 1];
    return NULL;
}

static size_t find_fork(const lf_builder *b, const lf_tape_entry *join)
{
    size_t i = 0;
    while (b->tape[i].kind != LF_TAPE_FORK || b->tape[i].layer != join->layer)
        i++;
    return i;
}

// The gradient that goes past the inner layers. It waits in the fork's entry until they are done.
static void backward_join(lf_builder *b, const lf_tape_entry *join, gradient dy)
{
    size_t fork = find_fork(b, join);
    const lf_layer *layer = join->layer;
    bool projects = layer->inputs != layer->outputs, needed = find_before(b, fork) != NULL;
    b->tape[fork].waiting = dy.at;
    if (projects)
        add_linear_dw(b, layer, join->x, dy.at);
    if (projects && needed)
        b->tape[fork].waiting = add_linear_dx(b, layer, NULL, dy.at);
}

void lf_builder_backward(lf_builder *b, lf_tensor_id output)
{
    gradient dy = { output, false };
    for (size_t i = b->tape_count; i-- > 0 && dy.at != LF_NO_TENSOR;) {
        const lf_tape_entry *entry = &b->tape[i], *before = find_before(b, i);
        if (!before && !has_params(entry))
            break;
        switch (entry->kind) {
        case LF_TAPE_LINEAR:
            dy = backward_linear(b, entry, before, dy);
            break;
        case LF_TAPE_ACTIVATION:
            dy = (gradient){ through_activation(b, entry, dy), false };
            break;
        case LF_TAPE_DROPOUT:
            dy = backward_dropout(b, entry, dy);
            break;
        case LF_TAPE_LAYER_NORM:
            dy = backward_layer_norm(b, entry, before, dy);
            break;
        case LF_TAPE_BATCH_NORM:
            dy = backward_batch_norm(b, entry, before, dy);
            break;
        case LF_TAPE_JOIN:
            backward_join(b, entry, dy);
            break;
        case LF_TAPE_HINT:
            dy = backward_hint(b, entry, before, dy);
            break;
        case LF_TAPE_FORK:
            dy = (gradient){ add_sum(b, entry->layer, entry->layer->inputs, dy.at, entry->waiting), false };
        }
    }
}
