// What only concerns Vulkan. The arguments name a device; the environment says with which tiles and whether the
// validation layer watches, so one program is several tests (CMakeLists.txt).
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "abi.h"
#include "core/log.h"
#include "job.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const char *device = "vulkan:0";
static unsigned logged_errors;

static void on_log(void *user, lf_log_level level, const char *text)
{
    (void)user;
    if (level == LF_LOG_ERROR) {
        logged_errors++;
        print_message("%s\n", text);
    }
}

static job_spec classifier(uint32_t inputs, uint32_t hidden, uint32_t outputs, uint32_t batch)
{
    return (job_spec){ .layers = { LINEAR(inputs, hidden), ACT(RELU), LINEAR(hidden, outputs) },
                       .layer_count = 3,
                       .loss = LF_LOSS_CROSS_ENTROPY,
                       .optimizer = lf_optimizer_default(LF_OPTIMIZER_ADAM),
                       .stored = LF_U8,
                       .batch = batch,
                       .rows = 3 * batch - batch / 2, // the last batch of a pass is short
                       .steps = 6 };
}

// Every tensor that a program computes, against the float64 oracle.
static void expect_oracle(const job_spec *spec, uint32_t steps, double bound)
{
    job got = job_create(device, spec, false), want = job_create("cpu", spec, true);
    job_run(&got, LF_PHASE_LOAD, LF_PHASE_UPDATE, steps);
    job_run(&want, LF_PHASE_LOAD, LF_PHASE_UPDATE, steps);
    for (lf_tensor_id i = 0; i < (lf_tensor_id)got.program->tensor_count; i++)
        if (i != got.program->data)
            job_expect_close(&got, &want, i, bound);
    job_destroy(&got);
    job_destroy(&want);
}

static void training_keeps_to_the_oracle_at_every_shape(void **state)
{
    (void)state;
    static const uint32_t sizes[] = { 1, 4, 10, 31, 33, 64, 100 };
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (size_t k = 0; k < COUNT(sizes); k++) {
            uint32_t hidden = sizes[(i + k) % COUNT(sizes)], outputs = sizes[k] < 2 ? 2 : sizes[k];
            job_spec spec = classifier(sizes[i], hidden, outputs, sizes[(3 * i + k) % COUNT(sizes)] + 1);
            spec.optimizer = lf_optimizer_default(LF_OPTIMIZER_SGD); // adam's first steps divide by |g| and lose digits
            spec.optimizer.momentum = .9f;
            spec.optimizer.nesterov = k % 2;
            spec.optimizer.weight_decay = .01f;
            expect_oracle(&spec, 2, 2e-5);
        }
}

static void a_wide_layer_keeps_to_the_oracle(void **state)
{
    (void)state;
    job_spec spec = classifier(1000, 1000, 10, 33);
    spec.optimizer = lf_optimizer_default(LF_OPTIMIZER_SGD);
    expect_oracle(&spec, 1, 2e-5);
}

static void adam_keeps_to_the_oracle(void **state)
{
    (void)state;
    job_spec spec = classifier(20, 17, 5, 16);
    spec.optimizer.eps = 1e-3f; // far above the rounding of the gradients
    spec.optimizer.weight_decay = .1f;
    expect_oracle(&spec, 5, 2e-5);
    spec.optimizer.kind = LF_OPTIMIZER_ADAMW;
    expect_oracle(&spec, 5, 2e-5);
}

static void every_activation_keeps_to_the_oracle(void **state)
{
    (void)state;
    for (lf_activation act = LF_ACT_RELU; act < LF_ACT_COUNT; act++) {
        job_spec spec = {
            .layers = { { .kind = LF_LAYER_ACTIVATION, .activation = act, .alpha = lf_activation_default_alpha(act) },
                        LINEAR(33, 31),
                        { .kind = LF_LAYER_ACTIVATION, .activation = act, .alpha = lf_activation_default_alpha(act) },
                        LINEAR(31, 12),
                        { .kind = LF_LAYER_ACTIVATION, .activation = act, .alpha = lf_activation_default_alpha(act) },
                        { .kind = LF_LAYER_ACTIVATION, .activation = act, .alpha = lf_activation_default_alpha(act) } },
            .layer_count = 6,
            .loss = LF_LOSS_MSE,
            .optimizer = lf_optimizer_default(LF_OPTIMIZER_SGD),
            .stored = LF_F32,
            .batch = 10,
            .rows = 25,
            .steps = 3
        };
        expect_oracle(&spec, 2, 2e-5);
    }
}

