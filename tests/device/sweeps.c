// Gathers, losses and optimizers, one operation at a time, against float64.
#include "rig.h"
#include "suite.h"

typedef struct batch_case {
    uint32_t rows;                  // of the batch, 1 … op.rows
    lf_dtype stored;                // gather
    bool nan;                       // losses: in row 0
    double scale;                   // losses: of the logits
    float soft_weight, temperature; // distill
} batch_case;

static double *doubles(size_t count)
{
    double *values = calloc(count, sizeof *values);
    assert_non_null(values);
    return values;
}

// Numbers over the whole range of the stored type.
static double stored_value(lf_dtype type, size_t i)
{
    double u = (double)lf_uniform(11, LF_STREAM_INIT, 0, i);
    switch (type) {
    case LF_U8:
        return floor(u * 256);
    case LF_I8:
        return floor(u * 256) - 128;
    case LF_U16:
        return floor(u * 65536);
    case LF_I16:
        return floor(u * 65536) - 32768;
    case LF_U32:
        return floor(u * 4294967296.0);
    case LF_I32:
        return floor(u * 4294967296.0) - 2147483648.0;
    default:
        return (float)(4 * u - 2);
    }
}

static double stored_range(lf_dtype type)
{
    static const double ranges[] = {
        [LF_U8] = 256,           [LF_I8] = 128,           [LF_U16] = 65536, [LF_I16] = 32768,
        [LF_U32] = 4294967296.0, [LF_I32] = 2147483648.0, [LF_F32] = 2
    };
    return ranges[type];
}

enum { DATA_ROWS = 50 };

static void fill_gather(test_rig *rig, const void *context)
{
    const batch_case *batch = context;
    const lf_program *program = rig->program;
    const lf_op *op = &program->ops[0];
    size_t count = (size_t)DATA_ROWS * op->inputs;
    double *values = doubles(count > 3000 ? count : 3000);
    for (size_t i = 0; i < count; i++)
        values[i] = stored_value(batch->stored, i);
    rig_put(rig, op->operands[LF_GATHER_DATA], values);
    for (uint32_t j = 0; j < op->inputs; j++) {
        values[j] = (float)((1 + .5 * (j % 3)) / stored_range(batch->stored));
        values[op->inputs + j] = (float)(.25 * (j % 5) - .5);
    }
    rig_put(rig, op->operands[LF_GATHER_SCALING], values);
    for (uint32_t i = 0; i < ONE_OP_POSITIONS(op->rows); i++)
        values[i] = (i * 7 + 3) % DATA_ROWS;
    rig_put(rig, op->operands[LF_GATHER_ORDER], values);
    lf_tensor_id targets = op->operands[LF_GATHER_TARGETS];
    if (targets != LF_NO_TENSOR) {
        for (size_t i = 0; i < rig_elements(program, targets); i++)
            values[i] = program->tensors[targets].type == LF_U32 ? (double)(i * 5 % 11) : (float)(.1 * (double)i - 3);
        rig_put(rig, targets, values);
    }
    free(values);
    one_op_put_schedule(rig, NULL, batch->rows);
}

