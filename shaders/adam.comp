#version 450
// adam: g = grads + weight_decay params; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g²;
//       params -= step_size m / (sqrt(v) inv_sqrt_correct2 + eps)
// adamw (DECOUPLED): first params *= 1 - lr weight_decay, and g = grads   grads, params, m, v hold 4 `quads` floats.
// One invocation updates ITEMS groups of four, LANES apart.
#include "common.glsl"
#define LF_SCHEDULE_SLOT 0
#include "schedule.glsl"
LF_READ(1, grads)
LF_UPDATE(2, params)
LF_UPDATE(3, m)
LF_UPDATE(4, v)
#include "sweep.glsl"
layout(constant_id = 2) const bool DECOUPLED = false;
layout(push_constant) uniform Push {
    uint step, quads;
    float beta1, beta2, eps, weight_decay;
    float rest1, rest2; // 1 - beta1, 1 - beta2
};

void main()
{
    lf_schedule_row now = lf_schedule_at(lf_schedule_position(step));
    for (uint item = 0; item < ITEMS; item++) {
        uint at = lf_sweep_at(item);
        if (at >= quads)
            return;
        vec4 param = LF_LOAD4(params, at), gradient = LF_LOAD4(grads, at);
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
}
