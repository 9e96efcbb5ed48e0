// What the files that compile a program share: layout.c makes tensors and operations, forward.c and backward.c turn
// layers into operations, compile.c puts them together. Only program/ includes this.
#ifndef LF_PROGRAM_BUILDER_H
#define LF_PROGRAM_BUILDER_H

#include "program/program.h"

// One layer's doing in the forward pass, in order; the backward pass walks them from the end.
typedef struct lf_tape_entry {
    enum {
        LF_TAPE_LINEAR,
        LF_TAPE_ACTIVATION,
        LF_TAPE_DROPOUT,
        LF_TAPE_LAYER_NORM,
        LF_TAPE_BATCH_NORM,
        LF_TAPE_FORK,
        LF_TAPE_JOIN,
        LF_TAPE_HINT
    } kind;
    const lf_layer *layer;      // linear with an activation behind it: the linear one. fork and join: the residual
    const lf_layer *activation; // linear: the one behind it, or NULL; activation: itself
    lf_tensor_id x;
    lf_tensor_id saved;   // what the activation's derivative is a function of; hint: the projection
    lf_tensor_id stats;   // norms
    lf_tensor_id waiting; // fork: the gradient that goes past the inner layers, from join to fork; hint: the gradient
                          // to the projection
} lf_tape_entry;

typedef struct lf_builder {
    lf_program *program;
    const lf_compile_params *params;
    // Whose layers are being turned into operations: the model, or a teacher, which only runs forward.
    const lf_model *model;
    const char *prefix; // of its tensors' names: "", "teacher_1/"
    bool teaches;
    lf_tape_entry *tape; // [capacity: twice the layers]
    size_t tape_count;
    lf_tensor_id *taps; // [layers of the model]: what a hint layer has to match; NULL: hints do nothing
    lf_tensor_id batch_x, batch_y;
    bool failed; // out of memory
} lf_builder;

bool lf_builder_trains(const lf_builder *b);

// A tensor at a place of its own in a region that another tensor already lays out.
lf_tensor_id lf_builder_view(lf_builder *b, lf_region region, lf_dtype type, uint32_t rows, uint32_t cols,
                             size_t offset, const char *prefix, const char *name);
// A tensor at the end of its region.
lf_tensor_id lf_builder_tensor(lf_builder *b, lf_region region, lf_dtype type, uint32_t rows, uint32_t cols,
                               const char *prefix, const char *name);
// (batch, width) of the program's real type in `acts`; its name begins with b->prefix.
lf_tensor_id lf_builder_acts(lf_builder *b, uint32_t width, const char *prefix, const char *name);
// An operation at the end of the list, with no operands yet. Never NULL; when memory has run out it is thrown away.
lf_op *lf_builder_op(lf_builder *b, lf_op_kind kind, lf_phase phase, uint32_t inputs, uint32_t outputs);
// A parameter of b->model, or with prefix "grad/" its gradient; LF_NO_TENSOR if the layer has none of that name.
lf_tensor_id lf_builder_param(const lf_builder *b, const char *prefix, const lf_layer *layer, const char *part);

void lf_builder_set_activation(lf_op *op, const lf_layer *activation);

// Operations that turn batch_x into b->model's output; fills the tape.
lf_tensor_id lf_builder_forward(lf_builder *b);
// Operations that turn the gradient to the output into those to the parameters.
void lf_builder_backward(lf_builder *b, lf_tensor_id dy);
// update.c: from the gradients to the new weights.
void lf_builder_update(lf_builder *b);

#endif
