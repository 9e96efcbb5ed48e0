// Layers become operations, in the order in which they run.
#include <string.h>

#include "abi.h"
#include "program/builder.h"

void lf_builder_set_activation(lf_op *op, const lf_layer *activation)
{
    if (activation) {
        op->activation = activation->activation;
        op->alpha = activation->alpha;
    }
}

static lf_tape_entry *add_entry(lf_builder *b, int kind, const lf_layer *layer, lf_tensor_id x)
{
    lf_tape_entry *entry = &b->tape[b->tape_count++];
    *entry = (lf_tape_entry){
        .kind = kind, .layer = layer, .x = x, .saved = LF_NO_TENSOR, .stats = LF_NO_TENSOR, .waiting = LF_NO_TENSOR
    };
    return entry;
}

static bool keeps_input(const lf_builder *b, const lf_layer *activation)
{
    return lf_builder_trains(b) && activation && lf_activation_needs_input(activation->activation);
}

// x·kernel + bias with the activation behind it, or NULL; `z`, if not NULL and asked for, gets what goes into that.
static lf_tensor_id add_linear(lf_builder *b, const lf_layer *layer, const lf_layer *activation, lf_tensor_id x,
                               lf_tensor_id *z)
{
    uint32_t width = layer->outputs;
    lf_tensor_id y = lf_builder_acts(b, width, "", (activation ? activation : layer)->name);
    lf_op *op = lf_builder_op(b, LF_OP_LINEAR, LF_PHASE_FORWARD, layer->inputs, width);
    op->operands[LF_LINEAR_X] = x;
    op->operands[LF_LINEAR_KERNEL] = lf_builder_param(b, "", layer, "kernel");
    op->operands[LF_LINEAR_BIAS] = lf_builder_param(b, "", layer, "bias");
    op->operands[LF_LINEAR_Y] = y;
    lf_builder_set_activation(op, activation);
    if (keeps_input(b, activation))
        op->operands[LF_LINEAR_Z] = *z = lf_builder_acts(b, width, "", layer->name);
    return y;
}

static lf_tensor_id forward_linear(lf_builder *b, const lf_layer *layer, const lf_layer *activation, lf_tensor_id x)
{
    lf_tape_entry *entry = add_entry(b, LF_TAPE_LINEAR, layer, x);
    entry->activation = activation;
    lf_tensor_id y = add_linear(b, layer, activation, x, &entry->saved);
    if (entry->saved == LF_NO_TENSOR)
        entry->saved = y;
    return y;
}

static lf_tensor_id forward_activation(lf_builder *b, const lf_layer *layer, lf_tensor_id x)
{
    lf_tape_entry *entry = add_entry(b, LF_TAPE_ACTIVATION, layer, x);
    lf_op *op = lf_builder_op(b, LF_OP_ACTIVATION, LF_PHASE_FORWARD, layer->inputs, layer->outputs);
    op->operands[LF_ACTIVATION_X] = x;
    lf_tensor_id y = op->operands[LF_ACTIVATION_Y] = lf_builder_acts(b, layer->outputs, "", layer->name);
    lf_builder_set_activation(op, layer);
    entry->activation = layer;
    entry->saved = keeps_input(b, layer) ? x : y;
    return y;
}

static lf_tensor_id forward_dropout(lf_builder *b, const lf_layer *layer, lf_tensor_id x)
{
    if (!lf_builder_trains(b) || layer->rate == 0)
        return x;
    add_entry(b, LF_TAPE_DROPOUT, layer, x);
    lf_op *op = lf_builder_op(b, LF_OP_DROPOUT, LF_PHASE_FORWARD, layer->inputs, layer->outputs);
    op->operands[LF_DROPOUT_X] = x;
    op->operands[LF_DROPOUT_SCHEDULE] = b->program->schedule;
    op->operands[LF_DROPOUT_Y] = lf_builder_acts(b, layer->outputs, "", layer->name);
    op->rate = layer->rate;
    op->stream = (uint32_t)(layer - b->model->layers);
    return op->operands[LF_DROPOUT_Y];
}

static lf_tensor_id forward_layer_norm(lf_builder *b, const lf_layer *layer, lf_tensor_id x)
{
    lf_tape_entry *entry = add_entry(b, LF_TAPE_LAYER_NORM, layer, x);
    lf_op *op = lf_builder_op(b, LF_OP_LAYER_NORM, LF_PHASE_FORWARD, layer->inputs, layer->outputs);
    op->operands[LF_NORM_X] = x;
    op->operands[LF_NORM_GAMMA] = lf_builder_param(b, "", layer, "gamma");
    op->operands[LF_NORM_BETA] = lf_builder_param(b, "", layer, "beta");
    op->operands[LF_NORM_STATS] = entry->stats = lf_builder_acts(b, 2, "stats/", layer->name);
    op->operands[LF_NORM_Y] = lf_builder_acts(b, layer->outputs, "", layer->name);
    op->eps = layer->eps;
    return op->operands[LF_NORM_Y];
}

