// Devices, contexts, and what goes wrong on demand.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stand_in.h"

host_state host;

static thread_local uint64_t current;

uint64_t host_new_id()
{
    static uint64_t last = 0x1000;
    return last += 0x10;
}

uint64_t host_current()
{
    return current;
}

host_context *host_current_context()
{
    return host.contexts.find(current);
}

static unsigned long long setting(const char *name, unsigned long long otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

static unsigned device_count()
{
    return (unsigned)setting("LAVAFLOW_STAND_IN_DEVICES", 1);
}

static size_t total_memory()
{
    return setting("LAVAFLOW_STAND_IN_MEMORY", 4ull << 30);
}

// After these a context answers nothing else.
static bool is_lasting(CUresult result)
{
    return result >= CUDA_ERROR_ILLEGAL_ADDRESS && result <= CUDA_ERROR_LAUNCH_FAILED &&
           result != CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES && result != CUDA_ERROR_CONTEXT_IS_DESTROYED;
}

// "cuMemAlloc" is cuMemAlloc_v2 too.
static bool is_named(const char *function, const char *name, size_t length)
{
    return !strncmp(function, name, length) && (!function[length] || !strncmp(function + length, "_v", 2));
}

CUresult host_injected(const char *function)
{
    static std::map<std::string, unsigned> calls;
    static std::string read;
    const char *text = getenv("LAVAFLOW_STAND_IN_FAIL");
    text = text ? text : "";
    if (read != text) {
        read = text;
        calls.clear();
    }
    unsigned call = ++calls[function];
    while (*text) {
        size_t length = strcspn(text, "@="), entry = strcspn(text, ",");
        const char *rest = text + length;
        unsigned at = *rest == '@' ? (unsigned)strtoul(rest + 1, (char **)&rest, 10) : 1;
        CUresult result = *rest == '=' ? (CUresult)strtoul(rest + 1, NULL, 10) : CUDA_ERROR_UNKNOWN;
        if (is_named(function, text, length) && call == at) {
            host_context *context = host_current_context();
            if (context && is_lasting(result) && !context->error)
                context->error = result;
            return result;
        }
        text += entry;
        text += *text == ',';
    }
    return CUDA_SUCCESS;
}

static const struct {
    CUresult result;
    const char *name, *text;
} errors[] = {
#define ERROR(name, text)                                                                                              \
    {                                                                                                                  \
        name, #name, text                                                                                              \
    }
    ERROR(CUDA_SUCCESS, "no error"),
    ERROR(CUDA_ERROR_INVALID_VALUE, "invalid argument"),
    ERROR(CUDA_ERROR_OUT_OF_MEMORY, "out of memory"),
    ERROR(CUDA_ERROR_NOT_INITIALIZED, "initialization error"),
    ERROR(CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected"),
    ERROR(CUDA_ERROR_INVALID_DEVICE, "invalid device ordinal"),
    ERROR(CUDA_ERROR_INVALID_CONTEXT, "invalid device context"),
    ERROR(CUDA_ERROR_NO_BINARY_FOR_GPU, "no kernel image is available for execution on the device"),
    ERROR(CUDA_ERROR_INVALID_HANDLE, "invalid resource handle"),
    ERROR(CUDA_ERROR_NOT_FOUND, "named symbol not found"),
    ERROR(CUDA_ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered"),
    ERROR(CUDA_ERROR_CONTEXT_IS_DESTROYED, "context is destroyed"),
    ERROR(CUDA_ERROR_LAUNCH_FAILED, "unspecified launch failure"),
    ERROR(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, "system has unsupported display driver / cuda driver combination"),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing"),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "capturing stream has unjoined work"),
    ERROR(CUDA_ERROR_UNKNOWN, "unknown error"),
#undef ERROR
};

static const char *error_text(CUresult result, bool name)
{
    for (const auto &error : errors)
        if (error.result == result)
            return name ? error.name : error.text;
    return NULL;
}

CUresult CUDAAPI cuGetErrorName(CUresult result, const char **name)
{
    *name = error_text(result, true);
    return *name ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult CUDAAPI cuGetErrorString(CUresult result, const char **text)
{
    *text = error_text(result, false);
    return *text ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult CUDAAPI cuInit(unsigned flags)
{
    std::lock_guard<std::recursive_mutex> guard(host.lock);
    CUresult failed = host_injected(__func__);
    if (failed || flags)
        return failed ? failed : CUDA_ERROR_INVALID_VALUE;
    if (!device_count())
        return CUDA_ERROR_NO_DEVICE;
    host.initialised = true;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDriverGetVersion(int *version)
{
    *version = (int)setting("LAVAFLOW_STAND_IN_VERSION", CUDA_VERSION);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetCount(int *count)
{
    return host_call(__func__, [&] {
        *count = (int)device_count();
        return CUDA_SUCCESS;
    });
}

CUresult CUDAAPI cuDeviceGet(CUdevice *device, int ordinal)
{
    return host_call(__func__, [&] {
        *device = ordinal;
        return ordinal >= 0 && ordinal < (int)device_count() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
    });
}

template <class Body> static CUresult call_of_device(const char *function, CUdevice device, Body body)
{
    return host_call(function, [&]() -> CUresult {
        return device >= 0 && device < (int)device_count() ? body() : CUDA_ERROR_INVALID_DEVICE;
    });
}

CUresult CUDAAPI cuDeviceGetName(char *name, int size, CUdevice device)
{
    return call_of_device(__func__, device, [&] {
        snprintf(name, (size_t)size, "stand-in for an NVIDIA GPU");
        return CUDA_SUCCESS;
    });
}

CUresult CUDAAPI cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device)
{
    return call_of_device(__func__, device, [&] {
        memcpy(uuid->bytes, "stand-in device", sizeof uuid->bytes);
        uuid->bytes[15] = (char)device;
        return CUDA_SUCCESS;
    });
}

CUresult CUDAAPI cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    return call_of_device(__func__, device, [&] {
        *bytes = total_memory();
        return CUDA_SUCCESS;
    });
}

static const std::map<CUdevice_attribute, int> attributes = {
    { CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 9 },
    { CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0 },
    { CU_DEVICE_ATTRIBUTE_INTEGRATED, 0 },
    { CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, HOST_PROCESSORS },
    { CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, HOST_SHARED_OF_BLOCK },
    { CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH, 1 },
};

CUresult CUDAAPI cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
    return call_of_device(__func__, device, [&] {
        auto found = attributes.find(attribute);
        if (found == attributes.end()) {
            fprintf(stderr, "stand-in: nobody has said what attribute %d of a device is\n", (int)attribute);
            return CUDA_ERROR_INVALID_VALUE;
        }
        *value = found->second;
        return CUDA_SUCCESS;
    });
}

CUresult CUDAAPI cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    return call_of_device(__func__, device, [&] {
        for (auto &entry : host.contexts.objects)
            if (entry.second.device == (unsigned)device) {
                entry.second.holders++;
                *context = (CUcontext)entry.first;
                return CUDA_SUCCESS;
            }
        *context = host.contexts.add<CUcontext>({ (unsigned)device, 1, CUDA_SUCCESS, 0 });
        return CUDA_SUCCESS;
    });
}

template <class Object> static unsigned drop_all(host_table<Object> *table, uint64_t context)
{
    unsigned count = 0;
    for (auto it = table->objects.begin(); it != table->objects.end();) {
        bool drop = it->second.context == context;
        it = drop ? table->objects.erase(it) : std::next(it);
        count += drop;
    }
    return count;
}

static void destroy_context(uint64_t context)
{
    host_drain_all(context);
    size_t used = host.contexts.find(context)->used;
    unsigned streams = drop_all(&host.streams, context), events = drop_all(&host.events, context),
             execs = drop_all(&host.execs, context), comms = host_count_comms(context);
    drop_all(&host.modules, context);
    if (used || streams || events || execs || comms)
        fprintf(stderr,
                "stand-in: a context ends with %zu bytes, %u streams, %u events, %u graphs and %u communicators\n",
                used, streams, events, execs, comms);
    host_free_memory(context);
    host.contexts.remove(context);
}

CUresult CUDAAPI cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    return call_of_device(__func__, device, [&]() -> CUresult {
        for (auto &entry : host.contexts.objects)
            if (entry.second.device == (unsigned)device) {
                CUresult error = entry.second.error;
                if (!--entry.second.holders)
                    destroy_context(entry.first);
                return error;
            }
        return CUDA_ERROR_INVALID_CONTEXT;
    });
}

CUresult CUDAAPI cuCtxSetCurrent(CUcontext context)
{
    return host_call(__func__, [&] {
        if (context && !host.contexts.find(context))
            return CUDA_ERROR_INVALID_CONTEXT;
        current = (uint64_t)context;
        return CUDA_SUCCESS;
    });
}

CUresult CUDAAPI cuMemGetInfo_v2(size_t *unused, size_t *total)
{
    return host_call_in_context(__func__, [&](const host_context &context) {
        *total = total_memory();
        *unused = *total > context.used ? *total - context.used : 0;
        return CUDA_SUCCESS;
    });
}
