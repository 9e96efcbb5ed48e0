// Products through the stand-in for cuBLASLt: which of them, and what holds when the library refuses, fails, or hides
// NaN.
#include <dlfcn.h>

#include "core/log.h"
#include "trainer.h"

static lf_error err;

// Two layers with relu below one without; the last batch of a pass is short.
static const test_training deep = {
    "48-130-65-7",
    { LINEAR(48, 130), ACTIVATION(LF_ACT_RELU), LINEAR(130, 65), ACTIVATION(LF_ACT_RELU), LINEAR(65, 7) },
    5,
    LF_LOSS_CROSS_ENTROPY,
    { .kind = LF_OPTIMIZER_SGD, .lr = .05, .momentum = .9f },
    100,
    40,
    6,
    .stored = LF_F32,
};

// What stands apart: other activations, a relu behind a norm, and one that a residual takes.
static const test_training mixed = {
    "every way",
    { LINEAR(20, 40), ACTIVATION(LF_ACT_TANH), LINEAR(40, 40), ACTIVATION(LF_ACT_GELU), LINEAR(40, 40), LAYER_NORM(40),
      ACTIVATION(LF_ACT_RELU), RESIDUAL(2), LINEAR(40, 40), ACTIVATION(LF_ACT_RELU), LINEAR(40, 5) },
    11,
    LF_LOSS_CROSS_ENTROPY,
    { .kind = LF_OPTIMIZER_SGD, .lr = .05, .momentum = .9f },
    100,
    40,
    6,
    .stored = LF_F32,
};

static char logged[1 << 16];

static void keep_log(void *user, lf_log_level level, const char *text)
{
    (void)user, (void)level;
    snprintf(logged + strlen(logged), sizeof logged - strlen(logged), "%s\n", text);
}

static unsigned times_logged(const char *text)
{
    unsigned times = 0;
    for (const char *at = logged; (at = strstr(at, text)); at++)
        times++;
    return times;
}

static int clear(void **state)
{
    (void)state;
    setenv("LAVAFLOW_FUSE", "0", 1);
    setenv("LAVAFLOW_CUBLASLT_FROM", "1", 1);
    unsetenv("LAVAFLOW_STAND_IN_FAIL");
    unsetenv("LAVAFLOW_STAND_IN_MEMORY");
    unsetenv("LAVAFLOW_STAND_IN_REFUSE");
    unsetenv("LAVAFLOW_STAND_IN_RELU_DROPS_NAN");
    logged[0] = 0;
    return 0;
}

// What the stand-ins have made and not destroyed.
static size_t live(void)
{
    void *library = dlopen(getenv("LAVAFLOW_LIBCUBLASLT"), RTLD_NOW | RTLD_NOLOAD), *symbol;
    size_t (*count)(void);
    assert_non_null(library);
    symbol = dlsym(library, "host_live");
    assert_non_null(symbol);
    memcpy(&count, &symbol, sizeof count);
    size_t number = count();
    dlclose(library);
    return number;
}

typedef struct result {
    size_t size;
    unsigned char *bits;
    size_t weights; // floats, which come first
} result;

static void phase_by_phase(test_trainer *t)
{
    for (uint32_t i = 0; i < t->program->params.steps; i++)
        for (lf_phase phase = LF_PHASE_LOAD; phase <= LF_PHASE_UPDATE; phase++)
            rig_run(&t->rig, phase, phase, 1);
}

static void two_submissions(test_trainer *t)
{
    rig_run(&t->rig, LF_PHASE_LOAD, LF_PHASE_UPDATE, 1);
    rig_run(&t->rig, LF_PHASE_LOAD, LF_PHASE_UPDATE, t->program->params.steps - 1);
}

