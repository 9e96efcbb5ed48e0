// Modules, their functions, and launches of these.
#include <dlfcn.h>
#include <stdio.h>

#include "launch.h"
#include "stand_in.h"

enum { THREADS_MAX = 1024, GRID_SIDE_MAX = 65535, SHARED_AT_FIRST = 48 << 10 };

// This library, in which the kernels are.
static void *self()
{
    Dl_info info;
    static void *handle = dladdr((void *)&self, &info) ? dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD) : NULL;
    return handle;
}

CUresult CUDAAPI cuModuleLoadData(CUmodule *module, const void *image)
{
    return host_call_in_context(__func__, [&](host_context &) {
        if (!image)
            return CUDA_ERROR_INVALID_VALUE;
        *module = host.modules.add<CUmodule>({ host_current() });
        return CUDA_SUCCESS;
    });
}

CUresult CUDAAPI cuModuleUnload(CUmodule module)
{
    return host_call_in_context(__func__, [&](host_context &) {
        if (!host.modules.find(module))
            return CUDA_ERROR_INVALID_HANDLE;
        CUresult result = host_drain_all(host_current());
        for (auto it = host.functions.objects.begin(); it != host.functions.objects.end();)
            it = it->second.module == (uint64_t)module ? host.functions.objects.erase(it) : std::next(it);
        host.modules.remove(module);
        return result;
    });
}

CUresult CUDAAPI cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    return host_call_in_context(__func__, [&](host_context &) {
        void *kernel = dlsym(self(), name);
        Dl_info info;
        if (!host.modules.find(module))
            return CUDA_ERROR_INVALID_HANDLE;
        if (!kernel || !dladdr(kernel, &info))
            return CUDA_ERROR_NOT_FOUND;
        *function = host.functions.add<CUfunction>({ (uint64_t)module, info.dli_sname, kernel, SHARED_AT_FIRST });
        return CUDA_SUCCESS;
    });
}

// Kernels reach memory through their operands alone.
static bool are_operands_there(const host_launch &launch, const lf_call &call, uint64_t context)
{
    for (unsigned i = 0; i < LF_CALL_OPERANDS; i++) {
        const host_memory *memory = host_find_memory(call.operand[i], 1);
        if (call.operand[i] && (!memory || memory->context != context)) {
            fprintf(stderr, "stand-in: %s: operand %u, at %#llx, is no memory of its context\n", launch.name, i,
                    call.operand[i]);
            return false;
        }
    }
    return true;
}

static CUresult run_kernel(const host_launch &launch, const lf_call &call, uint64_t context)
{
    char why[1024];
    if (!are_operands_there(launch, call, context))
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    if (host_launch_run(&launch, &call, why, sizeof why))
        return CUDA_SUCCESS;
    fprintf(stderr, "stand-in: %s\n", why);
    return CUDA_ERROR_LAUNCH_FAILED;
}

// How many blocks one multiprocessor runs side by side.
static unsigned occupancy(uint64_t threads, size_t shared)
{
    uint64_t by_threads = HOST_RESIDENT_THREADS / ((threads + 31) / 32 * 32),
             by_shared = HOST_SHARED_OF_PROCESSOR / (shared + HOST_SHARED_RESERVED);
    return (unsigned)(by_threads < by_shared ? by_threads : by_shared);
}

CUresult host_kernel_work(CUfunction function, const host_shape &shape, void **params, host_work *work)
{
    const unsigned *grid = shape.grid, *block = shape.block;
    const host_function *found = host.functions.find(function);
    const host_module *module = found ? host.modules.find(found->module) : NULL;
    uint64_t threads = (uint64_t)block[0] * block[1] * block[2], blocks = (uint64_t)grid[0] * grid[1] * grid[2];
    if (!module || module->context != host_current())
        return CUDA_ERROR_INVALID_HANDLE;
    if (!params || !threads || threads > THREADS_MAX || !blocks || blocks > INT32_MAX || grid[1] > GRID_SIDE_MAX ||
        grid[2] > GRID_SIDE_MAX || shape.shared > found->shared_max)
        return CUDA_ERROR_INVALID_VALUE;
    if (shape.cooperative && blocks > (uint64_t)HOST_PROCESSORS * occupancy(threads, shape.shared))
        return CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
    host_launch launch = { found->name,
                           (void (*)(const lf_call))found->kernel,
                           { grid[0], grid[1], grid[2] },
                           { block[0], block[1], block[2] },
                           shape.shared,
                           shape.cooperative };
    lf_call call = *(const lf_call *)params[0];
    uint64_t context = host_current();
    *work = [=] { return run_kernel(launch, call, context); };
    return CUDA_SUCCESS;
}

static CUresult launch_on(CUstream stream, CUfunction function, const host_shape &shape, void **params)
{
    host_work work;
    host_stream *on = host_find_stream(stream);
    CUresult result = on ? host_kernel_work(function, shape, params, &work) : CUDA_ERROR_INVALID_HANDLE;
    if (result == CUDA_SUCCESS)
        host_queue(on, std::move(work));
    return result;
}

CUresult CUDAAPI cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                                unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared, CUstream stream,
                                void **params, void **)
{
    return host_call_in_context(__func__, [&](host_context &) {
        return launch_on(stream, function, { { grid_x, grid_y, grid_z }, { block_x, block_y, block_z }, shared, false },
                         params);
    });
}

CUresult CUDAAPI cuLaunchCooperativeKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                                           unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                                           CUstream stream, void **params)
{
    return host_call_in_context(__func__, [&](host_context &) {
        return launch_on(stream, function, { { grid_x, grid_y, grid_z }, { block_x, block_y, block_z }, shared, true },
                         params);
    });
}

CUresult CUDAAPI cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value)
{
    return host_call_in_context(__func__, [&](host_context &) {
        host_function *found = host.functions.find(function);
        if (!found)
            return CUDA_ERROR_INVALID_HANDLE;
        if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES || value < 0 || value > HOST_SHARED_OF_BLOCK)
            return CUDA_ERROR_INVALID_VALUE;
        found->shared_max = (unsigned)value;
        return CUDA_SUCCESS;
    });
}

CUresult CUDAAPI cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction function, int threads,
                                                             size_t shared)
{
    return host_call_in_context(__func__, [&](host_context &) {
        const host_function *found = host.functions.find(function);
        if (!found || threads < 1)
            return found ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
        bool fits = threads <= THREADS_MAX && shared <= found->shared_max;
        *blocks = fits ? (int)occupancy((uint64_t)threads, shared) : 0;
        return CUDA_SUCCESS;
    });
}
