// Operations that sweep over elements: gathers, activations that stand alone, dropout, sums. And the table of all
// kernels.
#include <string.h>

#include "core/random.h"
#include "cpu/activation.h"
#include "cpu/multiply.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

// x = stored · scale + offset, for one row of `cols` elements of C type `type`.
#define CONVERT(number, type)                                                                                          \
    case number: {                                                                                                     \
        const type *restrict from = (const type *)data + start;                                                        \
        for (uint32_t j = 0; j < cols; j++)                                                                            \
            x[j] = (real)from[j] * scale[j] + offset[j];                                                               \
        break;                                                                                                         \
    }

static void convert_row(lf_dtype stored, const void *data, size_t start, uint32_t cols, const float *restrict scale,
                        const float *restrict offset, real *restrict x)
{
    switch (stored) {
        CONVERT(LF_U8, uint8_t)
        CONVERT(LF_I8, int8_t)
        CONVERT(LF_U16, uint16_t)
        CONVERT(LF_I16, int16_t)
        CONVERT(LF_U32, uint32_t)
        CONVERT(LF_I32, int32_t)
        CONVERT(LF_F32, float)
        CONVERT(LF_F64, double)
    case LF_DTYPE_COUNT:
        break;
    }
}

// The target of resident row `from` becomes row `to` of the batch.
static void copy_target(const cpu_call *call, size_t from, size_t to)
{
    size_t cols = call->target_cols;
    if (call->target == LF_U32) {
        memcpy((uint32_t *)call->at[LF_GATHER_Y] + to * cols,
               (const uint32_t *)call->at[LF_GATHER_TARGETS] + from * cols, cols * sizeof(uint32_t));
    } else {
        real *y = (real *)call->at[LF_GATHER_Y] + to * cols;
        const float *target = (const float *)call->at[LF_GATHER_TARGETS] + from * cols;
        for (size_t j = 0; j < cols; j++)
            y[j] = target[j];
    }
}

// A row of x past the batch's last one, and its target.
static void clear_row(const cpu_call *call, size_t row)
{
    size_t target_bytes = call->target_cols * (call->target == LF_U32 ? sizeof(uint32_t) : sizeof(real));
    memset((real *)call->at[LF_GATHER_X] + row * call->cols, 0, call->cols * sizeof(real));
    if (call->at[LF_GATHER_Y])
        memset((char *)call->at[LF_GATHER_Y] + row * target_bytes, 0, target_bytes);
}

// Asks for the row of data that stands at `position` of the next step, which comes from anywhere in memory.
static void prefetch_row(const cpu_call *call, const cpu_step *step, uint32_t row)
{
    const struct lf_schedule_row *next = step->row + 1;
    if (!step->has_next || row >= next->rows)
        return;
    size_t from = ((const uint32_t *)call->at[LF_GATHER_ORDER])[next->first + row];
    size_t bytes = call->cols * lf_dtype_size(call->stored);
    const char *data = (const char *)call->at[LF_GATHER_DATA] + from * bytes;
    for (size_t at = 0; at < bytes && at < 4096; at += 64)
        __builtin_prefetch(data + at);
}

// Columns `col` … col + cols - 1 of row `i` of x: stored row `from` of the data.
static void convert_part(const cpu_call *call, size_t from, uint32_t col, uint32_t cols, real *x)
{
    const float *scale = (const float *)call->at[LF_GATHER_SCALING] + col;
    convert_row(call->stored, call->at[LF_GATHER_DATA], from * call->cols + col, cols, scale, scale + call->cols, x);
}

#if CPU_MULTIPLIES
// Some chunks at a time, from a buffer that stays in the nearest cache.
static void list_row(const cpu_call *call, size_t from, uint32_t i, bool valid)
{
    enum { CHUNKS = 16 };
    real x[CHUNKS * CPU_CHUNK];
    for (uint32_t chunk = 0; chunk < call->sparse->chunks; chunk += CHUNKS) {
        uint32_t col = chunk * CPU_CHUNK, rest = call->cols - col, cols = rest < COUNT(x) ? rest : COUNT(x);
        if (valid)
            convert_part(call, from, col, cols, x);
        CPU_NAME(list)(call->sparse, i, chunk, valid ? x : NULL, cols);
    }
}

static uint32_t count_elements(uint32_t count, const real *x)
{
    uint32_t n = 0;
    for (uint32_t j = 0; j < count; j++)
        n += x[j] != 0;
    return n;
}
#endif

