// lion: d = sign(beta1 m + (1 - beta1) g); params -= lr (d + weight_decay params); m = beta2 m + (1 - beta2) g
#include "update.cuh"

LF_KERNEL(lion, LF_SWEEP_THREADS)
{
    size_t at;
    lf_schedule_row now;
    if (!lf_update_at(call, at, now))
        return;
    lf_quad param = lf_sweep_load(call, LF_PARAMS, at), grads = lf_taken(call, at), m = lf_sweep_load(call, LF_M, at);
    for (unsigned i = 0; i < 4; i++) {
        float mixed = call.beta1 * m.at[i] + (1 - call.beta1) * grads.at[i];
        float sign = mixed > 0 ? 1 : mixed < 0 ? -1 : mixed; // 0 of 0, NaN of NaN
        m.at[i] = call.beta2 * m.at[i] + (1 - call.beta2) * grads.at[i];
        param.at[i] -= now.lr * (sign + call.weight_decay * param.at[i]);
    }
    lf_sweep_store(call, LF_M, at, m);
    lf_sweep_store(call, LF_PARAMS, at, param);
}
