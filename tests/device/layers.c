// Dropout, sums and norms, one operation at a time: against float64, and against known answers.
#include "rig.h"
#include "suite.h"

static const uint32_t shapes[][2] = { { 1, 1 },    { 1, 7 },      { 7, 31 },   { 31, 33 },  { 33, 64 },  { 64, 65 },
                                      { 65, 128 }, { 128, 1000 }, { 1000, 7 }, { 1000, 1 }, { 2, 1000 }, { 130, 65 } };

// Sums are scaled to about 1, as in products.c.
#define BOUND 2e-5

static lf_op make_op(lf_op_kind kind, lf_phase phase, uint32_t rows, uint32_t width)
{
    return (lf_op){ .kind = kind, .phase = phase, .rows = rows, .inputs = width, .outputs = width, .eps = 1e-3f };
}

// The batch's rows are `scales->rows`. `operand_count` operands of the shapes that the caller set; all other members
// are filled here.
static void check(op_case c, const op_scales *scales)
{
    char what[128];
    snprintf(what, sizeof what, "%u of %u rows of %u, rate %g%s", scales->rows ? scales->rows : c.op.rows, c.op.rows,
             c.op.outputs, (double)c.op.rate, c.op.training ? ", training" : "");
    while (c.operand_count < LF_OPERAND_MAX && c.operands[c.operand_count].rows)
        c.operand_count++;
    c.fill = c.fill ? c.fill : fill_scaled;
    c.context = scales;
    c.what = what;
    c.bound = BOUND;
    c.floor = 1;
    check_op(&c);
}

#define ACTS(operand, r, w)                                                                                            \
    {                                                                                                                  \
        .number = operand, .region = LF_REGION_ACTS, .rows = r, .cols = w                                              \
    }
#define PARAMS(operand, w)                                                                                             \
    {                                                                                                                  \
        .number = operand, .region = LF_REGION_PARAMS, .rows = 1, .cols = w                                            \
    }
#define GRADS(operand, w)                                                                                              \
    {                                                                                                                  \
        .number = operand, .region = LF_REGION_GRADS, .rows = 1, .cols = w                                             \
    }
#define STATE(operand, w)                                                                                              \
    {                                                                                                                  \
        .number = operand, .region = LF_REGION_STATE, .rows = 1, .cols = w                                             \
    }

static uint32_t short_batch(uint32_t rows)
{
    return rows > 1 ? rows - rows / 3 : rows;
}

// Elements of one row of the table of dropout's pattern, by what random.h and the paper say.
static bool keeps(uint32_t element, uint32_t stream, float rate)
{
    const uint32_t key[2] = { RIG_SEED_LOW, RIG_SEED_HIGH };
    uint32_t words[4];
    lf_philox((const uint32_t[4]){ element / 4, ONE_OP_TRAINING_STEP, stream, LF_STREAM_DROPOUT }, key, words);
    return (double)(words[element % 4] >> 8) / 16777216 >= (double)rate;
}

// Runs dropout on x (rows, width) into y. An `x` of NULL is all ones.
static void run_dropout(lf_device *dev, bool in_float64, uint32_t rows, uint32_t width, uint32_t stream, float rate,
                        const double *x, double *y)
{
    one_op one;
    test_rig rig;
    lf_op op = make_op(LF_OP_DROPOUT, LF_PHASE_FORWARD, rows, width);
    op.rate = rate;
    op.stream = stream;
    const operand operands[] = { ACTS(LF_DROPOUT_X, rows, width), ACTS(LF_DROPOUT_Y, rows, width) };
    one_op_make(&one, op, operands, COUNT(operands), in_float64);
    rig_init(&rig, dev, &one.program);
    for (size_t i = 0; !x && i < (size_t)rows * width; i++)
        y[i] = 1;
    rig_put(&rig, one.op.operands[LF_DROPOUT_X], x ? x : y);
    one_op_put_schedule(&rig, NULL, short_batch(rows));
    rig_run(&rig, LF_PHASE_FORWARD, LF_PHASE_FORWARD, 1);
    rig_get(&rig, one.op.operands[LF_DROPOUT_Y], y);
    rig_finish(&rig);
}

