// program/: models check their layers; compiled programs are compared with golden listings, so that every change of
// training logic shows as a change of text. `test_program GOLDEN-FOLDER --write` writes the listings anew.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "abi.h"
#include "program/program.h"

static const char *golden_folder;
static bool write_golden;

#define LINEAR(in, out)                                                                                                \
    {                                                                                                                  \
        .kind = LF_LAYER_LINEAR, .inputs = in, .outputs = out                                                          \
    }
#define ACT(which)                                                                                                     \
    {                                                                                                                  \
        .kind = LF_LAYER_ACTIVATION, .activation = which                                                               \
    }
#define DROPOUT(p)                                                                                                     \
    {                                                                                                                  \
        .kind = LF_LAYER_DROPOUT, .rate = p                                                                            \
    }
#define BATCH_NORM(n)                                                                                                  \
    {                                                                                                                  \
        .kind = LF_LAYER_BATCH_NORM, .inputs = n, .outputs = n                                                         \
    }
#define LAYER_NORM(n)                                                                                                  \
    {                                                                                                                  \
        .kind = LF_LAYER_LAYER_NORM, .inputs = n, .outputs = n                                                         \
    }
#define RESIDUAL(count)                                                                                                \
    {                                                                                                                  \
        .kind = LF_LAYER_RESIDUAL, .span = count                                                                       \
    }
#define COUNT(array) (sizeof(array) / sizeof *(array))

static lf_model *make_model(const lf_layer *layers, size_t count)
{
    lf_error err;
    lf_model *model = lf_model_create(layers, count, &err);
    if (!model)
        fail_msg("%s", err.text);
    return model;
}

static char *read_file(const char *path)
{
    FILE *in = fopen(path, "r");
    if (!in)
        return NULL;
    char *text = calloc(1, 65536);
    size_t size = fread(text, 1, 65535, in);
    text[size] = 0;
    fclose(in);
    return text;
}

static void compare_with_golden(const char *name, const lf_compile_params *params)
{
    lf_error err;
    lf_program *program = lf_program_compile(params, &err);
    if (!program)
        fail_msg("%s", err.text);
    char *text = lf_program_explain(program);
    char path[1024];
    snprintf(path, sizeof path, "%s/%s.txt", golden_folder, name);
    if (write_golden) {
        FILE *out = fopen(path, "w");
        assert_non_null(out);
        fputs(text, out);
        fclose(out);
    }
    char *expected = read_file(path);
    if (!expected)
        fail_msg("%s: no such listing", path);
    if (strcmp(text, expected))
        fail_msg("%s differs. Expected:\n%s\nGot:\n%s", path, expected, text);
    free(expected);
    free(text);
    lf_program_destroy(program);
}

static void programs_match_their_listings(void **state)
{
    (void)state;
    static const lf_layer classifier[] = { LINEAR(784, 128), ACT(LF_ACT_RELU), LINEAR(128, 10) };
    static const lf_layer deep[] = { LINEAR(20, 16),   ACT(LF_ACT_GELU), LINEAR(16, 12),
                                     ACT(LF_ACT_TANH), LINEAR(12, 3),    ACT(LF_ACT_SIGMOID) };
    static const lf_layer odd[] = { ACT(LF_ACT_TANH), LINEAR(5, 4), ACT(LF_ACT_RELU),
                                    ACT(LF_ACT_SILU), LINEAR(4, 4), LINEAR(4, 2) };
    lf_model *mnist = make_model(classifier, COUNT(classifier));
    lf_model *regression = make_model(deep, COUNT(deep));
    lf_model *stacked = make_model(odd, COUNT(odd));
    lf_compile_params params = { .model = mnist,
                                 .loss = LF_LOSS_CROSS_ENTROPY,
                                 .batch = 64,
                                 .stored = LF_U8,
                                 .rows = 60000,
                                 .positions = 60000,
                                 .steps = 938,
                                 .optimizer = lf_optimizer_default(LF_OPTIMIZER_ADAM) };
    compare_with_golden("classifier_adam", &params);
    params.optimizer = lf_optimizer_default(LF_OPTIMIZER_NONE);
    compare_with_golden("classifier_evaluate", &params);
    params.loss = LF_LOSS_NONE;
    compare_with_golden("classifier_predict", &params);

    params = (lf_compile_params){ .model = regression,
                                  .loss = LF_LOSS_MSE,
                                  .batch = 32,
                                  .stored = LF_F32,
                                  .rows = 256,
                                  .positions = 256,
                                  .steps = 8,
                                  .optimizer = lf_optimizer_default(LF_OPTIMIZER_SGD) };
    params.optimizer.momentum = .9f;
    params.optimizer.nesterov = true;
    compare_with_golden("regression_sgd", &params);

    params = (lf_compile_params){ .model = stacked,
                                  .loss = LF_LOSS_CROSS_ENTROPY,
                                  .batch = 8,
                                  .stored = LF_I16,
                                  .rows = 100,
                                  .positions = 100,
                                  .steps = 13,
                                  .optimizer = lf_optimizer_default(LF_OPTIMIZER_ADAMW) };
    compare_with_golden("stacked_adamw", &params);
    lf_model_destroy(mnist);
    lf_model_destroy(regression);
    lf_model_destroy(stacked);
}

