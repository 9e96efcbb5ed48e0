#version 450
// sgd: g = grads + weight_decay params; m = momentum m + g; params -= lr (m, or g + momentum m if nesterov, or g where
// there is no momentum)   grads, params and m hold 4 `quads` floats.
// One invocation updates ITEMS groups of four, LANES apart.
#include "common.glsl"
#define LF_SCHEDULE_SLOT 0
#include "schedule.glsl"
LF_READ(1, grads)
LF_UPDATE(2, params)
LF_UPDATE(3, m)
#include "sweep.glsl"
layout(constant_id = 2) const bool MOMENTUM = false;
layout(constant_id = 3) const bool NESTEROV = false;
layout(push_constant) uniform Push { uint step, quads; float momentum, weight_decay; };

void main()
{
    lf_schedule_row now = lf_schedule_at(lf_schedule_position(step));
    for (uint item = 0; item < ITEMS; item++) {
        uint at = lf_sweep_at(item);
        if (at >= quads)
            return;
        vec4 param = LF_LOAD4(params, at);
        vec4 change = LF_LOAD4(grads, at) + weight_decay * param;
        if (MOMENTUM) {
            vec4 velocity = momentum * LF_LOAD4(m, at) + change;
            LF_REPLACE4(m, at, velocity);
            change = NESTEROV ? change + momentum * velocity : velocity;
        }
        LF_REPLACE4(params, at, param - now.lr * change);
    }
}
