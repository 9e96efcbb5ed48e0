// Losses: of each row, its metrics, and the gradient to its logits.
#include <string.h>

#include "cpu/elementary.h"
#include "cpu/sums.h"

static real *metrics_of(const cpu_call *call, const cpu_step *step, uint32_t row)
{
    return (real *)call->at[LF_LOSS_METRICS] + (step->index * call->rows + row) * LF_METRIC_COUNT;
}

// A row past the batch's: it counts nowhere.
static void skip_row(real *metrics, real *dz, uint32_t cols)
{
    metrics[LF_METRIC_LOSS] = metrics[LF_METRIC_HIT] = 0;
    if (dz)
        memset(dz, 0, cols * sizeof *dz);
}

// The largest logit, the first of equals; and whether one of them is NaN.
static uint32_t find_best(uint32_t cols, const real *restrict z, bool *nan)
{
    uint32_t best = 0;
    *nan = false;
    for (uint32_t j = 0; j < cols; j++) {
        best = z[j] > z[best] ? j : best;
        *nan |= isnan(z[j]);
    }
    return best;
}

// loss = log Σ exp(z - max) + max - z[label]; dz = (softmax(z) - onehot(label)) / rows
static void cross_entropy_row(uint32_t cols, const real *restrict z, uint32_t label, real inv_rows, real *metrics,
                              real *restrict dz)
{
    bool nan;
    uint32_t best = find_best(cols, z, &nan);
    real max = z[best], sum = 0;
    if (dz) {
        for (uint32_t j = 0; j < cols; j++)
            dz[j] = cpu_exp(z[j] - max);
        for (uint32_t j = 0; j < cols; j++)
            sum += dz[j];
    } else {
        for (uint32_t j = 0; j < cols; j++)
            sum += cpu_exp(z[j] - max);
    }
    // A label that no logit belongs to has no likelihood.
    metrics[LF_METRIC_LOSS] = label < cols ? R(log)(sum) + (max - z[label]) : (real)NAN;
    metrics[LF_METRIC_HIT] = !nan && best == label;
    real scale = inv_rows / sum;
    for (uint32_t j = 0; dz && j < cols; j++)
        dz[j] = dz[j] * scale - (j == label ? inv_rows : 0);
}

void CPU_NAME(cross_entropy)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    cpu_tile tile = cpu_tile_of(call, block);
    const uint32_t *labels = call->at[LF_LOSS_TARGET];
    for (uint32_t i = tile.row; i < tile.row + tile.rows; i++) {
        size_t at = (size_t)i * tile.cols;
        real *metrics = metrics_of(call, step, i), *dz = call->at[LF_LOSS_DZ];
        if (dz)
            dz += at;
        if (i < step->row->rows)
            cross_entropy_row(tile.cols, (const real *)call->at[LF_LOSS_Z] + at, labels[i], step->row->inv_rows,
                              metrics, dz);
        else
            skip_row(metrics, dz, tile.cols);
    }
}

void CPU_NAME(mse)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    cpu_tile tile = cpu_tile_of(call, block);
    real scale = 2 * (real)step->row->inv_rows / (real)tile.cols;
    for (uint32_t i = tile.row; i < tile.row + tile.rows; i++) {
        size_t at = (size_t)i * tile.cols;
        const real *z = (const real *)call->at[LF_LOSS_Z] + at, *target = (const real *)call->at[LF_LOSS_TARGET] + at;
        real *metrics = metrics_of(call, step, i), *dz = call->at[LF_LOSS_DZ];
        if (dz)
            dz += at;
        if (i >= step->row->rows) {
            skip_row(metrics, dz, tile.cols);
            continue;
        }
        real sum = 0;
        for (uint32_t j = 0; j < tile.cols; j++) {
            real difference = z[j] - target[j];
            sum += difference * difference;
            if (dz)
                dz[j] = difference * scale;
        }
        metrics[LF_METRIC_LOSS] = sum / (real)tile.cols;
        metrics[LF_METRIC_HIT] = 0;
    }
}

static inline real divergence_term(real p, real log_q)
{
    return p == 0 ? 0 : p * (cpu_log(p) - log_q);
}

// loss = α T² Σ p (log p - log q) + (1 - α) cross-entropy with q = softmax(z / T); p is the teacher's, and sums to 1.
// dz = (α T (q - p) + (1 - α) (softmax(z) - onehot(label))) / rows
static void distill_row(const lf_op *op, uint32_t cols, const real *restrict z, const real *restrict p, uint32_t label,
                        real inv_rows, real *metrics, real *restrict dz)
{
    bool nan;
    uint32_t best = find_best(cols, z, &nan);
    real max = z[best], sum, soft_sum, divergence;
    real alpha = (real)op->soft_weight, temperature = (real)op->temperature, colder = 1 / temperature;
    CPU_SUM_ROW(sum, cols, j, cpu_exp(z[j] - max));
    CPU_SUM_ROW(soft_sum, cols, j, cpu_exp((z[j] - max) * colder));
    real soft_log = R(log)(soft_sum);
    CPU_SUM_ROW(divergence, cols, j, divergence_term(p[j], (z[j] - max) * colder - soft_log));
    real hard = label < cols ? R(log)(sum) + (max - z[label]) : (real)NAN;
    metrics[LF_METRIC_LOSS] = alpha * temperature * temperature * divergence + (1 - alpha) * hard;
    metrics[LF_METRIC_HIT] = !nan && best == label;
    real soft_scale = inv_rows * alpha * temperature, hard_scale = inv_rows * (1 - alpha);
    real inv_sum = 1 / sum, inv_soft = 1 / soft_sum;
    for (uint32_t j = 0; dz && j < cols; j++)
        dz[j] = soft_scale * (cpu_exp((z[j] - max) * colder) * inv_soft - p[j]) +
                hard_scale * (cpu_exp(z[j] - max) * inv_sum - (j == label ? 1 : 0));
}

void CPU_NAME(distill)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    cpu_tile tile = cpu_tile_of(call, block);
    const uint32_t *labels = call->at[LF_LOSS_TARGET];
    for (uint32_t i = tile.row; i < tile.row + tile.rows; i++) {
        size_t at = (size_t)i * tile.cols;
        real *metrics = metrics_of(call, step, i), *dz = call->at[LF_LOSS_DZ];
        if (dz)
            dz += at;
        if (i < step->row->rows)
            distill_row(&call->op, tile.cols, (const real *)call->at[LF_LOSS_Z] + at,
                        (const real *)call->at[LF_DISTILL_TEACHER] + at, labels[i], step->row->inv_rows, metrics, dz);
        else
            skip_row(metrics, dz, tile.cols);
    }
}
