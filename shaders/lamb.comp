#version 450
// lamb: m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g²;
//       grads = step_size m / (sqrt(v) inv_sqrt_correct2 + eps) + weight_decay params
// The weights move afterwards: trust, then sgd.
#include "common.glsl"
LF_UPDATE(1, grads)
LF_READ(2, params)
LF_UPDATE(3, m)
LF_UPDATE(4, v)
#include "update.glsl"

void lf_update(uint at, lf_schedule_row now)
{
    vec4 gradient = lf_taken(LF_LOAD4(grads, at));
    vec4 mean = beta1 * LF_LOAD4(m, at) + rest1 * gradient;
    vec4 square = beta2 * LF_LOAD4(v, at) + rest2 * gradient * gradient;
    LF_REPLACE4(m, at, mean);
    LF_REPLACE4(v, at, square);
    vec4 change = now.step_size * mean / (sqrt(square) * now.inv_sqrt_correct2 + eps);
    LF_REPLACE4(grads, at, change + weight_decay * LF_LOAD4(params, at));
}
