// The oracle's losses, optimizers and the sweeps around them, each against the textbook's formula, written here once
// more and one number at a time.
#include "suite.h"
#include "trainer.h"

enum { BATCH = 6, ROWS = 4, OUTPUTS = 3 }; // the batch is short: its two empty rows must count nowhere

static test_training make_training(lf_loss loss)
{
    return (test_training){
        .what = lf_loss_name(loss),
        .layers = { LINEAR(5, 7), ACTIVATION(LF_ACT_TANH), LINEAR(7, 6), ACTIVATION(LF_ACT_SILU), LINEAR(6, OUTPUTS) },
        .layer_count = 5,
        .loss = loss,
        .loss_options = { .delta = .75f },
        .optimizer = { .kind = LF_OPTIMIZER_SGD, .lr = .1 },
        .rows = ROWS,
        .batch = BATCH,
        .steps = 1,
        .stored = LF_F32,
        .weighted = true,
    };
}

// A row of the batch after the forward pass.
typedef struct row_values {
    double z[OUTPUTS], teacher[OUTPUTS], values[OUTPUTS], weight, metrics[LF_METRIC_COUNT];
    uint32_t label;
} row_values;

static void read_row(const test_trainer *t, uint32_t i, row_values *out)
{
    const lf_program *program = t->program;
    double z[BATCH][OUTPUTS], metrics[BATCH][LF_METRIC_COUNT], order[ROWS], weights[ROWS], labels[ROWS];
    double values[ROWS][OUTPUTS], teacher[ROWS][OUTPUTS];
    rig_get(&t->rig, program->output, z[0]);
    rig_get(&t->rig, program->metrics, metrics[0]);
    rig_get(&t->rig, program->order, order);
    *out = (row_values){ .weight = 0 };
    memcpy(out->z, z[i], sizeof out->z);
    memcpy(out->metrics, metrics[i], sizeof out->metrics);
    if (i >= ROWS)
        return;
    uint32_t row = (uint32_t)order[i];
    rig_get(&t->rig, program->row_weights, weights);
    out->weight = weights[row];
    if (program->tensors[program->targets].type == LF_U32) {
        rig_get(&t->rig, program->targets, labels);
        out->label = (uint32_t)labels[row];
    } else {
        rig_get(&t->rig, program->targets, values[0]);
        memcpy(out->values, values[row], sizeof out->values);
    }
    if (program->teacher != LF_NO_TENSOR) {
        rig_get(&t->rig, program->teacher, teacher[0]);
        memcpy(out->teacher, teacher[row], sizeof out->teacher);
    }
}

// -Σ target log softmax(z), the target smoothed: 1 - s of it the label's, and s spread over all.
static double textbook_cross_entropy(const row_values *r, double smoothing)
{
    double sum = 0, loss = 0;
    for (uint32_t j = 0; j < OUTPUTS; j++)
        sum += exp(r->z[j]);
    for (uint32_t j = 0; j < OUTPUTS; j++)
        loss -= ((j == r->label) * (1 - smoothing) + smoothing / OUTPUTS) * log(exp(r->z[j]) / sum);
    return loss;
}

// α T² Σ p log(p / q) + (1 - α) cross-entropy, with q = softmax(z / T) and 0 log 0 = 0.
static double textbook_distillation(const row_values *r, double alpha, double temperature, double smoothing)
{
    double sum = 0, divergence = 0;
    for (uint32_t j = 0; j < OUTPUTS; j++)
        sum += exp(r->z[j] / temperature);
    for (uint32_t j = 0; j < OUTPUTS; j++)
        divergence += r->teacher[j] > 0 ? r->teacher[j] * log(r->teacher[j] / (exp(r->z[j] / temperature) / sum)) : 0;
    return alpha * temperature * temperature * divergence + (1 - alpha) * textbook_cross_entropy(r, smoothing);
}

static double textbook_value(lf_loss loss, double delta, double z, double target)
{
    double p = 1 / (1 + exp(-z)), d = fabs(z - target);
    switch (loss) {
    case LF_LOSS_BINARY_CROSS_ENTROPY:
        return -target * log(p) - (1 - target) * log(1 - p);
    case LF_LOSS_MAE:
        return d;
    case LF_LOSS_HUBER:
        return d <= delta ? d * d / 2 : delta * (d - delta / 2);
    default:
        return d * d;
    }
}

