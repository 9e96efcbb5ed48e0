// The stand-in itself: that kernels run on it as on a device, and that it finds what is wrong with one.
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "launch.h"
#include "self.h"

enum { WORDS = 4096 };
static unsigned words[WORDS];
static char why[1024];

static bool run(const char *name, void (*kernel)(const struct lf_call), unsigned blocks, unsigned threads,
                bool cooperative)
{
    struct lf_call call = { .operand = { (uintptr_t)words }, .rows = 10 };
    host_launch launch = { .name = name,
                           .kernel = kernel,
                           .grid = { blocks, 1, 1 },
                           .block = { threads, 1, 1 },
                           .shared = threads * sizeof *words,
                           .cooperative = cooperative };
    return host_launch_run(&launch, &call, why, sizeof why);
}
#define RUN(kernel, blocks, threads)             run(#kernel, kernel, blocks, threads, false)
#define RUN_COOPERATIVE(kernel, blocks, threads) run(#kernel, kernel, blocks, threads, true)

static int clear(void **state)
{
    (void)state;
    memset(words, 0, sizeof words);
    return 0;
}

static void every_thread_runs_once(void **state)
{
    (void)state;
    struct lf_call call = { .operand = { (uintptr_t)words } };
    host_launch launch = {
        .name = "self_index", .kernel = self_index, .grid = { 2, 3, 2 }, .block = { 5, 4, 3 }, .shared = 0
    };
    assert_true(host_launch_run(&launch, &call, why, sizeof why));
    for (unsigned i = 0; i < 12 * 60; i++)
        assert_int_equal(words[i], i % 60 + 1000 * (i / 60));
}

static void a_barrier_parts_writes_from_reads(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 1000; i++)
        words[i] = i;
    assert_true(RUN(self_reverse, 4, 250));
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(words[i], i / 250 * 250 + 249 - i % 250);
}

static void shuffles_move_values_between_lanes(void **state)
{
    (void)state;
    assert_true(RUN(self_shuffle, 1, 96));
    for (unsigned i = 0; i < 64; i++) {
        unsigned start = i / 32 * 32;
        assert_int_equal(words[4 * i], 32 * start + 31 * 16);
        assert_int_equal(words[4 * i + 1], i % 32 == 31 ? i : i + 1);
        assert_int_equal(words[4 * i + 2], i % 8 == 0 ? i : i - 1);
        assert_int_equal(words[4 * i + 3], start + 3);
    }
}

static void blocks_of_a_cooperative_launch_wait_for_each_other(void **state)
{
    (void)state;
    assert_true(RUN_COOPERATIVE(self_grid_barrier, 16, 64));
    for (unsigned i = 1; i <= 16; i++)
        assert_int_equal(words[i], 55);
}

static void expect_failure(bool ran, const char *first, const char *second)
{
    assert_false(ran);
    if (!strstr(why, first) || !strstr(why, second))
        fail_msg("\"%s\" does not speak of \"%s\" and \"%s\"", why, first, second);
}

static void what_never_comes_is_told(void **state)
{
    (void)state;
    expect_failure(RUN(self_grid_barrier, 2, 64), "self_grid_barrier: block", "__nanosleep");
    clear(state);
    expect_failure(RUN(self_missed_barrier, 1, 64), "64 of 64 threads wait", "__syncthreads (self.cu:");
    clear(state);
    assert_true(RUN(self_grid_barrier, 1, 64)); // and is forgotten
}

static void threads_that_part_are_told(void **state)
{
    (void)state;
    expect_failure(RUN(self_two_barriers, 1, 32), "self_two_barriers", "different barriers");
    expect_failure(RUN(self_divergent_shuffle, 1, 32), "different calls", "__shfl_down_sync");
    expect_failure(RUN(self_missing_lane, 1, 32), "the value of lane 7", "lane 6");
}

static void another_order_shows_a_race(void **state)
{
    (void)state;
    static const char name[] = "LAVAFLOW_STAND_IN_ORDER";
    unsetenv(name);
    assert_true(RUN(self_race, 1, 64));
    assert_int_equal(words[64], 64);
    clear(state);
    setenv(name, "reverse", 1);
    assert_true(RUN(self_race, 1, 64));
    assert_int_equal(words[64], 1);
    clear(state);
    setenv(name, "shuffle:7", 1);
    assert_true(RUN(self_race, 1, 64));
    assert_int_not_equal(words[64], 64);
    a_barrier_parts_writes_from_reads(state);
    clear(state);
    blocks_of_a_cooperative_launch_wait_for_each_other(state);
    shuffles_move_values_between_lanes(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(every_thread_runs_once, clear),
        cmocka_unit_test_setup(a_barrier_parts_writes_from_reads, clear),
        cmocka_unit_test_setup(shuffles_move_values_between_lanes, clear),
        cmocka_unit_test_setup(blocks_of_a_cooperative_launch_wait_for_each_other, clear),
        cmocka_unit_test_setup(what_never_comes_is_told, clear),
        cmocka_unit_test_setup(threads_that_part_are_told, clear),
        cmocka_unit_test_setup(another_order_shows_a_race, clear),
    };
    return cmocka_run_group_tests_name("stand_in", tests, NULL, NULL);
}
