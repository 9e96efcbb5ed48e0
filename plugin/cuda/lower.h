// An operation of a program becomes one launch of a kernel: which one, cut how, over which memory. Pure: it talks to no
// device. exec.c records what it gives.
#ifndef LF_CUDA_LOWER_H
#define LF_CUDA_LOWER_H

#include <stdbool.h>
#include <stdint.h>

#include "call.h"
#include "core/error.h"
#include "program/program.h"

// Kernels by number: the operations' own at the places of lf_op_kind, then these.
enum {
    CU_KERNEL_LINEAR_MIDDLE = LF_OP_COUNT, // products of bigger tiles, for bigger results
    CU_KERNEL_LINEAR_DX_MIDDLE,
    CU_KERNEL_LINEAR_DW_MIDDLE,
    CU_KERNEL_LINEAR_WIDE,
    CU_KERNEL_LINEAR_DX_WIDE,
    CU_KERNEL_LINEAR_DW_WIDE,
    CU_KERNEL_SMALL_STEPS, // see small.h
    CU_KERNEL_ADVANCE,     // counter += call.step
    CU_KERNEL_COUNT
};
const char *cu_kernel_name(unsigned kernel); // of its function: "lf_linear"

typedef struct cu_launch {
    unsigned kernel;
    struct lf_call call; // step: 0, to be set for each step of a submission
    uint32_t grid[3], block[3];
    uint32_t shared; // bytes of dynamic shared memory, at most 48 KiB
} cu_launch;

// `address`: where each region starts on the device, a multiple of 256; 0 where the program has none. False: the
// operation is too big for a launch.
bool cu_lower(const lf_program *prog, const lf_op *op, const uint64_t address[LF_REGION_COUNT], cu_launch *launch,
              lf_error *err);

// The launch that ends a submission of so many steps.
void cu_lower_advance(const lf_program *prog, const uint64_t address[LF_REGION_COUNT], uint32_t steps,
                      cu_launch *launch);

// y += x over n numbers by the rule of core/tree.h; both addresses are multiples of 16, and whole groups of four are
// written. At most 2^32 - 1.
void cu_lower_sum(uint64_t x, uint64_t y, size_t n, cu_launch *launch);

#endif
