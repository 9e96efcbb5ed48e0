#version 450
// sgd: see optimizers.glsl. m is there with momentum.
#include "common.glsl"
LF_READ(1, grads)
LF_UPDATE(2, params)
LF_UPDATE(3, m)
#include "update.glsl"

void lf_update(uint at, lf_schedule_row now)
{
    vec4 param = LF_LOAD4(params, at), mean = MOMENTUM ? LF_LOAD4(m, at) : vec4(0);
    lf_sgd(now, weight_decay, lf_taken(LF_LOAD4(grads, at)), param, mean);
    if (MOMENTUM)
        LF_REPLACE4(m, at, mean);
    LF_REPLACE4(params, at, param);
}
