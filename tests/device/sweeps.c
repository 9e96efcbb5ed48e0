// Optimizers and the sweeps around them, one operation at a time, against float64.
#include "rig.h"
#include "suite.h"

typedef struct update_case {
    uint32_t count;
    lf_optimizer optimizer;
    bool scaled; // `scale` is there
    bool idle;   // the schedule's row does not update
} update_case;

static double *doubles(size_t count)
{
    double *values = calloc(count, sizeof *values);
    assert_non_null(values);
    return values;
}

static void fill_update(test_rig *rig, const void *context)
{
    const update_case *c = context;
    const lf_op *op = &rig->program->ops[0];
    rig_put_normal(rig, op->operands[LF_UPDATE_GRADS], 31, 1);
    rig_put_normal(rig, op->operands[LF_UPDATE_PARAMS], 32, 1);
    if (op->operands[LF_UPDATE_M] != LF_NO_TENSOR)
        rig_put_normal(rig, op->operands[LF_UPDATE_M], 33, .5);
    if (op->operands[LF_UPDATE_V] != LF_NO_TENSOR) {
        double *values = doubles(op->outputs);
        for (uint32_t i = 0; i < op->outputs; i++)
            values[i] = (double)lf_uniform(34, LF_STREAM_INIT, 0, i);
        rig_put(rig, op->operands[LF_UPDATE_V], values);
        free(values);
    }
    if (c->scaled)
        rig_put(rig, op->operands[LF_UPDATE_SCALE], &(double){ .625 });
    struct lf_schedule_row row = schedule_row(&c->optimizer, ONE_OP_FIRST, 1, ONE_OP_TRAINING_STEP);
    row.updates = !c->idle;
    one_op_put_row(rig, &row);
}

static lf_op_kind op_of(lf_optimizer_kind kind)
{
    static const lf_op_kind ops[LF_OPTIMIZER_COUNT] = {
        [LF_OPTIMIZER_SGD] = LF_OP_SGD,         [LF_OPTIMIZER_ADAM] = LF_OP_ADAM, [LF_OPTIMIZER_ADAMW] = LF_OP_ADAM,
        [LF_OPTIMIZER_RMSPROP] = LF_OP_RMSPROP, [LF_OPTIMIZER_LION] = LF_OP_LION, [LF_OPTIMIZER_LAMB] = LF_OP_LAMB,
    };
    return ops[kind];
}

static void check_update(update_case u)
{
    const lf_optimizer *optimizer = &u.optimizer;
    char what[160];
    snprintf(what, sizeof what, "%s of %u, momentum %g%s, decay %g, clip_value %g%s%s",
             lf_optimizer_name(optimizer->kind), u.count, (double)optimizer->momentum,
             optimizer->nesterov ? " nesterov" : "", (double)optimizer->weight_decay, (double)optimizer->clip_value,
             u.scaled ? ", scaled" : "", u.idle ? ", idle" : "");
    op_case c = {
        .op = { .kind = op_of(optimizer->kind),
                .phase = LF_PHASE_UPDATE,
                .rows = 1,
                .inputs = u.count,
                .outputs = u.count,
                .beta1 = optimizer->beta1,
                .beta2 = optimizer->beta2,
                .eps = optimizer->eps,
                .momentum = optimizer->momentum,
                .nesterov = optimizer->nesterov,
                .weight_decay = optimizer->weight_decay,
                .clip_value = optimizer->clip_value,
                .decoupled = optimizer->kind == LF_OPTIMIZER_ADAMW },
        .operands = { { .number = LF_UPDATE_GRADS, .region = LF_REGION_GRADS, .rows = 1, .cols = u.count },
                      { .number = LF_UPDATE_PARAMS, .region = LF_REGION_PARAMS, .rows = 1, .cols = u.count } },
        .operand_count = 2,
        .fill = fill_update,
        .context = &u,
        .what = what,
        .bound = 2e-6,
        .floor = 1,
        .idle = u.idle,
    };
    for (unsigned i = 0; i < LF_MOMENT_COUNT; i++)
        if (lf_optimizer_keeps(optimizer, (lf_moment)i))
            c.operands[c.operand_count++] =
                (operand){ .number = LF_UPDATE_M + i, .region = LF_REGION_MOMENTS, .rows = 1, .cols = u.count };
    if (u.scaled)
        c.operands[c.operand_count++] =
            (operand){ .number = LF_UPDATE_SCALE, .region = LF_REGION_ACTS, .rows = 1, .cols = 1 };
    check_op(&c);
}

