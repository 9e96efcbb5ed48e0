// Work on rows: a block is (lanes, rows) threads, lanes a power of two up to 32. The lanes of a row add up along a tree
// of fixed shape.
#ifndef LF_LANES_CUH
#define LF_LANES_CUH

#include "common.cuh"

// The thread's row; may lie past the operation's.
LF_INLINE unsigned lf_row()
{
    return blockIdx.x * blockDim.y + threadIdx.y;
}

// The same, inside: threads past the last row repeat it, for all threads of a warp take part in its sums.
LF_INLINE unsigned lf_row_inside(const lf_call &call)
{
    return lf_row() < call.rows ? lf_row() : call.rows - 1;
}

// For every lane, the sum over the row's lanes. All threads of the warp take part.
LF_INLINE float lf_sum_lanes(float value)
{
    for (unsigned reach = blockDim.x / 2; reach > 0; reach /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, reach);
    return value;
}

// For every lane, the largest of the row's lanes; none of them is NaN.
LF_INLINE float lf_max_lanes(float value)
{
    for (unsigned reach = blockDim.x / 2; reach > 0; reach /= 2) {
        float other = __shfl_xor_sync(0xffffffffu, value, reach);
        value = other > value ? other : value;
    }
    return value;
}

LF_INLINE unsigned lf_min_lanes(unsigned value)
{
    for (unsigned reach = blockDim.x / 2; reach > 0; reach /= 2) {
        unsigned other = __shfl_xor_sync(0xffffffffu, value, reach);
        value = other < value ? other : value;
    }
    return value;
}

#endif
