// A training on several CUDA devices of the stand-in: through NCCL or through the host, on any number of devices, and
// whatever fails on the way, its bits are the same.
#include <sys/wait.h>
#include <unistd.h>

#include "cuda/nccl.h"
#include "wide.h"

enum { DEVICES = 4, SECONDS = 300 };
static const char *const all[DEVICES] = { "cuda:0", "cuda:1", "cuda:2", "cuda:3" };

static char one_digest[65];

// Loads no NCCL.
static int train_on_one(void **state)
{
    (void)state;
    trial *one = run_well(begin_wide(all, 1, false));
    snprintf(one_digest, sizeof one_digest, "%s", one->result.digest);
    end(one);
    return 0;
}

static void nccl_and_host_on_any_number_of_devices_give_equal_bits(void **state)
{
    (void)state;
    trial *one = run_well(begin_wide(all, 1, false));
    assert_int_equal(linked, 0);
    for (unsigned devices = 2; devices <= DEVICES; devices++) {
        trial *several = run_well(begin_wide(all, devices, false));
        assert_same(one, several);
        assert_int_equal(linked, 1);
        assert_int_equal(unlinked, 0);
        end(several);
    }
    trial *fast = run_well(begin_wide(all, 3, true)), *again = run_well(begin_wide(all, 3, true));
    assert_int_equal(linked, 1);
    assert_near(one, fast, 1e-4);
    assert_same(fast, again);
    assert_string_not_equal(one->result.digest, fast->result.digest);
    end(fast);
    end(again);
    end(one);
}

static void shards_that_change_hands_change_no_bit(void **state)
{
    (void)state;
    setenv("LAVAFLOW_HAND_OUT", "2", 1);
    trial *scattered = begin_wide(all, 3, false);
    scattered->params.digest_every = 1;
    scattered->params.events.digest = NULL;
    run_well(scattered);
    unsetenv("LAVAFLOW_HAND_OUT");
    assert_string_equal(one_digest, scattered->result.digest);
    assert_int_equal(linked, 1); // it stays, for its devices do
    end(scattered);
}

static void a_device_opened_twice_exchanges_through_the_host(void **state)
{
    (void)state;
    static const char *const twice[] = { "cuda:0", "cuda:1", "cuda:0" };
    trial *t = begin_wide(all, 3, false);
    t->params.devices = twice;
    run_well(t);
    assert_string_equal(one_digest, t->result.digest);
    assert_int_equal(linked, 0);
    assert_int_equal(unlinked, 1);
    end(t);
}

static void lost_devices_leave_the_others_linked(void **state)
{
    (void)state;
    static const char *const faults[] = { "cuda:1@step=2",   "cuda:1@step=2.4", "cuda:0@step=2.5",
                                          "cuda:3@step=2.5", "cuda:2@step=1.6", "cuda:2@step=1,cuda:0@step=2.5" };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        setenv("LAVAFLOW_FAULT", faults[i], 1);
        trial *t = run_well(begin_wide(all, 4, false));
        unsetenv("LAVAFLOW_FAULT");
        if (strcmp(one_digest, t->result.digest))
            fail_msg("%s: other bits", faults[i]);
        assert_int_equal(linked, strchr(faults[i], ',') ? 3 : 2);
        assert_int_equal(unlinked, 0);
        end(t);
    }
}

// In a process of its own, which a hang does not outlive.
static void expect_same(const char *fail, bool fast)
{
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        alarm(SECONDS);
        setenv("LAVAFLOW_STAND_IN_FAIL", fail, 1);
        trial *t = run(begin_wide(all, 3, fast));
        bool same = t->ok && (fast || !strcmp(one_digest, t->result.digest));
        if (!same)
            fprintf(stderr, "%s: %s\n", fail, t->ok ? "other bits" : t->err.text);
        _exit(same && (fast || linked || unlinked) ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        fail_msg("%s%s: status %d", fail, fast ? ", fast" : "", status);
}

static void whatever_fails_of_nccl_changes_no_bit_and_hangs_nothing(void **state)
{
    (void)state;
#define NAME(field, symbol, result, arguments) #symbol,
    static const char *const functions[] = { CU_NCCL_FUNCTIONS(NAME) "stuck" };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        for (unsigned call = 1; call <= 5; call += 4) { // test_link.c has all
            char fail[80];
            snprintf(fail, sizeof fail, "%s@%u=2", functions[i], call);
            expect_same(fail, false);
            if (call == 1)
                expect_same(fail, true);
        }
}

// The first call in an exchange that finds the device's context gone, and a group that waits for it.
static void a_device_that_is_lost_in_an_exchange_is_left_out(void **state)
{
    (void)state;
    static const char *const fails[] = { "cuStreamQuery=719", "cuStreamQuery@4=719", "stuck=1,cuStreamQuery@2=719",
                                         "stuck@3=1,cuStreamQuery@7=719", "cuMemcpyDtoDAsync=719" };
    for (size_t i = 0; i < sizeof fails / sizeof *fails; i++)
        expect_same(fails[i], false);
}

static void without_the_library_all_is_as_before(void **state)
{
    (void)state;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        alarm(SECONDS);
        setenv("LAVAFLOW_LIBNCCL", "/nonexistent.so", 1);
        trial *t = run(begin_wide(all, 2, false));
        _exit(t->ok && !strcmp(one_digest, t->result.digest) && !linked && unlinked == 1 ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(without_the_library_all_is_as_before, train_on_one),
        cmocka_unit_test(whatever_fails_of_nccl_changes_no_bit_and_hangs_nothing),
        cmocka_unit_test(a_device_that_is_lost_in_an_exchange_is_left_out),
        cmocka_unit_test(nccl_and_host_on_any_number_of_devices_give_equal_bits),
        cmocka_unit_test(shards_that_change_hands_change_no_bit),
        cmocka_unit_test(a_device_opened_twice_exchanges_through_the_host),
        cmocka_unit_test(lost_devices_leave_the_others_linked),
    };
    lf_log_to(on_wide_log, NULL);
    return run_on_device(argc, argv, tests, sizeof tests / sizeof *tests);
}