// `target_cols` 0: no targets; else classes (u32, one column) or values.
static void check_gather(uint32_t rows, uint32_t width, uint32_t batch_rows, lf_dtype stored, bool classes,
                         uint32_t target_cols)
{
    batch_case batch = { .rows = batch_rows, .stored = stored };
    char what[128];
    snprintf(what, sizeof what, "%u of %u rows of %u %s, %u %s", batch_rows, rows, width, lf_dtype_name(stored),
             target_cols, classes ? "classes" : "values");
    op_case c = {
        .op = { .kind = LF_OP_GATHER, .phase = LF_PHASE_LOAD, .rows = rows, .inputs = width, .outputs = width },
        .operands = { { .number = LF_GATHER_DATA,
                        .region = LF_REGION_DATA,
                        .rows = DATA_ROWS,
                        .cols = width,
                        .type = stored,
                        .typed = true },
                      { .number = LF_GATHER_SCALING,
                        .region = LF_REGION_SCALING,
                        .rows = 2,
                        .cols = width,
                        .type = LF_F32,
                        .typed = true },
                      { .number = LF_GATHER_ORDER,
                        .region = LF_REGION_ORDER,
                        .rows = 1,
                        .cols = ONE_OP_POSITIONS(rows),
                        .type = LF_U32,
                        .typed = true },
                      { .number = LF_GATHER_X, .region = LF_REGION_BATCH, .rows = rows, .cols = width },
                      { .number = LF_GATHER_TARGETS,
                        .region = LF_REGION_TARGETS,
                        .rows = DATA_ROWS,
                        .cols = target_cols,
                        .type = classes ? LF_U32 : LF_F32,
                        .typed = true },
                      { .number = LF_GATHER_Y,
                        .region = LF_REGION_BATCH,
                        .rows = rows,
                        .cols = target_cols,
                        .type = LF_U32,
                        .typed = classes } },
        .operand_count = target_cols ? 6 : 4,
        .fill = fill_gather,
        .context = &batch,
        .what = what,
        .bound = 1e-6,
        .floor = 1,
    };
    check_op(&c);
}

static void gather_converts_every_stored_type_at_every_width(void **state)
{
    (void)state;
    static const uint32_t widths[] = { 1, 7, 31, 33, 64, 65, 128, 1000 };
    for (lf_dtype type = LF_U8; type <= LF_F32; type++)
        for (size_t w = 0; w < COUNT(widths); w++)
            check_gather(w % 2 ? 33 : 8, widths[w], w % 2 ? 33 : 5, type, w % 3, 1 + (w % 3 ? 0 : (uint32_t)w));
}

static void gather_clears_the_rows_past_the_batch(void **state)
{
    (void)state;
    check_gather(65, 31, 1, LF_U8, true, 1);
    check_gather(65, 31, 64, LF_F32, false, 7);
    check_gather(1, 1, 1, LF_I16, true, 1);
    check_gather(128, 65, 127, LF_U16, false, 33);
    check_gather(31, 7, 30, LF_U8, true, 0);
}

static void fill_gather_rows(test_rig *rig, const void *context)
{
    const batch_case *batch = context;
    const lf_op *op = &rig->program->ops[0];
    double *values = doubles(ONE_OP_POSITIONS(op->rows));
    for (uint32_t i = 0; i < ONE_OP_POSITIONS(op->rows); i++)
        values[i] = (i * 7 + 3) % DATA_ROWS;
    rig_put(rig, op->operands[LF_GATHER_ROWS_ORDER], values);
    free(values);
    rig_put_normal(rig, op->operands[LF_GATHER_ROWS_SOURCE], 51, 1);
    one_op_put_schedule(rig, NULL, batch->rows);
}

// Exact, and against the source itself: a copy has no other oracle.
static void check_copied_rows(const op_case *c, uint32_t batch_rows)
{
    uint32_t rows = c->op.rows, width = c->op.outputs;
    double *source = doubles((size_t)DATA_ROWS * width), *out = doubles((size_t)rows * width);
    one_op one;
    test_rig rig;
    one_op_make(&one, c->op, c->operands, c->operand_count, false);
    rig_init(&rig, device, &one.program);
    rig_put_normal(&rig, one.op.operands[LF_GATHER_ROWS_OUT], 52, 1);
    c->fill(&rig, c->context);
    rig_run(&rig, LF_PHASE_LOAD, LF_PHASE_LOAD, 1);
    rig_get(&rig, one.op.operands[LF_GATHER_ROWS_SOURCE], source);
    rig_get(&rig, one.op.operands[LF_GATHER_ROWS_OUT], out);
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < width; j++) {
            uint32_t from = ((ONE_OP_FIRST + i) * 7 + 3) % DATA_ROWS;
            double want = i < batch_rows ? source[(size_t)from * width + j] : 0;
            if (out[(size_t)i * width + j] != want)
                fail_msg("gather_rows %s on %s: [%u][%u] is %.9g instead of %.9g", c->what, device->info.id, i, j,
                         out[(size_t)i * width + j], want);
        }
    rig_finish(&rig);
    free(source);
    free(out);
}

