// Layer norm and batch norm: their statistics, themselves, and their gradients. xhat stands for (x - mean) · rstd.
#include "cpu/sums.h"

// stats (batch, 2): mean and rstd of each row. The variance is of the squared deviations, in a pass of its own.
void CPU_NAME(layer_norm)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    (void)step;
    cpu_tile tile = cpu_tile_of(call, block);
    const real *restrict gamma = call->at[LF_NORM_GAMMA], *restrict beta = call->at[LF_NORM_BETA];
    real count = (real)tile.cols, eps = (real)call->op.eps;
    for (uint32_t i = tile.row; i < tile.row + tile.rows; i++) {
        const real *restrict x = (const real *)call->at[LF_NORM_X] + (size_t)i * tile.cols;
        real *restrict y = (real *)call->at[LF_NORM_Y] + (size_t)i * tile.cols;
        real *stats = (real *)call->at[LF_NORM_STATS] + (size_t)i * 2, sum, squares;
        CPU_SUM_ROW(sum, tile.cols, j, x[j]);
        real mean = sum / count;
        CPU_SUM_ROW(squares, tile.cols, j, (x[j] - mean) * (x[j] - mean));
        real rstd = 1 / R(sqrt)(squares / count + eps);
        for (uint32_t j = 0; j < tile.cols; j++)
            y[j] = (x[j] - mean) * rstd * gamma[j] + beta[j];
        stats[0] = mean;
        stats[1] = rstd;
    }
}

// dx = rstd · (g - mean(g) - xhat · mean(g · xhat)) with g = dy · gamma
void CPU_NAME(layer_norm_dx)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    (void)step;
    cpu_tile tile = cpu_tile_of(call, block);
    const real *restrict gamma = call->at[LF_LAYER_NORM_DX_GAMMA];
    real count = (real)tile.cols;
    for (uint32_t i = tile.row; i < tile.row + tile.rows; i++) {
        size_t at = (size_t)i * tile.cols;
        const real *restrict x = (const real *)call->at[LF_LAYER_NORM_DX_X] + at;
        const real *restrict dy = (const real *)call->at[LF_LAYER_NORM_DX_DY] + at;
        const real *stats = (const real *)call->at[LF_LAYER_NORM_DX_STATS] + (size_t)i * 2;
        real *restrict dx = (real *)call->at[LF_LAYER_NORM_DX_DX] + at;
        real mean = stats[0], rstd = stats[1], sum, dot;
        CPU_SUM_ROW(sum, tile.cols, j, dy[j] * gamma[j]);
        CPU_SUM_ROW(dot, tile.cols, j, dy[j] * gamma[j] * ((x[j] - mean) * rstd));
        real mean_g = sum / count, mean_dot = dot / count;
        for (uint32_t j = 0; j < tile.cols; j++)
            dx[j] = rstd * (dy[j] * gamma[j] - mean_g - (x[j] - mean) * rstd * mean_dot);
    }
}

// What makes a variance of so many rows the unbiased estimate, of which one row has none.
static real unbiased_of(uint32_t rows)
{
    return rows > 1 ? (real)rows / (real)(rows - 1) : 1;
}

static inline void move_running(real *running, real momentum, real now)
{
    *running = (1 - momentum) * *running + momentum * now;
}

