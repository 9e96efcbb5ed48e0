// Small programs, one dispatch a step, against the oracle and the general path. The environment says with which tiles,
// and whether the validation layer watches.
#include "trainer.h"

#define CLASSES(i, h, o, act)                                                                                          \
    .layers = { LINEAR(i, h), ACTIVATION(act), LINEAR(h, o) }, .layer_count = 3, .loss = LF_LOSS_CROSS_ENTROPY,        \
    .fuses = true

#define SGD(...)  .optimizer = { .kind = LF_OPTIMIZER_SGD, .lr = .05, __VA_ARGS__ }
#define ADAM(...) .optimizer = { .kind = LF_OPTIMIZER_ADAM, RATES, __VA_ARGS__ }
// ε is large: with 1e-8, where a gradient is next to nothing, the first steps divide rounding errors by each other.
#define RATES     .lr = .01, .beta1 = .9f, .beta2 = .99f, .eps = 1e-3f

// Rows end within a batch, so that batches are short.
static const test_training small[] = {
    { .what = "784-128-10, batch 64, adam",
      CLASSES(784, 128, 10, LF_ACT_RELU),
      ADAM(0),
      .rows = 100,
      .batch = 64,
      .steps = 10,
      .stored = LF_U8 },
    { .what = "65-100-31, batch 33, adamw without decay of biases, smoothed labels",
      CLASSES(65, 100, 31, LF_ACT_GELU),
      .optimizer = { .kind = LF_OPTIMIZER_ADAMW, RATES, .weight_decay = .1f },
      .loss_options = { .label_smoothing = .1f },
      .rows = 80,
      .batch = 33,
      .steps = 10,
      .stored = LF_F32 },
    { .what = "20-4-3, batch 7, sgd with nesterov's momentum and decay",
      CLASSES(20, 4, 3, LF_ACT_TANH),
      SGD(.momentum = .9f, .nesterov = true, .weight_decay = .01f, .decay_bias = true),
      .rows = 25,
      .batch = 7,
      .steps = 10,
      .stored = LF_U8 },
    { .what = "31-12-5, batch 1, adam with decay",
      CLASSES(31, 12, 5, LF_ACT_SILU),
      ADAM(.weight_decay = .1f, .decay_bias = true),
      .rows = 6,
      .batch = 1,
      .steps = 10,
      .stored = LF_I16 },
    { .what = "600-8-2, batch 40, sgd without an activation",
      .layers = { LINEAR(600, 8), LINEAR(8, 2) },
      .layer_count = 2,
      .loss = LF_LOSS_CROSS_ENTROPY,
      .fuses = true,
      SGD(0),
      .rows = 90,
      .batch = 40,
      .steps = 10,
      .stored = LF_F32 },
    { .what = "12-16-150, batch 20, sgd with momentum",
      CLASSES(12, 16, 150, LF_ACT_ELU),
      SGD(.momentum = .5f),
      .rows = 50,
      .batch = 20,
      .steps = 10,
      .stored = LF_F32 },
};

// One dispatch a step, one more, and the one that moves the counter.
static bool runs_small(test_trainer *t, uint32_t steps)
{
    uint64_t before = device->dispatches;
    rig_run(&t->rig, LF_PHASE_LOAD, LF_PHASE_UPDATE, steps);
    return device->dispatches - before == steps + 2;
}

static double *values_of(const test_trainer *t, lf_tensor_id tensor, size_t *count)
{
    *count = rig_elements(t->program, tensor);
    double *values = malloc(*count * sizeof *values);
    assert_non_null(values);
    rig_get(&t->rig, tensor, values);
    return values;
}

static void compare(const test_training *training, const test_trainer *got, const test_trainer *want,
                    lf_tensor_id tensor, double bound)
{
    if (tensor == LF_NO_TENSOR)
        return;
    size_t count;
    double *a = values_of(got, tensor, &count), *b = values_of(want, tensor, &count), most = 0;
    for (size_t i = 0; i < count; i++)
        most = fmax(most, fabs(b[i]));
    assert_near(training->what, got->program, tensor, a, b, bound, most);
    free(a);
    free(b);
}

static void compare_all(const test_training *training, const test_trainer *got, const test_trainer *want, double bound)
{
    const lf_program *p = got->program;
    const lf_tensor_id tensors[] = { p->metrics, p->output, p->weights, p->moment[LF_MOMENT_M],
                                     p->moment[LF_MOMENT_V] };
    for (size_t i = 0; i < COUNT(tensors); i++)
        compare(training, got, want, tensors[i], bound);
    assert_int_equal(rig_counter(&got->rig), rig_counter(&want->rig));
}

static void steps_of_one_dispatch_are_the_oracles(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(small); i++) {
        test_trainer got, want;
        trainer_init(&got, device, &small[i], false);
        trainer_init(&want, oracle, &small[i], true);
        assert_true(runs_small(&got, small[i].steps));
        trainer_run(&want);
        compare_all(&small[i], &got, &want, 1e-4);
        trainer_finish(&want);
        trainer_finish(&got);
    }
}

// Of each step, as a mean over its rows.
static void compare_losses(const test_training *training, const test_trainer *got, const test_trainer *want)
{
    size_t count;
    double *a = values_of(got, got->program->metrics, &count), *b = values_of(want, want->program->metrics, &count);
    for (uint32_t step = 0; step < training->steps; step++) {
        double one = 0, other = 0, rows = 0;
        for (uint32_t i = 0; i < training->batch; i++) {
            size_t at = ((size_t)step * training->batch + i) * LF_METRIC_COUNT;
            one += a[at + LF_METRIC_LOSS];
            other += b[at + LF_METRIC_LOSS];
            rows += b[at + LF_METRIC_WEIGHT];
            for (unsigned k = LF_METRIC_LOSS + 1; k < LF_METRIC_COUNT; k++)
                assert_true(a[at + k] == b[at + k]);
        }
        if (!(fabs(one - other) <= 1e-5 * fmax(rows, other)))
            fail_msg("%s: the losses of step %u add up to %.9g, and to %.9g in the general path", training->what, step,
                     one, other);
    }
    free(a);
    free(b);
}

