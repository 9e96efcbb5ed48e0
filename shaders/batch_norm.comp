#version 450
// batch_norm: y = (x - mean) rstd gamma + beta   x and y (batch, width), gamma and beta (width), stats (2, width): mean,
// rstd. All rows of the batch, those past the schedule's too.
// One invocation owns four columns of ROWS rows.
#include "common.glsl"
LF_READ(0, x)
LF_READ(1, gamma)
LF_READ(2, beta)
LF_READ(3, stats)
LF_WRITE(4, y)
#include "columns.glsl"
layout(push_constant) uniform Push { uint step, batch, width; };

void main()
{
    if (lf_column() >= width)
        return;
    uint column = lf_column();
    vec4 mean = LF_LOAD_COLUMNS(stats, 0, column, width), rstd = LF_LOAD_COLUMNS(stats, 1, column, width);
    vec4 scale = LF_LOAD_COLUMNS(gamma, 0, column, width), shift = LF_LOAD_COLUMNS(beta, 0, column, width);
    for (uint row = lf_first_row(); row < min(lf_first_row() + ROWS, batch); row++) {
        vec4 value = (LF_LOAD_COLUMNS(x, row, column, width) - mean) * rstd * scale + shift;
        LF_STORE_COLUMNS(y, row, column, width, value)
    }
}
