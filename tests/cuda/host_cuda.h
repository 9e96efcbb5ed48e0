// The part of CUDA C++ that the kernels use, for a compiler of the host: forced into shaders/kernels.cu, which then
// runs on the stand-in's fibers (launch.h). What is missing here does not compile, so kernels keep to what is listed.
#ifndef LF_HOST_CUDA_H
#define LF_HOST_CUDA_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define __global__ __attribute__((visibility("default")))
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

struct uint3 {
    unsigned x, y, z;
};
typedef uint3 dim3;

// Of the thread that runs; launch.cpp sets them at every switch.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

#define LF_HOST_VECTORS(type, name)                                                                                    \
    struct alignas(2 * sizeof(type)) name##2                                                                           \
    {                                                                                                                  \
        type x, y;                                                                                                     \
    };                                                                                                                 \
    struct alignas(4 * sizeof(type)) name##4                                                                           \
    {                                                                                                                  \
        type x, y, z, w;                                                                                               \
    };                                                                                                                 \
    static inline name##2 make_##name##2(type x, type y)                                                               \
    {                                                                                                                  \
        return { x, y };                                                                                               \
    }                                                                                                                  \
    static inline name##4 make_##name##4(type x, type y, type z, type w)                                               \
    {                                                                                                                  \
        return { x, y, z, w };                                                                                         \
    }
LF_HOST_VECTORS(float, float)
LF_HOST_VECTORS(int, int)
LF_HOST_VECTORS(unsigned, uint)
LF_HOST_VECTORS(unsigned char, uchar)
#undef LF_HOST_VECTORS

// The block's dynamic shared memory: as many bytes as its launch asked for, and no more.
void *lf_host_shared(void);

// Barriers and shuffles. A place names the call in messages.
struct lf_host_place {
    const char *what, *file;
    int line;
};
enum lf_host_lane { LF_HOST_SAME, LF_HOST_XOR, LF_HOST_DOWN, LF_HOST_UP, LF_HOST_INDEX };
void lf_host_barrier(lf_host_place place);
void lf_host_sleep(lf_host_place place);
uint64_t lf_host_meet(lf_host_place place, unsigned mask, uint64_t value, lf_host_lane from, int argument, int width);

template <class T>
static inline T lf_host_shuffle(lf_host_place place, lf_host_lane from, unsigned mask, T value, int argument,
                                int width = 32)
{
    uint64_t bits = 0;
    static_assert(sizeof value <= sizeof bits, "more than a shuffle moves");
    memcpy(&bits, &value, sizeof value);
    bits = lf_host_meet(place, mask, bits, from, argument, width);
    memcpy(&value, &bits, sizeof value);
    return value;
}
struct lf_host_warp {
    lf_host_place place;
    void operator()(unsigned mask = 0xffffffffu) const
    {
        lf_host_meet(place, mask, 0, LF_HOST_SAME, 0, 32);
    }
};
#define LF_HOST_HERE(what)    (lf_host_place{ what, __FILE__, __LINE__ })
#define __syncthreads()       lf_host_barrier(LF_HOST_HERE("__syncthreads"))
#define __nanosleep(ns)       ((void)(ns), lf_host_sleep(LF_HOST_HERE("__nanosleep")))
#define __shfl_xor_sync(...)  lf_host_shuffle(LF_HOST_HERE("__shfl_xor_sync"), LF_HOST_XOR, __VA_ARGS__)
#define __shfl_down_sync(...) lf_host_shuffle(LF_HOST_HERE("__shfl_down_sync"), LF_HOST_DOWN, __VA_ARGS__)
#define __shfl_up_sync(...)   lf_host_shuffle(LF_HOST_HERE("__shfl_up_sync"), LF_HOST_UP, __VA_ARGS__)
#define __shfl_sync(...)      lf_host_shuffle(LF_HOST_HERE("__shfl_sync"), LF_HOST_INDEX, __VA_ARGS__)
#define __syncwarp            (lf_host_warp{ LF_HOST_HERE("__syncwarp") })

// One thread runs at a time and only the calls above switch, so memory needs no more than the compiler's attention.
static inline void __threadfence(void)
{
    asm volatile("" ::: "memory");
}
template <class T> static inline T __ldg(const T *from)
{
    return *from;
}
template <class T> static inline T __ldcg(const T *from)
{
    __threadfence();
    return *from;
}
template <class T> static inline void __stcg(T *to, T value)
{
    *to = value;
    __threadfence();
}
static inline unsigned atomicAdd(unsigned *to, unsigned value)
{
    __threadfence();
    unsigned was = *to;
    *to = was + value;
    __threadfence();
    return was;
}

static inline float __int_as_float(int bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline float __uint_as_float(unsigned bits)
{
    return __int_as_float((int)bits);
}
static inline int __float_as_int(float value)
{
    int bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
static inline unsigned __float_as_uint(float value)
{
    return (unsigned)__float_as_int(value);
}
static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}
static inline float rsqrtf(float x)
{
    return 1 / sqrtf(x);
}
template <class T> static inline T min(T a, T b)
{
    return b < a ? b : a;
}
template <class T> static inline T max(T a, T b)
{
    return a < b ? b : a;
}

#endif
