// ranks/ in a process that nobody started together with others, or that believes so wrongly.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ranks/ranks.h"

static const char *const variables[] = { "OMPI_COMM_WORLD_SIZE", "PMI_SIZE",       "PMIX_RANK",
                                         "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS",   "SLURM_STEP_ID",
                                         "OMPI_COMM_WORLD_RANK", "LAVAFLOW_LIBMPI" };

static int forget_launchers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        unsetenv(variables[i]);
    return 0;
}

static bool mpi_is_loaded(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    assert_non_null(maps);
    char line[4096];
    bool found = false;
    while (fgets(line, sizeof line, maps))
        found |= strstr(line, "libmpi") || strstr(line, "libopen-pal") || strstr(line, "libpmix");
    fclose(maps);
    return found;
}

static void one_process_is_rank_0_of_1_and_loads_nothing(void **state)
{
    (void)state;
    uint32_t rank = 9, count = 9;
    lf_error err;
    assert_true(lf_ranks_open(&rank, &count, &err));
    assert_int_equal(rank, 0);
    assert_int_equal(count, 1);
    assert_true(lf_ranks_barrier(&err));
    int value = 5, all = 0;
    assert_true(lf_ranks_broadcast(&value, sizeof value, &err));
    assert_true(lf_ranks_gather(&value, sizeof value, &all, &err));
    bool met = false;
    int there = 0;
    assert_true(lf_ranks_meet(&value, sizeof value, &there, 0, &met, &err));
    assert_true(met);
    assert_int_equal(there, 5);
    assert_int_equal(value, 5);
    assert_int_equal(all, 5);
    float a[2] = { 1, 2 }, b[2] = { 10, 20 }, total[2];
    lf_ranks_part parts[] = { { 0, 1, a, 0 }, { 1, 1, b, 0 } };
    assert_true(lf_ranks_sum(parts, 2, total, 2, &err));
    assert_true(total[0] == 11 && total[1] == 22);
    assert_false(mpi_is_loaded());
}

static void a_launcher_is_known_by_its_environment(void **state)
{
    (void)state;
    static const struct {
        const char *set[6]; // name, value, …
        bool started;
    } cases[] = {
        { { NULL }, false },
        { { "OMPI_COMM_WORLD_SIZE", "2" }, true },
        { { "OMPI_COMM_WORLD_SIZE", "1" }, false },
        { { "PMI_SIZE", "3" }, true },
        { { "PMI_SIZE", "1" }, false },
        { { "PMIX_RANK", "0", "SLURM_STEP_NUM_TASKS", "2" }, true },
        { { "PMIX_RANK", "0", "SLURM_NTASKS", "2" }, true },
        // One task of a job that has several.
        { { "PMIX_RANK", "0", "SLURM_STEP_NUM_TASKS", "1", "SLURM_NTASKS", "4" }, false },
        // A batch script.
        { { "SLURM_NTASKS", "4", "SLURM_STEP_ID", "4294967291" }, false },
        { { "SLURM_NTASKS", "4" }, false },
        // mpirun -n 1 in a batch script.
        { { "OMPI_COMM_WORLD_SIZE", "1", "PMIX_RANK", "0", "SLURM_NTASKS", "4" }, false },
        { { "OMPI_COMM_WORLD_SIZE", "" }, false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        forget_launchers(NULL);
        for (const char *const *set = cases[i].set; set < cases[i].set + 6 && *set; set += 2)
            setenv(set[0], set[1], true);
        if (lf_ranks_started() != cases[i].started)
            print_error("case %zu\n", i);
        assert_int_equal(lf_ranks_started(), cases[i].started);
    }
}

static void a_launcher_tells_a_process_its_place(void **state)
{
    (void)state;
    uint32_t rank = 9, count = 9;
    forget_launchers(NULL);
    assert_false(lf_ranks_place(&rank, &count));
    assert_true(rank == 0 && count == 1);
    setenv("PMIX_RANK", "3", true);
    setenv("SLURM_NTASKS", "4", true);
    assert_true(lf_ranks_place(&rank, &count));
    assert_true(rank == 3 && count == 4);
    setenv("OMPI_COMM_WORLD_RANK", "1", true);
    setenv("OMPI_COMM_WORLD_SIZE", "2", true);
    assert_true(lf_ranks_place(&rank, &count));
    assert_true(rank == 1 && count == 2);
    setenv("OMPI_COMM_WORLD_SIZE", "1", true);
    assert_false(lf_ranks_place(&rank, &count));
    assert_true(rank == 0 && count == 1);
}

static void a_missing_library_is_named(void **state)
{
    (void)state;
    setenv("OMPI_COMM_WORLD_SIZE", "2", true);
    setenv("LAVAFLOW_LIBMPI", "/nonexistent/libmpi.so", true);
    uint32_t rank, count;
    lf_error err;
    assert_false(lf_ranks_open(&rank, &count, &err));
    assert_int_equal(err.code, LF_ENOTFOUND);
    assert_non_null(strstr(err.text, "LAVAFLOW_LIBMPI"));
    assert_non_null(strstr(err.text, "/nonexistent/libmpi.so"));
}

static void a_library_that_is_not_mpi_is_refused(void **state)
{
    (void)state;
    setenv("OMPI_COMM_WORLD_SIZE", "2", true);
    setenv("LAVAFLOW_LIBMPI", "libm.so.6", true);
    uint32_t rank, count;
    lf_error err;
    assert_false(lf_ranks_open(&rank, &count, &err));
    assert_int_equal(err.code, LF_EUNSUPPORTED);
    assert_non_null(strstr(err.text, "libm.so.6 has no MPI_Init_thread"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_process_is_rank_0_of_1_and_loads_nothing, forget_launchers, NULL),
        cmocka_unit_test_setup_teardown(a_launcher_is_known_by_its_environment, forget_launchers, NULL),
        cmocka_unit_test_setup_teardown(a_launcher_tells_a_process_its_place, forget_launchers, NULL),
        cmocka_unit_test_setup_teardown(a_missing_library_is_named, forget_launchers, NULL),
        cmocka_unit_test_setup_teardown(a_library_that_is_not_mpi_is_refused, forget_launchers, NULL),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lf_ranks_close();
    return failed;
}
