// Linear layers and activations, one operation at a time, against float64.
#include "rig.h"
#include "suite.h"

typedef struct op_shape {
    uint32_t rows, inputs, outputs;
} op_shape;

static const op_shape shapes[] = {
    { 1, 1, 1 },
    { 2, 3, 5 },
    { 7, 7, 7 },
    { 1, 7, 31 },
    { 7, 1, 33 },
    { 31, 33, 1 },
    { 33, 64, 65 },
    { 65, 31, 7 },
    { 64, 65, 128 },
    { 128, 7, 1000 },
    { 128, 128, 128 },
    { 1, 1000, 1000 },
    { 1000, 1, 7 },
    { 1000, 33, 10 },
    { 10, 1000, 33 },
    { 33, 1000, 64 },
    { 65, 128, 1000 },
    { 1000, 65, 31 },
    { 64, 784, 128 },
    { 64, 128, 10 },
    // Results that CUDA cuts into middle and wide tiles.
    { 520, 7, 520 },
    { 520, 520, 7 },
    { 7, 520, 520 },
    { 1000, 7, 1000 },
    { 1000, 1000, 7 },
    { 7, 1000, 1000 },
};
static const op_shape few_shapes[] = { { 7, 31, 33 }, { 65, 10, 128 }, { 1, 64, 1 } };

// Sums of products are scaled to about 1, so an error of rounding is some 1e-7 times the root of their length.
#define BOUND 2e-5

static const char *describe(const lf_op *op, const char *more)
{
    static char text[128];
    snprintf(text, sizeof text, "%u x %u -> %u, %s%s", op->rows, op->inputs, op->outputs,
             lf_activation_name(op->activation), more);
    return text;
}

static lf_op make_op(lf_op_kind kind, lf_phase phase, const op_shape *shape, lf_activation activation)
{
    return (lf_op){ .kind = kind,
                    .phase = phase,
                    .rows = shape->rows,
                    .inputs = shape->inputs,
                    .outputs = shape->outputs,
                    .activation = activation,
                    .alpha = lf_activation_default_alpha(activation) };
}

static void check_linear(const op_shape *s, lf_activation activation, bool keep_z)
{
    op_scales scales = { .scale = {
                             [LF_LINEAR_X] = 1, [LF_LINEAR_KERNEL] = 1 / sqrt(s->inputs), [LF_LINEAR_BIAS] = 1 } };
    op_case c = {
        .op = make_op(LF_OP_LINEAR, LF_PHASE_FORWARD, s, activation),
        .operands = { { .number = LF_LINEAR_X, .region = LF_REGION_BATCH, .rows = s->rows, .cols = s->inputs },
                      { .number = LF_LINEAR_KERNEL, .region = LF_REGION_PARAMS, .rows = s->inputs, .cols = s->outputs },
                      { .number = LF_LINEAR_BIAS, .region = LF_REGION_PARAMS, .rows = 1, .cols = s->outputs },
                      { .number = LF_LINEAR_Y, .region = LF_REGION_ACTS, .rows = s->rows, .cols = s->outputs },
                      { .number = LF_LINEAR_Z, .region = LF_REGION_ACTS, .rows = s->rows, .cols = s->outputs } },
        .operand_count = keep_z ? 5 : 4,
        .fill = fill_scaled,
        .context = &scales,
        .bound = BOUND,
        .floor = 1,
    };
    c.what = describe(&c.op, keep_z ? ", z kept" : "");
    check_op(&c);
}

// What a layer saves for the derivative of its activation: x for some, y for the others.
static void fill_saved(test_rig *rig, lf_tensor_id saved, lf_activation activation, float alpha)
{
    size_t count = rig_elements(rig->program, saved);
    double *values = malloc(count * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++) {
        double x = 2 * (double)lf_normal(77, LF_STREAM_INIT, 0, i), y = x;
        switch (activation) {
        case LF_ACT_RELU:
            y = fmax(x, 0);
            break;
        case LF_ACT_LEAKY_RELU:
            y = x < 0 ? (double)alpha * x : x;
            break;
        case LF_ACT_ELU:
            y = x < 0 ? (double)alpha * expm1(x) : x;
            break;
        case LF_ACT_TANH:
            y = tanh(x);
            break;
        case LF_ACT_SIGMOID:
            y = 1 / (1 + exp(-x));
            break;
        case LF_ACT_SOFTPLUS:
            y = log1p(exp(x));
            break;
        default:
            break; // none, gelu, silu: x
        }
        values[i] = (float)y;
    }
    rig_put(rig, saved, values);
    free(values);
}

