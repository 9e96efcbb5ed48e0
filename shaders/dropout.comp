#version 450
// dropout: y = x scale where the element is kept, else 0; scale = 1 / (1 - rate). Its own gradient, with dy for x.
// x and y hold 4 `quads` floats, from element 4 first + shift of the batch on. Element e is kept where the upper 24 bits of word e % 4 of the numbers drawn for
// (e / 4, training step, layer), read as a fraction, are at least `rate`: the same pattern, to the bit, on all devices.
// One invocation computes ITEMS groups of four, LANES apart.
#include "common.glsl"
#define LF_SCHEDULE_SLOT 1
LF_READ(0, x)
#include "schedule.glsl"
LF_WRITE(2, y)
#include "sweep.glsl"
#include "philox.glsl"
layout(push_constant) uniform Push {
    uint step, quads;
    float rate, scale;
    uint layer, stream; // stream: of core/random.h
    uint first, shift;  // shift: 0 to 3
};

void main()
{
    uvec2 seed = lf_schedule_seed();
    uint training_step = lf_schedule_at(lf_schedule_position(step)).step;
    for (uint item = 0; item < ITEMS; item++) {
        uint at = lf_sweep_at(item);
        if (at >= quads)
            return;
        uvec4 words = lf_philox(uvec4(first + at, training_step, layer, stream), seed);
        if (shift > 0) {
            uvec4 next = lf_philox(uvec4(first + at + 1, training_step, layer, stream), seed);
            words = shift == 1   ? uvec4(words.yzw, next.x)
                    : shift == 2 ? uvec4(words.zw, next.xy)
                                 : uvec4(words.w, next.xyz);
        }
        bvec4 kept = greaterThanEqual(vec4(words >> 8) * 5.9604644775390625e-8, vec4(rate)); // 2^-24
        LF_STORE4(y, at, mix(vec4(0), LF_LOAD4(x, at) * scale, kept));
    }
}
