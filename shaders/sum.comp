#version 450
// sum: y += x, where numbers below the smallest normal one count as 0, before and after. Both hold 4 `quads` floats.
// One invocation computes ITEMS groups of four, LANES apart.
#include "common.glsl"
LF_READ(0, x)
LF_UPDATE(1, y)
#include "sweep.glsl"
layout(push_constant) uniform Push { uint step, quads; };

// By the bits: what a device makes of such numbers, and of the sign of zero, is its own.
vec4 flushed(vec4 value)
{
    uvec4 bits = floatBitsToUint(value);
    return uintBitsToFloat(mix(bits, uvec4(0), equal(bits & 0x7f800000u, uvec4(0))));
}

void main()
{
    for (uint item = 0; item < ITEMS; item++) {
        uint at = lf_sweep_at(item);
        if (at < quads)
            LF_REPLACE4(y, at, flushed(flushed(LF_LOAD4(y, at)) + flushed(LF_LOAD4(x, at))));
    }
}