// All shards on one device; some of them; a bucket that leaves before the backward pass ends.
static void programs_in_shards_match_their_listings(void **state)
{
    (void)state;
    static const lf_layer norms[] = { LINEAR(20, 16), BATCH_NORM(16), ACT(LF_ACT_RELU), DROPOUT(.5f), LINEAR(16, 4) };
    static const lf_layer plain[] = { LINEAR(20, 64), ACT(LF_ACT_RELU), LINEAR(64, 32), ACT(LF_ACT_RELU),
                                      LINEAR(32, 4) };
    static const uint32_t held[] = { 1, 2, 3 };
    lf_model *normed = make_model(norms, COUNT(norms)), *deep = make_model(plain, COUNT(plain));
    lf_compile_params params = { .model = normed,
                                 .loss = LF_LOSS_CROSS_ENTROPY,
                                 .batch = 30,
                                 .stored = LF_U8,
                                 .rows = 1000,
                                 .positions = 1000,
                                 .steps = 34,
                                 .shards = 4,
                                 .optimizer = lf_optimizer_default(LF_OPTIMIZER_ADAM) };
    compare_with_golden("shards_all", &params);
    params.held = held;
    params.held_count = COUNT(held);
    compare_with_golden("shards_held", &params);
    params.model = deep;
    params.bucket = 8192;
    params.held_count = 1;
    compare_with_golden("shards_bucket", &params);
    lf_model_destroy(normed);
    lf_model_destroy(deep);
}

// Layers that do more than a linear one and an activation, and a teacher.
static void programs_of_every_layer_match_their_listings(void **state)
{
    (void)state;
    static const lf_layer norms[] = { LINEAR(20, 16), BATCH_NORM(16), ACT(LF_ACT_RELU),
                                      DROPOUT(.5f),   LAYER_NORM(16), LINEAR(16, 4) };
    static const lf_layer residuals[] = { LINEAR(12, 16), RESIDUAL(4), LINEAR(16, 16), ACT(LF_ACT_GELU), RESIDUAL(1),
                                          LINEAR(16, 16), RESIDUAL(2), LINEAR(16, 8),  ACT(LF_ACT_TANH), LINEAR(8, 3) };
    static const lf_layer student[] = { DROPOUT(.25f), LINEAR(20, 16), ACT(LF_ACT_RELU), LINEAR(16, 4) };
    lf_model *normed = make_model(norms, COUNT(norms)), *residual = make_model(residuals, COUNT(residuals));
    lf_model *small = make_model(student, COUNT(student));
    lf_compile_params params = { .model = normed,
                                 .loss = LF_LOSS_CROSS_ENTROPY,
                                 .batch = 32,
                                 .stored = LF_U8,
                                 .rows = 1000,
                                 .positions = 1000,
                                 .steps = 32,
                                 .optimizer = lf_optimizer_default(LF_OPTIMIZER_ADAM) };
    compare_with_golden("norms_adam", &params);
    params.optimizer = lf_optimizer_default(LF_OPTIMIZER_NONE);
    compare_with_golden("norms_evaluate", &params);

    params.model = small;
    params.optimizer = lf_optimizer_default(LF_OPTIMIZER_ADAMW);
    params.distill.on = true;
    params.distill.alpha = .75f;
    params.distill.temperature = 4;
    compare_with_golden("distill_adamw", &params);

    params = (lf_compile_params){ .model = residual,
                                  .loss = LF_LOSS_MSE,
                                  .batch = 32,
                                  .stored = LF_F32,
                                  .rows = 256,
                                  .positions = 256,
                                  .steps = 8,
                                  .optimizer = lf_optimizer_default(LF_OPTIMIZER_SGD) };
    compare_with_golden("residual_sgd", &params);
    lf_model_destroy(normed);
    lf_model_destroy(residual);
    lf_model_destroy(small);
}

