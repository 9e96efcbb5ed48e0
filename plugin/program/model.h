// A model: the layers that a script defines and one block of parameters. program/compile turns it into a step program;
// train/ keeps `params` up to date; binding/ makes models from Lua tables. Pure data.
#ifndef LF_PROGRAM_MODEL_H
#define LF_PROGRAM_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

struct lf_layer;

#define LF_NAME_MAX       64
#define LF_LAYER_NAME_MAX 40 // leaves room for "grad/" in front and "/kernel/m" behind

// Values of LF_ACT_* in shaders/abi.h.
typedef uint32_t lf_activation;
const char *lf_activation_name(lf_activation activation);      // "relu", …
bool lf_activation_find(const char *name, lf_activation *out); // false: no such activation
float lf_activation_default_alpha(lf_activation activation);   // leaky_relu 0.01, elu 1, else 0
bool lf_activation_needs_input(lf_activation activation);      // the derivative is a function of x, not of y

typedef enum lf_init {
    LF_INIT_UNIFORM, // ±1/√inputs, kernel and bias: the default (PyTorch's nn.Linear)
    LF_INIT_HE_NORMAL,
    LF_INIT_HE_UNIFORM,
    LF_INIT_GLOROT_NORMAL,
    LF_INIT_GLOROT_UNIFORM,
    LF_INIT_LECUN_NORMAL,
    LF_INIT_LECUN_UNIFORM,
    LF_INIT_ZEROS,
    LF_INIT_NORMAL,   // mean 0, deviation init_scale
    LF_INIT_CONSTANT, // init_scale
    LF_INIT_COUNT,
} lf_init;                              // all but the first set the bias to zero
const char *lf_init_name(lf_init init); // "he_normal", …
bool lf_init_find(const char *name, lf_init *out);

typedef enum lf_layer_kind {
    LF_LAYER_LINEAR,
    LF_LAYER_ACTIVATION,
    LF_LAYER_DROPOUT,    // in training, zeroes with probability `rate` and scales the rest by 1 / (1 - rate)
    LF_LAYER_BATCH_NORM, // Ioffe, Szegedy 2015; running statistics serve outside training
    LF_LAYER_LAYER_NORM, // Ba, Kiros, Hinton 2016
    LF_LAYER_RESIDUAL,   // the next `span` layers, plus what went into them (through a projection if widths differ)
    LF_LAYER_HINT,       // changes nothing, but where a teacher runs in the program, a projection of its input to the
                         // width of the teacher's layer `target` learns to match that; never in a definition
} lf_layer_kind;
const char *lf_layer_kind_name(const struct lf_layer *layer); // "linear", "relu", "batch_norm", …

typedef struct lf_layer {
    lf_layer_kind kind;
    char name[LF_NAME_MAX];   // "linear_1", "relu_1": filled by lf_model_create when empty
    uint32_t inputs, outputs; // linear and norms; the others take their width from the layer before, filled likewise
    uint32_t span;            // residual: how many of the following layers are inside, nested ones included
    lf_init init;             // linear, and the projection of a residual
    float init_scale;         // normal, constant
    lf_activation activation; // activation
    float alpha;              // leaky_relu, elu
    float rate;               // dropout
    float eps;                // norms; 1e-5 where 0
    float momentum;           // batch_norm: weight of the batch in the running statistics; 0.1 where 0
    uint32_t projected;       // hint: width of the teacher's layer
    float weight;             // hint: its loss, the mean square of the difference, is multiplied by it
    char target[LF_NAME_MAX]; // hint: name of the teacher's layer
} lf_layer;

typedef struct lf_param {
    char name[LF_NAME_MAX]; // "linear_1/kernel"
    uint32_t layer;         // index into layers
    uint32_t rows, cols;    // kernel (inputs, outputs); bias: rows 0, cols outputs
    size_t offset;          // in floats, from the start of its block; a multiple of LF_PARAM_ALIGN
    bool state;             // running statistics: in `state`, not in `params`, and no optimizer touches it
    float start;            // value at first, of what is not drawn: gamma and variance 1, else 0
} lf_param;

#define LF_PARAM_ALIGN 64 // floats: 256 bytes, at least every device's alignment of bindings

typedef struct lf_model {
    lf_layer *layers;
    size_t layer_count;
    uint32_t inputs, outputs;
    lf_param *tensors;
    size_t tensor_count;
    size_t param_count; // trainable numbers
    size_t block_count; // floats in the block, with zero padding between tensors
    size_t decay_count; // floats of its first part, which weight decay applies to: the kernels
    size_t state_count; // floats in the block of running statistics
    float *params;      // [block_count]; the current weights
    float *state;       // [state_count]
    bool initialised;   // weights were drawn, loaded or trained
    char run[40];       // UUID of the run that trained them; empty: not known
} lf_model;

// Copies `layers`, fills names and widths, checks that they fit: "layer 2 (linear_2): expects 128 inputs, but layer 1
// (linear_1) gives 64". At least one linear layer. NULL on failure.
lf_model *lf_model_create(const lf_layer *layers, size_t count, lf_error *err);
void lf_model_destroy(lf_model *model);

// What a hint matches: the output of a layer of the student with that of a layer of the teacher.
typedef struct lf_hint {
    const char *student, *teacher; // names of layers
    float weight;                  // of its loss; above 0
} lf_hint;

// The student with a hint layer behind each layer that `hints` names, with its weights; the projections are drawn with
// `seed`. NULL on failure, with the hint's number in the message.
lf_model *lf_model_with_hints(const lf_model *student, const lf_model *teacher, const lf_hint *hints, size_t count,
                              uint64_t seed, lf_error *err);
// Copies the tensors that both have under one name.
void lf_model_copy_shared(lf_model *to, const lf_model *from);

// Draws initial weights: a pure function of (seed, tensor index, element).
void lf_model_init(lf_model *model, uint64_t seed);

// Elements of a tensor, and where they are.
size_t lf_param_size(const lf_param *tensor);
float *lf_param_values(const lf_model *model, const lf_param *tensor);

// The definition as JSON, with keys in a fixed order, so that equal models have equal text:
// {"layers":[{"kind":"linear","name":"linear_1","inputs":784,"outputs":128,"init":"uniform"},{"kind":"relu","name":"relu_1"}]}
// malloc'ed; NULL when out of memory.
char *lf_model_definition(const lf_model *model);

#endif
