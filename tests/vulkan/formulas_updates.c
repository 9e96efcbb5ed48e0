// Optimizers, accumulated gradients, averages, sums of squares and the scales made of them against their formulas.
#include "op_run.h"

typedef struct update_case {
    uint32_t count;
    lf_optimizer optimizer;
    bool scaled; // by .625
    bool idle;   // the schedule's row does not update
} update_case;

static lf_op update_op(const update_case *c)
{
    static const lf_op_kind kinds[LF_OPTIMIZER_COUNT] = {
        [LF_OPTIMIZER_SGD] = LF_OP_SGD,         [LF_OPTIMIZER_ADAM] = LF_OP_ADAM, [LF_OPTIMIZER_ADAMW] = LF_OP_ADAM,
        [LF_OPTIMIZER_RMSPROP] = LF_OP_RMSPROP, [LF_OPTIMIZER_LION] = LF_OP_LION, [LF_OPTIMIZER_LAMB] = LF_OP_LAMB,
    };
    const lf_optimizer *o = &c->optimizer;
    lf_op op = run_op(kinds[o->kind], 1, c->count);
    op.beta1 = o->beta1;
    op.beta2 = o->beta2;
    op.eps = o->eps;
    op.momentum = o->momentum;
    op.nesterov = o->nesterov;
    op.weight_decay = o->weight_decay;
    op.clip_value = o->clip_value;
    op.decoupled = o->kind == LF_OPTIMIZER_ADAMW;
    return op;
}

// One number of each block.
typedef struct element {
    double w, g, m, v;
} element;

static void update(const update_case *c, const struct lf_schedule_row *row, element *e)
{
    const lf_optimizer *o = &c->optimizer;
    double lr = (double)row->lr, beta1 = (double)o->beta1, beta2 = (double)o->beta2, decay = (double)o->weight_decay,
           momentum = (double)o->momentum, eps = (double)o->eps, limit = (double)o->clip_value;
    double g = c->scaled ? .625 * e->g : e->g;
    if (limit > 0 && !isnan(g))
        g = fmax(-limit, fmin(limit, g));
    switch (o->kind) {
    case LF_OPTIMIZER_SGD:
        g += decay * e->w;
        e->m = momentum * e->m + g;
        e->w -= lr * (o->nesterov ? g + momentum * e->m : e->m);
        return;
    case LF_OPTIMIZER_RMSPROP:
        g += decay * e->w;
        e->v = beta2 * e->v + (1 - beta2) * g * g;
        e->m = momentum * e->m + g / (sqrt(e->v) + eps);
        e->w -= lr * e->m;
        return;
    case LF_OPTIMIZER_LION: {
        double mixed = beta1 * e->m + (1 - beta1) * g;
        e->w -= lr * ((isnan(mixed) ? mixed : (mixed > 0) - (mixed < 0)) + decay * e->w);
        e->m = beta2 * e->m + (1 - beta2) * g;
        return;
    }
    default:
        break;
    }
    if (o->kind == LF_OPTIMIZER_ADAM)
        g += decay * e->w;
    e->m = beta1 * e->m + (1 - beta1) * g;
    e->v = beta2 * e->v + (1 - beta2) * g * g;
    double step = (double)row->step_size * e->m / (sqrt(e->v) * (double)row->inv_sqrt_correct2 + eps);
    if (o->kind == LF_OPTIMIZER_LAMB)
        e->g = step + decay * e->w;
    else
        e->w = e->w * (o->kind == LF_OPTIMIZER_ADAMW ? 1 - lr * decay : 1) - step;
}

