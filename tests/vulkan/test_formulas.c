// Norms, dropout, distillation and their like, one operation at a time, against the formulas written out in double. The
// device suite compares them with the oracle; this does not lean on another backend. Run like test_vulkan.
#include "../device/rig.h"

#include <float.h>

enum { COUNTER = 1, FIRST = 2, STEP = 70001, RESIDENT = 50 };

static const uint32_t shapes[][2] = { { 1, 1 },    { 7, 31 },    { 33, 33 },  { 64, 10 }, { 65, 128 },
                                      { 128, 65 }, { 31, 1000 }, { 1000, 7 }, { 5, 64 } };
static const uint32_t seed[2] = { 0x9e3779b9, 0xfffffff1 };

// One operation on the device under test. Arrays of numbers belong to it.
typedef struct op_run {
    one_op one;
    test_rig rig;
    uint32_t rows; // of the batch that count
    double *kept[2 * LF_OPERAND_MAX];
    size_t kept_count;
    char what[96];
} op_run;

static double *numbers(op_run *run, size_t count)
{
    double *values = calloc(count, sizeof *values);
    assert_non_null(values);
    run->kept[run->kept_count++] = values;
    return values;
}

static lf_op op_of(lf_op_kind kind, uint32_t rows, uint32_t width)
{
    return (lf_op){ .kind = kind, .phase = LF_PHASE_FORWARD, .rows = rows, .inputs = width, .outputs = width };
}

static operand acts(unsigned number, uint32_t rows, uint32_t cols)
{
    return (operand){ .number = number, .region = LF_REGION_ACTS, .rows = rows, .cols = cols };
}

static operand words(unsigned number, uint32_t count)
{
    return (operand){
        .number = number, .region = LF_REGION_ORDER, .rows = 1, .cols = count, .type = LF_U32, .typed = true
    };
}

// Everything that is only written starts as NaN. `short_batch`: some rows of the batch count nothing.
static void start(op_run *run, lf_op op, bool short_batch, const operand *operands, size_t count)
{
    lf_error err;
    const lf_optimizer sgd = { .kind = LF_OPTIMIZER_SGD, .lr = 1 };
    *run = (op_run){ .rows = short_batch ? op.rows - op.rows / 3 : op.rows };
    snprintf(run->what, sizeof run->what, "%s, %u of %u rows of %u", lf_op_info_of(op.kind)->name, run->rows, op.rows,
             op.outputs);
    one_op_make(&run->one, op, operands, count, false);
    struct lf_schedule_row wrong = schedule_row(&sgd, 0, 1, 9), right = schedule_row(&sgd, FIRST, run->rows, STEP);
    struct lf_schedule_row table[ONE_OP_STEPS] = { wrong, right, wrong };
    rig_init(&run->rig, device, &run->one.program);
    rig_put_schedule(&run->rig, COUNTER, table, ONE_OP_STEPS);
    if (!lf_device_buffer_write(device, run->rig.regions.region[LF_REGION_SCHEDULE], sizeof *seed, seed, sizeof seed,
                                &err))
        fail_msg("%s", err.text);
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++) {
        const lf_operand_info *info = &lf_op_info_of(run->one.op.kind)->operands[i];
        if (run->one.op.operands[i] == LF_NO_TENSOR || !info->written || info->read)
            continue;
        size_t elements = rig_elements(&run->one.program, run->one.op.operands[i]);
        double *values = numbers(run, elements);
        for (size_t e = 0; e < elements; e++)
            values[e] = (double)NAN;
        rig_put(&run->rig, run->one.op.operands[i], values);
    }
}

static void finish(op_run *run)
{
    rig_finish(&run->rig);
    for (size_t i = 0; i < run->kept_count; i++)
        free(run->kept[i]);
}

static void put(op_run *run, unsigned number, const double *values)
{
    rig_put(&run->rig, run->one.op.operands[number], values);
}

// Fills an operand with normal numbers about `middle`.
static double *put_normal(op_run *run, unsigned number, double middle, double scale)
{
    size_t count = rig_elements(&run->one.program, run->one.op.operands[number]);
    double *values = numbers(run, count);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)(middle + scale * (double)lf_normal(17, LF_STREAM_INIT, number, i));
    put(run, number, values);
    return values;
}

