// ranks/, in each of several processes that mpirun has started.
//   test_ranks_together           all laws; every rank counts
//   test_ranks_together killed    rank 1 is killed in the middle of a sum
//   test_ranks_together aborts    rank 1 calls lf_ranks_abort(7) in the middle of a sum
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/random.h"
#include "core/tree.h"
#include "ranks/internal.h"

enum { SHARDS = 16, RANKS_MAX = 16 };

static uint32_t rank, count;

// A rank that goes on alone would leave the others waiting.
static void must(bool done, const lf_error *err)
{
    if (done)
        return;
    fprintf(stderr, "rank %u of %u: %s\n", rank, count, err->text);
    lf_ranks_abort(1);
}

// Fails on every rank if it is false on one.
static void assert_on_all(bool holds)
{
    bool all[RANKS_MAX];
    lf_error err;
    must(lf_ranks_gather(&holds, sizeof holds, all, &err), &err);
    for (uint32_t r = 0; r < count; r++) {
        if (!all[r])
            print_error("rank %u\n", r);
        assert_true(all[r]);
    }
}

static void a_meeting_waits_for_ranks_that_come_late(void **state)
{
    (void)state;
    uint32_t mine = rank + 7, all[RANKS_MAX] = { 0 };
    bool met = false;
    lf_error err;
    if (rank + 1 == count)
        usleep(200000);
    must(lf_ranks_meet(&mine, sizeof mine, all, 30, &met, &err), &err);
    bool right = met;
    for (uint32_t r = 0; r < count; r++)
        right = right && all[r] == r + 7;
    assert_on_all(right);
}

static void ranks_are_those_that_were_started(void **state)
{
    (void)state;
    const char *size = getenv("OMPI_COMM_WORLD_SIZE"), *own = getenv("OMPI_COMM_WORLD_RANK");
    assert_on_all(!size || (strtoul(size, NULL, 10) == count && strtoul(own, NULL, 10) == rank));
    assert_on_all(lf_ranks_started() == (count > 1));
    uint32_t again_rank, again_count;
    lf_error err;
    must(lf_ranks_open(&again_rank, &again_count, &err), &err);
    assert_on_all(again_rank == rank && again_count == count);
}

// While others are still busy.
static void a_vote_that_is_lost_is_heard_at_once(void **state)
{
    (void)state;
    lf_error err;
    bool all, lost = false;
    must(lf_ranks_vote_open(&err), &err);
    for (unsigned turns = 0; rank && !lost && turns < 30000; turns++) {
        lost = lf_ranks_vote_is_lost();
        usleep(1000);
    }
    must(lf_ranks_vote_close(rank != 0, &all, &err), &err);
    assert_on_all(!all && (lost || rank == 0));
}

static void votes_are_what_all_say(void **state)
{
    (void)state;
    lf_error err;
    for (uint32_t against = 0; against <= count; against++) {
        bool all;
        must(lf_ranks_vote_open(&err), &err);
        bool lost = rank < against ? false : lf_ranks_vote_is_lost();
        must(lf_ranks_vote_close(rank != against, &all, &err), &err);
        assert_on_all(all == (against == count) && (!lost || against < count));
    }
}

static void a_plain_sum_is_that_of_all_ranks(void **state)
{
    (void)state;
    static const size_t sizes[] = { 1, 1000, 300001 };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        float *mine = calloc(2 * sizes[i], sizeof *mine), *total = mine + sizes[i];
        lf_error err;
        assert_non_null(mine);
        for (size_t k = 0; k < sizes[i]; k++)
            mine[k] = (float)(k % 1000 + rank);
        must(lf_ranks_add(mine, total, sizes[i], &err), &err);
        bool right = true;
        for (size_t k = 0; k < sizes[i]; k++)
            right = right && total[k] == (float)(count * (k % 1000) + count * (count - 1) / 2);
        free(mine);
        assert_on_all(right);
    }
}

