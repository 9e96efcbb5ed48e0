#version 450
// linear_update: dkernel = xᵀ·dy and dbias = column sums of dy, and at once what the optimizer RULE does with them (see
// optimizers.glsl)   x (batch, inputs), dy (batch, outputs), kernel and its moments m, v (inputs, outputs), bias and its
// moments (outputs)
// One invocation owns ROWS rows and 4 QUADS columns of kernel, and sums over the batch in order; see product.glsl. The
// invocations of the first rows, which read all of dy on the way, also move the bias.
#include "common.glsl"
LF_READ(0, left)
LF_READ(1, right)
#define LF_SCHEDULE_SLOT 2
LF_UPDATE(3, kernel)
LF_UPDATE(4, kernel_m)
LF_UPDATE(5, kernel_v)
LF_UPDATE(6, bias)
LF_UPDATE(7, bias_m)
LF_UPDATE(8, bias_v)
void store_column_sum(uint column, vec4 sum);
#define LF_COLUMN_SUMS
#define LF_PRODUCT LF_LEFT_TURNED
#define LF_PRODUCT_RATES float rates[9];
#include "product.glsl"
// Read once: a processor reads push constants anew at every use.
float clip_value = rates[0], kernel_decay = rates[1], bias_decay = rates[2], momentum = rates[3], beta1 = rates[4],
      beta2 = rates[5], rest1 = rates[6], rest2 = rates[7], eps = rates[8];
#include "schedule.glsl"
layout(constant_id = 8) const uint RULE = LF_RULE_SGD;
layout(constant_id = 9) const bool LIMITED = false;
layout(constant_id = 10) const bool DECOUPLED = false;
layout(constant_id = 11) const bool MOMENTUM = false; // m is there
layout(constant_id = 12) const bool NESTEROV = false;
#include "optimizers.glsl"

const bool KEEPS_V = RULE == LF_RULE_ADAM || RULE == LF_RULE_RMSPROP;
lf_schedule_row now = lf_schedule_at(lf_schedule_position(step));

void move(float decay, vec4 gradient, inout vec4 param, inout vec4 m, inout vec4 v)
{
    vec4 taken = lf_limited(gradient);
    switch (RULE) {
    case LF_RULE_SGD: lf_sgd(now, decay, taken, param, m); break;
    case LF_RULE_ADAM: lf_adam(now, decay, taken, param, m, v); break;
    case LF_RULE_RMSPROP: lf_rmsprop(now, decay, taken, param, m, v); break;
    case LF_RULE_LION: lf_lion(now, decay, taken, param, m); break;
    }
}

// The quad of `name` and its moments that begins at `at`, in column `column`.
#define LF_MOVE(name, decay, at, column, gradient)                                                                  \
    {                                                                                                               \
        vec4 param = LF_LOAD_QUAD(RESULT_QUADS, name, at, column, columns), m = vec4(0), v = vec4(0);               \
        if (MOMENTUM)                                                                                               \
            m = LF_LOAD_QUAD(RESULT_QUADS, name##_m, at, column, columns);                                          \
        if (KEEPS_V)                                                                                                \
            v = LF_LOAD_QUAD(RESULT_QUADS, name##_v, at, column, columns);                                          \
        move(decay, gradient, param, m, v);                                                                         \
        if (MOMENTUM)                                                                                               \
            LF_REPLACE_QUAD(RESULT_QUADS, name##_m, at, column, columns, m)                                         \
        if (KEEPS_V)                                                                                                \
            LF_REPLACE_QUAD(RESULT_QUADS, name##_v, at, column, columns, v)                                         \
        LF_REPLACE_QUAD(RESULT_QUADS, name, at, column, columns, param)                                             \
    }

void store(uint row, uint column, vec4 sum)
{
    uint at = row * columns + column;
    if (now.updates != 0)
        LF_MOVE(kernel, kernel_decay, at, column, sum)
}

void store_column_sum(uint column, vec4 sum)
{
    if (now.updates != 0)
        LF_MOVE(bias, bias_decay, column, column, sum)
}
