// What a killed run has left becomes a run file with all that was there, and damaged leftovers become none.
#include "util.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "io/run_file.h"

static const char *const own[] = { "lock", "/locks/1", NULL };

static double value_at(int64_t step)
{
    return 1. / (double)step;
}

static bool add_step(lf_run *run, const char *name, int64_t step, lf_error *err)
{
    const double time = (double)step / 8, value = value_at(step);
    return lf_run_series(run, "train", name, 1, &step, &time, &value, err);
}

// Does what no kill may tear: values, log lines, digests, and now and then an object, which makes a new live file.
static bool go_on(lf_run *run, int64_t step, lf_error *err)
{
    char text[64], hex[65];
    bool good = add_step(run, "loss", step, err);
    if (good && step % 3 == 0) {
        snprintf(text, sizeof text, "line %lld", (long long)(step / 3));
        good = lf_run_log(run, "train", "info", text, err);
    }
    if (good && step % 5 == 0) {
        snprintf(hex, sizeof hex, "%064llx", (unsigned long long)step);
        good = lf_run_digest(run, "train", step, hex, err);
    }
    if (good && step % 20 == 0) {
        snprintf(text, sizeof text, "parameters/p%lld", (long long)(step % 100));
        good = lf_run_set_i64(run, text, step, err);
    }
    return good;
}

static int live_for_ever(const char *path)
{
    lf_error err = { 0 };
    lf_run *run = lf_run_create(&err);
    bool good = run && lf_run_set_text(run, "script", "return 1\n", &err) &&
                lf_run_set_text(run, "metrics/train@monitor", "loss", &err);
    for (int64_t step = 1; good; step++) {
        good = go_on(run, step, &err) && lf_run_live(run, path, own, &err);
        if (step % 1500 == 0)
            lf_run_live_close(run);
    }
    return 1;
}

typedef struct found {
    int64_t steps, lines, digests;
    bool right;
} found;

static bool check_node(void *user, const lf_h5_node *node)
{
    found *f = user;
    const int64_t count = (int64_t)node->count;
    for (int64_t i = 0; i < count; i++) {
        char text[65];
        if (!strcmp(node->path, "/entry/metrics/train/loss/step")) {
            f->right &= node->integers[i] == i + 1;
            f->steps = count;
        } else if (!strcmp(node->path, "/entry/metrics/train/loss/time")) {
            f->right &= node->floats[i] == (double)(i + 1) / 8;
        } else if (!strcmp(node->path, "/entry/metrics/train/loss/value")) {
            f->right &= node->floats[i] == value_at(i + 1);
        } else if (!strcmp(node->path, "/entry/log/text")) {
            snprintf(text, sizeof text, "line %lld", (long long)(i + 1));
            f->right &= !strcmp(node->texts[i], text);
            f->lines = count;
        } else if (!strcmp(node->path, "/entry/digests/train/sha256")) {
            snprintf(text, sizeof text, "%064llx", 5ull * (unsigned long long)(i + 1));
            f->right &= !strcmp(node->texts[i], text);
            f->digests = count;
        }
    }
    return true;
}

static found look_at(const char *path)
{
    lf_error err = { 0 };
    found f = { .right = true };
    OK(lf_h5_walk(path, "/", 1 << 20, check_node, &f, &err));
    assert_true(f.right);
    return f;
}

static void no_name(void *user, const char *name)
{
    (void)user;
    fail_msg("%s differs", name);
}

// A recovered file has equally many of all, up to what one call writes.
static found assert_recovered(const char *live, const char *out)
{
    lf_error err = { 0 };
    OK(lf_run_recover(live, out, "failed", 1, &err));
    OK(lf_run_check(out, no_name, NULL, &err));
    assert_lists(out, "/entry/status text 'failed'");
    assert_lists(out, "/entry/exit_code integer 1");
    assert_lists(out, "/entry/script text 'return 1\n'");
    assert_lists(out, "/entry/metrics/train@monitor text 'loss'");
    found f = look_at(out);
    assert_true(f.lines >= f.steps / 3 && f.lines <= (f.steps + 1) / 3);
    assert_true(f.digests >= (f.steps - 1) / 5 && f.digests <= f.steps / 5);
    return f;
}