// What stands between the gradients and the weights, and the losses beside the two common ones.
static void programs_of_every_update_match_their_listings(void **state)
{
    (void)state;
    static const lf_layer layers[] = { LINEAR(20, 100), ACT(LF_ACT_RELU), LINEAR(100, 4) };
    static const lf_layer taught[] = { LINEAR(20, 8), ACT(LF_ACT_RELU), LINEAR(8, 4) };
    lf_model *model = make_model(layers, COUNT(layers)), *student = make_model(taught, COUNT(taught));
    lf_compile_params params = { .model = model,
                                 .loss = LF_LOSS_CROSS_ENTROPY,
                                 .loss_options = { .label_smoothing = .125f },
                                 .weighted = true,
                                 .accumulates = true,
                                 .average = .75f,
                                 .batch = 32,
                                 .stored = LF_U8,
                                 .rows = 1000,
                                 .positions = 1000,
                                 .steps = 32,
                                 .optimizer = lf_optimizer_default(LF_OPTIMIZER_ADAMW) };
    params.optimizer.clip_norm = 1;
    compare_with_golden("accumulated_adamw", &params);

    params = (lf_compile_params){ .model = model,
                                  .loss = LF_LOSS_HUBER,
                                  .loss_options = { .delta = 2 },
                                  .batch = 32,
                                  .stored = LF_F32,
                                  .rows = 100,
                                  .positions = 100,
                                  .steps = 4,
                                  .optimizer = lf_optimizer_default(LF_OPTIMIZER_LAMB) };
    params.optimizer.weight_decay = .5f;
    compare_with_golden("huber_lamb", &params);
    params.loss = LF_LOSS_BINARY_CROSS_ENTROPY;
    params.optimizer = lf_optimizer_default(LF_OPTIMIZER_LION);
    params.optimizer.clip_value = .5f;
    compare_with_golden("binary_lion", &params);

    const lf_hint hint = { "relu_1", "linear_1", .5f };
    lf_error err = { LF_OK, "" };
    lf_model *hinted = lf_model_with_hints(student, model, &hint, 1, 7, &err);
    assert_non_null(hinted);
    const lf_model *const teachers[] = { model, model };
    params = (lf_compile_params){ .model = hinted,
                                  .loss = LF_LOSS_CROSS_ENTROPY,
                                  .distill = { true, .75f, 4, teachers, 1 },
                                  .batch = 32,
                                  .stored = LF_U8,
                                  .rows = 100,
                                  .positions = 100,
                                  .steps = 4,
                                  .optimizer = lf_optimizer_default(LF_OPTIMIZER_RMSPROP) };
    compare_with_golden("hint_rmsprop", &params);
    params.model = student;
    params.loss = LF_LOSS_MSE;
    params.distill.teacher_count = 2;
    params.optimizer = lf_optimizer_default(LF_OPTIMIZER_SGD);
    compare_with_golden("two_teachers_sgd", &params);
    lf_model_destroy(hinted);
    lf_model_destroy(model);
    lf_model_destroy(student);
}

