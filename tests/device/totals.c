// Sums over the shards of a batch.
#include <float.h>

#include "core/tree.h"
#include "slots.h"
#include "suite.h"

static const struct {
    uint32_t shards, rows, width;
} shapes[] = { { 4, 1, 1 }, { 4, 4, 10 }, { 8, 33, 31 }, { 16, 3, 64 }, { 4, 65, 128 }, { 4, 2, 1000 } };

static void check_columns(size_t shape, uint32_t shard, uint32_t valid, bool about_mean)
{
    uint32_t rows = shapes[shape].rows, width = shapes[shape].width;
    op_scales scales = { .scale = { [LF_COLUMN_SUMS_X] = 1 / sqrt(rows), [LF_COLUMN_SUMS_SUM] = valid / sqrt(rows) },
                         .rows = valid };
    char what[96];
    snprintf(what, sizeof what, "of shard %u of %u rows of %u, %u in the batch%s", shard, rows, width, valid,
             about_mean ? ", about the mean" : "");
    op_case c = { .op = { .kind = LF_OP_COLUMN_SUMS,
                          .phase = LF_PHASE_FORWARD,
                          .rows = rows,
                          .row = shard * rows,
                          .batch = shapes[shape].shards * rows,
                          .inputs = width,
                          .outputs = width },
                  .operands = { OPERAND(LF_COLUMN_SUMS_X, ACTS, rows, width),
                                OPERAND(LF_COLUMN_SUMS_OUT, GRADS, 1, width),
                                OPERAND(LF_COLUMN_SUMS_SUM, GRADS, 1, width) },
                  .operand_count = about_mean ? 3 : 2,
                  .fill = fill_scaled,
                  .context = &scales,
                  .what = what,
                  .bound = 2e-5,
                  .floor = 1 };
    check_op(&c);
}

static void column_sums_are_the_oracles_at_every_shape(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (int about_mean = 0; about_mean < 2; about_mean++) {
            uint32_t rows = shapes[i].rows, batch = shapes[i].shards * rows;
            check_columns(i, 0, batch, about_mean);
            check_columns(i, shapes[i].shards - 1, batch, about_mean);
            check_columns(i, 1, rows + (rows + 1) / 2, about_mean);
            check_columns(i, 1, rows, about_mean);
            check_columns(i, 3, 1, about_mean);
        }
}

static void fill_totals(test_rig *rig, const void *context)
{
    fill_scaled(rig, context);
    const op_scales *scales = context;
    const lf_op *op = &rig->program->ops[0];
    double *squares = doubles(op->outputs);
    for (uint32_t i = 0; i < op->outputs; i++)
        squares[i] = scales->rows * (double)lf_uniform(73, LF_STREAM_INIT, 0, i);
    rig_put(rig, op->operands[LF_BATCH_TOTALS_SQUARES], squares);
    free(squares);
}

static void batch_totals_are_the_oracles_at_every_width(void **state)
{
    (void)state;
    static const uint32_t widths[] = { 1, 7, 31, 33, 64, 65, 1000, 20000 }, rows[] = { 1, 2, 7, 1000 };
    for (size_t i = 0; i < COUNT(widths) * COUNT(rows) * 3; i++) {
        uint32_t width = widths[i % COUNT(widths)], valid = rows[i / COUNT(widths) % COUNT(rows)];
        bool stats = i / COUNT(widths) / COUNT(rows) != 1, moves = i / COUNT(widths) / COUNT(rows) != 2;
        op_scales scales = {
            .scale = { [LF_BATCH_TOTALS_SUM] = valid, [LF_BATCH_TOTALS_MEAN] = 1, [LF_BATCH_TOTALS_VARIANCE] = 1 },
            .rows = valid
        };
        char what[96];
        snprintf(what, sizeof what, "of %u columns of %u rows%s%s", width, valid, stats ? ", stats" : "",
                 moves ? ", the running ones move" : "");
        op_case c = { .op = { .kind = LF_OP_BATCH_TOTALS,
                              .phase = LF_PHASE_FORWARD,
                              .rows = 1,
                              .batch = valid,
                              .inputs = width,
                              .outputs = width,
                              .eps = 1e-3f,
                              .momentum = .125f },
                      .operands = { OPERAND(LF_BATCH_TOTALS_SUM, GRADS, 1, width),
                                    OPERAND(LF_BATCH_TOTALS_SQUARES, GRADS, 1, width) },
                      .operand_count = 2,
                      .fill = fill_totals,
                      .context = &scales,
                      .what = what,
                      .bound = 2e-5,
                      .floor = 1 };
        if (stats)
            c.operands[c.operand_count++] = (operand)OPERAND(LF_BATCH_TOTALS_STATS, ACTS, 2, width);
        if (moves) {
            c.operands[c.operand_count++] = (operand)OPERAND(LF_BATCH_TOTALS_MEAN, STATE, 1, width);
            c.operands[c.operand_count++] = (operand)OPERAND(LF_BATCH_TOTALS_VARIANCE, STATE, 1, width);
        }
        check_op(&c);
    }
}