// From a reading of the paper in another language: seed 0x85a308d3243f6a88, step 4, 66 elements.
static void dropout_keeps_the_elements_of_the_table(void **state)
{
    (void)state;
    enum { ROWS = 6, WIDTH = 11 };
    static const struct {
        uint32_t stream;
        float rate;
        const char *kept;
    } tables[] = { { 0, .5f, "111111111100100011001110111101011111110111001001110110000011010111" },
                   { 3, .25f, "101111111111111111111001111110101111110110101111101111100111011101" } };
    for (size_t t = 0; t < COUNT(tables); t++)
        for (int in_float64 = 0; in_float64 < 2; in_float64++) {
            double y[ROWS * WIDTH];
            run_dropout(in_float64 ? oracle : device, in_float64, ROWS, WIDTH, tables[t].stream, tables[t].rate, NULL,
                        y);
            for (uint32_t i = 0; i < ROWS * WIDTH; i++) {
                bool kept = tables[t].kept[i] == '1';
                double want = kept ? (double)(1 / (1 - tables[t].rate)) : 0;
                if (y[i] != want || keeps(i, tables[t].stream, tables[t].rate) != kept)
                    fail_msg("dropout of rate %g on %s: element %u is %.9g instead of %.9g", (double)tables[t].rate,
                             device->info.id, i, y[i], want);
            }
        }
}

static void dropout_keeps_the_same_elements_everywhere(void **state)
{
    (void)state;
    static const float rates[] = { .1f, .5f, .999f };
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (size_t r = 0; r < COUNT(rates); r++) {
            uint32_t rows = shapes[s][0], width = shapes[s][1], stream = 7;
            op_scales scales = { .scale = { [LF_DROPOUT_X] = 1 } };
            op_case c = { .op = make_op(LF_OP_DROPOUT, r % 2 ? LF_PHASE_FORWARD : LF_PHASE_BACKWARD, rows, width),
                          .operands = { ACTS(LF_DROPOUT_X, rows, width), ACTS(LF_DROPOUT_Y, rows, width) } };
            c.op.rate = rates[r];
            c.op.stream = stream;
            check(c, &scales);

            size_t count = (size_t)rows * width, kept = 0;
            double *y = calloc(2 * count, sizeof *y), *exact = y + count;
            assert_non_null(y);
            run_dropout(device, false, rows, width, stream, rates[r], NULL, y);
            run_dropout(oracle, true, rows, width, stream, rates[r], NULL, exact);
            for (uint32_t i = 0; i < count; i++) {
                double want = keeps(i, stream, rates[r]) ? (double)(1 / (1 - rates[r])) : 0;
                kept += want != 0;
                if (y[i] != want || exact[i] != want)
                    fail_msg("dropout of rate %g, %u x %u: element %u is %.9g on %s and %.9g on the oracle, not %.9g",
                             (double)rates[r], rows, width, i, y[i], device->info.id, exact[i], want);
            }
            double mean = (1 - (double)rates[r]) * (double)count;
            assert_true(fabs((double)kept - mean) <= 5 * sqrt(mean * (double)rates[r]) + 1);
            free(y);
        }
}

static void dropout_passes_nan_where_it_keeps(void **state)
{
    (void)state;
    enum { WIDTH = 66 };
    double x[WIDTH], y[WIDTH];
    for (uint32_t i = 0; i < WIDTH; i++)
        x[i] = (double)NAN;
    run_dropout(device, false, 1, WIDTH, 0, .5f, x, y);
    for (uint32_t i = 0; i < WIDTH; i++)
        assert_true(keeps(i, 0, .5f) ? isnan(y[i]) : y[i] == 0);
}

static void add_is_the_oracles_at_every_shape(void **state)
{
    (void)state;
    for (size_t s = 0; s < COUNT(shapes); s++) {
        uint32_t rows = shapes[s][0], width = shapes[s][1];
        op_scales scales = { .scale = { [LF_ADD_A] = 1, [LF_ADD_B] = 2 } };
        check((op_case){ .op = make_op(LF_OP_ADD, LF_PHASE_FORWARD, rows, width),
                         .operands = { ACTS(LF_ADD_A, rows, width), ACTS(LF_ADD_B, rows, width),
                                       ACTS(LF_ADD_Y, rows, width) } },
              &scales);
    }
}

