// The oracle itself, on which the device suite stands: its gradients against finite differences of its losses. What its
// losses and optimizers are stands in formulas.c.
#include "suite.h"
#include "trainer.h"

enum { BATCH = 6, ROWS = 4, OUTPUTS = 3 }; // the batch is short: its two empty rows must count nowhere

static double mean_loss(test_trainer *t)
{
    double metrics[BATCH][LF_METRIC_COUNT], sum = 0, weights = 0;
    rig_run(&t->rig, LF_PHASE_LOAD, LF_PHASE_FORWARD, 1);
    rig_get(&t->rig, t->program->metrics, metrics[0]);
    for (uint32_t i = 0; i < BATCH; i++) {
        sum += metrics[i][LF_METRIC_LOSS];
        weights += metrics[i][LF_METRIC_WEIGHT];
    }
    return sum / weights;
}

static test_training make_training(lf_activation first, lf_activation second, lf_loss loss)
{
    return (test_training){
        .what = lf_activation_name(second),
        .layers = { LINEAR(5, 7), ACTIVATION(first), LINEAR(7, 6), ACTIVATION(second), LINEAR(6, OUTPUTS) },
        .layer_count = 5,
        .loss = loss,
        .loss_options = { .delta = .75f },
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
                fail_msg("%s with %s and %s: gradient of %s[%zu] is %.12g, but the loss changes by %.12g, bound 1e-8",
                         lf_loss_name(training->loss), lf_activation_name(training->layers[1].activation),
                         training->what, param->name, e, grads[at], slope);
        }
        if (!(most > 1e-4))
            fail_msg("%s with %s and %s: no gradient of %s is above %g, so nothing was compared",
                     lf_loss_name(training->loss), lf_activation_name(training->layers[1].activation), training->what,
                     param->name, most);
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

// From outputs that stand beside the rows, and from two teachers that run in the program.
static void gradients_are_the_slopes_of_distillation(void **state)
{
    (void)state;
    for (lf_loss loss = LF_LOSS_CROSS_ENTROPY; loss < LF_LOSS_COUNT; loss++)
        for (size_t i = 0; i < COUNT(distillations); i++)
            for (unsigned teachers = 0; teachers <= 2; teachers++) {
                test_training training = make_training(LF_ACT_TANH, LF_ACT_SILU, loss);
                training.what = "distillation";
                training.soft_weight = distillations[i][0];
                training.temperature = distillations[i][1];
                training.teachers = teachers;
                training.loss_options.label_smoothing = loss == LF_LOSS_CROSS_ENTROPY && i % 2 ? .125f : 0;
                training.weighted = i >= 2;
                check_gradients(&training);
            }
}

static void gradients_are_the_slopes_of_weighted_and_smoothed_losses(void **state)
{
    (void)state;
    for (lf_loss loss = LF_LOSS_CROSS_ENTROPY; loss < LF_LOSS_COUNT; loss++)
        for (int variant = 0; variant < 4; variant++) {
            test_training training = make_training(LF_ACT_TANH, LF_ACT_SILU, loss);
            training.what = "weights and smoothing";
            training.weighted = variant % 2;
            training.loss_options.label_smoothing = variant >= 2 ? .25f : 0;
            training.loss_options.delta = variant >= 2 ? .25f : 4;
            check_gradients(&training);
        }
}

// The losses of the hints count as the model's own does.
static void gradients_are_the_slopes_of_hints(void **state)
{
    (void)state;
    for (unsigned teachers = 1; teachers <= 2; teachers++)
        for (int weighted = 0; weighted < 2; weighted++) {
            test_training training = make_training(LF_ACT_TANH, LF_ACT_SILU, LF_LOSS_CROSS_ENTROPY);
            training.what = "hints";
            training.soft_weight = .5f;
            training.temperature = 2;
            training.teachers = teachers;
            training.weighted = weighted;
            training.hints[0] = (lf_hint){ "tanh_1", "silu_1", .75f };
            training.hints[1] = (lf_hint){ "linear_2", "tanh_1", 1.5f };
            training.hint_count = 2;
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

int main(void)
{
    lf_error err;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gather_scales_every_stored_type),
        cmocka_unit_test(gradients_are_the_slopes_of_the_loss),
        cmocka_unit_test(gradients_pass_activations_that_stand_alone),
        cmocka_unit_test(gradients_pass_every_layer),
        cmocka_unit_test(gradients_are_the_slopes_of_weighted_and_smoothed_losses),
        cmocka_unit_test(gradients_are_the_slopes_of_distillation),
        cmocka_unit_test(gradients_are_the_slopes_of_hints),
    };
    device = oracle = lf_device_open("cpu", &err);
    if (!oracle) {
        printf("failed: %s\n", err.text);
        return 1;
    }
    int failures = cmocka_run_group_tests_name("oracle", tests, NULL, NULL) + run_formula_tests();
    if (!failures)
        lf_device_close(oracle);
    return failures != 0;
}
