// linear_update, the product that has the optimizer in it: against float64, and against the two apart.
#include "slots.h"
#include "suite.h"
#include "trainer.h"

typedef struct update_shape {
    uint32_t rows, inputs, outputs;
} update_shape;

typedef struct block { // a kernel or a bias with its moments
    size_t count;
    double *gradient, *param, *m, *v;
    double *got[3]; // param, m, v after it, from the device
} block;

// Coarse numbers: sums of their products are exact in f32, so that a gradient is the same in every order.
static double *coarse(size_t count, uint32_t seed, double scale, double unit)
{
    double *values = doubles(count);
    for (size_t i = 0; i < count; i++)
        values[i] = round(scale * (double)lf_normal(seed, LF_STREAM_INIT, 0, i) / unit) * unit;
    return values;
}

static void block_init(block *b, size_t count, uint32_t seed)
{
    *b = (block){ .count = count, .gradient = doubles(count), .m = doubles(count), .v = doubles(count) };
    b->param = coarse(count, seed, 1, 1. / 1024);
    for (size_t i = 0; i < count; i++) {
        b->m[i] = (double)(.5f * lf_normal(seed + 1, LF_STREAM_INIT, 0, i));
        b->v[i] = (double)lf_uniform(seed + 2, LF_STREAM_INIT, 0, i);
    }
    for (unsigned i = 0; i < COUNT(b->got); i++)
        b->got[i] = doubles(count);
}

static void block_finish(block *b)
{
    free(b->gradient);
    free(b->param);
    free(b->m);
    free(b->v);
    for (unsigned i = 0; i < COUNT(b->got); i++)
        free(b->got[i]);
}

static lf_op op_of(const lf_optimizer *o)
{
    static const lf_op_kind kinds[LF_OPTIMIZER_COUNT] = {
        [LF_OPTIMIZER_SGD] = LF_OP_SGD,         [LF_OPTIMIZER_ADAM] = LF_OP_ADAM, [LF_OPTIMIZER_ADAMW] = LF_OP_ADAM,
        [LF_OPTIMIZER_RMSPROP] = LF_OP_RMSPROP, [LF_OPTIMIZER_LION] = LF_OP_LION,
    };
    return (lf_op){ .kind = kinds[o->kind],
                    .rows = 1,
                    .beta1 = o->beta1,
                    .beta2 = o->beta2,
                    .eps = o->eps,
                    .momentum = o->momentum,
                    .nesterov = o->nesterov,
                    .weight_decay = o->weight_decay,
                    .clip_value = o->clip_value,
                    .decoupled = o->kind == LF_OPTIMIZER_ADAMW };
}

// What the oracle makes of a block with its optimizer alone, in place.
static void expect(block *b, const lf_optimizer *optimizer, float decay, const struct lf_schedule_row *row)
{
    uint32_t n = (uint32_t)b->count;
    slot slots[4] = { { OPERAND(LF_UPDATE_GRADS, GRADS, 1, n), b->gradient, NULL },
                      { OPERAND(LF_UPDATE_PARAMS, PARAMS, 1, n), b->param, b->param } };
    size_t count = 2;
    if (lf_optimizer_keeps(optimizer, LF_MOMENT_M))
        slots[count++] = (slot){ OPERAND(LF_UPDATE_M, MOMENTS, 1, n), b->m, b->m };
    if (lf_optimizer_keeps(optimizer, LF_MOMENT_V))
        slots[count++] = (slot){ OPERAND(LF_UPDATE_V, MOMENTS, 1, n), b->v, b->v };
    lf_op op = op_of(optimizer);
    op.inputs = op.outputs = n;
    op.weight_decay = decay;
    struct lf_schedule_row own = *row;
    own.rows = op.rows;
    run_slots_at(true, op, slots, count, &own);
}

static void compare(const block *b, const lf_optimizer *optimizer, const char *name, const char *what)
{
    static const char *const parts[] = { "itself", "m", "v" };
    const double *want[] = { b->param, b->m, b->v };
    bool kept[] = { true, lf_optimizer_keeps(optimizer, LF_MOMENT_M), lf_optimizer_keeps(optimizer, LF_MOMENT_V) };
    for (unsigned k = 0; k < COUNT(parts); k++)
        for (size_t i = 0; kept[k] && i < b->count; i++)
            if (!(fabs(b->got[k][i] - want[k][i]) <= 2e-6 * fmax(1, fabs(want[k][i]))))
                fail_msg("linear_update on %s, %s: %s, %s: element %zu is %.9g instead of %.9g", device->info.id, what,
                         name, parts[k], i, b->got[k][i], want[k][i]);
}

