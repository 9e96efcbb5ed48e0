#version 450
// lion: d = sign(beta1 m + (1 - beta1) g); params -= lr (d + weight_decay params); m = beta2 m + (1 - beta2) g
#include "common.glsl"
LF_READ(1, grads)
LF_UPDATE(2, params)
LF_UPDATE(3, m)
#include "update.glsl"

// 0 of 0, NaN of NaN
vec4 lf_sign(vec4 x)
{
    return mix(mix(x, vec4(1), greaterThan(x, vec4(0))), vec4(-1), lessThan(x, vec4(0)));
}

void lf_update(uint at, lf_schedule_row now)
{
    vec4 param = LF_LOAD4(params, at), gradient = lf_taken(LF_LOAD4(grads, at)), mean = LF_LOAD4(m, at);
    vec4 change = lf_sign(beta1 * mean + rest1 * gradient) + weight_decay * param;
    LF_REPLACE4(m, at, beta2 * mean + rest2 * gradient);
    LF_REPLACE4(params, at, param - now.lr * change);
}
