// Operations on the blocks of parameters, gradients and moments: optimizers, and what is summed, clipped and averaged
// around them. Each sweeps over a range of elements, whole vectors at a time.
#include <float.h>

#include "cpu/sums.h"
#include "cpu/update.h"

// What becomes of a gradient before an optimizer uses it: clamp(scale · g, ±limit). Loops take `how` as a constant, so
// that each combination has a loop of its own without a branch in it.
enum { PLAIN = 0, SCALED = 1, LIMITED = 2 };

// For each row of the range `r`.
#define FOR_GRADIENT(r, statement)                                                                                     \
    switch (how_of(r)) {                                                                                               \
        GRADIENT_CASE(r, PLAIN, statement)                                                                             \
        GRADIENT_CASE(r, SCALED, statement)                                                                            \
        GRADIENT_CASE(r, LIMITED, statement)                                                                           \
        GRADIENT_CASE(r, SCALED | LIMITED, statement)                                                                  \
    }
#define GRADIENT_CASE(r, number, statement)                                                                            \
    case number: {                                                                                                     \
        enum { how = number };                                                                                         \
        for (uint32_t row_ = 0; row_ < (r)->rows; row_++, next_row(r))                                                 \
            statement;                                                                                                 \
        break;                                                                                                         \
    }

static unsigned how_of(const cpu_range *r)
{
    return (r->scale != 1 ? SCALED : PLAIN) | (r->limit > 0 ? LIMITED : PLAIN);
}

static inline void next_row(cpu_range *r)
{
    r->g += r->g_stride;
    r->w += r->w_stride;
    r->m = r->m ? r->m + r->m_stride : NULL;
    r->v = r->v ? r->v + r->v_stride : NULL;
}

static real *operand(const cpu_call *call, unsigned number, size_t first)
{
    return call->at[number] ? (real *)call->at[number] + first : NULL;
}

static cpu_range range_of(const cpu_call *call, uint32_t block)
{
    cpu_tile tile = cpu_tile_of(call, block);
    const real *scale = call->at[LF_UPDATE_SCALE];
    return (cpu_range){ .rows = 1,
                        .count = tile.cols,
                        .g = operand(call, LF_UPDATE_GRADS, tile.col),
                        .direction = operand(call, LF_UPDATE_GRADS, tile.col),
                        .w = operand(call, LF_UPDATE_PARAMS, tile.col),
                        .m = operand(call, LF_UPDATE_M, tile.col),
                        .v = operand(call, LF_UPDATE_V, tile.col),
                        .scale = scale ? *scale : 1,
                        .limit = call->op.clip_value,
                        .decay = call->op.weight_decay };
}

static inline real taken(unsigned how, const cpu_range *r, real g)
{
    real scaled = how & SCALED ? r->scale * g : g;
    if (!(how & LIMITED))
        return scaled;
    real below = scaled > r->limit ? r->limit : scaled; // NaN stays NaN
    return below < -r->limit ? -r->limit : below;
}

// g += decay · w;  m = momentum · m + g;  w -= lr · (nesterov: g + momentum · m; else m; without momentum g)
static inline void sgd_range(unsigned how, const lf_op *op, const struct lf_schedule_row *row, const cpu_range *r)
{
    const real *restrict g = r->g;
    real *restrict w = r->w, *restrict m = r->m;
    real lr = row->lr, decay = r->decay, momentum = op->momentum;
    if (!m) {
        for (uint32_t j = 0; j < r->count; j++)
            w[j] -= lr * (taken(how, r, g[j]) + decay * w[j]);
        return;
    }
    for (uint32_t j = 0; j < r->count; j++) {
        real gradient = taken(how, r, g[j]) + decay * w[j];
        real velocity = momentum * m[j] + gradient;
        m[j] = velocity;
        w[j] -= lr * (op->nesterov ? gradient + momentum * velocity : velocity);
    }
}

