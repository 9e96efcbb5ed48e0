// Sums that devices make among themselves, beside those of the host: what is linked, what a failure leaves, and what is
// made again. The devices are not there; their backend notes what it is asked for.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "train/exchange.h"

enum { SMALL = 8, LARGE = 70000, DEVICES = 3, SUMS = 3 };

static unsigned links, links_made, sums_made, reads;
static bool refuses, fails;

static lf_link *link_create(lf_device *const devs[], unsigned count, const lf_link_group *group, lf_error *err)
{
    (void)devs;
    assert_null(group);
    static lf_link link;
    if (refuses) {
        lf_error_set(err, LF_EUNSUPPORTED, "none for %u", count);
        return NULL;
    }
    links++;
    links_made++;
    return &link;
}

static void link_destroy(lf_link *link)
{
    (void)link;
    links--;
}

static bool link_sum(lf_link *link, const lf_link_part *parts, size_t part_count, size_t n, bool fast, lf_error *err)
{
    (void)link;
    (void)fast;
    assert_int_equal(n, LARGE);
    for (size_t i = 1; i < part_count; i++)
        assert_true(parts[i - 1].first < parts[i].first);
    sums_made++;
    if (fails)
        lf_error_set(err, LF_EDEVICE, "asked to fail");
    return !fails;
}

// What stands on a device that has its own say.
static bool buffer_read(lf_device *dev, void *dst, const lf_buffer *src, size_t offset, size_t size, lf_error *err)
{
    (void)src;
    (void)offset;
    reads++;
    if (dev->opened) {
        lf_error_set(err, LF_EDEVICE, "asked to fail");
        return false;
    }
    for (size_t i = 0; i < size / sizeof(float); i++)
        ((float *)dst)[i] = 7;
    return true;
}

static const lf_device_impl impl = {
    .link_create = link_create, .link_destroy = link_destroy, .link_sum = link_sum, .buffer_read = buffer_read
};
static lf_device devices[DEVICES];
static lf_replica replicas[DEVICES];
static lf_program programs[DEVICES];
static lf_buffer buffer = { .size = 2 * LARGE * sizeof(float) };
// Device i has shard i, and the last one shards 2 and 3. A small sum, a large one, and another small one.
static const lf_member_part parts[DEVICES] = { { 0, 1, 0 }, { 1, 1, 1 }, { 2, 2, 2 } };
static lf_tensor tensors[SUMS] = { { .type = LF_F32, .rows = 1, .cols = SMALL },
                                   { .type = LF_F32, .rows = 1, .cols = LARGE },
                                   { .type = LF_F32, .rows = 1, .cols = SMALL } };
static lf_exchange_part exchanged[DEVICES][SUMS];
static lf_exchange exchanges[DEVICES][SUMS];

static int reset(void **state)
{
    (void)state;
    links = links_made = sums_made = reads = 0;
    refuses = fails = false;
    for (unsigned i = 0; i < DEVICES; i++) {
        devices[i] = (lf_device){ .impl = &impl };
        programs[i] = (lf_program){
            .real = LF_F32, .tensors = tensors, .tensor_count = SUMS, .exchanges = exchanges[i], .exchange_count = SUMS
        };
        replicas[i] = (lf_replica){ .device = &devices[i], .program = &programs[i] };
        replicas[i].regions.region[tensors[0].region] = &buffer;
        for (int s = 0; s < SUMS; s++) {
            exchanged[i][s] = (lf_exchange_part){ .tensor = s, .first = parts[i].first, .count = parts[i].count };
            exchanges[i][s] = (lf_exchange){ .total = s, .parts = &exchanged[i][s], .part_count = 1 };
        }
    }
    return 0;
}

static lf_exchanger *create(void)
{
    static const size_t sizes[] = { SMALL, LARGE, SMALL };
    static const uint32_t shares[] = { 4 };
    lf_error err;
    lf_exchanger *x = lf_exchanger_create(
        &(lf_exchanger_params){ .sum_count = SUMS, .sizes = sizes, .shares = shares, .process_count = 1 }, &err);
    assert_true(x && lf_exchanger_plan(x, DEVICES, parts, DEVICES, 0, &err));
    lf_exchanger_link(x, replicas, DEVICES);
    return x;
}

// All members, or but the last.
static void give(lf_exchanger *x, size_t sum, uint64_t step, unsigned members)
{
    for (unsigned m = 0; m < members; m++) {
        bool stopped;
        float *values = lf_exchanger_part(x, sum, parts[m].first, step, &stopped);
        assert_non_null(values);
        if (!lf_exchanger_is_linked(x, sum))
            memset(values, 0, SMALL * sizeof *values);
        lf_exchanger_give(x, sum, m);
    }
}

static void take(lf_exchanger *x, size_t sum, uint64_t step)
{
    for (unsigned m = 0; m < DEVICES; m++) {
        assert_non_null(lf_exchanger_total(x, sum, step));
        lf_exchanger_take(x, sum);
    }
}

static bool plan_again(lf_exchanger *x, uint64_t steps)
{
    lf_error err;
    assert_true(lf_exchanger_settle(x, &err));
    assert_true(lf_exchanger_keep(x, replicas, DEVICES, steps, &err));
    assert_true(lf_exchanger_plan(x, DEVICES, parts, DEVICES, steps, &err));
    lf_exchanger_link(x, replicas, DEVICES);
    return lf_exchanger_is_linked(x, 1);
}

