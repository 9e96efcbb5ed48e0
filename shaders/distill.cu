// distill: with q = softmax(z / T), a = soft_weight, and the teacher's p, softened by the same temperature T:
//          row loss = a T² sum of p (log p - log q) + (1 - a) cross_entropy, smoothed as there;
//          dz = weight inv_weight (a T (q - p) + (1 - a) its slope)
// z, teacher and dz (rows, outputs), label and weights (rows), metrics (steps, batch, 5). Rows past the schedule's give
// zeros.
// The lanes of a row take every lanes-th class each; see lanes.cuh.
#include "classes.cuh"

// p (log p - log q). What is below the least normal number counts as 0, as it does where such numbers are flushed to 0.
// NaN goes through.
LF_INLINE float lf_divergence_term(float p, float log_q)
{
    return fabsf(p) < 1.17549435e-38f ? 0 : p * (logf(p) - log_q);
}

LF_KERNEL(distill, LF_LANES_THREADS)
{
    unsigned at = lf_row_inside(call), lane = threadIdx.x, lanes = blockDim.x;
    float soft = call.soft_weight, hard = 1 - soft, temperature = call.temperature;
    lf_loss_row row = lf_loss_row_at(call, at);
    lf_class_row c = lf_class_row_at(call, row, lf_operand<const unsigned>(call, LF_TARGET)[at]);

    float soft_sum = 0, divergence = 0;
    for (unsigned i = lane; i < call.outputs; i += lanes)
        soft_sum += expf((row.z[i] - c.largest) / temperature);
    soft_sum = lf_sum_lanes(soft_sum);
    float log_sum = logf(soft_sum);
    for (unsigned i = lane; i < call.outputs; i += lanes)
        divergence += lf_divergence_term(row.teacher[i], (row.z[i] - c.largest) / temperature - log_sum);
    divergence = lf_sum_lanes(divergence);

    if (lf_row() >= call.rows)
        return;
    if (lane == 0) {
        float of_labels = lf_cross_entropy(c, call.label_smoothing);
        lf_store_class_metrics(row, c, soft * temperature * temperature * divergence + hard * of_labels);
    }
    if (row.dz)
        for (unsigned i = lane; i < call.outputs; i += lanes) {
            float q = expf((row.z[i] - c.largest) / temperature) / soft_sum;
            float slope = soft * temperature * (q - row.teacher[i]) +
                          hard * lf_cross_entropy_slope(call, c, i, row.z[i]);
            row.dz[i] = row.counts ? slope * row.scale : 0;
        }
}
