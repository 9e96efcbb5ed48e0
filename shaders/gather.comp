#version 450
// gather: x[i] = data[order[first + start + i]] * scale + offset, y[i] = targets[order[first + start + i]]
// data (resident rows, features) as stored, targets (resident rows, target_words), scaling (2, features), order
// (positions), x (rows, features), y (rows, target_words). `start` is the batch's row that is the shard's first; rows
// past the batch's are zero. Workgroups of number n in the third dimension do so for the n-th step from this one on, and
// store n slots of x_slot and y_slot words further on.
// A workgroup fills ROWS rows; an invocation converts four neighbouring features at a time, and copies words of y. What
// a loop needs again and again is read before it: a processor reads push constants anew at every use. All rows are read
// before one is stored, so that a processor waits for their memory once.
#extension GL_EXT_control_flow_attributes : require
#ifdef LF_TEXEL
#extension GL_KHR_shader_subgroup_shuffle : require
#endif
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
layout(constant_id = 4) const uint ROWS = 1;      // in a texel build, at most the lanes
layout(push_constant) uniform Push { uint step, rows, features, target_words, start, x_slot, y_slot; };

#include "stored.glsl"

void main()
{
    const uint LANES = gl_WorkGroupSize.x;
    uint lane = gl_LocalInvocationID.x, width = features, words = target_words, count = rows;
    uint first_row = (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * ROWS;
    if (first_row >= count)
        return;
    lf_schedule_row now = lf_schedule_at(lf_schedule_position(step + gl_WorkGroupID.z));
    uint valid = lf_valid_rows(now, start), first = now.first + start;
#ifdef LF_TEXEL // each lane looks up another row, and tells it while all are there
    uint of_lane = LF_LOAD(order, first_row + lane < valid ? first + first_row + lane : 0), told[ROWS];
    [[unroll]] for (uint i = 0; i < ROWS; i++)
        told[i] = subgroupShuffle(of_lane, i);
#endif
    uint from_x = gl_WorkGroupID.z * x_slot, from_y = gl_WorkGroupID.z * y_slot;
    for (uint feature = 4 * lane; feature < width; feature += 4 * LANES) {
        vec4 scale = LF_LOAD_QUAD(QUADS, scaling, feature, feature, width);
        vec4 offset = LF_LOAD_QUAD(QUADS, scaling, width + feature, feature, width);
        vec4 values[ROWS];
        [[unroll]] for (uint i = 0; i < ROWS; i++) {
            uint row = first_row + i;
            bool counts = row < valid;
#ifdef LF_TEXEL
            uint resident = told[i];
#else
            uint resident = LF_LOAD(order, counts ? first + row : 0);
#endif
            vec4 value = lf_stored4(resident, feature, width) * scale + offset;
            values[i] = counts ? value : vec4(0);
        }
        [[unroll]] for (uint i = 0; i < ROWS; i++) {
            uint row = first_row + i;
            if (row < count)
                LF_STORE_QUAD(QUADS, x, from_x + row * width + feature, feature, width, values[i])
        }
    }
    for (uint i = lane; i < min(ROWS, count - first_row) * words; i += LANES) {
        uint row = first_row + i / words;
        bool counts = row < valid;
        uint resident = LF_LOAD(order, counts ? first + row : 0);
        y_out[from_y + row * words + i % words] = counts ? LF_LOAD(targets, resident * words + i % words) : 0;
    }
}
