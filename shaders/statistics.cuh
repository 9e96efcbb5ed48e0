// What batch_stats and batch_totals make of a column's mean and sum of squares about it.
#ifndef LF_STATISTICS_CUH
#define LF_STATISTICS_CUH

#include "common.cuh"

// running = (1 - momentum) running + momentum new, where the new variance is the unbiased one (the biased one if there is
// a single row).
LF_INLINE void lf_move_running(const lf_call &call, unsigned rows, float mean, float squares, float *running_mean,
                               float *running_variance)
{
    float keep = 1 - call.momentum, unbiased = squares / (rows > 1 ? rows - 1 : 1);
    *running_mean = keep * *running_mean + call.momentum * mean;
    *running_variance = keep * *running_variance + call.momentum * unbiased;
}

LF_INLINE float lf_rstd(const lf_call &call, float variance)
{
    return 1 / sqrtf(variance + call.eps);
}

#endif
