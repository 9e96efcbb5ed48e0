#version 450
// adam, and adamw, which decays the weights themselves: see optimizers.glsl.
#include "common.glsl"
LF_READ(1, grads)
LF_UPDATE(2, params)
LF_UPDATE(3, m)
LF_UPDATE(4, v)
#include "update.glsl"

void lf_update(uint at, lf_schedule_row now)
{
    vec4 param = LF_LOAD4(params, at), mean = LF_LOAD4(m, at), square = LF_LOAD4(v, at);
    lf_adam(now, weight_decay, lf_taken(LF_LOAD4(grads, at)), param, mean, square);
    LF_REPLACE4(m, at, mean);
    LF_REPLACE4(v, at, square);
    LF_REPLACE4(params, at, param);
}