static void check_gather_rows(uint32_t rows, uint32_t width, uint32_t batch_rows)
{
    batch_case batch = { .rows = batch_rows };
    char what[128];
    snprintf(what, sizeof what, "%u of %u rows of %u", batch_rows, rows, width);
    op_case c = {
        .op = { .kind = LF_OP_GATHER_ROWS, .phase = LF_PHASE_LOAD, .rows = rows, .inputs = width, .outputs = width },
        .operands = { { .number = LF_GATHER_ROWS_SOURCE,
                        .region = LF_REGION_TEACHER,
                        .rows = DATA_ROWS,
                        .cols = width,
                        .type = LF_F32,
                        .typed = true },
                      { .number = LF_GATHER_ROWS_ORDER,
                        .region = LF_REGION_ORDER,
                        .rows = 1,
                        .cols = ONE_OP_POSITIONS(rows),
                        .type = LF_U32,
                        .typed = true },
                      { .number = LF_GATHER_ROWS_OUT, .region = LF_REGION_BATCH, .rows = rows, .cols = width } },
        .operand_count = 3,
        .fill = fill_gather_rows,
        .context = &batch,
        .what = what,
        .bound = 0,
        .floor = 1,
    };
    check_op(&c);
    check_copied_rows(&c, batch_rows);
}

static void gather_rows_copies_the_rows_of_the_batch(void **state)
{
    (void)state;
    static const uint32_t cases[][3] = { { 1, 1, 1 },   { 7, 31, 7 },      { 33, 33, 20 },   { 65, 64, 64 },
                                         { 64, 65, 1 }, { 128, 128, 128 }, { 31, 1000, 30 }, { 1000, 7, 999 } };
    for (size_t i = 0; i < COUNT(cases); i++)
        check_gather_rows(cases[i][0], cases[i][1], cases[i][2]);
}

static void fill_loss(test_rig *rig, const void *context)
{
    const batch_case *batch = context;
    const lf_program *program = rig->program;
    const lf_op *op = &program->ops[0];
    size_t count = rig_elements(program, op->operands[LF_LOSS_Z]);
    double *values = doubles(count);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)(batch->scale * (double)lf_normal(21, LF_STREAM_INIT, 0, i));
    if (batch->nan)
        values[op->outputs - 1] = (double)NAN;
    rig_put(rig, op->operands[LF_LOSS_Z], values);
    if (op->kind != LF_OP_MSE)
        for (uint32_t i = 0; i < op->rows; i++)
            values[i] = (i * 7 + 1) % op->outputs;
    else
        for (size_t i = 0; i < count; i++)
            values[i] = (float)(2 * (double)lf_normal(22, LF_STREAM_INIT, 0, i));
    rig_put(rig, op->operands[LF_LOSS_TARGET], values);
    free(values);
    if (op->kind == LF_OP_DISTILL)
        rig_put_teacher(rig, op->operands[LF_DISTILL_TEACHER]);
    one_op_put_schedule(rig, NULL, batch->rows);
}