// The gradients stand behind the weights in one region, so that no range but one begins a region.
static void check_update(const update_case *c)
{
    const lf_optimizer *o = &c->optimizer;
    bool keeps[] = { lf_optimizer_keeps(o, LF_MOMENT_M), lf_optimizer_keeps(o, LF_MOMENT_V) };
    operand operands[5] = {
        { .number = LF_UPDATE_PARAMS, .region = LF_REGION_PARAMS, .rows = 1, .cols = c->count },
        { .number = LF_UPDATE_GRADS, .region = LF_REGION_PARAMS, .rows = 1, .cols = c->count },
    };
    size_t count = 2;
    for (unsigned i = 0; i < LF_MOMENT_COUNT; i++)
        if (keeps[i])
            operands[count++] =
                (operand){ .number = LF_UPDATE_M + i, .region = LF_REGION_MOMENTS, .rows = 1, .cols = c->count };
    if (c->scaled)
        operands[count++] = run_acts(LF_UPDATE_SCALE, 1, 1);
    op_run run;
    run_start(&run, update_op(c), false, operands, count);
    run_note(&run, ": %s, momentum %g%s, decay %g, clip_value %g%s%s", lf_optimizer_name(o->kind), (double)o->momentum,
             o->nesterov ? " nesterov" : "", (double)o->weight_decay, (double)o->clip_value,
             c->scaled ? ", scaled" : "", c->idle ? ", idle" : "");
    struct lf_schedule_row row = schedule_row(o, FIRST, 1, 4);
    row.updates = !c->idle;
    one_op_put_row(&run.rig, &row);

    double *params = run_put_normal(&run, LF_UPDATE_PARAMS, 0, 1), *grads = run_put_normal(&run, LF_UPDATE_GRADS, 0, 1),
           *none = run_numbers(&run, c->count), *m = none, *v = none;
    grads[1] = grads[2] = (double)NAN; // stays NaN whatever the limits
    if (o->clip_value > 0) {
        grads[5] = (double)INFINITY;
        grads[6] = -(double)INFINITY;
    }
    run_put(&run, LF_UPDATE_GRADS, grads);
    if (keeps[LF_MOMENT_M])
        m = run_put_normal(&run, LF_UPDATE_M, 0, .5);
    if (keeps[LF_MOMENT_V]) {
        v = run_put_normal(&run, LF_UPDATE_V, 0, .5);
        for (uint32_t i = 0; i < c->count; i++)
            v[i] = fabs(v[i]);
        run_put(&run, LF_UPDATE_V, v);
    }
    if (c->scaled)
        run_put(&run, LF_UPDATE_SCALE, &(double){ .625 });
    run_once(&run);
    for (uint32_t i = 0; i < c->count && !c->idle; i++) {
        element e = { params[i], grads[i], keeps[LF_MOMENT_M] ? m[i] : 0, keeps[LF_MOMENT_V] ? v[i] : 0 };
        update(c, &row, &e);
        params[i] = e.w;
        grads[i] = e.g;
        if (keeps[LF_MOMENT_M])
            m[i] = e.m;
        if (keeps[LF_MOMENT_V])
            v[i] = e.v;
    }
    double bound = c->idle ? 0 : 2e-6, floor = c->idle ? 0 : 1;
    run_expect(&run, LF_UPDATE_PARAMS, params, bound, floor);
    run_expect(&run, LF_UPDATE_GRADS, grads, bound, floor);
    if (keeps[LF_MOMENT_M])
        run_expect(&run, LF_UPDATE_M, m, bound, floor);
    if (keeps[LF_MOMENT_V])
        run_expect(&run, LF_UPDATE_V, v, bound, floor);
    run_finish(&run);
}

// Large rates, so that a wrong update stands out of the bound. Bits 0 and 1 of the variant: decay, momentum.
static update_case update_case_of(lf_optimizer_kind kind, unsigned variant, uint32_t count)
{
    update_case c = { .count = count, .optimizer = lf_optimizer_default(kind) };
    bool has_momentum = kind == LF_OPTIMIZER_SGD || kind == LF_OPTIMIZER_RMSPROP;
    c.optimizer.lr = kind == LF_OPTIMIZER_RMSPROP ? .0625 : .25;
    c.optimizer.weight_decay = variant & 1 ? .125f : 0;
    c.optimizer.momentum = has_momentum && variant & 2 ? .75f : 0;
    c.optimizer.nesterov = kind == LF_OPTIMIZER_SGD && (variant & 3) == 3;
    c.optimizer.eps = .0625f;
    c.scaled = variant & 4;
    c.optimizer.clip_value = variant & 8 ? .5f : 0;
    return c;
}

static void optimizers_are_the_formulas(void **state)
{
    (void)state;
    static const uint32_t counts[] = { 64, 192, 4160, 33024 };
    for (lf_optimizer_kind kind = LF_OPTIMIZER_SGD; kind < LF_OPTIMIZER_COUNT; kind++)
        for (unsigned variant = 0; variant < 16; variant++)
            for (size_t i = 0; i < COUNT(counts); i++) {
                update_case c = update_case_of(kind, variant, counts[i]);
                check_update(&c);
            }
}

static void optimizers_rest_where_the_row_does_not_update(void **state)
{
    (void)state;
    for (lf_optimizer_kind kind = LF_OPTIMIZER_SGD; kind < LF_OPTIMIZER_COUNT; kind++)
        for (unsigned variant = 0; variant < 16; variant++) {
            update_case c = update_case_of(kind, variant, 4160);
            c.idle = true;
            check_update(&c);
        }
}