// Where a hint stands, and that it is in no definition.
static void hints_stand_behind_what_they_name(void **state)
{
    (void)state;
    static const lf_layer layers[] = { LINEAR(4, 4), RESIDUAL(2), LINEAR(4, 6), ACT(LF_ACT_RELU), LINEAR(6, 2) };
    lf_model *student = make_model(layers, COUNT(layers)), *teacher = make_model(layers, COUNT(layers));
    const lf_hint hints[] = { { "linear_2", "residual_1", 1 },
                              { "residual_1", "linear_3", 1 },
                              { "relu_1", "relu_1", 1 } };
    lf_error err = { LF_OK, "" };
    lf_model *hinted = lf_model_with_hints(student, teacher, hints, COUNT(hints), 1, &err);
    assert_non_null(hinted);
    static const char *const names[] = { "linear_1", "residual_1", "linear_2", "hint_1",
                                         "relu_1",   "hint_2",     "hint_3",   "linear_3" };
    static const uint32_t projected[] = { 0, 0, 0, 6, 0, 6, 2, 0 };
    assert_int_equal(hinted->layer_count, COUNT(names));
    for (size_t i = 0; i < COUNT(names); i++) {
        assert_string_equal(hinted->layers[i].name, names[i]);
        assert_int_equal(hinted->layers[i].projected, projected[i]);
    }
    assert_int_equal(hinted->layers[1].span, 4);
    char *plain = lf_model_definition(student), *text = lf_model_definition(hinted);
    assert_string_equal(plain, text);
    free(plain);
    free(text);
    lf_model_init(student, 5);
    lf_model_copy_shared(hinted, student);
    lf_model_copy_shared(teacher, hinted);
    assert_memory_equal(teacher->params, student->params, student->block_count * sizeof(float));
    lf_model_destroy(hinted);

    static const struct {
        lf_hint hint;
        const char *message;
    } wrong[] = { { { "relu_2", "relu_1", 1 }, "hint 1: the student has no layer relu_2" },
                  { { "relu_1", "tanh_1", 1 }, "hint 1: the teacher has no layer tanh_1" },
                  { { "relu_1", "relu_1", 0 }, "hint 1: weight must be above 0, not 0" } };
    for (size_t i = 0; i < COUNT(wrong); i++) {
        assert_null(lf_model_with_hints(student, teacher, &wrong[i].hint, 1, 1, &err));
        assert_string_equal(err.text, wrong[i].message);
    }
    lf_model_destroy(student);
    lf_model_destroy(teacher);
}

static void expect_compile_error(lf_compile_params params, const char *message)
{
    lf_error err = { LF_OK, "" };
    assert_null(lf_program_compile(&params, &err));
    assert_string_equal(err.text, message);
    assert_int_equal(err.code, LF_EARG);
}

static void options_out_of_range_are_named(void **state)
{
    (void)state;
    static const lf_layer layers[] = { LINEAR(4, 3) };
    lf_model *model = make_model(layers, 1);
    const lf_compile_params good = { .model = model,
                                     .loss = LF_LOSS_HUBER,
                                     .loss_options = { .delta = 1 },
                                     .batch = 2,
                                     .stored = LF_F32,
                                     .rows = 2,
                                     .positions = 2,
                                     .steps = 1,
                                     .optimizer = lf_optimizer_default(LF_OPTIMIZER_SGD) };
    lf_compile_params bad = good;
    bad.loss_options.delta = 0;
    expect_compile_error(bad, "delta must be above 0, not 0");
    bad = good;
    bad.loss_options.label_smoothing = 1;
    expect_compile_error(bad, "label_smoothing must be at least 0 and below 1, not 1");
    bad = good;
    bad.optimizer.clip_norm = 1;
    bad.optimizer.clip_value = 2;
    expect_compile_error(bad, "clip_norm and clip_value exclude each other, but 1 and 2 are given");
    lf_model_destroy(model);
}

