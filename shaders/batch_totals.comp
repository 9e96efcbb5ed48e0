#version 450
// batch_totals: mean = sum / rows and variance = squares / rows of each column, over the batch's rows
// STATS: stats = mean and rstd = 1 / sqrt(variance + eps). MOVES: the running ones move towards them, as in batch_stats.
// sum, squares, mean and variance (width), stats (2, width).
// One invocation of the first band owns four columns.
#include "common.glsl"
#define LF_SCHEDULE_SLOT 2
LF_READ(0, sum)
LF_READ(1, squares)
#include "schedule.glsl"
LF_WRITE(3, stats)
LF_UPDATE(4, mean)
LF_UPDATE(5, variance)
#include "columns.glsl"
#include "running.glsl"
layout(constant_id = 4) const bool STATS = false;
layout(constant_id = 5) const bool MOVES = false;
layout(push_constant) uniform Push { uint step, rows, width; float eps, momentum; };

void main()
{
    if (lf_column() >= width || gl_LocalInvocationID.y > 0)
        return;
    uint column = lf_column(), batch = lf_schedule_at(lf_schedule_position(step)).rows;
    vec4 off_mean = LF_LOAD_COLUMNS(squares, 0, column, width);
    vec4 now_mean = LF_LOAD_COLUMNS(sum, 0, column, width) / batch;
    if (STATS) {
        vec4 rstd = 1 / sqrt(off_mean / batch + eps);
        LF_STORE_COLUMNS(stats, 0, column, width, now_mean)
        LF_STORE_COLUMNS(stats, 1, column, width, rstd)
    }
    if (MOVES) {
        vec4 next_mean = lf_moved(LF_LOAD_COLUMNS(mean, 0, column, width), now_mean, momentum);
        vec4 next_variance =
            lf_moved(LF_LOAD_COLUMNS(variance, 0, column, width), lf_unbiased(off_mean, batch), momentum);
        LF_REPLACE_QUAD(QUADS, mean, column, column, width, next_mean)
        LF_REPLACE_QUAD(QUADS, variance, column, column, width, next_variance)
    }
}
