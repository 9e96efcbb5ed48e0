// Norms, dropout and their like against their formulas.
#include "op_run.h"

static void dropout_keeps_what_the_generator_says(void **state)
{
    (void)state;
    static const float rates[] = { .5f, .1f, .9f, 0x1p-24f };
    for (size_t s = 0; s < SHAPES; s++)
        for (size_t r = 0; r < COUNT(rates); r++) {
            uint32_t rows = run_shapes[s][0], width = run_shapes[s][1], layer = (uint32_t)s + 3;
            lf_op op = run_op(LF_OP_DROPOUT, rows, width);
            op.rate = rates[r];
            op.stream = layer;
            const operand operands[] = { run_acts(LF_DROPOUT_X, rows, width), run_acts(LF_DROPOUT_Y, rows, width) };
            op_run run;
            run_start(&run, op, false, operands, COUNT(operands));
            double *x = run_put_normal(&run, LF_DROPOUT_X, 0, 2);
            for (size_t i = 0; i < (size_t)rows * width; i += 5)
                x[i] = i % 10 ? (double)NAN : (double)INFINITY;
            run_put(&run, LF_DROPOUT_X, x);
            run_once(&run);
            double *y = run_get(&run, LF_DROPOUT_Y);
            float scale = 1 / (1 - rates[r]);
            for (uint32_t i = 0; i < rows * width; i++) {
                uint32_t drawn[4];
                lf_philox((uint32_t[]){ i / 4, STEP, layer, LF_STREAM_DROPOUT }, run_seed, drawn);
                bool kept = (float)(drawn[i % 4] >> 8) * 0x1p-24f >= rates[r];
                double want = kept ? (double)((float)x[i] * scale) : 0;
                if (y[i] != want && !(isnan(y[i]) && isnan(want)))
                    fail_msg("%s, rate %g: element %u is %.9g instead of %.9g", run.what, (double)rates[r], i, y[i],
                             want);
            }
            run_finish(&run);
        }
}

static void sums_are_exact(void **state)
{
    (void)state;
    for (size_t s = 0; s < SHAPES; s++) {
        uint32_t rows = run_shapes[s][0], width = run_shapes[s][1];
        const operand operands[] = { run_acts(LF_ADD_A, rows, width), run_acts(LF_ADD_B, rows, width),
                                     run_acts(LF_ADD_Y, rows, width) };
        op_run run;
        run_start(&run, run_op(LF_OP_ADD, rows, width), false, operands, COUNT(operands));
        double *a = run_put_normal(&run, LF_ADD_A, 0, 1), *b = run_put_normal(&run, LF_ADD_B, 0, 1);
        run_once(&run);
        for (size_t i = 0; i < (size_t)rows * width; i++)
            a[i] = (float)a[i] + (float)b[i];
        run_expect(&run, LF_ADD_Y, a, 0, 0);
        run_finish(&run);
    }
}

// Mean and 1 / sqrt(biased variance + eps) of `count` numbers, `stride` apart.
static void moments(const double *x, size_t count, size_t stride, double *mean, double *variance)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < count; i++)
        sum += x[i * stride];
    *mean = sum / (double)count;
    for (size_t i = 0; i < count; i++)
        squares += (x[i * stride] - *mean) * (x[i * stride] - *mean);
    *variance = squares / (double)count;
}

static void layer_norm_is_the_formula(void **state)
{
    (void)state;
    for (size_t s = 0; s < SHAPES; s++) {
        uint32_t rows = run_shapes[s][0], width = run_shapes[s][1];
        lf_op op = run_op(LF_OP_LAYER_NORM, rows, width);
        op.eps = 1e-3f;
        const operand operands[] = { run_acts(LF_NORM_X, rows, width), run_acts(LF_NORM_GAMMA, 1, width),
                                     run_acts(LF_NORM_BETA, 1, width), run_acts(LF_NORM_STATS, rows, 2),
                                     run_acts(LF_NORM_Y, rows, width) };
        op_run run;
        run_start(&run, op, false, operands, COUNT(operands));
        double *x = run_put_normal(&run, LF_NORM_X, 3, 2), *gamma = run_put_normal(&run, LF_NORM_GAMMA, 1, .5),
               *beta = run_put_normal(&run, LF_NORM_BETA, 0, 1), *stats = run_numbers(&run, 2 * (size_t)rows);
        if (rows > 5) {
            x[5 * (size_t)width + width / 2] = (double)NAN; // stays in its row
            run_put(&run, LF_NORM_X, x);
        }
        run_once(&run);
        for (uint32_t i = 0; i < rows; i++) {
            double *row = x + (size_t)i * width, variance;
            moments(row, width, 1, &stats[2 * i], &variance);
            stats[2 * i + 1] = 1 / sqrt(variance + (double)op.eps);
            for (uint32_t j = 0; j < width; j++)
                row[j] = (row[j] - stats[2 * i]) * stats[2 * i + 1] * gamma[j] + beta[j];
        }
        run_expect(&run, LF_NORM_STATS, stats, 2e-6, 1);
        run_expect(&run, LF_NORM_Y, x, 1e-5, 1);
        run_finish(&run);
    }
}