static void steps_of_one_dispatch_are_those_of_many(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(small); i++) {
        test_training general = small[i];
        general.fuses = false;
        test_trainer got, want;
        trainer_init(&got, device, &small[i], false);
        trainer_init(&want, device, &general, false);
        assert_true(runs_small(&got, small[i].steps));
        assert_false(runs_small(&want, general.steps));
        compare_losses(&small[i], &got, &want);
        compare_all(&small[i], &got, &want, 1e-4);
        trainer_finish(&want);
        trainer_finish(&got);
    }
}

static void expect_equal_bits(const test_training *training, const test_trainer *a, const test_trainer *b)
{
    size_t size, other, count;
    unsigned char *one = trainer_bits(a, &size), *two = trainer_bits(b, &other);
    double *logits = values_of(a, a->program->output, &count), *others = values_of(b, b->program->output, &count);
    assert_int_equal(size, other);
    if (memcmp(one, two, size) || memcmp(logits, others, count * sizeof *logits))
        fail_msg("%s: weights, moments, metrics or logits differ", training->what);
    free(one);
    free(two);
    free(logits);
    free(others);
}

static void a_stretch_gives_the_same_bits_again_and_wherever_it_is_cut(void **state)
{
    (void)state;
    static const uint32_t cuts[][4] = { { 10 }, { 1, 9 }, { 4, 1, 5 }, { 3, 3, 3, 1 } };
    for (size_t i = 0; i < COUNT(small); i++) {
        test_trainer whole;
        trainer_init(&whole, device, &small[i], false);
        assert_true(runs_small(&whole, small[i].steps));
        for (size_t c = 0; c < COUNT(cuts); c++) {
            test_trainer parts;
            trainer_init(&parts, device, &small[i], false);
            for (size_t k = 0; k < COUNT(cuts[c]) && cuts[c][k]; k++)
                assert_true(runs_small(&parts, cuts[c][k]));
            expect_equal_bits(&small[i], &parts, &whole);
            trainer_finish(&parts);
        }
        trainer_finish(&whole);
    }
}

static void expect_general(const char *what, test_training training)
{
    test_trainer t;
    training.what = what;
    trainer_init(&t, device, &training, false);
    if (runs_small(&t, training.steps))
        fail_msg("a training %s is taken for a small one", what);
    trainer_finish(&t);
}

static void other_programs_take_the_general_path(void **state)
{
    (void)state;
    const test_training plain = small[2];
    test_training other = plain;
    other.fuses = false;
    expect_general("that does not fuse", other);
    other = plain;
    other.weighted = true;
    expect_general("with weights of rows", other);
    other = plain;
    other.batches = 2;
    expect_general("with batches that share an update", other);
    other = plain;
    other.shards = 2;
    expect_general("in shards", other);
    other = plain;
    other.average = .5f;
    expect_general("with an average", other);
    other = plain;
    other.optimizer.clip_value = 1;
    expect_general("with clipped values", other);
    other = plain;
    other.optimizer.clip_norm = 1;
    expect_general("with a clipped norm", other);
    other = plain;
    other.optimizer = lf_optimizer_default(LF_OPTIMIZER_LION);
    expect_general("with another optimizer", other);
    other = plain;
    other.loss = LF_LOSS_MSE;
    expect_general("with a loss of values", other);
    other = plain;
    other.soft_weight = .5f;
    other.temperature = 2;
    expect_general("that distills", other);
    other = plain;
    other.layers[3] = (lf_layer)ACTIVATION(LF_ACT_RELU);
    other.layer_count = 4;
    expect_general("with an activation at the end", other);
    other = plain;
    other.layers[3] = other.layers[2];
    other.layers[2] = (lf_layer)DROPOUT(.5f);
    other.layer_count = 4;
    expect_general("with dropout", other);
    other = plain;
    other.layers[0].outputs = other.layers[2].inputs = 6;
    expect_general("with six hidden units", other);
    other.layers[0].outputs = other.layers[2].inputs = 260;
    expect_general("with too many hidden units", other);
    other = plain;
    other.layers[0].inputs = 3000;
    expect_general("with more inputs than shared memory holds", other);
}

static void whoever_says_no_gets_the_general_path(void **state)
{
    (void)state;
    setenv("LAVAFLOW_FUSE", "0", 1);
    expect_general("though LAVAFLOW_FUSE=0", small[2]);
    setenv("LAVAFLOW_FUSE", "1", 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_of_one_dispatch_are_the_oracles),
        cmocka_unit_test(steps_of_one_dispatch_are_those_of_many),
        cmocka_unit_test(a_stretch_gives_the_same_bits_again_and_wherever_it_is_cut),
        cmocka_unit_test(other_programs_take_the_general_path),
        cmocka_unit_test(whoever_says_no_gets_the_general_path),
    };
    lf_error err;
    setenv("LAVAFLOW_FUSE", "1", 1); // also where it would not pay
    device = lf_device_open("vulkan:0", &err);
    oracle = device ? lf_device_open("cpu", &err) : NULL;
    if (!oracle) {
        printf("%s: %s\n", device ? "failed" : "skipped", err.text);
        return device ? 1 : 77;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lf_device_close(oracle);
    lf_device_close(device);
    return failed;
}
