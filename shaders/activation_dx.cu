// activation_dx: dx = dy ⊙ act'(saved)   dy, saved and dx (rows, outputs). One thread computes a group of four.
#include "activation.cuh"
#include "sweep.cuh"

LF_KERNEL(activation_dx, LF_SWEEP_THREADS)
{
    size_t at = lf_sweep_at();
    if (lf_sweep_ends(call, at))
        return;
    lf_quad value = lf_sweep_load(call, 0, at), saved = lf_sweep_load(call, 1, at);
    for (unsigned i = 0; i < 4; i++)
        value.at[i] *= lf_slope(call.activation, call.alpha, saved.at[i]);
    lf_sweep_store(call, 2, at, value);
}