static void lion_rests_where_nothing_pulls(void **state)
{
    (void)state;
    const update_case c = update_case_of(LF_OPTIMIZER_LION, 0, 64);
    const operand operands[] = {
        { .number = LF_UPDATE_PARAMS, .region = LF_REGION_PARAMS, .rows = 1, .cols = c.count },
        { .number = LF_UPDATE_GRADS, .region = LF_REGION_GRADS, .rows = 1, .cols = c.count },
        { .number = LF_UPDATE_M, .region = LF_REGION_MOMENTS, .rows = 1, .cols = c.count },
    };
    op_run run;
    run_start(&run, update_op(&c), false, operands, COUNT(operands)); // gradients and moments are zero
    double *params = run_put_normal(&run, LF_UPDATE_PARAMS, 0, 1);
    run_once(&run);
    run_expect(&run, LF_UPDATE_PARAMS, params, 0, 0);
    run_finish(&run);
}

static const uint32_t counts[] = { 1, 31, 33, 1000, 33024 };

static void gradients_accumulate_until_a_row_begins(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(counts); i++)
        for (unsigned bits = 0; bits < 4; bits++) {
            const operand operands[] = {
                { .number = LF_ACCUMULATE_GRADS, .region = LF_REGION_GRADS, .rows = 1, .cols = counts[i] },
                { .number = LF_ACCUMULATE_SUM, .region = LF_REGION_GRADS, .rows = 1, .cols = counts[i] },
            };
            op_run run;
            run_start(&run, run_op(LF_OP_ACCUMULATE, 1, counts[i]), false, operands, COUNT(operands));
            struct lf_schedule_row row = schedule_row(&(lf_optimizer){ .lr = 1 }, FIRST, 1, STEP);
            row.begins = bits & 1;
            row.updates = bits >> 1; // counts nothing here
            one_op_put_row(&run.rig, &row);
            double *grads = run_put_normal(&run, LF_ACCUMULATE_GRADS, 0, 1),
                   *sum = run_put_normal(&run, LF_ACCUMULATE_SUM, 0, row.begins ? (double)NAN : 1);
            run_once(&run);
            for (uint32_t e = 0; e < counts[i]; e++)
                sum[e] = row.begins ? grads[e] : (double)((float)sum[e] + (float)grads[e]);
            run_expect(&run, LF_ACCUMULATE_SUM, sum, 0, 0);
            run_finish(&run);
        }
}

static void averages_move_where_the_row_updates(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(counts); i++)
        for (unsigned bits = 0; bits < 4; bits++) {
            lf_op op = run_op(LF_OP_AVERAGE, 1, counts[i]);
            op.share = .125f;
            const operand operands[] = {
                { .number = LF_AVERAGE_PARAMS, .region = LF_REGION_PARAMS, .rows = 1, .cols = counts[i] },
                { .number = LF_AVERAGE_AVERAGE, .region = LF_REGION_AVERAGE, .rows = 1, .cols = counts[i] },
            };
            op_run run;
            run_start(&run, op, false, operands, COUNT(operands));
            struct lf_schedule_row row = schedule_row(&(lf_optimizer){ .lr = 1 }, FIRST, 1, STEP);
            row.begins = bits & 1; // counts nothing here
            row.updates = bits >> 1;
            one_op_put_row(&run.rig, &row);
            double *params = run_put_normal(&run, LF_AVERAGE_PARAMS, 0, 1),
                   *average = run_put_normal(&run, LF_AVERAGE_AVERAGE, 0, 1);
            run_once(&run);
            for (uint32_t e = 0; e < counts[i] && row.updates; e++)
                average[e] += .125 * (params[e] - average[e]);
            run_expect(&run, LF_AVERAGE_AVERAGE, average, row.updates ? 1e-6 : 0, row.updates);
            run_finish(&run);
        }
}

// What stands behind the last element, in its group of four too, counts nothing.
static void spoil_behind(op_run *run, unsigned number)
{
    const lf_tensor *tensor = lf_op_tensor(&run->one.program, &run->one.op, number);
    float nans[32];
    lf_error err;
    for (size_t i = 0; i < COUNT(nans); i++)
        nans[i] = NAN;
    if (!lf_device_buffer_write(device, run->rig.regions.region[tensor->region],
                                tensor->offset + lf_tensor_bytes(tensor), nans, sizeof nans, &err))
        fail_msg("%s", err.text);
}

