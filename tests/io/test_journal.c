// Journals: what is replayed is what was called, whole or in pieces.
#include "journals.h"

#include <sys/wait.h>
#include <unistd.h>

static const double doubles[] = { .1, NAN, -INFINITY, -0.0, 5e-324, 1e300 };
static const double times[] = { 0, .1, .2, .3, .4, 1e9 };
static const int64_t integers[] = { INT64_MIN, INT64_MAX, -1, 0, 1, 2 };

static void set_everything(lf_run *run)
{
    lf_error err = { 0 };
    OK(lf_run_set_text(run, "script", "return 1\n", &err));
    OK(lf_run_set_text(run, "script@sha256", "abc", &err));
    OK(lf_run_set_text(run, "@title", "größe ✓", &err));
    OK(lf_run_set_text(run, "modules/empty", "", &err));
    OK(lf_run_set_group(run, "step_1", "NXprocess", &err));
    OK(lf_run_set_group(run, "step_1/deep/er", NULL, &err));
    for (size_t i = 0; i < 6; i++) {
        char path[32];
        snprintf(path, sizeof path, "parameters/f%zu", i);
        OK(lf_run_set_f64(run, path, doubles[i], &err));
        snprintf(path, sizeof path, "parameters/i%zu", i);
        OK(lf_run_set_i64(run, path, integers[i], &err));
    }
    OK(lf_run_set_f64(run, "parameters@f", .1, &err));
    OK(lf_run_set_i64(run, "parameters@i", INT64_MIN, &err));
    static const uint64_t shapes[][4] = { { 6 }, { 2, 3 }, { 1, 2, 3 }, { 3, 1, 2, 1 }, { 0, 3 } };
    for (size_t i = 0; i < 5; i++) {
        char path[32];
        snprintf(path, sizeof path, "result/t/f%zu", i);
        OK(lf_run_set_f64s(run, path, i < 4 ? i + 1 : 2, shapes[i], doubles, &err));
        snprintf(path, sizeof path, "result/t/i%zu", i);
        OK(lf_run_set_i64s(run, path, i < 4 ? i + 1 : 2, shapes[i], integers, &err));
    }
    OK(lf_run_set_i64s(run, "result/t@ids", 1, shapes[0], integers, &err));
    OK(lf_run_set_text(run, "parameters/f0", "a text by now", &err));
    OK(lf_run_set_f64(run, "result/t/f3", 4, &err));
}

static void append_everything(lf_run *run)
{
    lf_error err = { 0 };
    char hex[65];
    memset(hex, 'a', 64);
    hex[64] = 0;
    for (int64_t i = 1; i <= 9; i++) {
        hex[i] = 'b';
        OK(lf_run_series(run, "train", "loss", 6, (int64_t[]){ i, i, i, i, i, i }, times, doubles, &err));
        OK(lf_run_series(run, "train", "lr", 1, &i, times, doubles, &err));
        OK(lf_run_digest(run, "train", i, hex, &err));
    }
    OK(lf_run_series(run, "t.2", "loss", 0, integers, doubles, doubles, &err));
    OK(lf_run_rewind(run, "train", "loss", 6, &err));
    OK(lf_run_rewind(run, "train", NULL, 3, &err));
    OK(lf_run_rewind(run, "train", "none", 3, &err));
    OK(lf_run_rewind(run, "none", NULL, 3, &err));
    OK(lf_run_series(run, "train", "loss", 1, (int64_t[]){ 7 }, times, doubles, &err));
    OK(lf_run_digest(run, "train", 4, hex, &err));
    OK(lf_run_log(run, "train", "info", "first", &err));
    OK(lf_run_note(run, "a note", &err));
    OK(lf_run_log(run, "train", "warn", "", &err));
}

// Members whose content is not the time of the day.
static void assert_same_members(const char *a, const char *b)
{
    static const char *const members[] = { "script",  "modules",   "step_1",          "parameters", "result",
                                           "metrics", "digests",   "log/text",        "log/step",   "log/level",
                                           "status",  "exit_code", "metrics/train/lr" };
    lf_error err = { 0 };
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        char path[64], left[65], right[65];
        snprintf(path, sizeof path, "/entry/%s", members[i]);
        OK(lf_h5_digest(a, path, left, &err));
        OK(lf_h5_digest(b, path, right, &err));
        if (strcmp(left, right) != 0) {
            char *text = strdup(walk(a, path, 100)->text);
            fail_msg("%s differs: called\n%s\nreplayed\n%s", path, text, walk(b, path, 100)->text);
        }
    }
    char *left = strdup(walk(a, "/entry", 0)->text); // shapes, and that nothing else is there
    assert_string_equal(left, walk(b, "/entry", 0)->text);
    free(left);
}

