// layer_norm_dx: dx = rstd (g - mean of g - h · mean of g h), with g = dy gamma and h = (x - mean) rstd; means over the row
// x, dy and dx (rows, outputs), gamma (outputs), stats (rows, 2): mean, rstd.
// The lanes of a row take every lanes-th column each; see lanes.cuh.
#include "lanes.cuh"

LF_KERNEL(layer_norm_dx, LF_LANES_THREADS)
{
    unsigned row = lf_row_inside(call), width = call.outputs, lane = threadIdx.x, lanes = blockDim.x;
    size_t from = (size_t)row * width;
    const float *x = lf_in(call, 0) + from, *dy = lf_in(call, 1) + from, *gamma = lf_in(call, 2);
    const float *stats = lf_in(call, 3) + (size_t)row * 2;
    float *dx = lf_out(call, 4) + from, mean = stats[0], rstd = stats[1];
    float sum = 0, sum_along = 0;
    for (unsigned i = lane; i < width; i += lanes) {
        float g = dy[i] * gamma[i];
        sum += g;
        sum_along += g * ((x[i] - mean) * rstd);
    }
    float mean_g = lf_sum_lanes(sum) / width, mean_along = lf_sum_lanes(sum_along) / width;

    if (lf_row() >= call.rows)
        return;
    for (unsigned i = lane; i < width; i += lanes)
        dx[i] = rstd * (dy[i] * gamma[i] - mean_g - (x[i] - mean) * rstd * mean_along);
}