static void check_loss(lf_op_kind kind, uint32_t rows, uint32_t width, bool with_dz, batch_case batch)
{
    bool classes = kind != LF_OP_MSE;
    char what[128];
    snprintf(what, sizeof what, "%u of %u rows of %u, logits of %g, weight %g, temperature %g%s%s", batch.rows, rows,
             width, batch.scale, (double)batch.soft_weight, (double)batch.temperature, with_dz ? "" : ", no dz",
             batch.nan ? ", NaN" : "");
    op_case c = {
        .op = { .kind = kind,
                .phase = LF_PHASE_FORWARD,
                .rows = rows,
                .inputs = width,
                .outputs = width,
                .soft_weight = batch.soft_weight,
                .temperature = batch.temperature },
        .operands = { { .number = LF_LOSS_Z, .region = LF_REGION_ACTS, .rows = rows, .cols = width },
                      { .number = LF_LOSS_TARGET,
                        .region = LF_REGION_BATCH,
                        .rows = rows,
                        .cols = classes ? 1 : width,
                        .type = LF_U32,
                        .typed = classes },
                      { .number = LF_LOSS_METRICS,
                        .region = LF_REGION_METRICS,
                        .rows = ONE_OP_STEPS * rows,
                        .cols = LF_METRIC_COUNT },
                      { .number = LF_LOSS_DZ, .region = LF_REGION_ACTS, .rows = rows, .cols = width } },
        .operand_count = with_dz ? 4 : 3,
        .fill = fill_loss,
        .context = &batch,
        .what = what,
        .bound = 2e-5,
        .floor = 1.0 / batch.rows,
    };
    if (kind == LF_OP_DISTILL)
        c.operands[c.operand_count++] =
            (operand){ .number = LF_DISTILL_TEACHER, .region = LF_REGION_BATCH, .rows = rows, .cols = width };
    check_op(&c);
}

static const uint32_t loss_shapes[][2] = { { 1, 2 },    { 7, 31 },    { 33, 33 }, { 64, 10 },
                                           { 65, 128 }, { 31, 1000 }, { 1000, 7 } };

static void losses_are_the_oracles(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(loss_shapes); i++)
        for (int short_batch = 0; short_batch < 2; short_batch++) {
            uint32_t rows = loss_shapes[i][0], width = loss_shapes[i][1];
            batch_case batch = { .rows = short_batch && rows > 1 ? rows - rows / 3 : rows, .scale = 3 };
            check_loss(LF_OP_CROSS_ENTROPY, rows, width, !short_batch, batch);
            check_loss(LF_OP_MSE, rows, width, !short_batch, batch);
        }
    check_loss(LF_OP_CROSS_ENTROPY, 65, 10, true, (batch_case){ .rows = 3, .scale = 3 });
    check_loss(LF_OP_MSE, 65, 1, true, (batch_case){ .rows = 3, .scale = 3 });
}

static void cross_entropy_is_stable_for_huge_logits(void **state)
{
    (void)state;
    check_loss(LF_OP_CROSS_ENTROPY, 31, 10, true, (batch_case){ .rows = 31, .scale = 1e4 });
}

static void distill_is_the_oracles(void **state)
{
    (void)state;
    static const float options[][2] = { { .5f, 4 }, { 0, 2 }, { 1, 1 }, { .875f, 2.5f } };
    for (size_t i = 0; i < COUNT(loss_shapes); i++)
        for (size_t o = 0; o < COUNT(options); o++) {
            uint32_t rows = loss_shapes[i][0], width = loss_shapes[i][1];
            batch_case batch = { .rows = o % 2 && rows > 1 ? rows - rows / 3 : rows,
                                 .scale = 3,
                                 .soft_weight = options[o][0],
                                 .temperature = options[o][1] };
            check_loss(LF_OP_DISTILL, rows, width, o != 2, batch);
        }
}

static void distill_is_stable_for_huge_logits(void **state)
{
    (void)state;
    check_loss(LF_OP_DISTILL, 31, 10, true,
               (batch_case){ .rows = 31, .scale = 1e4, .soft_weight = .5f, .temperature = 2 });
}

static void a_nan_logit_gives_a_nan_loss_and_no_hit(void **state)
{
    (void)state;
    check_loss(LF_OP_CROSS_ENTROPY, 7, 10, true, (batch_case){ .rows = 7, .scale = 1, .nan = true });
    check_loss(LF_OP_MSE, 7, 10, true, (batch_case){ .rows = 7, .scale = 1, .nan = true });
    check_loss(LF_OP_DISTILL, 7, 10, true,
               (batch_case){ .rows = 7, .scale = 1, .nan = true, .soft_weight = .5f, .temperature = 2 });
}

