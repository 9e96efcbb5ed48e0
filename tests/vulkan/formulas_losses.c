// Losses, their metrics and softened teachers against their formulas.
#include "op_run.h"

typedef struct loss_case {
    lf_op_kind kind;
    uint32_t rows, width;
    bool short_batch, no_dz, weighted, poisoned; // poisoned: NaN among the logits of a row that counts
    double scale;                                // of the logits; classes: 0 is 2, and ties among them
    float smoothing;                             // classes
    float alpha, temperature;                    // distill; value_loss has a teacher where alpha is not 0
    uint32_t value;                              // value_loss and what follows
    float delta, share;
    bool adds;
} loss_case;

static void start_loss(op_run *run, const loss_case *c, bool taught)
{
    uint32_t rows = c->rows, width = c->width;
    lf_op op = run_op(c->kind, rows, width);
    op.soft_weight = c->alpha;
    op.temperature = c->temperature;
    op.label_smoothing = c->smoothing;
    op.value = c->value;
    op.delta = c->delta;
    op.share = c->share;
    op.adds = c->adds;
    operand operands[7] = {
        run_acts(LF_LOSS_Z, rows, width),
        c->kind == LF_OP_VALUE_LOSS ? run_acts(LF_LOSS_TARGET, rows, width) : run_words(LF_LOSS_TARGET, rows),
        { .number = LF_LOSS_METRICS, .region = LF_REGION_METRICS, .rows = ONE_OP_STEPS * rows, .cols = LF_METRIC_COUNT }
    };
    size_t count = 3;
    if (!c->no_dz)
        operands[count++] = run_acts(LF_LOSS_DZ, rows, width);
    if (taught)
        operands[count++] = run_acts(LF_LOSS_TEACHER, rows, width);
    if (c->weighted)
        operands[count++] = run_acts(LF_LOSS_WEIGHTS, rows, 1);
    run_start(run, op, c->short_batch, operands, count);
    run_note(run, ", logits of %g, s %g, alpha %g, T %g, loss %u, delta %g, share %g%s%s%s", c->scale,
             (double)c->smoothing, (double)c->alpha, (double)c->temperature, c->value, (double)c->delta,
             (double)c->share, c->weighted ? ", weighted" : "", c->poisoned ? ", NaN" : "", c->adds ? ", adds" : "");
    struct lf_schedule_row row = schedule_row(&(lf_optimizer){ .lr = 1 }, FIRST, run->rows, STEP);
    row.inv_weight *= .75f; // the sum of the weights is another than the number of rows
    one_op_put_row(&run->rig, &row);
}

// NaN in the rows past the batch's, and in its second row if the case is poisoned.
static double *put_logits(op_run *run, const loss_case *c)
{
    size_t width = c->width, count = c->rows * width;
    double *z = run_put_normal(run, LF_LOSS_Z, 0, c->scale > 0 ? c->scale : 2);
    for (size_t i = 0; i < count; i++) {
        if (c->scale == 0 && c->kind != LF_OP_VALUE_LOSS && i / width % 2)
            z[i] = round(z[i]);
        if (i >= run->rows * width)
            z[i] = (double)NAN;
    }
    if (c->poisoned && run->rows > 1)
        z[width + width / 2] = (double)NAN;
    run_put(run, LF_LOSS_Z, z);
    return z;
}

// The weight of each row; some have none.
static double *put_weights(op_run *run, const loss_case *c)
{
    double *weights = run_numbers(run, c->rows);
    for (uint32_t i = 0; i < c->rows; i++)
        weights[i] = !c->weighted ? 1 : i % 7 == 3 ? 0 : .25 + i % 5 * .5;
    if (c->weighted)
        run_put(run, LF_LOSS_WEIGHTS, weights);
    return weights;
}