static void a_kill_at_any_moment_leaves_a_file_that_is_recovered_whole(void **state)
{
    (void)state;
    enum { KILLS = 60 };
    const char *live = in_folder("a.live.h5"), *out = in_folder("a.h5");
    int64_t most = 0;
    for (int i = 0; i < KILLS; i++) {
        remove(live);
        pid_t child = fork();
        if (child == 0)
            _exit(live_for_ever(live));
        while (access(live, F_OK) != 0)
            usleep(100);
        usleep((useconds_t)(i * i * 97 % 60000));
        kill(child, SIGKILL);
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        found f = assert_recovered(live, out);
        most = f.steps > most ? f.steps : most;
    }
    assert_true(most > 20); // beyond the first file
}

static lf_run *long_run(int64_t steps)
{
    lf_error err = { 0 };
    lf_run *run = lf_run_create(&err);
    assert_non_null(run);
    OK(lf_run_set_text(run, "script", "return 1\n", &err));
    OK(lf_run_set_text(run, "metrics/train@monitor", "loss", &err));
    for (int64_t step = 1; step <= steps; step++)
        OK(go_on(run, step, &err));
    return run;
}

// Lines of a walk but those that tell when.
static char *content(const char *path)
{
    const listing *list = walk(path, "/entry", 1 << 12);
    char *kept = calloc(1, sizeof list->text), *to = kept;
    for (const char *line = list->text, *end; *line; line = end) {
        end = strchr(line, '\n') + 1;
        if (!strncmp(line, "/entry/end_time", 15))
            continue;
        memcpy(to, line, (size_t)(end - line));
        to += end - line;
    }
    return kept;
}

static void a_recovered_file_is_what_the_run_would_have_saved(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *live = in_folder("b.live.h5"), *saved = in_folder("b.saved.h5"), *out = in_folder("b.h5");
    lf_run *run = lf_run_create(&err);
    assert_non_null(run);
    OK(lf_run_set_text(run, "@title", "größe", &err));
    OK(lf_run_set_f64s(run, "result/train/ranks", 1, (uint64_t[]){ 2 }, (double[]){ 1, 2 }, &err));
    for (int64_t step = 1; step <= 200; step++)
        OK(go_on(run, step, &err) && lf_run_live(run, live, own, &err));
    lf_run_live_close(run);
    OK(lf_run_save(run, saved, "failed", 1, &err));
    lf_run_destroy(run);
    OK(lf_run_recover(live, out, "failed", 1, &err));
    char *want = content(saved), *got = content(out);
    assert_string_equal(got, want);
    free(want);
    free(got);
    struct stat info;
    struct tm parts;
    char text[64];
    assert_int_equal(stat(live, &info), 0);
    strftime(text, sizeof text, "/entry/end_time text '%Y-%m-%dT%H:%M:%S", gmtime_r(&info.st_mtim.tv_sec, &parts));
    assert_non_null(strstr(walk(out, "/", 10)->text, text));
}

static void a_live_file_that_is_cut_makes_no_run_file(void **state)
{
    (void)state;
    const char *live = in_folder("c.live.h5"), *cut = in_folder("c.cut.h5"), *out = in_folder("c.h5");
    lf_error err = { 0 };
    lf_run *run = long_run(20);
    OK(lf_run_live(run, live, own, &err));
    for (int64_t step = 21; step <= 6001; step++)
        OK(step % 20 == 0 || go_on(run, step, &err));
    OK(lf_run_live(run, live, own, &err));
    size_t size;
    char *bytes = file_bytes(live, &size);
    lf_run_destroy(run);
    int refused = 0;
    for (size_t left = 0; left < size; left += size / 97 + 1) {
        file_put(cut, bytes, left);
        err = (lf_error){ 0 };
        if (lf_run_recover(cut, out, "failed", 1, &err))
            fail_msg("%zu of %zu bytes are enough", left, size);
        assert_non_null(strstr(err.text, "c.cut.h5: "));
        assert_int_not_equal(access(out, F_OK), 0);
        refused++;
    }
    assert_true(refused > 90);
    file_put(cut, bytes, size / 2);
    assert_false(lf_run_recover(cut, out, "failed", 1, &err));
    assert_non_null(strstr(err.text, "cut short"));
    file_put(cut, bytes, size);
    OK(lf_run_recover(cut, out, "failed", 1, &err));
    free(bytes);
}

