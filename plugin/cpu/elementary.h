// exp, expm1, log, log1p and the normal distribution for the kernels. In f32 they are written without branches and
// calls, so that loops over them become vector loops. Measured against double, their errors are at most 2.2e-7 of the
// value, and of Φ 2e-7 in all and 1.2e-6 of the value down to -3. The oracle takes libm's, so that the two check each
// other. NaN stays NaN; past the range come 0 and infinity.
#ifndef LF_CPU_ELEMENTARY_H
#define LF_CPU_ELEMENTARY_H

#include "cpu/real.h"

#ifdef LF_REAL_IS_DOUBLE

static inline real cpu_exp(real x)
{
    return exp(x);
}

static inline real cpu_expm1(real x)
{
    return expm1(x);
}

static inline real cpu_log1p(real x)
{
    return log1p(x);
}

static inline real cpu_log(real x)
{
    return log(x);
}

// Φ(x), the probability that a standard normal number is below x.
static inline real cpu_normal_cdf(real x)
{
    return 0.5 * erfc(x * -0.70710678118654752440);
}

#else

static inline uint32_t cpu_bits(float x)
{
    union {
        float value;
        uint32_t bits;
    } u = { .value = x };
    return u.bits;
}

static inline float cpu_from_bits(uint32_t bits)
{
    union {
        uint32_t bits;
        float value;
    } u = { .bits = bits };
    return u.value;
}

// exp x = 2ⁿ exp r with |r| <= ln 2 / 2: returns expm1 r, and 2ⁿ as the product of two floats, for n may be 128.
static inline float cpu_exp_parts(float x, float scale[2])
{
    const float round = 12582912; // 1.5 · 2²³: what is added to it loses its fraction, and stands in the low bits
    x = x < -150 ? -150 : x > 150 ? 150 : x;
    float shifted = x * 1.44269504f + round, n = shifted - round;
    float r = (x - n * 0.693145752f) -
              n * 1.42860677e-6f; // ln 2 in two parts; the first has 15 bits, so its product is exact
    int32_t whole = (int32_t)(cpu_bits(shifted) - cpu_bits(round)), half = whole >> 1;
    scale[0] = cpu_from_bits((uint32_t)(half + 127) << 23);
    scale[1] = cpu_from_bits((uint32_t)(whole - half + 127) << 23);
    float tail = 1.f / 5040; // Taylor's series to r⁷: the next term is below 6e-9
    tail = tail * r + 1.f / 720;
    tail = tail * r + 1.f / 120;
    tail = tail * r + 1.f / 24;
    tail = tail * r + 1.f / 6;
    tail = tail * r + 0.5f;
    return tail * (r * r) + r;
}

static inline float cpu_exp(float x)
{
    float scale[2], rest = cpu_exp_parts(x, scale);
    return (rest + 1) * scale[0] * scale[1];
}

// For x <= 80, where 2ⁿ is one float.
static inline float cpu_expm1(float x)
{
    float scale[2], rest = cpu_exp_parts(x, scale), power = scale[0] * scale[1];
    return rest * power + (power - 1);
}

// log(1 + x) = 2 artanh s with s = x / (2 + x), for -1/3 <= x <= 1: then s² <= 1/9 and the series needs 8 terms.
static inline float cpu_log1p(float x)
{
    float s = x / (2 + x), square = s * s, sum = 1.f / 15;
    sum = sum * square + 1.f / 13;
    sum = sum * square + 1.f / 11;
    sum = sum * square + 1.f / 9;
    sum = sum * square + 1.f / 7;
    sum = sum * square + 1.f / 5;
    sum = sum * square + 1.f / 3;
    return 2 * (s + s * square * sum);
}

// For normal x > 0: x = 2ⁿ m with m in √½ … √2, and log x = n ln 2 + log m.
static inline float cpu_log(float x)
{
    const uint32_t root_half = 0x3f3504f3;
    uint32_t above = cpu_bits(x) - root_half;
    float m = cpu_from_bits((above & 0x7fffff) + root_half), n = (float)((int32_t)above >> 23);
    float sum = n * 0.693145752f + (n * 1.42860677e-6f + cpu_log1p(m - 1));
    return isnan(x) ? x : sum;
}

// Φ(x) = erfc(z) / 2 for x < 0 with z = |x| / √2, and 1 less that for x > 0. erfc z = exp(-z²) f(1 / (1 + 0.4 z)); f is
// a least-squares fit of relative error 3e-8 over z = 0 … 10, past which exp(-z²) is 0.
static inline float cpu_normal_cdf(float x)
{
    float z = fabsf(x) * 0.707106781f, t = 1 / (1 + 0.4f * z), f = 0.0286958844f;
    f = f * t - 0.074749609f;
    f = f * t - 0.0636850477f;
    f = f * t + 0.275786848f;
    f = f * t - 0.068565809f;
    f = f * t + 0.268637187f;
    f = f * t + 0.177416477f;
    f = f * t + 0.231355114f;
    f = f * t + 0.225082581f;
    f = f * t + 2.64050003e-5f;
    float tail = 0.5f * f * cpu_exp(-z * z);
    return x > 0 ? 1 - tail : tail;
}

#endif

static inline real cpu_sigmoid(real x)
{
    return 1 / (1 + cpu_exp(-x)); // exp may overflow: 1 / inf is the right 0
}

static inline real cpu_tanh(real x)
{
    real e = cpu_expm1(-2 * R(fabs)(x));
    return R(copysign)(-e / (2 + e), x);
}

// log(1 + exp x)
static inline real cpu_softplus(real x)
{
    return (x < 0 ? 0 : x) + cpu_log1p(cpu_exp(-R(fabs)(x)));
}

#endif
