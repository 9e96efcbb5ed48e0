// Whole programs, as compile makes them, against float64.
#include "suite.h"
#include "trainer.h"

// ε is large: with 1e-8, where a gradient is next to nothing, the first steps divide rounding errors by each other.
#define SGD(...)                                                                                                       \
    {                                                                                                                  \
        .kind = LF_OPTIMIZER_SGD, .lr = .05, __VA_ARGS__                                                               \
    }
#define ADAM(...)                                                                                                      \
    {                                                                                                                  \
        .kind = LF_OPTIMIZER_ADAM, .lr = .01, .beta1 = .9f, .beta2 = .999f, .eps = 1e-3f, __VA_ARGS__                  \
    }
#define ADAMW(...)                                                                                                     \
    {                                                                                                                  \
        .kind = LF_OPTIMIZER_ADAMW, .lr = .01, .beta1 = .9f, .beta2 = .99f, .eps = 1e-3f, __VA_ARGS__                  \
    }

#define RMSPROP(...)                                                                                                   \
    {                                                                                                                  \
        .kind = LF_OPTIMIZER_RMSPROP, .lr = .01, .beta2 = .99f, .eps = 1e-3f, __VA_ARGS__                              \
    }
#define LION(...)                                                                                                      \
    {                                                                                                                  \
        .kind = LF_OPTIMIZER_LION, .lr = .01, .beta1 = .9f, .beta2 = .99f, __VA_ARGS__                                 \
    }
#define LAMB(...)                                                                                                      \
    {                                                                                                                  \
        .kind = LF_OPTIMIZER_LAMB, .lr = .01, .beta1 = .9f, .beta2 = .999f, .eps = 1e-3f, __VA_ARGS__                  \
    }

