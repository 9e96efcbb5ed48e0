// The options of a training as lf_train takes them. train.c and evaluate.c call this.
#ifndef LF_BINDING_TRAIN_OPTIONS_H
#define LF_BINDING_TRAIN_OPTIONS_H

#include "binding/binding.h"
#include "train/train.h"

// Reads the table at `options`. What the parameters point to is kept by values that this leaves on the stack.
void lf_read_train_params(lua_State *L, int options, lf_train_params *params);

// The options of the loss. The class weights, or nil, stay on the stack.
typedef struct lf_loss_fields {
    lf_loss loss;
    lf_loss_options options;
    const float *class_weights;
    uint32_t class_weight_count;
} lf_loss_fields;
lf_loss_fields lf_read_loss(lua_State *L, int options);

// What evaluation and prediction share: model, batch, device, window.
void lf_read_evaluate_params(lua_State *L, int options, lf_evaluate_params *params);

#endif
