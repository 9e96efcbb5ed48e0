// The cpu backend's threads, by themselves.
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "cpu/pool.h"

enum { BLOCKS = 1000 };

typedef struct tally {
    atomic_uint runs[BLOCKS];
    const uint32_t *before; // written by the caller before the run, without synchronisation of its own
    uint32_t after[BLOCKS];
} tally;

static void count_run(const void *context, uint32_t block)
{
    tally *counts = (tally *)(uintptr_t)context;
    atomic_fetch_add_explicit(&counts->runs[block], 1, memory_order_relaxed);
    counts->after[block] = *counts->before + block;
}

static void every_block_runs_once_and_sees_what_was_written(void **state)
{
    (void)state;
    static const uint32_t sizes[] = { 0, 1, 2, 3, 7, 64, BLOCKS };
    for (unsigned threads = 1; threads <= 9; threads += 2) {
        lf_error err;
        cpu_pool *pool = cpu_pool_create(threads, &err);
        assert_non_null(pool);
        for (uint32_t round = 0; round < 700; round++) {
            static tally counts;
            uint32_t value = round * 3, blocks = sizes[round % (sizeof sizes / sizeof *sizes)];
            counts = (tally){ .before = &value };
            cpu_pool_run(pool, count_run, &counts, blocks);
            for (uint32_t i = 0; i < BLOCKS; i++) {
                assert_int_equal(counts.runs[i], i < blocks);
                assert_int_equal(counts.after[i], i < blocks ? value + i : 0);
            }
            if (round % 100 == 99)
                usleep(3000); // the workers fall asleep
        }
        cpu_pool_destroy(pool);
    }
    cpu_pool_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(every_block_runs_once_and_sees_what_was_written) };
    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
