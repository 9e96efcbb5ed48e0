// norm_dw: dgamma = column sums of dy (x - mean) rstd, dbeta = column sums of dy   x and dy (rows, outputs), dgamma and
// dbeta (outputs); stats `by_row` (rows, 2), else (2, outputs): mean, rstd. All rows: dy is zero where none counts.
// One thread has one column, and of the rows every bands-th.
#include "columns.cuh"

LF_KERNEL(norm_dw, LF_COLUMN_THREADS)
{
    unsigned column = lf_column_inside(call), width = call.outputs;
    const float *x = lf_in(call, 0) + column, *dy = lf_in(call, 1) + column, *stats = lf_in(call, 2);
    float mean = call.by_row ? 0 : stats[column], rstd = call.by_row ? 0 : stats[width + column], along = 0, sum = 0;
    for (unsigned row = threadIdx.y; row < call.rows; row += blockDim.y) {
        if (call.by_row) {
            mean = stats[2 * (size_t)row];
            rstd = stats[2 * (size_t)row + 1];
        }
        float slope = dy[(size_t)row * width];
        along += slope * ((x[(size_t)row * width] - mean) * rstd);
        sum += slope;
    }
    along = lf_sum_bands(along);
    sum = lf_sum_bands(sum);
    if (lf_stores_column(call)) {
        lf_out(call, 3)[column] = along;
        lf_out(call, 4)[column] = sum;
    }
}