static void expect(const char *what, uint32_t row, const char *name, double got, double want)
{
    if (!(fabs(got - want) <= 1e-13 * fmax(1, fabs(want))))
        fail_msg("%s, row %u: %s is %.17g instead of %.17g", what, row, name, got, want);
}

static void check_classes(const test_training *training)
{
    test_trainer t;
    trainer_init(&t, oracle, training, true);
    rig_run(&t.rig, LF_PHASE_LOAD, LF_PHASE_FORWARD, 1);
    double alpha = (double)training->soft_weight, temperature = (double)training->temperature,
           smoothing = (double)training->loss_options.label_smoothing;
    for (uint32_t i = 0; i < ROWS; i++) {
        row_values r;
        read_row(&t, i, &r);
        uint32_t best = 0, beaten = 0;
        for (uint32_t j = 0; j < OUTPUTS; j++) {
            best = r.z[j] > r.z[best] ? j : best;
            beaten += r.z[j] > r.z[r.label];
        }
        double loss = temperature > 0 ? textbook_distillation(&r, alpha, temperature, smoothing)
                                      : textbook_cross_entropy(&r, smoothing);
        expect(training->what, i, "loss", r.metrics[LF_METRIC_LOSS], r.weight * loss);
        expect(training->what, i, "weight", r.metrics[LF_METRIC_WEIGHT], r.weight);
        expect(training->what, i, "label", r.metrics[LF_METRIC_LABEL], r.label);
        expect(training->what, i, "class", r.metrics[LF_METRIC_CLASS], best);
        expect(training->what, i, "rank", r.metrics[LF_METRIC_RANK], beaten);
    }
    trainer_finish(&t);
}

static void losses_of_classes_are_the_textbooks(void **state)
{
    (void)state;
    static const float options[][3] = { { 0, 0, 0 }, { 0, 0, .25f },     { 0, 2, 0 },
                                        { 1, 3, 0 }, { .25f, 4, .125f }, { .75f, .5f, .5f } };
    for (size_t i = 0; i < COUNT(options); i++) {
        test_training training = make_training(LF_LOSS_CROSS_ENTROPY);
        training.soft_weight = options[i][0];
        training.temperature = options[i][1];
        training.loss_options.label_smoothing = options[i][2];
        check_classes(&training);
    }
}

static void check_values(const test_training *training)
{
    test_trainer t;
    trainer_init(&t, oracle, training, true);
    rig_run(&t.rig, LF_PHASE_LOAD, LF_PHASE_FORWARD, 1);
    bool binary = training->loss == LF_LOSS_BINARY_CROSS_ENTROPY;
    double alpha = training->temperature > 0 ? (double)training->soft_weight : 0;
    for (uint32_t i = 0; i < ROWS; i++) {
        row_values r;
        read_row(&t, i, &r);
        double loss = 0, squared = 0, absolute = 0, wrong = 0;
        for (uint32_t j = 0; j < OUTPUTS; j++) {
            double z = r.z[j], target = r.values[j], p = binary ? 1 / (1 + exp(-z)) : z, far = z - r.teacher[j];
            loss += (1 - alpha) * textbook_value(training->loss, (double)training->loss_options.delta, z, target) +
                    alpha * far * far;
            squared += (p - target) * (p - target);
            absolute += fabs(p - target);
            wrong += binary && (p > .5) != (target > .5);
        }
        expect(training->what, i, "loss", r.metrics[LF_METRIC_LOSS], r.weight * loss / OUTPUTS);
        expect(training->what, i, "weight", r.metrics[LF_METRIC_WEIGHT], r.weight);
        expect(training->what, i, "squared", r.metrics[LF_METRIC_SQUARED], squared / OUTPUTS);
        expect(training->what, i, "absolute", r.metrics[LF_METRIC_ABSOLUTE], absolute / OUTPUTS);
        expect(training->what, i, "wrong", r.metrics[LF_METRIC_WRONG], wrong / OUTPUTS);
    }
    trainer_finish(&t);
}

static void losses_of_values_are_the_textbooks(void **state)
{
    (void)state;
    for (lf_loss loss = LF_LOSS_BINARY_CROSS_ENTROPY; loss < LF_LOSS_COUNT; loss++)
        for (int variant = 0; variant < 4; variant++) {
            test_training training = make_training(loss);
            training.loss_options.delta = variant % 2 ? .125f : 2; // most distances on one side, or on the other
            training.soft_weight = .75f;
            training.temperature = variant >= 2 ? 1 : 0;
            check_values(&training);
        }
}

