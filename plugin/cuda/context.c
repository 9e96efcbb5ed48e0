// The list of CUDA devices, opening and closing one.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/library.h"

// ---- entering and failing

bool cu_enter(cu_device *dev, lf_error *err)
{
    if (dev->failure.code) {
        lf_error_set(err, dev->failure.code, "%s", dev->failure.text);
        return false;
    }
    CUresult result = cu.CtxSetCurrent(dev->context);
    return result == CUDA_SUCCESS || cu_fail(dev, err, result, "the device cannot be used");
}

bool cu_fail(cu_device *dev, lf_error *err, CUresult result, const char *format, ...)
{
    char text[400];
    lf_error failure;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    cu_error(&failure, result, "%s: %s", dev->base.info.name, text);
    lf_error_set(err, failure.code, "%s", failure.text);
    if (failure.code != LF_ENOMEM && !dev->failure.code)
        dev->failure = failure;
    return false;
}

// ---- the list

static void format_uuid(char text[37], const CUuuid *uuid)
{
    char *at = text;
    for (unsigned i = 0; i < sizeof uuid->bytes; i++)
        at += sprintf(at, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", (unsigned char)uuid->bytes[i]);
}

// "550.54.14 (CUDA 12.4), cuBLASLt 12.4.5", all of which bits depend on. The driver interface tells its CUDA version
// alone; the kernel module tells the release.
static void format_driver(char *text, size_t size, int version)
{
    char line[256] = "", release[32] = "";
    FILE *file = fopen("/proc/driver/nvidia/version", "r");
    bool read = file && fgets(line, sizeof line, file);
    if (file)
        fclose(file);
    for (char *rest = NULL, *word = read ? strtok_r(line, " \t\n", &rest) : NULL; word && !*release;
         word = strtok_r(NULL, " \t\n", &rest))
        if (strchr(word, '.') && strspn(word, "0123456789.") == strlen(word))
            snprintf(release, sizeof release, "%s", word);
    snprintf(text, size, "%s%sCUDA %d.%d%s, %s", release, *release ? " (" : "", version / 1000, version % 1000 / 10,
             *release ? ")" : "", cu_library_version());
}

static bool describe(CUdevice device, uint32_t index, lf_device_info *info)
{
    int major = 0, minor = 0, integrated = 0, version = 0;
    size_t memory = 0;
    CUuuid uuid;
    snprintf(info->id, sizeof info->id, "cuda:%u", index);
    snprintf(info->backend, sizeof info->backend, "cuda");
    snprintf(info->driver_name, sizeof info->driver_name, "NVIDIA");
    CUresult result = cu.DeviceGetName(info->name, sizeof info->name, device);
    if (result == CUDA_SUCCESS)
        result = cu.DeviceGetUuid(&uuid, device);
    if (result == CUDA_SUCCESS)
        result = cu.DeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device);
    if (result == CUDA_SUCCESS)
        result = cu.DeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device);
    if (result == CUDA_SUCCESS)
        result = cu.DeviceGetAttribute(&integrated, CU_DEVICE_ATTRIBUTE_INTEGRATED, device);
    if (result == CUDA_SUCCESS)
        result = cu.DeviceTotalMem(&memory, device);
    if (result == CUDA_SUCCESS)
        result = cu.DriverGetVersion(&version);
    if (result != CUDA_SUCCESS) {
        lf_error err;
        cu_error(&err, result, "the driver does not describe it");
        snprintf(info->unavailable, sizeof info->unavailable, "%.*s", (int)sizeof info->unavailable - 1, err.text);
        return false;
    }
    format_uuid(info->uuid, &uuid);
    format_driver(info->driver_version, sizeof info->driver_version, version);
    snprintf(info->api_version, sizeof info->api_version, "%d.%d", major, minor);
    cu_kernels_digest(info->kernels);
    info->hardware_gpu = true;
    info->discrete = !integrated;
    info->memory = info->max_tensor = memory;
    cu_kernels_check(major * 10 + minor, version, info->unavailable, sizeof info->unavailable);
    return !info->unavailable[0];
}

static size_t set_unavailable(lf_device_info *infos, size_t capacity, const char *why)
{
    if (!capacity)
        return 0;
    infos[0] = (lf_device_info){ .id = "cuda", .backend = "cuda" };
    snprintf(infos[0].unavailable, sizeof infos[0].unavailable, "%.*s", (int)sizeof infos[0].unavailable - 1, why);
    return 1;
}

// The device of that index. False: the driver does not give it.
static bool find_device(uint32_t index, CUdevice *device, lf_error *err)
{
    CUresult result = cu.DeviceGet(device, (int)index);
    return result == CUDA_SUCCESS || cu_error(err, result, "cuda:%u", index);
}

