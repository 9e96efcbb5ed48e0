// Trainings on CUDA devices of several processes, on the stand-in: ranks.sh starts them with a number of devices each,
// and with the digest and the loss that one process has on one device. Through NCCL or through the host, and whatever
// fails in one process alone, they have the same bits, and no process waits for ever. Without such a digest: says both.
#include <math.h>
#include <unistd.h>

#include "cuda/nccl.h"
#include "ranks/ranks.h"
#include "wide.h"

enum { DEVICES_MAX = 8, SECONDS = 200 };

static uint32_t rank, rank_count;
static unsigned each; // devices a process
static const char *own[DEVICES_MAX];
static const char *digest;
static double loss;

// The others would wait for one that fails.
static void must(bool holds, const char *what, const char *more)
{
    if (holds)
        return;
    fprintf(stderr, "process %u: %s: %s\n", rank, what, more);
    lf_ranks_abort(1);
}

// A training in which this process, if it is `which`, has the variable set.
static trial *run_with(uint32_t which, const char *name, const char *value, bool fast)
{
    trial *t = begin_wide(own, each, fast);
    if (rank == which)
        setenv(name, value, 1);
    run(t);
    unsetenv(name);
    if (!t->ok)
        must(false, value, t->err.text);
    return t;
}

// The first process tells it for all: so many links, and for each that is not there, why.
static void expect_told(unsigned links, const char *why, const char *what)
{
    if (rank == 0)
        must(linked == links && unlinked == (why ? 1 : 0) && (!why || strstr(unlinked_why, why)), what, unlinked_why);
    else
        must(!linked && !unlinked, what, "told by another process too");
}

static void expect_same(trial *t, const char *what)
{
    must(!strcmp(t->result.digest, digest), what, "other bits");
}

// Before any of them has opened it.
static void a_process_without_the_library_takes_all_to_the_host(void **state)
{
    (void)state;
    const char *library = getenv("LAVAFLOW_LIBNCCL");
    char kept[4096];
    snprintf(kept, sizeof kept, "%s", library);
    trial *t = run_with(1, "LAVAFLOW_LIBNCCL", "/nonexistent.so", false);
    setenv("LAVAFLOW_LIBNCCL", kept, 1);
    expect_same(t, "no library");
    expect_told(0, ": process 1: /nonexistent.so: ", "no library");
    end(t);
}

static void devices_of_all_processes_give_the_bits_of_one(void **state)
{
    (void)state;
    trial *t = run_with(0, "LAVAFLOW_FAULT", "", false);
    expect_same(t, "through NCCL");
    expect_told(1, NULL, "linked");
    end(t);
}

static void fast_sums_agree_within_rounding(void **state)
{
    (void)state;
    trial *t = run_with(0, "LAVAFLOW_FAULT", "", true), *again;
    expect_told(1, NULL, "linked, fast");
    must(fabs(t->losses[t->loss_count - 1] - loss) < 1e-4 * (1 + fabs(loss)), "fast", "not near");
    must(each * rank_count == 2 || strcmp(t->result.digest, digest), "fast", "the bits of exact sums");
    again = run_with(0, "LAVAFLOW_FAULT", "", true);
    must(!strcmp(t->result.digest, again->result.digest), "fast", "other bits again");
    end(t);
    end(again);
}

static void one_device_in_two_processes_is_not_linked(void **state)
{
    (void)state;
    const char *kept = own[0];
    own[0] = "cuda:0";
    trial *t = run_with(0, "LAVAFLOW_FAULT", "", false);
    own[0] = kept;
    expect_same(t, "one device in all");
    expect_told(0, "processes 0 and 1 have one device, ", "one device in all");
    end(t);
}

// The processes meet before each step, and keep their link.
static void shards_that_change_hands_change_no_bit(void **state)
{
    (void)state;
    setenv("LAVAFLOW_HAND_OUT", "2", 1);
    trial *t = begin_wide(own, each, false);
    t->params.even_shards = false;
    t->params.digest_every = 1;
    t->params.events.digest = NULL;
    run(t);
    unsetenv("LAVAFLOW_HAND_OUT");
    must(t->ok, "scattered", t->err.text);
    expect_same(t, "scattered");
    expect_told(1, NULL, "scattered"); // it stays, for its devices do
    end(t);
}

