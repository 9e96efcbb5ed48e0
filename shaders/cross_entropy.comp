#version 450
// cross_entropy: row loss = logsumexp(z) - (1 - s) z[label] - s mean(z), s: label_smoothing;
//                dz = weight inv_weight (softmax(z) - (1 - s) onehot(label) - s / outputs)
// z and dz (batch, outputs), label and weights (batch), metrics (steps, batch, 5). Rows past the batch's give zeros.
// Logits that are NaN make the row's loss NaN.
// LANES invocations take one row, each every LANES-th class.
#include "common.glsl"
#include "classes.glsl"

void main()
{
    uint row = min(lf_row(), rows - 1), from = row * outputs, lane = lf_lane();
    uint position = lf_schedule_position(step);
    lf_schedule_row now = lf_schedule_at(position);
    bool counts = row < lf_valid_rows(now, start);
    lf_class_row c = lf_class_row_at(row);

    if (lf_row() >= rows)
        return;
    if (lane == 0)
        lf_store_class_metrics(position, row, counts, lf_cross_entropy(c), c);
    if (STORE_DZ) {
        float scale = lf_weight(row) * now.inv_weight;
        for (uint i = lane; i < outputs; i += LANES) {
            float slope = lf_cross_entropy_slope(c, i, LF_LOAD(z, from + i));
            LF_STORE(dz, from + i, counts ? slope * scale : 0);
        }
    }
}
