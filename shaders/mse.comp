#version 450
// mse: row loss = mean over the outputs of (z - target)², hit = 0; dz = 2 (z - target) / (outputs rows)
// z, target and dz (batch, outputs), metrics (steps, batch, 2). Rows past the schedule's give zeros.
// LANES invocations take one row, each every LANES-th output.
#include "common.glsl"
LF_READ(0, z)
LF_READ(1, target)
#include "loss.glsl"

void main()
{
    uint row = min(lf_row(), batch - 1), from = row * outputs, lane = lf_lane();
    uint position = lf_schedule_position(step);
    lf_schedule_row now = lf_schedule_at(position);
    bool inside = lf_row() < batch;

    float sum = 0;
    for (uint i = lane; i < outputs; i += LANES) {
        float difference = LF_LOAD(z, from + i) - LF_LOAD(target, from + i);
        sum += difference * difference;
        if (STORE_DZ && inside)
            LF_STORE(dz, from + i, row < now.rows ? 2 * difference / outputs * now.inv_rows : 0);
    }
    sum = lf_reduce_lanes(false, sum);
    if (inside && lane == 0)
        lf_store_metrics(position, row, row < now.rows, sum / outputs, 0);
}
