// Sums over linked devices, on the stand-in for the driver and for NCCL, beside those of the host.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/random.h"
#include "core/tree.h"
#include "cuda/nccl.h"
#include "device/device.h"

enum { DEVICES = 4, SHARDS = 8, MOST = 70001, BEFORE = 64 };

static lf_error err;
static lf_device *devices[DEVICES];
static lf_buffer *buffers[SHARDS]; // of part p, on whatever device has it
static float values[SHARDS][MOST], expected[SHARDS][MOST], got[MOST];

static int open_devices(void **state)
{
    (void)state;
    for (unsigned i = 0; i < DEVICES; i++) {
        char id[16];
        snprintf(id, sizeof id, "cuda:%u", i);
        devices[i] = lf_device_open(id, &err);
        if (!devices[i])
            fail_msg("%s", err.text);
    }
    return 0;
}

static int close_devices(void **state)
{
    (void)state;
    unsetenv("LAVAFLOW_STAND_IN_FAIL");
    for (unsigned i = 0; i < DEVICES; i++)
        lf_device_close(devices[i]);
    return 0;
}

// Large and small, so that every order has other bits; some that are flushed.
static void draw(uint32_t seed)
{
    for (uint32_t p = 0; p < SHARDS; p++)
        for (uint32_t i = 0; i < MOST; i++) {
            float value = lf_uniform(seed, LF_STREAM_SHUFFLE, p, i) - .5f;
            values[p][i] = i % 7 == 0 ? value * 1e-38f : i % 3 == 0 ? value * 1e6f : value;
        }
}

static void write_parts(const lf_link_part *parts, size_t count, size_t n)
{
    for (size_t p = 0; p < count; p++)
        if (!lf_device_buffer_write(devices[parts[p].device], parts[p].buffer, parts[p].offset, values[p],
                                    n * sizeof(float), &err) ||
            !lf_device_wait(devices[parts[p].device], &err))
            fail_msg("%s", err.text);
}

static void make_buffers(lf_link_part *parts, size_t count, size_t n)
{
    for (size_t p = 0; p < count; p++) {
        buffers[p] = lf_device_buffer_create(devices[parts[p].device], (BEFORE + n) * sizeof(float), &err);
        assert_non_null(buffers[p]);
        parts[p].buffer = buffers[p];
        parts[p].offset = BEFORE * sizeof(float);
    }
}

static void destroy_buffers(const lf_link_part *parts, size_t count)
{
    for (size_t p = 0; p < count; p++)
        lf_device_buffer_destroy(devices[parts[p].device], buffers[p]);
}

static const float *sum_on_host(const lf_link_part *parts, size_t count, size_t n)
{
    lf_tree_part tree[SHARDS] = { 0 };
    for (size_t p = 0; p < count; p++) {
        memcpy(expected[p], values[p], n * sizeof(float));
        tree[p] = (lf_tree_part){ parts[p].first, parts[p].count, expected[p] };
    }
    lf_tree_sum(tree, count, n);
    return expected[0];
}

static bool is_first_of_device(const lf_link_part *parts, size_t p)
{
    size_t i = 0;
    while (parts[i].device != parts[p].device)
        i++;
    return i == p;
}

static void assert_totals(const lf_link_part *parts, size_t count, size_t n, bool fast)
{
    const float *total = sum_on_host(parts, count, n);
    for (size_t p = 0; p < count; p++) {
        if (!is_first_of_device(parts, p))
            continue;
        if (!lf_device_buffer_read(devices[parts[p].device], got, parts[p].buffer, parts[p].offset, n * sizeof(float),
                                   &err))
            fail_msg("%s", err.text);
        for (size_t i = 0; i < n; i++)
            if (fast ? !(got[i] - total[i] < 1 && total[i] - got[i] < 1) : memcmp(&got[i], &total[i], sizeof *got))
                fail_msg("device %u, number %zu of %zu: %.9g, on the host %.9g", parts[p].device, i, n, (double)got[i],
                         (double)total[i]);
    }
}

// Who has which neighbourhood of eight shards.
static const struct {
    unsigned devices;
    size_t count;
    lf_link_part parts[SHARDS];
} hand_outs[] = {
    { 2, 2, { { 0, 0, 4, NULL, 0 }, { 1, 4, 4, NULL, 0 } } },
    { 2, 2, { { 1, 0, 4, NULL, 0 }, { 0, 4, 4, NULL, 0 } } },
    { 3,
      5,
      { { 0, 0, 2, NULL, 0 },
        { 0, 2, 1, NULL, 0 },
        { 1, 3, 1, NULL, 0 },
        { 1, 4, 2, NULL, 0 },
        { 2, 6, 2, NULL, 0 } } },
    { 4, 4, { { 0, 0, 2, NULL, 0 }, { 1, 2, 2, NULL, 0 }, { 2, 4, 2, NULL, 0 }, { 3, 6, 2, NULL, 0 } } },
    { 4,
      8,
      { { 2, 0, 1, NULL, 0 },
        { 0, 1, 1, NULL, 0 },
        { 3, 2, 1, NULL, 0 },
        { 0, 3, 1, NULL, 0 },
        { 1, 4, 1, NULL, 0 },
        { 2, 5, 1, NULL, 0 },
        { 3, 6, 1, NULL, 0 },
        { 2, 7, 1, NULL, 0 } } },
};
enum { HAND_OUTS = sizeof hand_outs / sizeof *hand_outs };

