#version 450
// clip: scale = min(1, clip_norm / (sqrt(sum of partials) + 1e-6))   partials (count), scale one number
// LANES invocations add up, each every LANES-th partial sum.
#include "common.glsl"
LF_READ(0, partials)
LF_WRITE(1, scale)
#include "lanes.glsl"
layout(push_constant) uniform Push { uint step, count; float clip_norm; };

void main()
{
    float sum = 0;
    for (uint i = lf_lane(); i < count; i += LANES)
        sum += LF_LOAD(partials, i);
    sum = lf_reduce_lanes(false, sum);
    precise float factor = clip_norm / (sqrt(sum) + 1e-6); // `precise` keeps the comparison, which lets NaN through
    if (lf_invocation() == 0)
        LF_STORE(scale, 0, factor > 1 ? 1 : factor);
}