static const test_training trainings[] = {
    { "one linear layer", { LINEAR(7, 3) }, 1, LF_LOSS_CROSS_ENTROPY, SGD(.momentum = 0), 40, 16, 3, .stored = LF_F32 },
    { "relu, cross-entropy, adam",
      { LINEAR(20, 16), ACTIVATION(LF_ACT_RELU), LINEAR(16, 4) },
      3,
      LF_LOSS_CROSS_ENTROPY,
      ADAM(.weight_decay = 0),
      65,
      33,
      3,
      .stored = LF_U8 },
    { "tanh and gelu, mse, adamw",
      { LINEAR(12, 8), ACTIVATION(LF_ACT_TANH), LINEAR(8, 31), ACTIVATION(LF_ACT_GELU), LINEAR(31, 3) },
      5,
      LF_LOSS_MSE,
      ADAMW(.weight_decay = .1f),
      100,
      64,
      3,
      .stored = LF_F32 },
    { "activations alone, first and last",
      { ACTIVATION(LF_ACT_SIGMOID), ACTIVATION(LF_ACT_SILU), LINEAR(5, 7), ACTIVATION(LF_ACT_RELU),
        ACTIVATION(LF_ACT_TANH), LINEAR(7, 3), ACTIVATION(LF_ACT_SOFTPLUS), ACTIVATION(LF_ACT_ELU) },
      8,
      LF_LOSS_MSE,
      SGD(.momentum = .9f, .nesterov = true),
      31,
      7,
      6,
      .stored = LF_I16 },
    { "linear on linear, leaky_relu, adam with decay",
      { LINEAR(33, 65), LINEAR(65, 31), ACTIVATION(LF_ACT_LEAKY_RELU), LINEAR(31, 7), ACTIVATION(LF_ACT_SILU) },
      5,
      LF_LOSS_CROSS_ENTROPY,
      ADAM(.weight_decay = .05f),
      128,
      31,
      5,
      .stored = LF_I8 },
    { "one row at a time",
      { LINEAR(1, 1), ACTIVATION(LF_ACT_ELU), LINEAR(1, 2) },
      3,
      LF_LOSS_CROSS_ENTROPY,
      SGD(.weight_decay = .1f),
      5,
      1,
      7,
      .stored = LF_U16 },
    { "784-128-10",
      { LINEAR(784, 128), ACTIVATION(LF_ACT_RELU), LINEAR(128, 10) },
      3,
      LF_LOSS_CROSS_ENTROPY,
      ADAM(.weight_decay = 0),
      100,
      64,
      2,
      .stored = LF_U8 },
    { "layer norm, first and between",
      { LAYER_NORM(20), LINEAR(20, 33), LAYER_NORM(33), ACTIVATION(LF_ACT_GELU), LINEAR(33, 4), LAYER_NORM(4) },
      6,
      LF_LOSS_CROSS_ENTROPY,
      ADAM(.weight_decay = 0),
      65,
      33,
      3,
      .stored = LF_U8 },
    { "batch norm, first, between and last",
      { BATCH_NORM(12), LINEAR(12, 31), BATCH_NORM(31), ACTIVATION(LF_ACT_SILU), LINEAR(31, 7), ACTIVATION(LF_ACT_TANH),
        BATCH_NORM(7), LINEAR(7, 3), BATCH_NORM(3) },
      9,
      LF_LOSS_MSE,
      SGD(.momentum = .9f),
      100,
      64,
      4,
      .stored = LF_F32 },
    { "dropout, first and between",
      { DROPOUT(.2f), LINEAR(33, 65), ACTIVATION(LF_ACT_RELU), DROPOUT(.5f), LINEAR(65, 31), DROPOUT(.1f),
        ACTIVATION(LF_ACT_TANH), LINEAR(31, 7) },
      8,
      LF_LOSS_CROSS_ENTROPY,
      ADAMW(.weight_decay = .1f),
      128,
      31,
      5,
      .stored = LF_I8 },
    { "residuals, one in another, with projections and without",
      { RESIDUAL(5), LINEAR(16, 16), ACTIVATION(LF_ACT_TANH), RESIDUAL(2), LINEAR(16, 31), ACTIVATION(LF_ACT_GELU),
        RESIDUAL(3), LAYER_NORM(31), LINEAR(31, 31), ACTIVATION(LF_ACT_SILU), LINEAR(31, 5), RESIDUAL(1),
        LINEAR(5, 5) },
      13,
      LF_LOSS_CROSS_ENTROPY,
      SGD(.momentum = .9f),
      65,
      32,
      4,
      .stored = LF_F32 },
    { "distillation",
      { LINEAR(20, 16), ACTIVATION(LF_ACT_TANH), LINEAR(16, 10) },
      3,
      LF_LOSS_CROSS_ENTROPY,
      ADAM(.weight_decay = 0),
      65,
      33,
      3,
      .stored = LF_U8,
      .soft_weight = .75f,
      .temperature = 3 },
    { "every layer",
      { BATCH_NORM(33), LINEAR(33, 64), ACTIVATION(LF_ACT_GELU), DROPOUT(.25f), RESIDUAL(4), LAYER_NORM(64),
        LINEAR(64, 65), ACTIVATION(LF_ACT_TANH), DROPOUT(.5f), BATCH_NORM(65), LINEAR(65, 7) },
      11,
      LF_LOSS_CROSS_ENTROPY,
      ADAM(.weight_decay = .01f),
      100,
      64,
      4,
      .stored = LF_U16,
      .soft_weight = .5f,
      .temperature = 2 },
    { "label smoothing, rmsprop",
      { LINEAR(20, 16), ACTIVATION(LF_ACT_TANH), LINEAR(16, 4) },
      3,
      LF_LOSS_CROSS_ENTROPY,
      RMSPROP(.decay_bias = true),
      65,
      33,
      4,
      .stored = LF_U8,
      .loss_options = { .label_smoothing = .1f } },
    { "weights, rmsprop with momentum and decay",
      { LINEAR(33, 31), ACTIVATION(LF_ACT_GELU), LINEAR(31, 7) },
      3,
      LF_LOSS_CROSS_ENTROPY,
      RMSPROP(.momentum = .9f, .weight_decay = .05f),
      100,
      31,
      4,
      .stored = LF_F32,
      .weighted = true },
    { "binary cross-entropy with weights, lion",
      { LINEAR(12, 31), ACTIVATION(LF_ACT_SILU), LINEAR(31, 5) },
      3,
      LF_LOSS_BINARY_CROSS_ENTROPY,
      LION(.weight_decay = .5f),
      100,
      33,
      4,
      .stored = LF_F32,
      .weighted = true },
    { "mae, lamb",
      { LINEAR(33, 65), ACTIVATION(LF_ACT_TANH), LAYER_NORM(65), LINEAR(65, 3) },
      4,
      LF_LOSS_MAE,
      LAMB(.weight_decay = .01f),
      100,
      32,
      4,
      .stored = LF_F32 },
    { "784-128-10, lamb, biases too",
      { LINEAR(784, 128), ACTIVATION(LF_ACT_RELU), LINEAR(128, 10) },
      3,
      LF_LOSS_CROSS_ENTROPY,
      LAMB(.weight_decay = .01f, .decay_bias = true),
      100,
      64,
      2,
      .stored = LF_U8 },
    { "huber, clipped norm, average",
      { LINEAR(12, 31), ACTIVATION(LF_ACT_ELU), LINEAR(31, 3) },
      3,
      LF_LOSS_HUBER,
      ADAM(.clip_norm = .1f),
      100,
      33,
      5,
      .stored = LF_F32,
      .loss_options = { .delta = .75f },
      .average = .75f },
    { "784-128-10, clipped norm, three batches an update, weights",
      { LINEAR(784, 128), ACTIVATION(LF_ACT_RELU), LINEAR(128, 10) },
      3,
      LF_LOSS_CROSS_ENTROPY,
      SGD(.clip_norm = .5f, .momentum = .9f),
      100,
      30,
      7,
      .stored = LF_U8,
      .weighted = true,
      .batches = 3,
      .average = .9f },
    { "clipped values, two batches an update, no decay of biases",
      { BATCH_NORM(12), LINEAR(12, 31), ACTIVATION(LF_ACT_TANH), LINEAR(31, 3) },
      4,
      LF_LOSS_MSE,
      ADAMW(.clip_value = .01f, .weight_decay = .1f),
      65,
      33,
      5,
      .stored = LF_F32,
      .batches = 2 },
    { "two teachers and hints",
      { LINEAR(20, 33), ACTIVATION(LF_ACT_TANH), LINEAR(33, 16), ACTIVATION(LF_ACT_GELU), LINEAR(16, 10) },
      5,
      LF_LOSS_CROSS_ENTROPY,
      ADAM(.weight_decay = 0),
      65,
      33,
      4,
      .stored = LF_U8,
      .soft_weight = .75f,
      .temperature = 3,
      .loss_options = { .label_smoothing = .1f },
      .weighted = true,
      .teachers = 2,
      .hints = { { "tanh_1", "gelu_1", .5f }, { "gelu_1", "linear_1", .25f } },
      .hint_count = 2 },
    { "one teacher of values",
      { BATCH_NORM(12), LINEAR(12, 31), ACTIVATION(LF_ACT_SILU), LINEAR(31, 3) },
      4,
      LF_LOSS_HUBER,
      SGD(.momentum = .9f),
      65,
      33,
      4,
      .stored = LF_F32,
      .soft_weight = .5f,
      .temperature = 1,
      .loss_options = { .delta = .5f },
      .teachers = 1 },
    { "three teachers of values",
      { LINEAR(12, 31), ACTIVATION(LF_ACT_SILU), LINEAR(31, 3) },
      3,
      LF_LOSS_MSE,
      ADAM(.weight_decay = 0),
      65,
      33,
      4,
      .stored = LF_F32,
      .soft_weight = .5f,
      .temperature = 1,
      .teachers = 3 },
    { "evaluate, binary cross-entropy with weights",
      { LINEAR(65, 33), ACTIVATION(LF_ACT_GELU), LINEAR(33, 10) },
      3,
      LF_LOSS_BINARY_CROSS_ENTROPY,
      { .kind = LF_OPTIMIZER_NONE },
      100,
      64,
      2,
      .stored = LF_F32,
      .weighted = true },
    { "every layer, evaluate",
      { BATCH_NORM(33), LINEAR(33, 64), ACTIVATION(LF_ACT_GELU), DROPOUT(.25f), RESIDUAL(4), LAYER_NORM(64),
        LINEAR(64, 65), ACTIVATION(LF_ACT_TANH), DROPOUT(.5f), BATCH_NORM(65), LINEAR(65, 7) },
      11,
      LF_LOSS_CROSS_ENTROPY,
      { .kind = LF_OPTIMIZER_NONE },
      100,
      64,
      2,
      .stored = LF_U16 },
    { "evaluate",
      { LINEAR(65, 33), ACTIVATION(LF_ACT_GELU), LINEAR(33, 10) },
      3,
      LF_LOSS_CROSS_ENTROPY,
      { .kind = LF_OPTIMIZER_NONE },
      100,
      64,
      2,
      .stored = LF_I32 },
    { "evaluate, mse",
      { LINEAR(65, 33), ACTIVATION(LF_ACT_SOFTPLUS), LINEAR(33, 10) },
      3,
      LF_LOSS_MSE,
      { .kind = LF_OPTIMIZER_NONE },
      100,
      64,
      2,
      .stored = LF_U32 },
    { "predict",
      { LINEAR(65, 33), ACTIVATION(LF_ACT_GELU), LINEAR(33, 10) },
      3,
      LF_LOSS_NONE,
      { .kind = LF_OPTIMIZER_NONE },
      100,
      64,
      2,
      .stored = LF_F32 },
};

