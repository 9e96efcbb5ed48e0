// value_loss: row loss = share · mean over the outputs of (1 - a) l(z, target) + a (z - teacher)², with l by `value`
//             (abi.h) and a = soft_weight, 0 without a teacher; dz = weight inv_weight its derivative
// z, target, teacher and dz (rows, outputs), weights (rows), metrics (steps, batch, 5). Rows past the schedule's give
// zeros. `adds`: adds to the metric `loss`, and leaves the others.
// The lanes of a row take every lanes-th output each; see lanes.cuh.
#include "elementary.cuh"
#include "loss.cuh"

LF_INLINE float lf_value_loss(const lf_call &call, float z, float off, float target)
{
    float distance = fabsf(off);
    switch (call.value) {
    case LF_VALUE_BINARY: return (z < 0 ? 0 : z) - z * target + log1pf(expf(-fabsf(z)));
    case LF_VALUE_MAE: return distance;
    case LF_VALUE_HUBER: return distance > call.delta ? call.delta * (distance - 0.5f * call.delta) : 0.5f * off * off;
    }
    return off * off;
}

// NaN goes through.
LF_INLINE float lf_value_slope(const lf_call &call, float z, float off, float target)
{
    switch (call.value) {
    case LF_VALUE_BINARY: return lf_sigmoid(z) - target;
    case LF_VALUE_MAE: return off > 0 ? 1 : off < 0 ? -1 : off;
    case LF_VALUE_HUBER: return off > call.delta ? call.delta : off < -call.delta ? -call.delta : off;
    }
    return 2 * off;
}

LF_KERNEL(value_loss, LF_LANES_THREADS)
{
    unsigned at = lf_row_inside(call), lane = threadIdx.x;
    lf_loss_row row = lf_loss_row_at(call, at);
    const float *target = lf_in(call, LF_TARGET) + (size_t)at * call.outputs;
    bool inside = lf_row() < call.rows, binary = call.value == LF_VALUE_BINARY;
    float soft = row.teacher ? call.soft_weight : 0, scale = row.scale * call.share / call.outputs;

    float sum = 0, squared = 0, absolute = 0, wrong = 0;
    for (unsigned i = lane; i < call.outputs; i += blockDim.x) {
        float value = row.z[i], off = value - target[i];
        float loss = lf_value_loss(call, value, off, target[i]), slope = lf_value_slope(call, value, off, target[i]);
        if (row.teacher) {
            float away = value - row.teacher[i];
            loss = (1 - soft) * loss + soft * away * away;
            slope = (1 - soft) * slope + soft * 2 * away;
        }
        sum += loss;
        float error = binary ? lf_sigmoid(value) - target[i] : off;
        squared += error * error;
        absolute += fabsf(error);
        wrong += binary && (value > 0) != (target[i] > 0.5f) ? 1 : 0;
        if (row.dz && inside)
            row.dz[i] = row.counts ? scale * slope : 0;
    }
    sum = call.share * lf_sum_lanes(sum) / call.outputs;
    squared = lf_sum_lanes(squared) / call.outputs;
    absolute = lf_sum_lanes(absolute) / call.outputs;
    wrong = lf_sum_lanes(wrong) / call.outputs;

    if (!inside || lane != 0)
        return;
    if (!call.adds)
        lf_store_metrics(row, sum, squared, absolute, wrong);
    else if (row.counts)
        row.metrics[LF_METRIC_LOSS] += row.weight * sum;
}
