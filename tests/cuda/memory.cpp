// Memory of the device and pinned memory: blocks of the host's heap of just the size that was asked for, so that
// AddressSanitizer sees a kernel that leaves one.
#include <stdlib.h>
#include <string.h>

#include "stand_in.h"

enum { ALIGNMENT = 256, NAN_BYTE = 0xFF };

const host_memory *host_find_memory(uint64_t address, size_t size)
{
    auto next = host.memory.upper_bound(address);
    if (next == host.memory.begin())
        return NULL;
    auto found = std::prev(next);
    uint64_t offset = address - found->first;
    return offset < found->second.size && size <= found->second.size - offset ? &found->second : NULL;
}

// Not zero: what nobody has written is NaN.
static uint64_t allocate(uint64_t context, size_t size, bool pinned)
{
    void *block = NULL;
    if (posix_memalign(&block, ALIGNMENT, size) != 0)
        return 0;
    memset(block, NAN_BYTE, size);
    host.memory[(uint64_t)block] = { context, size, pinned };
    return (uint64_t)block;
}

void host_free_memory(uint64_t context)
{
    for (auto it = host.memory.begin(); it != host.memory.end();) {
        if (it->second.context == context) {
            free((void *)it->first);
            it = host.memory.erase(it);
        } else {
            ++it;
        }
    }
}

// After the work that may still use it.
static CUresult free_one(uint64_t address, bool pinned)
{
    auto found = host.memory.find(address);
    if (found == host.memory.end() || found->second.pinned != pinned)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = host_drain_all(found->second.context);
    host_context *owner = host.contexts.find(found->second.context);
    if (!pinned)
        owner->used -= found->second.size;
    free((void *)address);
    host.memory.erase(found);
    return result;
}

CUresult CUDAAPI cuMemAlloc_v2(CUdeviceptr *memory, size_t size)
{
    return host_call_in_context(__func__, [&](host_context &context) {
        size_t left = 0, total = 0;
        cuMemGetInfo_v2(&left, &total);
        if (!size)
            return CUDA_ERROR_INVALID_VALUE;
        *memory = size <= left ? allocate(host_current(), size, false) : 0;
        context.used += *memory ? size : 0;
        return *memory ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    });
}

CUresult CUDAAPI cuMemFree_v2(CUdeviceptr memory)
{
    return host_call_in_context(__func__, [&](host_context &) { return free_one(memory, false); });
}

CUresult CUDAAPI cuMemHostAlloc(void **memory, size_t size, unsigned)
{
    return host_call_in_context(__func__, [&](host_context &) {
        *memory = size ? (void *)allocate(host_current(), size, true) : NULL;
        return !size ? CUDA_ERROR_INVALID_VALUE : *memory ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    });
}

CUresult CUDAAPI cuMemFreeHost(void *memory)
{
    return host_call_in_context(__func__, [&](host_context &) { return free_one((uint64_t)memory, true); });
}

// Work on bytes of the device; refused where they are not memory of the stream's context.
static CUresult queue_on(CUstream stream, CUdeviceptr bytes, size_t size, host_work work)
{
    host_stream *on = host_find_stream(stream);
    const host_memory *memory = host_find_memory(bytes, size);
    if (!on)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!memory || memory->pinned || memory->context != on->context)
        return CUDA_ERROR_INVALID_VALUE;
    host_queue(on, work);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t size, CUstream stream)
{
    return host_call_in_context(__func__, [&](host_context &) {
        return queue_on(stream, to, size, [=] {
            memset((void *)to, value, size);
            return CUDA_SUCCESS;
        });
    });
}

// Pinned memory is read when the copy's turn comes; other memory at once, as the driver does.
CUresult CUDAAPI cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, CUstream stream)
{
    return host_call_in_context(__func__, [&](host_context &) {
        if (host_find_memory((uint64_t)from, size))
            return queue_on(stream, to, size, [=] {
                memcpy((void *)to, from, size);
                return CUDA_SUCCESS;
            });
        const unsigned char *bytes = (const unsigned char *)from;
        auto staged = std::make_shared<std::vector<unsigned char>>(bytes, bytes + size);
        return queue_on(stream, to, size, [=] {
            memcpy((void *)to, staged->data(), size);
            return CUDA_SUCCESS;
        });
    });
}

// Pinned memory is written when the copy's turn comes; other memory before this returns.
CUresult CUDAAPI cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, CUstream stream)
{
    return host_call_in_context(__func__, [&](host_context &context) {
        CUresult result = queue_on(stream, from, size, [=] {
            memcpy(to, (const void *)from, size);
            return CUDA_SUCCESS;
        });
        if (result || host_find_memory((uint64_t)to, size))
            return result;
        host_drain((uint64_t)stream, UINT64_MAX);
        return context.error;
    });
}

// On one device.
CUresult CUDAAPI cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream)
{
    return host_call_in_context(__func__, [&](host_context &) {
        const host_memory *source = host_find_memory(from, size);
        if (!source || source->pinned || source->context != host_current())
            return CUDA_ERROR_INVALID_VALUE;
        return queue_on(stream, to, size, [=] {
            memmove((void *)to, (const void *)from, size);
            return CUDA_SUCCESS;
        });
    });
}
