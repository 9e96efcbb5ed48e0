// Activations and their derivatives, elementwise. All let NaN through.
#ifndef LF_ACTIVATION_CUH
#define LF_ACTIVATION_CUH

#include "elementary.cuh"

LF_INLINE float lf_activate(unsigned activation, float alpha, float x)
{
    switch (activation) {
    case LF_ACT_RELU: return x < 0 ? 0 : x;
    case LF_ACT_LEAKY_RELU: return x < 0 ? alpha * x : x;
    case LF_ACT_ELU: return x < 0 ? alpha * expm1f(x) : x;
    case LF_ACT_GELU: return x * lf_phi(x);
    case LF_ACT_SILU: return x * lf_sigmoid(x);
    case LF_ACT_TANH: return tanhf(x);
    case LF_ACT_SIGMOID: return lf_sigmoid(x);
    case LF_ACT_SOFTPLUS: return (x < 0 ? 0 : x) + log1pf(expf(-fabsf(x)));
    }
    return x;
}

// The derivative as a function of the activation's output; of its input for gelu and silu.
LF_INLINE float lf_slope(unsigned activation, float alpha, float saved)
{
    switch (activation) {
    case LF_ACT_RELU: return saved <= 0 ? 0 : 1;
    case LF_ACT_LEAKY_RELU: return saved <= 0 ? alpha : 1;
    case LF_ACT_ELU: return saved <= 0 ? saved + alpha : 1;
    case LF_ACT_GELU: return lf_phi(saved) + saved * 0.39894228f * expf(-0.5f * saved * saved);
    case LF_ACT_SILU: {
        float s = lf_sigmoid(saved);
        return s * (1 + saved * (1 - s));
    }
    case LF_ACT_TANH: return 1 - saved * saved;
    case LF_ACT_SIGMOID: return saved * (1 - saved);
    case LF_ACT_SOFTPLUS: return -expm1f(-saved); // sigmoid(x) = 1 - exp(-softplus(x))
    }
    return 1;
}

#endif
