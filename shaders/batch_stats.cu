// batch_stats: stats = mean and rstd = 1 / sqrt(variance + eps) of each column
// `training`: of the schedule's rows of x, and the running ones move towards them. Else: of the running ones.
// x (rows, outputs), mean and variance (outputs), stats (2, outputs).
// One thread has one column, and of the rows every bands-th; squares are summed about the mean, in a second pass.
#include "columns.cuh"
#include "statistics.cuh"

LF_KERNEL(batch_stats, LF_COLUMN_THREADS)
{
    unsigned column = lf_column_inside(call), width = call.outputs, bands = blockDim.y;
    const float *x = lf_in(call, 0) + column;
    float *running_mean = lf_out(call, 2) + column, *running_variance = lf_out(call, 3) + column;
    float *stats = lf_out(call, 4) + column, mean = *running_mean, variance = *running_variance;
    if (call.training) {
        unsigned rows = lf_valid_rows(call, lf_schedule_now(call, 1).row.rows);
        float sum = 0, squares = 0;
        for (unsigned row = threadIdx.y; row < rows; row += bands)
            sum += x[(size_t)row * width];
        mean = lf_sum_bands(sum) / rows;
        for (unsigned row = threadIdx.y; row < rows; row += bands) {
            float off = x[(size_t)row * width] - mean;
            squares += off * off;
        }
        squares = lf_sum_bands(squares);
        variance = squares / rows;
        if (lf_stores_column(call))
            lf_move_running(call, rows, mean, squares, running_mean, running_variance);
    }
    if (lf_stores_column(call)) {
        stats[0] = mean;
        stats[width] = lf_rstd(call, variance);
    }
}