static void large_sums_alone_are_linked_and_the_link_stays_while_its_devices_do(void **state)
{
    (void)state;
    lf_exchanger *x = create();
    for (uint64_t step = 0; step < 5; step++) {
        for (size_t sum = 0; sum < SUMS; sum++) {
            assert_int_equal(lf_exchanger_is_linked(x, sum), sum == 1);
            give(x, sum, step, DEVICES);
            take(x, sum, step);
        }
        assert_true(plan_again(x, step + 1));
    }
    assert_int_equal(sums_made, 5);
    assert_int_equal(links_made, 1);
    lf_exchanger_destroy(x);
    assert_int_equal(links, 0);
}

// What came of the step so far is not made again, for other processes have it already.
static void a_step_that_is_done_again_takes_linked_totals_from_a_device(void **state)
{
    (void)state;
    lf_exchanger *x = create();
    bool stopped;
    give(x, 0, 0, DEVICES);
    take(x, 0, 0);
    give(x, 1, 0, DEVICES);
    take(x, 1, 0);
    give(x, 2, 0, DEVICES - 1);
    lf_exchanger_stop(x);
    assert_null(lf_exchanger_total(x, 2, 0));
    replicas[0].lost = true; // it is not asked
    devices[1].opened = 1;   // it fails, and the next one is asked
    assert_false(plan_again(x, 0));
    assert_int_equal(reads, 2);
    for (size_t sum = 0; sum < 2; sum++) {
        assert_null(lf_exchanger_part(x, sum, 0, 0, &stopped)); // it is there
        assert_true(!stopped && !lf_exchanger_is_linked(x, sum));
        assert_true(sum == 0 || lf_exchanger_total(x, sum, 0)[LARGE - 1] == 7);
        take(x, sum, 0);
    }
    give(x, 2, 0, DEVICES);
    take(x, 2, 0);
    assert_int_equal(sums_made, 1);
    assert_true(lf_exchanger_is_linked(x, 1)); // from the next step on
    lf_exchanger_destroy(x);
}

static void totals_that_no_device_gives_are_an_error(void **state)
{
    (void)state;
    lf_error err;
    lf_exchanger *x = create();
    give(x, 0, 0, DEVICES);
    take(x, 0, 0);
    give(x, 1, 0, DEVICES);
    take(x, 1, 0);
    lf_exchanger_stop(x);
    assert_true(lf_exchanger_settle(x, &err));
    for (unsigned i = 0; i < DEVICES; i++)
        devices[i].opened = 1;
    assert_false(lf_exchanger_keep(x, replicas, DEVICES, 0, &err));
    assert_int_equal(err.code, LF_EDEVICE);
    assert_true(lf_exchanger_keep(x, replicas, DEVICES, 1, &err)); // the step is done
    lf_exchanger_destroy(x);
}

static void a_link_that_fails_stops_the_members_and_the_host_goes_on(void **state)
{
    (void)state;
    lf_exchanger *x = create();
    give(x, 0, 0, DEVICES);
    take(x, 0, 0);
    fails = true;
    give(x, 1, 0, DEVICES);
    assert_null(lf_exchanger_total(x, 1, 0));
    assert_false(plan_again(x, 0));
    assert_int_equal(links, 0);
    take(x, 0, 0);
    give(x, 1, 0, DEVICES);
    take(x, 1, 0);
    assert_int_equal(sums_made, 1);
    lf_exchanger_destroy(x);
    assert_int_equal(links_made, 1);
}

static void fewer_devices_are_linked_anew(void **state)
{
    (void)state;
    static const lf_member_part left[] = { { 0, 1, 0 }, { 1, 1, 0 }, { 2, 2, 2 } };
    lf_error err;
    refuses = true;
    lf_exchanger *x = create();
    assert_false(lf_exchanger_is_linked(x, 1));
    refuses = false;
    assert_false(plan_again(x, 0)); // as many as were refused
    replicas[1].lost = true;
    assert_true(lf_exchanger_plan(x, 2, left, 3, 0, &err));
    lf_exchanger_link(x, replicas, DEVICES);
    assert_true(lf_exchanger_is_linked(x, 1));
    assert_int_equal(links_made, 1);
    replicas[2].lost = true; // one device has nobody to exchange with
    assert_true(lf_exchanger_plan(x, 1, left, 1, 0, &err));
    lf_exchanger_link(x, replicas, DEVICES);
    assert_false(lf_exchanger_is_linked(x, 1));
    lf_exchanger_destroy(x);
    assert_int_equal(links, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(large_sums_alone_are_linked_and_the_link_stays_while_its_devices_do, reset),
        cmocka_unit_test_setup(a_step_that_is_done_again_takes_linked_totals_from_a_device, reset),
        cmocka_unit_test_setup(totals_that_no_device_gives_are_an_error, reset),
        cmocka_unit_test_setup(a_link_that_fails_stops_the_members_and_the_host_goes_on, reset),
        cmocka_unit_test_setup(fewer_devices_are_linked_anew, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