static void sum_all(bool fast)
{
    static const size_t sizes[] = { 1, 3, 4, 5, 17, 1000, MOST };
    for (size_t h = 0; h < HAND_OUTS; h++) {
        lf_link *link = lf_link_create(devices, hand_outs[h].devices, NULL, &err);
        if (!link)
            fail_msg("%s", err.text);
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            lf_link_part parts[SHARDS];
            memcpy(parts, hand_outs[h].parts, sizeof parts);
            make_buffers(parts, hand_outs[h].count, sizes[s]);
            for (unsigned round = 0; round < 2; round++) {
                draw((uint32_t)(s + 10 * round));
                write_parts(parts, hand_outs[h].count, sizes[s]);
                if (!lf_link_sum(link, parts, hand_outs[h].count, sizes[s], fast, &err))
                    fail_msg("%s", err.text);
                assert_totals(parts, hand_outs[h].count, sizes[s], fast);
            }
            destroy_buffers(parts, hand_outs[h].count);
        }
        lf_link_destroy(link);
    }
}

static void exact_sums_are_the_hosts_to_the_bit(void **state)
{
    (void)state;
    sum_all(false);
}

static void fast_sums_agree_within_rounding(void **state)
{
    (void)state;
    sum_all(true);
}

static void one_device_twice_is_not_linked(void **state)
{
    (void)state;
    lf_device *again = lf_device_open("cuda:1", &err), *cpu = lf_device_open("cpu", &err);
    lf_device *twice[] = { devices[0], devices[1], again }, *mixed[] = { devices[0], cpu };
    assert_true(again && cpu);
    assert_null(lf_link_create(twice, 3, NULL, &err));
    assert_int_equal(err.code, LF_EUNSUPPORTED);
    assert_string_equal(err.text, "NCCL: cuda:1 is there twice");
    assert_null(lf_link_create(mixed, 2, NULL, &err));
    assert_string_equal(err.text, "2 devices: nothing links them");
    assert_null(lf_link_create(devices, 1, NULL, &err));
    lf_device_close(again);
    lf_device_close(cpu);
}

// A link's life with that failure. True: none was met.
static bool whole_life(bool fast)
{
    enum { N = 1001, OUT = 2 };
    lf_link_part parts[SHARDS];
    memcpy(parts, hand_outs[OUT].parts, sizeof parts);
    make_buffers(parts, hand_outs[OUT].count, N);
    lf_link *link = lf_link_create(devices, hand_outs[OUT].devices, NULL, &err);
    bool ok = link;
    for (unsigned round = 0; ok && round < 2; round++) {
        write_parts(parts, hand_outs[OUT].count, N);
        ok = lf_link_sum(link, parts, hand_outs[OUT].count, N, fast, &err);
        if (ok)
            assert_totals(parts, hand_outs[OUT].count, N, fast);
        else
            assert_false(lf_link_sum(link, parts, hand_outs[OUT].count, N, fast, &err)); // nor ever again
    }
    lf_link_destroy(link);
    destroy_buffers(parts, hand_outs[OUT].count);
    return ok;
}

static void every_failure_is_told_and_hangs_nothing(void **state)
{
    (void)state;
#define NAME(field, symbol, result, arguments) #symbol,
    static const char *const functions[] = { CU_NCCL_FUNCTIONS(NAME) "stuck" };
    draw(3);
    for (int fast = 0; fast < 2; fast++)
        for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
            for (unsigned call = 1; call <= 9; call++) {
                char fail[80];
                snprintf(fail, sizeof fail, "%s@%u=2", functions[i], call);
                setenv("LAVAFLOW_STAND_IN_FAIL", fail, 1);
                err = (lf_error){ 0 };
                bool met = !whole_life(fast);
                unsetenv("LAVAFLOW_STAND_IN_FAIL");
                bool sums = strcmp(functions[i], "ncclGetErrorString") && strcmp(functions[i], "ncclCommDestroy") &&
                            strcmp(functions[i], "ncclCommAbort") && strcmp(functions[i], "ncclGetVersion");
                bool other = !strcmp(functions[i], fast ? "ncclSend" : "ncclAllReduce") ||
                             (fast && !strcmp(functions[i], "ncclRecv"));
                if (call == 1 && sums && !other && !met)
                    fail_msg("%s: not told", fail);
                if (met && strcmp(err.text, "NCCL: the link has failed before") && !strstr(err.text, "NCCL: nccl"))
                    fail_msg("%s: \"%s\"", fail, err.text);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(exact_sums_are_the_hosts_to_the_bit, open_devices, close_devices),
        cmocka_unit_test_setup_teardown(fast_sums_agree_within_rounding, open_devices, close_devices),
        cmocka_unit_test_setup_teardown(one_device_twice_is_not_linked, open_devices, close_devices),
        cmocka_unit_test_setup_teardown(every_failure_is_told_and_hangs_nothing, open_devices, close_devices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
