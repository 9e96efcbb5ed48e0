// Losses: of each row, its metrics, and the gradient to its logits. And teachers' outputs, softened for them.
#include <string.h>

#include "cpu/elementary.h"
#include "cpu/sums.h"

// A row of a loss's operands.
typedef struct loss_row {
    uint32_t cols;
    const real *z, *teacher; // teacher: NULL without one
    real *metrics, *dz;      // dz: NULL where no gradient is asked for
    real weight, scale;      // scale: of the row's gradient
    bool counts;             // it is one of the batch's
} loss_row;

static loss_row loss_row_at(const cpu_call *call, const cpu_step *step, uint32_t row)
{
    size_t at = (size_t)row * call->cols, measured = step->index * call->op.batch + call->op.row + row;
    const real *teacher = call->at[LF_LOSS_TEACHER], *weights = call->at[LF_LOSS_WEIGHTS];
    real *dz = call->at[LF_LOSS_DZ], weight = weights ? weights[row] : 1;
    return (loss_row){ .cols = call->cols,
                       .z = (const real *)call->at[LF_LOSS_Z] + at,
                       .teacher = teacher ? teacher + at : NULL,
                       .metrics = (real *)call->at[LF_LOSS_METRICS] + measured * LF_METRIC_COUNT,
                       .dz = dz ? dz + at : NULL,
                       .weight = weight,
                       .scale = weight * (real)step->row->inv_weight,
                       .counts = row < cpu_valid_rows(call, step) };
}

// A row past the batch's: it counts nowhere.
static void skip_row(const loss_row *row, bool adds)
{
    if (!adds)
        memset(row->metrics, 0, LF_METRIC_COUNT * sizeof *row->metrics);
    if (row->dz)
        memset(row->dz, 0, row->cols * sizeof *row->dz);
}

// The largest logit, the first of equals; NaNs are passed over.
static uint32_t find_best(uint32_t cols, const real *restrict z)
{
    uint32_t best = 0;
    real most = -(real)INFINITY;
    for (uint32_t j = 0; j < cols; j++) {
        best = z[j] > most ? j : best;
        most = z[j] > most ? z[j] : most;
    }
    return best;
}

// How many logits beat the label's; a label that no logit belongs to is beaten by all.
static uint32_t rank_of(uint32_t cols, const real *restrict z, uint32_t label)
{
    if (label >= cols)
        return cols;
    uint32_t rank = 0;
    real truth = z[label];
    for (uint32_t j = 0; j < label; j++)
        rank += z[j] < truth ? 0 : 1;
    for (uint32_t j = label; j < cols; j++)
        rank += z[j] <= truth ? 0 : 1;
    return rank;
}

static void store_class_metrics(const loss_row *row, uint32_t label, uint32_t best, real loss)
{
    row->metrics[LF_METRIC_LOSS] = row->weight * loss;
    row->metrics[LF_METRIC_WEIGHT] = row->weight;
    row->metrics[LF_METRIC_LABEL] = (real)label;
    row->metrics[LF_METRIC_CLASS] = (real)best;
    row->metrics[LF_METRIC_RANK] = (real)rank_of(row->cols, row->z, label);
}

// max - (1 - s) z[label] - s mean(z): what the cross-entropy adds to the logarithm of the sum of exp(z - max).
static real below_max(const loss_row *row, real max, uint32_t label, real smoothing)
{
    const real *restrict z = row->z;
    if (label >= row->cols)
        return (real)NAN; // a label that no logit belongs to has no likelihood
    if (smoothing == 0)
        return max - z[label];
    real sum;
    CPU_SUM_ROW(sum, row->cols, j, max - z[j]);
    return (1 - smoothing) * (max - z[label]) + smoothing * (sum / (real)row->cols);
}

// loss = log Σ exp(z - max) + max - (1 - s) z[label] - s mean(z)
// dz = scale · (softmax(z) - (1 - s) onehot(label) - s / outputs)
static void cross_entropy_row(const lf_op *op, const loss_row *row, uint32_t label)
{
    uint32_t cols = row->cols, best = find_best(cols, row->z);
    const real *restrict z = row->z;
    real *restrict dz = row->dz;
    real max = z[best], sum = 0, smoothing = op->label_smoothing;
    if (dz) {
        for (uint32_t j = 0; j < cols; j++)
            dz[j] = cpu_exp(z[j] - max);
        for (uint32_t j = 0; j < cols; j++)
            sum += dz[j];
    } else {
        for (uint32_t j = 0; j < cols; j++)
            sum += cpu_exp(z[j] - max);
    }
    store_class_metrics(row, label, best, R(log)(sum) + below_max(row, max, label, smoothing));
    real scale = row->scale / sum, of_all = row->scale * (smoothing / (real)cols);
    real of_label = of_all + row->scale * (1 - smoothing);
    for (uint32_t j = 0; dz && j < cols; j++)
        dz[j] = dz[j] * scale - (j == label ? of_label : of_all);
}

