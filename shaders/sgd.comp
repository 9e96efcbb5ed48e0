#version 450
// sgd: g += weight_decay params; m = momentum m + g; params -= lr (m, or g + momentum m if nesterov, or g where there is
// no momentum)
#include "common.glsl"
LF_READ(1, grads)
LF_UPDATE(2, params)
LF_UPDATE(3, m)
#include "update.glsl"
layout(constant_id = 4) const bool MOMENTUM = false;
layout(constant_id = 5) const bool NESTEROV = false;

void lf_update(uint at, lf_schedule_row now)
{
    vec4 param = LF_LOAD4(params, at), change = lf_taken(LF_LOAD4(grads, at)) + weight_decay * param;
    if (MOMENTUM) {
        vec4 velocity = momentum * LF_LOAD4(m, at) + change;
        LF_REPLACE4(m, at, velocity);
        change = NESTEROV ? change + momentum * velocity : velocity;
    }
    LF_REPLACE4(params, at, param - now.lr * change);
}
