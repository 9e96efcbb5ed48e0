#version 450
// adam: g += weight_decay params; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g²;
//       params -= step_size m / (sqrt(v) inv_sqrt_correct2 + eps)
// adamw (DECOUPLED): params *= 1 - lr weight_decay at first, and g stays
#include "common.glsl"
LF_READ(1, grads)
LF_UPDATE(2, params)
LF_UPDATE(3, m)
LF_UPDATE(4, v)
#include "update.glsl"
layout(constant_id = 4) const bool DECOUPLED = false;

void lf_update(uint at, lf_schedule_row now)
{
    vec4 param = LF_LOAD4(params, at), gradient = lf_taken(LF_LOAD4(grads, at));
    if (DECOUPLED)
        param *= 1 - now.lr * weight_decay;
    else
        gradient += weight_decay * param;
    vec4 mean = beta1 * LF_LOAD4(m, at) + rest1 * gradient;
    vec4 square = beta2 * LF_LOAD4(v, at) + rest2 * gradient * gradient;
    LF_REPLACE4(m, at, mean);
    LF_REPLACE4(v, at, square);
    LF_REPLACE4(params, at, param - now.step_size * mean / (sqrt(square) * now.inv_sqrt_correct2 + eps));
}
