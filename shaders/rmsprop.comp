#version 450
// rmsprop: g += weight_decay params; v = beta2 v + (1 - beta2) g²; d = g / (sqrt(v) + eps); m = momentum m + d;
//          params -= lr m, or lr d where there is no momentum
#include "common.glsl"
LF_READ(1, grads)
LF_UPDATE(2, params)
LF_UPDATE(3, m)
LF_UPDATE(4, v)
#include "update.glsl"
layout(constant_id = 4) const bool MOMENTUM = false;

void lf_update(uint at, lf_schedule_row now)
{
    vec4 param = LF_LOAD4(params, at), gradient = lf_taken(LF_LOAD4(grads, at)) + weight_decay * param;
    vec4 square = beta2 * LF_LOAD4(v, at) + rest2 * gradient * gradient;
    vec4 change = gradient / (sqrt(square) + eps);
    LF_REPLACE4(v, at, square);
    if (MOMENTUM) {
        change += momentum * LF_LOAD4(m, at);
        LF_REPLACE4(m, at, change);
    }
    LF_REPLACE4(params, at, param - now.lr * change);
}
