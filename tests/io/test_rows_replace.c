// Files of rows appear whole or not at all: abandoned ones, kills, full disks, permissions.
#include "rows.h"

#include <errno.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void an_abandoned_file_leaves_the_old_one(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("abandoned.h5");
    lf_rows_abandon(NULL);
    lf_rows_abandon(begin(path));
    assert_int_equal(access(path, F_OK), -1);
    put_file(path, 1);
    lf_rows_file *file = begin(path);
    OK(lf_rows_add(file, "logits", LF_F32, ROWS, COLS, &err));
    OK(lf_rows_put(file, "logits", 0, 20, sample(2, 0, 20), &err));
    assert_int_equal(entries_with(folder(), ".tmp"), 1);
    lf_rows_abandon(file);
    assert_int_equal(entries_with(folder(), ".tmp"), 0);
    assert_holds(path, 1);
}

static void rows_that_were_not_put_are_counted_at_the_end(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("part.h5");
    put_file(path, 1);
    lf_rows_file *file = begin(path);
    OK(lf_rows_add(file, "logits", LF_F32, ROWS, COLS, &err));
    OK(lf_rows_put(file, "logits", 0, 20, sample(2, 0, 20), &err));
    assert_false(lf_rows_finish(file, &err));
    assert_says(err, LF_EARG, "part.h5:logits: has 50 rows, but only 20 were put");
    assert_int_equal(entries_with(folder(), ".tmp"), 0);
    assert_holds(path, 1);
}

static _Noreturn void write_for_ever(const char *path)
{
    enum { PIECES = 200 };
    for (float seed = 2;; seed += 2) {
        lf_error err = { 0 };
        lf_rows_file *file = lf_rows_create(path, FORMAT, &err);
        bool good = file && lf_rows_add(file, "logits", LF_F32, ROWS, COLS, &err) &&
                    lf_rows_add(file, "more", LF_F32, PIECES * ROWS, COLS, &err);
        for (uint64_t i = 0; good && i < PIECES; i++)
            good = lf_rows_put(file, "more", i * ROWS, ROWS, sample(seed, 0, ROWS), &err);
        good = good && lf_rows_put(file, "logits", 0, ROWS, sample(1, 0, ROWS), &err) && lf_rows_finish(file, &err);
        if (!good) {
            fprintf(stderr, "%s\n", err.text);
            _exit(1);
        }
    }
}

static void a_killed_writer_leaves_a_complete_file(void **state)
{
    (void)state;
    enum { KILLS = 40 };
    const char *path = in_folder("killed.h5");
    put_file(path, 1);
    unsigned seed = 54321;
    int interrupted = 0;
    for (int i = 0; i < KILLS; i++) {
        fflush(NULL);
        pid_t child = fork();
        if (child == 0)
            write_for_ever(path);
        assert_true(child > 0);
        nanosleep(&(struct timespec){ 0, 1000 * (1000 + rand_r(&seed) % 20000) }, NULL);
        int status;
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        interrupted += entries_with(folder(), "killed.h5.") > 0;
        assert_holds(path, 1);
    }
    print_message("%d kills: %d left a temporary file\n", KILLS, interrupted);
    assert_true(interrupted > 0);
    put_file(path, 3);
    assert_int_equal(entries_with(folder(), ".tmp"), 0);
    assert_holds(path, 3);
}

// Killed between two puts, certainly in the middle.
static void a_writer_killed_between_two_rows_leaves_the_old_file(void **state)
{
    (void)state;
    const char *path = in_folder("middle.h5");
    put_file(path, 1);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        lf_rows_file *file = lf_rows_create(path, FORMAT, NULL);
        if (lf_rows_add(file, "logits", LF_F32, ROWS, COLS, NULL) &&
            lf_rows_put(file, "logits", 0, 20, sample(2, 0, 20), NULL))
            kill(getpid(), SIGKILL);
        _exit(1);
    }
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(entries_with(folder(), "middle.h5."), 1);
    assert_holds(path, 1);
    put_file(path, 2);
    assert_int_equal(entries_with(folder(), "middle.h5."), 0);
}