static double *metrics_of(const loss_case *c, double *metrics, uint32_t row)
{
    return metrics + ((size_t)COUNTER * c->rows + row) * LF_METRIC_COUNT;
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

// Label, class and rank as shaders/abi.h has them.
static void count_classes(const double *z, uint32_t width, uint32_t label, double *out)
{
    uint32_t class = 0, rank = 0;
    for (uint32_t j = 0; j < width; j++) {
        if (!isnan(z[j]) && (isnan(z[class]) || z[j] > z[class]))
            class = j;
        rank += isnan(z[j]) || isnan(z[label]) || z[j] > z[label] || (z[j] == z[label] && j < label);
    }
    out[LF_METRIC_LABEL] = label;
    out[LF_METRIC_CLASS] = class;
    out[LF_METRIC_RANK] = rank;
}

static void check_classes(const loss_case *c)
{
    uint32_t rows = c->rows, width = c->width;
    bool taught = c->kind == LF_OP_DISTILL;
    op_run run;
    start_loss(&run, c, taught);
    double *z = put_logits(&run, c), *weights = put_weights(&run, c), *labels = run_numbers(&run, rows),
           *p = run_numbers(&run, (size_t)rows * width), *dz = run_numbers(&run, (size_t)rows * width),
           *metrics = run_numbers(&run, (size_t)ONE_OP_STEPS * rows * LF_METRIC_COUNT);
    for (uint32_t i = 0; i < rows; i++) {
        labels[i] = (i * 7 + 1) % width;
        fill_teacher(p + (size_t)i * width, i, width);
    }
    run_put(&run, LF_LOSS_TARGET, labels);
    if (taught)
        run_put(&run, LF_LOSS_TEACHER, p);
    run_once(&run);
    for (size_t i = 0; i < (size_t)ONE_OP_STEPS * rows * LF_METRIC_COUNT; i++)
        metrics[i] = (double)NAN; // of the steps that did not run
    double T = taught ? (double)c->temperature : 1, soft = taught ? (double)c->alpha : 0, s = (double)c->smoothing;
    for (uint32_t i = 0; i < rows; i++) {
        const double *zi = z + (size_t)i * width, *pi = p + (size_t)i * width;
        double *out = metrics_of(c, metrics, i), divergence = 0, mean = 0;
        uint32_t label = (uint32_t)labels[i];
        if (i >= run.rows) {
            memset(out, 0, LF_METRIC_COUNT * sizeof *out);
            continue;
        }
        double hard_sum = log_sum_exp(zi, width, 1), soft_sum = log_sum_exp(zi, width, T);
        for (uint32_t j = 0; j < width; j++) {
            mean += zi[j] / width;
            divergence += pi[j] > 0 ? pi[j] * (log(pi[j]) - (zi[j] / T - soft_sum)) : 0;
            double hard = exp(zi[j] - hard_sum) - (1 - s) * (j == label) - s / width;
            double slope = soft * T * (exp(zi[j] / T - soft_sum) - pi[j]) + (1 - soft) * hard;
            dz[(size_t)i * width + j] = weights[i] * .75 / run.rows * slope;
        }
        double hard_loss = hard_sum - (1 - s) * zi[label] - s * mean;
        out[LF_METRIC_LOSS] = weights[i] * (soft * T * T * (soft > 0 ? divergence : 0) + (1 - soft) * hard_loss);
        out[LF_METRIC_WEIGHT] = weights[i];
        count_classes(zi, width, label, out);
    }
    double size = 2.25 * fmax(1, T * T); // the divergence's own rounding is multiplied by it
    run_expect(&run, LF_LOSS_METRICS, metrics, 2e-6, size * fmax(1, s * c->scale));
    if (!c->no_dz)
        run_expect(&run, LF_LOSS_DZ, dz, 2e-6, 2.25 * fmax(1, T) / run.rows);
    run_finish(&run);
}

static void cross_entropy_is_the_formula(void **state)
{
    (void)state;
    static const float smoothings[] = { 0, .125f, .9f };
    for (size_t s = 1; s < SHAPES; s++) // one class is no choice
        for (size_t a = 0; a < COUNT(smoothings); a++)
            for (unsigned variant = 0; variant < 4; variant++)
                check_classes(&(loss_case){ .kind = LF_OP_CROSS_ENTROPY,
                                            .rows = run_shapes[s][0],
                                            .width = run_shapes[s][1],
                                            .smoothing = smoothings[a],
                                            .short_batch = variant % 2,
                                            .weighted = variant / 2,
                                            .poisoned = variant == 3,
                                            .no_dz = variant == 1 });
    for (size_t a = 0; a < COUNT(smoothings); a++)
        check_classes(&(loss_case){
            .kind = LF_OP_CROSS_ENTROPY, .rows = 33, .width = 10, .smoothing = smoothings[a], .scale = 1e4 });
}

static void distill_is_the_formula(void **state)
{
    (void)state;
    static const float alphas[] = { 0, .5f, .75f, 1 }, temperatures[] = { 1, 4, .5f };
    for (size_t s = 1; s < SHAPES; s++)
        for (size_t a = 0; a < COUNT(alphas); a++)
            check_classes(&(loss_case){ .kind = LF_OP_DISTILL,
                                        .rows = run_shapes[s][0],
                                        .width = run_shapes[s][1],
                                        .short_batch = a % 2,
                                        .no_dz = a == 2,
                                        .weighted = s % 2,
                                        .smoothing = s % 3 ? 0 : .25f,
                                        .alpha = alphas[a],
                                        .temperature = temperatures[(s + a) % 3] });
    check_classes(&(loss_case){ .kind = LF_OP_DISTILL,
                                .rows = 33,
                                .width = 10,
                                .short_batch = true,
                                .alpha = .5f,
                                .temperature = 2,
                                .scale = 1e4 });
    check_classes(&(loss_case){ .kind = LF_OP_DISTILL,
                                .rows = 65,
                                .width = 10,
                                .short_batch = true,
                                .alpha = 1,
                                .temperature = 20,
                                .scale = 30 });
}

// What equal and missing logits make of class and rank, and of nothing else.
static void ranks_of_ties_and_nans(void **state)
{
    (void)state;
    enum { WIDTH = 70 }; // more than the invocations that share a row
    static const struct {
        uint32_t at[3]; // where the logits 5, 5 and NaN stand among zeros; WIDTH: nowhere
        uint32_t label, class, rank;
    } rows[] = {
        { { 3, 40, WIDTH }, 3, 3, 0 },      { { 3, 40, WIDTH }, 40, 3, 1 },    { { 3, 40, WIDTH }, 0, 3, 2 },
        { { 3, 40, WIDTH }, 69, 3, 69 },    { { 3, 40, 0 }, 3, 3, 1 },         { { 3, 40, 0 }, 0, 3, WIDTH },
        { { 35, 3, 69 }, 69, 3, WIDTH },    { { 35, 67, 69 }, 67, 35, 2 },     { { WIDTH, WIDTH, 0 }, 1, 1, 1 },
        { { WIDTH, WIDTH, 0 }, 69, 1, 69 }, { { WIDTH, WIDTH, 33 }, 0, 0, 1 },
    };
    loss_case c = { .kind = LF_OP_CROSS_ENTROPY, .rows = COUNT(rows) + 1, .width = WIDTH };
    op_run run;
    start_loss(&run, &c, false);
    double *z = run_numbers(&run, (size_t)c.rows * WIDTH), *labels = run_numbers(&run, c.rows);
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (unsigned k = 0; k < 3; k++)
            if (rows[i].at[k] < WIDTH)
                z[i * WIDTH + rows[i].at[k]] = k < 2 ? 5 : (double)NAN;
        labels[i] = rows[i].label;
    }
    for (size_t j = 0; j < WIDTH; j++)
        z[COUNT(rows) * WIDTH + j] = (double)NAN;
    run_put(&run, LF_LOSS_Z, z);
    run_put(&run, LF_LOSS_TARGET, labels);
    run_once(&run);
    double *metrics = run_get(&run, LF_LOSS_METRICS);
    for (uint32_t i = 0; i < c.rows; i++) {
        const double *got = metrics_of(&c, metrics, i);
        uint32_t class = i < COUNT(rows) ? rows[i].class : 0, rank = i < COUNT(rows) ? rows[i].rank : WIDTH;
        bool has_nan = i == COUNT(rows) || rows[i].at[2] < WIDTH;
        if (got[LF_METRIC_CLASS] != class || got[LF_METRIC_RANK] != rank || isnan(got[LF_METRIC_LOSS]) != has_nan)
            fail_msg("row %u: class %g, rank %g, loss %g instead of %u and %u", i, got[LF_METRIC_CLASS],
                     got[LF_METRIC_RANK], got[LF_METRIC_LOSS], class, rank);
    }
    run_finish(&run);
}

