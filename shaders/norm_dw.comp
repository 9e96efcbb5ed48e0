#version 450
// norm_dw: dgamma = column sums of dy (x - mean) rstd, dbeta = column sums of dy   x and dy (batch, width), dgamma and
// dbeta (width); stats BY_ROW (batch, 2), else (2, width): mean, rstd. All rows of the batch: dy is zero where none counts.
// One invocation owns four columns, and of the rows every BANDS-th.
#include "common.glsl"
LF_READ(0, x)
LF_READ(1, dy)
LF_READ(2, stats)
LF_WRITE(3, dgamma)
LF_WRITE(4, dbeta)
#define LF_COLUMN_SUMS
#include "columns.glsl"
layout(constant_id = 3) const bool BY_ROW = false;
layout(push_constant) uniform Push { uint step, batch, width; };

void main()
{
    const uint BANDS = gl_WorkGroupSize.y;
    uint column = lf_column_inside(width), band = gl_LocalInvocationID.y;
    vec4 mean = vec4(0), rstd = vec4(0), along = vec4(0), sum = vec4(0);
    if (!BY_ROW) {
        mean = LF_LOAD_COLUMNS(stats, 0, column, width);
        rstd = LF_LOAD_COLUMNS(stats, 1, column, width);
    }
    for (uint row = band; row < batch; row += BANDS) {
        if (BY_ROW) {
            mean = vec4(LF_LOAD(stats, 2 * row));
            rstd = vec4(LF_LOAD(stats, 2 * row + 1));
        }
        vec4 slope = LF_LOAD_COLUMNS(dy, row, column, width);
        along += slope * ((LF_LOAD_COLUMNS(x, row, column, width) - mean) * rstd);
        sum += slope;
    }
    along = lf_sum_bands(along);
    sum = lf_sum_bands(sum);
    if (band == 0 && lf_column() < width) {
        LF_STORE_COLUMNS(dgamma, 0, column, width, along)
        LF_STORE_COLUMNS(dbeta, 0, column, width, sum)
    }
}