// Large rates, so that a wrong update stands out of the bound.
static lf_optimizer optimizer_of(lf_optimizer_kind kind, int variant)
{
    lf_optimizer optimizer = lf_optimizer_default(kind);
    bool has_momentum = kind == LF_OPTIMIZER_SGD || kind == LF_OPTIMIZER_RMSPROP;
    optimizer.lr = kind == LF_OPTIMIZER_RMSPROP ? .0625 : .25;
    optimizer.weight_decay = variant % 2 ? .125f : 0;
    optimizer.momentum = has_momentum && variant >= 2 ? .75f : 0;
    optimizer.nesterov = kind == LF_OPTIMIZER_SGD && variant == 3;
    if (kind == LF_OPTIMIZER_RMSPROP)
        optimizer.eps = .0625f;
    return optimizer;
}

static void optimizers_are_the_oracles(void **state)
{
    (void)state;
    static const uint32_t counts[] = { 1, 31, 33, 1000, 101824 };
    for (size_t i = 0; i < COUNT(counts); i++)
        for (lf_optimizer_kind kind = LF_OPTIMIZER_SGD; kind < LF_OPTIMIZER_COUNT; kind++)
            for (int variant = 0; variant < 16; variant++) {
                update_case c = { .count = counts[i], .optimizer = optimizer_of(kind, variant % 4) };
                c.scaled = variant & 4;
                c.optimizer.clip_value = variant & 8 ? .5f : 0;
                check_update(c);
            }
}

static void optimizers_do_nothing_where_the_row_does_not_update(void **state)
{
    (void)state;
    for (lf_optimizer_kind kind = LF_OPTIMIZER_SGD; kind < LF_OPTIMIZER_COUNT; kind++)
        for (int variant = 0; variant < 8; variant++) {
            update_case c = { .count = 1000, .optimizer = optimizer_of(kind, variant % 4), .idle = true };
            c.scaled = variant >= 4;
            c.optimizer.clip_value = variant >= 4 ? .5f : 0;
            check_update(c);
        }
}

// sign(0) is 0, and where there is no gradient and no decay the weight stays as it is.
static void fill_zero_gradient(test_rig *rig, const void *context)
{
    fill_update(rig, context);
    rig_put_normal(rig, rig->program->ops[0].operands[LF_UPDATE_GRADS], 35, 0);
    rig_put_normal(rig, rig->program->ops[0].operands[LF_UPDATE_M], 36, 0);
}

static void lion_leaves_weights_without_a_gradient(void **state)
{
    (void)state;
    enum { N = 100 };
    update_case u = { .count = N, .optimizer = optimizer_of(LF_OPTIMIZER_LION, 0) };
    const operand operands[] = { { .number = LF_UPDATE_GRADS, .region = LF_REGION_GRADS, .rows = 1, .cols = N },
                                 { .number = LF_UPDATE_PARAMS, .region = LF_REGION_PARAMS, .rows = 1, .cols = N },
                                 { .number = LF_UPDATE_M, .region = LF_REGION_MOMENTS, .rows = 1, .cols = N } };
    lf_op op = { .kind = LF_OP_LION,
                 .phase = LF_PHASE_UPDATE,
                 .rows = 1,
                 .inputs = N,
                 .outputs = N,
                 .beta1 = u.optimizer.beta1,
                 .beta2 = u.optimizer.beta2 };
    one_op one;
    test_rig rig;
    double before[N], after[N];
    one_op_make(&one, op, operands, COUNT(operands), false);
    rig_init(&rig, device, &one.program);
    fill_zero_gradient(&rig, &u);
    rig_get(&rig, one.op.operands[LF_UPDATE_PARAMS], before);
    rig_run(&rig, LF_PHASE_UPDATE, LF_PHASE_UPDATE, 1);
    rig_get(&rig, one.op.operands[LF_UPDATE_PARAMS], after);
    for (uint32_t i = 0; i < N; i++)
        if (after[i] != before[i])
            fail_msg("lion on %s: weight %u was %.9g and is %.9g", device->info.id, i, before[i], after[i]);
    rig_finish(&rig);
}

typedef struct sweep_case {
    double read, written; // scales of what is only read, and of what is written too
    bool begins, updates;
} sweep_case;

