// The functions of cuBLASLt that are used, and what one product needs of them.
#include "cuda/library.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MASK_ALIGN ((uint64_t)128) // bits between the columns of a mask are a multiple of so many

static uint64_t mask_stride(uint32_t m) // bits
{
    return (m + MASK_ALIGN - 1) / MASK_ALIGN * MASK_ALIGN;
}

size_t cu_mask_bytes(uint32_t m, uint32_t n)
{
    return (size_t)(mask_stride(m) / 8 * n + 255) / 256 * 256;
}

#if __has_include(<cublasLt.h>)

#include <cublasLt.h>
#include <dlfcn.h>
#include <pthread.h>

#include "core/log.h"

#define WORKSPACE_SIZE ((size_t)32 << 20) // what NVIDIA advises for Hopper; older ones need less

#define LT_FUNCTIONS(X)                                                                                                \
    X(cublasLtGetVersion)                                                                                              \
    X(cublasLtCreate)                                                                                                  \
    X(cublasLtDestroy)                                                                                                 \
    X(cublasLtMatmul)                                                                                                  \
    X(cublasLtMatmulAlgoGetHeuristic)                                                                                  \
    X(cublasLtMatmulAlgoConfigGetAttribute)                                                                            \
    X(cublasLtMatmulDescCreate)                                                                                        \
    X(cublasLtMatmulDescDestroy)                                                                                       \
    X(cublasLtMatmulDescSetAttribute)                                                                                  \
    X(cublasLtMatmulPreferenceCreate)                                                                                  \
    X(cublasLtMatmulPreferenceDestroy)                                                                                 \
    X(cublasLtMatmulPreferenceSetAttribute)                                                                            \
    X(cublasLtMatrixLayoutCreate)                                                                                      \
    X(cublasLtMatrixLayoutDestroy)

static struct {
#define FIELD(name) __typeof__(&name) name;
    LT_FUNCTIONS(FIELD)
#undef FIELD
    bool tried, there;
    char version[32];
} lt;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

struct cu_library {
    cublasLtHandle_t handle;
    CUdeviceptr workspace; // of the product that runs
    bool keeps_nan;        // its relu
};

// ---- the library

static void *open_file(void)
{
    static const char *const names[] = { "libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so" };
    const char *asked = getenv("LAVAFLOW_LIBCUBLASLT");
    void *file = NULL;
    if (asked && *asked)
        return dlopen(asked, RTLD_NOW | RTLD_LOCAL);
    for (unsigned i = 0; i < sizeof names / sizeof *names && !file; i++)
        file = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    return file;
}