void CPU_NAME(cross_entropy)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    cpu_tile tile = cpu_tile_of(call, block);
    const uint32_t *labels = call->at[LF_LOSS_TARGET];
    for (uint32_t i = tile.row; i < tile.row + tile.rows; i++) {
        loss_row row = loss_row_at(call, step, i);
        if (row.counts)
            cross_entropy_row(&call->op, &row, labels[i]);
        else
            skip_row(&row, false);
    }
}

// Runs `statement` with `kind` the constant that equals `value`.
#define FOR_VALUE(value, statement)                                                                                    \
    switch (value) {                                                                                                   \
        VALUE_CASE(LF_VALUE_BINARY, statement)                                                                         \
        VALUE_CASE(LF_VALUE_MSE, statement)                                                                            \
        VALUE_CASE(LF_VALUE_MAE, statement)                                                                            \
        VALUE_CASE(LF_VALUE_HUBER, statement)                                                                          \
    }
#define VALUE_CASE(number, statement)                                                                                  \
    case number: {                                                                                                     \
        enum { kind = number };                                                                                        \
        statement;                                                                                                     \
        break;                                                                                                         \
    }
_Static_assert(LF_VALUE_COUNT == 4, "a case for each loss of values");

static inline real value_loss(unsigned kind, real delta, real z, real target)
{
    real d = z - target, distance = R(fabs)(d);
    switch (kind) {
    case LF_VALUE_BINARY:
        return ((z < 0 ? 0 : z) - z * target) + cpu_log1p(cpu_exp(-R(fabs)(z)));
    case LF_VALUE_MAE:
        return distance;
    case LF_VALUE_HUBER:
        return distance > delta ? delta * (distance - (real)0.5 * delta) : (real)0.5 * (d * d);
    default:
        return d * d;
    }
}

static inline real value_slope(unsigned kind, real delta, real z, real target)
{
    real d = z - target;
    switch (kind) {
    case LF_VALUE_BINARY:
        return cpu_sigmoid(z) - target;
    case LF_VALUE_MAE:
        return d > 0 ? 1 : d < 0 ? -1 : d; // 0 of 0, NaN of NaN
    case LF_VALUE_HUBER:
        return d > delta ? delta : d < -delta ? -delta : d;
    default:
        return 2 * d;
    }
}

static inline real value_prediction(unsigned kind, real z)
{
    return kind == LF_VALUE_BINARY ? cpu_sigmoid(z) : z;
}

static inline real square(real x)
{
    return x * x;
}

// loss = share · mean of (1 - a) l(z, target) + a (z - teacher)²; dz = scale · its derivative
static inline void value_row(unsigned kind, const lf_op *op, const loss_row *row, const real *restrict target)
{
    uint32_t cols = row->cols;
    const real *restrict z = row->z, *restrict teacher = row->teacher;
    real *restrict dz = row->dz, *restrict metrics = row->metrics;
    real delta = op->delta, share = (real)op->share / (real)cols, soft = teacher ? op->soft_weight : 0, hard = 1 - soft;
    real slope = row->scale * share, sum, soft_sum = 0;
    CPU_SUM_ROW(sum, cols, j, value_loss(kind, delta, z[j], target[j]));
    if (teacher)
        CPU_SUM_ROW(soft_sum, cols, j, square(z[j] - teacher[j]));
    real loss = row->weight * (share * (teacher ? hard * sum + soft * soft_sum : sum));
    if (dz && teacher) {
        for (uint32_t j = 0; j < cols; j++)
            dz[j] = slope * (hard * value_slope(kind, delta, z[j], target[j]) + soft * (2 * (z[j] - teacher[j])));
    } else if (dz) {
        for (uint32_t j = 0; j < cols; j++)
            dz[j] = slope * value_slope(kind, delta, z[j], target[j]);
    }
    if (op->adds) {
        metrics[LF_METRIC_LOSS] += loss;
        return;
    }
    real squared, absolute;
    uint32_t wrong = 0;
    CPU_SUM_ROW(squared, cols, j, square(value_prediction(kind, z[j]) - target[j]));
    CPU_SUM_ROW(absolute, cols, j, R(fabs)(value_prediction(kind, z[j]) - target[j]));
    for (uint32_t j = 0; kind == LF_VALUE_BINARY && j < cols; j++)
        wrong += (z[j] > 0) != (target[j] > (real)0.5);
    metrics[LF_METRIC_LOSS] = loss;
    metrics[LF_METRIC_WEIGHT] = row->weight;
    metrics[LF_METRIC_SQUARED] = squared / (real)cols;
    metrics[LF_METRIC_ABSOLUTE] = absolute / (real)cols;
    metrics[LF_METRIC_WRONG] = (real)wrong / (real)cols;
}

