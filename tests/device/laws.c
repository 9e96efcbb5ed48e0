// What holds on every device, to the bit where bits are promised.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cpu/cpu.h"
#include "cpu/host.h"
#include "suite.h"
#include "trainer.h"

static const test_training small = {
    "33-65-31-7",
    { LINEAR(33, 65), ACTIVATION(LF_ACT_RELU), LINEAR(65, 31), ACTIVATION(LF_ACT_GELU), LINEAR(31, 7) },
    5,
    LF_LOSS_CROSS_ENTROPY,
    { .kind = LF_OPTIMIZER_ADAM, .lr = .01, .beta1 = .9f, .beta2 = .999f, .eps = 1e-8f },
    100,
    32,
    20,
    .stored = LF_U8,
};

// Wide enough that every operation is cut into several blocks.
static const test_training wide = {
    "784-256-100",
    { LINEAR(784, 256), ACTIVATION(LF_ACT_TANH), LINEAR(256, 100) },
    3,
    LF_LOSS_CROSS_ENTROPY,
    { .kind = LF_OPTIMIZER_ADAM, .lr = .01, .beta1 = .9f, .beta2 = .999f, .eps = 1e-8f },
    300,
    128,
    20,
    .stored = LF_U8,
};

// Whole steps of the same, of rows that are mostly zeros.
static test_training fused_steps(void)
{
    test_training training = wide;
    training.what = "784-256-100 fused";
    training.stored = LF_F32;
    training.zeros = .8;
    training.fuses = true;
    return training;
}

// Every layer, and wide enough for several blocks of each operation; the last batch of a pass is short.
static const test_training layered = {
    "every layer",
    { BATCH_NORM(33), LINEAR(33, 300), BATCH_NORM(300), ACTIVATION(LF_ACT_SILU), DROPOUT(.5f), RESIDUAL(4),
      LAYER_NORM(300), LINEAR(300, 300), ACTIVATION(LF_ACT_RELU), DROPOUT(.25f), LINEAR(300, 100) },
    11,
    LF_LOSS_CROSS_ENTROPY,
    { .kind = LF_OPTIMIZER_ADAM, .lr = .01, .beta1 = .9f, .beta2 = .999f, .eps = 1e-8f },
    300,
    128,
    20,
    .stored = LF_U8,
    .soft_weight = .5f,
    .temperature = 3,
};

// Every sweep behind the gradients, teachers and hints, with several blocks of each operation.
static const test_training updated = {
    "clipped lamb over three batches",
    { LINEAR(784, 256), ACTIVATION(LF_ACT_TANH), LINEAR(256, 100) },
    3,
    LF_LOSS_CROSS_ENTROPY,
    { .kind = LF_OPTIMIZER_LAMB, .lr = .01, .beta1 = .9f, .beta2 = .999f, .eps = 1e-6f, .clip_norm = .25f },
    300,
    128,
    20,
    .stored = LF_U8,
    .soft_weight = .5f,
    .temperature = 3,
    .weighted = true,
    .batches = 3,
    .average = .9f,
    .teachers = 2,
    .hints = { { "tanh_1", "tanh_1", .5f } },
    .hint_count = 1,
};

// The losses of values and the other optimizers, over few steps.
static const test_training values[] = {
    { "binary cross-entropy, rmsprop",
      { LINEAR(33, 300), ACTIVATION(LF_ACT_SILU), LINEAR(300, 100) },
      3,
      LF_LOSS_BINARY_CROSS_ENTROPY,
      { .kind = LF_OPTIMIZER_RMSPROP, .lr = .01, .beta2 = .99f, .eps = 1e-8f, .momentum = .5f },
      300,
      128,
      5,
      .stored = LF_F32,
      .weighted = true },
    { "huber, lion",
      { LINEAR(33, 300), ACTIVATION(LF_ACT_SILU), LINEAR(300, 100) },
      3,
      LF_LOSS_HUBER,
      { .kind = LF_OPTIMIZER_LION, .lr = .001, .beta1 = .9f, .beta2 = .99f, .clip_value = .001f },
      300,
      128,
      5,
      .stored = LF_F32,
      .loss_options = { .delta = .75f } },
};

typedef void run_fn(test_trainer *trainer);

