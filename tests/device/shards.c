// Operations on some of a batch's rows.
#include "slots.h"
#include "suite.h"

enum { DATA_ROWS = 50 };

// Four shards or more, so that a batch has another number of rows than statistics.
static const struct {
    uint32_t shards, rows, width;
} shapes[] = { { 4, 1, 1 }, { 4, 4, 10 }, { 8, 33, 31 }, { 16, 3, 64 }, { 4, 65, 128 }, { 4, 2, 1000 } };

// An operation on a whole batch, in shards of `rows`.
typedef struct sharded {
    lf_op op;
    operand operands[LF_OPERAND_MAX];
    uint32_t rows;
} sharded;

// Has a row for each of the batch, of which a shard has its own.
static bool is_sliced(const sharded *s, const operand *o)
{
    return (o->region == LF_REGION_ACTS || o->region == LF_REGION_BATCH) && o->rows == s->op.rows;
}

static double number_for(const sharded *s, const operand *o, size_t i)
{
    if (o->region == LF_REGION_ORDER)
        return (double)((i * 7 + 3) % DATA_ROWS);
    if (o->typed && o->type == LF_U32)
        return (double)(i * 5 % (s->op.kind == LF_OP_GATHER ? 11 : s->op.outputs));
    if (s->op.kind == LF_OP_DISTILL && o->number == LF_LOSS_TEACHER)
        return (double)lf_uniform(72, LF_STREAM_INIT, 0, i) / s->op.outputs;
    return (double)lf_normal(71, LF_STREAM_INIT, o->number, i);
}

// An element of the metrics that is another step's or another shard's.
static bool is_others(const sharded *s, const operand *o, uint32_t shard, size_t i)
{
    size_t row = i / LF_METRIC_COUNT, first = (size_t)ONE_OP_COUNTER * s->op.rows + (size_t)shard * s->rows;
    return o->region == LF_REGION_METRICS && (row < first || row >= first + s->rows);
}

static void check_shard(const sharded *s, bool in_float64, uint32_t shard, uint32_t valid, const slot *whole,
                        size_t count)
{
    const lf_op_info *info = lf_op_info_of(s->op.kind);
    lf_op op = s->op;
    op.rows = s->rows;
    op.row = shard * s->rows;
    op.batch = s->op.rows;
    slot slots[LF_OPERAND_MAX];
    size_t from[LF_OPERAND_MAX];
    for (size_t i = 0; i < count; i++) {
        slots[i] = whole[i];
        from[i] = 0;
        if (is_sliced(s, &whole[i].operand)) {
            slots[i].operand.rows = s->rows;
            from[i] = (size_t)op.row * whole[i].operand.cols;
        }
        slots[i].before = whole[i].before + from[i];
        slots[i].after = doubles((size_t)slots[i].operand.rows * slots[i].operand.cols);
    }
    run_slots(in_float64, op, slots, count, valid);
    for (size_t i = 0; i < count; i++) {
        const operand *o = &slots[i].operand;
        for (size_t e = 0; info->operands[o->number].written && e < (size_t)o->rows * o->cols; e++) {
            double got = slots[i].after[e];
            double want = is_others(s, o, shard, e) ? slots[i].before[e] : whole[i].after[from[i] + e];
            if (got != want && !(isnan(got) && isnan(want)))
                fail_msg("%s on %s, shard %u of %u rows of %u, %u of %u rows in the batch: %s[%zu] is %.9g, but %.9g "
                         "where the batch is whole",
                         info->name, in_float64 ? "the oracle" : device->info.id, shard, s->rows, s->op.outputs, valid,
                         s->op.rows, info->operands[o->number].role, e, got, want);
        }
        free(slots[i].after);
    }
}

// `s` but for `op.rows`, `op.inputs` and `op.outputs` of shape `shape`.
static void check_sharded(const sharded *s, uint32_t shards)
{
    uint32_t rows = s->rows, valids[] = { shards * rows, shards * rows - 1, rows + 1, rows, 1 };
    slot whole[LF_OPERAND_MAX];
    size_t count = 0;
    for (; count < LF_OPERAND_MAX && s->operands[count].rows; count++) {
        const operand *o = &s->operands[count];
        size_t elements = (size_t)o->rows * o->cols;
        double *before = doubles(2 * elements);
        for (size_t i = 0; i < elements; i++)
            before[i] = number_for(s, o, i);
        whole[count] = (slot){ *o, before, before + elements };
    }
    for (int in_float64 = 0; in_float64 < 2; in_float64++)
        for (size_t v = 0; v < COUNT(valids); v++) {
            run_slots(in_float64, s->op, whole, count, valids[v]);
            for (uint32_t shard = 0; shard < shards; shard++)
                check_shard(s, in_float64, shard, valids[v], whole, count);
        }
    for (size_t i = 0; i < count; i++)
        free((double *)whole[i].before);
}

static lf_op whole_op(lf_op_kind kind, size_t shape)
{
    return (lf_op){ .kind = kind,
                    .rows = shapes[shape].shards * shapes[shape].rows,
                    .inputs = shapes[shape].width,
                    .outputs = shapes[shape].width };
}