static void gather_row(const cpu_call *call, size_t from, uint32_t i, bool valid)
{
    if (!valid)
        clear_row(call, i);
    else if (call->at[LF_GATHER_Y])
        copy_target(call, from, i);
#if CPU_MULTIPLIES
    if (call->sparse && call->sparse->on) {
        list_row(call, from, i, valid);
        return;
    }
#endif
    real *x = (real *)call->at[LF_GATHER_X] + (size_t)i * call->cols;
    if (valid)
        convert_part(call, from, 0, call->cols, x);
#if CPU_MULTIPLIES
    if (call->sparse && call->sparse->counts)
        cpu_sparse_count(call->sparse, i, count_elements(call->cols, x));
#endif
}

void CPU_NAME(gather)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    cpu_tile tile = cpu_tile_of(call, block);
    const uint32_t *order = (const uint32_t *)call->at[LF_GATHER_ORDER] + step->row->first;
    uint32_t valid = cpu_valid_rows(call, step);
    for (uint32_t i = tile.row; i < tile.row + tile.rows; i++) {
        gather_row(call, i < valid ? order[call->op.row + i] : 0, i, i < valid);
        prefetch_row(call, step, call->op.row + i);
    }
}

static inline void activate(unsigned kind, real alpha, uint32_t count, const real *restrict x, real *restrict y)
{
    for (uint32_t j = 0; j < count; j++)
        y[j] = cpu_activate(kind, alpha, x[j]);
}

void CPU_NAME(activation)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    (void)step;
    cpu_tile tile = cpu_tile_of(call, block);
    for (uint32_t i = tile.row; i < tile.row + tile.rows; i++) {
        const real *x = (const real *)call->at[LF_ACTIVATION_X] + (size_t)i * tile.cols;
        real *y = (real *)call->at[LF_ACTIVATION_Y] + (size_t)i * tile.cols;
        CPU_FOR_ACTIVATION(call->op.activation, activate(kind, (real)call->op.alpha, tile.cols, x, y))
    }
}

static inline void activate_dx(unsigned kind, real alpha, uint32_t count, const real *restrict dy,
                               const real *restrict saved, real *restrict dx)
{
    for (uint32_t j = 0; j < count; j++)
        dx[j] = cpu_activate_dx(kind, alpha, dy[j], saved[j]);
}

void CPU_NAME(activation_dx)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    (void)step;
    cpu_tile tile = cpu_tile_of(call, block);
    for (uint32_t i = tile.row; i < tile.row + tile.rows; i++) {
        size_t at = (size_t)i * tile.cols;
        const real *dy = (const real *)call->at[LF_ACTIVATION_DX_DY] + at;
        const real *saved = (const real *)call->at[LF_ACTIVATION_DX_SAVED] + at;
        real *dx = (real *)call->at[LF_ACTIVATION_DX_DX] + at;
        CPU_FOR_ACTIVATION(call->op.activation, activate_dx(kind, (real)call->op.alpha, tile.cols, dy, saved, dx))
    }
}

// f32 rows of the resident ones, in the program's precision.
void CPU_NAME(gather_rows)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    cpu_tile tile = cpu_tile_of(call, block);
    const uint32_t *order = (const uint32_t *)call->at[LF_GATHER_ROWS_ORDER] + step->row->first;
    uint32_t valid = cpu_valid_rows(call, step);
    for (uint32_t i = tile.row; i < tile.row + tile.rows; i++) {
        real *restrict out = (real *)call->at[LF_GATHER_ROWS_OUT] + (size_t)i * tile.cols;
        if (i >= valid) {
            memset(out, 0, tile.cols * sizeof *out);
            continue;
        }
        size_t resident = order[call->op.row + i];
        const float *restrict from = (const float *)call->at[LF_GATHER_ROWS_SOURCE] + resident * tile.cols;
        for (uint32_t j = 0; j < tile.cols; j++)
            out[j] = from[j];
    }
}

void CPU_NAME(add)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    (void)step;
    cpu_tile tile = cpu_tile_of(call, block);
    size_t first = (size_t)tile.row * tile.cols, count = (size_t)tile.rows * tile.cols;
    const real *restrict a = (const real *)call->at[LF_ADD_A] + first, *restrict b =
                                                                           (const real *)call->at[LF_ADD_B] + first;
    real *restrict y = (real *)call->at[LF_ADD_Y] + first;
    for (size_t j = 0; j < count; j++)
        y[j] = a[j] + b[j];
}

enum { DRAWN = 256 }; // random words at a time