static unsigned char *bits_after(lf_device *dev, const test_training *training, run_fn *run, size_t *size)
{
    test_trainer t;
    trainer_init(&t, dev, training, false);
    run(&t);
    assert_int_equal(rig_counter(&t.rig), training->steps);
    unsigned char *bits = trainer_bits(&t, size);
    trainer_finish(&t);
    return bits;
}

static void assert_equal_bits(lf_device *a, run_fn *run_a, lf_device *b, run_fn *run_b, const test_training *training)
{
    size_t size, again;
    unsigned char *one = bits_after(a, training, run_a, &size), *other = bits_after(b, training, run_b, &again);
    assert_int_equal(size, again);
    for (size_t i = 0; i < size; i++)
        if (one[i] != other[i])
            fail_msg("%s on %s and %s: byte %zu of weights, statistics, moments and metrics is %02x and %02x",
                     training->what, a->info.id, b->info.id, i, one[i], other[i]);
    free(one);
    free(other);
}

static void step_by_step(test_trainer *t)
{
    for (uint32_t i = 0; i < t->program->params.steps; i++)
        rig_run(&t->rig, LF_PHASE_LOAD, LF_PHASE_UPDATE, 1);
}

static void phase_by_phase(test_trainer *t)
{
    for (uint32_t i = 0; i < t->program->params.steps; i++)
        for (lf_phase phase = LF_PHASE_LOAD; phase <= LF_PHASE_UPDATE; phase++)
            rig_run(&t->rig, phase, phase, 1);
}

// Submissions follow each other without a wait between them.
static void without_waiting(test_trainer *t)
{
    lf_error err;
    uint32_t steps = t->program->params.steps, cuts[] = { 1, 7, steps - 8 };
    for (size_t i = 0; i < COUNT(cuts); i++)
        assert_true(lf_device_exec_run(t->rig.dev, t->rig.exec, 0, LF_LAST_SEGMENT, cuts[i], &err));
    assert_true(lf_device_wait(t->rig.dev, &err));
}

static void two_runs_give_equal_bits(void **state)
{
    (void)state;
    assert_equal_bits(device, trainer_run, device, trainer_run, &small);
    assert_equal_bits(device, trainer_run, device, trainer_run, &wide);
    assert_equal_bits(device, trainer_run, device, trainer_run, &layered);
    assert_equal_bits(device, trainer_run, device, trainer_run, &updated);
}

static void one_submission_of_n_steps_is_n_submissions_of_one(void **state)
{
    (void)state;
    assert_equal_bits(device, trainer_run, device, step_by_step, &small);
    assert_equal_bits(device, trainer_run, device, step_by_step, &layered);
    assert_equal_bits(device, trainer_run, device, step_by_step, &updated);
}

static void submissions_need_no_wait_between_them(void **state)
{
    (void)state;
    assert_equal_bits(device, trainer_run, device, without_waiting, &small);
}

static void phases_one_after_the_other_are_all_at_once(void **state)
{
    (void)state;
    assert_equal_bits(device, trainer_run, device, phase_by_phase, &small);
    assert_equal_bits(device, trainer_run, device, phase_by_phase, &layered);
    assert_equal_bits(device, trainer_run, device, phase_by_phase, &updated);
}

static void a_device_opened_twice_gives_equal_bits(void **state)
{
    (void)state;
    lf_error err;
    lf_device *second = lf_device_open(device->info.id, &err);
    if (!second)
        fail_msg("%s", err.text);
    assert_equal_bits(device, trainer_run, second, trainer_run, &small);
    assert_int_equal(second->live_buffers, 0);
    assert_int_equal(second->live_execs, 0);
    lf_device_close(second);
}

static void two_programs_share_a_device(void **state)
{
    (void)state;
    test_trainer a, b;
    trainer_init(&a, device, &small, false);
    trainer_init(&b, device, &small, false);
    for (uint32_t i = 0; i < small.steps; i++) {
        rig_run(&a.rig, LF_PHASE_LOAD, LF_PHASE_UPDATE, 1);
        rig_run(&b.rig, LF_PHASE_LOAD, LF_PHASE_UPDATE, 1);
    }
    size_t size;
    unsigned char *one = trainer_bits(&a, &size), *other = trainer_bits(&b, &size);
    assert_memory_equal(one, other, size);
    free(one);
    free(other);
    trainer_finish(&b);
    trainer_finish(&a);
}

