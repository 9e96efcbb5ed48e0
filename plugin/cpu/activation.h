// Activations and their derivatives. Every function takes the activation's number as a constant, so that each becomes a
// loop of its own without a branch in it; CPU_FOR_ACTIVATION makes that constant. NaN stays NaN everywhere.
#ifndef LF_CPU_ACTIVATION_H
#define LF_CPU_ACTIVATION_H

#include "cpu/elementary.h"

// Runs `statement` with `kind` the constant that equals `activation`.
#define CPU_FOR_ACTIVATION(activation, statement)                                                                      \
    switch (activation) {                                                                                              \
        CPU_ACTIVATION_CASE(LF_ACT_NONE, statement)                                                                    \
        CPU_ACTIVATION_CASE(LF_ACT_RELU, statement)                                                                    \
        CPU_ACTIVATION_CASE(LF_ACT_LEAKY_RELU, statement)                                                              \
        CPU_ACTIVATION_CASE(LF_ACT_ELU, statement)                                                                     \
        CPU_ACTIVATION_CASE(LF_ACT_GELU, statement)                                                                    \
        CPU_ACTIVATION_CASE(LF_ACT_SILU, statement)                                                                    \
        CPU_ACTIVATION_CASE(LF_ACT_TANH, statement)                                                                    \
        CPU_ACTIVATION_CASE(LF_ACT_SIGMOID, statement)                                                                 \
        CPU_ACTIVATION_CASE(LF_ACT_SOFTPLUS, statement)                                                                \
    }
#define CPU_ACTIVATION_CASE(number, statement)                                                                         \
    case number: {                                                                                                     \
        enum { kind = number };                                                                                        \
        statement;                                                                                                     \
        break;                                                                                                         \
    }
_Static_assert(LF_ACT_COUNT == 9, "a case for each activation");

#define CPU_INV_SQRT_TWO_PI ((real)0.39894228040143267794)

static inline real cpu_activate(unsigned kind, real alpha, real x)
{
    switch (kind) {
    case LF_ACT_RELU:
        return x < 0 ? 0 : x;
    case LF_ACT_LEAKY_RELU:
        return x < 0 ? alpha * x : x;
    case LF_ACT_ELU:
        return x < 0 ? alpha * cpu_expm1(x) : x;
    case LF_ACT_GELU:
        return x * cpu_normal_cdf(x);
    case LF_ACT_SILU:
        return x * cpu_sigmoid(x);
    case LF_ACT_TANH:
        return cpu_tanh(x);
    case LF_ACT_SIGMOID:
        return cpu_sigmoid(x);
    case LF_ACT_SOFTPLUS:
        return cpu_softplus(x);
    default:
        return x;
    }
}

// dy · act'(x), a function of x for gelu and silu and of y = act(x) for the others: `saved` is that one.
static inline real cpu_activate_dx(unsigned kind, real alpha, real dy, real saved)
{
    switch (kind) {
    case LF_ACT_RELU:
        return saved <= 0 ? 0 : dy;
    case LF_ACT_LEAKY_RELU:
        return saved <= 0 ? alpha * dy : dy;
    case LF_ACT_ELU:
        return saved <= 0 ? dy * (saved + alpha) : dy;
    case LF_ACT_GELU:
        return dy * (cpu_normal_cdf(saved) + saved * CPU_INV_SQRT_TWO_PI * cpu_exp((real)-0.5 * saved * saved));
    case LF_ACT_SILU: {
        real s = cpu_sigmoid(saved);
        return dy * (s * (1 + saved * (1 - s)));
    }
    case LF_ACT_TANH:
        return dy * (1 - saved * saved);
    case LF_ACT_SIGMOID:
        return dy * (saved * (1 - saved));
    case LF_ACT_SOFTPLUS:
        return dy * -cpu_expm1(-saved); // sigmoid(x) = 1 - exp(-y)
    default:
        return dy;
    }
}

#endif
