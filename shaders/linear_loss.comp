#version 450
// linear_loss: the last layer at once: z = x·kernel + bias, cross_entropy of z (see cross_entropy.comp), and
// dx = (dz·kernelᵀ) ⊙ act'(saved)   x, saved and dx (batch, inputs), kernel (inputs, outputs), bias (outputs), label
// (batch), dz (batch, outputs), metrics (steps, batch, 5); act is the activation of the layer before.
// Sums go over the depth in order, as in product.glsl: the bits are those of the three operations.
// LANES invocations take one row, each every LANES-th class, then every LANES-th input. In a texel build one invocation
// does, with its logits in registers; a workgroup is one subgroup, whose lanes all need the same words of kernel, so each
// loads another part of them and passes them round.
#extension GL_EXT_control_flow_attributes : require
#ifdef LF_TEXEL
#extension GL_KHR_shader_subgroup_shuffle : require
#endif
#include "common.glsl"
LF_READ(0, x)
LF_READ_WORDS(1, label)
#define LF_SCHEDULE_SLOT 2
#include "schedule.glsl"
LF_UPDATE(3, metrics)
LF_WRITE(4, dz)
LF_READ(5, kernel)
LF_READ(6, bias)
LF_READ(7, saved)
LF_WRITE(8, dx)
layout(constant_id = 2) const uint outputs = 1;
layout(constant_id = 3) const bool QUADS = false; // inputs are a multiple of four
layout(constant_id = 4) const bool STORE_DX = false;
layout(constant_id = 7) const uint ACTIVATION = 0;
layout(push_constant) uniform Push { uint step, rows, inputs; float label_smoothing, alpha; uint start, batch; };

#include "lanes.glsl"
#include "metrics.glsl"
#include "activation.glsl"

uint own_row = lf_row(); // may lie past the batch

uint lf_label(uint row)
{
    return LF_LOAD(label, row);
}

// Multiplied and added in one, said so, as in product.glsl.
float add_product(float a, float b, float sum)
{
    precise float next = fma(a, b, sum);
    return next;
}

#ifdef LF_TEXEL
float logits[outputs];

// The class is known once loops are unrolled, but for the label's.
float lf_logit(uint row, uint number)
{
    float found = logits[0];
    [[unroll]] for (uint c = 1; c < outputs; c++)
        found = number == c ? logits[c] : found;
    return found;
}
#else
shared float logits[gl_WorkGroupSize.x / LANES * outputs];

uint place = gl_LocalInvocationID.x / LANES * outputs; // of the row's logits, then of its dz

float lf_logit(uint row, uint number)
{
    return logits[place + number];
}
#endif

#include "class_row.glsl"

void store_metrics(uint position, uint row, bool counts, lf_class_row c)
{
    lf_store_metrics(position, row, counts, lf_cross_entropy(c), 1, vec3(float(c.truth), c.given, c.rank));
}

#ifdef LF_TEXEL
// Rows k … k + DEPTH - 1 of kernel, a part in each lane; word i of them is part_word(part, i) in every lane.
const uint DEPTH = QUADS ? 4 : 1, WORDS = QUADS ? 4 : 1; // WORDS: that a lane loads at once
const uint LOADS = (DEPTH * outputs / WORDS + gl_WorkGroupSize.x - 1) / gl_WorkGroupSize.x;

void load_part(uint k, out vec4 part[LOADS])
{
    const uint SUBGROUP = gl_WorkGroupSize.x;
    [[unroll]] for (uint i = 0; i < LOADS; i++) {
        uint place = min(i * SUBGROUP + gl_LocalInvocationID.x, DEPTH * outputs / WORDS - 1);
        uint at = k * outputs / WORDS + place;
        part[i] = QUADS ? LF_LOAD4(kernel, at) : vec4(LF_LOAD(kernel, at));
    }
}

float part_word(vec4 part[LOADS], uint i)
{
    const uint SUBGROUP = gl_WorkGroupSize.x;
    uint place = i / WORDS;
    return subgroupShuffle(part[place / SUBGROUP][i % WORDS], place % SUBGROUP);
}

