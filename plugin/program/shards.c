// The rewrite that spreads a program of one shard's rows over those that a device holds. Everything up to the gradients
// is done for each shard, in memory of its own and operation by operation, so that no barrier is added; then the
// shards' gradients are summed as far as their neighbours are here. What crosses shards before that are the sums of
// batch norms.
//
// The first shard held keeps the tensors of the one that was built. They also take the totals.
#include "program/shards.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct spread {
    lf_builder *b;
    lf_op *built; // of one shard
    size_t built_count;
    const uint32_t *held;
    uint32_t held_count;
    size_t tensor_count;            // of one shard
    size_t stride[LF_REGION_COUNT]; // bytes of one shard; 0: the shards share the region
    lf_tensor_id *copies;           // [held_count * tensor_count]
    lf_tensor_id *row;              // [held_count]: what a sum is over
    bool *shared;                   // [tensor_count]: not copied all the same
    bool *summed;                   // [floats of the block / LF_PARAM_ALIGN]: parts of the gradient
    bool cuts;                      // devices exchange something before the next operation
} spread;

// What an exchange comes before, while that is not known: the next operation, or the next phase.
static const uint32_t BEFORE_NEXT = UINT32_MAX - 1, BEFORE_PHASE = UINT32_MAX;

bool lf_shards_check(uint32_t shards, uint32_t batch, lf_error *err)
{
    if (shards <= 1)
        return true;
    if (shards > LF_SHARDS_MAX || (shards & (shards - 1)))
        lf_error_set(err, LF_EARG, "shards must be a power of two and at most %d, not %u", LF_SHARDS_MAX, shards);
    else if (shards > batch)
        lf_error_set(err, LF_EARG, "a batch of %u rows cannot be cut into %u shards", batch, shards);
    else
        return true;
    return false;
}

// ---- tensors

static lf_tensor_id copy_of(const spread *s, lf_tensor_id tensor, uint32_t k)
{
    return tensor == LF_NO_TENSOR || tensor >= (lf_tensor_id)s->tensor_count
               ? tensor
               : s->copies[k * s->tensor_count + (size_t)tensor];
}

// Where the shards have memory of their own, one after the other.
static void copy_tensors(spread *s)
{
    lf_program *program = s->b->program;
    for (size_t t = 0; t < s->tensor_count; t++)
        s->copies[t] = (lf_tensor_id)t;
    for (uint32_t k = 1; k < s->held_count; k++) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "shard_%u/", s->held[k]);
        for (size_t t = 0; t < s->tensor_count; t++) {
            const lf_tensor one = program->tensors[t]; // the list moves when it grows
            lf_tensor_id *copy = &s->copies[k * s->tensor_count + t];
            *copy = (lf_tensor_id)t;
            if (s->stride[one.region] && !s->shared[t])
                *copy = lf_builder_view(s->b, one.region, one.type, one.rows, one.cols,
                                        one.offset + k * s->stride[one.region], prefix, one.name);
        }
    }
    for (unsigned r = 0; r < LF_REGION_COUNT; r++)
        program->region_size[r] += s->stride[r] * (s->held_count - 1);
}

// A part of the gradient block of each shard, into s->row.
static void view_gradients(spread *s, size_t first, size_t count, const char *name)
{
    lf_program *program = s->b->program;
    const lf_tensor block = program->tensors[program->grads];
    size_t real = lf_dtype_size(block.type);
    for (uint32_t k = 0; k < s->held_count; k++) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "shard_%u/grads/", s->held[k]);
        s->row[k] = lf_builder_view(s->b, block.region, block.type, 1, (uint32_t)count,
                                    block.offset + first * real + k * s->stride[block.region], prefix, name);
    }
}

// ---- operations

// Exchanges of the kind `waiting` come before the next operation.
static void settle(spread *s, uint32_t waiting)
{
    lf_program *program = s->b->program;
    for (size_t i = 0; i < program->exchange_count; i++)
        if (program->exchanges[i].before == waiting)
            program->exchanges[i].before = (uint32_t)program->op_count;
}

static lf_op *add(spread *s, lf_op_kind kind, lf_phase phase, uint32_t width)
{
    if (s->cuts)
        settle(s, BEFORE_NEXT);
    lf_op *op = lf_builder_op(s->b, kind, phase, width, width);
    op->cut = s->cuts;
    op->batch = s->b->params->batch * s->b->params->shards;
    s->cuts = false;
    return op;
}

