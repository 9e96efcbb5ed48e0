#version 450
// average: average += share (params - average), at the steps that update. Both hold 4 `quads` floats.
// One invocation computes ITEMS groups of four, LANES apart.
#include "common.glsl"
#define LF_SCHEDULE_SLOT 0
#include "schedule.glsl"
LF_READ(1, params)
LF_UPDATE(2, mean)
#include "sweep.glsl"
layout(push_constant) uniform Push { uint step, quads; float share; };

void main()
{
    if (lf_schedule_at(lf_schedule_position(step)).updates == 0)
        return;
    for (uint item = 0; item < ITEMS; item++) {
        uint at = lf_sweep_at(item);
        if (at >= quads)
            return;
        vec4 before = LF_LOAD4(mean, at);
        LF_REPLACE4(mean, at, before + share * (LF_LOAD4(params, at) - before));
    }
}
