// Layouts that C, GLSL and CUDA share. Everything is 32-bit words, little-endian, without padding.
#ifndef LF_ABI_H
#define LF_ABI_H

#ifdef VULKAN // glslc defines it
#define LF_UINT uint
#else
#include <stdint.h>
#define LF_UINT uint32_t
#endif

// The `schedule` region: a header, whose first word is the step counter, then one row for each step of the stretch.
// Step i of a submission reads row counter + i; the end of a submission adds the number of its steps to the counter.
#define LF_SCHEDULE_HEADER_WORDS 8
#define LF_SCHEDULE_ROW_WORDS    8

struct lf_schedule_header {
    LF_UINT counter;
    LF_UINT seed_low, seed_high; // of the training, for dropout
    LF_UINT reserved[5];
};

struct lf_schedule_row {
    LF_UINT first;            // index into `order` of the batch's first row
    LF_UINT rows;             // rows in this batch, 1 … batch; the rest of the batch is zero and counts nowhere
    float inv_rows;           // 1 / rows
    float lr;                 // learning rate
    float step_size;          // adam, adamw: lr / (1 - beta1^t)
    float inv_sqrt_correct2;  // adam, adamw: 1 / sqrt(1 - beta2^t)
    LF_UINT step;             // training step, from 0, low 32 bits
    LF_UINT reserved;
};

// The `metrics` region: for each step of the stretch and each row of its batch, two floats.
#define LF_METRIC_LOSS  0 // loss of the row
#define LF_METRIC_HIT   1 // 1: the largest logit is the label's (the first of equals counts); else 0
#define LF_METRIC_COUNT 2

// Activations, by number (specialization constant in shaders).
#define LF_ACT_NONE       0
#define LF_ACT_RELU       1
#define LF_ACT_LEAKY_RELU 2 // x < 0: alpha x
#define LF_ACT_ELU        3 // x < 0: alpha (exp x - 1)
#define LF_ACT_GELU       4 // x Phi(x), the exact form with erf
#define LF_ACT_SILU       5 // x sigmoid(x)
#define LF_ACT_TANH       6
#define LF_ACT_SIGMOID    7
#define LF_ACT_SOFTPLUS   8 // log(1 + exp x)
#define LF_ACT_COUNT      9

#endif