// Both norms, dropout, a residual with a projection and one without, distillation.
static job_spec every_layer(uint32_t inputs, uint32_t width, uint32_t outputs, uint32_t batch)
{
    return (job_spec){ .layers = { LINEAR(inputs, width),
                                   { .kind = LF_LAYER_BATCH_NORM, .inputs = width, .outputs = width },
                                   ACT(GELU),
                                   { .kind = LF_LAYER_DROPOUT, .rate = .25f },
                                   { .kind = LF_LAYER_RESIDUAL, .span = 3 },
                                   LINEAR(width, width),
                                   ACT(TANH),
                                   { .kind = LF_LAYER_DROPOUT, .rate = .5f },
                                   { .kind = LF_LAYER_RESIDUAL, .span = 1 },
                                   LINEAR(width, outputs),
                                   { .kind = LF_LAYER_LAYER_NORM, .inputs = outputs, .outputs = outputs } },
                       .layer_count = 11,
                       .loss = LF_LOSS_CROSS_ENTROPY,
                       .distill = true,
                       .optimizer = lf_optimizer_default(LF_OPTIMIZER_SGD),
                       .stored = LF_F32,
                       .batch = batch,
                       .rows = 3 * batch - batch / 2,
                       .steps = 6 };
}

static void every_layer_keeps_to_the_oracle(void **state)
{
    (void)state;
    static const uint32_t sizes[][4] = { { 5, 7, 3, 9 }, { 31, 33, 10, 64 }, { 64, 128, 65, 33 } };
    for (size_t i = 0; i < COUNT(sizes); i++) {
        job_spec spec = every_layer(sizes[i][0], sizes[i][1], sizes[i][2], sizes[i][3]);
        expect_oracle(&spec, 3, 1e-4);
        spec.optimizer = (lf_optimizer){ .kind = LF_OPTIMIZER_NONE }; // evaluation: running statistics, no dropout
        expect_oracle(&spec, 2, 1e-4);
    }
}

static void every_stored_type_is_read(void **state)
{
    (void)state;
    for (lf_dtype stored = LF_U8; stored <= LF_F32; stored++)
        for (uint32_t inputs = 31; inputs <= 32; inputs++) {
            job_spec spec = classifier(inputs, 8, 3, 9);
            spec.stored = stored;
            spec.optimizer = (lf_optimizer){ .kind = LF_OPTIMIZER_NONE };
            expect_oracle(&spec, 3, 1e-5);
        }
}

static void large_arguments_do_not_overflow(void **state)
{
    (void)state;
    for (lf_activation act = LF_ACT_RELU; act < LF_ACT_COUNT; act++) {
        if (act == LF_ACT_NONE)
            continue;
        job_spec spec = { .layers = { { .kind = LF_LAYER_ACTIVATION, .activation = act, .alpha = 1 }, LINEAR(4, 4) },
                          .layer_count = 2,
                          .loss = LF_LOSS_CROSS_ENTROPY,
                          .optimizer = lf_optimizer_default(LF_OPTIMIZER_SGD),
                          .stored = LF_F32,
                          .batch = 3,
                          .rows = 3,
                          .steps = 1,
                          .poison = 1000 };
        expect_oracle(&spec, 1, 1e-5);
        spec.poison = -1000;
        expect_oracle(&spec, 1, 1e-5);
    }
}

static void nan_reaches_the_loss_through_every_activation(void **state)
{
    (void)state;
    for (lf_activation act = LF_ACT_NONE; act < LF_ACT_COUNT; act++) {
        job_spec spec = classifier(4, 5, 3, 3);
        if (act == LF_ACT_NONE) {
            spec.layers[1] = spec.layers[2];
            spec.layer_count = 2;
        } else {
            spec.layers[1].activation = act;
        }
        spec.stored = LF_F32;
        spec.rows = 3;
        spec.poison = NAN;
        job j = job_create(device, &spec, false);
        job_run(&j, LF_PHASE_LOAD, LF_PHASE_FORWARD, 1);
        size_t count;
        double *metrics = job_read(&j, j.program->metrics, &count);
        for (uint32_t i = 0; i < 3; i++) {
            bool poisoned = (i * 7 + 3) % 3 == 1; // job.c's order
            assert_true(isnan(metrics[LF_METRIC_COUNT * i + LF_METRIC_LOSS]) == poisoned);
            assert_true(!poisoned || metrics[LF_METRIC_COUNT * i + LF_METRIC_RANK] > 0);
        }
        free(metrics);
        job_destroy(&j);
    }
}

