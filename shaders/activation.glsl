// Activations and their derivatives, elementwise. All let NaN through. `ACTIVATION` is a specialization constant of the
// including kernel; `alpha` is a push constant.

#include "elementary.glsl"

float lf_tanh(float x)
{
    float a = abs(x), t = x * x;
    float series = x * (1 + t * (-1. / 3 + t * (2. / 15 + t * (-17. / 315 + t * (62. / 2835)))));
    float e = exp(-2 * a); // never overflows
    float far = (1 - e) / (1 + e);
    return a < 0.25 ? series : x < 0 ? -far : far;
}

// Complementary error function by the Chebyshev fit of Press et al., Numerical Recipes, 2nd ed., section 6.2: relative
// error below 1.2e-7 everywhere.
float lf_erfc(float x)
{
    float z = abs(x), t = 1 / (1 + 0.5 * z);
    float p = -1.26551223 + t * (1.00002368 + t * (0.37409196 + t * (0.09678418 + t * (-0.18628806 +
              t * (0.27886807 + t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223 + t * 0.17087277))))))));
    float tail = t * exp(-z * z + p);
    return x >= 0 ? tail : 2 - tail;
}

// Standard normal distribution function.
float lf_phi(float x)
{
    return 0.5 * lf_erfc(-x * 0.70710678);
}

float lf_activate(float x, float alpha)
{
    precise float y = x; // `precise` keeps compilers from making comparisons into min and max, which drop NaN
    switch (ACTIVATION) {
    case LF_ACT_RELU: y = x < 0 ? 0 : x; break;
    case LF_ACT_LEAKY_RELU: y = x < 0 ? alpha * x : x; break;
    case LF_ACT_ELU: y = x < 0 ? alpha * lf_expm1(x) : x; break;
    case LF_ACT_GELU: y = x * lf_phi(x); break;
    case LF_ACT_SILU: y = x * lf_sigmoid(x); break;
    case LF_ACT_TANH: y = lf_tanh(x); break;
    case LF_ACT_SIGMOID: y = lf_sigmoid(x); break;
    case LF_ACT_SOFTPLUS: y = (x < 0 ? 0 : x) + lf_log1p(exp(-abs(x))); break;
    }
    return y;
}

// The derivative as a function of the activation's output; of its input for gelu and silu.
float lf_slope(float saved, float alpha)
{
    precise float slope = 1;
    switch (ACTIVATION) {
    case LF_ACT_RELU: slope = saved <= 0 ? 0 : 1; break;
    case LF_ACT_LEAKY_RELU: slope = saved <= 0 ? alpha : 1; break;
    case LF_ACT_ELU: slope = saved <= 0 ? saved + alpha : 1; break;
    case LF_ACT_GELU: slope = lf_phi(saved) + saved * 0.39894228 * exp(-0.5 * saved * saved); break;
    case LF_ACT_SILU: {
        float s = lf_sigmoid(saved);
        slope = s * (1 + saved * (1 - s));
        break;
    }
    case LF_ACT_TANH: slope = 1 - saved * saved; break;
    case LF_ACT_SIGMOID: slope = saved * (1 - saved); break;
    case LF_ACT_SOFTPLUS: slope = -lf_expm1(-saved); break; // sigmoid(x) = 1 - exp(-softplus(x))
    }
    return slope;
}

vec4 lf_activate4(vec4 x, float alpha)
{
    return vec4(lf_activate(x.x, alpha), lf_activate(x.y, alpha), lf_activate(x.z, alpha), lf_activate(x.w, alpha));
}

vec4 lf_slope4(vec4 saved, float alpha)
{
    return vec4(lf_slope(saved.x, alpha), lf_slope(saved.y, alpha), lf_slope(saved.z, alpha), lf_slope(saved.w, alpha));
}