// The loss of one output, and its slope.
static double value_loss(const loss_case *c, double z, double target, double *slope)
{
    double d = z - target, delta = (double)c->delta;
    switch (c->value) {
    case LF_VALUE_BINARY:
        *slope = 1 / (1 + exp(-z)) - target;
        return fmax(z, 0) - z * target + log1p(exp(-fabs(z)));
    case LF_VALUE_MAE:
        *slope = isnan(d) ? d : (d > 0) - (d < 0);
        return fabs(d);
    case LF_VALUE_HUBER:
        *slope = isnan(d) ? d : fmax(-delta, fmin(delta, d));
        return fabs(d) <= delta ? d * d / 2 : delta * (fabs(d) - delta / 2);
    default:
        *slope = 2 * d;
        return d * d;
    }
}

// Values, some of them equal to the logit, which is where the slope of |d| turns; of binary cross-entropy 0, 1 or
// between.
static double *put_targets(op_run *run, const loss_case *c, const double *z)
{
    double *targets = run_put_normal(run, LF_LOSS_TARGET, 0, 2);
    for (size_t i = 0; i < (size_t)c->rows * c->width; i++)
        if (c->value == LF_VALUE_BINARY)
            targets[i] = i % 3 == 2 ? (double)lf_uniform(23, LF_STREAM_INIT, 0, i) : (double)(i % 3);
        else if (i % 13 == 5 && !isnan(z[i]))
            targets[i] = z[i];
    run_put(run, LF_LOSS_TARGET, targets);
    return targets;
}

