// accumulate: sum = grads where the schedule's row begins an update, else sum + grads   both (1, outputs)
// One thread computes a group of four.
#include "sweep.cuh"

LF_KERNEL(accumulate, LF_SWEEP_THREADS)
{
    size_t at = lf_sweep_at();
    if (lf_sweep_ends(call, at))
        return;
    bool begins = lf_schedule_now(call, 0).row.begins != 0;
    lf_quad grads = lf_sweep_load(call, 1, at), sum = lf_sweep_load(call, 2, at);
    for (unsigned i = 0; i < 4; i++)
        sum.at[i] = begins ? grads.at[i] : sum.at[i] + grads.at[i];
    lf_sweep_store(call, 2, at, sum);
}
