// What every kernel shares. A kernel has one parameter, see call.h, and no memory of its own but the launch's.
#ifndef LF_COMMON_CUH
#define LF_COMMON_CUH

#include "call.h"

#define LF_INLINE static __device__ __forceinline__
#define LF_METHOD __device__ __forceinline__

#ifdef LF_HOST_CUDA // a stand-in that runs kernels on the processor
#define LF_UNROLL
#define LF_KERNEL(name, threads) extern "C" __global__ void lf_##name(const struct lf_call call)
#else
#define LF_UNROLL _Pragma("unroll")
#define LF_KERNEL(name, threads) \
    extern "C" __global__ void __launch_bounds__(threads) lf_##name(const struct lf_call call)
#endif

// The launch's dynamic shared memory, which all threads of a block see.
LF_INLINE float *lf_shared()
{
#ifdef LF_HOST_CUDA
    return (float *)lf_host_shared();
#else
    extern __shared__ float4 shared[]; // of that type for its alignment
    return (float *)shared;
#endif
}

// Four neighbours, read and written at once.
struct alignas(16) lf_quad {
    float at[4];
};

// Operand `slot` as an array of T; NULL: none.
template <class T> LF_INLINE T *lf_operand(const lf_call &call, unsigned slot)
{
    return (T *)call.operand[slot];
}

LF_INLINE const float *lf_in(const lf_call &call, unsigned slot)
{
    return lf_operand<const float>(call, slot);
}

LF_INLINE float *lf_out(const lf_call &call, unsigned slot)
{
    return lf_operand<float>(call, slot);
}

// The schedule's row of this step.
struct lf_now {
    unsigned position; // of the row
    lf_schedule_row row;
};

LF_INLINE lf_now lf_schedule_now(const lf_call &call, unsigned slot)
{
    const lf_schedule_header *header = lf_operand<const lf_schedule_header>(call, slot);
    unsigned position = header->counter + call.step;
    return { position, ((const lf_schedule_row *)(header + 1))[position] };
}

// How many of the operation's rows are among the schedule's; these come first.
LF_INLINE unsigned lf_valid_rows(const lf_call &call, unsigned schedule_rows)
{
    unsigned past = schedule_rows > call.row ? schedule_rows - call.row : 0;
    return past < call.rows ? past : call.rows;
}

#endif
