// batch_totals: of each column's sum and squares about the mean over the rows of the batch: mean = sum / rows, variance =
// squares / rows; stats = mean and 1 / sqrt(variance + eps), and the running mean and variance move towards them. Either
// may be none. sum, squares, mean and variance (outputs), stats (2, outputs).
// One thread has one column.
#include "statistics.cuh"
#include "sweep.cuh"

LF_KERNEL(batch_totals, LF_SWEEP_THREADS)
{
    size_t column = lf_sweep_at();
    if (column >= call.outputs)
        return;
    unsigned rows = lf_schedule_now(call, 2).row.rows;
    float mean = lf_in(call, 0)[column] / rows, squares = lf_in(call, 1)[column];
    if (call.operand[3]) {
        float *stats = lf_out(call, 3) + column;
        stats[0] = mean;
        stats[call.outputs] = lf_rstd(call, squares / rows);
    }
    if (call.operand[4])
        lf_move_running(call, rows, mean, squares, lf_out(call, 4) + column, lf_out(call, 5) + column);
}
