// The cpu backend's face: one device, whose memory is the process's and whose submissions are done when they return.
#include "cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu/host.h"
#include "device/backend.h"

static void cpu_destroy(lf_device *dev)
{
    cpu_device *cpu = (cpu_device *)dev;
    cpu_pool_destroy(cpu->pool);
    free(cpu);
}

enum { HUGE_BYTES = 2 << 20 };
static lf_buffer *cpu_buffer_create(lf_device *dev, size_t size, lf_error *err)
{
    (void)dev;
    cpu_buffer *buf = calloc(1, sizeof *buf);
    void *memory = NULL;
    const size_t align = size >= HUGE_BYTES ? HUGE_BYTES : 256;
    if (!buf || posix_memalign(&memory, align, size) != 0) { // tensors' offsets are multiples of 256: all are aligned
        lf_error_set(err, LF_ENOMEM, "cpu: out of memory for a buffer of %zu bytes (the machine has %llu)", size,
                     (unsigned long long)cpu_host_memory());
        free(buf);
        return NULL;
    }
    if (size >= HUGE_BYTES)
        madvise(memory, size / HUGE_BYTES * HUGE_BYTES, MADV_HUGEPAGE);
    buf->base.host = buf->memory = memset(memory, 0, size);
    return &buf->base;
}

static void cpu_buffer_destroy(lf_device *dev, lf_buffer *buf)
{
    (void)dev;
    free(((cpu_buffer *)buf)->memory);
    free(buf);
}

static bool cpu_buffer_write(lf_device *dev, lf_buffer *dst, size_t offset, const void *src, size_t size, lf_error *err)
{
    (void)dev, (void)err;
    memcpy(((cpu_buffer *)dst)->memory + offset, src, size);
    return true;
}

static bool cpu_buffer_read(lf_device *dev, void *dst, const lf_buffer *src, size_t offset, size_t size, lf_error *err)
{
    (void)dev, (void)err;
    memcpy(dst, ((const cpu_buffer *)src)->memory + offset, size);
    return true;
}

static bool cpu_wait(lf_device *dev, lf_error *err)
{
    (void)dev, (void)err;
    return true;
}

static const lf_device_impl impl = {
    .destroy = cpu_destroy,
    .buffer_create = cpu_buffer_create,
    .buffer_destroy = cpu_buffer_destroy,
    .buffer_write = cpu_buffer_write,
    .buffer_read = cpu_buffer_read,
    .exec_create = cpu_exec_create,
    .exec_destroy = cpu_exec_destroy,
    .exec_run = cpu_exec_run,
    .wait = cpu_wait,
};

static void fill_info(lf_device_info *info)
{
    lf_error err;
    *info = (lf_device_info){ .id = "cpu", .backend = "cpu", .driver_name = "CBLAS", .host_memory = true };
    cpu_host_name(info->name, sizeof info->name);
    snprintf(info->driver_version, sizeof info->driver_version, "%s", cpu_host_blas());
    cpu_host_digest(info->kernels);
    info->units = cpu_host_threads(&err);
    info->memory = info->max_tensor = cpu_host_memory();
    if (!info->units)
        snprintf(info->unavailable, sizeof info->unavailable, "%.*s", (int)sizeof info->unavailable - 1, err.text);
}

static size_t cpu_list(lf_device_info *infos, size_t capacity)
{
    if (!capacity)
        return 0;
    fill_info(infos);
    return 1;
}

static lf_device *cpu_open(uint32_t index, unsigned share, lf_error *err)
{
    (void)index;
    unsigned threads = cpu_host_threads(err);
    if (!threads)
        return NULL;
    threads = threads > share ? threads / share : 1;
    cpu_device *cpu = calloc(1, sizeof *cpu);
    if (!cpu) {
        lf_error_set(err, LF_ENOMEM, "cpu: out of memory for a device of %zu bytes", sizeof *cpu);
        return NULL;
    }
    cpu->pool = cpu_pool_create(threads, err);
    if (!cpu->pool) {
        free(cpu);
        return NULL;
    }
    cpu_host_blas_single(); // the pool's threads are all the threads there are
    cpu->base.impl = &impl;
    cpu->f32 = cpu_host_kernels();
    return &cpu->base;
}

const lf_backend lf_backend_cpu = { .name = "cpu", .list = cpu_list, .open = cpu_open };