static void check_values(const loss_case *c)
{
    uint32_t rows = c->rows, width = c->width;
    op_run run;
    start_loss(&run, c, c->alpha != 0);
    double *z = put_logits(&run, c), *weights = put_weights(&run, c), *targets = put_targets(&run, c, z),
           *dz = run_numbers(&run, (size_t)rows * width), *teacher = NULL;
    if (c->alpha != 0)
        teacher = run_put_normal(&run, LF_LOSS_TEACHER, 0, 2);
    double *metrics = run_put_normal(&run, LF_LOSS_METRICS, 0, c->adds ? 1 : (double)NAN);
    run_once(&run);
    double alpha = (double)c->alpha, share = (double)c->share;
    for (uint32_t i = 0; i < rows; i++) {
        double *out = metrics_of(c, metrics, i), sum = 0, squared = 0, absolute = 0, wrong = 0;
        if (!c->adds)
            memset(out, 0, LF_METRIC_COUNT * sizeof *out);
        if (i >= run.rows)
            continue;
        for (size_t at = (size_t)i * width; at < (size_t)(i + 1) * width; at++) {
            double slope, loss = value_loss(c, z[at], targets[at], &slope), far = teacher ? z[at] - teacher[at] : 0,
                          p = c->value == LF_VALUE_BINARY ? 1 / (1 + exp(-z[at])) : z[at];
            sum += (1 - alpha) * loss + alpha * far * far;
            squared += (p - targets[at]) * (p - targets[at]);
            absolute += fabs(p - targets[at]);
            wrong += c->value == LF_VALUE_BINARY && (z[at] > 0) != (targets[at] > .5);
            dz[at] = weights[i] * .75 / run.rows * share / width * ((1 - alpha) * slope + alpha * 2 * far);
        }
        out[LF_METRIC_LOSS] += weights[i] * share * sum / width;
        if (c->adds)
            continue;
        out[LF_METRIC_WEIGHT] = weights[i];
        out[LF_METRIC_SQUARED] = squared / width;
        out[LF_METRIC_ABSOLUTE] = absolute / width;
        out[LF_METRIC_WRONG] = wrong / width;
    }
    run_expect(&run, LF_LOSS_METRICS, metrics, 1e-5, 1); // an invocation may add up a thousand numbers
    if (!c->no_dz)
        run_expect(&run, LF_LOSS_DZ, dz, 2e-6, 4. / run.rows / width);
    run_finish(&run);
}

