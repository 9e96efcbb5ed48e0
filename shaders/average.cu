// average: average += share (params - average), at the steps that update   both (1, outputs)
// One thread computes a group of four.
#include "sweep.cuh"

LF_KERNEL(average, LF_SWEEP_THREADS)
{
    size_t at = lf_sweep_at();
    if (lf_sweep_ends(call, at) || !lf_schedule_now(call, 0).row.updates)
        return;
    lf_quad params = lf_sweep_load(call, 1, at), mean = lf_sweep_load(call, 2, at);
    for (unsigned i = 0; i < 4; i++)
        mean.at[i] += call.share * (params.at[i] - mean.at[i]);
    lf_sweep_store(call, 2, at, mean);
}