static void training_lowers_the_loss(void **state)
{
    (void)state;
    test_trainer t;
    trainer_init(&t, device, &small, false);
    trainer_run(&t);
    double *metrics = calloc(rig_elements(t.program, t.program->metrics), sizeof *metrics), first = 0, last = 0;
    assert_non_null(metrics);
    rig_get(&t.rig, t.program->metrics, metrics);
    size_t step = (size_t)small.batch * LF_METRIC_COUNT;
    for (uint32_t i = 0; i < small.batch; i++) { // step 16 has the rows of step 0
        first += metrics[i * LF_METRIC_COUNT + LF_METRIC_LOSS] / small.batch;
        last += metrics[16 * step + i * LF_METRIC_COUNT + LF_METRIC_LOSS] / small.batch;
    }
    free(metrics);
    assert_true(last < .95 * first);
    trainer_finish(&t);
}

static void expect_advances(test_trainer *t, lf_phase first, lf_phase last, bool advances)
{
    uint32_t before = rig_counter(&t->rig);
    rig_run(&t->rig, first, last, 1);
    assert_int_equal(rig_counter(&t->rig) - before, advances);
}

static void the_counter_moves_with_the_last_segment_alone(void **state)
{
    (void)state;
    test_trainer t;
    trainer_init(&t, device, &small, false);
    rig_run(&t.rig, LF_PHASE_LOAD, LF_PHASE_FORWARD, 3);
    rig_run(&t.rig, LF_PHASE_BACKWARD, LF_PHASE_REDUCE, 2);
    assert_int_equal(rig_counter(&t.rig), 0);
    expect_advances(&t, LF_PHASE_LOAD, LF_PHASE_REDUCE, false);
    expect_advances(&t, LF_PHASE_UPDATE, LF_PHASE_UPDATE, true);
    expect_advances(&t, LF_PHASE_LOAD, LF_PHASE_UPDATE, true);
    trainer_finish(&t);

    test_training evaluation = small;
    evaluation.optimizer = (lf_optimizer){ .kind = LF_OPTIMIZER_NONE };
    trainer_init(&t, device, &evaluation, false);
    expect_advances(&t, LF_PHASE_LOAD, LF_PHASE_LOAD, false);
    expect_advances(&t, LF_PHASE_FORWARD, LF_PHASE_FORWARD, true);
    expect_advances(&t, LF_PHASE_FORWARD, LF_PHASE_REDUCE, true);
    rig_run(&t.rig, LF_PHASE_LOAD, LF_PHASE_UPDATE, 4);
    assert_int_equal(rig_counter(&t.rig), 6);
    trainer_finish(&t);
}

// In a child process, for the seam asserts; the program that lacks an operand is the child's own.
static void an_operand_that_is_not_optional_must_be_there(void **state)
{
    (void)state;
#ifdef NDEBUG
    skip(); // assertions are off
#endif
    test_trainer t;
    trainer_init(&t, device, &small, false);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        lf_error err;
        signal(SIGABRT, SIG_DFL);
        dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
        t.program->ops[1].operands[LF_LINEAR_BIAS] = LF_NO_TENSOR;
        lf_device_exec_create(device, t.program, &t.rig.regions, &err);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    trainer_finish(&t);
}

// Row by row: the rows without NaN keep their losses, for a NaN must not spread through the products.
static void a_nan_in_x_comes_out_as_the_nan_loss_of_its_row(void **state)
{
    (void)state;
    test_training training = small;
    training.stored = LF_F32;
    training.rows = training.batch = 32;
    training.steps = 1;
    test_trainer t;
    trainer_init(&t, device, &training, false);
    size_t count = rig_elements(t.program, t.program->data);
    double *x = calloc(count, sizeof *x), metrics[32][LF_METRIC_COUNT];
    assert_non_null(x);
    rig_get(&t.rig, t.program->data, x);
    uint32_t position = 9, row = (position * 17 + 5) % training.rows; // as the order is filled
    x[row * t.model->inputs + 3] = (double)NAN;
    rig_put(&t.rig, t.program->data, x);
    free(x);
    trainer_run(&t);
    assert_int_equal(rig_elements(t.program, t.program->metrics), COUNT(metrics) * LF_METRIC_COUNT);
    rig_get(&t.rig, t.program->metrics, metrics[0]);
    for (uint32_t i = 0; i < training.batch; i++)
        assert_int_equal(isnan(metrics[i][LF_METRIC_LOSS]) != 0, i == position);
    assert_true(metrics[position][LF_METRIC_RANK] > 0);
    trainer_finish(&t);
}