// The largest |value|, so that a bound can be relative to a whole tensor: small gradients are differences of large
// terms.
static double largest(const double *values, size_t count)
{
    double most = 0;
    for (size_t i = 0; i < count; i++)
        most = fmax(most, fabs(values[i]));
    return most;
}

static void compare(const char *what, const test_trainer *got, const test_trainer *want, lf_tensor_id id, double bound)
{
    if (id == LF_NO_TENSOR)
        return;
    size_t count = rig_elements(got->program, id);
    double *a = calloc(2 * count, sizeof *a), *b = a + count;
    assert_non_null(a);
    rig_get(&got->rig, id, a);
    rig_get(&want->rig, id, b);
    assert_near(what, got->program, id, a, b, bound, largest(b, count));
    free(a);
}

static void every_program_gives_the_oracles_gradients(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(trainings); i++) {
        test_trainer got, want;
        trainer_init(&got, device, &trainings[i], false);
        trainer_init(&want, oracle, &trainings[i], true);
        rig_run(&got.rig, LF_PHASE_LOAD, LF_PHASE_REDUCE, 1);
        rig_run(&want.rig, LF_PHASE_LOAD, LF_PHASE_REDUCE, 1);
        compare(trainings[i].what, &got, &want, got.program->output, 1e-5);
        compare(trainings[i].what, &got, &want, got.program->metrics, 1e-5);
        compare(trainings[i].what, &got, &want, got.program->grads, 1e-5);
        trainer_finish(&want);
        trainer_finish(&got);
    }
}

static void every_program_trains_as_the_oracle_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(trainings); i++) {
        test_trainer got, want;
        trainer_init(&got, device, &trainings[i], false);
        trainer_init(&want, oracle, &trainings[i], true);
        trainer_run(&got);
        trainer_run(&want);
        compare(trainings[i].what, &got, &want, got.program->output, 1e-4);
        compare(trainings[i].what, &got, &want, got.program->metrics, 1e-4);
        compare(trainings[i].what, &got, &want, got.program->weights, 1e-4);
        compare(trainings[i].what, &got, &want, got.program->state, 1e-4);
        for (unsigned m = 0; m < LF_MOMENT_COUNT; m++)
            compare(trainings[i].what, &got, &want, got.program->moment[m], 1e-4);
        compare(trainings[i].what, &got, &want, got.program->average, 1e-4);
        trainer_finish(&want);
        trainer_finish(&got);
    }
}

int run_model_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_program_gives_the_oracles_gradients),
        cmocka_unit_test(every_program_trains_as_the_oracle_does),
    };
    return cmocka_run_group_tests_name("models", tests, NULL, NULL);
}
