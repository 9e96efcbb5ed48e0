// How products are cut, and what is remembered of the trials that decide it. With `train` after the device it is a
// process that trains once, for the test of several at a time.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "abi.h"
#include "job.h"

static const char *device = "vulkan:0", *self;
static char folder[] = "/tmp/lavaflow-trials-XXXXXX";

// Large enough for a trial, and of shapes that no cut divides.
static const job_spec worth_a_trial = {
    .layers = { LINEAR(131, 130), ACT(TANH), LINEAR(130, 100), ACT(GELU), LINEAR(100, 7) },
    .layer_count = 5,
    .loss = LF_LOSS_CROSS_ENTROPY,
    .optimizer = { .kind = LF_OPTIMIZER_ADAM, .lr = .01, .beta1 = .9f, .beta2 = .999f, .eps = 1e-8f },
    .stored = LF_U8,
    .batch = 61,
    .rows = 150,
    .steps = 6
};

static job trained(const char *tiles, const job_spec *spec)
{
    if (tiles)
        setenv("LAVAFLOW_TILES", tiles, 1);
    else
        unsetenv("LAVAFLOW_TILES");
    job j = job_create(device, spec, false);
    job_run(&j, LF_PHASE_LOAD, LF_PHASE_UPDATE, spec->steps);
    return j;
}

static void expect_equal(job *a, job *b)
{
    for (lf_tensor_id i = 0; i < (lf_tensor_id)a->program->tensor_count; i++)
        if (i != a->program->data)
            job_expect_equal(a, b, i);
}

// How many cuts a kind has, as the refusal of one too many says.
static unsigned cuts_of(const char *kind)
{
    char tiles[32];
    lf_error err = { 0 };
    snprintf(tiles, sizeof tiles, "%s:99", kind);
    setenv("LAVAFLOW_TILES", tiles, 1);
    assert_null(lf_device_open(device, &err));
    assert_int_equal(err.code, LF_EARG);
    const char *most = strstr(err.text, "0 to ");
    assert_non_null(strstr(err.text, tiles));
    assert_non_null(most);
    return (unsigned)strtoul(most + 5, NULL, 10) + 1;
}

static void a_wrong_cut_is_named(void **state)
{
    (void)state;
    static const char *const wrong[] = { "nonsense", "cpu1x", "cpu:x", "-1", "gpu:3 ", "cpu:4294967296" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        lf_error err = { 0 };
        setenv("LAVAFLOW_TILES", wrong[i], 1);
        assert_null(lf_device_open(device, &err));
        assert_non_null(strstr(err.text, wrong[i]));
    }
    unsetenv("LAVAFLOW_TILES");
}

static void expect_cuts_alike(const char *kind, const job_spec *spec)
{
    job first = trained(kind, spec);
    unsigned cuts = cuts_of(kind);
    assert_true(cuts >= 4);
    for (unsigned i = 0; i < cuts; i++) {
        char tiles[32];
        snprintf(tiles, sizeof tiles, "%s:%u", kind, i);
        job other = trained(tiles, spec);
        expect_equal(&first, &other);
        job_destroy(&other);
    }
    job_destroy(&first);
}

static void every_cut_gives_the_same_bits(void **state)
{
    (void)state;
    job_spec fours = worth_a_trial; // read four at a time
    fours.layers[0] = (lf_layer)LINEAR(132, 128);
    fours.layers[2] = (lf_layer)LINEAR(128, 100);
    fours.layers[4] = (lf_layer)LINEAR(100, 8);
    fours.batch = 64;
    fours.fuses = true;
    expect_cuts_alike("cpu", &worth_a_trial);
    expect_cuts_alike("cpu", &fours);
    expect_cuts_alike("gpu", &worth_a_trial);
    expect_cuts_alike("gpu", &fours);
}

static void a_trial_changes_no_bits(void **state)
{
    (void)state;
    job plain = trained(NULL, &worth_a_trial);
    bool cpu = !plain.device->info.hardware_gpu;
    for (unsigned round = 0; round < 3; round++) { // each may go on with the trials of the last
        job forced = trained(cpu ? "cpu:0" : "gpu:0", &worth_a_trial), again = trained(NULL, &worth_a_trial);
        expect_equal(&plain, &forced);
        expect_equal(&plain, &again);
        assert_int_equal(again.device->submissions, 1); // those of a trial are not counted
        job_destroy(&again);
        job_destroy(&forced);
    }
    job_destroy(&plain);
}

