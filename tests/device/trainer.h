// A small training at the seam: a model, synthetic rows and a full schedule, on any device.
#ifndef LF_TEST_TRAINER_H
#define LF_TEST_TRAINER_H

#include "rig.h"

#define LINEAR(i, o)                                                                                                   \
    {                                                                                                                  \
        .kind = LF_LAYER_LINEAR, .inputs = (i), .outputs = (o)                                                         \
    }
#define ACTIVATION(act)                                                                                                \
    {                                                                                                                  \
        .kind = LF_LAYER_ACTIVATION, .activation = (act), .alpha = ACTIVATION_ALPHA(act)                               \
    }
#define ACTIVATION_ALPHA(act) ((act) == LF_ACT_LEAKY_RELU ? .01f : (act) == LF_ACT_ELU ? .75f : 0)

#define DROPOUT(p)                                                                                                     \
    {                                                                                                                  \
        .kind = LF_LAYER_DROPOUT, .rate = (p)                                                                          \
    }
#define LAYER_NORM(n)                                                                                                  \
    {                                                                                                                  \
        .kind = LF_LAYER_LAYER_NORM, .inputs = (n), .outputs = (n)                                                     \
    }
#define BATCH_NORM(n)                                                                                                  \
    {                                                                                                                  \
        .kind = LF_LAYER_BATCH_NORM, .inputs = (n), .outputs = (n)                                                     \
    }
#define RESIDUAL(layers)                                                                                               \
    {                                                                                                                  \
        .kind = LF_LAYER_RESIDUAL, .span = (layers)                                                                    \
    }

enum { TRAINER_LAYERS = 16 };

typedef struct test_training {
    const char *what;
    lf_layer layers[TRAINER_LAYERS];
    size_t layer_count;
    lf_loss loss;
    lf_optimizer optimizer;
    uint32_t rows, batch, steps; // the last batch of a pass over the rows may be short
    lf_dtype stored;
    float soft_weight, temperature; // distillation, where there is a temperature
} test_training;

typedef struct test_trainer {
    lf_model *model;
    lf_program *program;
    test_rig rig;
} test_trainer;

// Everything is filled, norms and running statistics with numbers of no special kind, and nothing has run. The same
// inputs whatever the device; `in_float64` for the oracle.
void trainer_init(test_trainer *trainer, lf_device *dev, const test_training *training, bool in_float64);
void trainer_finish(test_trainer *trainer);
void trainer_run(test_trainer *trainer); // all steps, one submission

// Weights, running statistics, moments and metrics as the device holds them, one after the other. The caller frees.
unsigned char *trainer_bits(const test_trainer *trainer, size_t *size);

#endif
