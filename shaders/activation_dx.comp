#version 450
// activation_dx: dx = dy ⊙ act'(saved)   dy, saved and dx hold 4 `quads` floats.
// One invocation computes ITEMS groups of four, LANES apart.
#include "common.glsl"
LF_READ(0, dy)
LF_READ(1, saved)
LF_WRITE(2, dx)
#include "sweep.glsl"
layout(constant_id = 2) const uint ACTIVATION = 0;
layout(push_constant) uniform Push { uint step, quads; float alpha; };
#include "activation.glsl"

void main()
{
    for (uint item = 0; item < ITEMS; item++) {
        uint at = lf_sweep_at(item);
        if (at < quads)
            LF_STORE4(dx, at, LF_LOAD4(dy, at) * lf_slope4(LF_LOAD4(saved, at), alpha));
    }
}
