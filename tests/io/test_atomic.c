// Files are replaced whole: kills, full disks and errors leave the old complete file or the new one.
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void put_model(const char *path, unsigned seed)
{
    lf_model_file *model = sample_model(seed, true);
    lf_error err = { 0 };
    if (!lf_model_file_write(path, model, &err))
        fail_msg("%s", err.text);
    lf_model_file_destroy(model);
}

static void assert_holds(const char *path, unsigned seed)
{
    lf_error err = { 0 };
    lf_model_file *read = lf_model_file_read(path, &err), *model = sample_model(seed, true);
    if (!read)
        fail_msg("%s", err.text);
    assert_true(models_equal(read, model));
    lf_model_file_destroy(model);
    lf_model_file_destroy(read);
}

// A model large enough that writing it takes a while, every value `seed`.
static lf_model_file *large_model(unsigned seed)
{
    lf_model_file *model = sample_model(seed, true);
    lf_file_tensor *tensor = &model->tensors[0];
    tensor->rows = 500;
    tensor->cols = 300;
    free(tensor->values);
    tensor->values = malloc(500 * 300 * sizeof(float));
    for (size_t i = 0; i < 500 * 300; i++)
        tensor->values[i] = (float)seed;
    return model;
}

static _Noreturn void write_for_ever(const char *path)
{
    lf_model_file *models[] = { large_model(1), large_model(2) };
    for (unsigned i = 0;; i++) {
        lf_error err = { 0 };
        if (!lf_model_file_write(path, models[i % 2], &err)) {
            fprintf(stderr, "%s\n", err.text);
            _exit(1);
        }
    }
}

static void a_killed_writer_leaves_the_old_or_the_new_complete_file(void **state)
{
    (void)state;
    enum { KILLS = 60 };
    const char *path = in_folder("killed.h5");
    lf_model_file *models[] = { large_model(1), large_model(2) };
    lf_error err = { 0 };
    assert_true(lf_model_file_write(path, models[0], &err));
    unsigned seed = 12345;
    int interrupted = 0, found[2] = { 0, 0 };
    for (int i = 0; i < KILLS; i++) {
        fflush(NULL);
        pid_t child = fork();
        if (child == 0)
            write_for_ever(path);
        assert_true(child > 0);
        long wait = 1000 + rand_r(&seed) % 25000;
        nanosleep(&(struct timespec){ 0, 1000 * wait }, NULL);
        int status;
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        interrupted += entries_with(folder(), ".tmp") > 0;
        lf_model_file *read = lf_model_file_read(path, &err);
        if (!read)
            fail_msg("after kill %d: %s", i, err.text);
        int which = models_equal(read, models[1]);
        assert_true(models_equal(read, models[which]));
        found[which]++;
        lf_model_file_destroy(read);
    }
    print_message("%d kills: %d left a temporary file, %d found the one and %d the other model\n", KILLS, interrupted,
                  found[0], found[1]);
    assert_true(interrupted > 0); // or no kill came in the middle of a write
    assert_true(lf_model_file_write(path, models[0], &err));
    assert_int_equal(entries_with(folder(), ".tmp"), 0);
    lf_model_file_destroy(models[0]);
    lf_model_file_destroy(models[1]);
}

static void only_dead_writers_files_of_the_same_name_are_removed(void **state)
{
    (void)state;
    mkdir(in_folder("stale"), 0777);
    const char *dead[] = { "stale/.m.h5.999999.tmp", "stale/.m.h5.999999-3.tmp" };
    const char *kept[] = { "stale/.m.h5.7.888.tmp", "stale/.other.h5.999999.tmp", "stale/.m.h5.x.tmp",
                           "stale/.m.h5.999999.tmpx", "stale/m.h5.999999.tmp" };
    for (size_t i = 0; i < 2; i++)
        file_put(in_folder(dead[i]), "x", 1);
    for (size_t i = 0; i < 5; i++)
        file_put(in_folder(kept[i]), "x", 1);
    const char *alive = in_folder("stale/.m.h5.999998.tmp");
    int fd = open(alive, O_CREAT | O_WRONLY, 0666); // as a living writer holds it
    assert_int_equal(flock(fd, LOCK_EX), 0);
    char own[64]; // left by a dead process that had our id
    snprintf(own, sizeof own, "stale/.m.h5.%ld.tmp", (long)getpid());
    file_put(in_folder(own), "x", 1);
    put_model(in_folder("stale/m.h5"), 4);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(access(in_folder(dead[i]), F_OK), -1);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(access(in_folder(kept[i]), F_OK), 0);
    assert_int_equal(access(alive, F_OK), 0);
    assert_int_equal(access(in_folder(own), F_OK), -1);
    close(fd);
    assert_holds(in_folder("stale/m.h5"), 4);
}

