#version 450
// layer_norm: y = (x - mean) rstd gamma + beta, with the mean of the row and rstd = 1 / sqrt(its variance + eps)
// x and y (batch, width), gamma and beta (width), stats (batch, 2): mean, rstd. The variance is the biased one.
// LANES invocations take one row, each every LANES-th column; the squares are summed about the mean, in a second pass.
#include "common.glsl"
LF_READ(0, x)
LF_READ(1, gamma)
LF_READ(2, beta)
LF_WRITE(3, stats)
LF_WRITE(4, y)
#include "lanes.glsl"
layout(push_constant) uniform Push { uint step, batch, width; float eps; };

void main()
{
    uint row = min(lf_row(), batch - 1), from = row * width, lane = lf_lane();
    float sum = 0, squares = 0;
    for (uint i = lane; i < width; i += LANES)
        sum += LF_LOAD(x, from + i);
    float mean = lf_reduce_lanes(false, sum) / width;
    for (uint i = lane; i < width; i += LANES) {
        float off = LF_LOAD(x, from + i) - mean;
        squares += off * off;
    }
    float rstd = 1 / sqrt(lf_reduce_lanes(false, squares) / width + eps);

    if (lf_row() >= batch)
        return;
    if (lane == 0) {
        LF_STORE(stats, 2 * row, mean);
        LF_STORE(stats, 2 * row + 1, rstd);
    }
    for (uint i = lane; i < width; i += LANES)
        LF_STORE(y, from + i, (LF_LOAD(x, from + i) - mean) * rstd * LF_LOAD(gamma, i) + LF_LOAD(beta, i));
}
