// The backend's host side on the stand-in: what it says of a device, memory that is larger than a piece, many lengths
// of runs, and every failure of the driver that can be asked for.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "abi.h"
#include "cuda/internal.h"

enum { STEPS = 900 };

static lf_error err;

// A small training on a device; its data and weights are zeros.
typedef struct job {
    lf_model *model;
    lf_program *program;
    lf_device *dev;
    lf_bindings regions;
    lf_exec *exec;
} job;

static bool job_open(job *j)
{
    static const lf_layer layers[] = { { .kind = LF_LAYER_LINEAR, .inputs = 3, .outputs = 8 },
                                       { .kind = LF_LAYER_ACTIVATION, .activation = LF_ACT_RELU },
                                       { .kind = LF_LAYER_LINEAR, .inputs = 8, .outputs = 2 } };
    *j = (job){ .model = lf_model_create(layers, 3, &err) };
    assert_non_null(j->model);
    j->program = lf_program_compile(&(lf_compile_params){ .model = j->model,
                                                          .loss = LF_LOSS_CROSS_ENTROPY,
                                                          .optimizer = lf_optimizer_default(LF_OPTIMIZER_SGD),
                                                          .batch = 2,
                                                          .stored = LF_F32,
                                                          .rows = 2,
                                                          .positions = 2,
                                                          .steps = STEPS },
                                    &err);
    assert_non_null(j->program);
    j->dev = lf_device_open("cuda:0", &err);
    for (unsigned i = 0; i < LF_REGION_COUNT && j->dev; i++)
        if (j->program->region_size[i]) {
            j->regions.region[i] = lf_device_buffer_create(j->dev, j->program->region_size[i], &err);
            if (!j->regions.region[i])
                return false;
        }
    j->exec = j->dev ? lf_device_exec_create(j->dev, j->program, &j->regions, &err) : NULL;
    return j->exec;
}

static void job_close(job *j)
{
    if (j->exec)
        lf_device_exec_destroy(j->dev, j->exec);
    for (unsigned i = 0; i < LF_REGION_COUNT; i++)
        lf_device_buffer_destroy(j->dev, j->regions.region[i]);
    lf_device_close(j->dev);
    lf_program_destroy(j->program);
    lf_model_destroy(j->model);
}

static bool job_run(job *j, uint32_t last, uint32_t steps)
{
    return lf_device_exec_run(j->dev, j->exec, 0, last, steps, &err);
}

static bool job_counter(job *j, uint32_t *counter)
{
    return lf_device_buffer_read(j->dev, counter, j->regions.region[LF_REGION_SCHEDULE], 0, sizeof *counter, &err);
}

static bool job_schedule(job *j)
{
    struct {
        struct lf_schedule_header header;
        struct lf_schedule_row rows[STEPS];
    } schedule = { 0 };
    for (uint32_t i = 0; i < STEPS; i++)
        schedule.rows[i] = (struct lf_schedule_row){
            .rows = 2, .inv_rows = .5f, .inv_weight = .5f, .lr = .1f, .step = i, .begins = 1, .updates = 1
        };
    return lf_device_buffer_write(j->dev, j->regions.region[LF_REGION_SCHEDULE], 0, &schedule, sizeof schedule, &err);
}

static void assert_counter(job *j, uint32_t expected)
{
    uint32_t counter;
    assert_true(job_counter(j, &counter));
    assert_int_equal(counter, expected);
}

static void begin_job(job *j)
{
    if (!job_open(j) || !job_schedule(j))
        fail_msg("%s", err.text);
}

static int clear(void **state)
{
    (void)state;
    setenv("LAVAFLOW_FUSE", "0", 1); // the job would be one launch
    unsetenv("LAVAFLOW_STAND_IN_FAIL");
    unsetenv("LAVAFLOW_STAND_IN_MEMORY");
    unsetenv("LAVAFLOW_STAND_IN_VERSION");
    unsetenv("LAVAFLOW_STAND_IN_DEVICES");
    return 0;
}