static void sums_of_squares_are_the_formula(void **state)
{
    (void)state;
    enum { CHUNK = LF_SQUARES_CHUNK };
    static const uint32_t lengths[] = { 1,         31,        33,    1000,   CHUNK,          CHUNK - 1,
                                        CHUNK + 1, 2 * CHUNK, 33023, 101824, 300 * CHUNK + 5 };
    for (size_t i = 0; i < COUNT(lengths); i++)
        for (int poisoned = 0; poisoned < 2; poisoned++) {
            uint32_t length = lengths[i], partials = (length + CHUNK - 1) / CHUNK;
            const operand operands[] = {
                { .number = LF_SUM_SQUARES_X, .region = LF_REGION_GRADS, .rows = 1, .cols = length },
                run_acts(LF_SUM_SQUARES_OUT, 1, partials),
            };
            op_run run;
            run_start(&run, run_op(LF_OP_SUM_SQUARES, 1, length), false, operands, COUNT(operands));
            double *x = run_put_normal(&run, LF_SUM_SQUARES_X, 0, 3), *want = run_numbers(&run, partials);
            spoil_behind(&run, LF_SUM_SQUARES_X);
            if (poisoned) {
                x[length - 1] = (double)NAN; // stays in its chunk
                run_put(&run, LF_SUM_SQUARES_X, x);
            }
            run_once(&run);
            for (uint32_t e = 0; e < length; e++)
                want[e / CHUNK] += x[e] * x[e];
            run_expect(&run, LF_SUM_SQUARES_OUT, want, 2e-6, 0);
            run_finish(&run);
        }
}

static const uint32_t partial_counts[] = { 1, 2, 31, 33, 257, 5000 };

static double put_partials(op_run *run, unsigned number, double scale)
{
    size_t count = rig_elements(&run->one.program, run->one.op.operands[number]);
    double *values = run_put_normal(run, number, 0, scale), sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += values[i] = fabs(values[i]);
    run_put(run, number, values);
    return sum;
}

static void clip_is_the_formula(void **state)
{
    (void)state;
    static const double scales[] = { 1, 0, (double)NAN, (double)INFINITY }, norms[] = { .25, .999, 1.001, 8 };
    for (size_t i = 0; i < COUNT(partial_counts); i++)
        for (size_t s = 0; s < COUNT(scales); s++)
            for (size_t n = 0; n < COUNT(norms); n++) {
                const operand operands[] = { run_acts(LF_CLIP_SCALE, 1, 1),
                                             run_acts(LF_CLIP_PARTIALS, 1, partial_counts[i]) };
                lf_op op = run_op(LF_OP_CLIP, 1, partial_counts[i]);
                double sum = 0;
                for (uint32_t e = 0; e < partial_counts[i]; e++) // as put_partials will have it
                    sum += (double)fabsf(lf_normal(17, LF_STREAM_INIT, LF_CLIP_PARTIALS, e));
                op.clip_norm = (float)(norms[n] * sqrt(sum));
                op_run run;
                run_start(&run, op, false, operands, COUNT(operands));
                run_note(&run, ", clip_norm %g of sums of %g", (double)op.clip_norm, scales[s]);
                sum = put_partials(&run, LF_CLIP_PARTIALS, scales[s]);
                run_once(&run);
                double factor = (double)op.clip_norm / (sqrt(sum) + 1e-6);
                run_expect(&run, LF_CLIP_SCALE, &(double){ factor > 1 ? 1 : factor }, 2e-6, 0);
                run_finish(&run);
            }
}

static void trust_is_the_formula(void **state)
{
    (void)state;
    static const double scales[][2] = { { 4, .5 }, { 1e-6, 100 }, { 0, 1 }, { 1, 0 }, { 0, 0 }, { (double)NAN, 1 } };
    for (size_t i = 0; i < COUNT(partial_counts); i++)
        for (size_t s = 0; s < COUNT(scales); s++) {
            uint32_t count = partial_counts[i];
            const operand operands[] = { run_acts(LF_TRUST_SCALE, 1, 1), run_acts(LF_TRUST_WEIGHTS, 1, count),
                                         run_acts(LF_TRUST_DIRECTION, 1, count) };
            op_run run;
            run_start(&run, run_op(LF_OP_TRUST, 1, count), false, operands, COUNT(operands));
            run_note(&run, ", sums of %g and %g", scales[s][0], scales[s][1]);
            double weights = put_partials(&run, LF_TRUST_WEIGHTS, scales[s][0]),
                   direction = put_partials(&run, LF_TRUST_DIRECTION, scales[s][1]);
            run_once(&run);
            double want = weights == 0 || direction == 0 ? 1 : sqrt(weights) / sqrt(direction);
            run_expect(&run, LF_TRUST_SCALE, &want, 2e-6, 0);
            run_finish(&run);
        }
}

int run_update_formulas(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(optimizers_are_the_formulas),
        cmocka_unit_test(optimizers_rest_where_the_row_does_not_update),
        cmocka_unit_test(lion_rests_where_nothing_pulls),
        cmocka_unit_test(gradients_accumulate_until_a_row_begins),
        cmocka_unit_test(averages_move_where_the_row_updates),
        cmocka_unit_test(sums_of_squares_are_the_formula),
        cmocka_unit_test(clip_is_the_formula),
        cmocka_unit_test(trust_is_the_formula),
    };
    return cmocka_run_group_tests_name("updates", tests, NULL, NULL);
}
