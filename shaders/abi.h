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
#define LF_SCHEDULE_ROW_WORDS    12

struct lf_schedule_header {
    LF_UINT counter;
    LF_UINT seed_low, seed_high; // of the training, for dropout
    LF_UINT reserved[5];
};

struct lf_schedule_row {
    LF_UINT first;            // index into `order` of the batch's first row
    LF_UINT rows;             // rows in this batch, 1 … batch; the rest of the batch is zero and counts nowhere
    float inv_rows;           // 1 / rows
    float inv_weight;         // 1 / sum of the weights of all rows that the next update averages over (of their number,
                              // where rows have no weights; several batches, where gradients accumulate); 0 for a sum of 0
    float lr;                 // learning rate
    float step_size;          // adam, adamw: lr / (1 - beta1^t); lamb: 1 / (1 - beta1^t)
    float inv_sqrt_correct2;  // adam, adamw, lamb: 1 / sqrt(1 - beta2^t)
    LF_UINT step;             // training step, from 0, low 32 bits
    LF_UINT begins;           // 1: the first batch of an update's; else 0
    LF_UINT updates;          // 1: the last batch of an update's, so optimizer and average move; else 0: they do nothing
    LF_UINT reserved[2];
};

// The `metrics` region: for each step of the stretch and each row of its batch, five floats. Rows past the batch's: 0.
#define LF_METRIC_LOSS     0 // loss of the row times its weight
#define LF_METRIC_WEIGHT   1 // of the row; 1 where rows have no weights
// cross_entropy, distill:
#define LF_METRIC_LABEL    2
#define LF_METRIC_CLASS    3 // number of the largest logit, the first of equals; NaNs are passed over
#define LF_METRIC_RANK     4 // logits that beat the label's: larger, or equal and before it, or either is NaN. 0: a hit
// value_loss; p is z, with binary_cross_entropy sigmoid(z):
#define LF_METRIC_SQUARED  2 // mean over the outputs of (p - target)²
#define LF_METRIC_ABSOLUTE 3 // mean over the outputs of |p - target|
#define LF_METRIC_WRONG    4 // binary_cross_entropy: fraction of the outputs where z > 0 is not target > 0.5; else 0
#define LF_METRIC_COUNT    5

// sum_squares adds up so many neighbours into one partial sum.
#define LF_SQUARES_CHUNK 4096

// Losses of value_loss, by number (specialization constant in shaders). d = z - target.
#define LF_VALUE_BINARY 0 // max(z, 0) - z target + log(1 + exp(-|z|))
#define LF_VALUE_MSE    1 // d²
#define LF_VALUE_MAE    2 // |d|; its slope is 0 at 0
#define LF_VALUE_HUBER  3 // |d| <= delta: d² / 2, else delta (|d| - delta / 2)
#define LF_VALUE_COUNT  4

// Optimizers of linear_update, by number (specialization constant in shaders).
#define LF_RULE_SGD     0
#define LF_RULE_ADAM    1
#define LF_RULE_RMSPROP 2
#define LF_RULE_LION    3

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
