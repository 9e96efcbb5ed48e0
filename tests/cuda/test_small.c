// small_steps against float64: its launches run on the stand-in, over the memory of the cpu device.
#include "cpu/cpu.h"
#include "cuda/small.h"
#include "launch.h"
#include "small_layout.h"
#include "trainer.h"

void lf_small_steps(const struct lf_call call);

enum { SHARED_MAX = 232448 }; // of an H100's block

typedef struct small_case {
    test_training training;
    uint32_t blocks; // that there may be, and are
} small_case;

// ε is large: with 1e-8, where a gradient is next to nothing, the first steps divide rounding errors by each other.
static const small_case cases[] = {
    { { .what = "784-128-10, adam",
        .layers = { LINEAR(784, 128), ACTIVATION(LF_ACT_RELU), LINEAR(128, 10) },
        .layer_count = 3,
        .loss = LF_LOSS_CROSS_ENTROPY,
        .optimizer = { .kind = LF_OPTIMIZER_ADAM, .lr = .01, .beta1 = .9f, .beta2 = .999f, .eps = 1e-3f },
        .rows = 100,
        .batch = 64,
        .steps = 3,
        .stored = LF_U8 },
      .blocks = 32 },
    { { .what = "65-64-31, adamw without decay of biases, smoothed labels, eight units a block",
        .layers = { LINEAR(65, 64), ACTIVATION(LF_ACT_GELU), LINEAR(64, 31) },
        .layer_count = 3,
        .loss = LF_LOSS_CROSS_ENTROPY,
        .optimizer = { .kind = LF_OPTIMIZER_ADAMW,
                       .lr = .01,
                       .beta1 = .9f,
                       .beta2 = .99f,
                       .eps = 1e-3f,
                       .weight_decay = .1f },
        .rows = 150,
        .batch = 70,
        .steps = 5,
        .stored = LF_F32,
        .loss_options = { .label_smoothing = .1f } },
      .blocks = 8 },
    { { .what = "784-128-10, sgd with momentum, eight units a block",
        .layers = { LINEAR(784, 128), ACTIVATION(LF_ACT_TANH), LINEAR(128, 10) },
        .layer_count = 3,
        .loss = LF_LOSS_CROSS_ENTROPY,
        .optimizer = { .kind = LF_OPTIMIZER_SGD,
                       .lr = .05,
                       .momentum = .9f,
                       .nesterov = true,
                       .weight_decay = .01f,
                       .decay_bias = true },
        .rows = 100,
        .batch = 33,
        .steps = 5,
        .stored = LF_U8 },
      .blocks = 16 },
    { { .what = "3-4-2, sgd, no activation, one block",
        .layers = { LINEAR(3, 4), LINEAR(4, 2) },
        .layer_count = 2,
        .loss = LF_LOSS_CROSS_ENTROPY,
        .optimizer = { .kind = LF_OPTIMIZER_SGD, .lr = .05 },
        .rows = 7,
        .batch = 3,
        .steps = 6,
        .stored = LF_U8 },
      .blocks = 1 },
};

static uint64_t address_of(lf_buffer *buffer)
{
    return buffer ? (uintptr_t)((cpu_buffer *)buffer)->memory : 0;
}

static bool fits(const test_trainer *t, uint32_t blocks, size_t shared, cu_small *small)
{
    uint64_t address[LF_REGION_COUNT];
    for (unsigned i = 0; i < LF_REGION_COUNT; i++)
        address[i] = address_of(t->rig.regions.region[i]);
    return cu_small_fits(t->program, address, shared, blocks, small);
}

static void run_small(test_trainer *t, uint32_t blocks, uint32_t steps)
{
    cu_small small;
    char why[1024];
    assert_true(fits(t, blocks, SHARED_MAX, &small));
    assert_int_equal(small.launch.grid[0], blocks);
    unsigned char *scratch = malloc(small.scratch);
    assert_non_null(scratch);
    memset(scratch, 0xff, small.scratch);
    memset(scratch, 0, small.zeroed);
    host_launch launch = { .name = cu_kernel_name(small.launch.kernel),
                           .kernel = lf_small_steps,
                           .shared = small.launch.shared,
                           .cooperative = true };
    memcpy(launch.grid, small.launch.grid, sizeof launch.grid);
    memcpy(launch.block, small.launch.block, sizeof launch.block);
    struct lf_call call = small.launch.call;
    call.step = steps;
    call.operand[LF_SMALL_SCRATCH] = (uintptr_t)scratch;
    if (!host_launch_run(&launch, &call, why, sizeof why))
        fail_msg("%s", why);
    free(scratch);
}