static void check_norm_dw(uint32_t rows, uint32_t width, bool by_row)
{
    op_scales scales = { .scale = { [LF_NORM_DW_X] = 1, [LF_NORM_DW_DY] = 1 / sqrt(rows), [LF_NORM_DW_STATS] = 1 } };
    op_case c = { .op = make_op(LF_OP_NORM_DW, LF_PHASE_BACKWARD, rows, width),
                  .operands = { ACTS(LF_NORM_DW_X, rows, width), ACTS(LF_NORM_DW_DY, rows, width),
                                ACTS(LF_NORM_DW_STATS, by_row ? rows : 2, by_row ? 2 : width),
                                GRADS(LF_NORM_DW_DGAMMA, width), GRADS(LF_NORM_DW_DBETA, width) } };
    c.op.by_row = by_row;
    check(c, &scales);
}

static void layer_norm_is_the_oracles_at_every_shape(void **state)
{
    (void)state;
    for (size_t s = 0; s < COUNT(shapes); s++) {
        uint32_t rows = shapes[s][0], width = shapes[s][1];
        op_scales forward = { .scale = { [LF_NORM_X] = 3, [LF_NORM_GAMMA] = 1, [LF_NORM_BETA] = 1 } };
        check((op_case){ .op = make_op(LF_OP_LAYER_NORM, LF_PHASE_FORWARD, rows, width),
                         .operands = { ACTS(LF_NORM_X, rows, width), PARAMS(LF_NORM_GAMMA, width),
                                       PARAMS(LF_NORM_BETA, width), ACTS(LF_NORM_STATS, rows, 2),
                                       ACTS(LF_NORM_Y, rows, width) } },
              &forward);
        op_scales backward = { .scale = { [LF_LAYER_NORM_DX_X] = 1,
                                          [LF_LAYER_NORM_DX_DY] = 1,
                                          [LF_LAYER_NORM_DX_GAMMA] = 1,
                                          [LF_LAYER_NORM_DX_STATS] = .5 } };
        check((op_case){ .op = make_op(LF_OP_LAYER_NORM_DX, LF_PHASE_BACKWARD, rows, width),
                         .operands = { ACTS(LF_LAYER_NORM_DX_X, rows, width), ACTS(LF_LAYER_NORM_DX_DY, rows, width),
                                       PARAMS(LF_LAYER_NORM_DX_GAMMA, width), ACTS(LF_LAYER_NORM_DX_STATS, rows, 2),
                                       ACTS(LF_LAYER_NORM_DX_DX, rows, width) } },
              &backward);
        check_norm_dw(rows, width, true);
    }
}

// Running variances are positive.
static void fill_batch_stats(test_rig *rig, const void *context)
{
    fill_scaled(rig, context);
    lf_tensor_id variance = rig->program->ops[0].operands[LF_BATCH_STATS_VARIANCE];
    size_t count = rig_elements(rig->program, variance);
    double *values = calloc(count, sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++)
        values[i] = (double)lf_uniform(61, LF_STREAM_INIT, 0, i);
    rig_put(rig, variance, values);
    free(values);
}

static void check_batch_stats(uint32_t rows, uint32_t width, uint32_t batch_rows, bool training)
{
    op_scales scales = { .scale = { [LF_BATCH_STATS_X] = 2, [LF_BATCH_STATS_MEAN] = 1 }, .rows = batch_rows };
    op_case c = { .op = make_op(LF_OP_BATCH_STATS, LF_PHASE_FORWARD, rows, width),
                  .operands = { ACTS(LF_BATCH_STATS_X, rows, width), STATE(LF_BATCH_STATS_MEAN, width),
                                STATE(LF_BATCH_STATS_VARIANCE, width), ACTS(LF_BATCH_STATS_STATS, 2, width) },
                  .fill = fill_batch_stats };
    c.op.momentum = .125f;
    c.op.training = training;
    check(c, &scales);
}