static void layer_norm_dx_is_the_formula(void **state)
{
    (void)state;
    for (size_t s = 0; s < SHAPES; s++) {
        uint32_t rows = run_shapes[s][0], width = run_shapes[s][1];
        const operand operands[] = { run_acts(LF_LAYER_NORM_DX_X, rows, width),
                                     run_acts(LF_LAYER_NORM_DX_DY, rows, width),
                                     run_acts(LF_LAYER_NORM_DX_GAMMA, 1, width),
                                     run_acts(LF_LAYER_NORM_DX_STATS, rows, 2),
                                     run_acts(LF_LAYER_NORM_DX_DX, rows, width) };
        op_run run;
        run_start(&run, run_op(LF_OP_LAYER_NORM_DX, rows, width), false, operands, COUNT(operands));
        double *x = run_put_normal(&run, LF_LAYER_NORM_DX_X, 0, 1),
               *dy = run_put_normal(&run, LF_LAYER_NORM_DX_DY, .5, 1),
               *gamma = run_put_normal(&run, LF_LAYER_NORM_DX_GAMMA, 1, .5),
               *stats = run_put_normal(&run, LF_LAYER_NORM_DX_STATS, .5, .25);
        run_once(&run);
        for (uint32_t i = 0; i < rows; i++) {
            double *row = x + (size_t)i * width, *slope = dy + (size_t)i * width;
            double mean = stats[2 * i], rstd = stats[2 * i + 1], sum = 0, along = 0;
            for (uint32_t j = 0; j < width; j++) {
                sum += slope[j] * gamma[j] / width;
                along += slope[j] * gamma[j] * (row[j] - mean) * rstd / width;
            }
            for (uint32_t j = 0; j < width; j++)
                row[j] = rstd * (slope[j] * gamma[j] - sum - (row[j] - mean) * rstd * along);
        }
        run_expect(&run, LF_LAYER_NORM_DX_DX, x, 1e-5, 1);
        run_finish(&run);
    }
}

static void check_batch_stats(uint32_t rows, uint32_t width, bool short_batch, bool training)
{
    lf_op op = run_op(LF_OP_BATCH_STATS, rows, width);
    op.eps = 1e-3f;
    op.momentum = .25f;
    op.training = training;
    const operand operands[] = {
        run_acts(LF_BATCH_STATS_X, rows, width),
        run_acts(LF_BATCH_STATS_STATS, 2, width),
        { .number = LF_BATCH_STATS_MEAN, .region = LF_REGION_STATE, .rows = 1, .cols = width },
        { .number = LF_BATCH_STATS_VARIANCE, .region = LF_REGION_STATE, .rows = 1, .cols = width }
    };
    op_run run;
    run_start(&run, op, short_batch, operands, COUNT(operands));
    double *x = run_put_normal(&run, LF_BATCH_STATS_X, 3, 2),
           *running_mean = run_put_normal(&run, LF_BATCH_STATS_MEAN, 1, 1),
           *running_variance = run_put_normal(&run, LF_BATCH_STATS_VARIANCE, 8, 1),
           *stats = run_numbers(&run, 2 * (size_t)width);
    x[width / 2] = width > 6 ? (double)NAN : x[width / 2]; // stays in its column
    run_put(&run, LF_BATCH_STATS_X, x);
    run_once(&run);
    for (uint32_t j = 0; j < width; j++) {
        double mean = running_mean[j], variance = running_variance[j], count = run.rows;
        if (training) {
            moments(x + j, run.rows, width, &mean, &variance);
            double unbiased = run.rows > 1 ? variance * count / (count - 1) : variance;
            running_mean[j] = .75 * running_mean[j] + .25 * mean;
            running_variance[j] = .75 * running_variance[j] + .25 * unbiased;
        }
        stats[j] = mean;
        stats[width + j] = 1 / sqrt(variance + (double)op.eps);
    }
    run_expect(&run, LF_BATCH_STATS_STATS, stats, 3e-6, 1);
    run_expect(&run, LF_BATCH_STATS_MEAN, running_mean, training ? 3e-6 : 0, training);
    run_expect(&run, LF_BATCH_STATS_VARIANCE, running_variance, training ? 3e-6 : 0, training);
    run_finish(&run);
}