static bool count_devices(uint32_t *count, lf_error *err)
{
    int found = 0;
    if (!cu_driver_load(err))
        return false;
    CUresult result = cu.DeviceGetCount(&found);
    *count = (uint32_t)found;
    return result == CUDA_SUCCESS || cu_error(err, result, "cannot list CUDA devices");
}

static size_t list(lf_device_info *infos, size_t capacity)
{
    lf_error err;
    uint32_t count;
    if (!count_devices(&count, &err))
        return set_unavailable(infos, capacity, err.text);
    if (!count)
        return set_unavailable(infos, capacity, "the driver finds no CUDA device");
    if (count > capacity)
        count = (uint32_t)capacity;
    for (uint32_t i = 0; i < count; i++) {
        CUdevice device;
        infos[i] = (lf_device_info){ 0 };
        if (find_device(i, &device, &err)) {
            describe(device, i, &infos[i]);
        } else {
            set_unavailable(&infos[i], 1, err.text);
            snprintf(infos[i].id, sizeof infos[i].id, "cuda:%u", i);
        }
    }
    return count;
}

// ---- opening and closing

static bool open_streams(cu_device *dev, lf_error *err)
{
    CUstream *const streams[] = { &dev->compute, &dev->copy };
    CUevent *const events[] = { &dev->computed, &dev->copied };
    CUresult result = CUDA_SUCCESS;
    for (unsigned i = 0; i < 2 && result == CUDA_SUCCESS; i++) {
        result = cu.StreamCreate(streams[i], CU_STREAM_NON_BLOCKING);
        if (result == CUDA_SUCCESS)
            result = cu.EventCreate(events[i], CU_EVENT_DISABLE_TIMING);
    }
    return result == CUDA_SUCCESS || cu_fail(dev, err, result, "cannot create its streams");
}

static void close_streams(cu_device *dev)
{
    if (dev->computed)
        cu.EventDestroy(dev->computed);
    if (dev->copied)
        cu.EventDestroy(dev->copied);
    if (dev->compute)
        cu.StreamDestroy(dev->compute);
    if (dev->copy)
        cu.StreamDestroy(dev->copy);
}

static void cu_destroy(lf_device *base)
{
    cu_device *dev = (cu_device *)base;
    if (!dev)
        return;
    if (dev->context) { // after a failure the driver refuses some of this, and then has freed it itself
        cu.CtxSetCurrent(dev->context);
        cu_library_destroy(dev->library);
        cu_staging_destroy(dev);
        close_streams(dev);
        if (dev->module)
            cu.ModuleUnload(dev->module);
        cu.CtxSetCurrent(NULL);
        cu.DevicePrimaryCtxRelease(dev->device);
    }
    free(dev);
}

static bool open_context(cu_device *dev, lf_error *err)
{
    CUresult result = cu.DevicePrimaryCtxRetain(&dev->context, dev->device);
    if (result == CUDA_SUCCESS)
        return cu_enter(dev, err) && open_streams(dev, err) && cu_kernels_init(dev, err);
    dev->context = NULL;
    return cu_fail(dev, err, result, "cannot open the device");
}

static lf_device *open_device(uint32_t index, unsigned share, lf_error *err)
{
    (void)share; // what opens a device several times shares its time
    static const lf_device_impl impl = {
        .destroy = cu_destroy,
        .buffer_create = cu_buffer_create,
        .buffer_destroy = cu_buffer_destroy,
        .buffer_write = cu_buffer_write,
        .buffer_read = cu_buffer_read,
        .exec_create = cu_exec_create,
        .exec_destroy = cu_exec_destroy,
        .exec_run = cu_exec_run,
        .wait = cu_wait,
        .link_offer = cu_link_offer,
        .link_create = cu_link_create,
        .link_destroy = cu_link_destroy,
        .link_sum = cu_link_sum,
    };
    uint32_t count;
    cu_device *dev = calloc(1, sizeof *dev);
    if (!dev) {
        lf_error_set(err, LF_ENOMEM, "cuda:%u: out of memory", index);
        return NULL;
    }
    dev->base.impl = &impl;
    if (!count_devices(&count, err))
        goto error;
    if (index >= count) {
        lf_error_set(err, LF_ENOTFOUND, "cuda:%u: there are %u CUDA devices", index, count);
        goto error;
    }
    if (!find_device(index, &dev->device, err))
        goto error;
    if (!describe(dev->device, index, &dev->base.info)) {
        lf_error_set(err, LF_EUNSUPPORTED, "cuda:%u (%s): %s", index, dev->base.info.name, dev->base.info.unavailable);
        goto error;
    }
    if (!open_context(dev, err))
        goto error;
    return &dev->base;
error:
    cu_destroy(&dev->base);
    return NULL;
}

const lf_backend lf_backend_cuda = { .name = "cuda", .list = list, .open = open_device, .link_find = cu_link_find };
