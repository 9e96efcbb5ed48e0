// layer_norm: y = (x - mean) rstd gamma + beta, with the mean of the row and rstd = 1 / sqrt(its variance + eps)
// x and y (rows, outputs), gamma and beta (outputs), stats (rows, 2): mean, rstd. The variance is the biased one.
// The lanes of a row take every lanes-th column each; the squares are summed about the mean, in a second pass.
#include "lanes.cuh"

LF_KERNEL(layer_norm, LF_LANES_THREADS)
{
    unsigned row = lf_row_inside(call), width = call.outputs, lane = threadIdx.x, lanes = blockDim.x;
    const float *x = lf_in(call, 0) + (size_t)row * width, *gamma = lf_in(call, 1), *beta = lf_in(call, 2);
    float *stats = lf_out(call, 3) + (size_t)row * 2, *y = lf_out(call, 4) + (size_t)row * width;
    float sum = 0, squares = 0;
    for (unsigned i = lane; i < width; i += lanes)
        sum += x[i];
    float mean = lf_sum_lanes(sum) / width;
    for (unsigned i = lane; i < width; i += lanes)
        squares += (x[i] - mean) * (x[i] - mean);
    float rstd = 1 / sqrtf(lf_sum_lanes(squares) / width + call.eps);

    if (lf_row() >= call.rows)
        return;
    if (lane == 0) {
        stats[0] = mean;
        stats[1] = rstd;
    }
    for (unsigned i = lane; i < width; i += lanes)
        y[i] = (x[i] - mean) * rstd * gamma[i] + beta[i];
}