static void fill_sweep(test_rig *rig, const void *context)
{
    const sweep_case *c = context;
    const lf_op *op = &rig->program->ops[0];
    const lf_op_info *info = lf_op_info_of(op->kind);
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++)
        if (op->operands[i] != LF_NO_TENSOR && info->operands[i].read && op->operands[i] != rig->program->schedule)
            rig_put_normal(rig, op->operands[i], 40 + i, info->operands[i].written ? c->written : c->read);
    struct lf_schedule_row row = schedule_row(&(lf_optimizer){ .lr = 1 }, ONE_OP_FIRST, 1, ONE_OP_TRAINING_STEP);
    row.begins = c->begins;
    row.updates = c->updates;
    one_op_put_row(rig, &row);
}

// `from` and `to`: the numbers of the operands, of `count` elements each.
static void check_sweep(lf_op op, lf_region from_region, unsigned from, lf_region to_region, unsigned to,
                        uint32_t count, sweep_case sweep, bool idle)
{
    char what[96];
    snprintf(what, sizeof what, "of %u, begins %d, updates %d", count, sweep.begins, sweep.updates);
    op.rows = 1;
    op.inputs = op.outputs = count;
    op_case c = {
        .op = op,
        .operands = { { .number = from, .region = from_region, .rows = 1, .cols = count },
                      { .number = to, .region = to_region, .rows = 1, .cols = count } },
        .operand_count = 2,
        .fill = fill_sweep,
        .context = &sweep,
        .what = what,
        .bound = 1e-6,
        .floor = 1,
        .idle = idle,
    };
    check_op(&c);
}

static const uint32_t counts[] = { 1, 31, 33, 1000, 20000 };

static void accumulate_begins_anew_or_adds(void **state)
{
    (void)state;
    lf_op op = { .kind = LF_OP_ACCUMULATE, .phase = LF_PHASE_REDUCE };
    for (size_t i = 0; i < COUNT(counts); i++)
        for (unsigned row = 0; row < 4; row++) {
            bool begins = row % 2;
            sweep_case c = { .read = 1, .written = begins ? (double)NAN : 1, .begins = begins, .updates = row / 2 };
            check_sweep(op, LF_REGION_GRADS, LF_ACCUMULATE_GRADS, LF_REGION_GRADS, LF_ACCUMULATE_SUM, counts[i], c,
                        false);
        }
}

static void average_moves_where_the_row_updates(void **state)
{
    (void)state;
    lf_op op = { .kind = LF_OP_AVERAGE, .phase = LF_PHASE_UPDATE, .share = .125f };
    for (size_t i = 0; i < COUNT(counts); i++)
        for (int updates = 0; updates < 2; updates++)
            check_sweep(op, LF_REGION_PARAMS, LF_AVERAGE_PARAMS, LF_REGION_AVERAGE, LF_AVERAGE_AVERAGE, counts[i],
                        (sweep_case){ .read = 1, .written = 1, .begins = !updates, .updates = updates }, !updates);
}

// A sum of squares of any length is exact to a few roundings, however many chunks it has.
static void sum_squares_has_a_partial_for_each_chunk(void **state)
{
    (void)state;
    static const uint32_t lengths[] = {
        1, 31, 33, 1000, LF_SQUARES_CHUNK - 1, LF_SQUARES_CHUNK, LF_SQUARES_CHUNK + 1, 5 * LF_SQUARES_CHUNK + 33, 101824
    };
    for (size_t i = 0; i < COUNT(lengths); i++) {
        uint32_t count = lengths[i], partials = (count + LF_SQUARES_CHUNK - 1) / LF_SQUARES_CHUNK;
        char what[64];
        snprintf(what, sizeof what, "of %u", count);
        sweep_case sweep = { .read = 3 };
        op_case c = {
            .op = { .kind = LF_OP_SUM_SQUARES, .phase = LF_PHASE_UPDATE, .rows = 1, .inputs = count, .outputs = count },
            .operands = { { .number = LF_SUM_SQUARES_X, .region = LF_REGION_GRADS, .rows = 1, .cols = count },
                          { .number = LF_SUM_SQUARES_OUT, .region = LF_REGION_ACTS, .rows = 1, .cols = partials } },
            .operand_count = 2,
            .fill = fill_sweep,
            .context = &sweep,
            .what = what,
            .bound = 2e-6,
            .floor = 1,
        };
        check_op(&c);
    }
}

typedef struct partials_case {
    double first, second; // scale of the partial sums, which are squares
} partials_case;

