// The front of the seam: finds devices, checks arguments, counts what lives.
#include "device/device.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "device/backend.h"

static const lf_backend *const backends[] = { &lf_backend_vulkan, &lf_backend_cpu };
enum { BACKEND_COUNT = sizeof backends / sizeof *backends, DEVICE_MAX = 64 };

typedef struct found {
    lf_device_info info;
    const lf_backend *backend;
    uint32_t index; // within the backend
} found;

static size_t list_all(found *all, size_t capacity)
{
    size_t count = 0;
    lf_device_info *infos = calloc(DEVICE_MAX, sizeof *infos);
    for (size_t b = 0; infos && b < BACKEND_COUNT; b++) {
        memset(infos, 0, DEVICE_MAX * sizeof *infos);
        size_t rows = backends[b]->list(infos, DEVICE_MAX);
        for (size_t i = 0; i < rows && count < capacity; i++)
            all[count++] = (found){ infos[i], backends[b], (uint32_t)i };
    }
    free(infos);
    return count;
}

size_t lf_device_list(lf_device_info *infos, size_t capacity)
{
    found *all = calloc(capacity, sizeof *all);
    size_t count = all ? list_all(all, capacity) : 0;
    for (size_t i = 0; i < count; i++)
        infos[i] = all[i].info;
    free(all);
    return count;
}

static const found *find_auto(const found *all, size_t count)
{
    const found *cpu = NULL, *gpu = NULL;
    for (size_t i = 0; i < count; i++) {
        if (all[i].info.unavailable[0])
            continue;
        if (all[i].info.hardware_gpu && (!gpu || (all[i].info.discrete && !gpu->info.discrete)))
            gpu = &all[i];
        if (all[i].backend == &lf_backend_cpu)
            cpu = &all[i];
    }
    return gpu ? gpu : cpu;
}

// "vulkan:0", a UUID, or "vulkan:NAME-PART"; an exact match goes before a part of a name.
static const found *find_named(const found *all, size_t count, const char *spec)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(all[i].info.id, spec) || (all[i].info.uuid[0] && !strcasecmp(all[i].info.uuid, spec)))
            return &all[i];
    const char *colon = strchr(spec, ':');
    if (!colon || !colon[1] || colon[1 + strspn(colon + 1, "0123456789")] == 0)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        const lf_device_info *info = &all[i].info;
        if (!info->unavailable[0] && strlen(info->backend) == (size_t)(colon - spec) &&
            !strncmp(info->backend, spec, (size_t)(colon - spec)) && strcasestr(info->name, colon + 1))
            return &all[i];
    }
    return NULL;
}

// Puts "separator, id" and, if there is one, ": reason" at the end of what `text` holds; what does not fit is cut.
static void append(char *text, size_t size, const char *separator, const char *id, const char *reason)
{
    size_t used = strlen(text);
    snprintf(text + used, size - used, "%s%s%s%s", used ? separator : "", id, *reason ? ": " : "", reason);
}

// Why a device that was asked for cannot be used is part of the answer; "auto" asks for all of them.
static void set_not_found(const found *all, size_t count, const char *spec, lf_error *err)
{
    char usable[256] = "", missing[512] = "";
    for (size_t i = 0; i < count; i++) {
        const lf_device_info *info = &all[i].info;
        if (!info->unavailable[0])
            append(usable, sizeof usable, ", ", info->id, "");
        else if (!strcmp(spec, "auto") || !strncmp(spec, info->backend, strlen(info->backend)))
            append(missing, sizeof missing, "; ", info->id, info->unavailable);
    }
    lf_error_set(err, LF_ENOTFOUND, "device \"%s\": %s; this machine has %s", spec,
                 *missing ? missing : "there is none", *usable ? usable : "none at all");
}

static bool find(const char *spec, found *which, lf_error *err)
{
    found *all = calloc(DEVICE_MAX, sizeof *all);
    if (!all) {
        lf_error_set(err, LF_ENOMEM, "device \"%s\": out of memory", spec);
        return false;
    }
    size_t count = list_all(all, DEVICE_MAX);
    const found *it = strcmp(spec, "auto") ? find_named(all, count, spec) : find_auto(all, count);
    bool usable = it && !it->info.unavailable[0];
    if (usable)
        *which = *it;
    else if (it)
        lf_error_set(err, LF_EUNSUPPORTED, "device \"%s\": %s", spec, it->info.unavailable);
    else
        set_not_found(all, count, spec, err);
    free(all);
    return usable;
}

bool lf_device_find(const char *spec, lf_device_info *info, lf_error *err)
{
    found which;
    if (!find(spec, &which, err))
        return false;
    *info = which.info;
    return true;
}

lf_device *lf_device_open(const char *spec, lf_error *err)
{
    found which;
    if (!find(spec, &which, err))
        return NULL;
    lf_device *dev = which.backend->open(which.index, err);
    if (dev)
        dev->info = which.info;
    return dev;
}

void lf_device_close(lf_device *dev)
{
    if (!dev)
        return;
    assert(!dev->live_buffers && !dev->live_execs);
    dev->impl->destroy(dev);
}

lf_buffer *lf_device_buffer_create(lf_device *dev, size_t size, lf_error *err)
{
    assert(size > 0);
    lf_buffer *buf = dev->impl->buffer_create(dev, size, err);
    if (buf) {
        buf->size = size;
        dev->live_buffers++;
    }
    return buf;
}

void lf_device_buffer_destroy(lf_device *dev, lf_buffer *buf)
{
    if (!buf)
        return;
    dev->live_buffers--;
    dev->impl->buffer_destroy(dev, buf);
}

bool lf_device_buffer_write(lf_device *dev, lf_buffer *dst, size_t offset, const void *src, size_t size, lf_error *err)
{
    assert(offset <= dst->size && size <= dst->size - offset);
    return !size || dev->impl->buffer_write(dev, dst, offset, src, size, err);
}

bool lf_device_buffer_read(lf_device *dev, void *dst, const lf_buffer *src, size_t offset, size_t size, lf_error *err)
{
    assert(offset <= src->size && size <= src->size - offset);
    return !size || dev->impl->buffer_read(dev, dst, src, offset, size, err);
}

lf_exec *lf_device_exec_create(lf_device *dev, const lf_program *prog, const lf_bindings *regions, lf_error *err)
{
    for (unsigned i = 0; i < LF_REGION_COUNT; i++)
        assert(!prog->region_size[i] || (regions->region[i] && regions->region[i]->size >= prog->region_size[i]));
    for (size_t o = 0; o < prog->op_count; o++) {
        const lf_operand_info *operands = lf_op_info_of(prog->ops[o].kind)->operands;
        for (unsigned i = 0; i < LF_OPERAND_MAX && operands[i].role; i++)
            assert(operands[i].optional || prog->ops[o].operands[i] != LF_NO_TENSOR);
    }
    lf_exec *exec = dev->impl->exec_create(dev, prog, regions, err);
    if (exec)
        dev->live_execs++;
    return exec;
}

void lf_device_exec_destroy(lf_device *dev, lf_exec *exec)
{
    if (!exec)
        return;
    dev->live_execs--;
    dev->impl->exec_destroy(dev, exec);
}

bool lf_device_exec_run(lf_device *dev, lf_exec *exec, lf_phase first, lf_phase last, uint32_t steps, lf_error *err)
{
    assert(first <= last && last < LF_PHASE_COUNT);
    return !steps || dev->impl->exec_run(dev, exec, first, last, steps, err);
}

bool lf_device_wait(lf_device *dev, lf_error *err)
{
    return dev->impl->wait(dev, err);
}