// stats (2, width) from the batch's first `rows` rows; the running ones move towards them, the variance as the unbiased
// estimate.
static void stats_of_batch(const cpu_call *call, const cpu_tile *tile, uint32_t rows, real *restrict mean,
                           real *restrict rstd)
{
    size_t width = call->cols;
    const real *restrict x = (const real *)call->at[LF_BATCH_STATS_X] + tile->col;
    real *restrict running_mean = (real *)call->at[LF_BATCH_STATS_MEAN] + tile->col;
    real *restrict running_variance = (real *)call->at[LF_BATCH_STATS_VARIANCE] + tile->col;
    real count = (real)rows, unbiased = unbiased_of(rows), momentum = call->op.momentum, eps = call->op.eps;
    CPU_SUM_COLUMNS(mean, rows, tile->cols, i, j, x[i * width + j])
    for (uint32_t j = 0; j < tile->cols; j++)
        mean[j] /= count;
    CPU_SUM_COLUMNS(rstd, rows, tile->cols, i, j, (x[i * width + j] - mean[j]) * (x[i * width + j] - mean[j]))
    for (uint32_t j = 0; j < tile->cols; j++) {
        real variance = rstd[j] / count; // rstd holds the squares until here
        rstd[j] = 1 / R(sqrt)(variance + eps);
        move_running(&running_mean[j], momentum, mean[j]);
        move_running(&running_variance[j], momentum, variance * unbiased);
    }
}

void CPU_NAME(batch_stats)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    cpu_tile tile = cpu_tile_of(call, block);
    real *mean = (real *)call->at[LF_BATCH_STATS_STATS] + tile.col, *rstd = mean + call->cols;
    if (call->op.training) {
        stats_of_batch(call, &tile, step->row->rows, mean, rstd);
        return;
    }
    const real *running_mean = (const real *)call->at[LF_BATCH_STATS_MEAN] + tile.col;
    const real *running_variance = (const real *)call->at[LF_BATCH_STATS_VARIANCE] + tile.col;
    for (uint32_t j = 0; j < tile.cols; j++) {
        mean[j] = running_mean[j];
        rstd[j] = 1 / R(sqrt)(running_variance[j] + (real)call->op.eps);
    }
}

// Over the rows of a shard that are the batch's: of x, or with `sum` of (x - mean)².
void CPU_NAME(column_sums)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    cpu_tile tile = cpu_tile_of(call, block);
    size_t width = call->cols;
    uint32_t rows = cpu_valid_rows(call, step);
    const real *restrict x = (const real *)call->at[LF_COLUMN_SUMS_X] + tile.col;
    const real *sum = call->at[LF_COLUMN_SUMS_SUM];
    real *out = (real *)call->at[LF_COLUMN_SUMS_OUT] + tile.col;
    if (!sum) {
        CPU_SUM_COLUMNS(out, rows, tile.cols, i, j, x[i * width + j])
        return;
    }
    for (uint32_t j = 0; j < tile.cols; j++)
        out[j] = sum[tile.col + j] / (real)step->row->rows; // the mean stands there until its column's sum is stored
    CPU_SUM_COLUMNS(out, rows, tile.cols, i, j, (x[i * width + j] - out[j]) * (x[i * width + j] - out[j]))
}

// What batch_stats makes of such sums over the whole batch; stats and the running ones are there or not.
void CPU_NAME(batch_totals)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    cpu_tile tile = cpu_tile_of(call, block);
    const real *sum = (const real *)call->at[LF_BATCH_TOTALS_SUM] + tile.col;
    const real *squares = (const real *)call->at[LF_BATCH_TOTALS_SQUARES] + tile.col;
    real *stats = call->at[LF_BATCH_TOTALS_STATS], *running_mean = call->at[LF_BATCH_TOTALS_MEAN];
    real *running_variance = call->at[LF_BATCH_TOTALS_VARIANCE];
    uint32_t rows = step->row->rows;
    real count = (real)rows, unbiased = unbiased_of(rows), momentum = call->op.momentum, eps = call->op.eps;
    for (size_t j = 0; j < tile.cols; j++) {
        real mean = sum[j] / count, variance = squares[j] / count;
        if (stats) {
            stats[tile.col + j] = mean;
            stats[call->cols + tile.col + j] = 1 / R(sqrt)(variance + eps);
        }
        if (running_mean) {
            move_running(&running_mean[tile.col + j], momentum, mean);
            move_running(&running_variance[tile.col + j], momentum, variance * unbiased);
        }
    }
}