// On a device of its own.
static result train(const test_training *training, void (*run)(test_trainer *), bool tf32)
{
    test_trainer t;
    lf_device *dev = lf_device_open("cuda:0", &err);
    if (!dev)
        fail_msg("%s", err.text);
    trainer_init(&t, dev, training, false);
    if (tf32) {
        lf_device_exec_destroy(dev, t.rig.exec);
        t.program->params.tf32 = true;
        t.rig.exec = lf_device_exec_create(dev, t.program, &t.rig.regions, &err);
        assert_non_null(t.rig.exec);
    }
    run(&t);
    result r = { .weights = t.program->region_size[LF_REGION_PARAMS] / sizeof(float) };
    r.bits = trainer_bits(&t, &r.size);
    trainer_finish(&t);
    lf_device_close(dev);
    return r;
}

static void assert_close(const char *what, const result *got, const result *want)
{
    assert_int_equal(got->size, want->size);
    for (size_t i = 0; i < got->weights; i++) {
        float a, b;
        memcpy(&a, got->bits + i * sizeof a, sizeof a);
        memcpy(&b, want->bits + i * sizeof b, sizeof b);
        if (!(fabsf(a - b) <= 2e-5f))
            fail_msg("%s: weight %zu is %g, and by our own kernels %g", what, i, (double)a, (double)b);
    }
}

static bool are_equal(const result *a, const result *b)
{
    return a->size == b->size && !memcmp(a->bits, b->bits, a->size);
}

// By our own kernels alone.
static result train_plainly(const test_training *training)
{
    setenv("LAVAFLOW_CUBLASLT_FROM", "1000000000000", 1);
    result r = train(training, trainer_run, false);
    clear(NULL);
    return r;
}

static void the_driver_is_told_with_the_librarys_version(void **state)
{
    (void)state;
    lf_device_info info;
    assert_true(lf_device_find("cuda:0", &info, &err));
    assert_non_null(strstr(info.driver_version, ", cuBLASLt 13.1.0"));
}

static void the_backward_pass_is_in_the_products(void **state)
{
    (void)state;
    result plain = train_plainly(&deep), fused = train(&deep, trainer_run, false);
    assert_close("fused", &fused, &plain);
    assert_int_equal(times_logged(": RELU_AUX_BIAS, "), 2);
    assert_int_equal(times_logged(": BIAS, "), 1);
    assert_int_equal(times_logged(": DRELU_BGRAD, "), 2);
    assert_int_equal(times_logged(": BGRADA, "), 1);  // of the last layer
    assert_int_equal(times_logged(": DEFAULT, "), 2); // the other two linear_dw
    assert_int_equal(times_logged("refuses"), 0);
    assert_int_equal(times_logged("linear 40x130x48 by cuBLASLt 13.1.0: "), 1);
    assert_int_equal(times_logged(", split 2, reduction 2, workspace 1048576"), 8);
    assert_false(are_equal(&plain, &fused)); // or it was not the library's
    free(plain.bits);
    free(fused.bits);
}

static void every_layer_finds_its_way(void **state)
{
    (void)state;
    result plain = train_plainly(&mixed), fused = train(&mixed, trainer_run, false);
    assert_close("fused", &fused, &plain);
    assert_int_equal(times_logged(": RELU_AUX_BIAS, "), 0); // no relu has a linear right behind it
    free(plain.bits);
    free(fused.bits);
}

static void bits_do_not_depend_on_how_a_run_is_cut(void **state)
{
    (void)state;
    for (uint32_t shards = 0; shards <= 4; shards += 4) {
        test_training training = deep;
        training.shards = shards;
        result whole = train(&training, trainer_run, false), phases = train(&training, phase_by_phase, false),
               two = train(&training, two_submissions, false);
        assert_true(are_equal(&whole, &phases));
        assert_true(are_equal(&whole, &two));
        free(whole.bits);
        free(phases.bits);
        free(two.bits);
    }
}

static void tf32_is_a_programs_own(void **state)
{
    (void)state;
    result before = train(&deep, trainer_run, false);
    assert_int_equal(times_logged(", tf32"), 0);
    result rounded = train(&deep, trainer_run, true), after = train(&deep, trainer_run, false);
    assert_int_equal(times_logged(", tf32"), 8);
    assert_true(are_equal(&before, &after));
    assert_false(are_equal(&before, &rounded));
    free(before.bits);
    free(rounded.bits);
    free(after.bits);
}

