// The oracle itself, on which the device suite stands: its gradients against finite differences of its losses, its
// losses and optimizers against the textbook's formulas.
#include "trainer.h"

enum { BATCH = 6, ROWS = 4, OUTPUTS = 3 }; // the batch is short: its two empty rows must count nowhere

static double mean_loss(test_trainer *t)
{
    double metrics[BATCH][LF_METRIC_COUNT], sum = 0;
    rig_run(&t->rig, LF_PHASE_LOAD, LF_PHASE_FORWARD, 1);
    rig_get(&t->rig, t->program->metrics, metrics[0]);
    for (uint32_t i = 0; i < BATCH; i++)
        sum += metrics[i][LF_METRIC_LOSS];
    return sum / ROWS;
}

static test_training make_training(lf_activation first, lf_activation second, lf_loss loss)
{
    return (test_training){
        .what = lf_activation_name(second),
        .layers = { LINEAR(5, 7), ACTIVATION(first), LINEAR(7, 6), ACTIVATION(second), LINEAR(6, OUTPUTS) },
        .layer_count = 5,
        .loss = loss,
        .optimizer = { .kind = LF_OPTIMIZER_SGD, .lr = .1 },
        .rows = ROWS,
        .batch = BATCH,
        .steps = 1,
        .stored = LF_F32,
    };
}

// By the central difference of fourth order, whose error is of h⁴: norms of so few rows bend the loss sharply.
static double slope_of_loss(test_trainer *t, double *weights, size_t at)
{
    static const double factors[] = { 1, -8, 8, -1 }, places[] = { -2, -1, 1, 2 }; // of 1 / 12 h, and of h
    double weight = weights[at], h = 1e-4, sum = 0;
    for (size_t i = 0; i < COUNT(places); i++) {
        weights[at] = weight + places[i] * h;
        rig_put(&t->rig, t->program->weights, weights);
        sum += factors[i] * mean_loss(t);
    }
    weights[at] = weight;
    return sum / (12 * h);
}

static void check_gradients(const test_training *training)
{
    test_trainer t;
    trainer_init(&t, oracle, training, true);
    rig_run(&t.rig, LF_PHASE_LOAD, LF_PHASE_REDUCE, 1);
    size_t count = t.model->block_count;
    double *weights = calloc(2 * count, sizeof *weights), *grads = weights + count;
    assert_non_null(weights);
    rig_get(&t.rig, t.program->weights, weights);
    rig_get(&t.rig, t.program->grads, grads);
    for (size_t p = 0; p < t.model->tensor_count; p++) {
        const lf_param *param = &t.model->tensors[p];
        double most = 0;
        for (size_t e = 0; e < lf_param_size(param); e++) {
            size_t at = param->offset + e;
            double slope = slope_of_loss(&t, weights, at);
            most = fmax(most, fabs(grads[at]));
            if (!(fabs(slope - grads[at]) <= 1e-8))
                fail_msg("%s with %s and %s: gradient of %s[%zu]: %.12g, but the loss changes by %.12g, bound 1e-8",
                         lf_loss_name(training->loss), lf_activation_name(training->layers[1].activation),
                         training->what, param->name, e, grads[at], slope);
        }
        assert_true(most > 1e-3); // or nothing was compared
    }
    free(weights);
    trainer_finish(&t);
}

static bool is_blank(const lf_layer *layer)
{
    return layer->kind == LF_LAYER_LINEAR && !layer->inputs;
}

static void gradients_are_the_slopes_of_the_loss(void **state)
{
    (void)state;
    for (lf_loss loss = LF_LOSS_CROSS_ENTROPY; loss < LF_LOSS_COUNT; loss++)
        for (lf_activation a = LF_ACT_RELU; a < LF_ACT_COUNT; a++) {
            test_training training = make_training(a, a == LF_ACT_TANH ? LF_ACT_GELU : LF_ACT_TANH, loss);
            check_gradients(&training);
            training = make_training(LF_ACT_SIGMOID, a, loss);
            check_gradients(&training);
        }
}