static void a_replayed_journal_is_the_same_as_the_calls(void **state)
{
    (void)state;
    lf_error err = { 0 };
    lf_run *direct = new_run(), *replayed = new_run(), *journal = open_journal(in_folder("all.journal"));
    assert_string_equal(lf_run_uuid(journal), uuid);
    lf_run *both[] = { direct, journal };
    for (int i = 0; i < 2; i++) {
        set_everything(both[i]);
        append_everything(both[i]);
    }
    OK(lf_run_sync(journal, &err));
    OK(lf_run_sync(direct, &err));
    lf_run_destroy(journal);
    uint64_t offset = 0;
    assert_string_equal(replay_from(replayed, in_folder("all.journal"), &offset)->text,
                        "info first\nnote a note\nwarn \n");
    assert_int_equal(offset, size_of(in_folder("all.journal")));
    const int64_t *steps;
    const double *values;
    assert_int_equal(lf_run_series_get(replayed, "train", "loss", &steps, &values), 6 * 6 + 1);
    assert_int_equal(lf_run_series_get(replayed, "t.2", "loss", &steps, &values), 0);
    OK(lf_run_save(direct, in_folder("direct.h5"), "done", 0, &err));
    OK(lf_run_save(replayed, in_folder("replayed.h5"), "done", 0, &err));
    assert_same_members(in_folder("direct.h5"), in_folder("replayed.h5"));
    assert_lists(in_folder("replayed.h5"), "/entry@title text 'größe ✓'");
    assert_lists(in_folder("replayed.h5"), "/entry/digests/train/step integer 4 1 2 3 4");
    assert_lists(in_folder("replayed.h5"), "/entry/log/step text 2 'train' 'train'");
    lf_run_destroy(direct);
    lf_run_destroy(replayed);
}

static void a_journal_refuses_what_a_run_refuses_and_what_it_cannot_hold(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("refusals.journal");
    lf_run *journal = open_journal(path), *run = new_run();
    size_t size = size_of(path);
    static const uint64_t shape[5] = { 1, 1, 1, 1, 1 };
    lf_run *both[] = { run, journal };
    for (int i = 0; i < 2; i++) {
        static const char *const paths[] = { "", "/a", "a/", "a//b", "../a", "a/.", "a/../b@c" };
        for (size_t p = 0; p < sizeof paths / sizeof *paths; p++) {
            if (lf_run_set_text(both[i], paths[p], "x", &err) || lf_run_set_f64(both[i], paths[p], 1, &err) ||
                lf_run_set_i64s(both[i], paths[p], 1, shape, integers, &err))
                fail_msg("\"%s\" is set", paths[p]);
            assert_says(err, LF_EARG, "is no path below /entry");
        }
        assert_false(lf_run_set_group(both[i], "a/../b", NULL, &err));
        assert_false(lf_run_set_f64s(both[i], "a", 5, shape, doubles, &err));
        assert_says(err, LF_EARG, "a: an array of rank 5; expects 1 to 4");
        assert_false(lf_run_set_i64s(both[i], "a", 0, shape, integers, &err));
        assert_false(lf_run_series(both[i], "a/b", "loss", 1, integers, doubles, doubles, &err));
        assert_false(lf_run_digest(both[i], "t", 1, (const char[65]){ "short" }, &err));
    }
    lf_model_file *model = sample_model(1, false);
    assert_false(lf_run_model(journal, "train", "model", model, &err));
    assert_says(err, LF_EARG, "refusals.journal: a journal holds no models and is not saved");
    assert_false(lf_run_save(journal, in_folder("refused.h5"), "done", 0, &err));
    assert_says(err, LF_EARG, "refusals.journal: a journal holds no models and is not saved");
    assert_int_equal(size_of(path), size);
    lf_model_file_destroy(model);
    lf_run_destroy(journal);
    lf_run_destroy(run);
    assert_null(lf_run_journal(in_folder("no/such.journal"), uuid, 0, &err));
    assert_says(err, LF_EIO, "no/such.journal: cannot be opened: ");
}

enum { MANY = 3000 };

// As a step's process does; some records are larger than a pipe or a page.
static void append_many(const char *path)
{
    lf_error err = { 0 };
    lf_run *journal = lf_run_journal(path, uuid, 0, &err);
    static char big[70000];
    memset(big, 'x', sizeof big - 1);
    bool good = journal;
    for (int64_t i = 0; good && i < MANY; i++) {
        const double value = (double)i;
        char text[16];
        snprintf(text, sizeof text, "%d", (int)i);
        good = lf_run_note(journal, text, &err) &&
               lf_run_series(journal, "train", "loss", 1, &i, &value, &value, &err) &&
               (i % 500 || lf_run_set_text(journal, "big", big, &err));
        if (i % 100 == 0)
            usleep(1000);
    }
    lf_run_destroy(journal);
    _exit(good ? 0 : 1);
}

static void assert_counted(const hearing *heard, size_t *next)
{
    const char *at = heard->text;
    for (; *at; (*next)++) {
        char *end;
        assert_int_equal(strncmp(at, "note ", 5), 0);
        assert_int_equal(strtoul(at + 5, &end, 10), *next);
        at = end + 1;
    }
}