void CPU_NAME(value_loss)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    cpu_tile tile = cpu_tile_of(call, block);
    for (uint32_t i = tile.row; i < tile.row + tile.rows; i++) {
        loss_row row = loss_row_at(call, step, i);
        const real *target = (const real *)call->at[LF_LOSS_TARGET] + (size_t)i * tile.cols;
        if (row.counts)
            FOR_VALUE(call->op.value, value_row(kind, &call->op, &row, target))
        else
            skip_row(&row, call->op.adds);
    }
}

static inline real divergence_term(real p, real log_q)
{
    return p == 0 ? 0 : p * (cpu_log(p) - log_q);
}

// loss = α T² Σ p (log p - log q) + (1 - α) cross-entropy with q = softmax(z / T); p is the teacher's, and sums to 1.
// dz = scale · (α T (q - p) + (1 - α) (softmax(z) - (1 - s) onehot(label) - s / outputs))
static void distill_row(const lf_op *op, const loss_row *row, uint32_t label)
{
    uint32_t cols = row->cols, best = find_best(cols, row->z);
    const real *restrict z = row->z, *restrict p = row->teacher;
    real *restrict dz = row->dz;
    real max = z[best], sum, soft_sum, divergence;
    real alpha = op->soft_weight, temperature = op->temperature, colder = 1 / temperature;
    real smoothing = op->label_smoothing;
    CPU_SUM_ROW(sum, cols, j, cpu_exp(z[j] - max));
    CPU_SUM_ROW(soft_sum, cols, j, cpu_exp((z[j] - max) * colder));
    real soft_log = R(log)(soft_sum);
    CPU_SUM_ROW(divergence, cols, j, divergence_term(p[j], (z[j] - max) * colder - soft_log));
    real hard = R(log)(sum) + below_max(row, max, label, smoothing);
    store_class_metrics(row, label, best, alpha * temperature * temperature * divergence + (1 - alpha) * hard);
    real soft_scale = row->scale * alpha * temperature, hard_scale = row->scale * (1 - alpha);
    real inv_sum = 1 / sum, inv_soft = 1 / soft_sum, of_all = smoothing / (real)cols, of_label = of_all + 1 - smoothing;
    for (uint32_t j = 0; dz && j < cols; j++)
        dz[j] = soft_scale * (cpu_exp((z[j] - max) * colder) * inv_soft - p[j]) +
                hard_scale * (cpu_exp(z[j] - max) * inv_sum - (j == label ? of_label : of_all));
}

void CPU_NAME(distill)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    cpu_tile tile = cpu_tile_of(call, block);
    const uint32_t *labels = call->at[LF_LOSS_TARGET];
    for (uint32_t i = tile.row; i < tile.row + tile.rows; i++) {
        loss_row row = loss_row_at(call, step, i);
        if (row.counts)
            distill_row(&call->op, &row, labels[i]);
        else
            skip_row(&row, false);
    }
}

static inline real softened(bool soft, real z, real max, real colder)
{
    return soft ? cpu_exp((z - max) * colder) : z;
}

static inline void soften_row(bool soft, const lf_op *op, uint32_t cols, const real *restrict z, real *restrict out)
{
    real share = op->share, max = 0, colder = 0, sum;
    if (soft) {
        max = z[find_best(cols, z)];
        colder = 1 / (real)op->temperature;
        CPU_SUM_ROW(sum, cols, j, cpu_exp((z[j] - max) * colder));
        share /= sum;
    }
    if (op->adds) {
        for (uint32_t j = 0; j < cols; j++)
            out[j] += share * softened(soft, z[j], max, colder);
    } else {
        for (uint32_t j = 0; j < cols; j++)
            out[j] = share * softened(soft, z[j], max, colder);
    }
}

// out = (adds: out) + share softmax(z / T), or share z where T is 0; all rows, valid or not
void CPU_NAME(soften)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    (void)step;
    cpu_tile tile = cpu_tile_of(call, block);
    for (uint32_t i = tile.row; i < tile.row + tile.rows; i++) {
        size_t at = (size_t)i * tile.cols;
        const real *z = (const real *)call->at[LF_SOFTEN_Z] + at;
        real *out = (real *)call->at[LF_SOFTEN_OUT] + at;
        if (call->op.temperature > 0)
            soften_row(true, &call->op, tile.cols, z, out);
        else
            soften_row(false, &call->op, tile.cols, z, out);
    }
}