// m = β1 m + (1 - β1) g;  v = β2 v + (1 - β2) g²;  w -= lr / (1 - β1ᵗ) · m / (√v / √(1 - β2ᵗ) + ε)
// The decay goes into g (adam) or straight to w (adamw), before the update.
static inline void adam_range(unsigned how, const lf_op *op, const struct lf_schedule_row *row, const cpu_range *r)
{
    const real *restrict g = r->g;
    real *restrict w = r->w, *restrict m = r->m, *restrict v = r->v;
    real beta1 = op->beta1, beta2 = op->beta2, rest1 = 1 - beta1, rest2 = 1 - beta2, eps = op->eps;
    real step_size = row->step_size, correct2 = row->inv_sqrt_correct2;
    real into_gradient = op->decoupled ? 0 : r->decay;
    real keep = op->decoupled ? 1 - (real)row->lr * r->decay : 1;
    for (uint32_t j = 0; j < r->count; j++) {
        real gradient = taken(how, r, g[j]) + into_gradient * w[j];
        real first = beta1 * m[j] + rest1 * gradient;
        real second = beta2 * v[j] + rest2 * (gradient * gradient);
        m[j] = first;
        v[j] = second;
        w[j] = w[j] * keep - step_size * (first / (R(sqrt)(second) * correct2 + eps));
    }
}

// g += decay · w;  v = β2 v + (1 - β2) g²;  d = g / (√v + ε);  m = momentum · m + d;  w -= lr · m, without m lr · d
static inline void rmsprop_range(unsigned how, const lf_op *op, const struct lf_schedule_row *row, const cpu_range *r)
{
    const real *restrict g = r->g;
    real *restrict w = r->w, *restrict m = r->m, *restrict v = r->v;
    real lr = row->lr, decay = r->decay, momentum = op->momentum;
    real beta2 = op->beta2, rest2 = 1 - beta2, eps = op->eps;
    if (!m) {
        for (uint32_t j = 0; j < r->count; j++) {
            real gradient = taken(how, r, g[j]) + decay * w[j];
            real second = beta2 * v[j] + rest2 * (gradient * gradient);
            v[j] = second;
            w[j] -= lr * (gradient / (R(sqrt)(second) + eps));
        }
        return;
    }
    for (uint32_t j = 0; j < r->count; j++) {
        real gradient = taken(how, r, g[j]) + decay * w[j];
        real second = beta2 * v[j] + rest2 * (gradient * gradient);
        real velocity = momentum * m[j] + gradient / (R(sqrt)(second) + eps);
        v[j] = second;
        m[j] = velocity;
        w[j] -= lr * velocity;
    }
}

// d = sign(β1 m + (1 - β1) g);  w -= lr · (d + decay · w);  m = β2 m + (1 - β2) g
static inline void lion_range(unsigned how, const lf_op *op, const struct lf_schedule_row *row, const cpu_range *r)
{
    const real *restrict g = r->g;
    real *restrict w = r->w, *restrict m = r->m;
    real lr = row->lr, decay = r->decay;
    real beta1 = op->beta1, beta2 = op->beta2, rest1 = 1 - beta1, rest2 = 1 - beta2;
    for (uint32_t j = 0; j < r->count; j++) {
        real gradient = taken(how, r, g[j]);
        real mixed = beta1 * m[j] + rest1 * gradient;
        real sign = mixed > 0 ? 1 : mixed < 0 ? -1 : mixed; // 0 of 0, NaN of NaN
        m[j] = beta2 * m[j] + rest2 * gradient;
        w[j] -= lr * (sign + decay * w[j]);
    }
}

void CPU_NAME(update)(lf_op_kind optimizer, const lf_op *op, const struct lf_schedule_row *row, const cpu_range *range)
{
    cpu_range r = *range;
    switch (optimizer) {
    case LF_OP_SGD:
        FOR_GRADIENT(&r, sgd_range(how, op, row, &r))
        break;
    case LF_OP_RMSPROP:
        FOR_GRADIENT(&r, rmsprop_range(how, op, row, &r))
        break;
    case LF_OP_LION:
        FOR_GRADIENT(&r, lion_range(how, op, row, &r))
        break;
    default:
        FOR_GRADIENT(&r, adam_range(how, op, row, &r))
    }
}

// sgd, adam, rmsprop and lion.
void CPU_NAME(sweep)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    if (!step->row->updates)
        return;
    cpu_range r = range_of(call, block);
    CPU_NAME(update)(call->op.kind, &call->op, step->row, &r);
}

