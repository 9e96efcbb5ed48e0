// column_sums: out = sum of each column's x, or where there is `sum` of (x - mean)², mean = sum / rows of the batch; over
// the valid ones of the operation's rows. x (rows, outputs), sum and out (outputs).
// One thread has one column, and of the rows every bands-th.
#include "columns.cuh"

LF_KERNEL(column_sums, LF_COLUMN_THREADS)
{
    unsigned column = lf_column_inside(call), batch_rows = lf_schedule_now(call, 1).row.rows;
    unsigned rows = lf_valid_rows(call, batch_rows);
    const float *x = lf_in(call, 0) + column, *sum = lf_in(call, 2);
    float mean = sum ? sum[column] / batch_rows : 0, total = 0;
    for (unsigned row = threadIdx.y; row < rows; row += blockDim.y) {
        float value = x[(size_t)row * call.outputs] - mean;
        total += sum ? value * value : value;
    }
    total = lf_sum_bands(total);
    if (lf_stores_column(call))
        lf_out(call, 3)[column] = total;
}