static void tensors_lie_inside_their_regions_and_apart(void **state)
{
    (void)state;
    static const lf_layer layers[] = { LINEAR(33, 31), ACT(LF_ACT_GELU), BATCH_NORM(31),   RESIDUAL(3), LAYER_NORM(31),
                                       LINEAR(31, 7),  DROPOUT(.5f),     ACT(LF_ACT_RELU), LINEAR(7, 3) };
    lf_model *model = make_model(layers, COUNT(layers));
    for (int oracle = 0; oracle < 2; oracle++) {
        lf_compile_params params = { .model = model,
                                     .loss = LF_LOSS_CROSS_ENTROPY,
                                     .batch = 5,
                                     .stored = LF_U16,
                                     .rows = 77,
                                     .positions = 77,
                                     .steps = 16,
                                     .oracle = oracle,
                                     .distill = { .on = true, .alpha = .5f, .temperature = 2 },
                                     .optimizer = lf_optimizer_default(LF_OPTIMIZER_ADAM) };
        lf_program *program = lf_program_compile(&params, NULL);
        assert_non_null(program);
        for (size_t i = 0; i < program->tensor_count; i++) {
            const lf_tensor *a = &program->tensors[i];
            assert_int_equal(a->offset % 256, 0);
            assert_true(a->offset + lf_tensor_bytes(a) <= program->region_size[a->region]);
            for (size_t j = 0; j < i; j++) {
                const lf_tensor *b = &program->tensors[j];
                bool whole_block = (int)j == program->weights || (int)j == program->grads || (int)j == program->state;
                if (a->region == b->region && !whole_block)
                    assert_true(a->offset >= b->offset + lf_tensor_bytes(b) ||
                                b->offset >= a->offset + lf_tensor_bytes(a));
            }
        }
        lf_program_destroy(program);
    }
    lf_model_destroy(model);
}

// Runs the listing as a device without any order of its own would: between two barriers, no operation may touch what
// another one writes. Checked over three rounds, against a direct reading of the operands.
static void expect_barriers(uint32_t shards)
{
    static const lf_layer layers[] = { LINEAR(8, 8),  ACT(LF_ACT_SILU), RESIDUAL(4),  LAYER_NORM(8),    LINEAR(8, 6),
                                       BATCH_NORM(6), DROPOUT(.5f),     LINEAR(6, 6), ACT(LF_ACT_RELU), LINEAR(6, 4) };
    lf_model *model = make_model(layers, COUNT(layers));
    lf_compile_params params = { .model = model,
                                 .loss = LF_LOSS_MSE,
                                 .batch = 4,
                                 .stored = LF_F32,
                                 .rows = 9,
                                 .positions = 9,
                                 .steps = 3,
                                 .shards = shards,
                                 .optimizer = lf_optimizer_default(LF_OPTIMIZER_ADAM) };
    lf_program *program = lf_program_compile(&params, NULL);
    size_t barriers = 0, since = 0;
    for (size_t i = 0; i < 3 * program->op_count; i++) {
        const lf_op *later = &program->ops[i % program->op_count];
        if (later->barrier)
            since = i;
        barriers += later->barrier;
        for (size_t j = since; j < i; j++) {
            const lf_op *earlier = &program->ops[j % program->op_count];
            for (unsigned m = 0; m < LF_OPERAND_MAX; m++)
                for (unsigned n = 0; n < LF_OPERAND_MAX; n++) {
                    const lf_tensor *a = lf_op_tensor(program, earlier, m), *b = lf_op_tensor(program, later, n);
                    if (!a || !b || a->region != b->region)
                        continue;
                    bool apart =
                        a->offset >= b->offset + lf_tensor_bytes(b) || b->offset >= a->offset + lf_tensor_bytes(a);
                    bool reads_only = !lf_op_info_of(earlier->kind)->operands[m].written &&
                                      !lf_op_info_of(later->kind)->operands[n].written;
                    assert_true(apart || reads_only);
                }
        }
    }
    assert_true(barriers < 3 * program->op_count); // linear_dx and linear_dw of a layer run side by side
    lf_program_destroy(program);
    lf_model_destroy(model);
}

// In shards too: a loss of values reads metrics, and so the other shards'.
static void barriers_separate_every_conflict(void **state)
{
    (void)state;
    expect_barriers(0);
    expect_barriers(4);
}