static void compare(const test_training *training, const test_trainer *got, const test_trainer *want,
                    lf_tensor_id tensor)
{
    if (tensor == LF_NO_TENSOR)
        return;
    size_t count = rig_elements(got->program, tensor);
    double *a = malloc(count * sizeof *a), *b = malloc(count * sizeof *b), most = 0;
    assert_true(a && b);
    rig_get(&got->rig, tensor, a);
    rig_get(&want->rig, tensor, b);
    for (size_t i = 0; i < count; i++)
        most = fmax(most, fabs(b[i]));
    assert_near(training->what, got->program, tensor, a, b, 1e-4, most);
    free(a);
    free(b);
}

static void steps_in_one_launch_are_the_oracles(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const test_training *training = &cases[i].training;
        test_trainer got, want;
        trainer_init(&got, device, training, false);
        trainer_init(&want, oracle, training, true);
        run_small(&got, cases[i].blocks, training->steps);
        trainer_run(&want);
        compare(training, &got, &want, got.program->metrics);
        compare(training, &got, &want, got.program->output);
        compare(training, &got, &want, got.program->weights);
        compare(training, &got, &want, got.program->moment[LF_MOMENT_M]);
        compare(training, &got, &want, got.program->moment[LF_MOMENT_V]);
        assert_int_equal(rig_counter(&got.rig), rig_counter(&want.rig));
        trainer_finish(&want);
        trainer_finish(&got);
    }
}

static void steps_in_several_launches_give_the_bits_of_one(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const test_training *training = &cases[i].training;
        test_trainer one, several;
        trainer_init(&one, device, training, false);
        trainer_init(&several, device, training, false);
        run_small(&one, cases[i].blocks, training->steps);
        run_small(&several, cases[i].blocks, 1);
        run_small(&several, cases[i].blocks, training->steps - 1);
        size_t size, other;
        unsigned char *a = trainer_bits(&one, &size), *b = trainer_bits(&several, &other);
        assert_int_equal(size, other);
        assert_memory_equal(a, b, size);
        free(a);
        free(b);
        trainer_finish(&several);
        trainer_finish(&one);
    }
}

static void assert_unfit(test_training training)
{
    test_trainer t;
    cu_small small;
    trainer_init(&t, device, &training, false);
    if (fits(&t, 32, SHARED_MAX, &small))
        fail_msg("%s is taken for a small program", training.what);
    trainer_finish(&t);
}

static void other_programs_are_left_to_the_general_path(void **state)
{
    (void)state;
    const test_training plain = cases[3].training;
    test_training other = plain;
    other.what = "with weights of rows";
    other.weighted = true;
    assert_unfit(other);
    other = plain;
    other.what = "with batches that share an update";
    other.batches = 2;
    assert_unfit(other);
    other = plain;
    other.what = "in shards";
    other.shards = 2;
    assert_unfit(other);
    other = plain;
    other.what = "with an average";
    other.average = .5f;
    assert_unfit(other);
    other = plain;
    other.what = "with clipped values";
    other.optimizer.clip_value = 1;
    assert_unfit(other);
    other = plain;
    other.what = "with a clipped norm";
    other.optimizer.clip_norm = 1;
    assert_unfit(other);
    other = plain;
    other.what = "with a loss of values";
    other.loss = LF_LOSS_MSE;
    assert_unfit(other);
    other = plain;
    other.what = "stored in 16 bits";
    other.stored = LF_U16;
    assert_unfit(other);
    other = plain;
    other.what = "with an activation at the end";
    other.layers[2] = (lf_layer)ACTIVATION(LF_ACT_RELU);
    other.layer_count = 3;
    assert_unfit(other);
    other = plain;
    other.what = "with hidden units that do not divide";
    other.layers[0].outputs = other.layers[1].inputs = 6;
    assert_unfit(other);
}

static void what_does_not_fit_is_left_to_the_general_path(void **state)
{
    (void)state;
    test_trainer t;
    cu_small small;
    trainer_init(&t, device, &cases[2].training, false);
    assert_true(fits(&t, 16, SHARED_MAX, &small)); // eight units a block
    assert_false(fits(&t, 15, SHARED_MAX, &small));
    assert_true(fits(&t, 32, SHARED_MAX, &small));
    assert_true(fits(&t, 32, small.launch.shared, &small));
    assert_false(fits(&t, 32, small.launch.shared - 1, &small));
    setenv("LAVAFLOW_FUSE", "0", 1);
    assert_false(fits(&t, 32, SHARED_MAX, &small));
    unsetenv("LAVAFLOW_FUSE");
    trainer_finish(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_in_one_launch_are_the_oracles),
        cmocka_unit_test(steps_in_several_launches_give_the_bits_of_one),
        cmocka_unit_test(other_programs_are_left_to_the_general_path),
        cmocka_unit_test(what_does_not_fit_is_left_to_the_general_path),
    };
    unsetenv("LAVAFLOW_FUSE");
    lf_error err;
    device = oracle = lf_device_open("cpu", &err);
    if (!device) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lf_device_close(device);
    return failed;
}