static void gathers_on_shards_write_what_the_whole_batchs_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(shapes); i++) {
        uint32_t rows = shapes[i].shards * shapes[i].rows, width = shapes[i].width;
        uint32_t positions = ONE_OP_POSITIONS(rows);
        for (int classes = 0; classes < 2; classes++) {
            uint32_t cols = classes ? 1 : 3;
            check_sharded(
                &(sharded){ .op = whole_op(LF_OP_GATHER, i),
                            .operands = { TYPED(LF_GATHER_DATA, DATA, DATA_ROWS, width, LF_F32),
                                          TYPED(LF_GATHER_TARGETS, TARGETS, DATA_ROWS, cols, classes ? LF_U32 : LF_F32),
                                          TYPED(LF_GATHER_SCALING, SCALING, 2, width, LF_F32),
                                          TYPED(LF_GATHER_ORDER, ORDER, 1, positions, LF_U32),
                                          OPERAND(LF_GATHER_X, BATCH, rows, width),
                                          { .number = LF_GATHER_Y,
                                            .region = LF_REGION_BATCH,
                                            .rows = rows,
                                            .cols = cols,
                                            .type = LF_U32,
                                            .typed = classes } },
                            .rows = shapes[i].rows },
                shapes[i].shards);
        }
        check_sharded(&(sharded){ .op = whole_op(LF_OP_GATHER_ROWS, i),
                                  .operands = { TYPED(LF_GATHER_ROWS_SOURCE, TEACHER, DATA_ROWS, width, LF_F32),
                                                TYPED(LF_GATHER_ROWS_ORDER, ORDER, 1, positions, LF_U32),
                                                OPERAND(LF_GATHER_ROWS_OUT, BATCH, rows, width) },
                                  .rows = shapes[i].rows },
                      shapes[i].shards);
    }
}

static void check_losses(lf_op op, size_t shape, bool taught, bool weighted, bool stores_dz)
{
    lf_op whole = whole_op(op.kind, shape);
    bool classes = op.kind != LF_OP_VALUE_LOSS;
    uint32_t rows = whole.rows, width = whole.outputs;
    op.rows = rows;
    op.inputs = op.outputs = width;
    sharded s = { .op = op,
                  .operands = { OPERAND(LF_LOSS_Z, ACTS, rows, width),
                                { .number = LF_LOSS_TARGET,
                                  .region = LF_REGION_BATCH,
                                  .rows = rows,
                                  .cols = classes ? 1 : width,
                                  .type = LF_U32,
                                  .typed = classes },
                                OPERAND(LF_LOSS_METRICS, METRICS, ONE_OP_STEPS * rows, LF_METRIC_COUNT) },
                  .rows = shapes[shape].rows };
    size_t count = 3;
    if (stores_dz)
        s.operands[count++] = (operand)OPERAND(LF_LOSS_DZ, ACTS, rows, width);
    if (taught)
        s.operands[count++] = (operand)OPERAND(LF_LOSS_TEACHER, BATCH, rows, width);
    if (weighted)
        s.operands[count++] = (operand)OPERAND(LF_LOSS_WEIGHTS, BATCH, rows, 1);
    check_sharded(&s, shapes[shape].shards);
}

static void losses_on_shards_write_what_the_whole_batchs_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(shapes); i++) {
        bool weighted = i % 2;
        check_losses((lf_op){ .kind = LF_OP_CROSS_ENTROPY, .label_smoothing = weighted ? .125f : 0 }, i, false,
                     weighted, i != 1);
        check_losses((lf_op){ .kind = LF_OP_DISTILL, .soft_weight = .5f, .temperature = 2 }, i, true, weighted, true);
        for (uint32_t value = 0; value < LF_VALUE_COUNT; value++)
            check_losses((lf_op){ .kind = LF_OP_VALUE_LOSS,
                                  .value = value,
                                  .delta = 1,
                                  .share = .5f,
                                  .soft_weight = .25f,
                                  .adds = value % 2 != weighted },
                         i, value > 1, weighted, true);
    }
}

static void batch_norm_dx_on_shards_writes_what_the_whole_batchs_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(shapes); i++) {
        uint32_t rows = shapes[i].shards * shapes[i].rows, width = shapes[i].width;
        check_sharded(&(sharded){ .op = whole_op(LF_OP_BATCH_NORM_DX, i),
                                  .operands = { OPERAND(LF_BATCH_NORM_DX_X, ACTS, rows, width),
                                                OPERAND(LF_BATCH_NORM_DX_DY, ACTS, rows, width),
                                                OPERAND(LF_BATCH_NORM_DX_GAMMA, PARAMS, 1, width),
                                                OPERAND(LF_BATCH_NORM_DX_STATS, ACTS, 2, width),
                                                OPERAND(LF_BATCH_NORM_DX_DGAMMA, GRADS, 1, width),
                                                OPERAND(LF_BATCH_NORM_DX_DBETA, GRADS, 1, width),
                                                OPERAND(LF_BATCH_NORM_DX_DX, ACTS, rows, width) },
                                  .rows = shapes[i].rows },
                      shapes[i].shards);
    }
}

int run_shard_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gathers_on_shards_write_what_the_whole_batchs_does),
        cmocka_unit_test(losses_on_shards_write_what_the_whole_batchs_does),
        cmocka_unit_test(batch_norm_dx_on_shards_writes_what_the_whole_batchs_does),
    };
    return cmocka_run_group_tests_name("shards", tests, NULL, NULL);
}