static void expect_model_error(const lf_layer *layers, size_t count, const char *message)
{
    lf_error err = { LF_OK, "" };
    assert_null(lf_model_create(layers, count, &err));
    assert_string_equal(err.text, message);
    assert_int_equal(err.code, LF_EARG);
}

static void layers_that_do_not_fit_are_named(void **state)
{
    (void)state;
    static const lf_layer widths[] = { LINEAR(784, 64), ACT(LF_ACT_RELU), LINEAR(128, 10) };
    expect_model_error(widths, 3, "layer 3 (linear_2): expects 128 inputs, but layer 1 (linear_1) gives 64");
    static const lf_layer none[] = { ACT(LF_ACT_RELU) };
    expect_model_error(none, 1, "a model needs at least one linear layer");
    expect_model_error(NULL, 0, "a model needs at least one linear layer");
    static const lf_layer zero[] = { LINEAR(5, 0) };
    expect_model_error(zero, 1, "layer 1 (linear_1): needs at least 1 input and 1 output, not 5 and 0");
    static const lf_layer slash[] = { { .kind = LF_LAYER_LINEAR, .name = "a/b", .inputs = 1, .outputs = 1 } };
    expect_model_error(slash, 1, "layer 1: the name \"a/b\" cannot be a name in a file");
    static const lf_layer always[] = { LINEAR(2, 2), DROPOUT(1) };
    expect_model_error(always, 2, "layer 2 (dropout_1): the rate must be at least 0 and below 1, not 1");
    static const lf_layer normed[] = { LINEAR(3, 4), BATCH_NORM(5) };
    expect_model_error(normed, 2, "layer 2 (batch_norm_1): expects 5 inputs, but layer 1 (linear_1) gives 4");
    static const lf_layer empty[] = { LINEAR(2, 2), RESIDUAL(1) };
    expect_model_error(empty, 2, "layer 2 (residual_1): needs at least one layer inside");
    static const lf_layer inner[] = { LINEAR(3, 4), RESIDUAL(1), LINEAR(5, 4) };
    expect_model_error(inner, 3, "layer 3 (linear_2): expects 5 inputs, but layer 1 (linear_1) gives 4");
    static const lf_layer same[] = { { .kind = LF_LAYER_LINEAR, .name = "a", .inputs = 1, .outputs = 1 },
                                     { .kind = LF_LAYER_LINEAR, .name = "a", .inputs = 1, .outputs = 1 } };
    expect_model_error(same, 2, "layers 1 and 2 have the same name, a");
}

static void initial_weights_have_their_distribution(void **state)
{
    (void)state;
    static const struct {
        lf_init init;
        double variance;
    } cases[] = { { LF_INIT_UNIFORM, 1. / 3 / 300 },
                  { LF_INIT_HE_NORMAL, 2. / 300 },
                  { LF_INIT_HE_UNIFORM, 2. / 300 },
                  { LF_INIT_GLOROT_NORMAL, 2. / 500 },
                  { LF_INIT_GLOROT_UNIFORM, 2. / 500 },
                  { LF_INIT_LECUN_NORMAL, 1. / 300 },
                  { LF_INIT_LECUN_UNIFORM, 1. / 300 },
                  { LF_INIT_ZEROS, 0 },
                  { LF_INIT_NORMAL, .01 },
                  { LF_INIT_CONSTANT, .01 } };
    for (size_t c = 0; c < COUNT(cases); c++) {
        lf_layer layer = {
            .kind = LF_LAYER_LINEAR, .inputs = 300, .outputs = 200, .init = cases[c].init, .init_scale = .1f
        };
        bool drawn = cases[c].init != LF_INIT_ZEROS && cases[c].init != LF_INIT_CONSTANT;
        lf_model *model = make_model(&layer, 1);
        lf_model_init(model, 1);
        double sum = 0, squares = 0;
        for (size_t i = 0; i < 60000; i++) {
            sum += model->params[i];
            squares += (double)model->params[i] * model->params[i];
        }
        double mean = sum / 60000 - (cases[c].init == LF_INIT_CONSTANT ? .1 : 0);
        assert_true(mean < 1e-3 && mean > -1e-3);
        assert_true(squares / 60000 >= .97 * cases[c].variance && squares / 60000 <= 1.03 * cases[c].variance);
        lf_model *other = make_model(&layer, 1);
        lf_model_init(other, 1);
        assert_memory_equal(model->params, other->params, model->block_count * sizeof(float));
        lf_model_init(other, 2);
        if (drawn)
            assert_memory_not_equal(model->params, other->params, model->block_count * sizeof(float));
        lf_model_destroy(model);
        lf_model_destroy(other);
    }
}