static void expect_bits_of_many_submissions(const job_spec *spec)
{
    job once = job_create(device, spec, false), often = job_create(device, spec, false);
    job_run(&once, LF_PHASE_LOAD, LF_PHASE_UPDATE, 6);
    for (unsigned i = 0; i < 6; i++) {
        job_run(&often, LF_PHASE_LOAD, LF_PHASE_FORWARD, 1);
        job_run(&often, LF_PHASE_BACKWARD, LF_PHASE_UPDATE, 1);
    }
    assert_int_equal(once.device->submissions, 1);
    assert_int_equal(often.device->submissions, 12);
    for (lf_tensor_id i = 0; i < (lf_tensor_id)once.program->tensor_count; i++)
        if (i != once.program->data)
            job_expect_equal(&once, &often, i);
    job_destroy(&once);
    job_destroy(&often);
}

static void steps_in_one_submission_give_the_bits_of_many(void **state)
{
    (void)state;
    const job_spec specs[] = { classifier(33, 31, 10, 20), every_layer(31, 33, 10, 20) };
    for (size_t i = 0; i < COUNT(specs); i++)
        expect_bits_of_many_submissions(&specs[i]);
}

// A training program's barriers part its steps only where all phases run.
static void some_phases_repeat_without_hazards(void **state)
{
    (void)state;
    job_spec spec = classifier(33, 31, 10, 20);
    job once = job_create(device, &spec, false), often = job_create(device, &spec, false);
    job_run(&once, LF_PHASE_LOAD, LF_PHASE_FORWARD, 4); // does not advance the counter, but reads four rows
    for (unsigned i = 0; i < 2; i++)
        job_run(&often, LF_PHASE_LOAD, LF_PHASE_FORWARD, 4);
    job_expect_equal(&once, &often, once.program->metrics);
    job_expect_equal(&once, &often, once.program->schedule);
    job_destroy(&once);
    job_destroy(&often);
}

static void stretches_beyond_the_cache_of_recordings_are_recorded_again(void **state)
{
    (void)state;
    job_spec spec = classifier(5, 6, 3, 4);
    spec.steps = 200;
    job a = job_create(device, &spec, false), b = job_create(device, &spec, false);
    uint32_t total = 0;
    for (unsigned round = 0; round < 2; round++)
        for (uint32_t steps = 1; steps <= 12; steps++) {
            lf_error err = { 0 };
            assert_true(lf_device_exec_run(a.device, a.exec, 0, LF_LAST_SEGMENT, steps, &err));
            total += steps;
        }
    lf_error err = { 0 };
    assert_true(lf_device_wait(a.device, &err));
    job_run(&b, LF_PHASE_LOAD, LF_PHASE_UPDATE, total);
    job_expect_equal(&a, &b, a.program->weights);
    job_expect_equal(&a, &b, a.program->metrics);
    job_expect_equal(&a, &b, a.program->schedule);
    job_destroy(&a);
    job_destroy(&b);
}

static void two_opened_at_once_give_the_bits_of_one(void **state)
{
    (void)state;
    job_spec spec = classifier(20, 16, 10, 8);
    job a = job_create(device, &spec, false), b = job_create(device, &spec, false);
    for (unsigned i = 0; i < 3; i++) {
        job_run(&a, LF_PHASE_LOAD, LF_PHASE_UPDATE, 2);
        job_run(&b, LF_PHASE_LOAD, LF_PHASE_UPDATE, 2);
    }
    job_expect_equal(&a, &b, a.program->weights);
    job_destroy(&a);
    job_destroy(&b);
}

static void new_memory_is_zero_and_keeps_what_is_written(void **state)
{
    (void)state;
    lf_error err = { 0 };
    lf_device *dev = lf_device_open(device, &err);
    assert_non_null(dev);
    const size_t size = ((size_t)17 << 20) + 3; // more than the staging buffer holds
    lf_buffer *buf = lf_device_buffer_create(dev, size, &err);
    char *bytes = malloc(size);
    assert_non_null(buf);
    assert_non_null(bytes);
    assert_true(lf_device_buffer_read(dev, bytes, buf, 0, size, &err));
    for (size_t i = 0; i < size; i++)
        assert_int_equal(bytes[i], 0);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)(i * 31 >> 3);
    assert_true(lf_device_buffer_write(dev, buf, 1, bytes + 1, size - 2, &err));
    memset(bytes, 0, size);
    assert_true(lf_device_buffer_read(dev, bytes, buf, 0, size, &err));
    for (size_t i = 1; i + 1 < size; i++)
        assert_int_equal(bytes[i], (char)(i * 31 >> 3));
    assert_int_equal(bytes[0], 0);
    assert_int_equal(bytes[size - 1], 0);
    free(bytes);
    lf_device_buffer_destroy(dev, buf);
    lf_device_close(dev);
}

