// sum: y = flush(flush(y) + flush(x)), where flush makes numbers below the least normal one 0, as some devices do in any
// case. x and y (rows, outputs). One thread computes a group of four.
#include "sweep.cuh"

LF_INLINE float lf_flush(float value)
{
    return fabsf(value) < 1.17549435e-38f ? 0 : value; // NaN goes through
}

LF_KERNEL(sum, LF_SWEEP_THREADS)
{
    size_t at = lf_sweep_at();
    if (lf_sweep_ends(call, at))
        return;
    lf_quad x = lf_sweep_load(call, 0, at), y = lf_sweep_load(call, 1, at);
    for (unsigned i = 0; i < 4; i++)
        y.at[i] = lf_flush(lf_flush(y.at[i]) + lf_flush(x.at[i]));
    lf_sweep_store(call, 1, at, y);
}