static void failing_writes_name_the_reason_and_leave_nothing(void **state)
{
    (void)state;
    lf_model_file *model = sample_model(1, false);
    lf_error err = { 0 };
    mkdir(in_folder("place"), 0777);
    mkdir(in_folder("place/folder.h5"), 0777);
    char name[300];
    memset(name, 'n', sizeof name);
    memcpy(name, "place/", 6);
    name[6 + 256] = 0; // one more than a name may have
    const struct {
        const char *path;
        lf_code code;
        const char *text;
    } cases[] = {
        { "", LF_EARG, "names no file" },
        { in_folder("place/"), LF_EARG, "names no file" },
        { in_folder("nowhere/m.h5"), LF_ENOTFOUND, "nowhere: No such file or directory" },
        { in_folder("place/folder.h5"), LF_EIO, "folder.h5: cannot write: is a folder" },
        { in_folder(name), LF_EIO, "File name too long" },
        { "/proc/m.h5", LF_EIO, "/proc/m.h5: cannot create a file beside it: " },
        { "/dev/full", LF_EIO, "/dev/full: cannot write: is not a plain file" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (lf_model_file_write(cases[i].path, model, &err))
            fail_msg("\"%s\" is written", cases[i].path);
        assert_says(err, cases[i].code, cases[i].text);
    }
    assert_int_equal(entries_with(in_folder("place"), ".tmp"), 0);
    lf_model_file_destroy(model);
}

// Runs `write` in a child, as another user if we are root, for root may write anywhere. Exit 0: it saw its error.
static void in_child(void (*check)(void))
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        check();
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void expect_failure(const char *path, const char *text)
{
    lf_model_file *model = sample_model(2, true);
    lf_error err = { 0 };
    bool written = lf_model_file_write(path, model, &err);
    lf_model_file_destroy(model);
    if (written || !strstr(err.text, text)) {
        fprintf(stderr, "got \"%s\", want \"%s\"\n", written ? "success" : err.text, text);
        _exit(1);
    }
}

static void write_read_only(void)
{
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
        _exit(1);
    expect_failure(in_folder("locked/m.h5"), "m.h5: cannot create a file beside it: Permission denied");
}

static void a_read_only_folder_keeps_its_file(void **state)
{
    (void)state;
    mkdir(in_folder("locked"), 0777);
    put_model(in_folder("locked/m.h5"), 1);
    chmod(folder(), 0755);
    chmod(in_folder("locked"), 0555);
    in_child(write_read_only);
    chmod(in_folder("locked"), 0777);
    assert_holds(in_folder("locked/m.h5"), 1);
    assert_int_equal(entries_with(in_folder("locked"), ".tmp"), 0);
}

static void write_limited(void)
{
    signal(SIGXFSZ, SIG_IGN);
    const struct rlimit limit = { 1000, 1000 };
    setrlimit(RLIMIT_FSIZE, &limit);
    expect_failure(in_folder("limited.h5"), "bytes: File too large");
}

static void a_file_size_limit_keeps_the_old_file(void **state)
{
    (void)state;
    put_model(in_folder("limited.h5"), 1);
    in_child(write_limited);
    assert_holds(in_folder("limited.h5"), 1);
    assert_int_equal(entries_with(folder(), ".tmp"), 0);
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
    char path[1024];
    snprintf(path, sizeof path, "%s/m.h5", disk);
    put_model(path, 1);
    lf_model_file *large = large_model(2);
    lf_error err = { 0 };
    bool written = lf_model_file_write(path, large, &err);
    lf_model_file_destroy(large);
    int left = entries_with(disk, ".tmp");
    lf_model_file *read = lf_model_file_read(path, NULL), *old = sample_model(1, true);
    bool kept = read && models_equal(read, old);
    lf_model_file_destroy(read);
    lf_model_file_destroy(old);
    umount(disk);
    assert_false(written);
    assert_says(err, LF_EIO, "bytes: No space left on device");
    assert_int_equal(left, 0);
    assert_true(kept);
}

static void permissions_and_links_of_the_old_file_stay(void **state)
{
    (void)state;
    mkdir(in_folder("real"), 0777);
    put_model(in_folder("real/m.h5"), 1);
    chmod(in_folder("real/m.h5"), 0640);
    assert_int_equal(symlink(in_folder("real/m.h5"), in_folder("link.h5")), 0);
    put_model(in_folder("link.h5"), 2);
    struct stat info;
    assert_int_equal(lstat(in_folder("link.h5"), &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(stat(in_folder("real/m.h5"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0640);
    assert_holds(in_folder("real/m.h5"), 2);
    assert_int_equal(chdir(in_folder("real")), 0);
    put_model("m.h5", 3); // a name without a folder
    assert_holds("m.h5", 3);
    assert_int_equal(chdir("/"), 0);
}

static void a_reader_keeps_the_file_that_it_opened(void **state)
{
    (void)state;
    small_dataset(in_folder("old.h5"), 20, 3);
    small_dataset(in_folder("new.h5"), 20, 5);
    lf_dataset *data = open_file(in_folder("old.h5"));
    rename(in_folder("new.h5"), in_folder("old.h5"));
    uint8_t x[60];
    lf_error err = { 0 };
    assert_true(lf_dataset_read_span(data, LF_PART_TRAIN, 0, 20, &(lf_rows_out){ .x = x }, &err));
    assert_int_equal(x[59], (uint8_t)(7 * 19 + 6));
    lf_dataset_close(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_writer_leaves_the_old_or_the_new_complete_file),
        cmocka_unit_test(only_dead_writers_files_of_the_same_name_are_removed),
        cmocka_unit_test(failing_writes_name_the_reason_and_leave_nothing),
        cmocka_unit_test(a_read_only_folder_keeps_its_file),
        cmocka_unit_test(a_file_size_limit_keeps_the_old_file),
        cmocka_unit_test(a_full_disk_keeps_the_old_file),
        cmocka_unit_test(permissions_and_links_of_the_old_file_stay),
        cmocka_unit_test(a_reader_keeps_the_file_that_it_opened),
    };
    return cmocka_run_group_tests_name("io: replacing files", tests, folder_make, folder_remove);
}