static void a_broadcast_brings_the_bytes_of_rank_0(void **state)
{
    (void)state;
    static const size_t sizes[] = { 0, 1, 1000, 3 << 20 };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *bytes = malloc(sizes[i] + 1);
        for (size_t k = 0; k <= sizes[i]; k++)
            bytes[k] = (unsigned char)(rank ? 0 : 7 * k + 1);
        lf_error err;
        must(lf_ranks_broadcast(bytes, sizes[i], &err), &err);
        bool right = true;
        for (size_t k = 0; k < sizes[i]; k++)
            right &= bytes[k] == (unsigned char)(7 * k + 1);
        right &= bytes[sizes[i]] == (unsigned char)(rank ? 0 : 7 * sizes[i] + 1);
        free(bytes);
        assert_on_all(right);
    }
}

static void a_gather_brings_the_bytes_of_all_in_their_order(void **state)
{
    (void)state;
    uint32_t mine[3] = { rank, rank * rank, ~rank }, all[RANKS_MAX][3];
    lf_error err;
    must(lf_ranks_gather(mine, sizeof mine, all, &err), &err);
    bool right = true;
    for (uint32_t r = 0; r < count; r++)
        right &= all[r][0] == r && all[r][1] == r * r && all[r][2] == ~r;
    assert_on_all(right);
}

// The last one to come sleeps; nobody is through before it.
static void a_barrier_waits_for_the_last(void **state)
{
    (void)state;
    lf_error err;
    must(lf_ranks_barrier(&err), &err);
    struct timeval start, end;
    gettimeofday(&start, NULL);
    if (rank == count - 1)
        usleep(300000);
    must(lf_ranks_barrier(&err), &err);
    gettimeofday(&end, NULL);
    assert_on_all((double)(end.tv_sec - start.tv_sec) + 1e-6 * (double)(end.tv_usec - start.tv_usec) > 0.2);
}

// Values of all magnitudes, so that another order of additions gives other bits; below the smallest normal one too.
static float value_of(uint32_t shard, size_t i)
{
    uint32_t mixed = ((uint32_t)i * 16 + shard) * 0x9e3779b9u;
    mixed = (mixed ^ mixed >> 16) * 0x85ebca6bu;
    mixed ^= mixed >> 13;
    uint32_t exponent = i % 5 ? 120 + mixed % 12 : mixed % 3;
    uint32_t bits = (mixed & 0x807fffffu) | exponent << 23;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// The sum over shards first … first + shards - 1. The caller frees it.
static float *sum_here(uint32_t first, uint32_t shards, size_t n)
{
    float *all = malloc((n * shards + 1) * sizeof *all);
    lf_tree_part parts[SHARDS];
    for (uint32_t s = 0; s < shards; s++) {
        parts[s] = (lf_tree_part){ first + s, 1, all + s * n };
        for (size_t i = 0; i < n; i++)
            all[s * n + i] = value_of(first + s, i);
    }
    lf_tree_sum(parts, shards, n);
    return realloc(all, (n + 1) * sizeof *all);
}

// A random cut of shards first … first + shards - 1 into parts, each for a random rank.
static size_t cut(lf_ranks_part *parts, uint32_t first, uint32_t shards, uint64_t seed)
{
    uint32_t random = (uint32_t)(lf_uniform(seed, LF_STREAM_INIT, first, shards) * 65536);
    if (shards > 1 && random % 4 != 3) {
        size_t left = cut(parts, first, shards / 2, seed);
        return left + cut(parts + left, first + shards / 2, shards / 2, seed);
    }
    parts[0] = (lf_ranks_part){ .first = first, .count = shards, .rank = (random >> 4) % count };
    return 1;
}

// Whether the total over the parts is `expected`; into one's own part, if there is one and `in_place`.
static bool sums_to(const float *expected, lf_ranks_part *parts, size_t part_count, size_t n, lf_sum_way way,
                    bool in_place)
{
    float *own = malloc((n + 1) * sizeof *own), *total = own;
    for (size_t i = 0; i < part_count; i++) {
        parts[i].values = parts[i].rank == rank ? sum_here(parts[i].first, parts[i].count, n) : NULL;
        if (in_place && parts[i].values)
            total = parts[i].values; // the last one
    }
    total[n] = 42;
    lf_error err;
    must(lf_ranks_sum_by(way, parts, part_count, total, n, &err), &err);
    bool right = !memcmp(total, expected, n * sizeof *total) && total[n] == 42;
    for (size_t i = 0; i < part_count; i++)
        free(parts[i].values);
    free(own);
    return right;
}

static void a_sum_over_ranks_has_the_bits_of_one_process(void **state)
{
    (void)state;
    static const struct {
        size_t n;
        unsigned trials;
    } cases[] = { { 0, 2 }, { 1, 20 }, { 7, 20 }, { 1000, 20 }, { 1000003, 3 } };
    static const lf_sum_way ways[] = { LF_SUM_BY_SIZE, LF_SUM_GATHERED, LF_SUM_SLICED };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        float *expected = sum_here(0, SHARDS, cases[c].n);
        for (unsigned trial = 0; trial < cases[c].trials; trial++)
            for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
                lf_ranks_part parts[SHARDS];
                size_t part_count = cut(parts, 0, SHARDS, trial);
                bool right = sums_to(expected, parts, part_count, cases[c].n, ways[w], trial % 2);
                if (!right)
                    print_error("n %zu, trial %u, way %d, %zu parts\n", cases[c].n, trial, (int)ways[w], part_count);
                assert_on_all(right);
            }
        free(expected);
    }
}

