// activation: y = act(x)   x and y (rows, outputs). One thread computes a group of four.
#include "activation.cuh"
#include "sweep.cuh"

LF_KERNEL(activation, LF_SWEEP_THREADS)
{
    size_t at = lf_sweep_at();
    if (lf_sweep_ends(call, at))
        return;
    lf_quad value = lf_sweep_load(call, 0, at);
    for (unsigned i = 0; i < 4; i++)
        value.at[i] = lf_activate(call.activation, call.alpha, value.at[i]);
    lf_sweep_store(call, 1, at, value);
}
