#version 450
// gather_rows: result[i] = source[order[first + start + i]]   source (resident rows, width), order (positions), result
// (rows, width). `start` is the batch's row that is the shard's first; rows past the batch's are zero.
// A workgroup fills one row; an invocation copies four neighbouring columns at a time.
#include "common.glsl"
#define LF_SCHEDULE_SLOT 2
LF_READ(0, source)
LF_READ_WORDS(1, order)
#include "schedule.glsl"
LF_WRITE(3, result)
layout(constant_id = 1) const bool QUADS = false; // the width is a multiple of four
layout(push_constant) uniform Push { uint step, rows, width, start; };

void main()
{
    uint row = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
    if (row >= rows)
        return;
    lf_schedule_row now = lf_schedule_at(lf_schedule_position(step));
    bool counts = row < lf_valid_rows(now, start);
    uint resident = counts ? LF_LOAD(order, now.first + start + row) : 0;
    for (uint column = 4 * gl_LocalInvocationID.x; column < width; column += 4 * gl_WorkGroupSize.x) {
        vec4 value = LF_LOAD_QUAD(QUADS, source, resident * width + column, column, width);
        value = counts ? value : vec4(0);
        LF_STORE_QUAD(QUADS, result, row * width + column, column, width, value)
    }
}
