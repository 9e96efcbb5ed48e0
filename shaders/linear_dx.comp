#version 450
// linear_dx: dx = (dy·kernelᵀ) ⊙ act'(saved)   dy (batch, outputs), kernel (inputs, outputs), saved and dx (batch,
// inputs); act is the activation of the layer before, and nothing is saved where there is none.
// One invocation owns ROWS rows and 4 QUADS columns of dx; see product.glsl.
#include "common.glsl"
LF_READ(0, left)
LF_READ(1, right)
LF_READ(2, saved)
LF_WRITE(3, dx)
#define LF_PRODUCT LF_RIGHT_TURNED
#include "product.glsl"
#include "activation.glsl"

void store(uint row, uint column, vec4 sum)
{
    uint at = row * columns + column;
    vec4 value = sum;
    if (ACTIVATION != LF_ACT_NONE)
        value *= lf_slope4(LF_LOAD_QUAD(RESULT_QUADS, saved, at, column, columns), alpha);
    LF_STORE_QUAD(RESULT_QUADS, dx, at, column, columns, value)
}
