#version 450
// column_sums: result = sum of each column of x over those rows of a shard that are the batch's; ABOUT_MEAN: of
// (x - mean)², mean = sum / rows of the batch   x (shard rows, width), sum and result (width). `start` is the batch's row
// that is the shard's first. A shard past the batch's end gives zeros.
// One invocation owns four columns, and of the rows every BANDS-th.
#include "common.glsl"
#define LF_SCHEDULE_SLOT 1
LF_READ(0, x)
#include "schedule.glsl"
LF_READ(2, sum)
LF_WRITE(3, result)
#define LF_COLUMN_SUMS
#include "columns.glsl"
layout(constant_id = 3) const bool ABOUT_MEAN = false;
layout(push_constant) uniform Push { uint step, rows, width, start; };

void main()
{
    const uint BANDS = gl_WorkGroupSize.y;
    uint column = lf_column_inside(width), band = gl_LocalInvocationID.y;
    lf_schedule_row now = lf_schedule_at(lf_schedule_position(step));
    uint valid = min(lf_valid_rows(now, start), rows);
    vec4 mean = vec4(0), total = vec4(0);
    if (ABOUT_MEAN)
        mean = LF_LOAD_COLUMNS(sum, 0, column, width) / now.rows;
    for (uint row = band; row < valid; row += BANDS) {
        vec4 value = LF_LOAD_COLUMNS(x, row, column, width);
        vec4 off = value - mean;
        total += ABOUT_MEAN ? off * off : value;
    }
    total = lf_sum_bands(total);
    if (band == 0 && lf_column() < width) {
        LF_STORE_COLUMNS(result, 0, column, width, total)
    }
}
