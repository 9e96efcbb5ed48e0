// Locks between processes: one holder, whose end, however it comes, frees the lock.
#include "util.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/file_lock.h"

static int take(const char *path)
{
    lf_error err = { 0 };
    bool busy = true;
    int fd = lf_file_lock(path, &busy, &err);
    if (fd < 0)
        fail_msg("%s", busy ? "is busy" : err.text);
    assert_false(busy);
    return fd;
}

static void assert_busy(const char *path)
{
    lf_error err = { .code = LF_OK };
    bool busy = false;
    assert_int_equal(lf_file_lock(path, &busy, &err), -1);
    assert_true(busy);
    assert_int_equal(err.code, LF_OK);
}

// A process that has locked `path` and waits to be ended.
static pid_t holder(const char *path)
{
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        bool busy;
        if (lf_file_lock(path, &busy, NULL) >= 0 && write(ready[1], "", 1) == 1)
            pause();
        _exit(1);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return child;
}

static void end(pid_t child)
{
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
}

static void a_second_taker_finds_it_busy_and_who_holds_it(void **state)
{
    (void)state;
    const char *path = in_folder("a.lock");
    pid_t child = holder(path);
    char wanted[64], host[128] = "";
    assert_busy(path);
    size_t size;
    char *text = file_bytes(path, &size);
    text[size] = 0;
    gethostname(host, sizeof host - 1);
    snprintf(wanted, sizeof wanted, "pid %ld on ", (long)child);
    if (strncmp(text, wanted, strlen(wanted)) != 0 || !strstr(text, host) || !strstr(text, " since 20") ||
        text[size - 1] != '\n')
        fail_msg("\"%s\" does not begin with \"%s\" and name %s", text, wanted, host);
    free(text);
    end(child);
    int fd = take(path); // and is its holder now, also for others of this process
    assert_busy(path);
    text = file_bytes(path, &size);
    text[size] = 0;
    snprintf(wanted, sizeof wanted, "pid %ld on ", (long)getpid());
    assert_int_equal(strncmp(text, wanted, strlen(wanted)), 0);
    free(text);
    lf_file_unlock(fd);
    lf_file_unlock(take(path));
    lf_file_unlock(-1);
    assert_int_equal(access(path, F_OK), 0);
}

static void a_killed_holder_frees_it(void **state)
{
    (void)state;
    const char *path = in_folder("killed.lock");
    for (int i = 0; i < 20; i++) {
        pid_t child = holder(path);
        assert_busy(path);
        end(child);
        lf_file_unlock(take(path));
    }
}

static void it_is_kept_while_a_child_has_the_descriptor(void **state)
{
    (void)state;
    const char *path = in_folder("inherited.lock");
    int fd = take(path);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        for (;;)
            pause();
    lf_file_unlock(fd);
    assert_busy(path);
    end(child);
    lf_file_unlock(take(path));
}

// A program that is started by the holder and knows nothing of the lock must not keep it.
static void a_program_that_is_executed_does_not_have_it(void **state)
{
    (void)state;
    const char *path = in_folder("executed.lock");
    int fd = take(path), ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dup2(ready[1], 1);
        execlp("sh", "sh", "-c", "echo; exec sleep 60", (char *)NULL);
        _exit(1);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    lf_file_unlock(fd);
    lf_file_unlock(take(path));
    end(child);
}

static void a_removed_and_made_again_file_is_another_lock(void **state)
{
    (void)state;
    const char *path = in_folder("again.lock");
    int first = take(path);
    assert_int_equal(unlink(path), 0);
    int second = take(path);
    assert_busy(path);
    lf_file_unlock(first);
    assert_busy(path); // the end of the first holder frees nothing of the second's
    lf_file_unlock(second);
    lf_file_unlock(take(path));
}

// Whoever gets it removes the file before it lets go: of many takers at once never two may have it.
static void takers_who_remove_the_file_never_hold_it_together(void **state)
{
    (void)state;
    enum { TAKERS = 4, ROUNDS = 100 };
    const char *path = in_folder("shared.lock"), *inside = in_folder("inside");
    pid_t takers[TAKERS];
    fflush(NULL);
    for (int i = 0; i < TAKERS; i++) {
        takers[i] = fork();
        if (takers[i] != 0)
            continue;
        alarm(300);
        for (int round = 0; round < ROUNDS;) {
            bool busy;
            int fd = lf_file_lock(path, &busy, NULL);
            if (fd < 0 && !busy)
                _exit(1);
            if (fd < 0)
                continue;
            if (mkdir(inside, 0700) != 0 || rmdir(inside) != 0)
                _exit(2); // someone else is inside
            unlink(path);
            lf_file_unlock(fd);
            round++;
        }
        _exit(0);
    }
    for (int i = 0; i < TAKERS; i++) {
        int status;
        waitpid(takers[i], &status, 0);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
}

static void what_cannot_be_opened_is_an_error_and_not_busy(void **state)
{
    (void)state;
    lf_error err = { 0 };
    bool busy = true;
    assert_int_equal(lf_file_lock(in_folder("no/such.lock"), &busy, &err), -1);
    assert_false(busy);
    assert_says(err, LF_EIO, "no/such.lock: cannot be opened: No such file or directory");
    assert_int_equal(lf_file_lock(folder(), &busy, &err), -1);
    assert_false(busy);
    assert_says(err, LF_EIO, "cannot be opened: Is a directory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_second_taker_finds_it_busy_and_who_holds_it),
        cmocka_unit_test(a_killed_holder_frees_it),
        cmocka_unit_test(it_is_kept_while_a_child_has_the_descriptor),
        cmocka_unit_test(a_program_that_is_executed_does_not_have_it),
        cmocka_unit_test(a_removed_and_made_again_file_is_another_lock),
        cmocka_unit_test(takers_who_remove_the_file_never_hold_it_together),
        cmocka_unit_test(what_cannot_be_opened_is_an_error_and_not_busy),
    };
    return cmocka_run_group_tests_name("io: locks", tests, folder_make, folder_remove);
}