static void a_device_is_described(void **state)
{
    (void)state;
    lf_device_info info;
    setenv("LAVAFLOW_STAND_IN_DEVICES", "3", 1);
    assert_true(lf_device_find("cuda:2", &info, &err));
    assert_string_equal(info.uuid, "7374616e-642d-696e-2064-657669636502");
    assert_string_equal(info.api_version, "9.0");
    assert_non_null(strstr(info.driver_version, "CUDA "));
    assert_non_null(strstr(info.driver_version, ", no cuBLASLt"));
    assert_int_equal(info.memory, 4ull << 30);
    assert_int_equal(strlen(info.kernels), 64);
    assert_true(info.hardware_gpu && info.discrete);
    assert_true(lf_device_find("7374616E-642d-696e-2064-657669636501", &info, &err));
    assert_string_equal(info.id, "cuda:1");
    assert_true(lf_device_find("cuda:stand-in", &info, &err));
    assert_string_equal(info.id, "cuda:0");
    assert_false(lf_device_find("cuda:3", &info, &err));
}

static void what_cannot_be_used_says_why(void **state)
{
    (void)state;
    lf_device_info info;
    setenv("LAVAFLOW_STAND_IN_VERSION", "11080", 1);
    assert_false(lf_device_find("cuda:0", &info, &err));
    assert_non_null(strstr(err.text, "the driver is too old: it has CUDA 11.8, and the kernels need "));
    clear(NULL);
    setenv("LAVAFLOW_STAND_IN_DEVICES", "0", 1);
    assert_false(lf_device_find("cuda:0", &info, &err));
    assert_non_null(strstr(err.text, "cuda: the driver finds no CUDA device"));
}

static void kernels_run_where_there_is_code_for_them(void **state)
{
    (void)state;
    char why[256];
    cu_kernels_check(90, CUDA_VERSION, why, sizeof why);
    assert_string_equal(why, "");
    cu_kernels_check(990, CUDA_VERSION, why, sizeof why); // compiled by the driver
    assert_string_equal(why, "");
    cu_kernels_check(990, CUDA_VERSION - 10, why, sizeof why);
    assert_non_null(strstr(why, "the driver is too old: it has CUDA "));
    cu_kernels_check(52, CUDA_VERSION, why, sizeof why);
    assert_non_null(strstr(why, "its compute capability is 5.2, and the kernels were built for "));
    assert_non_null(strstr(why, " 9.0"));
}

static void too_little_memory_is_said_and_survived(void **state)
{
    (void)state;
    job j;
    begin_job(&j);
    setenv("LAVAFLOW_STAND_IN_MEMORY", "1048576", 1);
    assert_null(lf_device_buffer_create(j.dev, 2 << 20, &err));
    assert_int_equal(err.code, LF_ENOMEM);
    assert_non_null(strstr(err.text, "a buffer of 2097152 bytes ("));
    assert_non_null(strstr(err.text, " of 1048576 are free): CUDA_ERROR_OUT_OF_MEMORY (2, out of memory)"));
    assert_true(job_run(&j, LF_LAST_SEGMENT, 1));
    assert_counter(&j, 1);
    job_close(&j);
}

static void what_is_larger_than_the_pinned_pieces_arrives_whole(void **state)
{
    (void)state;
    enum { SIZE = (5 << 24) + 77, AT = 3 };
    unsigned char *out = malloc(SIZE), *in = malloc(SIZE + AT);
    lf_device *dev = lf_device_open("cuda:0", &err);
    assert_true(out && in && dev);
    lf_buffer *buf = lf_device_buffer_create(dev, SIZE + AT, &err);
    assert_non_null(buf);
    for (size_t i = 0; i < SIZE; i++)
        out[i] = (unsigned char)(i * 2654435761u >> 24);
    assert_true(lf_device_buffer_write(dev, buf, AT, out, SIZE, &err));
    assert_true(lf_device_buffer_write(dev, buf, AT + 5, out + 5, 1 << 25, &err)); // at once, into the same pieces
    assert_true(lf_device_buffer_read(dev, in, buf, 0, SIZE + AT, &err));
    assert_memory_equal(in, "\0\0\0", AT);
    assert_memory_equal(in + AT, out, SIZE);
    memset(in, 0, SIZE);
    assert_true(lf_device_buffer_read(dev, in, buf, AT + 1, 2 << 24, &err)); // whole pieces
    assert_memory_equal(in, out + 1, 2 << 24);
    lf_device_buffer_destroy(dev, buf);
    lf_device_close(dev);
    free(out);
    free(in);
}