static void fill_linear_dx(test_rig *rig, const void *context)
{
    fill_scaled(rig, context);
    const lf_op *op = &rig->program->ops[0];
    if (op->operands[LF_LINEAR_DX_SAVED] != LF_NO_TENSOR)
        fill_saved(rig, op->operands[LF_LINEAR_DX_SAVED], op->activation, op->alpha);
}

static void check_linear_dx(const op_shape *s, lf_activation activation)
{
    op_scales scales = { .scale = { [LF_LINEAR_DX_DY] = 1, [LF_LINEAR_DX_KERNEL] = 1 / sqrt(s->outputs) } };
    op_case c = {
        .op = make_op(LF_OP_LINEAR_DX, LF_PHASE_BACKWARD, s, activation),
        .operands = { { .number = LF_LINEAR_DX_DY, .region = LF_REGION_ACTS, .rows = s->rows, .cols = s->outputs },
                      { .number = LF_LINEAR_DX_KERNEL,
                        .region = LF_REGION_PARAMS,
                        .rows = s->inputs,
                        .cols = s->outputs },
                      { .number = LF_LINEAR_DX_DX, .region = LF_REGION_ACTS, .rows = s->rows, .cols = s->inputs },
                      { .number = LF_LINEAR_DX_SAVED, .region = LF_REGION_ACTS, .rows = s->rows, .cols = s->inputs } },
        .operand_count = activation == LF_ACT_NONE ? 3 : 4,
        .fill = fill_linear_dx,
        .context = &scales,
        .bound = BOUND,
        .floor = 1,
    };
    c.what = describe(&c.op, "");
    check_op(&c);
}

static void check_linear_dw(const op_shape *s)
{
    op_scales scales = { .scale = { [LF_LINEAR_DW_X] = 1, [LF_LINEAR_DW_DY] = 1 / sqrt(s->rows) } };
    op_case c = {
        .op = make_op(LF_OP_LINEAR_DW, LF_PHASE_BACKWARD, s, LF_ACT_NONE),
        .operands = { { .number = LF_LINEAR_DW_X, .region = LF_REGION_BATCH, .rows = s->rows, .cols = s->inputs },
                      { .number = LF_LINEAR_DW_DY, .region = LF_REGION_ACTS, .rows = s->rows, .cols = s->outputs },
                      { .number = LF_LINEAR_DW_DKERNEL,
                        .region = LF_REGION_GRADS,
                        .rows = s->inputs,
                        .cols = s->outputs },
                      { .number = LF_LINEAR_DW_DBIAS, .region = LF_REGION_GRADS, .rows = 1, .cols = s->outputs } },
        .operand_count = 4,
        .fill = fill_scaled,
        .context = &scales,
        .bound = BOUND,
        .floor = 1,
    };
    c.what = describe(&c.op, "");
    check_op(&c);
}

static void fill_activation(test_rig *rig, const void *context)
{
    (void)context;
    rig_put_normal(rig, rig->program->ops[0].operands[LF_ACTIVATION_X], 5, 3);
    one_op_put_schedule(rig, NULL, rig->program->ops[0].rows);
}

static void check_activation(uint32_t rows, uint32_t width, lf_activation activation)
{
    op_case c = {
        .op = make_op(LF_OP_ACTIVATION, LF_PHASE_FORWARD, &(op_shape){ rows, width, width }, activation),
        .operands = { { .number = LF_ACTIVATION_X, .region = LF_REGION_ACTS, .rows = rows, .cols = width },
                      { .number = LF_ACTIVATION_Y, .region = LF_REGION_ACTS, .rows = rows, .cols = width } },
        .operand_count = 2,
        .fill = fill_activation,
        .bound = BOUND,
        .floor = 1e-2,
    };
    c.what = describe(&c.op, "");
    check_op(&c);
}

static void fill_activation_dx(test_rig *rig, const void *context)
{
    (void)context;
    const lf_op *op = &rig->program->ops[0];
    rig_put_normal(rig, op->operands[LF_ACTIVATION_DX_DY], 6, 1);
    fill_saved(rig, op->operands[LF_ACTIVATION_DX_SAVED], op->activation, op->alpha);
    one_op_put_schedule(rig, NULL, rig->program->ops[0].rows);
}

