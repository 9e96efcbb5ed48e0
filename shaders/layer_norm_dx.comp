#version 450
// layer_norm_dx: dx = rstd (g - mean of g - h · mean of g h), with g = dy gamma and h = (x - mean) rstd; means over the row
// x, dy and dx (batch, width), gamma (width), stats (batch, 2): mean, rstd.
// LANES invocations take one row, each every LANES-th column.
#include "common.glsl"
LF_READ(0, x)
LF_READ(1, dy)
LF_READ(2, gamma)
LF_READ(3, stats)
LF_WRITE(4, dx)
#include "lanes.glsl"
layout(push_constant) uniform Push { uint step, batch, width; };

void main()
{
    uint row = min(lf_row(), batch - 1), from = row * width, lane = lf_lane();
    float mean = LF_LOAD(stats, 2 * row), rstd = LF_LOAD(stats, 2 * row + 1);
    float sum = 0, sum_along = 0;
    for (uint i = lane; i < width; i += LANES) {
        float g = LF_LOAD(dy, from + i) * LF_LOAD(gamma, i);
        sum += g;
        sum_along += g * ((LF_LOAD(x, from + i) - mean) * rstd);
    }
    float mean_g = lf_reduce_lanes(false, sum) / width, mean_along = lf_reduce_lanes(false, sum_along) / width;

    if (lf_row() >= batch)
        return;
    for (uint i = lane; i < width; i += LANES) {
        float g = LF_LOAD(dy, from + i) * LF_LOAD(gamma, i), h = (LF_LOAD(x, from + i) - mean) * rstd;
        LF_STORE(dx, from + i, rstd * (g - mean_g - h * mean_along));
    }
}