static void expect(const char *what, bool in_float64, const double *got, const double *want, size_t count, double bound)
{
    for (size_t i = 0; i < count; i++)
        if (!(fabs(got[i] - want[i]) <= bound * fabs(want[i])))
            fail_msg("%s on %s: number %zu is %.9g instead of %.9g", what, in_float64 ? "the oracle" : device->info.id,
                     i, got[i], want[i]);
}

// Three rows count: two of the first shard, one of the second, none of the third, whose sums are zero.
static void sums_of_known_columns(void **state)
{
    (void)state;
    enum { SHARDS = 3, ROWS = 2, WIDTH = 2, VALID = 3 };
    static const double x[SHARDS][ROWS][WIDTH] = { { { 1, 1000 }, { 2, 1000 } },
                                                   { { 6, 1003 }, { 1e6, (double)NAN } },
                                                   { { (double)NAN, 1 }, { 1, 1 } } };
    static const double sum[WIDTH] = { 9, 3003 }, squares[WIDTH] = { 14, 6 };
    static const double sums[SHARDS][WIDTH] = { { 3, 2000 }, { 6, 1003 }, { 0, 0 } };
    static const double off_mean[SHARDS][WIDTH] = { { 5, 2 }, { 9, 4 }, { 0, 0 } };
    static const double mean[WIDTH] = { -5, 10 }, variance[WIDTH] = { 2, 4 };
    static const double moved_mean[WIDTH] = { -3, 257.75 }, moved_variance[WIDTH] = { 3.25, 3.75 };
    const double stats[2][WIDTH] = { { 3, 1001 }, { 1 / sqrt(14. / 3 + .001), 1 / sqrt(2 + .001) } };
    lf_op op = { .kind = LF_OP_COLUMN_SUMS, .rows = ROWS, .batch = SHARDS * ROWS, .inputs = WIDTH, .outputs = WIDTH };
    for (int in_float64 = 0; in_float64 < 2; in_float64++) {
        double got[2][WIDTH], got_mean[WIDTH], got_variance[WIDTH];
        for (uint32_t shard = 0; shard < SHARDS; shard++) {
            const slot slots[] = { { OPERAND(LF_COLUMN_SUMS_X, ACTS, ROWS, WIDTH), x[shard][0], NULL },
                                   { OPERAND(LF_COLUMN_SUMS_OUT, GRADS, 1, WIDTH), NULL, got[0] },
                                   { OPERAND(LF_COLUMN_SUMS_SUM, GRADS, 1, WIDTH), sum, NULL } };
            op.row = shard * ROWS;
            run_slots(in_float64, op, slots, 2, VALID);
            expect("column_sums", in_float64, got[0], sums[shard], WIDTH, 0);
            run_slots(in_float64, op, slots, 3, VALID);
            expect("column_sums about the mean", in_float64, got[0], off_mean[shard], WIDTH, 1e-3);
        }
        const slot totals[] = { { OPERAND(LF_BATCH_TOTALS_SUM, GRADS, 1, WIDTH), sum, NULL },
                                { OPERAND(LF_BATCH_TOTALS_SQUARES, GRADS, 1, WIDTH), squares, NULL },
                                { OPERAND(LF_BATCH_TOTALS_STATS, ACTS, 2, WIDTH), NULL, got[0] },
                                { OPERAND(LF_BATCH_TOTALS_MEAN, STATE, 1, WIDTH), mean, got_mean },
                                { OPERAND(LF_BATCH_TOTALS_VARIANCE, STATE, 1, WIDTH), variance, got_variance } };
        const lf_op batch_totals = { .kind = LF_OP_BATCH_TOTALS,
                                     .rows = 1,
                                     .batch = SHARDS * ROWS,
                                     .inputs = WIDTH,
                                     .outputs = WIDTH,
                                     .eps = .001f,
                                     .momentum = .25f };
        run_slots(in_float64, batch_totals, totals, COUNT(totals), VALID);
        expect("batch_totals", in_float64, got[0], stats[0], 2 * WIDTH, 1e-6);
        expect("the running mean", in_float64, got_mean, moved_mean, WIDTH, 1e-6);
        expect("the running variance", in_float64, got_variance, moved_variance, WIDTH, 1e-6);
    }
}