static void replay_in_pieces_loses_and_doubles_nothing_while_another_process_appends(void **state)
{
    (void)state;
    const char *path = in_folder("pieces.journal");
    file_put(path, "lavaflow", 8); // its first line is not whole yet
    uint64_t offset = 0;
    lf_run *run = new_run();
    assert_int_equal(replay_from(run, path, &offset)->used, 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        append_many(path);
    size_t next = 0, pieces = 0;
    int status = 0;
    for (bool running = true; running;) {
        running = waitpid(child, &status, WNOHANG) == 0;
        size_t before = next;
        assert_counted(replay_from(run, path, &offset), &next);
        pieces += next > before;
    }
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(next, MANY);
    assert_true(pieces > 1);
    assert_int_equal(offset, size_of(path));
    const int64_t *steps;
    const double *values;
    assert_int_equal(lf_run_series_get(run, "train", "loss", &steps, &values), MANY);
    for (int64_t i = 0; i < MANY; i++)
        assert_true(steps[i] == i && values[i] == (double)i);
    assert_int_equal(replay_from(run, path, &offset)->used, 0);
    lf_run_destroy(run);
}

static void records_of_megabytes_are_replayed(void **state)
{
    (void)state;
    lf_error err = { 0 };
    enum { COUNT = 200000 };
    int64_t *numbers = malloc(COUNT * sizeof *numbers);
    double *values = malloc(COUNT * sizeof *values);
    for (int64_t i = 0; i < COUNT; i++) {
        numbers[i] = i;
        values[i] = 1 / (double)(i + 1);
    }
    lf_run *direct = new_run(), *replayed = new_run(), *journal = open_journal(in_folder("big.journal"));
    lf_run *both[] = { direct, journal };
    for (int i = 0; i < 2; i++) {
        OK(lf_run_series(both[i], "train", "loss", COUNT, numbers, values, values, &err));
        OK(lf_run_set_i64s(both[i], "result/i", 2, (uint64_t[]){ 2, COUNT / 2 }, numbers, &err));
        OK(lf_run_set_f64s(both[i], "result/f", 2, (uint64_t[]){ 2, COUNT / 2 }, values, &err));
    }
    lf_run_destroy(journal);
    uint64_t offset = 0;
    replay_from(replayed, in_folder("big.journal"), &offset);
    OK(lf_run_save(direct, in_folder("direct.h5"), "done", 0, &err));
    OK(lf_run_save(replayed, in_folder("replayed.h5"), "done", 0, &err));
    static const char *const members[] = { "/entry/metrics", "/entry/result" };
    for (int i = 0; i < 2; i++) {
        char left[65], right[65];
        OK(lf_h5_digest(in_folder("direct.h5"), members[i], left, &err));
        OK(lf_h5_digest(in_folder("replayed.h5"), members[i], right, &err));
        assert_string_equal(left, right);
    }
    lf_run_destroy(direct);
    lf_run_destroy(replayed);
    free(numbers);
    free(values);
}

static void times_go_on_from_what_elapsed_and_are_shifted(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("times.journal");
    lf_run *journal = lf_run_journal(path, uuid, 1000, &err);
    assert_non_null(journal);
    assert_true(lf_run_time(journal) >= 1000 && lf_run_time(journal) < 1100);
    lf_run *run = new_run();
    uint64_t offset = 0;
    double last = -1;
    OK(lf_run_set_i64(journal, "parameters/p", 1, &err));
    OK(lf_run_note(journal, "no time", &err));
    OK(lf_run_replay(run, path, &offset, 50, "train", NULL, NULL, &last, &err));
    assert_true(last == -1); // none of them has a time
    OK(lf_run_log(journal, "unused", "info", "text", &err));
    hearing *heard = hearing_new();
    OK(lf_run_replay(run, path, &offset, 50, "train", hear, heard, &last, &err));
    assert_true(heard->time >= 1050 && heard->time < 1150 && last == heard->time);
    OK(lf_run_series(journal, "train", "loss", 2, integers, (double[]){ 3, 4.5 }, doubles, &err));
    OK(lf_run_digest(journal, "train", 1,
                     (const char[65]){ "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" }, &err));
    OK(lf_run_replay(run, path, &offset, 50, "train", NULL, NULL, &last, &err));
    assert_true(last == 54.5);
    OK(lf_run_save(run, in_folder("times.h5"), "done", 0, &err));
    assert_lists(in_folder("times.h5"), "/entry/metrics/train/loss/time float 2 53 54.5");
    assert_lists(in_folder("times.h5"), "/entry/log/step text 1 'train'");
    lf_run_destroy(journal);
    lf_run_destroy(run);
}

int main(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_replayed_journal_is_the_same_as_the_calls),
        cmocka_unit_test(a_journal_refuses_what_a_run_refuses_and_what_it_cannot_hold),
        cmocka_unit_test(replay_in_pieces_loses_and_doubles_nothing_while_another_process_appends),
        cmocka_unit_test(records_of_megabytes_are_replayed),
        cmocka_unit_test(times_go_on_from_what_elapsed_and_are_shifted),
    };
    return cmocka_run_group_tests_name("io: journals", tests, folder_make, folder_remove);
}
