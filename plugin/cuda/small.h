// Small programs: those that one kernel of a few blocks can run for many steps without leaving shared memory. See
// shaders/small.cu. Pure, as lower.h is.
#ifndef LF_CUDA_SMALL_H
#define LF_CUDA_SMALL_H

#include <stddef.h>

#include "cuda/lower.h"

typedef struct cu_small {
    // All its blocks must run at once: a cooperative launch. Set call.step to the steps of the submission, at least 1,
    // and call.operand[LF_SMALL_SCRATCH] (small_layout.h) to the scratch memory. It moves the schedule's counter
    // itself. launch.shared may be more than 48 KiB.
    cu_launch launch;
    size_t scratch; // bytes of device memory that it needs
    size_t zeroed;  // as many from the start must be zero before every launch
} cu_small;

// Whether whole steps of the program can run that way, and how: a network of two linear layers with cross-entropy, and
// sgd or adam without more. `shared`: bytes of shared memory that a block may have; `blocks`: how many of them with so
// much can run at once on the device. Never where the environment variable LAVAFLOW_FUSE is "0". It writes
// weights, moments, metrics and the model's output, and leaves gradients and other activations as they were.
bool cu_small_fits(const lf_program *prog, const uint64_t address[LF_REGION_COUNT], size_t shared, uint32_t blocks,
                   cu_small *small);

#endif