static void batch_stats_are_the_formulas(void **state)
{
    (void)state;
    for (size_t s = 0; s < SHAPES; s++)
        for (int variant = 0; variant < 4; variant++)
            check_batch_stats(run_shapes[s][0], run_shapes[s][1], variant % 2, variant / 2);
}

static void batch_norm_is_the_formula(void **state)
{
    (void)state;
    for (size_t s = 0; s < SHAPES; s++) {
        uint32_t rows = run_shapes[s][0], width = run_shapes[s][1];
        const operand operands[] = { run_acts(LF_NORM_X, rows, width), run_acts(LF_NORM_GAMMA, 1, width),
                                     run_acts(LF_NORM_BETA, 1, width), run_acts(LF_NORM_STATS, 2, width),
                                     run_acts(LF_NORM_Y, rows, width) };
        op_run run;
        run_start(&run, run_op(LF_OP_BATCH_NORM, rows, width), true, operands, COUNT(operands));
        double *x = run_put_normal(&run, LF_NORM_X, 3, 2), *gamma = run_put_normal(&run, LF_NORM_GAMMA, 1, .5),
               *beta = run_put_normal(&run, LF_NORM_BETA, 0, 1), *stats = run_put_normal(&run, LF_NORM_STATS, 1, .25);
        x[rows * width / 2] = (double)NAN; // stays where it is
        run_put(&run, LF_NORM_X, x);
        run_once(&run);
        for (size_t i = 0; i < (size_t)rows * width; i++) {
            size_t j = i % width;
            x[i] = (x[i] - stats[j]) * stats[width + j] * gamma[j] + beta[j];
        }
        run_expect(&run, LF_NORM_Y, x, 3e-6, 1);
        run_finish(&run);
    }
}

static void batch_norm_dx_is_the_formula(void **state)
{
    (void)state;
    for (size_t s = 0; s < SHAPES; s++) {
        uint32_t rows = run_shapes[s][0], width = run_shapes[s][1];
        const operand operands[] = {
            run_acts(LF_BATCH_NORM_DX_X, rows, width),   run_acts(LF_BATCH_NORM_DX_DY, rows, width),
            run_acts(LF_BATCH_NORM_DX_GAMMA, 1, width),  run_acts(LF_BATCH_NORM_DX_STATS, 2, width),
            run_acts(LF_BATCH_NORM_DX_DGAMMA, 1, width), run_acts(LF_BATCH_NORM_DX_DBETA, 1, width),
            run_acts(LF_BATCH_NORM_DX_DX, rows, width)
        };
        op_run run;
        run_start(&run, run_op(LF_OP_BATCH_NORM_DX, rows, width), true, operands, COUNT(operands));
        double *x = run_put_normal(&run, LF_BATCH_NORM_DX_X, 0, 1),
               *dy = run_put_normal(&run, LF_BATCH_NORM_DX_DY, 0, 1),
               *gamma = run_put_normal(&run, LF_BATCH_NORM_DX_GAMMA, 1, .5),
               *stats = run_put_normal(&run, LF_BATCH_NORM_DX_STATS, 1, .25),
               *dgamma = run_put_normal(&run, LF_BATCH_NORM_DX_DGAMMA, 0, run.rows),
               *dbeta = run_put_normal(&run, LF_BATCH_NORM_DX_DBETA, 0, run.rows);
        run_once(&run);
        for (size_t i = 0; i < (size_t)rows * width; i++) {
            size_t j = i % width;
            double rstd = stats[width + j], h = (x[i] - stats[j]) * rstd;
            x[i] =
                i / width < run.rows ? gamma[j] * rstd * (dy[i] - dbeta[j] / run.rows - h * dgamma[j] / run.rows) : 0;
        }
        run_expect(&run, LF_BATCH_NORM_DX_DX, x, 5e-6, 1);
        run_finish(&run);
    }
}