static void rows_past_the_batch_have_metrics_of_zero(void **state)
{
    (void)state;
    for (lf_loss loss = LF_LOSS_CROSS_ENTROPY; loss < LF_LOSS_COUNT; loss++) {
        test_training training = make_training(loss);
        test_trainer t;
        trainer_init(&t, oracle, &training, true);
        rig_run(&t.rig, LF_PHASE_LOAD, LF_PHASE_FORWARD, 1);
        for (uint32_t i = ROWS; i < BATCH; i++) {
            row_values r;
            read_row(&t, i, &r);
            for (unsigned m = 0; m < LF_METRIC_COUNT; m++)
                expect(training.what, i, "a metric", r.metrics[m], 0);
        }
        trainer_finish(&t);
    }
}

// A loss, and a hint's loss on top of it; and teachers that run in the program speak as their mean.
static void hints_and_teachers_are_the_textbooks(void **state)
{
    (void)state;
    test_training training = make_training(LF_LOSS_CROSS_ENTROPY);
    training.soft_weight = .5f;
    training.temperature = 2;
    training.teachers = 2;
    training.hints[0] = (lf_hint){ "tanh_1", "silu_1", .75f };
    training.hint_count = 1;
    test_trainer t;
    trainer_init(&t, oracle, &training, true);
    rig_run(&t.rig, LF_PHASE_LOAD, LF_PHASE_FORWARD, 1);
    enum { WIDTH = 6 }; // of the teacher's silu_1
    double projected[BATCH][WIDTH], wanted[BATCH][WIDTH], mean[BATCH][OUTPUTS], z[2][BATCH][OUTPUTS];
    const lf_op *hint = NULL;
    for (size_t i = 0; i < t.program->op_count; i++)
        if (t.program->ops[i].kind == LF_OP_VALUE_LOSS)
            hint = &t.program->ops[i];
    assert_non_null(hint);
    rig_get(&t.rig, hint->operands[LF_LOSS_Z], projected[0]);
    rig_get(&t.rig, hint->operands[LF_LOSS_TARGET], wanted[0]);
    rig_get(&t.rig, find_tensor(t.program, "teacher"), mean[0]);
    rig_get(&t.rig, find_tensor(t.program, "teacher_1/linear_3"), z[0][0]);
    rig_get(&t.rig, find_tensor(t.program, "teacher_2/linear_3"), z[1][0]);
    for (uint32_t i = 0; i < ROWS; i++) {
        row_values r;
        read_row(&t, i, &r);
        for (uint32_t k = 0; k < 2; k++) {
            double sum = 0;
            for (uint32_t j = 0; j < OUTPUTS; j++)
                sum += exp(z[k][i][j] / 2);
            for (uint32_t j = 0; j < OUTPUTS; j++)
                r.teacher[j] += exp(z[k][i][j] / 2) / sum / 2;
        }
        for (uint32_t j = 0; j < OUTPUTS; j++)
            expect("teachers", i, "their mean", mean[i][j], r.teacher[j]);
        double loss = textbook_distillation(&r, .5, 2, 0);
        for (uint32_t j = 0; j < WIDTH; j++)
            loss += .75 / WIDTH * (projected[i][j] - wanted[i][j]) * (projected[i][j] - wanted[i][j]);
        expect("hints", i, "loss", r.metrics[LF_METRIC_LOSS], r.weight * loss);
    }
    trainer_finish(&t);
}

