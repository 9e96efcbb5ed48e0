// gather_rows: out[i] = source[order[first + row + i]] for the operation's row i   source (resident rows, outputs), order
// (positions), out (rows, outputs). Rows past the schedule's are zero.
// The lanes of a row copy every lanes-th column each.
#include "lanes.cuh"

LF_KERNEL(gather_rows, LF_LANES_THREADS)
{
    unsigned row = lf_row();
    if (row >= call.rows)
        return;
    lf_schedule_row now = lf_schedule_now(call, 2).row;
    bool counts = row < lf_valid_rows(call, now.rows);
    size_t resident = counts ? lf_operand<const unsigned>(call, 1)[now.first + call.row + row] : 0;
    const float *source = lf_in(call, 0) + resident * call.outputs;
    float *out = lf_out(call, 3) + (size_t)row * call.outputs;
    for (unsigned i = threadIdx.x; i < call.outputs; i += blockDim.x)
        out[i] = counts ? source[i] : 0;
}
