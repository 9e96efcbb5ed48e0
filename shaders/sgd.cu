// sgd: g += weight_decay params; m = momentum m + g; params -= lr (m, or g + momentum m if nesterov, or g where there is
// no momentum)
#include "update.cuh"

LF_KERNEL(sgd, LF_SWEEP_THREADS)
{
    size_t at;
    lf_schedule_row now;
    if (!lf_update_at(call, at, now))
        return;
    bool keeps = call.operand[LF_M] != 0;
    lf_quad param = lf_sweep_load(call, LF_PARAMS, at), grads = lf_taken(call, at), m = {};
    if (keeps)
        m = lf_sweep_load(call, LF_M, at);
    for (unsigned i = 0; i < 4; i++)
        lf_sgd_one(call, now, call.weight_decay, keeps, grads.at[i], param.at[i], m.at[i]);
    if (keeps)
        lf_sweep_store(call, LF_M, at, m);
    lf_sweep_store(call, LF_PARAMS, at, param);
}