static void a_definition_says_what_the_model_is(void **state)
{
    (void)state;
    static const lf_layer layers[] = { LINEAR(784, 128),
                                       { .kind = LF_LAYER_ACTIVATION, .activation = LF_ACT_ELU, .alpha = .1f },
                                       LINEAR(128, 10) };
    lf_model *model = make_model(layers, COUNT(layers));
    char *text = lf_model_definition(model);
    assert_string_equal(
        text, "{\"layers\":["
              "{\"kind\":\"linear\",\"name\":\"linear_1\",\"inputs\":784,\"outputs\":128,\"init\":\"uniform\"},"
              "{\"kind\":\"elu\",\"name\":\"elu_1\",\"alpha\":0.100000001},"
              "{\"kind\":\"linear\",\"name\":\"linear_2\",\"inputs\":128,\"outputs\":10,\"init\":\"uniform\"}]}");
    assert_int_equal(model->param_count, 101770);
    free(text);
    lf_model_destroy(model);

    static const lf_layer more[] = {
        DROPOUT(.5f), RESIDUAL(3), LINEAR(4, 6), RESIDUAL(1), LAYER_NORM(6), BATCH_NORM(6)
    };
    model = make_model(more, COUNT(more));
    text = lf_model_definition(model);
    assert_string_equal(
        text,
        "{\"layers\":[{\"kind\":\"dropout\",\"name\":\"dropout_1\",\"rate\":0.5},"
        "{\"kind\":\"residual\",\"name\":\"residual_1\",\"init\":\"uniform\",\"layers\":["
        "{\"kind\":\"linear\",\"name\":\"linear_1\",\"inputs\":4,\"outputs\":6,\"init\":\"uniform\"},"
        "{\"kind\":\"residual\",\"name\":\"residual_2\",\"init\":\"uniform\",\"layers\":["
        "{\"kind\":\"layer_norm\",\"name\":\"layer_norm_1\",\"inputs\":6,\"outputs\":6,\"eps\":9.99999975e-06}]}]},"
        "{\"kind\":\"batch_norm\",\"name\":\"batch_norm_1\",\"inputs\":6,\"outputs\":6,"
        "\"eps\":9.99999975e-06,\"momentum\":0.100000001}]}");
    assert_int_equal(model->param_count,
                     2 * (4 * 6 + 6) + 6 + 6 + 6 + 6); // the projection of residual_1 is one more linear
    free(text);
    lf_model_destroy(model);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s GOLDEN-FOLDER [--write]\n", argv[0]);
        return 2;
    }
    golden_folder = argv[1];
    write_golden = argc > 2 && !strcmp(argv[2], "--write");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(programs_match_their_listings),
        cmocka_unit_test(programs_in_shards_match_their_listings),
        cmocka_unit_test(programs_of_every_layer_match_their_listings),
        cmocka_unit_test(programs_of_every_update_match_their_listings),
        cmocka_unit_test(hints_stand_behind_what_they_name),
        cmocka_unit_test(options_out_of_range_are_named),
        cmocka_unit_test(tensors_lie_inside_their_regions_and_apart),
        cmocka_unit_test(barriers_separate_every_conflict),
        cmocka_unit_test(layers_that_do_not_fit_are_named),
        cmocka_unit_test(initial_weights_have_their_distribution),
        cmocka_unit_test(a_definition_says_what_the_model_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
