// What a CUDA kernel is given, by value: one operation of a program, bound to memory. plugin/cuda/lower.c fills it.
// Every kernel is `extern "C" __global__ void lf_<operation>(const struct lf_call call)`.
#ifndef LF_CALL_H
#define LF_CALL_H

#include "abi.h"

#define LF_CALL_OPERANDS 11

// Types of data: lf_dtype's numbers.
enum { LF_STORED_U8, LF_STORED_I8, LF_STORED_U16, LF_STORED_I16, LF_STORED_U32, LF_STORED_I32, LF_STORED_F32 };

// How work is cut into blocks; each is told in the header that is named.
#define LF_SWEEP_THREADS  256  // sweep.cuh
#define LF_LANES_THREADS  256  // lanes.cuh
#define LF_COLUMN_LANES   32   // columns.cuh: threads along the columns
#define LF_COLUMN_THREADS 1024 // at most
#define LF_COLUMN_ROWS    4    // of a thread, where rows are shared out and nothing is summed
// product.cuh, in three ways: the side of a block's square of the result, its threads, and its bytes of shared memory.
#define LF_SMALL_TILE     16
#define LF_SMALL_THREADS  512
#define LF_SMALL_SHARED   20480
#define LF_MIDDLE_TILE    64
#define LF_MIDDLE_THREADS 256
#define LF_MIDDLE_SHARED  8704
#define LF_WIDE_TILE      128
#define LF_WIDE_THREADS   256
#define LF_WIDE_SHARED    8448

struct lf_call {
    unsigned long long operand[LF_CALL_OPERANDS]; // addresses, in the order of the op table; 0: none
    LF_UINT step; // within the submission; row counter + step of the schedule is this step's
    LF_UINT rows, row, batch, inputs, outputs; // as in lf_op
    LF_UINT stored, target_width;              // gather: type of data, LF_STORED_*; words of a target, 0: none
    LF_UINT activation, adds, value, training, by_row, decoupled, nesterov;
    LF_UINT layer, stream; // dropout: lf_op's stream; lf_stream
    float alpha, beta1, beta2, eps, momentum, weight_decay, clip_value, clip_norm, share, delta, label_smoothing;
    float rate, soft_weight, temperature;
    // small_steps, which does `step` whole steps:
    LF_UINT hidden, adam, saves_z; // units between the layers; else sgd; act' is a function of the activation's input
    LF_UINT kernel_1, bias_1, kernel_2, bias_2; // places in the blocks of parameters, in floats
    float bias_decay;                           // weight_decay of the biases
};

#endif