static void gradients_pass_activations_that_stand_alone(void **state)
{
    (void)state;
    for (lf_activation a = LF_ACT_RELU; a < LF_ACT_COUNT; a++) {
        test_training training = {
            .what = "alone",
            .layers = { ACTIVATION(a), LINEAR(5, 7), ACTIVATION(LF_ACT_TANH), ACTIVATION(a), LINEAR(7, OUTPUTS),
                        ACTIVATION(LF_ACT_SOFTPLUS), ACTIVATION(a) },
            .layer_count = 7,
            .loss = LF_LOSS_MSE,
            .optimizer = { .kind = LF_OPTIMIZER_SGD, .lr = .1 },
            .rows = ROWS,
            .batch = BATCH,
            .steps = 1,
            .stored = LF_F32,
        };
        check_gradients(&training);
    }
}

// Layers whose gradients pass through the statistics of their rows or columns, a mask that stays while the step does,
// or two ways at once. A bias is not directly in front of a batch norm, which takes it away again.
static void gradients_pass_every_layer(void **state)
{
    (void)state;
    static const lf_layer models[][TRAINER_LAYERS] = {
        { LAYER_NORM(5), LINEAR(5, 7), LAYER_NORM(7), ACTIVATION(LF_ACT_TANH), LINEAR(7, OUTPUTS) },
        { LINEAR(5, 7), ACTIVATION(LF_ACT_GELU), LAYER_NORM(7), LAYER_NORM(7), LINEAR(7, OUTPUTS),
          LAYER_NORM(OUTPUTS) },
        { BATCH_NORM(5), LINEAR(5, 7), ACTIVATION(LF_ACT_TANH), BATCH_NORM(7), LINEAR(7, OUTPUTS) },
        { LINEAR(5, 7), ACTIVATION(LF_ACT_SILU), BATCH_NORM(7), ACTIVATION(LF_ACT_TANH), BATCH_NORM(7),
          LINEAR(7, OUTPUTS) },
        { RESIDUAL(2), LINEAR(5, 5), ACTIVATION(LF_ACT_TANH), LINEAR(5, OUTPUTS) },
        { LINEAR(5, 6), RESIDUAL(2), LINEAR(6, 7), ACTIVATION(LF_ACT_GELU), LINEAR(7, OUTPUTS) },
        { RESIDUAL(5), LINEAR(5, 6), ACTIVATION(LF_ACT_SILU), RESIDUAL(1), LINEAR(6, 6), LINEAR(6, OUTPUTS) },
        { RESIDUAL(3), ACTIVATION(LF_ACT_TANH), RESIDUAL(1), LINEAR(5, 6), ACTIVATION(LF_ACT_SILU),
          LINEAR(6, OUTPUTS) },
        { DROPOUT(.25f), LINEAR(5, 9), DROPOUT(.5f), ACTIVATION(LF_ACT_TANH), DROPOUT(.25f), LINEAR(9, OUTPUTS) },
        { BATCH_NORM(5), RESIDUAL(6), LINEAR(5, 7), ACTIVATION(LF_ACT_GELU), DROPOUT(.25f), LAYER_NORM(7), RESIDUAL(1),
          LINEAR(7, 7), ACTIVATION(LF_ACT_TANH), BATCH_NORM(7), LINEAR(7, OUTPUTS) },
    };
    for (size_t i = 0; i < COUNT(models); i++)
        for (lf_loss loss = LF_LOSS_CROSS_ENTROPY; loss < LF_LOSS_COUNT; loss++) {
            char what[32];
            test_training training = make_training(LF_ACT_TANH, LF_ACT_TANH, loss);
            snprintf(what, sizeof what, "model %zu", i);
            training.what = what;
            memcpy(training.layers, models[i], sizeof models[i]);
            for (training.layer_count = 0; training.layer_count < TRAINER_LAYERS; training.layer_count++)
                if (is_blank(&models[i][training.layer_count]))
                    break;
            check_gradients(&training);
        }
}