static void check_linear_update(update_shape s, const lf_optimizer *optimizer, bool idle)
{
    char what[160];
    snprintf(what, sizeof what, "%u x %u -> %u, %s, momentum %g%s, decay %g, clip_value %g%s", s.rows, s.inputs,
             s.outputs, lf_optimizer_name(optimizer->kind), (double)optimizer->momentum,
             optimizer->nesterov ? " nesterov" : "", (double)optimizer->weight_decay, (double)optimizer->clip_value,
             idle ? ", idle" : "");
    struct lf_schedule_row row = schedule_row(optimizer, ONE_OP_FIRST, s.rows, ONE_OP_TRAINING_STEP);
    row.updates = !idle;
    float bias_decay = optimizer->decay_bias ? optimizer->weight_decay : 0;
    block kernel, bias;
    block_init(&kernel, (size_t)s.inputs * s.outputs, 51);
    block_init(&bias, s.outputs, 61);
    double *x = coarse((size_t)s.rows * s.inputs, 71, 1, 1. / 8);
    double *dy = coarse((size_t)s.rows * s.outputs, 72, 1 / sqrt(s.rows), 1. / 256);

    const slot product[] = {
        { OPERAND(LF_LINEAR_DW_X, BATCH, s.rows, s.inputs), x, NULL },
        { OPERAND(LF_LINEAR_DW_DY, ACTS, s.rows, s.outputs), dy, NULL },
        { OPERAND(LF_LINEAR_DW_DKERNEL, GRADS, s.inputs, s.outputs), NULL, kernel.gradient },
        { OPERAND(LF_LINEAR_DW_DBIAS, GRADS, 1, s.outputs), NULL, bias.gradient },
    };
    lf_op op = { .kind = LF_OP_LINEAR_DW, .rows = s.rows, .inputs = s.inputs, .outputs = s.outputs };
    run_slots_at(true, op, product, COUNT(product), &row);

    slot slots[8] = {
        { OPERAND(LF_LINEAR_UPDATE_X, BATCH, s.rows, s.inputs), x, NULL },
        { OPERAND(LF_LINEAR_UPDATE_DY, ACTS, s.rows, s.outputs), dy, NULL },
        { OPERAND(LF_LINEAR_UPDATE_KERNEL, PARAMS, s.inputs, s.outputs), kernel.param, kernel.got[0] },
        { OPERAND(LF_LINEAR_UPDATE_BIAS, PARAMS, 1, s.outputs), bias.param, bias.got[0] },
    };
    size_t count = 4;
    if (lf_optimizer_keeps(optimizer, LF_MOMENT_M)) {
        slots[count++] =
            (slot){ OPERAND(LF_LINEAR_UPDATE_KERNEL_M, MOMENTS, s.inputs, s.outputs), kernel.m, kernel.got[1] };
        slots[count++] = (slot){ OPERAND(LF_LINEAR_UPDATE_BIAS_M, MOMENTS, 1, s.outputs), bias.m, bias.got[1] };
    }
    if (lf_optimizer_keeps(optimizer, LF_MOMENT_V)) {
        slots[count++] =
            (slot){ OPERAND(LF_LINEAR_UPDATE_KERNEL_V, MOMENTS, s.inputs, s.outputs), kernel.v, kernel.got[2] };
        slots[count++] = (slot){ OPERAND(LF_LINEAR_UPDATE_BIAS_V, MOMENTS, 1, s.outputs), bias.v, bias.got[2] };
    }
    op = op_of(optimizer);
    op.optimizer = op.kind;
    op.kind = LF_OP_LINEAR_UPDATE;
    op.rows = s.rows;
    op.inputs = s.inputs;
    op.outputs = s.outputs;
    op.bias_decay = bias_decay;
    run_slots_at(false, op, slots, count, &row);

    expect(&kernel, optimizer, optimizer->weight_decay, &row);
    expect(&bias, optimizer, bias_decay, &row);
    compare(&kernel, optimizer, "kernel", what);
    compare(&bias, optimizer, "bias", what);
    block_finish(&kernel);
    block_finish(&bias);
    free(x);
    free(dy);
}