// The sums of each shard, taken over the shards along the tree.
static void sum_shards(lf_op op, uint32_t shards, uint32_t valid, const double *x, const double *about, double *total)
{
    uint32_t width = op.outputs;
    lf_tree_part parts[16];
    float *sums = calloc((size_t)shards * width, sizeof *sums);
    assert_true(sums && shards <= COUNT(parts));
    for (uint32_t shard = 0; shard < shards; shard++) {
        op.row = shard * op.rows;
        const slot slots[] = { { OPERAND(LF_COLUMN_SUMS_X, ACTS, op.rows, width), x + (size_t)op.row * width, NULL },
                               { OPERAND(LF_COLUMN_SUMS_OUT, GRADS, 1, width), NULL, total },
                               { OPERAND(LF_COLUMN_SUMS_SUM, GRADS, 1, width), about, NULL } };
        run_slots(false, op, slots, about ? 3 : 2, valid);
        parts[shard] = (lf_tree_part){ .first = shard, .count = 1, .values = sums + (size_t)shard * width };
        for (uint32_t j = 0; j < width; j++)
            parts[shard].values[j] = (float)total[j];
    }
    lf_tree_sum(parts, shards, width);
    for (uint32_t j = 0; j < width; j++)
        total[j] = (double)sums[j];
    free(sums);
}

// In `shards` shards of `rows`, of which `valid` count.
static void check_batch_stats(uint32_t shards, uint32_t rows, uint32_t width, uint32_t valid)
{
    uint32_t batch = shards * rows;
    size_t count = (size_t)batch * width;
    double *x = doubles(count + 12 * (size_t)width), *sum = x + count, *squares = sum + width;
    double *mean = squares + width, *variance = mean + width, *stats[2], *moved_mean[2], *moved_variance[2];
    for (size_t i = 0; i < count; i++)
        x[i] = (float)(3 + (double)lf_normal(74, LF_STREAM_INIT, 0, i));
    for (uint32_t j = 0; j < width; j++) {
        mean[j] = 1;
        variance[j] = 2;
    }
    for (int sharded = 0; sharded < 2; sharded++) {
        stats[sharded] = variance + width + (size_t)sharded * 4 * width;
        moved_mean[sharded] = stats[sharded] + 2 * width;
        moved_variance[sharded] = moved_mean[sharded] + width;
    }
    lf_op op = { .rows = batch,
                 .batch = batch,
                 .inputs = width,
                 .outputs = width,
                 .eps = 1e-3f,
                 .momentum = .25f,
                 .training = true };
    const slot whole[] = { { OPERAND(LF_BATCH_STATS_X, ACTS, batch, width), x, NULL },
                           { OPERAND(LF_BATCH_STATS_MEAN, STATE, 1, width), mean, moved_mean[0] },
                           { OPERAND(LF_BATCH_STATS_VARIANCE, STATE, 1, width), variance, moved_variance[0] },
                           { OPERAND(LF_BATCH_STATS_STATS, ACTS, 2, width), NULL, stats[0] } };
    op.kind = LF_OP_BATCH_STATS;
    run_slots(false, op, whole, COUNT(whole), valid);

    op.kind = LF_OP_COLUMN_SUMS;
    op.rows = rows;
    sum_shards(op, shards, valid, x, NULL, sum);
    sum_shards(op, shards, valid, x, sum, squares);
    const slot totals[] = { { OPERAND(LF_BATCH_TOTALS_SUM, GRADS, 1, width), sum, NULL },
                            { OPERAND(LF_BATCH_TOTALS_SQUARES, GRADS, 1, width), squares, NULL },
                            { OPERAND(LF_BATCH_TOTALS_MEAN, STATE, 1, width), mean, moved_mean[1] },
                            { OPERAND(LF_BATCH_TOTALS_VARIANCE, STATE, 1, width), variance, moved_variance[1] },
                            { OPERAND(LF_BATCH_TOTALS_STATS, ACTS, 2, width), NULL, stats[1] } };
    op.kind = LF_OP_BATCH_TOTALS;
    op.rows = 1;
    run_slots(false, op, totals, COUNT(totals), valid);
    expect("mean and rstd of shards", false, stats[1], stats[0], 2 * (size_t)width, 1e-5);
    expect("the running mean of shards", false, moved_mean[1], moved_mean[0], width, 1e-5);
    expect("the running variance of shards", false, moved_variance[1], moved_variance[0], width, 1e-5);
    free(x);
}

static void totals_over_shards_are_the_batchs_statistics(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(shapes); i++) {
        uint32_t shards = shapes[i].shards, rows = shapes[i].rows, width = shapes[i].width, batch = shards * rows;
        check_batch_stats(1, batch, width, batch);
        check_batch_stats(1, batch, width, batch - batch / 3);
        check_batch_stats(shards, rows, width, batch);
        check_batch_stats(shards, rows, width, rows + 1); // a shard in part, those behind it not at all
        check_batch_stats(shards, rows, width, 1);
    }
}