static void what_does_not_fit_is_refused_with_both_numbers(void **state)
{
    (void)state;
    lf_error err = { 0 };
    lf_device *dev = lf_device_open(device, &err);
    assert_non_null(dev);
    assert_null(lf_device_buffer_create(dev, (size_t)1 << 50, &err));
    assert_int_equal(err.code, LF_ENOMEM);
    assert_non_null(strstr(err.text, "1125899906842624"));

    // One row more of data than an operand may span. Compiled and refused: no such memory is taken.
    const lf_layer layers[] = { LINEAR(4096, 2) };
    lf_model *model = lf_model_create(layers, 1, &err);
    assert_non_null(model);
    uint64_t rows = dev->info.max_tensor / 4096 + 1;
    if (rows <= UINT32_MAX) {
        lf_program *program = lf_program_compile(
            &(lf_compile_params){
                .model = model, .batch = 2, .stored = LF_U8, .rows = (uint32_t)rows, .positions = 2, .steps = 1 },
            &err);
        assert_non_null(program);
        lf_buffer *one = lf_device_buffer_create(dev, 16, &err);
        lf_bindings regions;
        for (unsigned i = 0; i < LF_REGION_COUNT; i++)
            regions.region[i] = one;
        char numbers[2][32];
        snprintf(numbers[0], sizeof numbers[0], "%llu", (unsigned long long)(rows * 4096));
        snprintf(numbers[1], sizeof numbers[1], "%llu", (unsigned long long)dev->info.max_tensor);
        assert_null(dev->impl->exec_create(dev, program, &regions, &err)); // past the seam, which checks sizes
        assert_int_equal(err.code, LF_EUNSUPPORTED);
        assert_non_null(strstr(err.text, numbers[0]));
        assert_non_null(strstr(err.text, numbers[1]));
        lf_device_buffer_destroy(dev, one);
        lf_program_destroy(program);
    }
    lf_model_destroy(model);
    lf_device_close(dev);
}

// The block is larger than lavapipe's largest operand; no tensor of it is. The norm of all of it is clipped.
static void a_sweep_past_the_largest_operand_is_cut(void **state)
{
    (void)state;
    lf_error err = { 0 };
    lf_device *dev = lf_device_open(device, &err);
    assert_non_null(dev);
    const lf_layer layers[] = { LINEAR(5000, 4500), LINEAR(4500, 2600) };
    lf_model *model = lf_model_create(layers, 2, &err);
    assert_non_null(model);
    lf_optimizer sgd = lf_optimizer_default(LF_OPTIMIZER_SGD);
    sgd.clip_norm = 1000;
    lf_program *program = lf_program_compile(&(lf_compile_params){ .model = model,
                                                                   .loss = LF_LOSS_MSE,
                                                                   .optimizer = sgd,
                                                                   .batch = 1,
                                                                   .stored = LF_U8,
                                                                   .rows = 1,
                                                                   .positions = 1,
                                                                   .steps = 1 },
                                             &err);
    assert_non_null(program);
    lf_bindings regions = { 0 };
    for (unsigned i = 0; i < LF_REGION_COUNT; i++)
        if (program->region_size[i])
            assert_non_null(regions.region[i] = lf_device_buffer_create(dev, program->region_size[i], &err));
    size_t count = model->block_count;
    for (size_t i = 0; i < count; i++)
        model->params[i] = (float)(i % 1021);
    double squares = 0;
    for (size_t i = 0; i < count; i++)
        squares += (double)model->params[i] * (double)model->params[i];
    struct lf_schedule_row row = { .rows = 1, .inv_rows = 1, .lr = 2, .begins = 1, .updates = 1 };
    uint32_t update = 0;
    assert_true(lf_program_segments(program, LF_PHASE_UPDATE, LF_PHASE_UPDATE, &update, &(uint32_t){ 0 }));
    lf_exec *exec = lf_device_exec_create(dev, program, &regions, &err);
    if (!exec || !lf_device_buffer_write(dev, regions.region[LF_REGION_GRADS], 0, model->params, 4 * count, &err) ||
        !lf_device_buffer_write(dev, regions.region[LF_REGION_SCHEDULE], 4 * LF_SCHEDULE_HEADER_WORDS, &row, sizeof row,
                                &err) ||
        !lf_device_exec_run(dev, exec, update, update, 1, &err) ||
        !lf_device_buffer_read(dev, model->params, regions.region[LF_REGION_PARAMS], 0, 4 * count, &err))
        fail_msg("%s", err.text);
    // Twice the parts, clip, and the counter.
    assert_int_equal(dev->dispatches, 2 * ((4 * count + dev->info.max_tensor - 1) / dev->info.max_tensor) + 2);
    double scale = 1000 / (sqrt(squares) + 1e-6);
    for (size_t i = 0; i < count; i++) {
        double want = -2 * scale * (double)(i % 1021);
        if (!(fabs((double)model->params[i] - want) <= 1e-5 * fabs(want)))
            fail_msg("element %zu is %g, expected %g", i, (double)model->params[i], want);
    }
    lf_device_exec_destroy(dev, exec);
    for (unsigned i = 0; i < LF_REGION_COUNT; i++)
        lf_device_buffer_destroy(dev, regions.region[i]);
    lf_program_destroy(program);
    lf_model_destroy(model);
    lf_device_close(dev);
}