static double *get(op_run *run, unsigned number)
{
    lf_tensor_id id = run->one.op.operands[number];
    double *values = numbers(run, rig_elements(&run->one.program, id));
    rig_get(&run->rig, id, values);
    return values;
}

static void run_once(op_run *run)
{
    rig_run(&run->rig, LF_PHASE_FORWARD, LF_PHASE_FORWARD, 1);
}

static void expect(op_run *run, unsigned number, const double *want, double bound, double floor)
{
    assert_near(run->what, &run->one.program, run->one.op.operands[number], get(run, number), want, bound, floor);
}

static void dropout_keeps_what_the_generator_says(void **state)
{
    (void)state;
    static const float rates[] = { .5f, .1f, .9f, 0x1p-24f };
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (size_t r = 0; r < COUNT(rates); r++) {
            uint32_t rows = shapes[s][0], width = shapes[s][1], layer = (uint32_t)s + 3;
            lf_op op = op_of(LF_OP_DROPOUT, rows, width);
            op.rate = rates[r];
            op.stream = layer;
            const operand operands[] = { acts(LF_DROPOUT_X, rows, width), acts(LF_DROPOUT_Y, rows, width) };
            op_run run;
            start(&run, op, false, operands, COUNT(operands));
            double *x = put_normal(&run, LF_DROPOUT_X, 0, 2);
            for (size_t i = 0; i < (size_t)rows * width; i += 5)
                x[i] = i % 10 ? (double)NAN : (double)INFINITY;
            put(&run, LF_DROPOUT_X, x);
            run_once(&run);
            double *y = get(&run, LF_DROPOUT_Y);
            float scale = 1 / (1 - rates[r]);
            for (uint32_t i = 0; i < rows * width; i++) {
                uint32_t drawn[4];
                lf_philox((uint32_t[]){ i / 4, STEP, layer, LF_STREAM_DROPOUT }, seed, drawn);
                bool kept = (float)(drawn[i % 4] >> 8) * 0x1p-24f >= rates[r];
                double want = kept ? (double)((float)x[i] * scale) : 0;
                if (y[i] != want && !(isnan(y[i]) && isnan(want)))
                    fail_msg("%s, rate %g: element %u is %.9g instead of %.9g", run.what, (double)rates[r], i, y[i],
                             want);
            }
            finish(&run);
        }
}

