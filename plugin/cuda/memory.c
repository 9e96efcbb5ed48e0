// Buffers. The host reaches them through two pieces of pinned memory, used in turn on a stream of their own, so that it
// copies into or out of one while the other travels.
#include <stdlib.h>
#include <string.h>

#include "cuda/internal.h"

#define STAGING_SIZE ((size_t)16 << 20)

// What is queued on `later` from now on waits for what is queued on `earlier` now.
static CUresult order(CUstream earlier, CUevent event, CUstream later)
{
    CUresult result = cu.EventRecord(event, earlier);
    return result == CUDA_SUCCESS ? cu.StreamWaitEvent(later, event, CU_EVENT_WAIT_DEFAULT) : result;
}

static bool ready_staging(cu_device *dev, lf_error *err)
{
    for (unsigned i = 0; i < STAGING_COUNT; i++) {
        cu_staging *staging = &dev->staging[i];
        CUresult result = CUDA_SUCCESS;
        if (!staging->done)
            result = cu.EventCreate(&staging->done, CU_EVENT_DISABLE_TIMING);
        if (result == CUDA_SUCCESS && !staging->host)
            result = cu.MemHostAlloc(&staging->host, STAGING_SIZE, 0);
        if (result != CUDA_SUCCESS)
            return cu_fail(dev, err, result, "cannot allocate %zu bytes of pinned host memory", STAGING_SIZE);
    }
    return true;
}

void cu_staging_destroy(cu_device *dev)
{
    for (unsigned i = 0; i < STAGING_COUNT; i++) {
        if (dev->staging[i].done)
            cu.EventDestroy(dev->staging[i].done);
        if (dev->staging[i].host)
            cu.MemFreeHost(dev->staging[i].host);
    }
}

// The next piece, once what it last carried has arrived.
static CUresult take_staging(cu_device *dev, cu_staging **taken)
{
    *taken = &dev->staging[dev->next_staging++ % STAGING_COUNT];
    return cu.EventSynchronize((*taken)->done); // at once where it has carried nothing yet
}

static bool fail_allocation(cu_device *dev, lf_error *err, CUresult result, size_t size)
{
    size_t unused = 0, total = 0;
    if (result == CUDA_ERROR_OUT_OF_MEMORY && cu.MemGetInfo(&unused, &total) == CUDA_SUCCESS)
        return cu_fail(dev, err, result, "cannot allocate a buffer of %zu bytes (%zu of %zu are free)", size, unused,
                       total);
    return cu_fail(dev, err, result, "cannot allocate a buffer of %zu bytes", size);
}

lf_buffer *cu_buffer_create(lf_device *base, size_t size, lf_error *err)
{
    cu_device *dev = (cu_device *)base;
    if (!cu_enter(dev, err))
        return NULL;
    cu_buffer *buf = calloc(1, sizeof *buf);
    if (!buf) {
        lf_error_set(err, LF_ENOMEM, "%s: a buffer of %zu bytes: out of memory", dev->base.info.name, size);
        return NULL;
    }
    const size_t capacity = (size + 15) / 16 * 16; // kernels may read whole groups of four words
    CUresult result = cu.MemAlloc(&buf->memory, capacity);
    if (result != CUDA_SUCCESS) {
        buf->memory = 0;
        fail_allocation(dev, err, result, capacity);
        goto error;
    }
    result = cu.MemsetD8Async(buf->memory, 0, capacity, dev->compute);
    if (result != CUDA_SUCCESS) {
        cu_fail(dev, err, result, "cannot clear a buffer of %zu bytes", capacity);
        goto error;
    }
    return &buf->base;
error:
    cu_buffer_destroy(base, &buf->base);
    return NULL;
}

void cu_buffer_destroy(lf_device *base, lf_buffer *head)
{
    cu_device *dev = (cu_device *)base;
    cu_buffer *buf = (cu_buffer *)head;
    if (!buf)
        return;
    cu.CtxSetCurrent(dev->context);
    cu.StreamSynchronize(dev->copy); // a failed device has nothing pending
    cu.StreamSynchronize(dev->compute);
    if (buf->memory)
        cu.MemFree(buf->memory);
    free(buf);
}

static CUresult write_parts(cu_device *dev, CUdeviceptr to, const char *from, size_t size)
{
    CUresult result = order(dev->compute, dev->computed, dev->copy);
    for (size_t done = 0; done < size && result == CUDA_SUCCESS; done += STAGING_SIZE) {
        size_t part = size - done < STAGING_SIZE ? size - done : STAGING_SIZE;
        cu_staging *staging;
        result = take_staging(dev, &staging);
        if (result != CUDA_SUCCESS)
            break;
        memcpy(staging->host, from + done, part);
        result = cu.MemcpyHtoDAsync(to + done, staging->host, part, dev->copy);
        if (result == CUDA_SUCCESS)
            result = cu.EventRecord(staging->done, dev->copy);
    }
    return result == CUDA_SUCCESS ? order(dev->copy, dev->copied, dev->compute) : result;
}

bool cu_buffer_write(lf_device *base, lf_buffer *dst, size_t offset, const void *src, size_t size, lf_error *err)
{
    cu_device *dev = (cu_device *)base;
    if (!cu_enter(dev, err) || !ready_staging(dev, err))
        return false;
    CUresult result = write_parts(dev, ((cu_buffer *)dst)->memory + offset, src, size);
    return result == CUDA_SUCCESS || cu_fail(dev, err, result, "cannot write %zu bytes", size);
}

// Each part is fetched out of its piece once the next part is on its way.
static CUresult read_parts(cu_device *dev, char *to, CUdeviceptr from, size_t size)
{
    cu_staging *staging, *last = NULL;
    size_t last_size = 0;
    CUresult result = order(dev->compute, dev->computed, dev->copy);
    for (size_t done = 0; result == CUDA_SUCCESS && (done < size || last);) {
        size_t part = size - done < STAGING_SIZE ? size - done : STAGING_SIZE;
        if (part)
            result = take_staging(dev, &staging);
        if (part && result == CUDA_SUCCESS)
            result = cu.MemcpyDtoHAsync(staging->host, from + done, part, dev->copy);
        if (part && result == CUDA_SUCCESS)
            result = cu.EventRecord(staging->done, dev->copy);
        if (last && result == CUDA_SUCCESS)
            result = cu.EventSynchronize(last->done);
        if (last && result == CUDA_SUCCESS)
            memcpy(to + done - last_size, last->host, last_size);
        last = part ? staging : NULL;
        last_size = part;
        done += part;
    }
    return result;
}

bool cu_buffer_read(lf_device *base, void *dst, const lf_buffer *src, size_t offset, size_t size, lf_error *err)
{
    cu_device *dev = (cu_device *)base;
    if (!cu_enter(dev, err) || !ready_staging(dev, err))
        return false;
    CUresult result = read_parts(dev, dst, ((const cu_buffer *)src)->memory + offset, size);
    return result == CUDA_SUCCESS || cu_fail(dev, err, result, "cannot read %zu bytes", size);
}
