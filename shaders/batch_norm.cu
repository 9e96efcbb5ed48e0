// batch_norm: y = (x - mean) rstd gamma + beta   x and y (rows, outputs), gamma and beta (outputs), stats (2, outputs):
// mean, rstd. All rows, those past the schedule's too.
// One thread has one column of LF_COLUMN_ROWS rows.
#include "columns.cuh"

LF_KERNEL(batch_norm, LF_COLUMN_THREADS)
{
    unsigned column = lf_column(), width = call.outputs;
    if (column >= width)
        return;
    const float *x = lf_in(call, 0) + column, *stats = lf_in(call, 3) + column;
    float *y = lf_out(call, 4) + column;
    float mean = stats[0], rstd = stats[width], scale = lf_in(call, 1)[column], shift = lf_in(call, 2)[column];
    for (unsigned row = lf_first_row(); row < lf_rows_end(call); row += blockDim.y)
        y[(size_t)row * width] = (x[(size_t)row * width] - mean) * rstd * scale + shift;
}