static const float distillations[][2] = { { 0, 2 }, { .25f, 4 }, { .75f, .5f }, { 1, 3 } }; // weight, temperature

static void gradients_are_the_slopes_of_distillation(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(distillations); i++) {
        test_training training = make_training(LF_ACT_TANH, LF_ACT_SILU, LF_LOSS_CROSS_ENTROPY);
        training.what = "distillation";
        training.soft_weight = distillations[i][0];
        training.temperature = distillations[i][1];
        check_gradients(&training);
    }
}

// The trainer's rows: whole numbers below 128 with scale 1/64 and offset -1; here some of them negative.
static void gather_scales_every_stored_type(void **state)
{
    (void)state;
    for (lf_dtype type = LF_U8; type <= LF_F64; type++) {
        test_training training = make_training(LF_ACT_RELU, LF_ACT_RELU, LF_LOSS_MSE);
        training.stored = type;
        test_trainer t;
        trainer_init(&t, oracle, &training, true);
        enum { INPUTS = 5 };
        double stored[ROWS * INPUTS], order[ROWS], scaling[2 * INPUTS], x[BATCH * INPUTS];
        assert_int_equal(t.model->inputs, INPUTS);
        for (uint32_t i = 0; i < ROWS * INPUTS; i++) {
            bool negative = type == LF_I8 || type == LF_I16 || type == LF_I32 || type == LF_F32 || type == LF_F64;
            stored[i] = i * 6 * (negative && i % 3 == 1 ? -1. : 1.);
        }
        for (uint32_t j = 0; j < INPUTS; j++) {
            scaling[j] = j + .5;
            scaling[INPUTS + j] = 4. - j;
        }
        rig_put(&t.rig, t.program->data, stored);
        rig_put(&t.rig, t.program->scaling, scaling);
        rig_get(&t.rig, t.program->order, order);
        rig_run(&t.rig, LF_PHASE_LOAD, LF_PHASE_LOAD, 1);
        rig_get(&t.rig, find_tensor(t.program, "x"), x);
        for (uint32_t i = 0; i < BATCH; i++)
            for (uint32_t j = 0; j < INPUTS; j++) {
                double want = i < ROWS ? stored[(uint32_t)order[i] * INPUTS + j] * (j + .5) + (4. - j) : 0;
                if (x[i * INPUTS + j] != want)
                    fail_msg("%s: x[%u][%u] is %g instead of %g", lf_dtype_name(type), i, j, x[i * INPUTS + j], want);
            }
        trainer_finish(&t);
    }
}

static void losses_are_the_textbooks(void **state)
{
    (void)state;
    for (lf_loss loss = LF_LOSS_CROSS_ENTROPY; loss < LF_LOSS_COUNT; loss++) {
        test_training training = make_training(LF_ACT_TANH, LF_ACT_TANH, loss);
        test_trainer t;
        double z[BATCH][OUTPUTS], targets[ROWS][OUTPUTS], labels[ROWS], metrics[BATCH][LF_METRIC_COUNT], order[ROWS];
        trainer_init(&t, oracle, &training, true);
        rig_run(&t.rig, LF_PHASE_LOAD, LF_PHASE_FORWARD, 1);
        rig_get(&t.rig, t.program->output, z[0]);
        rig_get(&t.rig, t.program->metrics, metrics[0]);
        rig_get(&t.rig, t.program->order, order);
        rig_get(&t.rig, t.program->targets, loss == LF_LOSS_MSE ? targets[0] : labels);
        for (uint32_t i = 0; i < ROWS; i++) {
            double want = 0, sum = 0;
            uint32_t row = (uint32_t)order[i], best = 0;
            for (uint32_t j = 0; j < OUTPUTS; j++) {
                sum += exp(z[i][j]);
                best = z[i][j] > z[i][best] ? j : best;
                if (loss == LF_LOSS_MSE)
                    want += (z[i][j] - targets[row][j]) * (z[i][j] - targets[row][j]) / OUTPUTS;
            }
            if (loss == LF_LOSS_CROSS_ENTROPY)
                want = -log(exp(z[i][(uint32_t)labels[row]]) / sum);
            if (!(fabs(metrics[i][LF_METRIC_LOSS] - want) < 1e-13))
                fail_msg("%s, row %u: %.17g instead of %.17g", lf_loss_name(loss), i, metrics[i][LF_METRIC_LOSS], want);
            double hit = loss == LF_LOSS_CROSS_ENTROPY && best == (uint32_t)labels[row];
            assert_true(metrics[i][LF_METRIC_HIT] == hit);
        }
        for (uint32_t i = ROWS; i < BATCH; i++)
            assert_true(metrics[i][LF_METRIC_LOSS] == 0 && metrics[i][LF_METRIC_HIT] == 0);
        trainer_finish(&t);
    }
}