static bool find_file(struct stat *found)
{
    char command[256], path[512] = "";
    snprintf(command, sizeof command, "ls %s/lavaflow/vulkan-*-tiles 2>/dev/null", folder);
    FILE *list = popen(command, "r");
    assert_non_null(list);
    bool there = fgets(path, sizeof path, list) != NULL;
    pclose(list);
    path[strcspn(path, "\n")] = 0;
    return there && stat(path, found) == 0;
}

static void train_once(void)
{
    job j = trained(NULL, &worth_a_trial);
    job_destroy(&j);
}

// Whether training leaves the file as it is, after at most so many rounds.
static bool settles(unsigned rounds)
{
    struct stat before = { 0 }, after = { 0 };
    for (unsigned i = 0; i < rounds; i++) {
        before = after;
        train_once();
        assert_true(find_file(&after));
        if (i && before.st_ino == after.st_ino && before.st_mtim.tv_nsec == after.st_mtim.tv_nsec)
            return true;
    }
    return false;
}

static void what_was_measured_is_not_measured_again(void **state)
{
    (void)state;
    assert_true(settles(60));
    assert_true(settles(2));
}

static void shell(const char *command)
{
    char text[1024];
    snprintf(text, sizeof text, "cd %s/lavaflow && %s", folder, command);
    assert_int_equal(system(text), 0);
}

static void expect_whole_file(void)
{
    shell("for f in vulkan-*-tiles; do test $(wc -c <$f) -gt 136 && "
          "test \"$(head -c 64 $f)\" = \"$(tail -c +65 $f | sha256sum | head -c 64)\"; done");
}

static void a_damaged_file_is_ignored_and_written_anew(void **state)
{
    (void)state;
    static const char *const damages[] = {
        "for f in vulkan-*-tiles; do dd if=/dev/zero of=$f bs=1 seek=150 count=8 conv=notrunc 2>/dev/null; done",
        "for f in vulkan-*-tiles; do head -c 100 $f >x && mv x $f; done", // cut off
        "for f in vulkan-*-tiles; do : >$f; done",
        // Whole, but of other kernels.
        "for f in vulkan-*-tiles; do tail -c +65 $f | sed 's/^[0-9a-f]\\{8\\}/00000000/' >x && "
        "(sha256sum <x | head -c 64; cat x) >$f; done",
        "for f in vulkan-*-tiles; do printf 00 >x && (sha256sum <x | head -c 64; cat x) >$f; done",
    };
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        train_once();
        expect_whole_file();
        shell(damages[i]);
        struct stat before, after;
        assert_true(find_file(&before));
        train_once();
        expect_whole_file();
        assert_true(find_file(&after));
        assert_true(before.st_ino != after.st_ino || before.st_mtim.tv_nsec != after.st_mtim.tv_nsec);
    }
}

static void a_folder_that_cannot_be_made_is_no_error(void **state)
{
    (void)state;
    setenv("XDG_CACHE_HOME", "/dev/null", 1);
    train_once();
    setenv("XDG_CACHE_HOME", folder, 1);
}

static void processes_that_try_at_once_leave_a_whole_file(void **state)
{
    (void)state;
    char command[1024];
    shell("rm -f vulkan-*-tiles");
    snprintf(command, sizeof command,
             "unset LAVAFLOW_TILES; for i in 1 2 3; do '%s' %s train & pids=\"$pids $!\"; done; "
             "for pid in $pids; do wait $pid || exit 1; done",
             self, device);
    assert_int_equal(system(command), 0);
    expect_whole_file();
}

int main(int argc, char **argv)
{
    self = argv[0];
    if (argc > 1)
        device = argv[1];
    if (argc > 2) {
        train_once();
        return 0;
    }
    lf_error err = { 0 };
    lf_device *dev = lf_device_open(device, &err);
    if (!dev) {
        printf("skipped: %s\n", err.text);
        return 77;
    }
    lf_device_close(dev);
    if (!mkdtemp(folder) || setenv("XDG_CACHE_HOME", folder, 1))
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wrong_cut_is_named),
        cmocka_unit_test(every_cut_gives_the_same_bits),
        cmocka_unit_test(a_trial_changes_no_bits),
        cmocka_unit_test(what_was_measured_is_not_measured_again),
        cmocka_unit_test(a_damaged_file_is_ignored_and_written_anew),
        cmocka_unit_test(a_folder_that_cannot_be_made_is_no_error),
        cmocka_unit_test(processes_that_try_at_once_leave_a_whole_file),
    };
    int failures = cmocka_run_group_tests_name(device, tests, NULL, NULL);
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command) || failures;
}