// One update of one weight, as the papers write it; t counts from 1. Returns lamb's direction.
static double textbook_update(const lf_optimizer *o, int t, double decay, double g, double *w, double *m, double *v)
{
    double lr = o->lr, beta1 = (double)o->beta1, beta2 = (double)o->beta2, momentum = (double)o->momentum;
    if (o->kind == LF_OPTIMIZER_SGD) {
        g += decay * *w;
        *m = momentum * *m + g;
        *w -= lr * (o->nesterov ? g + momentum * *m : *m);
        return 0;
    }
    if (o->kind == LF_OPTIMIZER_RMSPROP) {
        g += decay * *w;
        *v = beta2 * *v + (1 - beta2) * g * g;
        *m = momentum * *m + g / (sqrt(*v) + (double)o->eps);
        *w -= lr * *m;
        return 0;
    }
    if (o->kind == LF_OPTIMIZER_LION) {
        double mixed = beta1 * *m + (1 - beta1) * g;
        *w -= lr * ((mixed > 0) - (mixed < 0) + decay * *w);
        *m = beta2 * *m + (1 - beta2) * g;
        return 0;
    }
    if (o->kind == LF_OPTIMIZER_ADAM)
        g += decay * *w;
    if (o->kind == LF_OPTIMIZER_ADAMW)
        *w -= lr * decay * *w;
    *m = beta1 * *m + (1 - beta1) * g;
    *v = beta2 * *v + (1 - beta2) * g * g;
    double m_hat = *m / (1 - pow(beta1, t)), v_hat = *v / (1 - pow(beta2, t));
    double step = m_hat / (sqrt(v_hat) + (double)o->eps);
    if (o->kind == LF_OPTIMIZER_LAMB)
        return step + decay * *w;
    *w -= lr * step;
    return 0;
}

static bool is_kernel(const lf_param *param)
{
    return strstr(param->name, "/kernel") != NULL;
}

// Each of the tensors by itself: by lr, times the ratio of the norms where it decays.
static void textbook_lamb(const lf_optimizer *o, const lf_param *param, const double *direction, double *w)
{
    double weights = 0, directions = 0, trust = 1;
    for (size_t e = 0; e < lf_param_size(param); e++) {
        weights += w[e] * w[e];
        directions += direction[e] * direction[e];
    }
    if (is_kernel(param) || o->decay_bias)
        trust = sqrt(weights / directions);
    for (size_t e = 0; e < lf_param_size(param); e++)
        w[e] -= o->lr * trust * direction[e];
}

// The state of a training that is repeated by hand, each array as long as the block.
typedef struct by_hand {
    double *w, *m, *v, *g, *direction, *average, *got;
} by_hand;

static double textbook_clip(const lf_optimizer *o, const lf_model *model, const double *g)
{
    double sum = 0;
    for (size_t p = 0; p < model->tensor_count; p++)
        for (size_t e = 0; e < lf_param_size(&model->tensors[p]); e++)
            sum += g[model->tensors[p].offset + e] * g[model->tensors[p].offset + e];
    return o->clip_norm != 0 ? fmin(1, (double)o->clip_norm / (sqrt(sum) + 1e-6)) : 1;
}

static void update_by_hand(const test_training *training, const lf_model *model, int t, const by_hand *h)
{
    const lf_optimizer *o = &training->optimizer;
    double scale = textbook_clip(o, model, h->g), limit = o->clip_value != 0 ? (double)o->clip_value : INFINITY;
    for (size_t p = 0; p < model->tensor_count; p++) {
        const lf_param *param = &model->tensors[p];
        double decay = o->decay_bias || is_kernel(param) ? (double)o->weight_decay : 0;
        for (size_t at = param->offset; at < param->offset + lf_param_size(param); at++) {
            double g = fmax(-limit, fmin(limit, scale * h->g[at]));
            h->direction[at] = textbook_update(o, t, decay, g, &h->w[at], &h->m[at], &h->v[at]);
        }
        if (o->kind == LF_OPTIMIZER_LAMB)
            textbook_lamb(o, param, h->direction + param->offset, h->w + param->offset);
        for (size_t at = param->offset; at < param->offset + lf_param_size(param); at++)
            h->average[at] = (double)training->average * h->average[at] + (1 - (double)training->average) * h->w[at];
    }
}

static void compare(const test_training *training, const test_trainer *t, lf_tensor_id id, const char *name, int step,
                    const by_hand *h, const double *want)
{
    rig_get(&t->rig, id, h->got);
    for (size_t p = 0; p < t->model->tensor_count; p++)
        for (size_t e = 0; e < lf_param_size(&t->model->tensors[p]); e++) {
            size_t at = t->model->tensors[p].offset + e;
            // The rates in the schedule are floats; everything else is double.
            if (!(fabs(h->got[at] - want[at]) <= 2e-7 * training->optimizer.lr * step))
                fail_msg("%s, %s, step %d: %s %zu of %s is %.12g instead of %.12g",
                         lf_optimizer_name(training->optimizer.kind), training->what, step, name, e,
                         t->model->tensors[p].name, h->got[at], want[at]);
        }
}

