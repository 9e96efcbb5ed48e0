// Small programs: a training whose hidden units can be shared out, so that a device needs one exchange a step instead
// of one for each operation. Backends that have a kernel for them ask here, and run every other program as it stands.
// Pure.
#ifndef LF_PROGRAM_SMALL_H
#define LF_PROGRAM_SMALL_H

#include "program/program.h"

// x -> linear, activation or none -> linear -> cross_entropy, in f32, with sgd or adam without more, and whole batches.
// Pointers lead into the program.
typedef struct lf_small {
    const lf_op *gather, *linear[2], *loss;
    const lf_op *update;  // one of those that update: with the optimizer's options, but for the decays
    lf_op_kind optimizer; // LF_OP_SGD or LF_OP_ADAM
    float kernel_decay, bias_decay;
} lf_small;

// Whether the program is one, before lf_program_fuse. LAVAFLOW_FUSE=0: none is.
bool lf_small_find(const lf_program *program, lf_small *small);

// Where a tensor of parameters stands in the blocks of parameters and moments, in floats.
uint32_t lf_small_place(const lf_program *program, const lf_op *linear, unsigned operand);

#endif
