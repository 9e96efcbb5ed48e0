#version 450
// activation: y = act(x)   x and y hold 4 `quads` floats.
// One invocation computes ITEMS groups of four, LANES apart.
#include "common.glsl"
LF_READ(0, x)
LF_WRITE(1, y)
#include "sweep.glsl"
layout(constant_id = 2) const uint ACTIVATION = 0;
layout(push_constant) uniform Push { uint step, quads; float alpha; };
#include "activation.glsl"

void main()
{
    for (uint item = 0; item < ITEMS; item++) {
        uint at = lf_sweep_at(item);
        if (at < quads)
            LF_STORE4(y, at, lf_activate4(LF_LOAD4(x, at), alpha));
    }
}