// α T² Σ p log(p / q) + (1 - α) cross-entropy, with q = softmax(z / T) and 0 log 0 = 0.
static double textbook_distillation(const double *z, const double *p, uint32_t label, double alpha, double temperature)
{
    double sum = 0, soft_sum = 0, divergence = 0;
    for (uint32_t j = 0; j < OUTPUTS; j++) {
        sum += exp(z[j]);
        soft_sum += exp(z[j] / temperature);
    }
    for (uint32_t j = 0; j < OUTPUTS; j++)
        divergence += p[j] > 0 ? p[j] * log(p[j] / (exp(z[j] / temperature) / soft_sum)) : 0;
    return alpha * temperature * temperature * divergence - (1 - alpha) * log(exp(z[label]) / sum);
}

static void distillation_is_the_textbooks(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNT(distillations); c++) {
        test_training training = make_training(LF_ACT_TANH, LF_ACT_TANH, LF_LOSS_CROSS_ENTROPY);
        training.soft_weight = distillations[c][0];
        training.temperature = distillations[c][1];
        test_trainer t;
        double z[BATCH][OUTPUTS], teacher[ROWS][OUTPUTS], labels[ROWS], order[ROWS], metrics[BATCH][LF_METRIC_COUNT];
        trainer_init(&t, oracle, &training, true);
        rig_run(&t.rig, LF_PHASE_LOAD, LF_PHASE_FORWARD, 1);
        rig_get(&t.rig, t.program->output, z[0]);
        rig_get(&t.rig, t.program->teacher, teacher[0]);
        rig_get(&t.rig, t.program->targets, labels);
        rig_get(&t.rig, t.program->order, order);
        rig_get(&t.rig, t.program->metrics, metrics[0]);
        for (uint32_t i = 0; i < BATCH; i++) {
            uint32_t row = i < ROWS ? (uint32_t)order[i] : 0, best = 0;
            double want = 0, hit = 0;
            for (uint32_t j = 0; j < OUTPUTS; j++)
                best = z[i][j] > z[i][best] ? j : best;
            if (i < ROWS) {
                want = textbook_distillation(z[i], teacher[row], (uint32_t)labels[row], (double)training.soft_weight,
                                             (double)training.temperature);
                hit = best == (uint32_t)labels[row];
            }
            if (!(fabs(metrics[i][LF_METRIC_LOSS] - want) < 1e-13) || metrics[i][LF_METRIC_HIT] != hit)
                fail_msg("distillation of weight %g at %g, row %u: %.17g instead of %.17g",
                         (double)training.soft_weight, (double)training.temperature, i, metrics[i][LF_METRIC_LOSS],
                         want);
        }
        trainer_finish(&t);
    }
}