static void fill_partials(test_rig *rig, const void *context)
{
    const partials_case *c = context;
    const lf_op *op = &rig->program->ops[0];
    double *values = doubles(op->outputs);
    for (unsigned number = 0; number < (op->kind == LF_OP_TRUST ? 2u : 1u); number++) {
        for (uint32_t i = 0; i < op->outputs; i++)
            values[i] =
                (float)((number ? c->second : c->first) * (double)lf_uniform(51 + number, LF_STREAM_INIT, 0, i));
        rig_put(rig, op->operands[number], values);
    }
    free(values);
    one_op_put_schedule(rig, NULL, 1);
}

static void check_partials(lf_op op, uint32_t partials, double first, double second)
{
    bool trust = op.kind == LF_OP_TRUST;
    char what[96];
    snprintf(what, sizeof what, "of %u partial sums of %g and %g, clip_norm %g", partials, first, second,
             (double)op.clip_norm);
    op.phase = LF_PHASE_UPDATE;
    op.rows = 1;
    op.inputs = op.outputs = partials;
    partials_case context = { first, second };
    op_case c = {
        .op = op,
        .operands = { { .number = trust ? LF_TRUST_SCALE : LF_CLIP_SCALE,
                        .region = LF_REGION_ACTS,
                        .rows = 1,
                        .cols = 1 },
                      { .number = 0, .region = LF_REGION_ACTS, .rows = 1, .cols = partials },
                      { .number = 1, .region = LF_REGION_ACTS, .rows = 1, .cols = partials } },
        .operand_count = trust ? 3 : 2,
        .fill = fill_partials,
        .context = &context,
        .what = what,
        .bound = 2e-6,
        .floor = 1e-6,
    };
    check_op(&c);
}

static const uint32_t partial_counts[] = { 1, 2, 31, 33, 255, 257, 1000, 5000 };

static void clip_scales_down_to_the_norm(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(partial_counts); i++)
        for (int norm = 0; norm < 3; norm++) {
            lf_op op = { .kind = LF_OP_CLIP, .clip_norm = norm == 0 ? .01f : norm == 1 ? 1 : 1e6f };
            check_partials(op, partial_counts[i], 4, 0);
            check_partials(op, partial_counts[i], 0, 0); // no gradient at all
            check_partials(op, partial_counts[i], (double)NAN, 0);
        }
}

static void trust_is_the_ratio_of_the_norms(void **state)
{
    (void)state;
    lf_op op = { .kind = LF_OP_TRUST };
    for (size_t i = 0; i < COUNT(partial_counts); i++) {
        check_partials(op, partial_counts[i], 4, .5);
        check_partials(op, partial_counts[i], 1e-6, 100);
        check_partials(op, partial_counts[i], 0, 1); // either is 0: 1
        check_partials(op, partial_counts[i], 1, 0);
        check_partials(op, partial_counts[i], 0, 0);
    }
}

// The first number that `op` writes, from `first` and `second` for its operands 0 and 1, each (1, op.inputs).
static double known_scale(lf_op op, bool in_float64, const double *first, const double *second)
{
    bool trust = op.kind == LF_OP_TRUST;
    const operand operands[] = {
        { .number = trust ? LF_TRUST_SCALE : LF_CLIP_SCALE, .region = LF_REGION_ACTS, .rows = 1, .cols = 1 },
        { .number = 0, .region = LF_REGION_ACTS, .rows = 1, .cols = op.inputs },
        { .number = 1, .region = LF_REGION_ACTS, .rows = 1, .cols = op.inputs },
    };
    op.phase = LF_PHASE_UPDATE;
    op.rows = 1;
    op.outputs = op.inputs;
    one_op one;
    test_rig rig;
    double got;
    one_op_make(&one, op, operands, trust ? 3 : 2, in_float64);
    rig_init(&rig, in_float64 ? oracle : device, &one.program);
    rig_put(&rig, one.op.operands[0], first);
    if (trust)
        rig_put(&rig, one.op.operands[1], second);
    one_op_put_schedule(&rig, NULL, 1);
    rig_run(&rig, LF_PHASE_UPDATE, LF_PHASE_UPDATE, 1);
    rig_get(&rig, one.op.operands[operands[0].number], &got);
    rig_finish(&rig);
    return got;
}

