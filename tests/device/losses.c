// Losses and what softens teachers for them, one operation at a time, against float64 and known answers.
#include "rig.h"
#include "suite.h"

typedef struct loss_case {
    lf_op_kind kind;
    uint32_t rows, width;
    uint32_t valid;       // rows of the batch, 1 … rows; 0: all
    double scale;         // of the logits
    bool nan;             // in row 0
    bool no_dz, weighted; // no gradient is asked for; rows have weights
    float smoothing;      // cross_entropy, distill
    float soft_weight;    // distill; value_loss: has a teacher where it is not 0
    float temperature;    // distill
    uint32_t value;       // value_loss and what follows
    float delta, share;   // share: 0 is 1
    bool adds;
} loss_case;

static bool of_classes(const loss_case *c)
{
    return c->kind != LF_OP_VALUE_LOSS;
}

static double *doubles(size_t count)
{
    double *values = calloc(count, sizeof *values);
    assert_non_null(values);
    return values;
}

// Some of them equal to the logit, which is where the slope of |d| turns.
static double target_of(const loss_case *c, size_t i, double z)
{
    if (c->value == LF_VALUE_BINARY)
        return i % 3 == 2 ? (double)lf_uniform(23, LF_STREAM_INIT, 0, i) : (double)(i % 3);
    return i % 13 == 5 && !isnan(z) ? z : (float)(2 * (double)lf_normal(22, LF_STREAM_INIT, 0, i));
}

static void fill_loss(test_rig *rig, const void *context)
{
    const loss_case *c = context;
    const lf_op *op = &rig->program->ops[0];
    size_t count = rig_elements(rig->program, op->operands[LF_LOSS_Z]);
    double *values = doubles(count);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)(c->scale * (double)lf_normal(21, LF_STREAM_INIT, 0, i));
    if (c->nan)
        values[op->outputs - 1] = (double)NAN;
    rig_put(rig, op->operands[LF_LOSS_Z], values);
    for (size_t i = 0; i < (of_classes(c) ? op->rows : count); i++)
        values[i] = of_classes(c) ? (double)((i * 7 + 1) % op->outputs) : target_of(c, i, values[i]);
    rig_put(rig, op->operands[LF_LOSS_TARGET], values);
    free(values);
    if (c->kind == LF_OP_DISTILL)
        rig_put_teacher(rig, op->operands[LF_LOSS_TEACHER]);
    else if (op->operands[LF_LOSS_TEACHER] != LF_NO_TENSOR)
        rig_put_normal(rig, op->operands[LF_LOSS_TEACHER], 24, 2);
    if (c->weighted) {
        values = doubles(op->rows);
        for (uint32_t i = 0; i < op->rows; i++)
            values[i] = i % 7 == 3 ? 0 : .25 + i % 5 * .5;
        rig_put(rig, op->operands[LF_LOSS_WEIGHTS], values);
        free(values);
    }
    rig_put_normal(rig, op->operands[LF_LOSS_METRICS], 25, c->adds ? 1 : (double)NAN);
    struct lf_schedule_row row =
        schedule_row(&(lf_optimizer){ .lr = 0 }, ONE_OP_FIRST, c->valid ? c->valid : c->rows, ONE_OP_TRAINING_STEP);
    row.inv_weight *= .75f; // the sum of the weights is another than the number of rows
    one_op_put_row(rig, &row);
}

static void describe(const loss_case *c, char *what, size_t size)
{
    static const char *const values[] = { "binary", "mse", "mae", "huber" };
    snprintf(
        what, size, "%s%u of %u rows of %u, logits of %g, smoothing %g, teacher %g at %g, delta %g, share %g%s%s%s%s",
        of_classes(c) ? "" : values[c->value], c->valid ? c->valid : c->rows, c->rows, c->width, c->scale,
        (double)c->smoothing, (double)c->soft_weight, (double)c->temperature, (double)c->delta, (double)c->share,
        c->no_dz ? ", no dz" : "", c->nan ? ", NaN" : "", c->weighted ? ", weighted" : "", c->adds ? ", adds" : "");
}