// In training the batch's own statistics, which also move the running ones; elsewhere the running ones.
static lf_tensor_id forward_batch_norm(lf_builder *b, const lf_layer *layer, lf_tensor_id x)
{
    lf_tape_entry *entry = add_entry(b, LF_TAPE_BATCH_NORM, layer, x);
    uint32_t width = layer->outputs;
    lf_op *op = lf_builder_op(b, LF_OP_BATCH_STATS, LF_PHASE_FORWARD, width, width);
    op->operands[LF_BATCH_STATS_X] = x;
    op->operands[LF_BATCH_STATS_SCHEDULE] = b->program->schedule;
    op->operands[LF_BATCH_STATS_MEAN] = lf_builder_param(b, "", layer, "mean");
    op->operands[LF_BATCH_STATS_VARIANCE] = lf_builder_param(b, "", layer, "variance");
    op->operands[LF_BATCH_STATS_STATS] = entry->stats = lf_builder_tensor(
        b, LF_REGION_ACTS, b->program->real, 2, width, b->teaches ? "teacher/stats/" : "stats/", layer->name);
    op->eps = layer->eps;
    op->momentum = layer->momentum;
    op->training = lf_builder_trains(b);

    op = lf_builder_op(b, LF_OP_BATCH_NORM, LF_PHASE_FORWARD, width, width);
    op->operands[LF_NORM_X] = x;
    op->operands[LF_NORM_GAMMA] = lf_builder_param(b, "", layer, "gamma");
    op->operands[LF_NORM_BETA] = lf_builder_param(b, "", layer, "beta");
    op->operands[LF_NORM_STATS] = entry->stats;
    op->operands[LF_NORM_Y] = lf_builder_acts(b, width, "", layer->name);
    return op->operands[LF_NORM_Y];
}

// The projection that learns to match a teacher's layer; the layer itself changes nothing.
static lf_tensor_id forward_hint(lf_builder *b, const lf_layer *layer, lf_tensor_id x)
{
    if (!b->taps)
        return x;
    lf_layer projection = *layer;
    projection.outputs = layer->projected;
    lf_tape_entry *entry = add_entry(b, LF_TAPE_HINT, layer, x);
    entry->saved = add_linear(b, &projection, NULL, x, NULL);
    return x;
}

// Whether a hint of the model looks at this layer of the teacher's, whose output is `y`, if it is known yet.
static bool tap(lf_builder *b, const lf_layer *layer, lf_tensor_id y)
{
    const lf_model *model = b->params->model;
    bool tapped = false;
    for (size_t i = 0; b->teaches && b->taps && i < model->layer_count; i++)
        if (model->layers[i].kind == LF_LAYER_HINT && !strcmp(model->layers[i].target, layer->name)) {
            b->taps[i] = y;
            tapped = true;
        }
    return tapped;
}

static lf_tensor_id forward_layers(lf_builder *b, size_t first, size_t end, lf_tensor_id x);

static lf_tensor_id forward_residual(lf_builder *b, size_t index, lf_tensor_id x)
{
    const lf_layer *layer = &b->model->layers[index];
    add_entry(b, LF_TAPE_FORK, layer, x);
    lf_tensor_id inner = forward_layers(b, index + 1, index + 1 + layer->span, x), shortcut = x;
    if (layer->inputs != layer->outputs)
        shortcut = add_linear(b, layer, NULL, x, NULL);
    add_entry(b, LF_TAPE_JOIN, layer, x);
    lf_op *op = lf_builder_op(b, LF_OP_ADD, LF_PHASE_FORWARD, layer->outputs, layer->outputs);
    op->operands[LF_ADD_A] = inner;
    op->operands[LF_ADD_B] = shortcut;
    op->operands[LF_ADD_Y] = lf_builder_acts(b, layer->outputs, "sum/", layer->name);
    return op->operands[LF_ADD_Y];
}

static lf_tensor_id forward_layers(lf_builder *b, size_t first, size_t end, lf_tensor_id x)
{
    const lf_layer *layers = b->model->layers;
    for (size_t i = first; i < end; i++) {
        const lf_layer *layer = &layers[i];
        bool fuses = layer->kind == LF_LAYER_LINEAR && i + 1 < end && layers[i + 1].kind == LF_LAYER_ACTIVATION;
        const lf_layer *behind = fuses ? &layers[i + 1] : NULL;
        if (behind && tap(b, layer, LF_NO_TENSOR))
            behind = NULL; // what the hint looks at must stand in memory
        switch (layer->kind) {
        case LF_LAYER_LINEAR:
            x = forward_linear(b, layer, behind, x);
            i += behind != NULL;
            break;
        case LF_LAYER_ACTIVATION:
            x = forward_activation(b, layer, x);
            break;
        case LF_LAYER_DROPOUT:
            x = forward_dropout(b, layer, x);
            break;
        case LF_LAYER_LAYER_NORM:
            x = forward_layer_norm(b, layer, x);
            break;
        case LF_LAYER_BATCH_NORM:
            x = forward_batch_norm(b, layer, x);
            break;
        case LF_LAYER_RESIDUAL:
            x = forward_residual(b, i, x);
            i += layer->span;
            break;
        case LF_LAYER_HINT:
            x = forward_hint(b, layer, x);
            break;
        }
        tap(b, behind ? behind : layer, x);
    }
    return x;
}

lf_tensor_id lf_builder_forward(lf_builder *b)
{
    return forward_layers(b, 0, b->model->layer_count, b->batch_x);
}
