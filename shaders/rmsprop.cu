// rmsprop: g += weight_decay params; v = beta2 v + (1 - beta2) g²; d = g / (sqrt(v) + eps); m = momentum m + d;
//          params -= lr m, or lr d where there is no momentum
#include "update.cuh"

LF_KERNEL(rmsprop, LF_SWEEP_THREADS)
{
    size_t at;
    lf_schedule_row now;
    if (!lf_update_at(call, at, now))
        return;
    bool keeps = call.operand[LF_M] != 0;
    lf_quad param = lf_sweep_load(call, LF_PARAMS, at), grads = lf_taken(call, at);
    lf_quad v = lf_sweep_load(call, LF_V, at), m = {};
    if (keeps)
        m = lf_sweep_load(call, LF_M, at);
    for (unsigned i = 0; i < 4; i++) {
        float gradient = grads.at[i] + call.weight_decay * param.at[i];
        v.at[i] = call.beta2 * v.at[i] + (1 - call.beta2) * gradient * gradient;
        m.at[i] = call.momentum * m.at[i] + gradient / (sqrtf(v.at[i]) + call.eps); // 0 m, where there is none
        param.at[i] -= now.lr * m.at[i];
    }
    lf_sweep_store(call, LF_V, at, v);
    if (keeps)
        lf_sweep_store(call, LF_M, at, m);
    lf_sweep_store(call, LF_PARAMS, at, param);
}
