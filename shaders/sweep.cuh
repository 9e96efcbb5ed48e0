// A sweep over flat blocks: a thread takes one group of four neighbours. Blocks of memory end with a whole group.
#ifndef LF_SWEEP_CUH
#define LF_SWEEP_CUH

#include "common.cuh"

// Which group is this thread's.
LF_INLINE size_t lf_sweep_at()
{
    return (size_t)blockIdx.x * LF_SWEEP_THREADS + threadIdx.x;
}

// Whether it lies past the end of the operation's rows.
LF_INLINE bool lf_sweep_ends(const lf_call &call, size_t at)
{
    return 4 * at >= (size_t)call.rows * call.outputs;
}

LF_INLINE lf_quad lf_sweep_load(const lf_call &call, unsigned slot, size_t at)
{
    return lf_operand<const lf_quad>(call, slot)[at];
}

LF_INLINE void lf_sweep_store(const lf_call &call, unsigned slot, size_t at, const lf_quad &value)
{
    lf_operand<lf_quad>(call, slot)[at] = value;
}

#endif
