// cross_entropy: row loss = logsumexp(z) - (1 - s) z[label] - s mean(z), s: label_smoothing;
//                dz = weight inv_weight (softmax(z) - (1 - s) onehot(label) - s / outputs)
// z and dz (rows, outputs), label and weights (rows), metrics (steps, batch, 5). Rows past the schedule's give zeros.
// Logits that are NaN make the row's loss NaN.
// The lanes of a row take every lanes-th class each; see lanes.cuh.
#include "classes.cuh"

LF_KERNEL(cross_entropy, LF_LANES_THREADS)
{
    unsigned at = lf_row_inside(call), lane = threadIdx.x;
    lf_loss_row row = lf_loss_row_at(call, at);
    lf_class_row c = lf_class_row_at(call, row, lf_operand<const unsigned>(call, LF_TARGET)[at]);

    if (lf_row() >= call.rows)
        return;
    if (lane == 0)
        lf_store_class_metrics(row, c, lf_cross_entropy(c, call.label_smoothing));
    if (row.dz)
        for (unsigned i = lane; i < call.outputs; i += blockDim.x) {
            float slope = lf_cross_entropy_slope(call, c, i, row.z[i]);
            row.dz[i] = row.counts ? slope * row.scale : 0;
        }
}
