#version 450
// trust: scale = sqrt(sum of weights) / sqrt(sum of direction), 1 if either sum is 0   both (count) partial sums of
// squares, scale one number
// LANES invocations add up, each every LANES-th partial sum.
#include "common.glsl"
LF_READ(0, weights)
LF_READ(1, direction)
LF_WRITE(2, scale)
#include "lanes.glsl"
layout(push_constant) uniform Push { uint step, count; };

void main()
{
    float of_weights = 0, of_direction = 0;
    for (uint i = lf_lane(); i < count; i += LANES) {
        of_weights += LF_LOAD(weights, i);
        of_direction += LF_LOAD(direction, i);
    }
    of_weights = lf_reduce_lanes(false, of_weights);
    of_direction = lf_reduce_lanes(false, of_direction);
    if (lf_invocation() == 0)
        LF_STORE(scale, 0, of_weights == 0 || of_direction == 0 ? 1 : sqrt(of_weights) / sqrt(of_direction));
}
