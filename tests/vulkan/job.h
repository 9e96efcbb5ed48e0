// A small training or evaluation for the Vulkan tests: a program with data, ready to run on any device.
#ifndef LF_TEST_JOB_H
#define LF_TEST_JOB_H

#include "device/device.h"

#define LINEAR(n, m)                                                                                                   \
    {                                                                                                                  \
        .kind = LF_LAYER_LINEAR, .inputs = (n), .outputs = (m)                                                         \
    }
#define ACT(act)                                                                                                       \
    {                                                                                                                  \
        .kind = LF_LAYER_ACTIVATION, .activation = LF_ACT_##act                                                        \
    }

typedef struct job_spec {
    lf_layer layers[12];
    size_t layer_count;
    lf_loss loss;
    bool distill; // with cross_entropy
    bool fuses;   // see lf_compile_params
    lf_optimizer optimizer;
    lf_dtype stored;
    uint32_t batch, rows, steps;
    float poison; // if not 0, it stands in the data at row 1
} job_spec;

typedef struct job {
    lf_device *device;
    lf_model *model;
    lf_program *program;
    lf_bindings regions;
    lf_exec *exec;
} job;

// Fails the test on any error.
job job_create(const char *device, const job_spec *spec, bool oracle);
void job_destroy(job *job);
// Runs and waits.
void job_run(job *job, lf_phase first, lf_phase last, uint32_t steps);
// A whole tensor of numbers or labels, not of stored data, as doubles; malloc'ed.
double *job_read(job *job, lf_tensor_id tensor, size_t *count);
// Fails the test unless |a - b| <= bound (1 + |b|) everywhere, NaN equal to NaN.
void job_expect_close(job *a, job *b, lf_tensor_id tensor, double bound);
// Fails the test unless the two tensors have equal bits.
void job_expect_equal(job *a, job *b, lf_tensor_id tensor);

#endif