// Known answers: a tie, a NaN, and logits whose exp overflows. Distillation of weight 0 has the same.
static void check_known_rows(lf_op_kind kind)
{
    enum { ROWS = 7, OUTPUTS = 3 };
    static const double z[ROWS][OUTPUTS] = { { 1, 3, 3 },           { 1, 3, 3 }, { 1, 3, (double)NAN },
                                             { (double)NAN, 1, 0 }, { 0, 0, 0 }, { 1000, 0, -1000 },
                                             { 1000, 0, -1000 } };
    static const double labels[ROWS] = { 1, 2, 1, 0, 0, 0, 2 }, hits[ROWS] = { 1, 0, 0, 0, 1, 1, 0 };
    const double losses[ROWS] = { log(2 + exp(-2)), log(2 + exp(-2)), (double)NAN, (double)NAN, log(3), 0, 2000 };
    const operand operands[] = {
        { .number = LF_LOSS_Z, .region = LF_REGION_ACTS, .rows = ROWS, .cols = OUTPUTS },
        { .number = LF_LOSS_TARGET, .region = LF_REGION_BATCH, .rows = ROWS, .cols = 1, .type = LF_U32, .typed = true },
        { .number = LF_LOSS_METRICS,
          .region = LF_REGION_METRICS,
          .rows = ONE_OP_STEPS * ROWS,
          .cols = LF_METRIC_COUNT },
        { .number = LF_DISTILL_TEACHER, .region = LF_REGION_BATCH, .rows = ROWS, .cols = OUTPUTS },
    };
    lf_op op = { .kind = kind,
                 .phase = LF_PHASE_FORWARD,
                 .rows = ROWS,
                 .inputs = OUTPUTS,
                 .outputs = OUTPUTS,
                 .soft_weight = 0,
                 .temperature = 2 };
    one_op one;
    test_rig rig;
    one_op_make(&one, op, operands, kind == LF_OP_DISTILL ? COUNT(operands) : COUNT(operands) - 1, false);
    rig_init(&rig, device, &one.program);
    rig_put(&rig, one.op.operands[LF_LOSS_Z], z[0]);
    rig_put(&rig, one.op.operands[LF_LOSS_TARGET], labels);
    if (kind == LF_OP_DISTILL)
        rig_put_teacher(&rig, one.op.operands[LF_DISTILL_TEACHER]);
    one_op_put_schedule(&rig, NULL, ROWS);
    rig_run(&rig, LF_PHASE_FORWARD, LF_PHASE_FORWARD, 1);
    double metrics[ONE_OP_STEPS * ROWS][LF_METRIC_COUNT];
    rig_get(&rig, one.op.operands[LF_LOSS_METRICS], metrics[0]);
    for (uint32_t i = 0; i < ROWS; i++) {
        const double *got = metrics[ONE_OP_COUNTER * ROWS + i];
        bool right = isnan(losses[i]) ? isnan(got[LF_METRIC_LOSS])
                                      : fabs(got[LF_METRIC_LOSS] - losses[i]) <= 1e-6 * fmax(1, losses[i]);
        if (!right || got[LF_METRIC_HIT] != hits[i])
            fail_msg("%s, row %u on %s: loss %.9g, hit %g instead of %.9g and %g", lf_op_info_of(kind)->name, i,
                     device->info.id, got[LF_METRIC_LOSS], got[LF_METRIC_HIT], losses[i], hits[i]);
    }
    rig_finish(&rig);
}

static void losses_by_class_of_known_rows(void **state)
{
    (void)state;
    check_known_rows(LF_OP_CROSS_ENTROPY);
    check_known_rows(LF_OP_DISTILL);
}

