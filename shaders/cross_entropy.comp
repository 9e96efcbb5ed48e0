#version 450
// cross_entropy: row loss = logsumexp(z) - z[label], hit = the label's logit is the largest and the first of its equals;
//                dz = (softmax(z) - onehot(label)) / rows
// z and dz (batch, outputs), label (batch), metrics (steps, batch, 2). Rows past the schedule's give zeros. Logits that
// are NaN make the row's loss NaN and its hit 0.
// LANES invocations take one row, each every LANES-th class.
#include "common.glsl"
#include "classes.glsl"

void main()
{
    uint row = min(lf_row(), batch - 1), from = row * outputs, lane = lf_lane();
    uint position = lf_schedule_position(step);
    lf_schedule_row now = lf_schedule_at(position);
    lf_class_row c = lf_class_row_at(row);

    if (lf_row() >= batch)
        return;
    if (lane == 0)
        lf_store_metrics(position, row, row < now.rows, lf_cross_entropy(c), c.hit);
    if (STORE_DZ) {
        for (uint i = lane; i < outputs; i += LANES) {
            float slope = lf_cross_entropy_slope(c, i, LF_LOAD(z, from + i));
            LF_STORE(dz, from + i, row < now.rows ? slope * now.inv_rows : 0);
        }
    }
}