// One update of one weight, as the papers write it; t counts from 1.
static void textbook_update(const lf_optimizer *o, int t, double g, double *w, double *m, double *v)
{
    double lr = o->lr, beta1 = (double)o->beta1, beta2 = (double)o->beta2, decay = (double)o->weight_decay;
    if (o->kind == LF_OPTIMIZER_SGD) {
        g += decay * *w;
        *m = (double)o->momentum * *m + g;
        *w -= lr * (o->nesterov ? g + (double)o->momentum * *m : *m);
        return;
    }
    if (o->kind == LF_OPTIMIZER_ADAM)
        g += decay * *w;
    else
        *w -= lr * decay * *w;
    *m = beta1 * *m + (1 - beta1) * g;
    *v = beta2 * *v + (1 - beta2) * g * g;
    double m_hat = *m / (1 - pow(beta1, t)), v_hat = *v / (1 - pow(beta2, t));
    *w -= lr * m_hat / (sqrt(v_hat) + (double)o->eps);
}

static void check_optimizer(const lf_optimizer *optimizer)
{
    enum { STEPS = 10 };
    test_training training = make_training(LF_ACT_TANH, LF_ACT_SILU, LF_LOSS_MSE);
    training.optimizer = *optimizer;
    training.steps = STEPS;
    test_trainer t;
    trainer_init(&t, oracle, &training, true);
    size_t count = t.model->block_count;
    double *memory = calloc(5 * count, sizeof *memory);
    assert_non_null(memory);
    double *w = memory, *m = w + count, *v = m + count, *g = v + count, *got = g + count;
    rig_get(&t.rig, t.program->weights, w);
    for (int step = 1; step <= STEPS; step++) {
        rig_run(&t.rig, LF_PHASE_LOAD, LF_PHASE_REDUCE, 1);
        rig_get(&t.rig, t.program->grads, g);
        rig_run(&t.rig, LF_PHASE_UPDATE, LF_PHASE_UPDATE, 1);
        rig_get(&t.rig, t.program->weights, got);
        for (size_t p = 0; p < t.model->tensor_count; p++)
            for (size_t e = 0; e < lf_param_size(&t.model->tensors[p]); e++) {
                size_t at = t.model->tensors[p].offset + e;
                textbook_update(optimizer, step, g[at], &w[at], &m[at], &v[at]);
                // The rates in the schedule are floats; everything else is double.
                if (!(fabs(got[at] - w[at]) <= 1e-7 * optimizer->lr * step))
                    fail_msg("%s, step %d: weight %zu of %s is %.12g instead of %.12g",
                             lf_optimizer_name(optimizer->kind), step, e, t.model->tensors[p].name, got[at], w[at]);
            }
    }
    free(memory);
    trainer_finish(&t);
}

static void optimizers_are_the_textbooks(void **state)
{
    (void)state;
    for (int variant = 0; variant < 4; variant++) {
        lf_optimizer sgd = { .kind = LF_OPTIMIZER_SGD,
                             .lr = .0625,
                             .momentum = variant >= 2 ? .75f : 0,
                             .nesterov = variant == 3,
                             .weight_decay = variant % 2 ? .25f : 0 };
        check_optimizer(&sgd);
        lf_optimizer adam = lf_optimizer_default(variant < 2 ? LF_OPTIMIZER_ADAM : LF_OPTIMIZER_ADAMW);
        adam.lr = .0625;
        adam.weight_decay = variant % 2 ? .25f : 0;
        check_optimizer(&adam);
    }
}

int main(void)
{
    lf_error err;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gather_scales_every_stored_type),
        cmocka_unit_test(losses_are_the_textbooks),
        cmocka_unit_test(gradients_are_the_slopes_of_the_loss),
        cmocka_unit_test(gradients_pass_activations_that_stand_alone),
        cmocka_unit_test(gradients_pass_every_layer),
        cmocka_unit_test(gradients_are_the_slopes_of_distillation),
        cmocka_unit_test(distillation_is_the_textbooks),
        cmocka_unit_test(optimizers_are_the_textbooks),
    };
    device = oracle = lf_device_open("cpu", &err);
    if (!oracle) {
        printf("failed: %s\n", err.text);
        return 1;
    }
    int failures = cmocka_run_group_tests_name("oracle", tests, NULL, NULL);
    if (!failures)
        lf_device_close(oracle);
    return failures != 0;
}