// A graph holds 2048 launches: this is several of them.
static void a_long_run_counts_as_one_of_its_steps(void **state)
{
    (void)state;
    job j;
    begin_job(&j);
    assert_true(job_run(&j, LF_LAST_SEGMENT, STEPS));
    assert_counter(&j, STEPS);
    assert_true(j.dev->dispatches >= STEPS * j.program->op_count);
    assert_int_equal(j.dev->submissions, 1);
    job_close(&j);
    begin_job(&j);
    assert_true(job_run(&j, 1, STEPS)); // the counter is taken back
    assert_counter(&j, 0);
    job_close(&j);
}

static void more_lengths_of_runs_than_are_kept_come_out_right(void **state)
{
    (void)state;
    job j;
    uint32_t sum = 0;
    begin_job(&j);
    for (uint32_t round = 0; round < 2; round++)
        for (uint32_t steps = 1; steps <= 20; steps++) {
            assert_true(job_run(&j, LF_LAST_SEGMENT, steps));
            sum += steps;
        }
    assert_counter(&j, sum);
    job_close(&j);
}

static void whole_steps_of_a_small_program_are_one_launch(void **state)
{
    (void)state;
    job j;
    unsetenv("LAVAFLOW_FUSE");
    begin_job(&j);
    assert_true(job_run(&j, LF_LAST_SEGMENT, 20));
    assert_true(job_run(&j, LF_LAST_SEGMENT, 5));
    assert_int_equal(j.dev->dispatches, 2);
    assert_true(job_run(&j, 1, 5));
    assert_true(j.dev->dispatches > 2 + 5);
    assert_counter(&j, 25);
    job_close(&j);
}

enum { WEIGHTS = 3 * 8 + 8 + 8 * 2 + 2 };

// The weights after two runs over rows that are not zero.
static void train(float weights[WEIGHTS])
{
    static const lf_region regions[] = { LF_REGION_DATA, LF_REGION_SCALING, LF_REGION_PARAMS };
    job j;
    float values[1024];
    begin_job(&j);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        values[i] = (float)(i * 37 % 17) / 16 - .4f;
    for (size_t i = 0; i < sizeof regions / sizeof *regions; i++) {
        size_t size = j.program->region_size[regions[i]];
        assert_true(size <= sizeof values);
        assert_true(lf_device_buffer_write(j.dev, j.regions.region[regions[i]], 0, values, size, &err));
    }
    assert_true(job_run(&j, LF_LAST_SEGMENT, 20));
    assert_true(job_run(&j, LF_LAST_SEGMENT, 5));
    const lf_tensor *params = &j.program->tensors[j.program->weights];
    assert_true(lf_tensor_bytes(params) >= WEIGHTS * sizeof *weights);
    assert_true(lf_device_buffer_read(j.dev, weights, j.regions.region[LF_REGION_PARAMS], params->offset,
                                      WEIGHTS * sizeof *weights, &err));
    job_close(&j);
}

static void one_launch_gives_the_weights_of_many(void **state)
{
    (void)state;
    float plain[WEIGHTS], fused[WEIGHTS];
    train(plain);
    unsetenv("LAVAFLOW_FUSE");
    train(fused);
    for (size_t i = 0; i < WEIGHTS; i++)
        assert_float_equal(plain[i], fused[i], 1e-5);
}