static void check_loss(loss_case l)
{
    bool classes = of_classes(&l), teacher = l.kind == LF_OP_DISTILL || (!classes && l.soft_weight != 0);
    uint32_t rows = l.rows, width = l.width;
    char what[192];
    describe(&l, what, sizeof what);
    op_case c = {
        .op = { .kind = l.kind,
                .phase = LF_PHASE_FORWARD,
                .rows = rows,
                .inputs = width,
                .outputs = width,
                .soft_weight = l.soft_weight,
                .temperature = l.temperature,
                .label_smoothing = l.smoothing,
                .value = l.value,
                .delta = l.delta,
                .share = l.share != 0 ? l.share : 1,
                .adds = l.adds },
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
                        .cols = LF_METRIC_COUNT } },
        .operand_count = 3,
        .fill = fill_loss,
        .context = &l,
        .what = what,
        .bound = 2e-5,
        .floor = 1.0 / (l.valid ? l.valid : rows),
    };
    if (!l.no_dz)
        c.operands[c.operand_count++] =
            (operand){ .number = LF_LOSS_DZ, .region = LF_REGION_ACTS, .rows = rows, .cols = width };
    if (teacher)
        c.operands[c.operand_count++] =
            (operand){ .number = LF_LOSS_TEACHER, .region = LF_REGION_BATCH, .rows = rows, .cols = width };
    if (l.weighted)
        c.operands[c.operand_count++] =
            (operand){ .number = LF_LOSS_WEIGHTS, .region = LF_REGION_BATCH, .rows = rows, .cols = 1 };
    check_op(&c);
}

static const uint32_t shapes[][2] = { { 1, 2 },    { 7, 31 },    { 33, 33 }, { 64, 10 },
                                      { 65, 128 }, { 31, 1000 }, { 1000, 7 } };

// Of whole and of short batches, with weights and without, with gradients and without.
static void check_shapes(loss_case c)
{
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (int variant = 0; variant < 4; variant++) {
            c.rows = shapes[i][0];
            c.width = shapes[i][1];
            c.valid = variant % 2 ? c.rows - c.rows / 3 : 0;
            c.no_dz = variant == 1;
            c.weighted = variant >= 2;
            check_loss(c);
        }
}

static void cross_entropy_is_the_oracles(void **state)
{
    (void)state;
    check_shapes((loss_case){ .kind = LF_OP_CROSS_ENTROPY, .scale = 3 });
    check_shapes((loss_case){ .kind = LF_OP_CROSS_ENTROPY, .scale = 3, .smoothing = .125f });
    check_loss((loss_case){ .kind = LF_OP_CROSS_ENTROPY, .rows = 65, .width = 10, .valid = 3, .scale = 3 });
}

static void value_losses_are_the_oracles(void **state)
{
    (void)state;
    for (uint32_t value = 0; value < LF_VALUE_COUNT; value++) {
        loss_case c = { .kind = LF_OP_VALUE_LOSS, .scale = 3, .value = value, .delta = 1.25f };
        check_shapes(c);
        c.soft_weight = .75f;
        check_shapes(c);
        c.soft_weight = 1;
        c.share = .375f;
        check_shapes(c);
        c.soft_weight = 0;
        c.adds = true;
        check_shapes(c);
        c.rows = 65;
        c.width = 1;
        c.valid = 3;
        check_loss(c);
    }
}

static void distill_is_the_oracles(void **state)
{
    (void)state;
    static const float options[][3] = { { .5f, 4, 0 }, { 0, 2, .125f }, { 1, 1, .25f }, { .875f, 2.5f, .5f } };
    for (size_t o = 0; o < COUNT(options); o++)
        check_shapes((loss_case){ .kind = LF_OP_DISTILL,
                                  .scale = 3,
                                  .soft_weight = options[o][0],
                                  .temperature = options[o][1],
                                  .smoothing = options[o][2] });
}