static void check_activation_dx(uint32_t rows, uint32_t width, lf_activation activation)
{
    op_case c = {
        .op = make_op(LF_OP_ACTIVATION_DX, LF_PHASE_BACKWARD, &(op_shape){ rows, width, width }, activation),
        .operands = { { .number = LF_ACTIVATION_DX_DY, .region = LF_REGION_ACTS, .rows = rows, .cols = width },
                      { .number = LF_ACTIVATION_DX_SAVED, .region = LF_REGION_ACTS, .rows = rows, .cols = width },
                      { .number = LF_ACTIVATION_DX_DX, .region = LF_REGION_ACTS, .rows = rows, .cols = width } },
        .operand_count = 3,
        .fill = fill_activation_dx,
        .bound = BOUND,
        .floor = 1e-1,
    };
    c.what = describe(&c.op, "");
    check_op(&c);
}

static void linear_is_the_oracles_at_every_shape(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(shapes); i++)
        check_linear(&shapes[i], i % 2 ? LF_ACT_RELU : LF_ACT_NONE, false);
}

static void linear_is_the_oracles_with_every_activation(void **state)
{
    (void)state;
    for (lf_activation a = 0; a < LF_ACT_COUNT; a++)
        for (size_t i = 0; i < COUNT(few_shapes); i++)
            for (int keep_z = 0; keep_z < 2; keep_z++)
                check_linear(&few_shapes[i], a, keep_z);
}

static void linear_dx_is_the_oracles_at_every_shape(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(shapes); i++)
        check_linear_dx(&shapes[i], i % 2 ? LF_ACT_NONE : LF_ACT_RELU);
}

static void linear_dx_is_the_oracles_with_every_activation(void **state)
{
    (void)state;
    for (lf_activation a = 0; a < LF_ACT_COUNT; a++)
        for (size_t i = 0; i < COUNT(few_shapes); i++)
            check_linear_dx(&few_shapes[i], a);
}

static void linear_dw_is_the_oracles_at_every_shape(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(shapes); i++)
        check_linear_dw(&shapes[i]);
}

static void activations_and_their_derivatives_are_the_oracles(void **state)
{
    (void)state;
    static const uint32_t widths[][2] = { { 1, 1 }, { 7, 31 }, { 65, 33 }, { 1, 1000 }, { 128, 65 } };
    for (lf_activation a = LF_ACT_RELU; a < LF_ACT_COUNT; a++)
        for (size_t i = 0; i < COUNT(widths); i++) {
            check_activation(widths[i][0], widths[i][1], a);
            check_activation_dx(widths[i][0], widths[i][1], a);
        }
}

// Far out, exp overflows: what comes out must still be the limit, and NaN must stay NaN.
static void fill_extremes(test_rig *rig, const void *context)
{
    (void)context;
    double values[8] = { -1e4, 1e4, -100, 100, -30, 30, 0, (double)NAN };
    rig_put(rig, rig->program->ops[0].operands[LF_ACTIVATION_X], values);
    one_op_put_schedule(rig, NULL, rig->program->ops[0].rows);
}

static void activations_keep_their_limits_and_nan(void **state)
{
    (void)state;
    for (lf_activation a = LF_ACT_RELU; a < LF_ACT_COUNT; a++) {
        op_case c = {
            .op = make_op(LF_OP_ACTIVATION, LF_PHASE_FORWARD, &(op_shape){ 1, 8, 8 }, a),
            .operands = { { .number = LF_ACTIVATION_X, .region = LF_REGION_ACTS, .rows = 1, .cols = 8 },
                          { .number = LF_ACTIVATION_Y, .region = LF_REGION_ACTS, .rows = 1, .cols = 8 } },
            .operand_count = 2,
            .fill = fill_extremes,
            .bound = BOUND,
            .floor = 1e-2,
        };
        c.what = describe(&c.op, ", extremes");
        check_op(&c);
    }
}

int run_product_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_is_the_oracles_at_every_shape),
        cmocka_unit_test(linear_is_the_oracles_with_every_activation),
        cmocka_unit_test(linear_dx_is_the_oracles_at_every_shape),
        cmocka_unit_test(linear_dx_is_the_oracles_with_every_activation),
        cmocka_unit_test(linear_dw_is_the_oracles_at_every_shape),
        cmocka_unit_test(activations_and_their_derivatives_are_the_oracles),
        cmocka_unit_test(activations_keep_their_limits_and_nan),
    };
    return cmocka_run_group_tests_name("products", tests, NULL, NULL);
}
