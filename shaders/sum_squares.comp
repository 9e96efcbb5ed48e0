#version 450
// sum_squares: partials[first + i] = sum of x² over elements i CHUNK … (i + 1) CHUNK - 1 of `count`, CHUNK =
// LF_SQUARES_CHUNK. LANES invocations take one chunk, each every LANES-th group of four.
#include "common.glsl"
LF_READ(0, x)
LF_WRITE(1, partials)
#include "lanes.glsl"
layout(push_constant) uniform Push { uint step, count, first; };

void main()
{
    const uint QUADS = LF_SQUARES_CHUNK / 4;
    uint chunk = lf_row(), last = (count + 3) / 4;
    vec4 squares = vec4(0);
    for (uint i = lf_lane(); i < QUADS && chunk * QUADS + i < last; i += LANES) {
        uint at = chunk * QUADS + i;
        vec4 value = LF_LOAD4(x, at);
        value = mix(vec4(0), value, lessThan(at * 4 + uvec4(0, 1, 2, 3), uvec4(count)));
        squares += value * value;
    }
    float sum = lf_reduce_lanes(false, (squares.x + squares.y) + (squares.z + squares.w));
    if (chunk * LF_SQUARES_CHUNK < count && lf_lane() == 0)
        LF_STORE(partials, first + chunk, sum);
}