// Another writer that finishes the same file does not take the temporary file of one that lives for a dead one's.
static void a_living_writer_keeps_its_temporary_file(void **state)
{
    (void)state;
    static const char *const settings[] = { NULL, "FALSE", "TRUE", "BEST_EFFORT" };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        const char *path = in_folder("alive.h5");
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) { // HDF5 reads the setting when it opens a file
            lf_error err = { 0 };
            if (settings[i])
                setenv("HDF5_USE_FILE_LOCKING", settings[i], 1);
            lf_rows_file *file = lf_rows_create(path, FORMAT, &err);
            bool good = file && lf_rows_add(file, "logits", LF_F32, ROWS, COLS, &err) &&
                        lf_rows_put(file, "logits", 0, 20, sample(2, 0, 20), &err);
            pid_t other = good ? fork() : 0; // shares the file's lock, but not its own file's
            if (other < 0 || !good)
                _exit(1);
            lf_rows_file *second = lf_rows_create(path, FORMAT, &err);
            if (other == 0)
                _exit(second && lf_rows_add(second, "logits", LF_F32, ROWS, COLS, &err) &&
                              lf_rows_put(second, "logits", 0, ROWS, sample(3, 0, ROWS), &err) &&
                              lf_rows_finish(second, &err)
                          ? 0
                          : 1);
            lf_rows_abandon(second);
            int status;
            waitpid(other, &status, 0);
            good = status == 0 && lf_rows_put(file, "logits", 20, 30, sample(2, 20, 30), &err) &&
                   lf_rows_finish(file, &err);
            if (!good)
                fprintf(stderr, "%s: %s\n", settings[i] ? settings[i] : "unset", err.text);
            _exit(good ? 0 : 1);
        }
        int status;
        waitpid(child, &status, 0);
        assert_int_equal(status, 0);
        assert_holds(path, 2);
        assert_int_equal(entries_with(folder(), "alive.h5."), 0);
    }
}

// Puts until an error, which must have `text`.
static void put_until_full(const char *path, const char *text)
{
    lf_error err = { 0 };
    enum { MANY = 4000 };
    lf_rows_file *file = begin(path);
    bool good = lf_rows_add(file, "logits", LF_F32, (uint64_t)MANY * ROWS, COLS, &err) &&
                lf_rows_add(file, "class", LF_U32, ROWS, 0, &err);
    for (uint64_t i = 0; good && i < MANY; i++)
        good = lf_rows_put(file, "logits", i * ROWS, ROWS, sample(2, 0, ROWS), &err);
    assert_false(good);
    assert_says(err, LF_EIO, text);
    lf_rows_abandon(file);
}

static void fill_disk(const char *path)
{
    FILE *file = fopen(path, "ab");
    setvbuf(file, NULL, _IONBF, 0);
    char block[4096] = { 1 };
    for (int i = 0; i < 100 && fwrite(block, sizeof block, 1, file) == 1; i++)
        continue;
    fclose(file);
}

