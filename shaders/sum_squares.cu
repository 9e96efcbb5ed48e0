// sum_squares: partials[i] = sum of x² over elements i CHUNK … (i + 1) CHUNK - 1, CHUNK = LF_SQUARES_CHUNK   x (1, outputs)
// The lanes of a chunk, which is the row of lanes.cuh, take every lanes-th group of four each.
#include "lanes.cuh"

LF_KERNEL(sum_squares, LF_LANES_THREADS)
{
    size_t from = (size_t)lf_row() * LF_SQUARES_CHUNK;
    const float *x = lf_in(call, 0);
    float squares[4] = {};
    for (unsigned i = 4 * threadIdx.x; i < LF_SQUARES_CHUNK && from + i < call.outputs; i += 4 * blockDim.x) {
        lf_quad value = *(const lf_quad *)(x + from + i);
        for (unsigned k = 0; k < 4; k++)
            squares[k] += from + i + k < call.outputs ? value.at[k] * value.at[k] : 0;
    }
    float sum = lf_sum_lanes((squares[0] + squares[1]) + (squares[2] + squares[3]));
    if (from < call.outputs && threadIdx.x == 0)
        lf_out(call, 1)[lf_row()] = sum;
}