static void sums_are_exact(void **state)
{
    (void)state;
    for (size_t s = 0; s < COUNT(shapes); s++) {
        uint32_t rows = shapes[s][0], width = shapes[s][1];
        const operand operands[] = { acts(LF_ADD_A, rows, width), acts(LF_ADD_B, rows, width),
                                     acts(LF_ADD_Y, rows, width) };
        op_run run;
        start(&run, op_of(LF_OP_ADD, rows, width), false, operands, COUNT(operands));
        double *a = put_normal(&run, LF_ADD_A, 0, 1), *b = put_normal(&run, LF_ADD_B, 0, 1);
        run_once(&run);
        for (size_t i = 0; i < (size_t)rows * width; i++)
            a[i] = (float)a[i] + (float)b[i];
        expect(&run, LF_ADD_Y, a, 0, 0);
        finish(&run);
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
    for (size_t s = 0; s < COUNT(shapes); s++) {
        uint32_t rows = shapes[s][0], width = shapes[s][1];
        lf_op op = op_of(LF_OP_LAYER_NORM, rows, width);
        op.eps = 1e-3f;
        const operand operands[] = { acts(LF_NORM_X, rows, width), acts(LF_NORM_GAMMA, 1, width),
                                     acts(LF_NORM_BETA, 1, width), acts(LF_NORM_STATS, rows, 2),
                                     acts(LF_NORM_Y, rows, width) };
        op_run run;
        start(&run, op, false, operands, COUNT(operands));
        double *x = put_normal(&run, LF_NORM_X, 3, 2), *gamma = put_normal(&run, LF_NORM_GAMMA, 1, .5),
               *beta = put_normal(&run, LF_NORM_BETA, 0, 1), *stats = numbers(&run, 2 * (size_t)rows);
        if (rows > 5) {
            x[5 * (size_t)width + width / 2] = (double)NAN; // stays in its row
            put(&run, LF_NORM_X, x);
        }
        run_once(&run);
        for (uint32_t i = 0; i < rows; i++) {
            double *row = x + (size_t)i * width, variance;
            moments(row, width, 1, &stats[2 * i], &variance);
            stats[2 * i + 1] = 1 / sqrt(variance + (double)op.eps);
            for (uint32_t j = 0; j < width; j++)
                row[j] = (row[j] - stats[2 * i]) * stats[2 * i + 1] * gamma[j] + beta[j];
        }
        expect(&run, LF_NORM_STATS, stats, 2e-6, 1);
        expect(&run, LF_NORM_Y, x, 1e-5, 1);
        finish(&run);
    }
}

static void layer_norm_dx_is_the_formula(void **state)
{
    (void)state;
    for (size_t s = 0; s < COUNT(shapes); s++) {
        uint32_t rows = shapes[s][0], width = shapes[s][1];
        const operand operands[] = { acts(LF_LAYER_NORM_DX_X, rows, width), acts(LF_LAYER_NORM_DX_DY, rows, width),
                                     acts(LF_LAYER_NORM_DX_GAMMA, 1, width), acts(LF_LAYER_NORM_DX_STATS, rows, 2),
                                     acts(LF_LAYER_NORM_DX_DX, rows, width) };
        op_run run;
        start(&run, op_of(LF_OP_LAYER_NORM_DX, rows, width), false, operands, COUNT(operands));
        double *x = put_normal(&run, LF_LAYER_NORM_DX_X, 0, 1), *dy = put_normal(&run, LF_LAYER_NORM_DX_DY, .5, 1),
               *gamma = put_normal(&run, LF_LAYER_NORM_DX_GAMMA, 1, .5),
               *stats = put_normal(&run, LF_LAYER_NORM_DX_STATS, .5, .25);
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
        expect(&run, LF_LAYER_NORM_DX_DX, x, 1e-5, 1);
        finish(&run);
    }
}

static void check_batch_stats(uint32_t rows, uint32_t width, bool short_batch, bool training)
{
    lf_op op = op_of(LF_OP_BATCH_STATS, rows, width);
    op.eps = 1e-3f;
    op.momentum = .25f;
    op.training = training;
    const operand operands[] = {
        acts(LF_BATCH_STATS_X, rows, width),
        acts(LF_BATCH_STATS_STATS, 2, width),
        { .number = LF_BATCH_STATS_MEAN, .region = LF_REGION_STATE, .rows = 1, .cols = width },
        { .number = LF_BATCH_STATS_VARIANCE, .region = LF_REGION_STATE, .rows = 1, .cols = width }
    };
    op_run run;
    start(&run, op, short_batch, operands, COUNT(operands));
    double *x = put_normal(&run, LF_BATCH_STATS_X, 3, 2), *running_mean = put_normal(&run, LF_BATCH_STATS_MEAN, 1, 1),
           *running_variance = put_normal(&run, LF_BATCH_STATS_VARIANCE, 8, 1),
           *stats = numbers(&run, 2 * (size_t)width);
    x[width / 2] = width > 6 ? (double)NAN : x[width / 2]; // stays in its column
    put(&run, LF_BATCH_STATS_X, x);
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
    expect(&run, LF_BATCH_STATS_STATS, stats, 3e-6, 1);
    expect(&run, LF_BATCH_STATS_MEAN, running_mean, training ? 3e-6 : 0, training);
    expect(&run, LF_BATCH_STATS_VARIANCE, running_variance, training ? 3e-6 : 0, training);
    finish(&run);
}

static void batch_stats_are_the_formulas(void **state)
{
    (void)state;
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (int variant = 0; variant < 4; variant++)
            check_batch_stats(shapes[s][0], shapes[s][1], variant % 2, variant / 2);
}

static void batch_norm_is_the_formula(void **state)
{
    (void)state;
    for (size_t s = 0; s < COUNT(shapes); s++) {
        uint32_t rows = shapes[s][0], width = shapes[s][1];
        const operand operands[] = { acts(LF_NORM_X, rows, width), acts(LF_NORM_GAMMA, 1, width),
                                     acts(LF_NORM_BETA, 1, width), acts(LF_NORM_STATS, 2, width),
                                     acts(LF_NORM_Y, rows, width) };
        op_run run;
        start(&run, op_of(LF_OP_BATCH_NORM, rows, width), true, operands, COUNT(operands));
        double *x = put_normal(&run, LF_NORM_X, 3, 2), *gamma = put_normal(&run, LF_NORM_GAMMA, 1, .5),
               *beta = put_normal(&run, LF_NORM_BETA, 0, 1), *stats = put_normal(&run, LF_NORM_STATS, 1, .25);
        x[rows * width / 2] = (double)NAN; // stays where it is
        put(&run, LF_NORM_X, x);
        run_once(&run);
        for (size_t i = 0; i < (size_t)rows * width; i++) {
            size_t j = i % width;
            x[i] = (x[i] - stats[j]) * stats[width + j] * gamma[j] + beta[j];
        }
        expect(&run, LF_NORM_Y, x, 3e-6, 1);
        finish(&run);
    }
}

static void batch_norm_dx_is_the_formula(void **state)
{
    (void)state;
    for (size_t s = 0; s < COUNT(shapes); s++) {
        uint32_t rows = shapes[s][0], width = shapes[s][1];
        const operand operands[] = { acts(LF_BATCH_NORM_DX_X, rows, width),   acts(LF_BATCH_NORM_DX_DY, rows, width),
                                     acts(LF_BATCH_NORM_DX_GAMMA, 1, width),  acts(LF_BATCH_NORM_DX_STATS, 2, width),
                                     acts(LF_BATCH_NORM_DX_DGAMMA, 1, width), acts(LF_BATCH_NORM_DX_DBETA, 1, width),
                                     acts(LF_BATCH_NORM_DX_DX, rows, width) };
        op_run run;
        start(&run, op_of(LF_OP_BATCH_NORM_DX, rows, width), true, operands, COUNT(operands));
        double *x = put_normal(&run, LF_BATCH_NORM_DX_X, 0, 1), *dy = put_normal(&run, LF_BATCH_NORM_DX_DY, 0, 1),
               *gamma = put_normal(&run, LF_BATCH_NORM_DX_GAMMA, 1, .5),
               *stats = put_normal(&run, LF_BATCH_NORM_DX_STATS, 1, .25),
               *dgamma = put_normal(&run, LF_BATCH_NORM_DX_DGAMMA, 0, run.rows),
               *dbeta = put_normal(&run, LF_BATCH_NORM_DX_DBETA, 0, run.rows);
        run_once(&run);
        for (size_t i = 0; i < (size_t)rows * width; i++) {
            size_t j = i % width;
            double rstd = stats[width + j], h = (x[i] - stats[j]) * rstd;
            x[i] =
                i / width < run.rows ? gamma[j] * rstd * (dy[i] - dbeta[j] / run.rows - h * dgamma[j] / run.rows) : 0;
        }
        expect(&run, LF_BATCH_NORM_DX_DX, x, 5e-6, 1);
        finish(&run);
    }
}

static void norm_dw_is_the_formula(void **state)
{
    (void)state;
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (int by_row = 0; by_row < 2; by_row++) {
            uint32_t rows = shapes[s][0], width = shapes[s][1];
            lf_op op = op_of(LF_OP_NORM_DW, rows, width);
            op.by_row = by_row;
            const operand operands[] = { acts(LF_NORM_DW_X, rows, width), acts(LF_NORM_DW_DY, rows, width),
                                         acts(LF_NORM_DW_STATS, by_row ? rows : 2, by_row ? 2 : width),
                                         acts(LF_NORM_DW_DGAMMA, 1, width), acts(LF_NORM_DW_DBETA, 1, width) };
            op_run run;
            start(&run, op, false, operands, COUNT(operands));
            double *x = put_normal(&run, LF_NORM_DW_X, 0, 1), *dy = put_normal(&run, LF_NORM_DW_DY, 0, 1),
                   *stats = put_normal(&run, LF_NORM_DW_STATS, 1, .25), *dgamma = numbers(&run, width),
                   *dbeta = numbers(&run, width);
            run_once(&run);
            for (size_t i = 0; i < (size_t)rows * width; i++) {
                size_t j = i % width, row = i / width;
                double mean = by_row ? stats[2 * row] : stats[j], rstd = by_row ? stats[2 * row + 1] : stats[width + j];
                dgamma[j] += dy[i] * (x[i] - mean) * rstd;
                dbeta[j] += dy[i];
            }
            expect(&run, LF_NORM_DW_DGAMMA, dgamma, 1e-6, rows);
            expect(&run, LF_NORM_DW_DBETA, dbeta, 1e-6, rows);
            finish(&run);
        }
}

static void gather_rows_copies_and_clears(void **state)
{
    (void)state;
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (int short_batch = 0; short_batch < 2; short_batch++) {
            uint32_t rows = shapes[s][0], width = shapes[s][1];
            const operand operands[] = { acts(LF_GATHER_ROWS_SOURCE, RESIDENT, width),
                                         words(LF_GATHER_ROWS_ORDER, ONE_OP_POSITIONS(rows)),
                                         acts(LF_GATHER_ROWS_OUT, rows, width) };
            op_run run;
            start(&run, op_of(LF_OP_GATHER_ROWS, rows, width), short_batch, operands, COUNT(operands));
            double *source = put_normal(&run, LF_GATHER_ROWS_SOURCE, 0, 1),
                   *order = numbers(&run, ONE_OP_POSITIONS(rows)), *want = numbers(&run, (size_t)rows * width);
            source[0] = (double)NAN; // rows past the batch's are zero whatever stands there
            for (uint32_t i = 0; i < ONE_OP_POSITIONS(rows); i++)
                order[i] = (i * 7 + 3) % RESIDENT;
            put(&run, LF_GATHER_ROWS_SOURCE, source);
            put(&run, LF_GATHER_ROWS_ORDER, order);
            run_once(&run);
            for (size_t i = 0; i < (size_t)run.rows * width; i++)
                want[i] = source[(size_t)order[FIRST + i / width] * width + i % width];
            expect(&run, LF_GATHER_ROWS_OUT, want, 0, 0);
            finish(&run);
        }
}

static double log_sum_exp(const double *z, uint32_t width, double temperature)
{
    double largest = z[0], sum = 0;
    for (uint32_t j = 0; j < width; j++)
        largest = fmax(largest, z[j]);
    for (uint32_t j = 0; j < width; j++)
        sum += exp((z[j] - largest) / temperature);
    return largest / temperature + log(sum);
}

// The teacher's probabilities: some rows have zeros and numbers below the least normal one among them.
static void fill_teacher(double *p, uint32_t row, uint32_t width)
{
    double sum = 0;
    for (uint32_t j = 0; j < width; j++)
        sum += p[j] = row % 3 && j % 3 ? (j % 2 ? 0 : 1e-40) : exp((double)lf_normal(3, LF_STREAM_INIT, row, j));
    for (uint32_t j = 0; j < width; j++)
        p[j] = (float)(p[j] / sum);
}

static void check_distill(uint32_t rows, uint32_t width, bool short_batch, bool with_dz, float alpha, float temperature,
                          double scale)
{
    lf_op op = op_of(LF_OP_DISTILL, rows, width);
    op.soft_weight = alpha;
    op.temperature = temperature;
    const operand operands[] = { acts(LF_LOSS_Z, rows, width),
                                 words(LF_LOSS_TARGET, rows),
                                 { .number = LF_LOSS_METRICS,
                                   .region = LF_REGION_METRICS,
                                   .rows = ONE_OP_STEPS * rows,
                                   .cols = LF_METRIC_COUNT },
                                 acts(LF_LOSS_TEACHER, rows, width),
                                 acts(LF_LOSS_DZ, rows, width) };
    op_run run;
    start(&run, op, short_batch, operands, COUNT(operands) - !with_dz);
    snprintf(run.what + strlen(run.what), sizeof run.what - strlen(run.what), ", alpha %g, T %g, logits of %g",
             (double)alpha, (double)temperature, scale);
    double *z = put_normal(&run, LF_LOSS_Z, 0, scale), *labels = numbers(&run, rows),
           *p = numbers(&run, (size_t)rows * width), *dz = numbers(&run, (size_t)rows * width),
           *metrics = numbers(&run, (size_t)ONE_OP_STEPS * rows * LF_METRIC_COUNT);
    for (uint32_t i = 0; i < rows; i++) {
        labels[i] = (i * 7 + 1) % width;
        fill_teacher(p + (size_t)i * width, i, width);
    }
    put(&run, LF_LOSS_TARGET, labels);
    put(&run, LF_LOSS_TEACHER, p);
    run_once(&run);
    for (size_t i = 0; i < (size_t)ONE_OP_STEPS * rows * LF_METRIC_COUNT; i++)
        metrics[i] = (double)NAN; // of the steps that did not run
    double T = (double)temperature, soft = (double)alpha;
    for (uint32_t i = 0; i < rows; i++) {
        const double *zi = z + (size_t)i * width, *pi = p + (size_t)i * width;
        double *out = metrics + ((size_t)COUNTER * rows + i) * LF_METRIC_COUNT, divergence = 0;
        uint32_t label = (uint32_t)labels[i], best = 0;
        double hard_sum = log_sum_exp(zi, width, 1), soft_sum = log_sum_exp(zi, width, T);
        for (uint32_t j = 0; j < width; j++) {
            best = zi[j] > zi[best] ? j : best;
            divergence += pi[j] > 0 ? pi[j] * (log(pi[j]) - (zi[j] / T - soft_sum)) : 0;
            double slope =
                soft * T * (exp(zi[j] / T - soft_sum) - pi[j]) + (1 - soft) * (exp(zi[j] - hard_sum) - (j == label));
            dz[(size_t)i * width + j] = i < run.rows ? slope / run.rows : 0;
        }
        bool counts = i < run.rows;
        out[LF_METRIC_LOSS] = counts ? soft * T * T * divergence + (1 - soft) * (hard_sum - zi[label]) : 0;
        uint32_t rank = 0;
        for (uint32_t j = 0; j < width; j++)
            rank += zi[j] > zi[label] || (zi[j] == zi[label] && j < label);
        out[LF_METRIC_WEIGHT] = counts;
        out[LF_METRIC_LABEL] = counts ? label : 0;
        out[LF_METRIC_CLASS] = counts ? best : 0;
        out[LF_METRIC_RANK] = counts ? rank : 0;
    }
    double weight = fmax(1, T * T); // the divergence's own rounding is multiplied by it
    expect(&run, LF_LOSS_METRICS, metrics, 2e-6, weight);
    if (with_dz)
        expect(&run, LF_LOSS_DZ, dz, 2e-6, fmax(1, T) / run.rows);
    finish(&run);
}

static void distill_is_the_formula(void **state)
{
    (void)state;
    static const float alphas[] = { 0, .5f, .75f, 1 }, temperatures[] = { 1, 4, .5f };
    for (size_t s = 1; s < COUNT(shapes); s++) // one class is no choice
        for (size_t a = 0; a < COUNT(alphas); a++)
            check_distill(shapes[s][0], shapes[s][1], a % 2, a != 2, alphas[a], temperatures[(s + a) % 3], 2);
    check_distill(33, 10, true, true, .5f, 2, 1e4);
    check_distill(65, 10, true, true, 1, 20, 30);
}

int main(int argc, char **argv)
{
    lf_error err;
    device = lf_device_open(argc > 1 ? argv[1] : "vulkan:0", &err);
    if (!device) {
        printf("skipped: %s\n", err.text);
        return 77;
    }
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
        cmocka_unit_test(distill_is_the_formula),
    };
    int failures = cmocka_run_group_tests_name(device->info.id, tests, NULL, NULL);
    if (!failures)
        lf_device_close(device);
    return failures != 0;
}
