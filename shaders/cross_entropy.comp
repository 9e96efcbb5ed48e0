#version 450
// cross_entropy: row loss = logsumexp(z) - z[label], hit = the label's logit is the largest and the first of its equals;
//                dz = (softmax(z) - onehot(label)) / rows
// z and dz (batch, outputs), label (batch), metrics (steps, batch, 2). Rows past the schedule's give zeros. Logits that
// are NaN make the row's loss NaN and its hit 0.
// LANES invocations take one row, each every LANES-th class.
#include "common.glsl"
LF_READ(0, z)
LF_READ_WORDS(1, label)
#include "loss.glsl"

void main()
{
    uint row = min(lf_loss_row(), batch - 1), from = row * outputs, lane = lf_loss_lane();
    uint position = lf_schedule_position(step);
    lf_schedule_row now = lf_schedule_at(position);
    uint truth = min(LF_LOAD(label, row), outputs - 1);
    float of_truth = LF_LOAD(z, from + truth);

    float largest = of_truth, beaten = of_truth == of_truth ? 0 : 1;
    for (uint i = lane; i < outputs; i += LANES) {
        float logit = LF_LOAD(z, from + i);
        largest = max(largest, logit);
        bool below = i < truth ? logit < of_truth : logit <= of_truth; // false if either is NaN
        beaten += below ? 0 : 1;
    }
    largest = lf_reduce_lanes(true, largest);
    beaten = lf_reduce_lanes(false, beaten);
    float sum = 0;
    for (uint i = lane; i < outputs; i += LANES)
        sum += exp(LF_LOAD(z, from + i) - largest);
    sum = lf_reduce_lanes(false, sum);

    if (lf_loss_row() >= batch)
        return;
    if (lane == 0)
        lf_store_metrics(position, row, row < now.rows, largest - of_truth + log(sum), beaten == 0 ? 1 : 0);
    if (STORE_DZ) {
        for (uint i = lane; i < outputs; i += LANES) {
            float slope = exp(LF_LOAD(z, from + i) - largest) / sum - (i == truth ? 1 : 0);
            LF_STORE(dz, from + i, row < now.rows ? slope * now.inv_rows : 0);
        }
    }
}