static void a_full_disk_keeps_the_old_file(void **state)
{
    (void)state;
    const char *disk = in_folder("disk");
    mkdir(disk, 0777);
    if (mount("lavaflow", disk, "tmpfs", 0, "size=128k") != 0) {
        print_message("skipped: cannot mount a small disk: %s\n", strerror(errno));
        skip();
    }
    char path[1024], filler[1024];
    snprintf(path, sizeof path, "%s/rows.h5", disk);
    snprintf(filler, sizeof filler, "%s/filler", disk);
    put_file(path, 1);
    put_until_full(path, "rows.h5:logits: cannot write rows ");
    int left = entries_with(disk, ".tmp");
    // Full when HDF5 writes what it kept until the end; then from the start.
    lf_error err = { 0 };
    lf_rows_file *file = begin(path);
    OK(lf_rows_add(file, "logits", LF_F32, ROWS, COLS, &err));
    OK(lf_rows_put(file, "logits", 0, ROWS, sample(2, 0, ROWS), &err));
    char long_text[2000];
    memset(long_text, 'a', sizeof long_text);
    long_text[sizeof long_text - 1] = 0;
    for (int i = 0; i < 20; i++) {
        char name[32];
        snprintf(name, sizeof name, "logits@note_%d", i);
        OK(lf_rows_text(file, name, long_text, &err));
    }
    fill_disk(filler);
    bool finished = lf_rows_finish(file, &err);
    char text[sizeof err.text];
    memcpy(text, err.text, sizeof text);
    bool wrote = false;
    fill_disk(filler);
    file = lf_rows_create(path, FORMAT, &err);
    if (file && lf_rows_add(file, "logits", LF_F32, ROWS, COLS, &err))
        wrote = lf_rows_put(file, "logits", 0, ROWS, sample(2, 0, ROWS), &err);
    lf_rows_abandon(file);
    left += entries_with(disk, ".tmp");
    float got[ROWS * COLS];
    bool kept =
        lf_rows_read(path, FORMAT, "logits", ROWS, COLS, got, NULL) && memcmp(got, sample(1, 0, ROWS), sizeof got) == 0;
    unlink(filler);
    lf_error again = { 0 };
    file = lf_rows_create(path, FORMAT, &again); // with room again, all is well
    bool later = file && lf_rows_add(file, "logits", LF_F32, ROWS, COLS, &again) &&
                 lf_rows_put(file, "logits", 0, ROWS, sample(3, 0, ROWS), &again) && lf_rows_finish(file, &again);
    umount(disk);
    assert_false(wrote);
    assert_says(err, LF_EIO, "No space left on device");
    assert_false(finished);
    assert_non_null(strstr(text, "rows.h5: cannot write: No space left on device"));
    assert_true(kept && later);
    assert_int_equal(left, 0);
}

static void a_file_size_limit_keeps_the_old_file(void **state)
{
    (void)state;
    const char *path = in_folder("limited.h5");
    put_file(path, 1);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN);
        const struct rlimit limit = { 40000, 40000 };
        setrlimit(RLIMIT_FSIZE, &limit);
        lf_error err = { 0 };
        lf_rows_file *file = lf_rows_create(path, FORMAT, &err);
        bool good = file && lf_rows_add(file, "logits", LF_F32, 100 * ROWS, COLS, &err);
        for (uint64_t i = 0; good && i < 100; i++)
            good = lf_rows_put(file, "logits", i * ROWS, ROWS, sample(2, 0, ROWS), &err);
        lf_rows_abandon(file);
        if (good || !strstr(err.text, "File too large"))
            fprintf(stderr, "got \"%s\"\n", good ? "success" : err.text);
        exit(good || !strstr(err.text, "File too large")); // with HDF5's own end
    }
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    assert_holds(path, 1);
    assert_int_equal(entries_with(folder(), "limited.h5."), 0);
}

static void permissions_and_links_of_the_old_file_stay(void **state)
{
    (void)state;
    mkdir(in_folder("real"), 0777);
    put_file(in_folder("real/rows.h5"), 1);
    chmod(in_folder("real/rows.h5"), 0440);
    assert_int_equal(symlink(in_folder("real/rows.h5"), in_folder("link.h5")), 0);
    put_file(in_folder("link.h5"), 2);
    struct stat info;
    assert_int_equal(lstat(in_folder("link.h5"), &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(stat(in_folder("real/rows.h5"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0440);
    assert_holds(in_folder("real/rows.h5"), 2);
}

int main(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_abandoned_file_leaves_the_old_one),
        cmocka_unit_test(rows_that_were_not_put_are_counted_at_the_end),
        cmocka_unit_test(a_killed_writer_leaves_a_complete_file),
        cmocka_unit_test(a_writer_killed_between_two_rows_leaves_the_old_file),
        cmocka_unit_test(a_living_writer_keeps_its_temporary_file),
        cmocka_unit_test(a_full_disk_keeps_the_old_file),
        cmocka_unit_test(a_file_size_limit_keeps_the_old_file),
        cmocka_unit_test(permissions_and_links_of_the_old_file_stay),
    };
    return cmocka_run_group_tests_name("io: replacing files of rows", tests, folder_make, folder_remove);
}
