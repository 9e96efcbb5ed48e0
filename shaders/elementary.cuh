// Functions that several kernels need. All let NaN through.
#ifndef LF_ELEMENTARY_CUH
#define LF_ELEMENTARY_CUH

#include "common.cuh"

LF_INLINE float lf_sigmoid(float x)
{
    float e = expf(-fabsf(x));
    return (x >= 0 ? 1 : e) / (1 + e);
}

// Standard normal distribution function.
LF_INLINE float lf_phi(float x)
{
    return 0.5f * erfcf(-x * 0.70710678f);
}

#endif
