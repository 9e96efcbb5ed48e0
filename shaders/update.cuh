// What the optimizers share: the schedule (operand 0), the sweep, and what becomes of a gradient before its use. Operands:
// grads (1), params (2), m (3), v (4), each (1, outputs); scale (5), one number, or none.
// One thread updates a group of four.
#ifndef LF_UPDATE_CUH
#define LF_UPDATE_CUH

#include "sweep.cuh"

enum { LF_GRADS = 1, LF_PARAMS, LF_M, LF_V, LF_SCALE };

// clamp(scale g, ±clip_value); NaN stays NaN
LF_INLINE lf_quad lf_taken(const lf_call &call, size_t at)
{
    lf_quad g = lf_sweep_load(call, LF_GRADS, at);
    float limit = call.clip_value, scale = call.operand[LF_SCALE] ? *lf_in(call, LF_SCALE) : 1;
    for (unsigned i = 0; i < 4; i++) {
        g.at[i] *= scale;
        if (limit > 0) {
            g.at[i] = g.at[i] > limit ? limit : g.at[i];
            g.at[i] = g.at[i] < -limit ? -limit : g.at[i];
        }
    }
    return g;
}

// Finds the thread's group `at` and the schedule's row `now`. False: there is nothing to do.
LF_INLINE bool lf_update_at(const lf_call &call, size_t &at, lf_schedule_row &now)
{
    at = lf_sweep_at();
    if (lf_sweep_ends(call, at))
        return false;
    now = lf_schedule_now(call, 0).row;
    return now.updates != 0;
}

// g += decay param; m = momentum m + g; param -= lr (m, or g + momentum m if nesterov, or g where nothing is kept)
LF_INLINE void lf_sgd_one(const lf_call &call, const lf_schedule_row &now, float decay, bool keeps, float gradient,
                          float &param, float &m)
{
    gradient += decay * param;
    m = call.momentum * m + gradient;
    if (keeps)
        gradient = call.nesterov ? gradient + call.momentum * m : m;
    param -= now.lr * gradient;
}

// g += decay param; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g²;
// param -= step_size m / (sqrt(v) inv_sqrt_correct2 + eps). Decoupled: param *= 1 - lr decay at first, and g stays.
LF_INLINE void lf_adam_one(const lf_call &call, const lf_schedule_row &now, float decay, float gradient, float &param,
                           float &m, float &v)
{
    if (call.decoupled)
        param *= 1 - now.lr * decay;
    else
        gradient += decay * param;
    m = call.beta1 * m + (1 - call.beta1) * gradient;
    v = call.beta2 * v + (1 - call.beta2) * gradient * gradient;
    param -= now.step_size * m / (sqrtf(v) * now.inv_sqrt_correct2 + call.eps);
}

#endif