static void check_batch_norm_dx(uint32_t rows, uint32_t width, uint32_t batch_rows)
{
    op_scales scales = { .scale = { [LF_BATCH_NORM_DX_X] = 1,
                                    [LF_BATCH_NORM_DX_DY] = 1,
                                    [LF_BATCH_NORM_DX_GAMMA] = 1,
                                    [LF_BATCH_NORM_DX_STATS] = .5,
                                    [LF_BATCH_NORM_DX_DGAMMA] = sqrt(rows),
                                    [LF_BATCH_NORM_DX_DBETA] = sqrt(rows) },
                         .rows = batch_rows };
    check((op_case){ .op = make_op(LF_OP_BATCH_NORM_DX, LF_PHASE_BACKWARD, rows, width),
                     .operands = { ACTS(LF_BATCH_NORM_DX_X, rows, width), ACTS(LF_BATCH_NORM_DX_DY, rows, width),
                                   PARAMS(LF_BATCH_NORM_DX_GAMMA, width), ACTS(LF_BATCH_NORM_DX_STATS, 2, width),
                                   GRADS(LF_BATCH_NORM_DX_DGAMMA, width), GRADS(LF_BATCH_NORM_DX_DBETA, width),
                                   ACTS(LF_BATCH_NORM_DX_DX, rows, width) } },
          &scales);
}

static void batch_norm_is_the_oracles_at_every_shape(void **state)
{
    (void)state;
    for (size_t s = 0; s < COUNT(shapes); s++) {
        uint32_t rows = shapes[s][0], width = shapes[s][1];
        check_batch_stats(rows, width, rows, true);
        check_batch_stats(rows, width, short_batch(rows), true);
        check_batch_stats(rows, width, 1, true);
        check_batch_stats(rows, width, rows, false);
        op_scales scales = { .scale = {
                                 [LF_NORM_X] = 1, [LF_NORM_GAMMA] = 1, [LF_NORM_BETA] = 1, [LF_NORM_STATS] = 1 } };
        check((op_case){ .op = make_op(LF_OP_BATCH_NORM, LF_PHASE_FORWARD, rows, width),
                         .operands = { ACTS(LF_NORM_X, rows, width), PARAMS(LF_NORM_GAMMA, width),
                                       PARAMS(LF_NORM_BETA, width), ACTS(LF_NORM_STATS, 2, width),
                                       ACTS(LF_NORM_Y, rows, width) } },
              &scales);
        check_batch_norm_dx(rows, width, rows);
        check_batch_norm_dx(rows, width, short_batch(rows));
        check_norm_dw(rows, width, false);
    }
}

// A row far from zero and a row of equal numbers: Σx² - mean² would lose the variance of the one, and the other has
// none.
static void layer_norm_of_known_rows(void **state)
{
    (void)state;
    enum { ROWS = 3, WIDTH = 4 };
    static const double x[ROWS][WIDTH] = { { 1, 3, 5, 7 }, { 4096, 4098, 4100, 4102 }, { 9, 9, 9, 9 } };
    static const double gamma[WIDTH] = { 1, 2, 1, -1 }, beta[WIDTH] = { 0, .5, 0, 1 };
    const double rstd = 1 / sqrt(5 + .001), rstds[ROWS] = { rstd, rstd, 1 / sqrt(.001) }, means[ROWS] = { 4, 4099, 9 };
    const operand operands[] = { ACTS(LF_NORM_X, ROWS, WIDTH), PARAMS(LF_NORM_GAMMA, WIDTH),
                                 PARAMS(LF_NORM_BETA, WIDTH), ACTS(LF_NORM_STATS, ROWS, 2),
                                 ACTS(LF_NORM_Y, ROWS, WIDTH) };
    one_op one;
    test_rig rig;
    one_op_make(&one, make_op(LF_OP_LAYER_NORM, LF_PHASE_FORWARD, ROWS, WIDTH), operands, COUNT(operands), false);
    rig_init(&rig, device, &one.program);
    rig_put(&rig, one.op.operands[LF_NORM_X], x[0]);
    rig_put(&rig, one.op.operands[LF_NORM_GAMMA], gamma);
    rig_put(&rig, one.op.operands[LF_NORM_BETA], beta);
    one_op_put_schedule(&rig, NULL, ROWS);
    rig_run(&rig, LF_PHASE_FORWARD, LF_PHASE_FORWARD, 1);
    double y[ROWS][WIDTH], want[ROWS][WIDTH], stats[ROWS][2], want_stats[ROWS][2];
    rig_get(&rig, one.op.operands[LF_NORM_Y], y[0]);
    rig_get(&rig, one.op.operands[LF_NORM_STATS], stats[0]);
    for (uint32_t i = 0; i < ROWS; i++) {
        for (uint32_t j = 0; j < WIDTH; j++)
            want[i][j] = (x[i][j] - means[i]) * rstds[i] * gamma[j] + beta[j];
        want_stats[i][0] = means[i];
        want_stats[i][1] = rstds[i];
    }
    assert_near("layer_norm of known rows", &one.program, one.op.operands[LF_NORM_Y], y[0], want[0], 1e-6, 1);
    assert_near("layer_norm of known rows", &one.program, one.op.operands[LF_NORM_STATS], stats[0], want_stats[0], 1e-6,
                1);
    rig_finish(&rig);
}

