// Live files: what the run has is in them while it goes on, and after its process is gone, however it went.
#include "util.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "io/run_file.h"

static const char *const own[] = { "lock", "/locks/1", "host", "here", NULL };

static double value_at(int64_t step)
{
    return 1. / (double)step;
}

// Training steps first … last of metrics/train/<name>.
static void add_steps(lf_run *run, const char *name, int64_t first, int64_t last)
{
    lf_error err = { 0 };
    for (int64_t step = first; step <= last; step++) {
        const double time = (double)step / 8, value = value_at(step);
        OK(lf_run_series(run, "train", name, 1, &step, &time, &value, &err));
    }
}

static void add_digest(lf_run *run, int64_t at)
{
    lf_error err = { 0 };
    char hex[65];
    snprintf(hex, sizeof hex, "%064llx", (unsigned long long)at);
    OK(lf_run_digest(run, "train", at, hex, &err));
}

// A run with something of each kind.
static lf_run *some_run(void)
{
    lf_error err = { 0 };
    lf_run *run = lf_run_create(&err);
    assert_non_null(run);
    OK(lf_run_set_text(run, "@title", "größe", &err));
    OK(lf_run_set_f64(run, "parameters/lr", .5, &err));
    OK(lf_run_set_text(run, "script", "return 1\n", &err));
    OK(lf_run_set_text(run, "script@sha256", "abc", &err));
    OK(lf_run_set_group(run, "step_1", "NXprocess", &err));
    OK(lf_run_set_i64s(run, "result/train/confusion", 2, (uint64_t[]){ 1, 2 }, (int64_t[]){ 3, 4 }, &err));
    lf_model_file *model = sample_model(1, false);
    OK(lf_run_model(run, "train", "model", model, &err));
    lf_model_file_destroy(model);
    OK(lf_run_set_text(run, "metrics/train@monitor", "loss", &err));
    add_steps(run, "loss", 1, 3);
    add_digest(run, 2);
    OK(lf_run_log(run, "train", "info", "epoch 1 ✓", &err));
    return run;
}

static void live(lf_run *run, const char *path)
{
    lf_error err = { 0 };
    OK(lf_run_live(run, path, own, &err));
}

static struct stat info_of(const char *path)
{
    struct stat info = { 0 };
    assert_int_equal(stat(path, &info), 0);
    return info;
}

static bool has_line(const char *path, const char *part)
{
    return strstr(walk(path, "/", 100)->text, part);
}

static void a_live_file_shows_the_run_as_it_is(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("a.live.h5");
    lf_run *run = some_run();
    live(run, path);
    assert_lists(path, "/entry/status text 'running'");
    assert_lists(path, "/entry@title text 'größe'");
    assert_lists(path, "/entry@lock text '/locks/1'");
    assert_lists(path, "/entry/parameters/lr float 0.5");
    assert_lists(path, "/entry/script@sha256 text 'abc'");
    assert_lists(path, "/entry/result/train/confusion integer 1x2 3 4");
    assert_lists(path, "/entry/metrics/train@monitor text 'loss'");
    assert_lists(path, "/entry/metrics/train/loss@NX_class text 'NXdata'");
    assert_lists(path, "/entry/metrics/train/loss/step integer 3 1 2 3");
    assert_lists(path, "/entry/metrics/train/loss/time float 3 0.125 0.25 0.375");
    assert_lists(path, "/entry/metrics/train/loss/value float 3 1 0.5 0.333333");
    assert_lists(path, "/entry/log/text text 1 'epoch 1 ✓'");
    assert_lists(path, "/entry/log/step text 1 'train'");
    assert_false(has_line(path, "end_time"));
    assert_false(has_line(path, "result/train/model")); // big, and elsewhere
    add_steps(run, "loss", 4, 4);
    add_digest(run, 4);
    OK(lf_run_log(run, "", "warning", "a second line", &err));
    live(run, path);
    assert_lists(path, "/entry/metrics/train/loss/step integer 4 1 2 3 4");
    assert_lists(path, "/entry/digests/train/step integer 2 2 4");
    assert_lists(path, "/entry/log/level text 2 'info' 'warning'");
    lf_run_live_close(run);
    assert_lists(path, "/entry/metrics/train/loss/step integer 4 1 2 3 4");
    lf_run_destroy(run);
}

static void only_what_is_new_is_written_and_only_new_objects_make_a_new_file(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("b.live.h5");
    lf_run *run = some_run();
    live(run, path);
    struct stat before = info_of(path), after;
    for (int i = 0; i < 100; i++)
        live(run, path);
    after = info_of(path);
    assert_memory_equal(&before.st_mtim, &after.st_mtim, sizeof before.st_mtim);
    assert_int_equal(before.st_ino, after.st_ino);
    add_steps(run, "loss", 4, 5000);
    live(run, path);
    after = info_of(path);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_true(after.st_size > before.st_size);
    FILE *keeps_number = fopen(path, "r"); // the old file's number is not given to the next one
    add_steps(run, "accuracy", 1, 1);
    live(run, path);
    assert_int_not_equal(info_of(path).st_ino, after.st_ino);
    assert_lists(path, "/entry/metrics/train/accuracy/step integer 1 1");
    fclose(keeps_number);
    keeps_number = fopen(path, "r");
    after = info_of(path);
    OK(lf_run_rewind(run, "train", "loss", 2, &err));
    add_steps(run, "loss", 3, 3);
    live(run, path);
    assert_int_not_equal(info_of(path).st_ino, after.st_ino);
    assert_lists(path, "/entry/metrics/train/loss/step integer 3 1 2 3");
    fclose(keeps_number);
    assert_int_equal(entries_with(folder(), "b.live.h5"), 1);
    lf_run_destroy(run);
}

