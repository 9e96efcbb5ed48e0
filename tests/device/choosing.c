// Which device a text means where one card is there through two backends. The backends here are made up: lists of rows.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "device/backend.h"

#define CARD  "11111111-2222-3333-4444-555555555555"
#define OTHER "99999999-2222-3333-4444-555555555555"

static unsigned cuda_lists;      // calls of its list
static const char *cuda_missing; // why its card cannot be used; NULL: it can
static lf_error err;

static size_t add_row(lf_device_info *infos, size_t at, const char *backend, const char *id, const char *uuid)
{
    lf_device_info *info = &infos[at];
    snprintf(info->id, sizeof info->id, "%s", id);
    snprintf(info->backend, sizeof info->backend, "%s", backend);
    snprintf(info->uuid, sizeof info->uuid, "%s", uuid);
    snprintf(info->name, sizeof info->name, "card %c", *uuid ? *uuid : '0');
    info->hardware_gpu = info->discrete = *uuid;
    return at + 1;
}

static size_t list_cuda(lf_device_info *infos, size_t capacity)
{
    (void)capacity;
    cuda_lists++;
    size_t count = add_row(infos, 0, "cuda", "cuda:0", CARD);
    snprintf(infos[0].unavailable, sizeof infos[0].unavailable, "%s", cuda_missing ? cuda_missing : "");
    return count;
}

static size_t list_vulkan(lf_device_info *infos, size_t capacity)
{
    (void)capacity;
    return add_row(infos, add_row(infos, 0, "vulkan", "vulkan:0", OTHER), "vulkan", "vulkan:1", CARD);
}

static size_t list_cpu(lf_device_info *infos, size_t capacity)
{
    (void)capacity;
    return add_row(infos, 0, "cpu", "cpu", "");
}

static lf_device *open_none(uint32_t index, unsigned share, lf_error *error)
{
    (void)index;
    (void)share;
    lf_error_set(error, LF_EDEVICE, "none of these can be opened");
    return NULL;
}

const lf_backend lf_backend_cuda = { .name = "cuda", .list = list_cuda, .open = open_none };
const lf_backend lf_backend_vulkan = { .name = "vulkan", .list = list_vulkan, .open = open_none };
const lf_backend lf_backend_cpu = { .name = "cpu", .list = list_cpu, .open = open_none };

static int begin(void **state)
{
    (void)state;
    setenv("LAVAFLOW_DEVICES", "", 1);
    cuda_missing = NULL;
    cuda_lists = 0;
    return 0;
}

static void assert_means(const char *spec, const char *id)
{
    lf_device_info info = { 0 };
    if (!lf_device_find(spec, &info, &err))
        fail_msg("%s: %s", spec, err.text);
    assert_string_equal(info.id, id);
}

static void auto_and_a_uuid_take_cuda_before_vulkan(void **state)
{
    (void)state;
    assert_means("auto", "cuda:0");
    assert_means(CARD, "cuda:0");
    assert_means("cuda:card", "cuda:0");
    assert_means("cuda:" CARD, "cuda:0");
    assert_means(OTHER, "vulkan:0");
}

static void a_prefix_takes_its_backend_and_asks_no_other(void **state)
{
    (void)state;
    assert_means("vulkan:" CARD, "vulkan:1");
    assert_means("vulkan:card 1", "vulkan:1");
    assert_means("vulkan:0", "vulkan:0");
    assert_means("cpu", "cpu");
    assert_int_equal(cuda_lists, 0);
}

static void a_card_that_cuda_cannot_use_is_taken_through_vulkan(void **state)
{
    (void)state;
    lf_device_info info;
    cuda_missing = "the driver is too old";
    assert_means("auto", "vulkan:0");
    assert_means(CARD, "vulkan:1");
    assert_false(lf_device_find("cuda:" CARD, &info, &err));
    assert_string_equal(err.text, "device \"cuda:" CARD "\": the driver is too old");
}

static void a_card_is_seen_through_both_or_through_the_one_that_is_listed(void **state)
{
    (void)state;
    lf_device_info infos[8];
    setenv("LAVAFLOW_DEVICES", CARD, 1);
    assert_int_equal(lf_device_list(infos, 8), 2);
    assert_means("auto", "cuda:0");
    setenv("LAVAFLOW_DEVICES", "vulkan:" CARD, 1);
    cuda_lists = 0;
    assert_int_equal(lf_device_list(infos, 8), 1);
    assert_means("auto", "vulkan:1");
    assert_int_equal(cuda_lists, 0);
    assert_false(lf_device_find("cuda:0", &infos[0], &err));
}

static void all_takes_each_card_once(void **state)
{
    (void)state;
    static const char *const all[] = { "all" };
    lf_device_info infos[8];
    assert_int_equal(lf_device_find_list(all, 1, infos, 8, &err), 2);
    assert_string_equal(infos[0].id, "cuda:0");
    assert_string_equal(infos[1].id, "vulkan:0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(auto_and_a_uuid_take_cuda_before_vulkan, begin),
        cmocka_unit_test_setup(a_prefix_takes_its_backend_and_asks_no_other, begin),
        cmocka_unit_test_setup(a_card_that_cuda_cannot_use_is_taken_through_vulkan, begin),
        cmocka_unit_test_setup(a_card_is_seen_through_both_or_through_the_one_that_is_listed, begin),
        cmocka_unit_test_setup(all_takes_each_card_once, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