// Of every function, in one process alone, with one device a process of some of them; and a group of it that never
// ends.
static void whatever_fails_in_one_process_changes_no_bit_and_hangs_nothing(void **state)
{
    (void)state;
#define NAME(field, symbol, result, arguments) #symbol "=2",
    static const char *const fails[] = { CU_NCCL_FUNCTIONS(NAME) "stuck=1",
                                         "stuck@2=1",
                                         "stuck@3=1",
                                         "ncclGroupEnd@2=2",
                                         "ncclGroupEnd@3=2",
                                         "ncclGroupEnd@5=2",
                                         "ncclSend@9=2",
                                         "stuck=1,cuStreamQuery@2=719" };
    for (size_t i = 0; i<sizeof fails / sizeof *fails; i += each> 1 ? 1 : 5) {
        if (strchr(fails[i], ',') && each == 1) // its only device is lost
            continue;
        trial *t = run_with((uint32_t)i % 2, "LAVAFLOW_STAND_IN_FAIL", fails[i], false);
        expect_same(t, fails[i]);
        must(rank || linked + unlinked, fails[i], "not told");
        end(t);
    }
}

// One that others share a link with, between two sums, before and after what NCCL has made. In the next step, all meet
// again.
static void a_process_that_loses_a_device_takes_all_to_the_host(void **state)
{
    (void)state;
    static const char *const steps[] = { "step=1", "step=1.5", "step=1.6", "step=2.3", "step=2.5" };
    char fault[64];
    for (size_t i = 0; each > 1 && i < sizeof steps / sizeof *steps; i++) {
        const uint32_t which = (uint32_t)i % 2;
        snprintf(fault, sizeof fault, "cuda:%u@%s", (unsigned)(which * each + i % each), steps[i]);
        trial *t = begin_wide(own, each, false);
        t->params.digest_every = 1; // a step a run
        t->params.events.digest = NULL;
        if (rank == which)
            setenv("LAVAFLOW_FAULT", fault, 1);
        run(t);
        unsetenv("LAVAFLOW_FAULT");
        must(t->ok, fault, t->err.text);
        expect_same(t, fault);
        expect_told(steps[i][5] == '1' ? 2 : 1, NULL, fault);
        must(rank != which || t->result.devices[i % each].lost, fault, "not lost");
        end(t);
    }
}

static void say_alone(void **state)
{
    (void)state;
    trial *t = run_well(begin_wide(own, each, false));
    printf("%s %.9g\n", t->result.digest, t->losses[t->loss_count - 1]);
    end(t);
}

int main(int argc, char **argv)
{
    static char ids[DEVICES_MAX][16];
    static const struct CMUnitTest alone[] = { cmocka_unit_test(say_alone) };
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_process_without_the_library_takes_all_to_the_host),
        cmocka_unit_test(devices_of_all_processes_give_the_bits_of_one),
        cmocka_unit_test(fast_sums_agree_within_rounding),
        cmocka_unit_test(one_device_in_two_processes_is_not_linked),
        cmocka_unit_test(shards_that_change_hands_change_no_bit),
        cmocka_unit_test(whatever_fails_in_one_process_changes_no_bit_and_hangs_nothing),
        cmocka_unit_test(a_process_that_loses_a_device_takes_all_to_the_host),
    };
    lf_error err;
    if (argc < 3 || !lf_ranks_open(&rank, &rank_count, &err))
        return 1;
    each = (unsigned)atoi(argv[2]);
    for (unsigned i = 0; i < each && i < DEVICES_MAX; i++) {
        snprintf(ids[i], sizeof ids[i], "cuda:%u", rank * each + i);
        own[i] = ids[i];
    }
    alarm(SECONDS);
    lf_log_to(on_wide_log, NULL);
    if (argc < 5)
        return run_on_device(2, argv, alone, 1);
    digest = argv[3];
    loss = atof(argv[4]);
    int status = run_on_device(2, argv, tests, sizeof tests / sizeof *tests);
    lf_ranks_close();
    return status;
}
