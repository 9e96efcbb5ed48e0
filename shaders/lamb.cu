// lamb: m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g²;
//       grads = step_size m / (sqrt(v) inv_sqrt_correct2 + eps) + weight_decay params
// The weights move afterwards: trust, then sgd.
#include "update.cuh"

LF_KERNEL(lamb, LF_SWEEP_THREADS)
{
    size_t at;
    lf_schedule_row now;
    if (!lf_update_at(call, at, now))
        return;
    lf_quad param = lf_sweep_load(call, LF_PARAMS, at), grads = lf_taken(call, at);
    lf_quad m = lf_sweep_load(call, LF_M, at), v = lf_sweep_load(call, LF_V, at);
    for (unsigned i = 0; i < 4; i++) {
        float gradient = grads.at[i];
        m.at[i] = call.beta1 * m.at[i] + (1 - call.beta1) * gradient;
        v.at[i] = call.beta2 * v.at[i] + (1 - call.beta2) * gradient * gradient;
        grads.at[i] = now.step_size * m.at[i] / (sqrtf(v.at[i]) * now.inv_sqrt_correct2 + call.eps) +
                      call.weight_decay * param.at[i];
    }
    lf_sweep_store(call, LF_M, at, m);
    lf_sweep_store(call, LF_V, at, v);
    lf_sweep_store(call, LF_GRADS, at, grads);
}