static void what_is_no_live_file_makes_no_run_file(void **state)
{
    (void)state;
    const char *other = in_folder("d.other.h5"), *out = in_folder("d.h5");
    lf_error err = { 0 };
    assert_false(lf_run_recover(other, out, "failed", 1, &err));
    assert_says(err, LF_ENOTFOUND, "d.other.h5: cannot open: No such file or directory");
    file_put(other, "junk", 4);
    assert_false(lf_run_recover(other, out, "failed", 1, &err));
    assert_says(err, LF_EFORMAT, "d.other.h5: is not an HDF5 file (4 bytes without HDF5's signature)");
    small_dataset(other, 3, 2);
    assert_false(lf_run_recover(other, out, "failed", 1, &err));
    assert_says(err, LF_ENOTFOUND, "d.other.h5:/entry: no such object");
    lf_run *run = long_run(3);
    OK(lf_run_save(run, other, "completed", 0, &err));
    lf_run_destroy(run);
    assert_false(lf_run_recover(other, out, "failed", 1, &err));
    assert_says(err, LF_EFORMAT, "d.other.h5: is no live file: its status is \"completed\", not \"running\"");
    assert_int_not_equal(access(out, F_OK), 0);
}

// Exit status of a process that may write no file beyond `limit` bytes: 0 if each live call says so, naming the file,
// and, unless it is to `stop` there, one succeeds once there is room again.
static int write_until_full(const char *path, rlim_t limit, bool stop)
{
    signal(SIGXFSZ, SIG_IGN);
    lf_error err = { 0 };
    lf_run *run = lf_run_create(&err);
    struct rlimit all;
    bool good = run && lf_run_set_text(run, "script", "return 1\n", &err) && go_on(run, 1, &err) &&
                lf_run_live(run, path, own, &err) && getrlimit(RLIMIT_FSIZE, &all) == 0 &&
                setrlimit(RLIMIT_FSIZE, &(struct rlimit){ limit, all.rlim_max }) == 0;
    if (!good)
        return 1;
    int64_t step = 2;
    for (; step < 30000 && good; step++)
        good = add_step(run, "loss", step, &err) && (step % 10 || lf_run_live(run, path, own, &err));
    if (good || !strstr(err.text, "live.h5: cannot be written: File too large"))
        return 2;
    if (stop)
        _exit(0);
    for (int i = 0; i < 3; i++)
        if (lf_run_live(run, path, own, &err) || !strstr(err.text, "live.h5: cannot be written: File too large"))
            return 3;
    if (setrlimit(RLIMIT_FSIZE, &all) != 0 || !lf_run_live(run, path, own, &err))
        return 4;
    for (int64_t i = 0; i < 20; i++, step++)
        if (!add_step(run, "loss", step, &err) || !lf_run_live(run, path, own, &err))
            return 5;
    lf_run_destroy(run);
    return (int)(step != 0 && H5close() < 0);
}

static void fill(const char *path, rlim_t limit, bool stop)
{
    pid_t child = fork();
    if (child == 0)
        exit(write_until_full(path, limit, stop));
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void a_full_disk_is_an_error_that_names_the_file_and_ends_with_it(void **state)
{
    (void)state;
    const char *live = in_folder("e.live.h5"), *out = in_folder("e.h5");
    lf_error err = { 0 };
    for (rlim_t limit = 60000; limit < 200000; limit += 9999) {
        fill(live, limit, false);
        OK(lf_run_recover(live, out, "failed", 1, &err));
        assert_true(look_at(out).steps > 1000);
        assert_int_equal(entries_with(folder(), "e.live.h5"), 1);
    }
}

static unsigned long long rows_of(const char *path, const char *set)
{
    char part[100];
    snprintf(part, sizeof part, "/entry/metrics/train/loss/%s ", set);
    const char *line = strstr(walk(path, "/", 0)->text, part);
    assert_non_null(line);
    return strtoull(line + strlen(part) + strcspn(line + strlen(part), " "), NULL, 10);
}

static void wherever_a_live_file_ends_it_has_a_value_of_each_step(void **state)
{
    (void)state;
    const char *live = in_folder("f.live.h5");
    for (rlim_t limit = 60000; limit < 110000; limit += 1024) {
        fill(live, limit, true);
        unsigned long long steps = rows_of(live, "step");
        assert_true(steps > 1000);
        assert_true(rows_of(live, "time") >= steps);
        assert_true(rows_of(live, "value") >= steps);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kill_at_any_moment_leaves_a_file_that_is_recovered_whole),
        cmocka_unit_test(a_recovered_file_is_what_the_run_would_have_saved),
        cmocka_unit_test(a_live_file_that_is_cut_makes_no_run_file),
        cmocka_unit_test(what_is_no_live_file_makes_no_run_file),
        cmocka_unit_test(a_full_disk_is_an_error_that_names_the_file_and_ends_with_it),
        cmocka_unit_test(wherever_a_live_file_ends_it_has_a_value_of_each_step),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
