// adam: g += weight_decay params; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g²;
//       params -= step_size m / (sqrt(v) inv_sqrt_correct2 + eps)
// adamw (decoupled): params *= 1 - lr weight_decay at first, and g stays
#include "update.cuh"

LF_KERNEL(adam, LF_SWEEP_THREADS)
{
    size_t at;
    lf_schedule_row now;
    if (!lf_update_at(call, at, now))
        return;
    lf_quad param = lf_sweep_load(call, LF_PARAMS, at), grads = lf_taken(call, at);
    lf_quad m = lf_sweep_load(call, LF_M, at), v = lf_sweep_load(call, LF_V, at);
    for (unsigned i = 0; i < 4; i++)
        lf_adam_one(call, now, call.weight_decay, grads.at[i], param.at[i], m.at[i], v.at[i]);
    lf_sweep_store(call, LF_M, at, m);
    lf_sweep_store(call, LF_V, at, v);
    lf_sweep_store(call, LF_PARAMS, at, param);
}
