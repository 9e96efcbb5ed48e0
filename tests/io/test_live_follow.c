// Other processes read a live file again and again while its run goes on, with new files taking its place.
#include "util.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void live(lf_run *run, const char *path)
{
    lf_error err = { 0 };
    OK(lf_run_live(run, path, NULL, &err));
}

enum { SERIES = 3, STEPS = 1500 };
static const char *const columns[] = { "step", "time", "value" };

// Lengths of what a walk sees.
typedef struct lengths {
    uint64_t of[SERIES][3], log;
    size_t nodes;
    bool running;
} lengths;

static bool note_length(void *user, const lf_h5_node *node)
{
    lengths *seen = user;
    seen->nodes++;
    for (int i = 0; i < SERIES; i++)
        for (int c = 0; c < 3; c++) {
            char path[64];
            snprintf(path, sizeof path, "/entry/metrics/train/s%d/%s", i, columns[c]);
            if (strcmp(node->path, path) == 0)
                seen->of[i][c] = node->shape[0];
        }
    if (strcmp(node->path, "/entry/log/time") == 0)
        seen->log = node->shape[0];
    seen->running |= strcmp(node->path, "/entry/status") == 0 && node->texts && !strcmp(node->texts[0], "running");
    return true;
}

static ino_t inode(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 ? info.st_ino : 0;
}

static bool shrank(const lengths *now, const lengths *before)
{
    bool less = now->log < before->log;
    for (int i = 0; i < SERIES; i++)
        for (int c = 0; c < 3; c++)
            less |= now->of[i][c] < before->of[i][c];
    return less;
}

// Walks until `until` exists. Exit status 0 if all walks went well and there were many of them.
static int walk_often(const char *path, const char *until)
{
    lengths before = { 0 };
    size_t walks = 0, grown = 0;
    ino_t file = 0;
    for (bool last = false; !last; walks++) {
        last = access(until, F_OK) == 0;
        lf_error err = { 0 };
        lengths now = { 0 };
        ino_t from = inode(path);
        if (!lf_h5_walk(path, "/", 1 << 12, note_length, &now, &err)) {
            fprintf(stderr, "walk %zu: %s\n", walks, err.text);
            return 1;
        }
        bool same = from == inode(path) && from == file;
        file = from == inode(path) ? from : 0;
        if (!now.running)
            return 2;
        for (int i = 0; i < SERIES; i++)
            if (now.of[i][1] < now.of[i][0] || now.of[i][2] < now.of[i][0])
                return 3;
        if (same && shrank(&now, &before))
            return 4;
        grown += now.of[0][0] != before.of[0][0];
        before = now;
    }
    return walks > 10 && grown > 5 && before.of[0][0] == STEPS ? 0 : 5;
}

static void readers_of_a_growing_and_changing_file_never_fail_or_see_it_shrink(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("grows.live.h5"), *until = in_folder("done");
    pid_t readers[2];
    // Before there is anything of HDF5 that a child would share.
    int start[2];
    char byte;
    assert_int_equal(pipe(start), 0);
    fflush(NULL);
    for (int i = 0; i < 2; i++) {
        readers[i] = fork();
        if (readers[i] == 0) {
            alarm(300);
            _exit(read(start[0], &byte, 1) == 1 ? walk_often(path, until) : 9);
        }
    }
    lf_run *run = lf_run_create(&err);
    assert_non_null(run);
    for (int64_t step = 1; step <= STEPS; step++) {
        const double time = (double)step, value = 1 / time;
        for (int i = 0; i < SERIES; i++) {
            char name[8];
            snprintf(name, sizeof name, "s%d", i);
            if (step > i * 200) // each comes at its time
                OK(lf_run_series(run, "train", name, 1, &step, &time, &value, &err));
        }
        OK(lf_run_log(run, "train", "info", "a line", &err));
        if (step % 10 == 0)
            OK(lf_run_set_i64(run, "parameters/p", step, &err));
        live(run, path);
        if (step == 1)
            assert_int_equal(write(start[1], "go", 2), 2);
        usleep(200);
    }
    file_put(until, "", 0);
    for (int i = 0; i < 2; i++) {
        int status;
        waitpid(readers[i], &status, 0);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    lf_run_destroy(run);
    close(start[0]);
    close(start[1]);
}

static void what_a_writer_that_was_killed_has_left_is_replaced(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("again.live.h5");
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) { // the signal ends it in the middle of a new file
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){ 3000, 3000 });
        setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
        signal(SIGXFSZ, SIG_DFL);
        lf_run *run = lf_run_create(NULL);
        lf_run_live(run, path, NULL, NULL);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(entries_with(folder(), "again.live"), 1);
    lf_run *run = lf_run_create(&err);
    live(run, path);
    assert_lists(path, "/entry/status text 'running'");
    assert_int_equal(entries_with(folder(), "again.live"), 1);
    lf_run_destroy(run);
    lf_run *next = lf_run_create(&err); // of a file that is there, whoever wrote it
    OK(lf_run_set_i64(next, "parameters/p", 7, &err));
    live(next, path);
    assert_lists(path, "/entry/parameters/p integer 7");
    lf_run_destroy(next);
}

// What happens at the next opening of a file, between the look at it and HDF5's own opening: `swap_from` takes the
// file's place, or, where it is "", the file is removed. Once.
static const char *swap_from, *swap_to;

htri_t __real_H5Fis_hdf5(const char *path); // NOLINT
htri_t __wrap_H5Fis_hdf5(const char *path);
htri_t __wrap_H5Fis_hdf5(const char *path)
{
    const char *from = swap_from;
    swap_from = NULL;
    if (from && (*from ? rename(from, swap_to) : unlink(swap_to)) != 0)
        return -1;
    return __real_H5Fis_hdf5(path);
}

// A live file with parameter p; closed, it is a plain one.
static lf_run *live_with(const char *path, int64_t p)
{
    lf_error err = { 0 };
    lf_run *run = lf_run_create(&err);
    OK(lf_run_set_i64(run, "parameters/p", p, &err));
    live(run, path);
    return run;
}

static void a_file_that_comes_while_another_is_opened_is_opened_as_itself(void **state)
{
    (void)state;
    const char *path = in_folder("swapped.live.h5"), *next = in_folder("next.live.h5");
    swap_to = path;
    for (int closed = 0; closed < 2; closed++) { // the file that comes
        lf_run *first = live_with(path, 1), *second = live_with(next, 2);
        if (closed) {
            lf_run_destroy(second);
            second = NULL;
        } else {
            lf_run_destroy(first);
            first = NULL;
        }
        swap_from = next;
        assert_lists(path, "/entry/parameters/p integer 2");
        assert_null(swap_from);
        lf_run_destroy(first);
        lf_run_destroy(second);
    }
}

static void a_file_that_goes_while_it_is_opened_is_not_there(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("goes.live.h5");
    lengths seen = { 0 };
    lf_run_destroy(live_with(path, 1));
    swap_to = path;
    swap_from = "";
    assert_false(lf_h5_walk(path, "/", 1, note_length, &seen, &err));
    assert_says(err, LF_ENOTFOUND, "goes.live.h5: cannot open: No such file or directory");
}

int main(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_of_a_growing_and_changing_file_never_fail_or_see_it_shrink),
        cmocka_unit_test(what_a_writer_that_was_killed_has_left_is_replaced),
        cmocka_unit_test(a_file_that_comes_while_another_is_opened_is_opened_as_itself),
        cmocka_unit_test(a_file_that_goes_while_it_is_opened_is_not_there),
    };
    return cmocka_run_group_tests_name("io: followed live files", tests, folder_make, folder_remove);
}