// m and v as in adam; the direction m / (1 - β1ᵗ) / (√v / √(1 - β2ᵗ) + ε) + decay · w takes the gradient's place.
static inline void lamb_range(unsigned how, const lf_op *op, const struct lf_schedule_row *row, const cpu_range *r)
{
    const real *restrict w = r->w;
    real *restrict g = r->direction, *restrict m = r->m, *restrict v = r->v;
    real beta1 = op->beta1, beta2 = op->beta2, rest1 = 1 - beta1, rest2 = 1 - beta2, eps = op->eps;
    real step_size = row->step_size, correct2 = row->inv_sqrt_correct2, decay = r->decay;
    for (uint32_t j = 0; j < r->count; j++) {
        real gradient = taken(how, r, g[j]);
        real first = beta1 * m[j] + rest1 * gradient;
        real second = beta2 * v[j] + rest2 * (gradient * gradient);
        m[j] = first;
        v[j] = second;
        g[j] = step_size * (first / (R(sqrt)(second) * correct2 + eps)) + decay * w[j];
    }
}

void CPU_NAME(lamb)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    if (!step->row->updates)
        return;
    cpu_range r = range_of(call, block);
    FOR_GRADIENT(&r, lamb_range(how, &call->op, step->row, &r))
}

void CPU_NAME(accumulate)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    cpu_tile tile = cpu_tile_of(call, block);
    const real *restrict g = operand(call, LF_ACCUMULATE_GRADS, tile.col);
    real *restrict sum = operand(call, LF_ACCUMULATE_SUM, tile.col);
    if (step->row->begins) {
        for (uint32_t j = 0; j < tile.cols; j++)
            sum[j] = g[j];
    } else {
        for (uint32_t j = 0; j < tile.cols; j++)
            sum[j] += g[j];
    }
}

static inline real flushed(real value)
{
    return R(fabs)(value) < (real)FLT_MIN ? 0 : value;
}

// y += x, with what is below f32's smallest normal number as 0, in f64 too. core/tree.h does the same.
void CPU_NAME(sum)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    (void)step;
    cpu_tile tile = cpu_tile_of(call, block);
    const real *restrict x = operand(call, LF_SUM_X, tile.col);
    real *restrict y = operand(call, LF_SUM_Y, tile.col);
    for (uint32_t j = 0; j < tile.cols; j++)
        y[j] = flushed(flushed(y[j]) + flushed(x[j]));
}

// average += share · (params - average)
void CPU_NAME(average)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    if (!step->row->updates)
        return;
    cpu_tile tile = cpu_tile_of(call, block);
    const real *restrict w = operand(call, LF_AVERAGE_PARAMS, tile.col);
    real *restrict average = operand(call, LF_AVERAGE_AVERAGE, tile.col);
    real share = call->op.share;
    for (uint32_t j = 0; j < tile.cols; j++)
        average[j] += share * (w[j] - average[j]);
}

// One partial sum for each LF_SQUARES_CHUNK neighbours; a block of elements starts where a chunk does.
void CPU_NAME(sum_squares)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    (void)step;
    cpu_tile tile = cpu_tile_of(call, block);
    real *out = operand(call, LF_SUM_SQUARES_OUT, tile.col / LF_SQUARES_CHUNK);
    for (uint32_t first = 0; first < tile.cols; first += LF_SQUARES_CHUNK) {
        const real *restrict x = operand(call, LF_SUM_SQUARES_X, (size_t)tile.col + first);
        uint32_t rest = tile.cols - first, count = rest < LF_SQUARES_CHUNK ? rest : LF_SQUARES_CHUNK;
        CPU_SUM_ROW(out[first / LF_SQUARES_CHUNK], count, j, x[j] * x[j]);
    }
}

static real sum_of(const real *restrict partials, uint32_t count)
{
    real sum;
    CPU_SUM_ROW(sum, count, j, partials[j]);
    return sum;
}

// scale = min(1, clip_norm / (norm + 1e-6)); NaN stays NaN
void CPU_NAME(clip)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    (void)step;
    (void)block;
    real norm = R(sqrt)(sum_of(call->at[LF_CLIP_PARTIALS], call->cols));
    real scale = (real)call->op.clip_norm / (norm + (real)1e-6);
    *(real *)call->at[LF_CLIP_SCALE] = scale > 1 ? 1 : scale;
}

// scale = |weights| / |direction|; 1 if either is 0
void CPU_NAME(trust)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    (void)step;
    (void)block;
    real weights = sum_of(call->at[LF_TRUST_WEIGHTS], call->cols);
    real direction = sum_of(call->at[LF_TRUST_DIRECTION], call->cols);
    *(real *)call->at[LF_TRUST_SCALE] = weights == 0 || direction == 0 ? 1 : R(sqrt)(weights) / R(sqrt)(direction);
}
