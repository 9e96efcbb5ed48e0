#version 450
// accumulate: sum = grads where the schedule's row begins an update, else sum + grads. Both hold 4 `quads` floats.
// One invocation computes ITEMS groups of four, LANES apart.
#include "common.glsl"
#define LF_SCHEDULE_SLOT 0
#include "schedule.glsl"
LF_READ(1, grads)
LF_UPDATE(2, sum)
#include "sweep.glsl"
layout(push_constant) uniform Push { uint step, quads; };

void main()
{
    bool begins = lf_schedule_at(lf_schedule_position(step)).begins != 0;
    for (uint item = 0; item < ITEMS; item++) {
        uint at = lf_sweep_at(item);
        if (at >= quads)
            return;
        vec4 value = LF_LOAD4(grads, at);
        LF_REPLACE4(sum, at, begins ? value : LF_LOAD4(sum, at) + value);
    }
}