static void check_training(const test_training *training)
{
    test_trainer t;
    trainer_init(&t, oracle, training, true);
    size_t count = t.model->block_count;
    uint32_t batches = training->batches ? training->batches : 1;
    double *memory = calloc(7 * count, sizeof *memory), *batch = calloc(count, sizeof *batch);
    assert_true(memory && batch);
    by_hand h = { .w = memory,
                  .m = memory + count,
                  .v = memory + 2 * count,
                  .g = memory + 3 * count,
                  .direction = memory + 4 * count,
                  .average = memory + 5 * count,
                  .got = memory + 6 * count };
    rig_get(&t.rig, t.program->weights, h.w);
    rig_get(&t.rig, t.program->weights, h.average);
    for (uint32_t step = 0; step < training->steps; step++) {
        rig_run(&t.rig, LF_PHASE_LOAD, LF_PHASE_REDUCE, 1);
        rig_get(&t.rig, t.program->grads, batch);
        for (size_t i = 0; i < count; i++)
            h.g[i] = batch[i] + (step % batches ? h.g[i] : 0);
        rig_run(&t.rig, LF_PHASE_UPDATE, LF_PHASE_UPDATE, 1);
        int update = (int)(step / batches + 1);
        if (step % batches == batches - 1 || step + 1 == training->steps)
            update_by_hand(training, t.model, update, &h);
        compare(training, &t, t.program->weights, "weight", update, &h, h.w);
        if (training->average != 0)
            compare(training, &t, t.program->average, "average", update, &h, h.average);
    }
    free(batch);
    free(memory);
    trainer_finish(&t);
}

static test_training optimizer_training(lf_optimizer_kind kind, int variant)
{
    test_training training = make_training(LF_LOSS_MSE);
    lf_optimizer *optimizer = &training.optimizer;
    bool has_momentum = kind == LF_OPTIMIZER_SGD || kind == LF_OPTIMIZER_RMSPROP;
    *optimizer = lf_optimizer_default(kind);
    optimizer->lr = kind == LF_OPTIMIZER_RMSPROP || kind == LF_OPTIMIZER_LION ? .0078125 : .0625;
    optimizer->weight_decay = variant % 2 ? .25f : 0;
    optimizer->momentum = has_momentum && variant >= 2 ? .75f : 0;
    optimizer->nesterov = kind == LF_OPTIMIZER_SGD && variant == 3;
    training.steps = 10;
    training.what = "plain";
    return training;
}

static void optimizers_are_the_textbooks(void **state)
{
    (void)state;
    for (lf_optimizer_kind kind = LF_OPTIMIZER_SGD; kind < LF_OPTIMIZER_COUNT; kind++)
        for (int variant = 0; variant < 4; variant++)
            for (int decay_bias = 0; decay_bias < 2; decay_bias++) {
                test_training training = optimizer_training(kind, variant);
                training.optimizer.decay_bias = decay_bias;
                training.what = decay_bias ? "biases decay" : "biases do not decay";
                check_training(&training);
            }
}

static void clipped_accumulated_and_averaged_updates_are_the_textbooks(void **state)
{
    (void)state;
    for (lf_optimizer_kind kind = LF_OPTIMIZER_SGD; kind < LF_OPTIMIZER_COUNT; kind++)
        for (int variant = 0; variant < 4; variant++) {
            test_training training = optimizer_training(kind, 3);
            training.what = variant % 2 ? "clip_value" : "clip_norm";
            *(variant % 2 ? &training.optimizer.clip_value : &training.optimizer.clip_norm) = variant % 2 ? .03f : .2f;
            training.rows = 3 * ROWS; // two batches a pass, and an update of three: the last of the ten stands alone
            training.batches = variant >= 2 ? 3 : 1;
            training.average = .75f;
            check_training(&training);
        }
}

int run_formula_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_of_classes_are_the_textbooks),
        cmocka_unit_test(losses_of_values_are_the_textbooks),
        cmocka_unit_test(rows_past_the_batch_have_metrics_of_zero),
        cmocka_unit_test(hints_and_teachers_are_the_textbooks),
        cmocka_unit_test(optimizers_are_the_textbooks),
        cmocka_unit_test(clipped_accumulated_and_averaged_updates_are_the_textbooks),
    };
    return cmocka_run_group_tests_name("formulas", tests, NULL, NULL);
}