static void a_saved_run_goes_on_live(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("c.live.h5");
    lf_run *run = some_run();
    live(run, path);
    OK(lf_run_save(run, in_folder("c.h5"), "interrupted", 75, &err));
    add_steps(run, "loss", 4, 4);
    live(run, path);
    assert_lists(path, "/entry/status text 'running'");
    assert_lists(path, "/entry/metrics/train/loss/step integer 4 1 2 3 4");
    assert_false(has_line(path, "end_time"));
    assert_false(has_line(path, "exit_code"));
    lf_run_destroy(run);
}

static void long_texts_of_the_log_are_cut_between_characters(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("d.live.h5"), *out = in_folder("d.h5");
    char text[400] = "x", line[700], want[256] = "x";
    for (int i = 0; i < 150; i++)
        strcat(text, "ö");
    for (int i = 0; i < 127; i++) // 1 + 2 * 127 bytes: the next would be the 256th and 257th
        strcat(want, "ö");
    lf_run *run = lf_run_create(&err);
    assert_non_null(run);
    OK(lf_run_log(run, "", "critical", text, &err));
    live(run, path);
    lf_run_destroy(run);
    OK(lf_run_recover(path, out, "failed", 1, &err));
    snprintf(line, sizeof line, "/entry/log/text text 1 '%s'", want);
    assert_lists(out, line);
    assert_lists(out, "/entry/log/level text 1 'critical'");
}

// The data set's length and whether its first values are those of value_at, as another process reads them.
static hsize_t follow(hid_t file, const char *name, bool steps, bool *right)
{
    hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    hid_t space = H5Dget_space(set);
    hssize_t count = H5Sget_simple_extent_npoints(space);
    double *values = calloc((size_t)count + 1, sizeof *values);
    if (H5Dread(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0)
        *right = false;
    for (hssize_t i = 0; i < count; i++)
        *right &= values[i] == (steps ? (double)(i + 1) : value_at(i + 1));
    free(values);
    H5Sclose(space);
    H5Dclose(set);
    return (hsize_t)count;
}

enum { FOLLOWED = 3000 };

// Exit status of a reader: 0 after it saw many lengths up to the last one, never a value that was not written.
static int read_until_the_end(const char *path)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY | H5F_ACC_SWMR_READ, H5P_DEFAULT);
    if (file < 0)
        return 1;
    hsize_t seen = 0, lengths = 0;
    const time_t start = time(NULL);
    while (seen < FOLLOWED) {
        bool right = true;
        hid_t set = H5Dopen2(file, "/entry/metrics/train/loss/step", H5P_DEFAULT);
        H5Drefresh(set);
        H5Dclose(set);
        set = H5Dopen2(file, "/entry/metrics/train/loss/value", H5P_DEFAULT);
        hsize_t steps = follow(file, "/entry/metrics/train/loss/step", true, &right);
        H5Drefresh(set);
        H5Dclose(set);
        hsize_t values = follow(file, "/entry/metrics/train/loss/value", false, &right);
        if (!right || values < steps || steps < seen)
            return 2;
        lengths += steps > seen;
        seen = steps;
        if (time(NULL) - start > 60)
            return 3;
    }
    H5Fclose(file);
    return lengths > 3 ? 0 : 4;
}

static void a_reader_follows_the_run_and_sees_nothing_that_was_not_written(void **state)
{
    (void)state;
    const char *path = in_folder("e.live.h5");
    lf_run *run = some_run();
    live(run, path);
    pid_t reader = fork();
    if (reader == 0)
        _exit(read_until_the_end(path));
    const struct timespec pause = { .tv_nsec = 300000 };
    for (int64_t step = 4; step <= FOLLOWED; step++) {
        add_steps(run, "loss", step, step);
        live(run, path);
        nanosleep(&pause, NULL);
    }
    int status = -1;
    assert_int_equal(waitpid(reader, &status, 0), reader);
    lf_run_destroy(run);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_live_file_shows_the_run_as_it_is),
        cmocka_unit_test(only_what_is_new_is_written_and_only_new_objects_make_a_new_file),
        cmocka_unit_test(a_saved_run_goes_on_live),
        cmocka_unit_test(long_texts_of_the_log_are_cut_between_characters),
        cmocka_unit_test(a_reader_follows_the_run_and_sees_nothing_that_was_not_written),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
