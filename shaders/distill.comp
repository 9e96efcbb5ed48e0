#version 450
// distill: with q = softmax(z / T), a = soft_weight, and the teacher's p, softened by the same temperature T:
//          row loss = a T² sum of p (log p - log q) + (1 - a) cross_entropy, smoothed as there;
//          dz = weight inv_weight (a T (q - p) + (1 - a) its slope)
// z, teacher and dz (batch, outputs), label and weights (batch), metrics (steps, batch, 5). Rows past the batch's give
// zeros.
// LANES invocations take one row, each every LANES-th class.
#include "common.glsl"
#include "classes.glsl"

// p (log p - log q). What is below the least normal number counts as 0: where such numbers are flushed to 0, their
// logarithm is infinite. NaN goes through.
float divergence_term(float p, float log_q)
{
    return abs(p) < 1.17549435e-38 ? 0 : p * (log(p) - log_q);
}

void main()
{
    uint row = min(lf_row(), rows - 1), from = row * outputs, lane = lf_lane();
    uint position = lf_schedule_position(step);
    lf_schedule_row now = lf_schedule_at(position);
    bool counts = row < lf_valid_rows(now, start);
    lf_class_row c = lf_class_row_at(row);

    float soft_sum = 0;
    for (uint i = lane; i < outputs; i += LANES)
        soft_sum += exp((LF_LOAD(z, from + i) - c.largest) / temperature);
    soft_sum = lf_reduce_lanes(false, soft_sum);
    float log_sum = log(soft_sum), divergence = 0;
    for (uint i = lane; i < outputs; i += LANES)
        divergence += divergence_term(LF_LOAD(teacher, from + i),
                                      (LF_LOAD(z, from + i) - c.largest) / temperature - log_sum);
    divergence = lf_reduce_lanes(false, divergence);

    if (lf_row() >= rows)
        return;
    float hard_weight = 1 - soft_weight;
    if (lane == 0)
        lf_store_class_metrics(position, row, counts,
                               soft_weight * temperature * temperature * divergence + hard_weight * lf_cross_entropy(c),
                               c);
    if (STORE_DZ) {
        float scale = lf_weight(row) * now.inv_weight;
        for (uint i = lane; i < outputs; i += LANES) {
            float logit = LF_LOAD(z, from + i), q = exp((logit - c.largest) / temperature) / soft_sum;
            float slope = soft_weight * temperature * (q - LF_LOAD(teacher, from + i)) +
                          hard_weight * lf_cross_entropy_slope(c, i, logit);
            LF_STORE(dz, from + i, counts ? slope * scale : 0);
        }
    }
}
