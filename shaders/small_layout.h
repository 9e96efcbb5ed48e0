// How a block of small_steps cuts its shared memory; the launch and the kernel agree on it.
#ifndef LF_SMALL_LAYOUT_H
#define LF_SMALL_LAYOUT_H

#include "abi.h"

#define LF_SMALL_STEPS_THREADS 512
#define LF_SMALL_STEPS_ROWS    64 // that the threads take at a time
#define LF_SMALL_STEPS_GROUPS  8  // of threads that share a row
#define LF_SMALL_STEPS_BLOCKS  32 // at most
#define LF_SMALL_STEPS_PARTS   16 // that a thread reads at once

// Operands of its call, by number.
enum {
    LF_SMALL_DATA,
    LF_SMALL_TARGETS,
    LF_SMALL_SCALING,
    LF_SMALL_ORDER,
    LF_SMALL_SCHEDULE,
    LF_SMALL_PARAMS,
    LF_SMALL_M, // 0: none
    LF_SMALL_V, // 0: none
    LF_SMALL_METRICS,
    LF_SMALL_OUTPUT,
    LF_SMALL_SCRATCH, // a word for each block, zero at the launch; from byte 1024 on floats (2, blocks, logits)
};
#define LF_SMALL_FLAGS_BYTES 1024

// Places in words, multiples of 4.
struct lf_small_layout {
    LF_UINT quads; // groups of four inputs, the last one filled up with zeros
    LF_UINT line;  // of x, in groups of four as they are stored: odd, so that rows fall on all banks
    LF_UINT kernel_2, bias_1,
        bias_2;                   // in the block's share of the parameters, which stands first: kernel_1, then these
    LF_UINT grads, m, v;          // the same of gradients and moments
    LF_UINT scaling;              // (2, 4 quads)
    LF_UINT parts;                // (groups, rows, units): sums of some inputs each
    LF_UINT active, saved, slope; // (batch, units): act(z), what act' needs, the gradient to z
    LF_UINT classes;              // words of a matrix (batch, outputs)
    LF_UINT sums, logits, dz;     // (2, batch, outputs): sums of some parts each; (batch, outputs)
    LF_UINT labels, x;            // (2, batch), (2, batch, line): of this step and the next
    LF_UINT size;
};

#if defined(__CUDACC__) || defined(LF_HOST_CUDA)
static __device__ __forceinline__
#else
static inline
#endif
    struct lf_small_layout
    lf_small_layout_of(LF_UINT batch, LF_UINT inputs, LF_UINT units, LF_UINT outputs, LF_UINT quad_words)
{
    struct lf_small_layout at;
    at.quads = (inputs + 3) / 4;
    at.line = at.quads | 1;
    at.kernel_2 = 4 * at.quads * units;
    at.bias_1 = at.kernel_2 + units * outputs;
    at.bias_2 = at.bias_1 + units;
    LF_UINT share = (at.bias_2 + outputs + 3) / 4 * 4, hidden = batch * units;
    at.classes = (batch * outputs + 3) / 4 * 4;
    at.grads = share;
    at.m = at.grads + share;
    at.v = at.m + share;
    at.scaling = at.v + share;
    at.parts = at.scaling + 8 * at.quads;
    at.active = at.parts + LF_SMALL_STEPS_GROUPS * LF_SMALL_STEPS_ROWS * units;
    at.saved = at.active + hidden;
    at.slope = at.saved + hidden;
    at.sums = at.slope + hidden;
    at.logits = at.sums + LF_SMALL_STEPS_BLOCKS / LF_SMALL_STEPS_PARTS * at.classes;
    at.dz = at.logits + at.classes;
    at.labels = at.dz + at.classes;
    at.x = at.labels + (2 * batch + 3) / 4 * 4;
    at.size = at.x + 2 * batch * at.line * quad_words;
    return at;
}

#endif
