#version 450
// linear: z = x·kernel + bias, y = act(z)   x (batch, inputs), kernel (inputs, outputs), bias (outputs), y and z (batch,
// outputs); z is stored where the activation's derivative needs it.
// One invocation owns ROWS rows and 4 QUADS columns of y; see product.glsl.
#include "common.glsl"
LF_READ(0, left)
LF_READ(1, right)
LF_READ(2, bias)
LF_WRITE(3, y)
LF_WRITE(4, z)
#define LF_PRODUCT LF_PLAIN
#include "product.glsl"
#include "activation.glsl"
layout(constant_id = 8) const bool STORE_Z = false;

void store(uint row, uint column, vec4 sum)
{
    uint at = row * columns + column;
    vec4 value = sum + LF_LOAD_QUAD(RESULT_QUADS, bias, column, column, columns);
    if (STORE_Z)
        LF_STORE_QUAD(RESULT_QUADS, z, at, column, columns, value)
    vec4 result = lf_activate4(value, alpha);
    LF_STORE_QUAD(RESULT_QUADS, y, at, column, columns, result)
}
