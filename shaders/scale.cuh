// What clip and trust share: one block adds up partial sums.
#ifndef LF_SCALE_CUH
#define LF_SCALE_CUH

#include "lanes.cuh"

// The sum of `count` numbers, for all threads of a block of (32, warps), in a fixed order: each thread every one of the
// threads' number-th, then the lanes of a warp, then the warps.
LF_INLINE float lf_sum_block(const float *x, unsigned count)
{
    float *partial = lf_shared(), sum = 0;
    for (unsigned i = threadIdx.y * blockDim.x + threadIdx.x; i < count; i += blockDim.x * blockDim.y)
        sum += x[i];
    sum = lf_sum_lanes(sum);
    __syncthreads();
    if (threadIdx.x == 0)
        partial[threadIdx.y] = sum;
    __syncthreads();
    sum = 0;
    for (unsigned i = 0; i < blockDim.y; i++)
        sum += partial[i];
    return sum;
}

LF_INLINE bool lf_first_thread()
{
    return threadIdx.x == 0 && threadIdx.y == 0;
}

#endif