static void losses_are_stable_for_huge_logits(void **state)
{
    (void)state;
    loss_case c = { .rows = 31, .width = 10, .scale = 1e4 };
    for (int smooth = 0; smooth < 2; smooth++) {
        c.smoothing = smooth ? .125f : 0;
        c.kind = LF_OP_CROSS_ENTROPY;
        check_loss(c);
        c.kind = LF_OP_DISTILL;
        c.soft_weight = .5f;
        c.temperature = 2;
        check_loss(c);
    }
    for (uint32_t value = 0; value < LF_VALUE_COUNT; value++)
        check_loss((loss_case){
            .kind = LF_OP_VALUE_LOSS, .rows = 31, .width = 10, .scale = 1e4, .value = value, .delta = .5f });
}

static void a_nan_logit_gives_a_nan_loss(void **state)
{
    (void)state;
    check_loss((loss_case){ .kind = LF_OP_CROSS_ENTROPY, .rows = 7, .width = 10, .scale = 1, .nan = true });
    check_loss((loss_case){
        .kind = LF_OP_CROSS_ENTROPY, .rows = 7, .width = 10, .scale = 1, .nan = true, .smoothing = .125f });
    check_loss((loss_case){
        .kind = LF_OP_DISTILL, .rows = 7, .width = 10, .scale = 1, .nan = true, .soft_weight = .5f, .temperature = 2 });
    for (uint32_t value = 0; value < LF_VALUE_COUNT; value++)
        for (int soft = 0; soft < 2; soft++)
            check_loss((loss_case){ .kind = LF_OP_VALUE_LOSS,
                                    .rows = 7,
                                    .width = 10,
                                    .scale = 1,
                                    .nan = true,
                                    .value = value,
                                    .delta = 1,
                                    .soft_weight = soft ? .5f : 0 });
}