static void scales_of_known_sums(void **state)
{
    (void)state;
    static const struct {
        lf_op_kind kind;
        double first[3], second[3], want;
        float clip_norm;
    } cases[] = {
        { LF_OP_CLIP, { 9, 0, 16 }, { 0 }, 1, 1e3f },
        { LF_OP_CLIP, { 9, 0, 16 }, { 0 }, .5 / (1 + 2e-7), 2.5f },
        { LF_OP_CLIP, { 0, 1e-12, 0 }, { 0 }, .5, 1e-6f }, // the norm is 1e-6
        { LF_OP_CLIP, { 0, 0, 0 }, { 0 }, 1, .5f },
        { LF_OP_CLIP, { 1, (double)NAN, 0 }, { 0 }, (double)NAN, 1e3f },
        { LF_OP_TRUST, { 9, 0, 16 }, { 1, 1, 2 }, 2.5, 0 },
        { LF_OP_TRUST, { 0, 0, 0 }, { 1, 1, 2 }, 1, 0 },
        { LF_OP_TRUST, { 9, 0, 16 }, { 0, 0, 0 }, 1, 0 },
        { LF_OP_TRUST, { 0, 0, 0 }, { 0, 0, 0 }, 1, 0 },
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        for (int in_float64 = 0; in_float64 < 2; in_float64++) {
            lf_op op = { .kind = cases[i].kind, .inputs = 3, .clip_norm = cases[i].clip_norm };
            double got = known_scale(op, in_float64, cases[i].first, cases[i].second), want = cases[i].want;
            if (isnan(want) ? !isnan(got) : !(fabs(got - want) <= 1e-6 * want))
                fail_msg("%s on %s: case %zu gives %.9g instead of %.9g", lf_op_info_of(op.kind)->name,
                         in_float64 ? "the oracle" : device->info.id, i, got, want);
        }
}

// Against sums taken here, on the device and on the oracle.
static void sums_of_squares_are_those_of_their_chunks(void **state)
{
    (void)state;
    enum { N = 5 * LF_SQUARES_CHUNK + 33, PARTIALS = 6 };
    const operand operands[] = {
        { .number = LF_SUM_SQUARES_X, .region = LF_REGION_GRADS, .rows = 1, .cols = N },
        { .number = LF_SUM_SQUARES_OUT, .region = LF_REGION_ACTS, .rows = 1, .cols = PARTIALS },
    };
    lf_op op = { .kind = LF_OP_SUM_SQUARES, .phase = LF_PHASE_UPDATE, .rows = 1, .inputs = N, .outputs = N };
    double *x = doubles(N), got[PARTIALS];
    for (int in_float64 = 0; in_float64 < 2; in_float64++) {
        one_op one;
        test_rig rig;
        one_op_make(&one, op, operands, COUNT(operands), in_float64);
        rig_init(&rig, in_float64 ? oracle : device, &one.program);
        rig_put_normal(&rig, one.op.operands[LF_SUM_SQUARES_X], 61, 1);
        one_op_put_schedule(&rig, NULL, 1);
        rig_run(&rig, LF_PHASE_UPDATE, LF_PHASE_UPDATE, 1);
        rig_get(&rig, one.op.operands[LF_SUM_SQUARES_X], x);
        rig_get(&rig, one.op.operands[LF_SUM_SQUARES_OUT], got);
        for (size_t i = 0; i < PARTIALS; i++) {
            double want = 0;
            for (size_t j = i * LF_SQUARES_CHUNK; j < (i + 1) * LF_SQUARES_CHUNK && j < N; j++)
                want += x[j] * x[j];
            if (!(fabs(got[i] - want) <= 2e-6 * want))
                fail_msg("sum_squares on %s: partial sum %zu is %.9g instead of %.9g",
                         in_float64 ? "the oracle" : device->info.id, i, got[i], want);
        }
        rig_finish(&rig);
    }
    free(x);
}

int run_sweep_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(optimizers_are_the_oracles),
        cmocka_unit_test(optimizers_do_nothing_where_the_row_does_not_update),
        cmocka_unit_test(lion_leaves_weights_without_a_gradient),
        cmocka_unit_test(accumulate_begins_anew_or_adds),
        cmocka_unit_test(average_moves_where_the_row_updates),
        cmocka_unit_test(sum_squares_has_a_partial_for_each_chunk),
        cmocka_unit_test(sums_of_squares_are_those_of_their_chunks),
        cmocka_unit_test(clip_scales_down_to_the_norm),
        cmocka_unit_test(trust_is_the_ratio_of_the_norms),
        cmocka_unit_test(scales_of_known_sums),
    };
    return cmocka_run_group_tests_name("sweeps", tests, NULL, NULL);
}
