#version 450
// gather: x[i] = data[order[first + start + i]] * scale + offset, y[i] = targets[order[first + start + i]]
// data (resident rows, features) as stored, targets (resident rows, target_words), scaling (2, features), order
// (positions), x (rows, features), y (rows, target_words). `start` is the batch's row that is the shard's first; rows past
// the batch's are zero.
// A workgroup fills one row; an invocation converts four neighbouring features at a time, and copies words of y.
#include "common.glsl"
#define LF_SCHEDULE_SLOT 4
LF_READ_WORDS(0, data)
LF_READ_WORDS(1, targets)
LF_READ(2, scaling)
LF_READ_WORDS(3, order)
#include "schedule.glsl"
LF_WRITE(5, x)
layout(binding = 6, std430) writeonly buffer y_write { uint y_out[]; };

layout(constant_id = 1) const bool QUADS = false; // features are a multiple of four
layout(constant_id = 2) const uint BITS = 32;     // of a stored element
layout(constant_id = 3) const uint KIND = 0;      // 0 unsigned, 1 signed, 2 float
layout(push_constant) uniform Push { uint step, rows, features, target_words, start; };

#include "stored.glsl"

void main()
{
    uint row = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
    if (row >= rows)
        return;
    lf_schedule_row now = lf_schedule_at(lf_schedule_position(step));
    bool counts = row < lf_valid_rows(now, start);
    uint resident = counts ? LF_LOAD(order, now.first + start + row) : 0;
    for (uint feature = 4 * gl_LocalInvocationID.x; feature < features; feature += 4 * gl_WorkGroupSize.x) {
        vec4 scale = LF_LOAD_QUAD(QUADS, scaling, feature, feature, features);
        vec4 offset = LF_LOAD_QUAD(QUADS, scaling, features + feature, feature, features);
        vec4 value = lf_stored4(resident, feature, features) * scale + offset;
        value = counts ? value : vec4(0);
        LF_STORE_QUAD(QUADS, x, row * features + feature, feature, features, value)
    }
    for (uint word = gl_LocalInvocationID.x; word < target_words; word += gl_WorkGroupSize.x)
        y_out[row * target_words + word] = counts ? LF_LOAD(targets, resident * target_words + word) : 0;
}