// Large rates, so that a wrong update stands out of the bound.
static lf_optimizer optimizer_of(lf_optimizer_kind kind, unsigned variant)
{
    lf_optimizer optimizer = lf_optimizer_default(kind);
    bool has_momentum = kind == LF_OPTIMIZER_SGD || kind == LF_OPTIMIZER_RMSPROP;
    optimizer.lr = kind == LF_OPTIMIZER_RMSPROP ? .0625 : .25;
    optimizer.weight_decay = variant % 2 ? .125f : 0;
    optimizer.decay_bias = variant == 3;
    optimizer.momentum = has_momentum && variant >= 2 ? .75f : 0;
    optimizer.nesterov = kind == LF_OPTIMIZER_SGD && variant == 3;
    optimizer.clip_value = variant % 3 == 1 ? .5f : 0;
    if (kind == LF_OPTIMIZER_RMSPROP)
        optimizer.eps = .0625f;
    return optimizer;
}

// The cuda backend lowers programs as they are.
static bool device_fuses(void)
{
    return strcmp(device->info.backend, "cuda") != 0;
}

static void linear_update_is_the_oracles_with_every_optimizer(void **state)
{
    (void)state;
    if (!device_fuses())
        skip();
    static const update_shape shapes[] = {
        { 1, 1, 1 },      { 2, 3, 5 },     { 7, 7, 7 },     { 1, 7, 31 },      { 7, 1, 33 },     { 31, 33, 1 },
        { 33, 64, 65 },   { 65, 31, 7 },   { 64, 65, 128 }, { 128, 7, 1000 },  { 1000, 33, 10 }, { 10, 1000, 33 },
        { 64, 784, 128 }, { 64, 128, 10 }, { 7, 520, 520 }, { 10, 1, 110000 },
    };
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (lf_optimizer_kind kind = LF_OPTIMIZER_SGD; kind < LF_OPTIMIZER_LAMB; kind++)
            for (unsigned variant = i % 5 ? i % 4 : 0; variant < (i % 5 ? i % 4 + 1 : 4); variant++) {
                lf_optimizer optimizer = optimizer_of(kind, variant);
                check_linear_update(shapes[i], &optimizer, false);
            }
}

static void linear_update_does_nothing_where_the_row_does_not_update(void **state)
{
    (void)state;
    if (!device_fuses())
        skip();
    for (lf_optimizer_kind kind = LF_OPTIMIZER_SGD; kind < LF_OPTIMIZER_LAMB; kind++) {
        lf_optimizer optimizer = optimizer_of(kind, 3);
        check_linear_update((update_shape){ 33, 64, 65 }, &optimizer, true);
    }
}

#define ADAM                                                                                                           \
    {                                                                                                                  \
        .kind = LF_OPTIMIZER_ADAM, .lr = .01, .beta1 = .9f, .beta2 = .999f, .eps = 1e-8f                               \
    }

