#version 450
// add: y = a + b   a, b and y hold 4 `quads` floats.
// One invocation computes ITEMS groups of four, LANES apart.
#include "common.glsl"
LF_READ(0, a)
LF_READ(1, b)
LF_WRITE(2, y)
#include "sweep.glsl"
layout(push_constant) uniform Push { uint step, quads; };

void main()
{
    for (uint item = 0; item < ITEMS; item++) {
        uint at = lf_sweep_at(item);
        if (at < quads)
            LF_STORE4(y, at, LF_LOAD4(a, at) + LF_LOAD4(b, at));
    }
}