// Also where what it holds are no neighbours, and where one rank has everything.
static void a_rank_may_hold_nothing(void **state)
{
    (void)state;
    const size_t n = 5000;
    float *expected = sum_here(0, SHARDS, n);
    for (uint32_t holder = 0; holder < count; holder++)
        for (unsigned apart = 0; apart < 2; apart++) {
            lf_ranks_part parts[SHARDS];
            for (uint32_t s = 0; s < SHARDS; s++)
                parts[s] = (lf_ranks_part){ .first = s, .count = 1, .rank = apart && s % 3 ? 0 : holder };
            bool right = sums_to(expected, parts, SHARDS, n, LF_SUM_SLICED, false) &&
                         sums_to(expected, parts, SHARDS, n, LF_SUM_GATHERED, true);
            assert_on_all(right);
        }
    free(expected);
}

static void die(int signal)
{
    (void)signal;
    kill(getpid(), SIGKILL);
}

// Sums until the end, which rank 1 brings.
static _Noreturn void end_in_a_sum(bool killed)
{
    const size_t n = 1 << 22;
    float *values = calloc(n, sizeof *values);
    lf_error err;
    printf("pid %d\n", (int)getpid());
    fflush(stdout);
    must(lf_ranks_barrier(&err), &err);
    if (killed && rank == 1) {
        signal(SIGALRM, die);
        setitimer(ITIMER_REAL, &(struct itimerval){ .it_value = { .tv_usec = 300000 } }, NULL);
    }
    for (unsigned round = 0;; round++) {
        lf_ranks_part parts[SHARDS];
        for (uint32_t s = 0; s < SHARDS; s++)
            parts[s] = (lf_ranks_part){ s, 1, s % count == rank ? values : NULL, s % count };
        if (!killed && rank == 1 && round == 3)
            lf_ranks_abort(7);
        must(lf_ranks_sum(parts, SHARDS, values, n, &err), &err);
    }
}

int main(int argc, char **argv)
{
    lf_error err;
    must(lf_ranks_open(&rank, &count, &err), &err);
    if (argc > 1)
        end_in_a_sum(!strcmp(argv[1], "killed"));
    if (rank && !freopen("/dev/null", "w", stdout)) // all say the same
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_are_those_that_were_started),
        cmocka_unit_test(a_meeting_waits_for_ranks_that_come_late),
        cmocka_unit_test(a_vote_that_is_lost_is_heard_at_once),
        cmocka_unit_test(votes_are_what_all_say),
        cmocka_unit_test(a_plain_sum_is_that_of_all_ranks),
        cmocka_unit_test(a_broadcast_brings_the_bytes_of_rank_0),
        cmocka_unit_test(a_gather_brings_the_bytes_of_all_in_their_order),
        cmocka_unit_test(a_barrier_waits_for_the_last),
        cmocka_unit_test(a_sum_over_ranks_has_the_bits_of_one_process),
        cmocka_unit_test(a_rank_may_hold_nothing),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lf_ranks_close();
    return failed;
}
