// What the optimizers share: the schedule, the sweep, the options, and what becomes of a gradient before its use. The
// including kernel declares its operands grads (1), params (2), m (3) and v (4), each of 4 `quads` floats.
// One invocation updates ITEMS groups of four, LANES apart.
#define LF_SCHEDULE_SLOT 0
#include "schedule.glsl"
LF_READ(5, scale)
#include "sweep.glsl"
layout(constant_id = 2) const bool SCALED = false;    // there is a `scale`, one number
layout(constant_id = 3) const bool LIMITED = false;   // clip_value counts
layout(constant_id = 4) const bool DECOUPLED = false; // adam
layout(constant_id = 5) const bool MOMENTUM = false;  // sgd, rmsprop: m is there
layout(constant_id = 6) const bool NESTEROV = false;  // sgd
layout(push_constant) uniform Push {
    uint step, quads;
    float clip_value, weight_decay, momentum;
    float beta1, beta2, rest1, rest2, eps; // rest: 1 - beta
};
#include "optimizers.glsl"

// clamp(scale g, ±clip_value); NaN stays NaN
vec4 lf_taken(vec4 g)
{
    if (SCALED)
        g *= LF_LOAD(scale, 0);
    return lf_limited(g);
}

// Declared by the including kernel: the update of group of four `at`.
void lf_update(uint at, lf_schedule_row now);

void main()
{
    lf_schedule_row now = lf_schedule_at(lf_schedule_position(step));
    if (now.updates == 0)
        return;
    for (uint item = 0; item < ITEMS; item++) {
        uint at = lf_sweep_at(item);
        if (at >= quads)
            return;
        lf_update(at, now);
    }
}