static void a_buffer_is_zero_at_first_and_gives_back_what_was_written(void **state)
{
    (void)state;
    static const size_t sizes[] = { 1, 255, 256, 1000, 100003, (size_t)5 << 20 };
    for (size_t s = 0; s < COUNT(sizes); s++) {
        lf_error err;
        size_t size = sizes[s];
        lf_buffer *buf = lf_device_buffer_create(device, size, &err);
        unsigned char *want = calloc(1, size), *got = malloc(size);
        if (!buf)
            fail_msg("%s", err.text);
        assert_true(want && got);
        assert_true(lf_device_buffer_read(device, got, buf, 0, size, &err));
        assert_memory_equal(got, want, size);
        size_t offsets[] = { 0, size / 3, size / 2, size - 1 };
        for (size_t o = 0; o < COUNT(offsets); o++) {
            size_t length = (size - offsets[o]) / 2 + (o > 1 ? 0 : 1);
            if (offsets[o] + length > size)
                length = size - offsets[o];
            for (size_t i = 0; i < length; i++)
                want[offsets[o] + i] = (unsigned char)(i * 31 + o + 1);
            if (!lf_device_buffer_write(device, buf, offsets[o], want + offsets[o], length, &err))
                fail_msg("%s", err.text);
        }
        assert_true(lf_device_buffer_read(device, got, buf, 0, size, &err));
        assert_memory_equal(got, want, size);
        assert_true(lf_device_buffer_read(device, got, buf, size / 3, size - size / 3, &err));
        assert_memory_equal(got, want + size / 3, size - size / 3);
        free(want);
        free(got);
        lf_device_buffer_destroy(device, buf);
    }
}

static void any_number_of_threads_gives_equal_bits(void **state)
{
    (void)state;
    const test_training fused = fused_steps();
    if (strcmp(device->info.id, "cpu") != 0)
        skip();
    char before[16];
    snprintf(before, sizeof before, "%u", device->info.units);
    for (int threads = 1; threads <= 5; threads++) {
        lf_error err;
        char text[16];
        snprintf(text, sizeof text, "%d", threads);
        setenv("LAVAFLOW_THREADS", text, 1);
        lf_device *other = lf_device_open("cpu", &err);
        if (!other)
            fail_msg("%s", err.text);
        assert_int_equal(other->info.units, threads);
        assert_equal_bits(device, trainer_run, other, trainer_run, &wide);
        assert_equal_bits(device, trainer_run, other, trainer_run, &layered);
        assert_equal_bits(device, trainer_run, other, trainer_run, &fused);
        assert_equal_bits(device, trainer_run, other, trainer_run, &updated);
        for (size_t i = 0; i < COUNT(values); i++)
            assert_equal_bits(device, trainer_run, other, trainer_run, &values[i]);
        lf_device_close(other);
    }
    setenv("LAVAFLOW_THREADS", before, 1);
}

// AVX2 and AVX-512 kernels, where this machine has both; the plain ones have other products.
static void any_instruction_set_gives_equal_bits(void **state)
{
    (void)state;
    const test_training fused = fused_steps();
    lf_error err;
    const cpu_kernels *variants[CPU_VARIANTS_MAX];
    size_t count = cpu_host_variants(variants);
    if (strcmp(device->info.id, "cpu") != 0 || count < 3)
        skip();
    static const lf_activation activations[] = { LF_ACT_GELU, LF_ACT_SOFTPLUS, LF_ACT_TANH, LF_ACT_SILU };
    for (size_t i = 1; i + 1 < count; i++)
        for (size_t a = 0; a < COUNT(activations); a++) {
            lf_device *other = lf_device_open("cpu", &err);
            if (!other)
                fail_msg("%s", err.text);
            ((cpu_device *)other)->f32 = variants[i];
            test_training training = wide;
            training.layers[1].activation = activations[a];
            training.steps = 5;
            training.what = variants[i]->variant;
            assert_equal_bits(device, trainer_run, other, trainer_run, &training);
            assert_equal_bits(device, trainer_run, other, trainer_run, &layered);
            assert_equal_bits(device, trainer_run, other, trainer_run, &fused);
            assert_equal_bits(device, trainer_run, other, trainer_run, a % 2 ? &updated : &values[a / 2]);
            lf_device_close(other);
        }
}