// An operation of one shard, for the k-th that is held.
static void add_copy(spread *s, const lf_op *one, uint32_t k)
{
    lf_op *op = add(s, one->kind, one->phase, one->outputs);
    bool cut = op->cut;
    uint32_t batch = op->batch;
    *op = *one;
    op->cut = cut;
    op->batch = batch;
    op->row = s->held[k] * one->rows;
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++)
        op->operands[i] = copy_of(s, one->operands[i], k);
}

static lf_exchange *add_exchange(spread *s, lf_tensor_id total)
{
    lf_program *program = s->b->program;
    lf_exchange *all = realloc(program->exchanges, (program->exchange_count + 1) * sizeof *all);
    if (!all) {
        s->b->failed = true;
        return NULL;
    }
    program->exchanges = all;
    lf_exchange *made = &all[program->exchange_count];
    *made = (lf_exchange){ .total = total, .parts = calloc(s->held_count, sizeof *made->parts) };
    s->b->failed |= !made->parts;
    program->exchange_count += made->parts != NULL;
    return made->parts ? made : NULL;
}

uint32_t lf_shards_neighbourhood(const uint32_t *held, uint32_t held_count, uint32_t i)
{
    uint32_t count = 1, first = held[i];
    while (first % (2 * count) == 0 && i + 2 * count <= held_count && held[i + 2 * count - 1] == first + 2 * count - 1)
        count *= 2;
    return count;
}

static uint32_t neighbourhood(const spread *s, uint32_t i)
{
    return lf_shards_neighbourhood(s->held, s->held_count, i);
}

// Adds up s->row over the shards that are held, in place; what then is missing of the total is an exchange that must be
// done before the next operation, or if it `waits`, before the next phase.
static void add_sum(spread *s, lf_phase phase, bool waits)
{
    const lf_program *program = s->b->program;
    uint32_t shards = s->b->params->shards;
    if (s->b->failed)
        return;
    uint32_t count = program->tensors[s->row[0]].rows * program->tensors[s->row[0]].cols;
    bool cuts = s->cuts;
    s->cuts = false; // sums that follow each other are exchanged together
    for (uint32_t half = 1; half < s->held_count; half *= 2)
        for (uint32_t i = 0; i < s->held_count; i += neighbourhood(s, i))
            for (uint32_t j = 0; 2 * half <= neighbourhood(s, i) && j < neighbourhood(s, i); j += 2 * half) {
                lf_op *op = add(s, LF_OP_SUM, phase, count);
                op->rows = 1;
                op->operands[LF_SUM_X] = s->row[i + j + half];
                op->operands[LF_SUM_Y] = s->row[i + j];
            }
    s->cuts = cuts || neighbourhood(s, 0) < shards;
    if (neighbourhood(s, 0) == shards)
        return;
    lf_exchange *exchange = add_exchange(s, s->row[0]);
    for (uint32_t i = 0; exchange && i < s->held_count; i += neighbourhood(s, i))
        exchange->parts[exchange->part_count++] =
            (lf_exchange_part){ .tensor = s->row[i], .first = s->held[i], .count = neighbourhood(s, i) };
    if (exchange) {
        exchange->after = (uint32_t)program->op_count - 1; // of operations; their segments when they have numbers
        exchange->before = waits ? BEFORE_PHASE : BEFORE_NEXT;
    }
}

static void take_copies(spread *s, lf_tensor_id tensor)
{
    for (uint32_t k = 0; k < s->held_count; k++)
        s->row[k] = copy_of(s, tensor, k);
}

// ---- batch norms

static void add_column_sums(spread *s, const lf_op *stats, lf_tensor_id sum, const char *prefix)
{
    lf_program *program = s->b->program;
    char name[LF_TENSOR_NAME_MAX];
    memcpy(name, program->tensors[stats->operands[LF_BATCH_STATS_STATS]].name, sizeof name);
    for (uint32_t k = 0; k < s->held_count; k++) {
        char whole[32];
        snprintf(whole, sizeof whole, "%s", prefix);
        if (k)
            snprintf(whole, sizeof whole, "shard_%u/%s", s->held[k], prefix);
        s->row[k] = lf_builder_tensor(s->b, LF_REGION_ACTS, program->real, 1, stats->outputs, whole, name);
    }
    for (uint32_t k = 0; k < s->held_count; k++) {
        lf_op *op = add(s, LF_OP_COLUMN_SUMS, LF_PHASE_FORWARD, stats->outputs);
        op->row = s->held[k] * op->rows;
        op->operands[LF_COLUMN_SUMS_X] = copy_of(s, stats->operands[LF_BATCH_STATS_X], k);
        op->operands[LF_COLUMN_SUMS_SCHEDULE] = program->schedule;
        op->operands[LF_COLUMN_SUMS_SUM] = sum;
        op->operands[LF_COLUMN_SUMS_OUT] = s->row[k];
    }
    add_sum(s, LF_PHASE_FORWARD, false);
}

