// core/: known answers for the random numbers, the hash and sums along the tree; errors compose.
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/error.h"
#include "core/hash.h"
#include "core/random.h"
#include "core/tree.h"
#include "cpu/denormal.h"

// Known answers from the Random123 distribution (kat_vectors, philox4x32 10).
static void philox_gives_the_published_vectors(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } cases[] = {
        { { 0, 0, 0, 0 }, { 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { { ~0u, ~0u, ~0u, ~0u }, { ~0u, ~0u }, { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 },
          { 0xa4093822, 0x299f31d0 },
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t out[4];
        lf_philox(cases[i].counter, cases[i].key, out);
        assert_memory_equal(out, cases[i].out, sizeof out);
    }
}

static void an_order_holds_every_row_once_and_depends_on_seed_and_epoch(void **state)
{
    (void)state;
    static const uint64_t counts[] = { 1, 2, 3, 5, 64, 1000, 1797, 60000 };
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        uint64_t count = counts[c];
        unsigned char *seen = calloc(count, 1);
        lf_permutation a = lf_permutation_make(1, LF_STREAM_SHUFFLE, 0, count);
        lf_permutation b = lf_permutation_make(1, LF_STREAM_SHUFFLE, 1, count);
        lf_permutation d = lf_permutation_make(2, LF_STREAM_SHUFFLE, 0, count);
        uint64_t fixed = 0, same_epoch = 0, same_seed = 0;
        for (uint64_t i = 0; i < count; i++) {
            uint64_t row = lf_permutation_at(&a, i);
            assert_true(row < count);
            assert_false(seen[row]);
            seen[row] = 1;
            fixed += row == i;
            same_epoch += row == lf_permutation_at(&b, i);
            same_seed += row == lf_permutation_at(&d, i);
        }
        free(seen);
        if (count >= 1000) { // of a random permutation, about one element stays in place
            assert_true(fixed < 12);
            assert_true(same_epoch < 12);
            assert_true(same_seed < 12);
        }
    }
}

// A chi-square over where the first rows go: 16 equal bins of the order, 255 degrees of freedom.
static void an_order_spreads_rows_evenly(void **state)
{
    (void)state;
    enum { BINS = 16, COUNT = 4096 };
    double bins[BINS][BINS] = { { 0 } };
    for (uint32_t epoch = 0; epoch < 20; epoch++) {
        lf_permutation order = lf_permutation_make(7, LF_STREAM_SHUFFLE, epoch, COUNT);
        for (uint64_t i = 0; i < COUNT; i++)
            bins[i * BINS / COUNT][lf_permutation_at(&order, i) * BINS / COUNT]++;
    }
    double expected = 20.0 * COUNT / (BINS * BINS), chi = 0;
    for (int i = 0; i < BINS; i++)
        for (int j = 0; j < BINS; j++)
            chi += (bins[i][j] - expected) * (bins[i][j] - expected) / expected;
    assert_true(chi < 225 + 5 * sqrt(2 * 225)); // rows and columns have fixed sums: 15 * 15 degrees of freedom
}

static void uniform_and_normal_have_their_moments(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    double sum = 0, squares = 0, normal_sum = 0, normal_squares = 0;
    for (uint64_t i = 0; i < COUNT; i++) {
        double u = lf_uniform(3, LF_STREAM_INIT, 0, i), n = lf_normal(3, LF_STREAM_INIT, 0, i);
        assert_true(u >= 0 && u < 1 && isfinite(n));
        sum += u;
        squares += u * u;
        normal_sum += n;
        normal_squares += n * n;
    }
    assert_true(fabs(sum / COUNT - .5) < .005);
    assert_true(fabs(squares / COUNT - 1 / 3.) < .005);
    assert_true(fabs(normal_sum / COUNT) < .02);
    assert_true(fabs(normal_squares / COUNT - 1) < .02);
    assert_true(lf_uniform(3, LF_STREAM_INIT, 0, 5) != lf_uniform(3, LF_STREAM_INIT, 1, 5));
}

static void sha256_gives_the_published_digest(void **state)
{
    (void)state;
    lf_error err;
    char hex[65];
    lf_hash *hash = lf_hash_create(&err);
    assert_non_null(hash);
    for (int again = 0; again < 2; again++) {
        lf_hash_update(hash, "abc", 3);
        lf_hash_finish(hash, hex);
        assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
    lf_hash_destroy(hash);
}

static void errors_take_a_prefix_and_never_overflow(void **state)
{
    (void)state;
    lf_error err;
    lf_error_set(&err, LF_EDATA, "label %d at row %d", 11, 403);
    lf_error_prefix(&err, "%s:%s", "a.h5", "/train/y");
    assert_string_equal(err.text, "a.h5:/train/y: label 11 at row 403");
    assert_int_equal(err.code, LF_EDATA);
    char name[4000];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = 0;
    lf_error_prefix(&err, "%s", name);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    lf_error_set(NULL, LF_EIO, "nobody listens");
    lf_error_prefix(NULL, "nobody listens");
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static void a_sum_takes_what_is_below_the_normal_numbers_for_zero(void **state)
{
    (void)state;
    static const float below = FLT_MIN - FLT_TRUE_MIN;
    static const float cases[][3] = {
        { 1, 2, 3 },
        { 0, -0.f, 0 },
        { -0.f, -0.f, 0 },
        { FLT_TRUE_MIN, FLT_TRUE_MIN, 0 },
        { below, below, 0 }, // 2^-125 or so, if they counted
        { -below, FLT_MIN, FLT_MIN },
        { 1.5f * FLT_MIN, -FLT_MIN, 0 },
        { -1.5f * FLT_MIN, FLT_MIN, 0 },
        { 3 * FLT_MIN, -2 * FLT_MIN, FLT_MIN },
        { FLT_MAX, FLT_MAX, INFINITY },
        { -INFINITY, FLT_MAX, -INFINITY },
    };
    for (int flushes = 0; flushes < 2; flushes++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            float y = cases[i][0];
            uint64_t mode = flushes ? cpu_denormals_flush() : 0;
            lf_tree_add(&y, &cases[i][1], 1);
            if (flushes)
                cpu_denormals_restore(mode);
            assert_int_equal(bits_of(y), bits_of(cases[i][2]));
        }
    float y[2] = { INFINITY, 1 };
    lf_tree_add(y, (const float[2]){ -INFINITY, NAN }, 2);
    assert_true(isnan(y[0]) && isnan(y[1]));
}

enum { TREE_SHARDS = 64, TREE_N = 37 };

// Of every size, for which the order of additions shows; some of them cancel.
static void fill_shard(uint32_t shard, float *values)
{
    for (uint32_t i = 0; i < TREE_N; i++)
        values[i] = ldexpf(lf_normal(5, LF_STREAM_INIT, shard, i), (int)((shard * 7 + i) % 20) - 10);
}

// What a device makes of the shards that it has: a sum of two halves, down to single shards.
static void sum_shards(uint32_t first, uint32_t count, float *values)
{
    if (count == 1) {
        fill_shard(first, values);
        return;
    }
    float second[TREE_N];
    sum_shards(first, count / 2, values);
    sum_shards(first + count / 2, count / 2, second);
    lf_tree_add(values, second, TREE_N);
}

// Cuts shards into parts at random and returns their number.
static size_t cut_shards(uint32_t seed, uint32_t first, uint32_t count, lf_tree_part *parts, float values[][TREE_N])
{
    if (count == 1 || lf_uniform(seed, LF_STREAM_INIT, count, first) < .3f) {
        parts[0] = (lf_tree_part){ .first = first, .count = count, .values = values[0] };
        sum_shards(first, count, values[0]);
        return 1;
    }
    size_t left = cut_shards(seed, first, count / 2, parts, values);
    return left + cut_shards(seed, first + count / 2, count / 2, parts + left, values + left);
}

static void any_cut_of_the_shards_gives_one_sum(void **state)
{
    (void)state;
    static float values[TREE_SHARDS][TREE_N];
    for (uint32_t shards = 1; shards <= TREE_SHARDS; shards *= 2) {
        float want[TREE_N];
        size_t most = 0;
        sum_shards(0, shards, want);
        for (uint32_t seed = 0; seed < 50; seed++) {
            lf_tree_part parts[TREE_SHARDS];
            size_t count = cut_shards(seed, 0, shards, parts, values);
            most = count > most ? count : most;
            lf_tree_sum(parts, count, TREE_N);
            assert_memory_equal(values[0], want, sizeof want);
        }
        assert_true(most > shards / 4);
    }
}

// Else the law above would hold of any order.
static void the_tree_is_not_a_sum_from_left_to_right(void **state)
{
    (void)state;
    float tree[TREE_N], row[TREE_N], next[TREE_N];
    sum_shards(0, TREE_SHARDS, tree);
    fill_shard(0, row);
    for (uint32_t shard = 1; shard < TREE_SHARDS; shard++) {
        fill_shard(shard, next);
        lf_tree_add(row, next, TREE_N);
    }
    assert_memory_not_equal(tree, row, sizeof row);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_vectors),
        cmocka_unit_test(an_order_holds_every_row_once_and_depends_on_seed_and_epoch),
        cmocka_unit_test(an_order_spreads_rows_evenly),
        cmocka_unit_test(uniform_and_normal_have_their_moments),
        cmocka_unit_test(sha256_gives_the_published_digest),
        cmocka_unit_test(errors_take_a_prefix_and_never_overflow),
        cmocka_unit_test(a_sum_takes_what_is_below_the_normal_numbers_for_zero),
        cmocka_unit_test(any_cut_of_the_shards_gives_one_sum),
        cmocka_unit_test(the_tree_is_not_a_sum_from_left_to_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