static void whatever_the_library_refuses_comes_out_the_same(void **state)
{
    (void)state;
    static const char *const refused[] = { "134",     "6",       "4",         "152",
                                           "136",     "256",     "1",         "134,6",
                                           "152,136", "134,6,4", "152,136,1", "256,1",
                                           "134,256", "6,256",   "152,256,1", "1,4,6,134,136,152,256" };
    const test_training *const trainings[] = { &deep, &mixed };
    for (size_t k = 0; k < COUNT(trainings); k++) {
        result plain = train_plainly(trainings[k]);
        for (size_t i = 0; i < COUNT(refused); i++) {
            setenv("LAVAFLOW_STAND_IN_REFUSE", refused[i], 1);
            result rest = train(trainings[k], trainer_run, false);
            assert_close(refused[i], &rest, &plain);
            if (i + 1 == COUNT(refused))
                assert_true(are_equal(&rest, &plain));
            free(rest.bits);
        }
        clear(NULL);
        free(plain.bits);
    }
}

static void a_function_that_fails_leaves_our_own_kernels(void **state)
{
    (void)state;
    static const char *const functions[] = {
        "cublasLtCreate",
        "cublasLtMatmul",
        "cublasLtMatmulAlgoGetHeuristic",
        "cublasLtMatmulAlgoConfigGetAttribute",
        "cublasLtMatmulDescCreate",
        "cublasLtMatmulDescSetAttribute",
        "cublasLtMatmulPreferenceCreate",
        "cublasLtMatmulPreferenceSetAttribute",
        "cublasLtMatrixLayoutCreate",
    };
    static const unsigned calls[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 14, 20, 27 };
    result plain = train_plainly(&deep);
    const size_t before = live();
    for (size_t i = 0; i < COUNT(functions); i++)
        for (size_t k = 0; k < COUNT(calls); k++) {
            char fail[80];
            snprintf(fail, sizeof fail, "%s@%u=14", functions[i], calls[k]);
            setenv("LAVAFLOW_STAND_IN_FAIL", fail, 1);
            result rest = train(&deep, trainer_run, false);
            assert_close(fail, &rest, &plain);
            free(rest.bits);
            if (live() != before)
                fail_msg("%s: %zu objects are left, and before %zu", fail, live(), before);
        }
    free(plain.bits);
}

static void too_little_memory_is_said_and_survived(void **state)
{
    (void)state;
    static const char *const names[] = { "to work in", "to try cuBLASLt", "for the masks of relus" };
    lf_device *dev = lf_device_open("cuda:0", &err);
    test_trainer t;
    setenv("LAVAFLOW_CUBLASLT_FROM", "1000000000000", 1);
    trainer_init(&t, dev, &deep, false);
    clear(NULL);
    const size_t before = live();
    for (size_t i = 0; i < COUNT(names); i++) {
        char fail[40];
        snprintf(fail, sizeof fail, "cuMemAlloc@%zu=2", i + 1);
        setenv("LAVAFLOW_STAND_IN_FAIL", fail, 1);
        assert_null(lf_device_exec_create(dev, t.program, &t.rig.regions, &err));
        assert_int_equal(err.code, LF_ENOMEM);
        assert_non_null(strstr(err.text, names[i]));
        if (i + 1 < COUNT(names))
            assert_int_equal(live(), before);
        setenv("LAVAFLOW_STAND_IN_FAIL", "", 1);
    }
    const size_t opened = live(); // with a handle and a workspace
    assert_int_equal(opened, before + 2);
    lf_exec *exec = lf_device_exec_create(dev, t.program, &t.rig.regions, &err);
    assert_non_null(exec);
    assert_true(live() > opened);
    lf_device_exec_destroy(dev, exec);
    assert_int_equal(live(), opened);
    trainer_finish(&t);
    lf_device_close(dev);
}