static lf_op *add_totals(spread *s, const lf_op *stats, lf_phase phase)
{
    lf_op *op = add(s, LF_OP_BATCH_TOTALS, phase, stats->outputs);
    op->rows = 1;
    op->eps = stats->eps;
    op->momentum = stats->momentum;
    op->operands[LF_BATCH_TOTALS_SCHEDULE] = s->b->program->schedule;
    return op;
}

// The statistics are those of the whole batch. The running ones move with the update: until then the step can be done
// again.
static void spread_stats(spread *s, lf_op *stats)
{
    add_column_sums(s, stats, LF_NO_TENSOR, "sum/");
    lf_tensor_id sum = s->row[0];
    add_column_sums(s, stats, sum, "squares/");
    lf_tensor_id squares = s->row[0];
    lf_op *op = add_totals(s, stats, LF_PHASE_FORWARD);
    op->operands[LF_BATCH_TOTALS_SUM] = sum;
    op->operands[LF_BATCH_TOTALS_SQUARES] = squares;
    op->operands[LF_BATCH_TOTALS_STATS] = stats->operands[LF_BATCH_STATS_STATS];
    stats->operands[LF_BATCH_STATS_X] = sum; // for move_running
    stats->operands[LF_BATCH_STATS_SCHEDULE] = squares;
}

static void move_running(spread *s)
{
    for (size_t i = 0; i < s->built_count; i++) {
        const lf_op *stats = &s->built[i];
        if (stats->kind != LF_OP_BATCH_STATS || !stats->training)
            continue;
        lf_op *op = add_totals(s, stats, LF_PHASE_REDUCE);
        op->operands[LF_BATCH_TOTALS_SUM] = stats->operands[LF_BATCH_STATS_X];
        op->operands[LF_BATCH_TOTALS_SQUARES] = stats->operands[LF_BATCH_STATS_SCHEDULE];
        op->operands[LF_BATCH_TOTALS_MEAN] = stats->operands[LF_BATCH_STATS_MEAN];
        op->operands[LF_BATCH_TOTALS_VARIANCE] = stats->operands[LF_BATCH_STATS_VARIANCE];
    }
}

// ---- gradients

// Marks a tensor of the gradient as summed, with what is empty behind it.
static void mark_summed(spread *s, lf_tensor_id tensor)
{
    const lf_program *program = s->b->program;
    const lf_tensor *t = &program->tensors[tensor];
    size_t real = lf_dtype_size(t->type), first = (t->offset - program->tensors[program->grads].offset) / real;
    size_t end = first + (size_t)t->rows * t->cols;
    for (size_t at = first / LF_PARAM_ALIGN; at * LF_PARAM_ALIGN < end; at++)
        s->summed[at] = true;
}

static void sum_gradient(spread *s, lf_tensor_id tensor, bool waits)
{
    take_copies(s, tensor);
    add_sum(s, LF_PHASE_BACKWARD, waits);
    mark_summed(s, tensor);
}

static void sum_rest(spread *s)
{
    size_t block = s->b->params->model->block_count, all = (block + LF_PARAM_ALIGN - 1) / LF_PARAM_ALIGN;
    for (size_t at = 0; at < all; at++) {
        size_t end = at;
        while (end < all && !s->summed[end])
            end++;
        if (end == at)
            continue;
        size_t first = at * LF_PARAM_ALIGN, count = (end == all ? block : end * LF_PARAM_ALIGN) - first;
        char name[32];
        snprintf(name, sizeof name, "%zu", first);
        if (count == block)
            take_copies(s, s->b->program->grads);
        else
            view_gradients(s, first, count, name);
        add_sum(s, LF_PHASE_BACKWARD, true);
        at = end;
    }
}