// Three of four rows count, in training; outside it the running ones stand for them, and stay as they were.
static void batch_stats_of_known_columns(void **state)
{
    (void)state;
    enum { ROWS = 4, WIDTH = 2, VALID = 3 };
    static const double x[ROWS][WIDTH] = { { 1, 1000 }, { 2, 1000 }, { 6, 1003 }, { 1e6, (double)NAN } };
    static const double running_mean[WIDTH] = { -1, 10 }, running_variance[WIDTH] = { 2, 4 };
    static const double means[WIDTH] = { 3, 1001 }, variances[WIDTH] = { 14. / 3, 2 };
    const operand operands[] = { ACTS(LF_BATCH_STATS_X, ROWS, WIDTH), STATE(LF_BATCH_STATS_MEAN, WIDTH),
                                 STATE(LF_BATCH_STATS_VARIANCE, WIDTH), ACTS(LF_BATCH_STATS_STATS, 2, WIDTH) };
    for (int training = 0; training < 2; training++) {
        lf_op op = make_op(LF_OP_BATCH_STATS, LF_PHASE_FORWARD, ROWS, WIDTH);
        op.momentum = .25f;
        op.training = training;
        one_op one;
        test_rig rig;
        one_op_make(&one, op, operands, COUNT(operands), false);
        lf_tensor_id stats_id = one.op.operands[LF_BATCH_STATS_STATS], mean_id = one.op.operands[LF_BATCH_STATS_MEAN];
        lf_tensor_id variance_id = one.op.operands[LF_BATCH_STATS_VARIANCE];
        rig_init(&rig, device, &one.program);
        rig_put(&rig, one.op.operands[LF_BATCH_STATS_X], x[0]);
        rig_put(&rig, mean_id, running_mean);
        rig_put(&rig, variance_id, running_variance);
        one_op_put_schedule(&rig, NULL, VALID);
        rig_run(&rig, LF_PHASE_FORWARD, LF_PHASE_FORWARD, 1);
        double stats[2][WIDTH], mean[WIDTH], variance[WIDTH], want[2][WIDTH], want_mean[WIDTH], want_variance[WIDTH];
        rig_get(&rig, stats_id, stats[0]);
        rig_get(&rig, mean_id, mean);
        rig_get(&rig, variance_id, variance);
        for (uint32_t j = 0; j < WIDTH; j++) {
            want[0][j] = training ? means[j] : running_mean[j];
            want[1][j] = 1 / sqrt((training ? variances[j] : running_variance[j]) + .001);
            want_mean[j] = training ? .75 * running_mean[j] + .25 * means[j] : running_mean[j];
            want_variance[j] =
                training ? .75 * running_variance[j] + .25 * variances[j] * VALID / (VALID - 1) : running_variance[j];
        }
        const char *what = training ? "batch_stats in training" : "batch_stats";
        assert_near(what, &one.program, stats_id, stats[0], want[0], 1e-6, 1e-3);
        assert_near(what, &one.program, mean_id, mean, want_mean, training ? 1e-6 : 0, 1);
        assert_near(what, &one.program, variance_id, variance, want_variance, training ? 1e-6 : 0, 1);
        rig_finish(&rig);
    }
}

int run_layer_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dropout_keeps_the_elements_of_the_table),
        cmocka_unit_test(dropout_keeps_the_same_elements_everywhere),
        cmocka_unit_test(dropout_passes_nan_where_it_keeps),
        cmocka_unit_test(add_is_the_oracles_at_every_shape),
        cmocka_unit_test(layer_norm_is_the_oracles_at_every_shape),
        cmocka_unit_test(layer_norm_of_known_rows),
        cmocka_unit_test(batch_norm_is_the_oracles_at_every_shape),
        cmocka_unit_test(batch_stats_of_known_columns),
    };
    return cmocka_run_group_tests_name("layers", tests, NULL, NULL);
}