static void a_driver_that_fails_is_named(void **state)
{
    (void)state;
    static const char *const functions[] = { "cuStreamBeginCapture", "cuStreamEndCapture" };
    for (size_t i = 0; i < COUNT(functions); i++) {
        char fail[80];
        lf_device *dev = lf_device_open("cuda:0", &err);
        test_trainer t;
        setenv("LAVAFLOW_CUBLASLT_FROM", "1000000000000", 1);
        trainer_init(&t, dev, &deep, false);
        clear(NULL);
        snprintf(fail, sizeof fail, "%s@2=719", functions[i]);
        setenv("LAVAFLOW_STAND_IN_FAIL", fail, 1);
        assert_null(lf_device_exec_create(dev, t.program, &t.rig.regions, &err));
        assert_non_null(strstr(err.text, "cannot capture a product: CUDA_ERROR_LAUNCH_FAILED"));
        clear(NULL);
        trainer_finish(&t);
        lf_device_close(dev);
    }
}

static void a_relu_that_hides_nan_is_not_used(void **state)
{
    (void)state;
    result plain = train_plainly(&deep);
    setenv("LAVAFLOW_STAND_IN_RELU_DROPS_NAN", "1", 1);
    result rest = train(&deep, trainer_run, false);
    assert_close("without its relu", &rest, &plain);
    assert_int_equal(times_logged("does not let NaN through"), 1);
    assert_int_equal(times_logged(": BIAS, "), 3);
    assert_int_equal(times_logged("RELU"), 0);
    free(plain.bits);
    free(rest.bits);
}

// 2^26 multiply-adds are large, fewer are not.
static void large_products_alone_are_the_librarys(void **state)
{
    (void)state;
    const test_training wide = {
        "512-512-512-16",
        { LINEAR(512, 512), ACTIVATION(LF_ACT_RELU), LINEAR(512, 512), ACTIVATION(LF_ACT_RELU), LINEAR(512, 16) },
        5,
        LF_LOSS_CROSS_ENTROPY,
        { .kind = LF_OPTIMIZER_SGD, .lr = .05, .momentum = .9f },
        256,
        256,
        1,
        .stored = LF_F32,
    };
    result plain = train_plainly(&wide);
    unsetenv("LAVAFLOW_CUBLASLT_FROM");
    result fused = train(&wide, trainer_run, false);
    assert_close("fused", &fused, &plain);
    assert_int_equal(times_logged(" by cuBLASLt 13.1.0: "), 5); // the last layer's are ours
    assert_int_equal(times_logged(": RELU_AUX_BIAS, "), 1);
    assert_int_equal(times_logged(": RELU_BIAS, "), 1); // the last layer's linear_dx has no use for a mask
    assert_int_equal(times_logged(": DRELU_BGRAD, "), 1);
    free(plain.bits);
    free(fused.bits);
}

int main(void)
{
    lf_log_to(keep_log, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_driver_is_told_with_the_librarys_version, clear),
        cmocka_unit_test_setup(the_backward_pass_is_in_the_products, clear),
        cmocka_unit_test_setup(every_layer_finds_its_way, clear),
        cmocka_unit_test_setup(bits_do_not_depend_on_how_a_run_is_cut, clear),
        cmocka_unit_test_setup(tf32_is_a_programs_own, clear),
        cmocka_unit_test_setup(whatever_the_library_refuses_comes_out_the_same, clear),
        cmocka_unit_test_setup(a_function_that_fails_leaves_our_own_kernels, clear),
        cmocka_unit_test_setup(too_little_memory_is_said_and_survived, clear),
        cmocka_unit_test_setup(a_driver_that_fails_is_named, clear),
        cmocka_unit_test_setup(a_relu_that_hides_nan_is_not_used, clear),
        cmocka_unit_test_setup(large_products_alone_are_the_librarys, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