static void value_losses_are_the_formulas(void **state)
{
    (void)state;
    static const float alphas[] = { 0, .75f, 1 };
    for (size_t s = 0; s < SHAPES; s++)
        for (uint32_t value = 0; value < LF_VALUE_COUNT; value++)
            for (unsigned variant = 0; variant < 12; variant++) {
                loss_case c = { .kind = LF_OP_VALUE_LOSS, .rows = run_shapes[s][0], .width = run_shapes[s][1] };
                c.value = value;
                c.alpha = alphas[variant % 3];
                c.short_batch = variant % 2;
                c.weighted = variant / 2 % 2;
                c.poisoned = variant == 3 || variant == 10;
                c.no_dz = variant == 4;
                c.adds = variant >= 6;
                c.delta = variant % 2 ? 1.25f : .5f;
                c.share = variant < 3 ? 1 : .375f;
                check_values(&c);
            }
}

static void value_losses_are_stable_for_huge_logits(void **state)
{
    (void)state;
    for (uint32_t value = 0; value < LF_VALUE_COUNT; value++)
        check_values(&(loss_case){
            .kind = LF_OP_VALUE_LOSS, .rows = 33, .width = 10, .value = value, .delta = 1, .share = 1, .scale = 1e4 });
}

static void check_soften(uint32_t rows, uint32_t width, float temperature, float share, bool adds, double scale)
{
    lf_op op = run_op(LF_OP_SOFTEN, rows, width);
    op.temperature = temperature;
    op.share = share;
    op.adds = adds;
    const operand operands[] = { run_acts(LF_SOFTEN_Z, rows, width), run_acts(LF_SOFTEN_OUT, rows, width) };
    op_run run;
    run_start(&run, op, false, operands, COUNT(operands));
    run_note(&run, ", temperature %g, share %g, logits of %g%s", (double)temperature, (double)share, scale,
             adds ? ", adds" : "");
    double *z = run_put_normal(&run, LF_SOFTEN_Z, scale > 100 ? -4 * scale : 0, scale); // far below 0, all of them
    if (rows > 2) {
        z[2 * width - 1] = (double)NAN; // stays in its row
        run_put(&run, LF_SOFTEN_Z, z);
    }
    double *want = run_put_normal(&run, LF_SOFTEN_OUT, 0, adds ? 1 : (double)NAN);
    run_once(&run);
    for (uint32_t i = 0; i < rows; i++) {
        const double *zi = z + (size_t)i * width;
        double sum = temperature > 0 ? log_sum_exp(zi, width, (double)temperature) : 0;
        for (uint32_t j = 0; j < width; j++) {
            double value = temperature > 0 ? exp(zi[j] / (double)temperature - sum) : zi[j];
            double *out = &want[(size_t)i * width + j];
            *out = (adds ? *out : 0) + (double)share * value;
        }
    }
    run_expect(&run, LF_SOFTEN_OUT, want, 2e-6, 1);
    run_finish(&run);
}

static void soften_is_the_formula(void **state)
{
    (void)state;
    static const float temperatures[] = { 0, 1, 4, .5f };
    for (size_t s = 0; s < SHAPES; s++)
        for (size_t t = 0; t < COUNT(temperatures); t++)
            for (int adds = 0; adds < 2; adds++)
                check_soften(run_shapes[s][0], run_shapes[s][1], temperatures[t], adds ? .25f : 1, adds, 2);
    check_soften(33, 10, 2, 1, false, 1e4);
}

int run_loss_formulas(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cross_entropy_is_the_formula),
        cmocka_unit_test(distill_is_the_formula),
        cmocka_unit_test(ranks_of_ties_and_nans),
        cmocka_unit_test(value_losses_are_the_formulas),
        cmocka_unit_test(value_losses_are_stable_for_huge_logits),
        cmocka_unit_test(soften_is_the_formula),
    };
    return cmocka_run_group_tests_name("losses", tests, NULL, NULL);
}
