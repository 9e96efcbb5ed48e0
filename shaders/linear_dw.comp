#version 450
// linear_dw: dkernel = xᵀ·dy, dbias = column sums of dy   x (batch, inputs), dy (batch, outputs), dkernel (inputs,
// outputs), dbias (outputs).
// One invocation owns ROWS rows and 4 QUADS columns of dkernel, and sums over the batch in order; see product.glsl. The
// invocations of the first rows, which read all of dy on the way, also store its column sums.
#include "common.glsl"
LF_READ(0, left)
LF_READ(1, right)
LF_WRITE(2, dkernel)
LF_WRITE(3, dbias)
void store_column_sum(uint column, vec4 sum);
#define LF_COLUMN_SUMS
#define LF_PRODUCT LF_LEFT_TURNED
#include "product.glsl"

void store(uint row, uint column, vec4 sum)
{
    uint at = row * columns + column;
    LF_STORE_QUAD(RESULT_QUADS, dkernel, at, column, columns, sum)
}

void store_column_sum(uint column, vec4 sum)
{
    LF_STORE_QUAD(RESULT_QUADS, dbias, column, column, columns, sum)
}
