#version 450
// batch_norm_dx: dx = gamma rstd (dy - dbeta / rows - h dgamma / rows), with h = (x - mean) rstd
// x, dy and dx (rows, width), gamma, dgamma and dbeta (width), stats (2, width): mean, rstd. `start` is the batch's row
// that is the shard's first, the formula's rows are those of the batch, and rows past them are zero.
// One invocation owns four columns of ROWS rows.
#include "common.glsl"
#define LF_SCHEDULE_SLOT 6
LF_READ(0, x)
LF_READ(1, dy)
LF_READ(2, gamma)
LF_READ(3, stats)
LF_READ(4, dgamma)
LF_READ(5, dbeta)
#include "schedule.glsl"
LF_WRITE(7, dx)
#include "columns.glsl"
layout(push_constant) uniform Push { uint step, rows, width, start; };

void main()
{
    if (lf_column() >= width)
        return;
    uint column = lf_column();
    lf_schedule_row now = lf_schedule_at(lf_schedule_position(step));
    vec4 mean = LF_LOAD_COLUMNS(stats, 0, column, width), rstd = LF_LOAD_COLUMNS(stats, 1, column, width);
    vec4 scale = LF_LOAD_COLUMNS(gamma, 0, column, width) * rstd;
    vec4 mean_dy = LF_LOAD_COLUMNS(dbeta, 0, column, width) / now.rows;
    vec4 mean_along = LF_LOAD_COLUMNS(dgamma, 0, column, width) / now.rows;
    uint valid = lf_valid_rows(now, start);
    for (uint row = lf_first_row(); row < min(lf_first_row() + ROWS, rows); row++) {
        vec4 h = (LF_LOAD_COLUMNS(x, row, column, width) - mean) * rstd;
        vec4 slope = scale * (LF_LOAD_COLUMNS(dy, row, column, width) - mean_dy - h * mean_along);
        vec4 value = row < valid ? slope : vec4(0);
        LF_STORE_COLUMNS(dx, row, column, width, value)
    }
}
