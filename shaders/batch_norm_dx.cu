// batch_norm_dx: dx = gamma rstd (dy - dbeta / n - h dgamma / n), with h = (x - mean) rstd and n the rows of the batch
// x, dy and dx (rows, outputs), gamma, dgamma and dbeta (outputs), stats (2, outputs): mean, rstd. Rows past the
// schedule's are zero.
// One thread has one column of LF_COLUMN_ROWS rows.
#include "columns.cuh"

LF_KERNEL(batch_norm_dx, LF_COLUMN_THREADS)
{
    unsigned column = lf_column(), width = call.outputs;
    if (column >= width)
        return;
    unsigned batch_rows = lf_schedule_now(call, 6).row.rows, valid = lf_valid_rows(call, batch_rows);
    const float *x = lf_in(call, 0) + column, *dy = lf_in(call, 1) + column, *stats = lf_in(call, 3) + column;
    float *dx = lf_out(call, 7) + column;
    float mean = stats[0], rstd = stats[width], scale = lf_in(call, 2)[column] * rstd;
    float mean_along = lf_in(call, 4)[column] / batch_rows, mean_dy = lf_in(call, 5)[column] / batch_rows;
    for (unsigned row = lf_first_row(); row < lf_rows_end(call); row += blockDim.y) {
        size_t at = (size_t)row * width;
        float h = (x[at] - mean) * rstd;
        dx[at] = row < valid ? scale * (dy[at] - mean_dy - h * mean_along) : 0;
    }
}