static void norm_dw_is_the_formula(void **state)
{
    (void)state;
    for (size_t s = 0; s < SHAPES; s++)
        for (int by_row = 0; by_row < 2; by_row++) {
            uint32_t rows = run_shapes[s][0], width = run_shapes[s][1];
            lf_op op = run_op(LF_OP_NORM_DW, rows, width);
            op.by_row = by_row;
            const operand operands[] = { run_acts(LF_NORM_DW_X, rows, width), run_acts(LF_NORM_DW_DY, rows, width),
                                         run_acts(LF_NORM_DW_STATS, by_row ? rows : 2, by_row ? 2 : width),
                                         run_acts(LF_NORM_DW_DGAMMA, 1, width), run_acts(LF_NORM_DW_DBETA, 1, width) };
            op_run run;
            run_start(&run, op, false, operands, COUNT(operands));
            double *x = run_put_normal(&run, LF_NORM_DW_X, 0, 1), *dy = run_put_normal(&run, LF_NORM_DW_DY, 0, 1),
                   *stats = run_put_normal(&run, LF_NORM_DW_STATS, 1, .25), *dgamma = run_numbers(&run, width),
                   *dbeta = run_numbers(&run, width);
            run_once(&run);
            for (size_t i = 0; i < (size_t)rows * width; i++) {
                size_t j = i % width, row = i / width;
                double mean = by_row ? stats[2 * row] : stats[j], rstd = by_row ? stats[2 * row + 1] : stats[width + j];
                dgamma[j] += dy[i] * (x[i] - mean) * rstd;
                dbeta[j] += dy[i];
            }
            run_expect(&run, LF_NORM_DW_DGAMMA, dgamma, 1e-6, rows);
            run_expect(&run, LF_NORM_DW_DBETA, dbeta, 1e-6, rows);
            run_finish(&run);
        }
}

static void gather_rows_copies_and_clears(void **state)
{
    (void)state;
    for (size_t s = 0; s < SHAPES; s++)
        for (int short_batch = 0; short_batch < 2; short_batch++) {
            uint32_t rows = run_shapes[s][0], width = run_shapes[s][1];
            const operand operands[] = { run_acts(LF_GATHER_ROWS_SOURCE, RESIDENT, width),
                                         run_words(LF_GATHER_ROWS_ORDER, ONE_OP_POSITIONS(rows)),
                                         run_acts(LF_GATHER_ROWS_OUT, rows, width) };
            op_run run;
            run_start(&run, run_op(LF_OP_GATHER_ROWS, rows, width), short_batch, operands, COUNT(operands));
            double *source = run_put_normal(&run, LF_GATHER_ROWS_SOURCE, 0, 1),
                   *order = run_numbers(&run, ONE_OP_POSITIONS(rows)), *want = run_numbers(&run, (size_t)rows * width);
            source[0] = (double)NAN; // rows past the batch's are zero whatever stands there
            for (uint32_t i = 0; i < ONE_OP_POSITIONS(rows); i++)
                order[i] = (i * 7 + 3) % RESIDENT;
            run_put(&run, LF_GATHER_ROWS_SOURCE, source);
            run_put(&run, LF_GATHER_ROWS_ORDER, order);
            run_once(&run);
            for (size_t i = 0; i < (size_t)run.rows * width; i++)
                want[i] = source[(size_t)order[FIRST + i / width] * width + i % width];
            run_expect(&run, LF_GATHER_ROWS_OUT, want, 0, 0);
            run_finish(&run);
        }
}

int run_layer_formulas(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dropout_keeps_what_the_generator_says),
        cmocka_unit_test(sums_are_exact),
        cmocka_unit_test(layer_norm_is_the_formula),
        cmocka_unit_test(layer_norm_dx_is_the_formula),
        cmocka_unit_test(batch_stats_are_the_formulas),
        cmocka_unit_test(batch_norm_is_the_formula),
        cmocka_unit_test(batch_norm_dx_is_the_formula),
        cmocka_unit_test(norm_dw_is_the_formula),
        cmocka_unit_test(gather_rows_copies_and_clears),
    };
    return cmocka_run_group_tests_name("layers", tests, NULL, NULL);
}
