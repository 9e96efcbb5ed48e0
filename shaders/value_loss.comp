#version 450
// value_loss: row loss = share · mean over the outputs of (1 - a) l(z, target) + a (z - teacher)², with l by VALUE (abi.h)
//             and a = soft_weight, 0 unless TAUGHT; dz = weight inv_weight its derivative
// z, target, teacher and dz (batch, outputs), weights (batch), metrics (steps, batch, 5). Rows past the batch's give
// zeros. ADDS: adds to the metric `loss`, and leaves the others.
// LANES invocations take one row, each every LANES-th output.
#include "common.glsl"
LF_READ(0, z)
LF_READ(1, target)
#include "loss.glsl"
#include "elementary.glsl"
layout(constant_id = 4) const uint VALUE = LF_VALUE_MSE;
layout(constant_id = 5) const bool TAUGHT = false;
layout(constant_id = 6) const bool ADDS = false;

float lf_loss(float z, float off, float target)
{
    float distance = abs(off);
    switch (VALUE) {
    case LF_VALUE_BINARY: return (z < 0 ? 0 : z) - z * target + lf_log1p(exp(-abs(z)));
    case LF_VALUE_MAE: return distance;
    case LF_VALUE_HUBER: return distance > delta ? delta * (distance - 0.5 * delta) : 0.5 * off * off;
    }
    return off * off;
}

float lf_loss_slope(float z, float off, float target)
{
    precise float slope = 2 * off; // `precise` keeps comparisons as they are, so that NaN goes through
    switch (VALUE) {
    case LF_VALUE_BINARY: slope = lf_sigmoid(z) - target; break;
    case LF_VALUE_MAE: slope = off > 0 ? 1 : off < 0 ? -1 : off; break;
    case LF_VALUE_HUBER: slope = off > delta ? delta : off < -delta ? -delta : off; break;
    }
    return slope;
}

void main()
{
    uint row = min(lf_row(), rows - 1), from = row * outputs, lane = lf_lane();
    uint position = lf_schedule_position(step);
    lf_schedule_row now = lf_schedule_at(position);
    bool inside = lf_row() < rows, counts = row < lf_valid_rows(now, start);
    float weight = lf_weight(row), soft = TAUGHT ? soft_weight : 0, scale = weight * now.inv_weight * share / outputs;

    float sum = 0;
    vec3 others = vec3(0); // squared, absolute, wrong
    for (uint i = lane; i < outputs; i += LANES) {
        float value = LF_LOAD(z, from + i), wanted = LF_LOAD(target, from + i), off = value - wanted;
        float loss = lf_loss(value, off, wanted), slope = lf_loss_slope(value, off, wanted);
        if (TAUGHT) {
            float away = value - LF_LOAD(teacher, from + i);
            loss = (1 - soft) * loss + soft * away * away;
            slope = (1 - soft) * slope + soft * 2 * away;
        }
        sum += loss;
        float error = VALUE == LF_VALUE_BINARY ? lf_sigmoid(value) - wanted : off;
        others += vec3(error * error, abs(error),
                       VALUE == LF_VALUE_BINARY && (value > 0) != (wanted > 0.5) ? 1 : 0);
        if (STORE_DZ && inside)
            LF_STORE(dz, from + i, counts ? scale * slope : 0);
    }
    sum = share * lf_reduce_lanes(false, sum) / outputs;
    if (ADDS) {
        uint at = lf_metrics_at(position, row) + LF_METRIC_LOSS;
        if (inside && counts && lane == 0)
            LF_REPLACE(metrics, at, LF_LOAD(metrics, at) + weight * sum);
        return;
    }
    others = vec3(lf_reduce_lanes(false, others.x), lf_reduce_lanes(false, others.y), lf_reduce_lanes(false, others.z));
    if (inside && lane == 0)
        lf_store_metrics(position, row, counts, sum, weight, others / outputs);
}