void CPU_NAME(batch_norm)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    (void)step;
    cpu_tile tile = cpu_tile_of(call, block);
    const real *restrict gamma = call->at[LF_NORM_GAMMA], *restrict beta = call->at[LF_NORM_BETA];
    const real *restrict mean = call->at[LF_NORM_STATS], *restrict rstd = mean + tile.cols;
    for (uint32_t i = tile.row; i < tile.row + tile.rows; i++) {
        const real *restrict x = (const real *)call->at[LF_NORM_X] + (size_t)i * tile.cols;
        real *restrict y = (real *)call->at[LF_NORM_Y] + (size_t)i * tile.cols;
        for (uint32_t j = 0; j < tile.cols; j++)
            y[j] = (x[j] - mean[j]) * rstd[j] * gamma[j] + beta[j];
    }
}

// dgamma = Σ dy · xhat, dbeta = Σ dy, over the rows of the batch: those past its end have dy 0.
void CPU_NAME(norm_dw)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    (void)step;
    cpu_tile tile = cpu_tile_of(call, block);
    size_t width = call->cols;
    const real *restrict x = (const real *)call->at[LF_NORM_DW_X] + tile.col;
    const real *restrict dy = (const real *)call->at[LF_NORM_DW_DY] + tile.col;
    const real *restrict stats = call->at[LF_NORM_DW_STATS];
    real *dgamma = (real *)call->at[LF_NORM_DW_DGAMMA] + tile.col;
    if (call->op.by_row) {
        CPU_SUM_COLUMNS(dgamma, call->op.rows, tile.cols, i, j,
                        dy[i * width + j] * ((x[i * width + j] - stats[2 * i]) * stats[2 * i + 1]))
    } else {
        const real *restrict mean = stats + tile.col, *restrict rstd = mean + width;
        CPU_SUM_COLUMNS(dgamma, call->op.rows, tile.cols, i, j,
                        dy[i * width + j] * ((x[i * width + j] - mean[j]) * rstd[j]))
    }
    real *dbeta = (real *)call->at[LF_NORM_DW_DBETA] + tile.col;
    CPU_SUM_COLUMNS(dbeta, call->op.rows, tile.cols, i, j, dy[i * width + j])
}

// dx = gamma · rstd · (dy - dbeta / rows - xhat · dgamma / rows); a row past the batch's moves no statistics.
void CPU_NAME(batch_norm_dx)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    cpu_tile tile = cpu_tile_of(call, block);
    const real *restrict gamma = call->at[LF_BATCH_NORM_DX_GAMMA];
    const real *restrict mean = call->at[LF_BATCH_NORM_DX_STATS], *restrict rstd = mean + tile.cols;
    const real *restrict dgamma = call->at[LF_BATCH_NORM_DX_DGAMMA], *restrict dbeta = call->at[LF_BATCH_NORM_DX_DBETA];
    real inv_rows = 1 / (real)step->row->rows;
    uint32_t valid_rows = cpu_valid_rows(call, step);
    for (uint32_t i = tile.row; i < tile.row + tile.rows; i++) {
        size_t at = (size_t)i * tile.cols;
        const real *restrict x = (const real *)call->at[LF_BATCH_NORM_DX_X] + at;
        const real *restrict dy = (const real *)call->at[LF_BATCH_NORM_DX_DY] + at;
        real *restrict dx = (real *)call->at[LF_BATCH_NORM_DX_DX] + at;
        bool valid = i < valid_rows;
        for (uint32_t j = 0; valid && j < tile.cols; j++) {
            real xhat = (x[j] - mean[j]) * rstd[j];
            dx[j] = gamma[j] * rstd[j] * (dy[j] - dbeta[j] * inv_rows - xhat * (dgamma[j] * inv_rows));
        }
        for (uint32_t j = 0; !valid && j < tile.cols; j++)
            dx[j] = 0;
    }
}