static void check_sum(uint32_t count)
{
    op_scales scales = { .scale = { [LF_SUM_X] = 1, [LF_SUM_Y] = 2 } };
    char what[32];
    snprintf(what, sizeof what, "of %u", count);
    op_case c = {
        .op = { .kind = LF_OP_SUM, .phase = LF_PHASE_REDUCE, .rows = 1, .inputs = count, .outputs = count },
        .operands = { OPERAND(LF_SUM_X, GRADS, 1, count), OPERAND(LF_SUM_Y, GRADS, 1, count) },
        .operand_count = 2,
        .fill = fill_scaled,
        .context = &scales,
        .what = what,
        .bound = 1e-6,
        .floor = 1,
    };
    check_op(&c);
}

static void sum_is_the_oracles_at_every_size(void **state)
{
    (void)state;
    static const uint32_t counts[] = { 1, 31, 33, 1000, 20000, 101824 };
    for (size_t i = 0; i < COUNT(counts); i++)
        check_sum(counts[i]);
}

static const float corners[] = { 0.f,
                                 -0.f,
                                 FLT_MIN,
                                 -FLT_MIN,
                                 1.5f * FLT_MIN,
                                 -1.5f * FLT_MIN,
                                 .5f * FLT_MIN,
                                 -.5f * FLT_MIN,
                                 FLT_TRUE_MIN,
                                 -FLT_TRUE_MIN,
                                 FLT_MIN - FLT_TRUE_MIN,
                                 FLT_TRUE_MIN - FLT_MIN,
                                 1,
                                 -1,
                                 1 + FLT_EPSILON,
                                 FLT_EPSILON / 2,
                                 FLT_MAX,
                                 -FLT_MAX,
                                 INFINITY,
                                 -INFINITY,
                                 NAN };
enum { CORNERS = COUNT(corners), SUMMED = CORNERS * CORNERS + 20000 };

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Every pair of corners, then any bits at all beside others of the same exponent, which cancel each other.
static void pair_at(size_t i, float *x, float *y)
{
    if (i < CORNERS * CORNERS) {
        *x = corners[i % CORNERS];
        *y = corners[i / CORNERS];
        return;
    }
    uint32_t words[4];
    lf_philox((const uint32_t[4]){ (uint32_t)i }, (const uint32_t[2]){ 75 }, words);
    *x = float_of(i % 3 ? words[0] : words[0] & 0x80ffffffu); // a third about the smallest normal number
    *y = float_of(i % 2 ? words[1] : (words[0] ^ 0x80000000u) ^ (words[1] & 0x7fffff));
}

static double flushed(double value)
{
    return fabs(value) < (double)FLT_MIN ? 0 : value;
}

static void sum_gives_the_bits_of_the_host(void **state)
{
    (void)state;
    double *x = doubles(4 * (size_t)SUMMED), *y = x + SUMMED, *got = y + SUMMED, *exact = got + SUMMED;
    float *first = calloc(2 * (size_t)SUMMED, sizeof *first), *second = first + SUMMED;
    assert_non_null(first);
    for (size_t i = 0; i < SUMMED; i++) {
        pair_at(i, &first[i], &second[i]);
        x[i] = (double)first[i];
        y[i] = (double)second[i];
    }
    const lf_op op = { .kind = LF_OP_SUM, .rows = 1, .inputs = SUMMED, .outputs = SUMMED };
    slot slots[] = { { OPERAND(LF_SUM_X, GRADS, 1, SUMMED), x, NULL },
                     { OPERAND(LF_SUM_Y, GRADS, 1, SUMMED), y, got } };
    run_slots(false, op, slots, COUNT(slots), 1);
    slots[1].after = exact;
    run_slots(true, op, slots, COUNT(slots), 1);
    lf_tree_add(second, first, SUMMED);
    for (size_t i = 0; i < SUMMED; i++) {
        double want = (double)second[i], sum = flushed(flushed(y[i]) + flushed(x[i]));
        if (isnan(want) ? !isnan(got[i]) : got[i] != want || signbit(got[i]) != signbit(want))
            fail_msg("sum on %s: %a + %a is %a, and %a on the host", device->info.id, y[i], x[i], got[i], want);
        if (isnan(sum) ? !isnan(exact[i]) : exact[i] != sum || signbit(exact[i]) != signbit(sum))
            fail_msg("sum on the oracle: %a + %a is %a instead of %a", y[i], x[i], exact[i], sum);
    }
    free(first);
    free(x);
}

int run_total_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(column_sums_are_the_oracles_at_every_shape),
        cmocka_unit_test(batch_totals_are_the_oracles_at_every_width),
        cmocka_unit_test(sums_of_known_columns),
        cmocka_unit_test(totals_over_shards_are_the_batchs_statistics),
        cmocka_unit_test(sum_is_the_oracles_at_every_size),
        cmocka_unit_test(sum_gives_the_bits_of_the_host),
    };
    return cmocka_run_group_tests_name("totals", tests, NULL, NULL);
}
