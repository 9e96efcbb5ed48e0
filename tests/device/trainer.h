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
    uint32_t shards;             // of a batch; 0: none
    lf_dtype stored;
    double zeros; // share of x that is 0; only of F32
    float soft_weight, temperature; // distillation, where there is a temperature
    lf_loss_options loss_options;
    bool fuses;        // see lf_compile_params
    bool weighted;     // rows have weights, some of them 0
    uint32_t batches;  // an update; 0: 1
    float average;     // decay of the moving average of the weights; 0: none
    unsigned teachers; // of the same layers with other weights, that run in the program; the row's stand for none
    lf_hint hints[2];  // at the first teacher
    size_t hint_count;
} test_training;

enum { TRAINER_TEACHERS = 3 };

typedef struct test_trainer {
    lf_model *model;
    lf_model *teachers[TRAINER_TEACHERS];
    lf_program *program;
    test_rig rig;
} test_trainer;

// Everything is filled, norms and running statistics with numbers of no special kind, and nothing has run. The same
// inputs whatever the device; `in_float64` for the oracle.
void trainer_init(test_trainer *trainer, lf_device *dev, const test_training *training, bool in_float64);
void trainer_finish(test_trainer *trainer);
void trainer_run(test_trainer *trainer); // all steps, one submission

// The schedule, from the first row on; `weights` are the resident rows', or NULL where all are 1.
void trainer_put_schedule(test_trainer *trainer, const test_training *training, const double *order,
                          const double *weights);

// Weights, running statistics, moments, average and metrics as the device holds them, one after the other. The caller
// frees.
unsigned char *trainer_bits(const test_trainer *trainer, size_t *size);

#endif