// Known answers: a tie, NaNs, and logits whose exp overflows. Distillation of weight 0 has the same.
static void check_known_rows(lf_op_kind kind)
{
    enum { ROWS = 8, OUTPUTS = 3 };
    static const double nan = (double)NAN;
    const double z[ROWS][OUTPUTS] = { { 1, 3, 3 }, { 1, 3, 3 },        { 1, 3, nan },      { nan, 1, 0 },
                                      { 0, 0, 0 }, { 1000, 0, -1000 }, { 1000, 0, -1000 }, { nan, nan, nan } };
    static const double labels[ROWS] = { 1, 2, 1, 0, 0, 0, 2, 1 }, classes[ROWS] = { 1, 1, 1, 1, 0, 0, 0, 0 };
    static const double ranks[ROWS] = { 0, 1, 1, 3, 0, 0, 2, 3 }; // a NaN is beaten by all, itself among them
    const double losses[ROWS] = { log(2 + exp(-2)), log(2 + exp(-2)), nan, nan, log(3), 0, 2000, nan };
    const operand operands[] = {
        { .number = LF_LOSS_Z, .region = LF_REGION_ACTS, .rows = ROWS, .cols = OUTPUTS },
        { .number = LF_LOSS_TARGET, .region = LF_REGION_BATCH, .rows = ROWS, .cols = 1, .type = LF_U32, .typed = true },
        { .number = LF_LOSS_METRICS,
          .region = LF_REGION_METRICS,
          .rows = ONE_OP_STEPS * ROWS,
          .cols = LF_METRIC_COUNT },
        { .number = LF_LOSS_TEACHER, .region = LF_REGION_BATCH, .rows = ROWS, .cols = OUTPUTS },
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
        rig_put_teacher(&rig, one.op.operands[LF_LOSS_TEACHER]);
    one_op_put_schedule(&rig, NULL, ROWS);
    rig_run(&rig, LF_PHASE_FORWARD, LF_PHASE_FORWARD, 1);
    double metrics[ONE_OP_STEPS * ROWS][LF_METRIC_COUNT];
    rig_get(&rig, one.op.operands[LF_LOSS_METRICS], metrics[0]);
    for (uint32_t i = 0; i < ROWS; i++) {
        const double *got = metrics[ONE_OP_COUNTER * ROWS + i];
        bool right = isnan(losses[i]) ? isnan(got[LF_METRIC_LOSS])
                                      : fabs(got[LF_METRIC_LOSS] - losses[i]) <= 1e-6 * fmax(1, losses[i]);
        if (!right || got[LF_METRIC_WEIGHT] != 1 || got[LF_METRIC_LABEL] != labels[i] ||
            got[LF_METRIC_CLASS] != classes[i] || got[LF_METRIC_RANK] != ranks[i])
            fail_msg("%s, row %u on %s: loss %.9g, weight %g, label %g, class %g, rank %g instead of %.9g, 1, %g, %g "
                     "and %g",
                     lf_op_info_of(kind)->name, i, device->info.id, got[LF_METRIC_LOSS], got[LF_METRIC_WEIGHT],
                     got[LF_METRIC_LABEL], got[LF_METRIC_CLASS], got[LF_METRIC_RANK], losses[i], labels[i], classes[i],
                     ranks[i]);
    }
    rig_finish(&rig);
}

static void losses_by_class_of_known_rows(void **state)
{
    (void)state;
    check_known_rows(LF_OP_CROSS_ENTROPY);
    check_known_rows(LF_OP_DISTILL);
}

static void fill_soften(test_rig *rig, const void *context)
{
    const loss_case *c = context;
    const lf_op *op = &rig->program->ops[0];
    rig_put_normal(rig, op->operands[LF_SOFTEN_Z], 26, c->scale);
    rig_put_normal(rig, op->operands[LF_SOFTEN_OUT], 27, c->adds ? 1 : (double)NAN);
    one_op_put_schedule(rig, NULL, 1); // rows past the batch's are softened too
}

static void check_soften(loss_case s)
{
    char what[128];
    snprintf(what, sizeof what, "(%u, %u) at temperature %g, share %g, logits of %g%s", s.rows, s.width,
             (double)s.temperature, (double)s.share, s.scale, s.adds ? ", adds" : "");
    op_case c = {
        .op = { .kind = LF_OP_SOFTEN,
                .phase = LF_PHASE_FORWARD,
                .rows = s.rows,
                .inputs = s.width,
                .outputs = s.width,
                .temperature = s.temperature,
                .share = s.share,
                .adds = s.adds },
        .operands = { { .number = LF_SOFTEN_Z, .region = LF_REGION_ACTS, .rows = s.rows, .cols = s.width },
                      { .number = LF_SOFTEN_OUT, .region = LF_REGION_BATCH, .rows = s.rows, .cols = s.width } },
        .operand_count = 2,
        .fill = fill_soften,
        .context = &s,
        .what = what,
        .bound = 2e-6,
        .floor = s.adds ? 1 : .1,
    };
    check_op(&c);
}

static void soften_is_the_oracles(void **state)
{
    (void)state;
    static const uint32_t sizes[] = { 1, 31, 33, 1000 };
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (size_t j = 0; j < COUNT(sizes); j++)
            for (int variant = 0; variant < 4; variant++)
                check_soften((loss_case){ .rows = i == 3 && j == 3 ? 7 : sizes[i],
                                          .width = sizes[j],
                                          .scale = 3,
                                          .temperature = variant % 2 ? 0 : 2.5f,
                                          .share = variant % 2 ? .25f : 1.f / 3,
                                          .adds = variant >= 2 });
    check_soften((loss_case){ .rows = 31, .width = 10, .scale = 1e4, .temperature = 2, .share = 1 });
}

int run_loss_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cross_entropy_is_the_oracles), cmocka_unit_test(value_losses_are_the_oracles),
        cmocka_unit_test(distill_is_the_oracles),       cmocka_unit_test(losses_are_stable_for_huge_logits),
        cmocka_unit_test(a_nan_logit_gives_a_nan_loss), cmocka_unit_test(losses_by_class_of_known_rows),
        cmocka_unit_test(soften_is_the_oracles),
    };
    return cmocka_run_group_tests_name("losses", tests, NULL, NULL);
}
