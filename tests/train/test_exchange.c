// What several devices stand on: sums of parts that members give and take, and who works on how many shards.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "train/exchange.h"
#include "train/hand_out.h"

enum { SIZE = 5, MEMBERS = 3 };
// Four shards: the second member has two of them.
static const lf_member_part parts[MEMBERS] = { { 0, 1, 0 }, { 1, 1, 1 }, { 2, 2, 2 } };
static const size_t sizes[] = { SIZE, SIZE };

static lf_exchanger *create(void)
{
    static const uint32_t shares[] = { 4 };
    lf_error err;
    lf_exchanger *x = lf_exchanger_create(
        &(lf_exchanger_params){ .sum_count = 2, .sizes = sizes, .shares = shares, .process_count = 1 }, &err);
    if (!x || !lf_exchanger_plan(x, MEMBERS, parts, MEMBERS, 0, &err))
        fail_msg("%s", err.text);
    return x;
}

// False: the member need not, or may not, give it.
static bool give(lf_exchanger *x, size_t sum, unsigned member, uint64_t step)
{
    bool stopped;
    float *values = lf_exchanger_part(x, sum, parts[member].first, step, &stopped);
    if (!values)
        return false;
    for (unsigned i = 0; i < SIZE; i++)
        values[i] = (float)(100 * step + 10 * sum + member) + (float)i;
    lf_exchanger_give(x, sum, member);
    return true;
}

static void expect_total(lf_exchanger *x, size_t sum, uint64_t step)
{
    const float *total = lf_exchanger_total(x, sum, step);
    assert_non_null(total);
    for (unsigned i = 0; i < SIZE; i++)
        assert_true(total[i] == (float)(MEMBERS * (100 * step + 10 * sum + i) + 0 + 1 + 2));
}

static void totals_come_step_after_step(void **state)
{
    (void)state;
    lf_exchanger *x = create();
    for (uint64_t step = 0; step < 50; step++)
        for (size_t sum = 0; sum < 2; sum++) {
            for (unsigned member = 0; member < MEMBERS; member++)
                assert_true(give(x, sum, (member + (unsigned)step) % MEMBERS, step));
            for (unsigned member = 0; member < MEMBERS; member++) {
                expect_total(x, sum, step);
                lf_exchanger_take(x, sum);
            }
        }
    lf_exchanger_destroy(x);
}

// One member has given up the step already: no other may finish it.
static void a_part_that_comes_after_the_stop_completes_nothing(void **state)
{
    (void)state;
    lf_error err;
    lf_exchanger *x = create();
    assert_true(give(x, 0, 0, 0) && give(x, 0, 1, 0));
    lf_exchanger_stop(x);
    assert_null(lf_exchanger_total(x, 0, 0));
    assert_true(give(x, 0, 2, 0));
    assert_true(lf_exchanger_settle(x, &err));
    assert_null(lf_exchanger_total(x, 0, 0));
    lf_exchanger_destroy(x);
}

// What is complete when a member fails can be taken, and stays when the step is done again by the others.
static void a_complete_sum_outlives_the_member_that_gave_to_it(void **state)
{
    (void)state;
    static const lf_member_part left[] = { { 0, 2, 0 }, { 2, 2, 2 } };
    lf_error err;
    bool stopped;
    lf_exchanger *x = create();
    for (unsigned member = 0; member < MEMBERS; member++)
        assert_true(give(x, 0, member, 0));
    expect_total(x, 0, 0);
    lf_exchanger_take(x, 0); // one takes it and goes on; one fails; one takes it after the stop
    lf_exchanger_stop(x);
    expect_total(x, 0, 0);
    lf_exchanger_take(x, 0);
    assert_null(lf_exchanger_total(x, 1, 0));
    assert_true(lf_exchanger_settle(x, &err));
    assert_true(lf_exchanger_plan(x, 2, left, 2, 0, &err));
    assert_null(lf_exchanger_part(x, 0, 0, 0, &stopped));
    assert_false(stopped); // it need not be given again
    expect_total(x, 0, 0);
    lf_exchanger_take(x, 0);
    expect_total(x, 0, 0);
    lf_exchanger_take(x, 0);
    assert_non_null(lf_exchanger_part(x, 1, 2, 0, &stopped)); // but this must
    lf_exchanger_destroy(x);
}