void main()
{
    const uint SUBGROUP = gl_WorkGroupSize.x;
    uint row = min(own_row, rows - 1), depth = inputs;
    vec4 part[LOADS];
    [[unroll]] for (uint c = 0; c < outputs; c++)
        logits[c] = 0;
    for (uint k = 0; k < depth; k += DEPTH) {
        vec4 left = QUADS ? LF_LOAD4(x, (row * depth + k) / 4) : vec4(LF_LOAD(x, row * depth + k));
        load_part(k, part);
        [[unroll]] for (uint d = 0; d < DEPTH; d++)
            [[unroll]] for (uint c = 0; c < outputs; c++)
                logits[c] = add_product(left[d], part_word(part, d * outputs + c), logits[c]);
    }
    [[unroll]] for (uint c = 0; c < outputs; c++)
        logits[c] += LF_LOAD(bias, c);

    uint position = lf_schedule_position(step);
    lf_schedule_row now = lf_schedule_at(position);
    bool counts = row < lf_valid_rows(now, start), inside = own_row < rows;
    lf_class_row found = lf_class_row_at(row);
    if (inside)
        store_metrics(position, row, counts, found);
    float slopes[outputs];
    [[unroll]] for (uint c = 0; c < outputs; c++) {
        slopes[c] = lf_cross_entropy_slope(found, c, logits[c]);
        slopes[c] = counts ? slopes[c] * now.inv_weight : 0;
        if (inside)
            LF_STORE(dz, row * outputs + c, slopes[c]);
    }
    for (uint k = 0; k < (STORE_DX ? depth : 0); k += DEPTH) {
        vec4 sum = vec4(0);
        load_part(k, part);
        [[unroll]] for (uint c = 0; c < outputs; c++)
            [[unroll]] for (uint d = 0; d < DEPTH; d++)
                sum[d] = add_product(slopes[c], part_word(part, d * outputs + c), sum[d]);
        uint at = row * depth + k;
        if (ACTIVATION != LF_ACT_NONE)
            sum *= lf_slope4(QUADS ? LF_LOAD4(saved, at / 4) : vec4(LF_LOAD(saved, at)), alpha);
        if (inside && QUADS)
            LF_STORE4(dx, at / 4, sum);
        else if (inside)
            LF_STORE(dx, at, sum.x);
    }
}
#else
void main()
{
    uint row = min(own_row, rows - 1), lane = lf_lane();
    for (uint c = lane; c < outputs; c += LANES) {
        float sum = 0;
        for (uint k = 0; k < inputs; k++)
            sum = add_product(LF_LOAD(x, row * inputs + k), LF_LOAD(kernel, k * outputs + c), sum);
        logits[place + c] = sum + LF_LOAD(bias, c);
    }
    barrier();
    uint position = lf_schedule_position(step);
    lf_schedule_row now = lf_schedule_at(position);
    bool counts = row < lf_valid_rows(now, start), inside = own_row < rows;
    lf_class_row found = lf_class_row_at(row); // other lanes' logits are needed no more
    if (inside && lane == 0)
        store_metrics(position, row, counts, found);
    for (uint c = lane; c < outputs; c += LANES) {
        float slope = lf_cross_entropy_slope(found, c, logits[place + c]);
        logits[place + c] = counts ? slope * now.inv_weight : 0;
        if (inside)
            LF_STORE(dz, row * outputs + c, logits[place + c]);
    }
    barrier();
    for (uint k = lane; k < (STORE_DX && inside ? inputs : 0); k += LANES) {
        float sum = 0;
        for (uint c = 0; c < outputs; c++)
            sum = add_product(logits[place + c], LF_LOAD(kernel, k * outputs + c), sum);
        uint at = row * inputs + k;
        LF_STORE(dx, at, ACTIVATION == LF_ACT_NONE ? sum : sum * lf_slope(LF_LOAD(saved, at), alpha));
    }
}
#endif