static void after_a_lost_launch_every_call_says_so(void **state)
{
    (void)state;
    job j;
    uint32_t counter;
    char first[sizeof err.text];
    begin_job(&j);
    assert_true(job_run(&j, LF_LAST_SEGMENT, 1));
    setenv("LAVAFLOW_STAND_IN_FAIL", "cuStreamSynchronize=719", 1);
    assert_false(lf_device_wait(j.dev, &err));
    assert_int_equal(err.code, LF_EDEVICE);
    assert_string_equal(err.text, "stand-in for an NVIDIA GPU: the work did not finish: CUDA_ERROR_LAUNCH_FAILED (719, "
                                  "unspecified launch failure)");
    clear(NULL);
    snprintf(first, sizeof first, "%s", err.text);
#define ASSERT_FAILS(call)                                                                                             \
    do {                                                                                                               \
        err = (lf_error){ 0 };                                                                                         \
        assert_false(call);                                                                                            \
        assert_string_equal(err.text, first);                                                                          \
    } while (0)
    ASSERT_FAILS(lf_device_wait(j.dev, &err));
    ASSERT_FAILS(job_run(&j, LF_LAST_SEGMENT, 1));
    ASSERT_FAILS(job_counter(&j, &counter));
    ASSERT_FAILS(lf_device_buffer_write(j.dev, j.regions.region[LF_REGION_SCHEDULE], 0, &counter, 4, &err));
    ASSERT_FAILS(lf_device_buffer_create(j.dev, 16, &err));
    ASSERT_FAILS(lf_device_exec_create(j.dev, j.program, &j.regions, &err));
    job_close(&j);
    begin_job(&j); // the device itself goes on
    job_close(&j);
}

static bool is_one_of(const char *name, const char *names)
{
    return strstr(names, name);
}

// Everything a program does with a device, up to what that function of the driver is for. False: something failed.
static bool whole_life(job *j, const char *function)
{
    const bool longer = is_one_of(function, "cuLaunchKernel"); // which runs of several graphs alone use
    if (is_one_of(function, "cuFuncSetAttribute cuLaunchCooperativeKernel cuOccupancyMaxActiveBlocksPerMultiprocessor"))
        unsetenv("LAVAFLOW_FUSE");
    uint32_t counter = 0;
    bool done = job_open(j) && job_schedule(j);
    for (uint32_t steps = 1; done && steps <= 17; steps++) // one more than is kept
        done = job_run(j, LF_LAST_SEGMENT, steps);
    return done && (!longer || job_run(j, 1, STEPS - 200)) && job_counter(j, &counter) && lf_device_wait(j->dev, &err);
}

static void a_driver_that_fails_anywhere_is_named_and_survived(void **state)
{
    (void)state;
#define NAME(field, symbol, arguments) #symbol,
    static const char *const functions[] = { CU_DRIVER_FUNCTIONS(NAME) };
    for (size_t i = 2; i < sizeof functions / sizeof *functions; i++) // behind those that name errors
        for (unsigned call = 1; call <= 3; call++) {
            job j;
            char fail[80];
            if (!strcmp(functions[i], "cuMemGetInfo_v2"))
                continue; // it only words a message; the stand-in itself allocates by it
            snprintf(fail, sizeof fail, "%s@%u=999", functions[i], call);
            setenv("LAVAFLOW_STAND_IN_FAIL", fail, 1);
            err = (lf_error){ 0 };
            bool done = whole_life(&j, functions[i]);
            // The list of devices is asked for again after a failure, and then has what was not found.
            bool listing = !j.dev && strstr(err.text, "device \"cuda:0\": ");
            if (!done && !listing && !strstr(err.text, "CUDA_ERROR_UNKNOWN (999, unknown error)"))
                fail_msg("%s: \"%s\"", fail, err.text);
            clear(NULL);
            job_close(&j);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_device_is_described, clear),
        cmocka_unit_test_setup(what_cannot_be_used_says_why, clear),
        cmocka_unit_test_setup(kernels_run_where_there_is_code_for_them, clear),
        cmocka_unit_test_setup(too_little_memory_is_said_and_survived, clear),
        cmocka_unit_test_setup(what_is_larger_than_the_pinned_pieces_arrives_whole, clear),
        cmocka_unit_test_setup(a_long_run_counts_as_one_of_its_steps, clear),
        cmocka_unit_test_setup(more_lengths_of_runs_than_are_kept_come_out_right, clear),
        cmocka_unit_test_setup(whole_steps_of_a_small_program_are_one_launch, clear),
        cmocka_unit_test_setup(one_launch_gives_the_weights_of_many, clear),
        cmocka_unit_test_setup(after_a_lost_launch_every_call_says_so, clear),
        cmocka_unit_test_setup(a_driver_that_fails_anywhere_is_named_and_survived, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
