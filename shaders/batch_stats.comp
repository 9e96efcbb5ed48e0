#version 450
// batch_stats: stats = mean and rstd = 1 / sqrt(variance + eps) of each column
// TRAINING: of the schedule's rows of x, and the running ones move: running = (1 - momentum) running + momentum new, where
// the new variance is the unbiased one (the biased one if there is a single row). Else: of the running ones.
// x (batch, width), mean and variance (width), stats (2, width).
// One invocation owns four columns, and of the rows every BANDS-th; squares are summed about the mean, in a second pass.
#include "common.glsl"
#define LF_SCHEDULE_SLOT 1
LF_READ(0, x)
#include "schedule.glsl"
LF_UPDATE(2, mean)
LF_UPDATE(3, variance)
LF_WRITE(4, stats)
#define LF_COLUMN_SUMS
#include "columns.glsl"
#include "running.glsl"
layout(constant_id = 3) const bool TRAINING = false;
layout(push_constant) uniform Push { uint step, batch, width; float eps, momentum; };

void main()
{
    const uint BANDS = gl_WorkGroupSize.y;
    uint column = lf_column_inside(width), band = gl_LocalInvocationID.y;
    bool stores = band == 0 && lf_column() < width;
    vec4 running_mean = LF_LOAD_COLUMNS(mean, 0, column, width);
    vec4 running_variance = LF_LOAD_COLUMNS(variance, 0, column, width);
    vec4 now_mean = running_mean, now_variance = running_variance;
    if (TRAINING) {
        uint rows = lf_schedule_at(lf_schedule_position(step)).rows;
        vec4 sum = vec4(0), squares = vec4(0);
        for (uint row = band; row < rows; row += BANDS)
            sum += LF_LOAD_COLUMNS(x, row, column, width);
        now_mean = lf_sum_bands(sum) / rows;
        for (uint row = band; row < rows; row += BANDS) {
            vec4 off = LF_LOAD_COLUMNS(x, row, column, width) - now_mean;
            squares += off * off;
        }
        squares = lf_sum_bands(squares);
        now_variance = squares / rows;
        vec4 next_mean = lf_moved(running_mean, now_mean, momentum);
        vec4 next_variance = lf_moved(running_variance, lf_unbiased(squares, rows), momentum);
        if (stores) {
            LF_REPLACE_QUAD(QUADS, mean, column, column, width, next_mean)
            LF_REPLACE_QUAD(QUADS, variance, column, column, width, next_variance)
        }
    }
    vec4 rstd = 1 / sqrt(now_variance + eps);
    if (stores) {
        LF_STORE_COLUMNS(stats, 0, column, width, now_mean)
        LF_STORE_COLUMNS(stats, 1, column, width, rstd)
    }
}