// Kernels whose gradients are complete leave when they are a bucket full, so that they travel while the pass goes on.
static void fill_bucket(spread *s, size_t at, size_t *full)
{
    const lf_program *program = s->b->program;
    uint32_t bucket = s->b->params->bucket;
    size_t later = at + 1;
    while (later < s->built_count && s->built[later].kind != LF_OP_LINEAR_DW)
        later++;
    *full += lf_tensor_bytes(&program->tensors[s->built[at].operands[LF_LINEAR_DW_DKERNEL]]);
    if (!bucket || *full < bucket || later == s->built_count)
        return;
    for (size_t i = 0; i <= at; i++) {
        if (s->built[i].kind != LF_OP_LINEAR_DW)
            continue;
        lf_tensor_id kernel = s->built[i].operands[LF_LINEAR_DW_DKERNEL];
        const lf_tensor *t = &program->tensors[kernel];
        size_t real = lf_dtype_size(t->type), first = (t->offset - program->tensors[program->grads].offset) / real;
        if (!s->summed[first / LF_PARAM_ALIGN])
            sum_gradient(s, kernel, true);
    }
    *full = 0;
}

// ---- all of it

static void spread_all(spread *s)
{
    size_t full = 0;
    for (size_t i = 0; i < s->built_count; i++) {
        lf_op *one = &s->built[i];
        if (one->kind == LF_OP_BATCH_STATS && one->training) {
            spread_stats(s, one);
            continue;
        }
        lf_op whole = *one;
        if (one->kind == LF_OP_BATCH_NORM_DX) {
            sum_gradient(s, one->operands[LF_BATCH_NORM_DX_DGAMMA], false);
            sum_gradient(s, one->operands[LF_BATCH_NORM_DX_DBETA], false);
        }
        for (uint32_t k = 0; k < s->held_count; k++) {
            add_copy(s, &whole, k);
            lf_op *op = &s->b->program->ops[s->b->program->op_count - 1];
            if (one->kind == LF_OP_BATCH_NORM_DX && !s->b->failed) { // the whole batch's
                op->operands[LF_BATCH_NORM_DX_DGAMMA] = one->operands[LF_BATCH_NORM_DX_DGAMMA];
                op->operands[LF_BATCH_NORM_DX_DBETA] = one->operands[LF_BATCH_NORM_DX_DBETA];
            }
        }
        if (one->kind == LF_OP_LINEAR_DW)
            fill_bucket(s, i, &full);
    }
    sum_rest(s);
    s->cuts = false; // a phase ends
    settle(s, BEFORE_PHASE);
    move_running(s);
}

static void measure(spread *s)
{
    static const lf_region own[] = { LF_REGION_BATCH, LF_REGION_ACTS, LF_REGION_GRADS };
    const lf_program *program = s->b->program;
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        s->stride[own[i]] = program->region_size[own[i]];
    for (size_t i = 0; i < s->built_count; i++)
        if (s->built[i].kind == LF_OP_BATCH_STATS && s->built[i].training)
            s->shared[s->built[i].operands[LF_BATCH_STATS_STATS]] = true;
}

void lf_builder_spread(lf_builder *b)
{
    lf_program *program = b->program;
    const lf_compile_params *p = b->params;
    uint32_t all[LF_SHARDS_MAX];
    for (uint32_t i = 0; i < p->shards; i++)
        all[i] = i;
    spread s = { .b = b,
                 .built = program->ops,
                 .built_count = program->op_count,
                 .held = p->held ? p->held : all,
                 .held_count = p->held ? p->held_count : p->shards,
                 .tensor_count = program->tensor_count };
    program->ops = NULL;
    program->op_count = 0;
    s.copies = calloc(s.held_count * s.tensor_count, sizeof *s.copies);
    s.row = calloc(s.held_count, sizeof *s.row);
    s.shared = calloc(s.tensor_count, sizeof *s.shared);
    s.summed = calloc(p->model->block_count / LF_PARAM_ALIGN + 1, sizeof *s.summed);
    if (!s.copies || !s.row || !s.shared || !s.summed)
        b->failed = true;
    if (!b->failed) {
        measure(&s);
        copy_tensors(&s);
    }
    if (!b->failed)
        spread_all(&s);
    free(s.copies);
    free(s.row);
    free(s.shared);
    free(s.summed);
    free(s.built);
}