static bool find_functions(void *file)
{
    bool all = true;
#define FIND(name)                                                                                                     \
    {                                                                                                                  \
        void *address = dlsym(file, #name);                                                                            \
        memcpy(&lt.name, &address, sizeof address);                                                                    \
        all = all && address;                                                                                          \
    }
    LT_FUNCTIONS(FIND)
#undef FIND
    return all;
}

// It stays open: it does not unload cleanly.
static void load(void)
{
    void *file = open_file();
    size_t version = file && find_functions(file) ? lt.cublasLtGetVersion() : 0;
    lt.there = version / 10000 == 12 || version / 10000 == 13;
    if (lt.there)
        snprintf(lt.version, sizeof lt.version, "cuBLASLt %zu.%zu.%zu", version / 10000, version / 100 % 100,
                 version % 100);
    else
        snprintf(lt.version, sizeof lt.version, "no cuBLASLt");
    if (file && !lt.there)
        lf_log(LF_LOG_WARN, "the cuBLASLt that was found is not used: it is not of version 12 or 13");
}

const char *cu_library_version(void)
{
    pthread_mutex_lock(&lock);
    if (!lt.tried)
        load();
    lt.tried = true;
    pthread_mutex_unlock(&lock);
    return lt.version;
}

void cu_library_destroy(cu_library *library)
{
    if (!library)
        return;
    if (library->handle)
        lt.cublasLtDestroy(library->handle);
    if (library->workspace)
        cu.MemFree(library->workspace);
    free(library);
}

// ---- one product

static const struct {
    cublasLtEpilogue_t epilogue;
    bool bias, mask; // are used
    const char *name;
} epilogues[] = {
    [CU_EPILOGUE_NONE] = { CUBLASLT_EPILOGUE_DEFAULT, false, false, "DEFAULT" },
    [CU_EPILOGUE_BIAS] = { CUBLASLT_EPILOGUE_BIAS, true, false, "BIAS" },
    [CU_EPILOGUE_RELU] = { CUBLASLT_EPILOGUE_RELU_BIAS, true, false, "RELU_BIAS" },
    [CU_EPILOGUE_RELU_MASK] = { CUBLASLT_EPILOGUE_RELU_AUX_BIAS, true, true, "RELU_AUX_BIAS" },
    [CU_EPILOGUE_MASKED] = { CUBLASLT_EPILOGUE_DRELU, false, true, "DRELU" },
    [CU_EPILOGUE_MASKED_SUMS] = { CUBLASLT_EPILOGUE_DRELU_BGRAD, true, true, "DRELU_BGRAD" },
    [CU_EPILOGUE_A_SUMS] = { CUBLASLT_EPILOGUE_BGRADA, true, false, "BGRADA" },
};
_Static_assert(sizeof epilogues / sizeof *epilogues == CU_EPILOGUE_COUNT, "each epilogue as the library has it");

typedef struct plan {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t choice;
} plan;

static void plan_finish(plan *p)
{
    if (p->preference)
        lt.cublasLtMatmulPreferenceDestroy(p->preference);
    if (p->a)
        lt.cublasLtMatrixLayoutDestroy(p->a);
    if (p->b)
        lt.cublasLtMatrixLayoutDestroy(p->b);
    if (p->d)
        lt.cublasLtMatrixLayoutDestroy(p->d);
    if (p->desc)
        lt.cublasLtMatmulDescDestroy(p->desc);
}

static bool layout_create(cublasLtMatrixLayout_t *layout, uint32_t rows, uint32_t columns, bool turned)
{
    uint32_t stored_rows = turned ? columns : rows, stored_columns = turned ? rows : columns;
    return lt.cublasLtMatrixLayoutCreate(layout, CUDA_R_32F, stored_rows, stored_columns, stored_rows) ==
           CUBLAS_STATUS_SUCCESS;
}

#define SET_DESC(attribute, value)                                                                                     \
    (lt.cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_##attribute, &(value), sizeof(value)) ==          \
     CUBLAS_STATUS_SUCCESS)

static bool describe_epilogue(plan *p, const cu_product *what)
{
    const cublasLtEpilogue_t epilogue = epilogues[what->epilogue].epilogue;
    const void *bias = (const void *)(uintptr_t)what->bias, *mask = (const void *)(uintptr_t)what->mask;
    const int64_t stride = (int64_t)mask_stride(what->m);
    return SET_DESC(EPILOGUE, epilogue) && (!epilogues[what->epilogue].bias || SET_DESC(BIAS_POINTER, bias)) &&
           (!epilogues[what->epilogue].mask ||
            (SET_DESC(EPILOGUE_AUX_POINTER, mask) && SET_DESC(EPILOGUE_AUX_LD, stride)));
}

static bool describe(plan *p, const cu_product *what)
{
    const cublasOperation_t a = what->a_turned ? CUBLAS_OP_T : CUBLAS_OP_N,
                            b = what->b_turned ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasComputeType_t compute = what->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    return lt.cublasLtMatmulDescCreate(&p->desc, compute, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS && SET_DESC(TRANSA, a) &&
           SET_DESC(TRANSB, b) && describe_epilogue(p, what) &&
           layout_create(&p->a, what->m, what->k, what->a_turned) &&
           layout_create(&p->b, what->k, what->n, what->b_turned) && layout_create(&p->d, what->m, what->n, false);
}

// The library's first choice among the algorithms whose sums have a fixed order: it depends on the shape, the epilogue
// and the device alone, so equal products are computed alike.
static bool choose(cu_library *library, plan *p)
{
    const uint32_t schemes =
        CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_INPLACE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const uint64_t workspace = WORKSPACE_SIZE;
    int count = 0;
#define SET(attribute, value)                                                                                          \
    (lt.cublasLtMatmulPreferenceSetAttribute(p->preference, CUBLASLT_MATMUL_PREF_##attribute, &(value),                \
                                             sizeof(value)) == CUBLAS_STATUS_SUCCESS)
    return lt.cublasLtMatmulPreferenceCreate(&p->preference) == CUBLAS_STATUS_SUCCESS &&
           SET(REDUCTION_SCHEME_MASK, schemes) && SET(MAX_WORKSPACE_BYTES, workspace) &&
           lt.cublasLtMatmulAlgoGetHeuristic(library->handle, p->desc, p->a, p->b, p->d, p->d, p->preference, 1,
                                             &p->choice, &count) == CUBLAS_STATUS_SUCCESS &&
           count > 0 && p->choice.state == CUBLAS_STATUS_SUCCESS;
#undef SET
}

// One attribute of an algorithm; -1 where the library does not tell.
static int configured(const plan *p, cublasLtMatmulAlgoConfigAttributes_t attribute)
{
    int value;
    size_t written = 0;
    cublasStatus_t status =
        lt.cublasLtMatmulAlgoConfigGetAttribute(&p->choice.algo, attribute, &value, sizeof value, &written);
    return status == CUBLAS_STATUS_SUCCESS && written == sizeof value ? value : -1;
}

static void log_choice(const cu_device *dev, const char *name, const cu_product *what, const plan *p)
{
    lf_log(LF_LOG_DEBUG,
           "%s: %s %ux%ux%u by %s: %s%s, algorithm %d, tile %d, stages %d, split %d, reduction %d, workspace %zu",
           dev->base.info.name, name, what->n, what->m, what->k, lt.version, epilogues[what->epilogue].name,
           what->tf32 ? ", tf32" : "", configured(p, CUBLASLT_ALGO_CONFIG_ID),
           configured(p, CUBLASLT_ALGO_CONFIG_TILE_ID), configured(p, CUBLASLT_ALGO_CONFIG_STAGES_ID),
           configured(p, CUBLASLT_ALGO_CONFIG_SPLITK_NUM), configured(p, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME),
           p->choice.workspaceSize);
}

static cublasStatus_t multiply(cu_device *dev, const plan *p, const cu_product *what)
{
    const float one = 1, zero = 0;
    const void *a = (const void *)(uintptr_t)what->a, *b = (const void *)(uintptr_t)what->b;
    void *d = (void *)(uintptr_t)what->d, *workspace = (void *)(uintptr_t)dev->library->workspace;
    return lt.cublasLtMatmul(dev->library->handle, p->desc, &one, a, p->a, b, p->b, &zero, d, p->d, d, p->d,
                             &p->choice.algo, workspace, WORKSPACE_SIZE, (cudaStream_t)dev->compute);
}

// The library may have done what cannot be captured; the capture is over then all the same.
static bool is_of_capture(CUresult result)
{
    return result >= CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED && result <= CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
}

static bool capture(cu_device *dev, const plan *p, const cu_product *what, CUgraph *graph, lf_error *err)
{
    // Relaxed, for the library may load its code now.
    CUresult result = cu.StreamBeginCapture(dev->compute, CU_STREAM_CAPTURE_MODE_RELAXED);
    if (result != CUDA_SUCCESS)
        return cu_fail(dev, err, result, "cannot capture a product");
    cublasStatus_t status = multiply(dev, p, what);
    result = cu.StreamEndCapture(dev->compute, graph);
    if (result != CUDA_SUCCESS) {
        *graph = NULL;
        return is_of_capture(result) || cu_fail(dev, err, result, "cannot capture a product");
    }
    if (status != CUBLAS_STATUS_SUCCESS) {
        cu.GraphDestroy(*graph);
        *graph = NULL;
    }
    return true;
}

bool cu_library_capture(cu_device *dev, const char *name, const cu_product *what, CUgraph *graph, lf_error *err)
{
    plan p = { 0 };
    bool well = true;
    *graph = NULL;
    if (describe(&p, what) && choose(dev->library, &p))
        well = capture(dev, &p, what, graph, err);
    if (*graph)
        log_choice(dev, name, what, &p);
    else
        lf_log(LF_LOG_DEBUG, "%s: %s %ux%ux%u: %s refuses %s%s", dev->base.info.name, name, what->n, what->m, what->k,
               lt.version, epilogues[what->epilogue].name, what->tf32 ? ", tf32" : "");
    plan_finish(&p);
    return well;
}

// ---- opening it on a device

// Whether the relu lets NaN through, as ours does: NaN in the loss is how a training that has gone wrong is found, and
// cublasLt.h says max(x, 0), which may be either. Asked once, of a product of a usual size of which all is NaN.
static bool ask_about_nan(cu_device *dev, lf_error *err)
{
    enum { M = 512, N = 512, K = 128, FACTOR = M * K * 4, ALL = 2 * FACTOR + M * N * 4 };
    _Static_assert((int)M == (int)N, "factors of one size");
    CUdeviceptr memory;
    plan p = { 0 };
    float first = 0;
    CUresult result = cu.MemAlloc(&memory, ALL);
    if (result != CUDA_SUCCESS)
        return cu_fail(dev, err, result, "cannot allocate %d bytes to try cuBLASLt", ALL);
    const cu_product what = { .a = memory,
                              .b = memory + FACTOR,
                              .d = memory + 2 * FACTOR,
                              .bias = memory, // NaN too
                              .m = M,
                              .n = N,
                              .k = K,
                              .epilogue = CU_EPILOGUE_RELU };
    result = cu.MemsetD8Async(memory, 0xff, 2 * FACTOR, dev->compute);
    if (result == CUDA_SUCCESS)
        result = cu.MemsetD8Async(what.d, 0, M * N * 4, dev->compute);
    if (result == CUDA_SUCCESS && describe(&p, &what) && choose(dev->library, &p))
        multiply(dev, &p, &what);
    plan_finish(&p);
    if (result == CUDA_SUCCESS)
        result = cu.MemcpyDtoHAsync(&first, what.d, sizeof first, dev->compute);
    if (result == CUDA_SUCCESS)
        result = cu.StreamSynchronize(dev->compute);
    cu.MemFree(memory);
    dev->library->keeps_nan = first != first;
    if (!dev->library->keeps_nan)
        lf_log(LF_LOG_DEBUG, "%s: the relu of %s does not let NaN through, so it is not used", dev->base.info.name,
               lt.version);
    return result == CUDA_SUCCESS || cu_fail(dev, err, result, "cannot try cuBLASLt");
}

static bool give_workspace(cu_device *dev, lf_error *err)
{
    CUresult result = cu.MemAlloc(&dev->library->workspace, WORKSPACE_SIZE);
    if (result == CUDA_SUCCESS)
        return true;
    dev->library->workspace = 0;
    return cu_fail(dev, err, result, "cannot allocate %zu bytes for cuBLASLt to work in", WORKSPACE_SIZE);
}

bool cu_library_open(cu_device *dev, lf_error *err)
{
    if (dev->library_tried)
        return true;
    const char *version = cu_library_version();
    if (!lt.there) {
        dev->library_tried = true;
        return true;
    }
    dev->library = calloc(1, sizeof *dev->library);
    if (!dev->library) {
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", dev->base.info.name);
        return false;
    }
    cublasStatus_t status = lt.cublasLtCreate(&dev->library->handle);
    const bool starts = status == CUBLAS_STATUS_SUCCESS;
    if (!starts) {
        dev->library->handle = NULL;
        lf_log(LF_LOG_WARN, "%s: %s does not start (status %d), so large products take longer", dev->base.info.name,
               version, (int)status);
    }
    dev->library_tried = !starts || (give_workspace(dev, err) && ask_about_nan(dev, err));
    if (!starts || !dev->library_tried) {
        cu_library_destroy(dev->library);
        dev->library = NULL;
    }
    return dev->library_tried;
}

bool cu_library_has_relu(const cu_library *library)
{
    return library->keeps_nan;
}

#else // a toolkit without cuBLASLt

const char *cu_library_version(void)
{
    return "no cuBLASLt";
}

void cu_library_destroy(cu_library *library)
{
    (void)library;
}

bool cu_library_open(cu_device *dev, lf_error *err)
{
    (void)dev, (void)err;
    return true;
}

bool cu_library_has_relu(const cu_library *library)
{
    (void)library;
    return false;
}

bool cu_library_capture(cu_device *dev, const char *name, const cu_product *what, CUgraph *graph, lf_error *err)
{
    (void)dev, (void)name, (void)what, (void)err;
    *graph = NULL;
    return true;
}

#endif
