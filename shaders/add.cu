// add: y = a + b   a, b and y (rows, outputs). One thread computes a group of four.
#include "sweep.cuh"

LF_KERNEL(add, LF_SWEEP_THREADS)
{
    size_t at = lf_sweep_at();
    if (lf_sweep_ends(call, at))
        return;
    lf_quad a = lf_sweep_load(call, 0, at), b = lf_sweep_load(call, 1, at);
    for (unsigned i = 0; i < 4; i++)
        a.at[i] += b.at[i];
    lf_sweep_store(call, 2, at, a);
}
