// Kernels for the test of the stand-in itself (test_launch.c). operand[0] is an array of unsigned.
#include "call.h"

static unsigned *words(const struct lf_call *call)
{
    return (unsigned *)call->operand[0];
}

static unsigned number(void)
{
    return blockIdx.x * blockDim.x + threadIdx.x;
}

extern "C" __global__ void self_index(const struct lf_call call)
{
    unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    words(&call)[block * blockDim.x * blockDim.y * blockDim.z + thread] += thread + 1000 * block;
}

// Reverses a block's numbers twice through shared memory.
extern "C" __global__ void self_reverse(const struct lf_call call)
{
    unsigned *shared = (unsigned *)lf_host_shared(), last = blockDim.x - 1 - threadIdx.x;
    for (int i = 0; i < 3; i++) {
        shared[threadIdx.x] = words(&call)[number()];
        __syncthreads();
        words(&call)[number()] = shared[last];
        __syncthreads();
    }
}

// Each lane gets its warp's sum, four times over; a third of the block's threads has left before.
extern "C" __global__ void self_shuffle(const struct lf_call call)
{
    if (threadIdx.x >= 64)
        return;
    unsigned sum = threadIdx.x;
    for (unsigned step = 16; step; step /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, (int)step);
    float down = __shfl_down_sync(0xffffffffu, (float)threadIdx.x, 1);
    unsigned up = __shfl_up_sync(0xffffffffu, threadIdx.x, 1, 8), first = __shfl_sync(0xffffffffu, threadIdx.x, 3);
    __syncwarp();
    unsigned *to = words(&call) + 4 * threadIdx.x;
    to[0] = sum;
    to[1] = (unsigned)down;
    to[2] = up;
    to[3] = first;
}

// Every block waits for all others, `rows` times: a persistent kernel.
extern "C" __global__ void self_grid_barrier(const struct lf_call call)
{
    unsigned *arrived = words(&call), *sums = arrived + 1;
    for (unsigned round = 1; round <= call.rows; round++) {
        __syncthreads();
        if (threadIdx.x == 0) {
            atomicAdd(&sums[blockIdx.x], __ldcg(&sums[(blockIdx.x + 1) % gridDim.x]) * 0 + round);
            __threadfence();
            atomicAdd(arrived, 1);
            while (__ldcg(arrived) < round * gridDim.x)
                __nanosleep(20);
        }
        __syncthreads();
    }
}

extern "C" __global__ void self_missed_barrier(const struct lf_call call)
{
    if (threadIdx.x == 5)
        while (!__ldcg(words(&call)))
            __nanosleep(20);
    __syncthreads();
}

extern "C" __global__ void self_two_barriers(const struct lf_call)
{
    if (threadIdx.x & 1)
        __syncthreads();
    else
        __syncthreads();
}

extern "C" __global__ void self_missing_lane(const struct lf_call call)
{
    if (threadIdx.x != 7)
        words(&call)[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1u, 1);
}

extern "C" __global__ void self_divergent_shuffle(const struct lf_call call)
{
    if (threadIdx.x < 16)
        words(&call)[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1u, 1);
    else
        words(&call)[threadIdx.x] = __shfl_down_sync(0xffffffffu, 1u, 1);
}

// Wrong on a device too: what a neighbour writes is read without a barrier, so the order of the threads shows.
extern "C" __global__ void self_race(const struct lf_call call)
{
    words(&call)[threadIdx.x + 1] = words(&call)[threadIdx.x] + 1;
}
