// Which devices a process sees and what a text means, with and without LAVAFLOW_DEVICES. Every machine has "cpu"; what
// needs another device is skipped, with the reason, where there is none.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dlfcn.h>

#include "device/device.h"

static lf_device_info infos[64], vulkan; // the first Vulkan device, if there is one
static lf_error err;

static void see(const char *list)
{
    setenv("LAVAFLOW_DEVICES", list, 1);
}

static bool has_library(const char *name)
{
    void *library = dlopen(name, RTLD_LAZY | RTLD_NOLOAD);
    if (library)
        dlclose(library);
    return library != NULL;
}

static bool has_loader(void)
{
    return has_library("libvulkan.so.1") || has_library("libcuda.so.1");
}

// First, since what is loaded stays.
static void the_cpu_loads_no_other_backend(void **state)
{
    (void)state;
    lf_device_info info;
    assert_false(has_loader());
    see("");
    assert_true(lf_device_find("cpu", &info, &err));
    assert_string_equal(info.id, "cpu");
    assert_true(info.units > 0);
    see("cpu");
    assert_int_equal(lf_device_list(infos, 64), 1);
    assert_string_equal(infos[0].id, "cpu");
    assert_true(lf_device_find("auto", &info, &err));
    lf_device *dev = lf_device_open("auto", &err);
    assert_string_equal(dev->info.id, "cpu");
    lf_device_close(dev);
    assert_false(lf_device_find("vulkan:0", &info, &err));
    assert_false(has_loader());
}

static void what_is_not_listed_is_refused_by_name(void **state)
{
    (void)state;
    see("cpu");
    assert_null(lf_device_open("vulkan:0", &err));
    assert_int_equal(err.code, LF_ENOTFOUND);
    assert_string_equal(err.text,
                        "device \"vulkan:0\": it is not to be used here; LAVAFLOW_DEVICES, \"cpu\", leaves cpu");
}

static void what_is_listed_and_not_there_is_said(void **state)
{
    (void)state;
    static const char *const entries[] = { "cpu:9", "01234567-89ab-cdef-0123-456789abcdef",
                                           "cpu:01234567-89ab-cdef-0123-456789abcdef" };
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        char text[256];
        see(entries[i]);
        assert_null(lf_device_open(entries[i], &err));
        snprintf(text, sizeof text,
                 "device \"%s\": this machine has none; LAVAFLOW_DEVICES, \"%s\", leaves none at all", entries[i],
                 entries[i]);
        if (i != 1) // where a UUID could be of Vulkan, that may say why it has no device
            assert_string_equal(err.text, text);
        assert_null(lf_device_open("auto", &err));
        assert_int_equal(err.code, LF_ENOTFOUND);
        assert_non_null(strstr(err.text, "LAVAFLOW_DEVICES"));
    }
}

static void what_is_listed_keeps_its_id(void **state)
{
    (void)state;
    if (!vulkan.id[0]) {
        printf("skipped: this machine has no Vulkan device\n");
        skip();
    }
    char with_prefix[64], both[160];
    snprintf(with_prefix, sizeof with_prefix, "vulkan:%s", vulkan.uuid);
    snprintf(both, sizeof both, " cpu, ,%s,vulkan:77", with_prefix);
    const char *const lists[] = { vulkan.id, vulkan.uuid, with_prefix };
    for (size_t i = 0; i < 3; i++) {
        lf_device_info info;
        see("");
        assert_true(lf_device_find(lists[i], &info, &err));
        assert_string_equal(info.id, vulkan.id);
        see(lists[i]);
        assert_int_equal(lf_device_list(infos, 64), 1);
        assert_string_equal(infos[0].id, vulkan.id);
        assert_true(lf_device_find("auto", &info, &err)); // the only one, software or not
        assert_string_equal(info.uuid, vulkan.uuid);
        assert_null(lf_device_open("cpu", &err));
        lf_device *dev = lf_device_open(lists[i], &err);
        assert_non_null(dev);
        lf_device_close(dev);
    }
    see(both);
    assert_int_equal(lf_device_list(infos, 64), 2);
    assert_null(lf_device_open("vulkan:77", &err));
    assert_non_null(strstr(err.text, "device \"vulkan:77\": this machine has none; LAVAFLOW_DEVICES"));
}

// The row of CUDA's absence, with such a driver library.
static void assert_cuda_says(const char *library, const char *why)
{
    setenv("LAVAFLOW_LIBCUDA", library, 1);
    see("cuda:0");
    assert_int_equal(lf_device_list(infos, 64), 1);
    assert_string_equal(infos[0].id, "cuda");
    if (!strncmp(infos[0].unavailable, "built without CUDA: ", 20)) {
        printf("skipped: %s\n", infos[0].unavailable);
        skip();
    }
    assert_non_null(strstr(infos[0].unavailable, why));
    assert_false(lf_device_find("cuda:0", &infos[1], &err));
    assert_non_null(strstr(err.text, why));
}

static void a_missing_or_wrong_cuda_driver_is_named(void **state)
{
    (void)state;
    assert_cuda_says("/nowhere/libcuda.so.1", "/nowhere/libcuda.so.1: cannot open");
    assert_cuda_says("libm.so.6", "libm.so.6: not a driver of CUDA 12 or later: it has no cuGetErrorName");
}

int main(void)
{
    const struct CMUnitTest first[] = { cmocka_unit_test(the_cpu_loads_no_other_backend),
                                        cmocka_unit_test(what_is_not_listed_is_refused_by_name),
                                        cmocka_unit_test(a_missing_or_wrong_cuda_driver_is_named) };
    const struct CMUnitTest others[] = { cmocka_unit_test(what_is_listed_and_not_there_is_said),
                                         cmocka_unit_test(what_is_listed_keeps_its_id) };
    int failures = cmocka_run_group_tests(first, NULL, NULL);
    unsetenv("LAVAFLOW_DEVICES");
    unsetenv("LAVAFLOW_LIBCUDA");
    size_t count = lf_device_list(infos, 64);
    for (size_t i = 0; i < count && !vulkan.id[0]; i++)
        if (!strcmp(infos[i].backend, "vulkan") && !infos[i].unavailable[0])
            vulkan = infos[i];
    return failures + cmocka_run_group_tests(others, NULL, NULL);
}