// The words of elements `first` … first + DRAWN - 1, where `first` is a multiple of 4: four of each counter.
static void draw(const cpu_call *call, const cpu_step *step, uint32_t first, uint32_t *restrict words)
{
    const uint32_t key[2] = { step->header->seed_low, step->header->seed_high };
    uint32_t training_step = step->row->step, stream = call->op.stream;
    for (uint32_t i = 0; i < DRAWN / 4; i++) {
        const uint32_t counter[4] = { (first + 4 * i) / 4, training_step, stream, LF_STREAM_DROPOUT };
        lf_philox(counter, key, words + 4 * i);
    }
}

// An element is kept where the upper 24 bits of its word are at least `least`.
static void keep_some(uint32_t count, const uint32_t *restrict words, uint32_t least, real scale,
                      const real *restrict x, real *restrict y)
{
    for (uint32_t j = 0; j < count; j++) {
        real kept = x[j] * scale;
        y[j] = words[j] >> 8 >= least ? kept : 0;
    }
}

void CPU_NAME(dropout)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    cpu_tile tile = cpu_tile_of(call, block);
    // Elements count from the batch's first one, so that shards draw what the whole batch does.
    size_t base = (size_t)call->op.row * tile.cols, at = base + (size_t)tile.row * tile.cols;
    size_t end = at + (size_t)tile.rows * tile.cols;
    const real *x = call->at[LF_DROPOUT_X];
    real *y = call->at[LF_DROPOUT_Y];
    uint32_t words[DRAWN],
        least = (uint32_t)ceilf(call->op.rate * 0x1p24f); // equal in every precision, as the scale is
    real scale = (real)(1 / (1 - call->op.rate));
    for (size_t from = at / 4 * 4; from < end; from += DRAWN) {
        size_t to = end - from < DRAWN ? end : from + DRAWN;
        draw(call, step, (uint32_t)from, words);
        keep_some((uint32_t)(to - at), words + (at - from), least, scale, x + (at - base), y + (at - base));
        at = to;
    }
}

const cpu_kernels CPU_NAME(kernels) = {
    .variant = CPU_TEXT(LF_VARIANT),
    .multiplies = CPU_MULTIPLIES,
    .run = {
        [LF_OP_GATHER] = CPU_NAME(gather),
        [LF_OP_LINEAR] = CPU_NAME(linear),
        [LF_OP_ACTIVATION] = CPU_NAME(activation),
        [LF_OP_CROSS_ENTROPY] = CPU_NAME(cross_entropy),
        [LF_OP_VALUE_LOSS] = CPU_NAME(value_loss),
        [LF_OP_ACTIVATION_DX] = CPU_NAME(activation_dx),
        [LF_OP_LINEAR_DX] = CPU_NAME(linear_dx),
        [LF_OP_LINEAR_DW] = CPU_NAME(linear_dw),
        [LF_OP_LINEAR_UPDATE] = CPU_NAME(linear_update),
        [LF_OP_SGD] = CPU_NAME(sweep),
        [LF_OP_ADAM] = CPU_NAME(sweep),
        [LF_OP_RMSPROP] = CPU_NAME(sweep),
        [LF_OP_LION] = CPU_NAME(sweep),
        [LF_OP_LAMB] = CPU_NAME(lamb),
        [LF_OP_DROPOUT] = CPU_NAME(dropout),
        [LF_OP_ADD] = CPU_NAME(add),
        [LF_OP_LAYER_NORM] = CPU_NAME(layer_norm),
        [LF_OP_LAYER_NORM_DX] = CPU_NAME(layer_norm_dx),
        [LF_OP_BATCH_STATS] = CPU_NAME(batch_stats),
        [LF_OP_BATCH_NORM] = CPU_NAME(batch_norm),
        [LF_OP_BATCH_NORM_DX] = CPU_NAME(batch_norm_dx),
        [LF_OP_NORM_DW] = CPU_NAME(norm_dw),
        [LF_OP_GATHER_ROWS] = CPU_NAME(gather_rows),
        [LF_OP_DISTILL] = CPU_NAME(distill),
        [LF_OP_SOFTEN] = CPU_NAME(soften),
        [LF_OP_ACCUMULATE] = CPU_NAME(accumulate),
        [LF_OP_SUM_SQUARES] = CPU_NAME(sum_squares),
        [LF_OP_CLIP] = CPU_NAME(clip),
        [LF_OP_TRUST] = CPU_NAME(trust),
        [LF_OP_AVERAGE] = CPU_NAME(average),
        [LF_OP_SUM] = CPU_NAME(sum),
        [LF_OP_COLUMN_SUMS] = CPU_NAME(column_sums),
        [LF_OP_BATCH_TOTALS] = CPU_NAME(batch_totals),
    },
};