static void damaged_kernel_caches_are_ignored(void **state)
{
    (void)state;
    const char *folder = getenv("XDG_CACHE_HOME"); // of this test alone
    if (!folder)
        skip();
    job_spec spec = classifier(4, 5, 3, 2);
    for (unsigned round = 0; round < 2; round++) { // written, then damaged, then written again
        job j = job_create(device, &spec, false);
        job_run(&j, LF_PHASE_LOAD, LF_PHASE_UPDATE, 1);
        job_destroy(&j);
        char command[1024];
        snprintf(command, sizeof command,
                 "cd '%s/lavaflow' && for f in vulkan-*; do "
                 "case $f in *-tiles) continue ;; esac; " // test_trials.c damages those
                 "test \"$(head -c 64 $f)\" = \"$(tail -c +65 $f | sha256sum | head -c 64)\" && "
                 "dd if=/dev/zero of=$f bs=1 seek=70 count=8 conv=notrunc 2>/dev/null || exit 1; done",
                 folder);
        assert_int_equal(system(command), 0);
    }
}

// Leaves a buffer behind on purpose: the layer must notice, or the silence of all other tests means nothing.
static void validation_errors_fail_the_next_wait(void **state)
{
    (void)state;
    const char *validation = getenv("LAVAFLOW_VALIDATION");
    if (!validation || !strcmp(validation, "0"))
        skip();
    lf_error err = { 0 };
    lf_device *dev = lf_device_open(device, &err), *other = lf_device_open(device, &err);
    assert_non_null(dev);
    assert_non_null(other);
    lf_buffer *left = dev->impl->buffer_create(dev, 64, &err);
    assert_non_null(left);
    unsigned before = logged_errors;
    lf_device_close(dev);
    assert_true(logged_errors > before);
    assert_false(lf_device_wait(other, &err));
    assert_int_equal(err.code, LF_EDEVICE);
    assert_non_null(strstr(err.text, "VkBuffer"));
    assert_true(lf_device_wait(other, &err)); // reported once
    lf_device_close(other);
    logged_errors = before;
    free(left);
}

static int no_errors_were_logged(void **state)
{
    (void)state;
    return logged_errors != 0;
}

int main(int argc, char **argv)
{
    if (argc > 1)
        device = argv[1];
    lf_log_to(on_log, NULL);
    lf_error err = { 0 };
    lf_device *dev = lf_device_open(device, &err);
    if (!dev) {
        printf("skipped: %s\n", err.text);
        return 77;
    }
    lf_device_close(dev);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(new_memory_is_zero_and_keeps_what_is_written),
        cmocka_unit_test(every_stored_type_is_read),
        cmocka_unit_test(training_keeps_to_the_oracle_at_every_shape),
        cmocka_unit_test(a_wide_layer_keeps_to_the_oracle),
        cmocka_unit_test(adam_keeps_to_the_oracle),
        cmocka_unit_test(every_activation_keeps_to_the_oracle),
        cmocka_unit_test(every_layer_keeps_to_the_oracle),
        cmocka_unit_test(large_arguments_do_not_overflow),
        cmocka_unit_test(nan_reaches_the_loss_through_every_activation),
        cmocka_unit_test(steps_in_one_submission_give_the_bits_of_many),
        cmocka_unit_test(some_phases_repeat_without_hazards),
        cmocka_unit_test(stretches_beyond_the_cache_of_recordings_are_recorded_again),
        cmocka_unit_test(two_opened_at_once_give_the_bits_of_one),
        cmocka_unit_test(what_does_not_fit_is_refused_with_both_numbers),
        cmocka_unit_test(a_sweep_past_the_largest_operand_is_cut),
        cmocka_unit_test(damaged_kernel_caches_are_ignored),
        cmocka_unit_test(validation_errors_fail_the_next_wait),
    };
    return cmocka_run_group_tests_name(device, tests, NULL, no_errors_were_logged);
}