static const test_training trainings[] = {
    { "784-128-10, adam",
      { LINEAR(784, 128), ACTIVATION(LF_ACT_RELU), LINEAR(128, 10) },
      3,
      LF_LOSS_CROSS_ENTROPY,
      ADAM,
      300,
      64,
      10,
      .stored = LF_U8 },
    { "a last layer without one before it, labels smoothed over all the classes that fit a subgroup's registers",
      { LINEAR(50, 32) },
      1,
      LF_LOSS_CROSS_ENTROPY,
      ADAM,
      100,
      27,
      10,
      .stored = LF_U8,
      .loss_options = { .label_smoothing = .25f } },
    { "a last layer of two classes, whose inputs are no quads",
      { LINEAR(12, 33), ACTIVATION(LF_ACT_GELU), LINEAR(33, 2) },
      3,
      LF_LOSS_CROSS_ENTROPY,
      ADAM,
      100,
      9,
      10,
      .stored = LF_U8 },
    { "a last layer behind dropout and one of 33 classes",
      { LINEAR(20, 8), DROPOUT(.5f), LINEAR(8, 33) },
      3,
      LF_LOSS_CROSS_ENTROPY,
      ADAM,
      100,
      64,
      10,
      .stored = LF_U8 },
    { "mostly zeros",
      { LINEAR(200, 128), ACTIVATION(LF_ACT_RELU), LINEAR(128, 10) },
      3,
      LF_LOSS_CROSS_ENTROPY,
      ADAM,
      300,
      64,
      40,
      .stored = LF_F32,
      .zeros = .8 },
    { "mostly zeros, more rows than are turned at a time",
      { LINEAR(100, 64), ACTIVATION(LF_ACT_TANH), LINEAR(64, 3) },
      3,
      LF_LOSS_CROSS_ENTROPY,
      ADAM,
      1300,
      600,
      9,
      .stored = LF_F32,
      .zeros = .7 },
    { "a kernel that is read with the library's product and updated with our own",
      { LINEAR(1100, 1000), ACTIVATION(LF_ACT_RELU), LINEAR(1000, 3) },
      3,
      LF_LOSS_CROSS_ENTROPY,
      ADAM,
      40,
      16,
      5,
      .stored = LF_F32 },
    { "every layer, adam",
      { BATCH_NORM(33), LINEAR(33, 100), BATCH_NORM(100), ACTIVATION(LF_ACT_SILU), DROPOUT(.5f), RESIDUAL(4),
        LAYER_NORM(100), LINEAR(100, 100), ACTIVATION(LF_ACT_RELU), DROPOUT(.25f), LINEAR(100, 31) },
      11,
      LF_LOSS_CROSS_ENTROPY,
      ADAM,
      300,
      128,
      10,
      .stored = LF_U8,
      .average = .9f },
    { "deep, adamw, decay of kernels alone",
      { LINEAR(31, 65), ACTIVATION(LF_ACT_GELU), LAYER_NORM(65), LINEAR(65, 65), ACTIVATION(LF_ACT_TANH),
        LINEAR(65, 33), LAYER_NORM(33), LINEAR(33, 7) },
      8,
      LF_LOSS_MSE,
      { .kind = LF_OPTIMIZER_ADAMW, .lr = .01, .beta1 = .9f, .beta2 = .99f, .eps = 1e-8f, .weight_decay = .1f },
      100,
      32,
      10,
      .stored = LF_F32 },
    { "sgd with nesterov's momentum and decay, clipped values",
      { LINEAR(33, 65), ACTIVATION(LF_ACT_RELU), LINEAR(65, 10) },
      3,
      LF_LOSS_CROSS_ENTROPY,
      { .kind = LF_OPTIMIZER_SGD,
        .lr = .05,
        .momentum = .9f,
        .nesterov = true,
        .weight_decay = .01f,
        .decay_bias = true,
        .clip_value = .01f },
      100,
      31,
      10,
      .stored = LF_I8 },
    { "rmsprop with momentum",
      { LINEAR(33, 64), ACTIVATION(LF_ACT_SILU), LINEAR(64, 5) },
      3,
      LF_LOSS_BINARY_CROSS_ENTROPY,
      { .kind = LF_OPTIMIZER_RMSPROP, .lr = .01, .beta2 = .99f, .eps = 1e-8f, .momentum = .5f, .weight_decay = .01f },
      300,
      128,
      10,
      .stored = LF_F32,
      .weighted = true },
    { "lion",
      { LINEAR(33, 64), ACTIVATION(LF_ACT_SILU), LINEAR(64, 5) },
      3,
      LF_LOSS_HUBER,
      { .kind = LF_OPTIMIZER_LION, .lr = .001, .beta1 = .9f, .beta2 = .99f, .weight_decay = .1f },
      300,
      128,
      10,
      .stored = LF_F32,
      .loss_options = { .delta = .75f } },
};

static unsigned char *bits_after(const test_training *training, size_t *size)
{
    test_trainer t;
    trainer_init(&t, device, training, false);
    trainer_run(&t);
    unsigned char *bits = trainer_bits(&t, size);
    trainer_finish(&t);
    return bits;
}

// LAVAFLOW_FUSE=0: without whole steps in one kernel, which sums in an order of its own.
static void a_fused_program_gives_the_bits_of_the_one_it_came_from(void **state)
{
    (void)state;
    const char *asked = getenv("LAVAFLOW_FUSE");
    char before[16];
    snprintf(before, sizeof before, "%s", asked ? asked : "");
    setenv("LAVAFLOW_FUSE", "0", 1);
    for (size_t i = 0; i < COUNT(trainings); i++) {
        test_training fused = trainings[i];
        fused.fuses = true;
        size_t size, again;
        unsigned char *one = bits_after(&trainings[i], &size), *other = bits_after(&fused, &again);
        assert_int_equal(size, again);
        for (size_t at = 0; at < size; at++)
            if (one[at] != other[at])
                fail_msg("%s on %s: byte %zu of weights, statistics, moments and metrics is %02x, and %02x when fused",
                         fused.what, device->info.id, at, one[at], other[at]);
        free(one);
        free(other);
    }
    if (asked)
        setenv("LAVAFLOW_FUSE", before, 1);
    else
        unsetenv("LAVAFLOW_FUSE");
}

int run_update_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_update_is_the_oracles_with_every_optimizer),
        cmocka_unit_test(linear_update_does_nothing_where_the_row_does_not_update),
        cmocka_unit_test(a_fused_program_gives_the_bits_of_the_one_it_came_from),
    };
    return cmocka_run_group_tests_name("updates", tests, NULL, NULL);
}