// The plain kernels, whose products are the library's, in f32: nobody else runs them on a machine that has wider ones.
static void plain_kernels_agree_within_rounding(void **state)
{
    (void)state;
    const test_training fused = fused_steps();
    lf_error err;
    const cpu_kernels *variants[CPU_VARIANTS_MAX];
    if (strcmp(device->info.id, "cpu") != 0 || cpu_host_variants(variants) < 2)
        skip();
    lf_device *other = lf_device_open("cpu", &err);
    assert_non_null(other);
    ((cpu_device *)other)->f32 = variants[0];
    const test_training *trainings[] = { &wide, &fused }; // no bias before batch_norm, whose gradient is all rounding
    for (size_t t = 0; t < COUNT(trainings); t++) {
        test_training training = *trainings[t];
        training.steps = 5;
        size_t size, again;
        unsigned char *one = bits_after(device, &training, trainer_run, &size),
                      *two = bits_after(other, &training, trainer_run, &again);
        assert_int_equal(size, again);
        for (size_t i = 0; i + sizeof(float) <= size; i += sizeof(float)) {
            float a, b;
            memcpy(&a, one + i, sizeof a);
            memcpy(&b, two + i, sizeof b);
            if (!(fabsf(a - b) <= 1e-3f * fmaxf(1, fabsf(a))))
                fail_msg("%s: number %zu is %g, and %g by the plain kernels", training.what, i / sizeof a, (double)a,
                         (double)b);
        }
        free(one);
        free(two);
    }
    lf_device_close(other);
}

static void a_wrong_number_of_threads_is_named(void **state)
{
    (void)state;
    if (strcmp(device->info.id, "cpu") != 0)
        skip();
    static const char *const wrong[] = { "0", "257", "-1", "two", "2x", " 2", "99999999999999999999" };
    char before[16];
    snprintf(before, sizeof before, "%u", device->info.units);
    for (size_t i = 0; i < COUNT(wrong); i++) {
        lf_error err;
        setenv("LAVAFLOW_THREADS", wrong[i], 1);
        lf_device *dev = lf_device_open("cpu", &err);
        setenv("LAVAFLOW_THREADS", before, 1);
        assert_null(dev);
        assert_non_null(strstr(err.text, "LAVAFLOW_THREADS"));
        assert_non_null(strstr(err.text, wrong[i]));
    }
}

int run_law_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_buffer_is_zero_at_first_and_gives_back_what_was_written),
        cmocka_unit_test(two_runs_give_equal_bits),
        cmocka_unit_test(one_submission_of_n_steps_is_n_submissions_of_one),
        cmocka_unit_test(submissions_need_no_wait_between_them),
        cmocka_unit_test(phases_one_after_the_other_are_all_at_once),
        cmocka_unit_test(a_device_opened_twice_gives_equal_bits),
        cmocka_unit_test(two_programs_share_a_device),
        cmocka_unit_test(training_lowers_the_loss),
        cmocka_unit_test(the_counter_moves_with_the_last_segment_alone),
        cmocka_unit_test(an_operand_that_is_not_optional_must_be_there),
        cmocka_unit_test(a_nan_in_x_comes_out_as_the_nan_loss_of_its_row),
        cmocka_unit_test(any_number_of_threads_gives_equal_bits),
        cmocka_unit_test(any_instruction_set_gives_equal_bits),
        cmocka_unit_test(plain_kernels_agree_within_rounding),
        cmocka_unit_test(a_wrong_number_of_threads_is_named),
    };
    return cmocka_run_group_tests_name("laws", tests, NULL, NULL);
}