// Numbers whose sum tells the order in which they were added.
static void a_fast_sum_adds_each_members_parts_first_and_the_members_in_order(void **state)
{
    (void)state;
    static const lf_member_part apart[] = { { 0, 1, 4 }, { 1, 1, 2 }, { 2, 1, 4 }, { 3, 1, 2 } };
    static const float values[] = { 1e8f, 1e8f, -1e8f, -1e8f };
    static const uint32_t shares[] = { 4 };
    for (int fast = 0; fast < 2; fast++) {
        lf_error err;
        bool stopped;
        lf_exchanger *x = lf_exchanger_create(
            &(lf_exchanger_params){
                .sum_count = 1, .sizes = sizes, .shares = shares, .process_count = 1, .fast = fast },
            &err);
        assert_true(x && lf_exchanger_plan(x, 2, apart, 4, 0, &err));
        for (unsigned member = 2; member <= 4; member += 2) {
            for (unsigned i = 0; i < 4; i++)
                for (unsigned k = 0; apart[i].member == member && k < SIZE; k++)
                    lf_exchanger_part(x, 0, apart[i].first, 0, &stopped)[k] = values[i] + (i == 0 ? 8.f * (float)k : 0);
            lf_exchanger_give(x, 0, member);
        }
        const float *total = lf_exchanger_total(x, 0, 0);
        assert_non_null(total);
        for (unsigned k = 0; k < SIZE; k++) {
            const float first = values[0] + 8.f * (float)k;
            assert_true(total[k] == (fast ? (first + values[2]) + (values[1] + values[3])
                                          : (first + values[1]) + (values[2] + values[3])));
        }
        assert_int_equal(total[1] == 8, fast); // so the two differ
        lf_exchanger_destroy(x);
    }
}

static void shards_go_by_speed_and_everyone_has_one(void **state)
{
    (void)state;
    static const double seconds[] = { 1, 3, 100 };
    uint32_t counts[3];
    lf_hand_out(32, seconds, 3, counts);
    assert_int_equal(counts[0] + counts[1] + counts[2], 32);
    assert_int_equal(counts[2], 1);
    assert_true(counts[0] >= 22 && counts[1] >= 7);
    // No other division is done sooner.
    for (uint32_t a = 1; a < 31; a++)
        for (uint32_t b = 1; a + b < 32; b++) {
            const uint32_t other[] = { a, b, 32 - a - b };
            assert_true(lf_hand_out_seconds(seconds, 3, counts) <= lf_hand_out_seconds(seconds, 3, other));
        }
    lf_hand_out(3, seconds, 3, counts);
    assert_true(counts[0] == 1 && counts[1] == 1 && counts[2] == 1);
}

static void a_random_hand_out_leaves_nobody_out(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 100; seed++) {
        unsigned owners[16], has[7] = { 0 };
        lf_hand_out_scatter(16, 7, seed, owners);
        for (unsigned i = 0; i < 16; i++) {
            assert_true(owners[i] < 7);
            has[owners[i]]++;
        }
        for (unsigned k = 0; k < 7; k++)
            assert_true(has[k] > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(totals_come_step_after_step),
        cmocka_unit_test(a_part_that_comes_after_the_stop_completes_nothing),
        cmocka_unit_test(a_complete_sum_outlives_the_member_that_gave_to_it),
        cmocka_unit_test(a_fast_sum_adds_each_members_parts_first_and_the_members_in_order),
        cmocka_unit_test(shards_go_by_speed_and_everyone_has_one),
        cmocka_unit_test(a_random_hand_out_leaves_nobody_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