static void fill_update(test_rig *rig, const void *context)
{
    const lf_op *op = &rig->program->ops[0];
    rig_put_normal(rig, op->operands[LF_UPDATE_GRADS], 31, 1);
    rig_put_normal(rig, op->operands[LF_UPDATE_PARAMS], 32, 1);
    if (op->operands[LF_UPDATE_M] != LF_NO_TENSOR)
        rig_put_normal(rig, op->operands[LF_UPDATE_M], 33, .5);
    if (op->operands[LF_UPDATE_V] != LF_NO_TENSOR) {
        double *values = doubles(op->outputs);
        for (uint32_t i = 0; i < op->outputs; i++)
            values[i] = (double)lf_uniform(34, LF_STREAM_INIT, 0, i);
        rig_put(rig, op->operands[LF_UPDATE_V], values);
        free(values);
    }
    one_op_put_schedule(rig, context, 1);
}

static void check_update(uint32_t count, const lf_optimizer *optimizer)
{
    unsigned moments = lf_optimizer_moments(optimizer);
    char what[128];
    snprintf(what, sizeof what, "%s of %u, momentum %g%s, decay %g", lf_optimizer_name(optimizer->kind), count,
             (double)optimizer->momentum, optimizer->nesterov ? " nesterov" : "", (double)optimizer->weight_decay);
    op_case c = {
        .op = { .kind = optimizer->kind == LF_OPTIMIZER_SGD ? LF_OP_SGD : LF_OP_ADAM,
                .phase = LF_PHASE_UPDATE,
                .rows = 1,
                .inputs = count,
                .outputs = count,
                .beta1 = optimizer->beta1,
                .beta2 = optimizer->beta2,
                .eps = optimizer->eps,
                .momentum = optimizer->momentum,
                .nesterov = optimizer->nesterov,
                .weight_decay = optimizer->weight_decay,
                .decoupled = optimizer->kind == LF_OPTIMIZER_ADAMW },
        .operands = { { .number = LF_UPDATE_GRADS, .region = LF_REGION_GRADS, .rows = 1, .cols = count },
                      { .number = LF_UPDATE_PARAMS, .region = LF_REGION_PARAMS, .rows = 1, .cols = count },
                      { .number = LF_UPDATE_M, .region = LF_REGION_MOMENTS, .rows = 1, .cols = count },
                      { .number = LF_UPDATE_V, .region = LF_REGION_MOMENTS, .rows = 1, .cols = count } },
        .operand_count = 2 + moments,
        .fill = fill_update,
        .context = optimizer,
        .what = what,
        .bound = 2e-6,
        .floor = 1,
    };
    check_op(&c);
}

static void optimizers_are_the_oracles(void **state)
{
    (void)state;
    static const uint32_t counts[] = { 64, 128, 1024, 101824 };
    for (size_t i = 0; i < COUNT(counts); i++)
        for (int variant = 0; variant < 8; variant++) {
            lf_optimizer optimizer = lf_optimizer_default(variant < 4   ? LF_OPTIMIZER_SGD
                                                          : variant < 6 ? LF_OPTIMIZER_ADAM
                                                                        : LF_OPTIMIZER_ADAMW);
            optimizer.lr = .25; // large, so that a wrong update stands out of the bound
            optimizer.weight_decay = variant % 2 ? .125f : 0;
            optimizer.momentum = variant >= 2 ? .75f : 0;
            optimizer.nesterov = variant == 3;
            check_update(counts[i], &optimizer);
        }
}

int run_sweep_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gather_converts_every_stored_type_at_every_width),
        cmocka_unit_test(gather_clears_the_rows_past_the_batch),
        cmocka_unit_test(gather_rows_copies_the_rows_of_the_batch),
        cmocka_unit_test(losses_are_the_oracles),
        cmocka_unit_test(distill_is_the_oracles),
        cmocka_unit_test(distill_is_stable_for_huge_logits),
        cmocka_unit_test(cross_entropy_is_stable_for_huge_logits),
        cmocka_unit_test(a_nan_logit_gives_a_nan_loss_and_no_hit),
        cmocka_unit_test(losses_by_class_of_known_rows),
        cmocka_unit_test(optimizers_are_the_oracles),
    };
    return cmocka_run_group_tests_name("sweeps", tests, NULL, NULL);
}
