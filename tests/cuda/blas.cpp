// A stand-in for cuBLASLt, in the same library as the one for the driver: LAVAFLOW_LIBCUBLASLT names it. Products run
// on the host when the turn of the stream, or of the graph that captured them, comes. It does what cublasLt.h says of
// what the plugin uses, and refuses everything else.
//
// LAVAFLOW_STAND_IN_FAIL=cublasLtMatmul@2=14   as for the driver: a cublasStatus_t
// LAVAFLOW_STAND_IN_REFUSE=134,256             epilogues for which there is no algorithm
#include <stdlib.h>
#include <string.h>

#include "blas.h"

enum { VERSION = 130100, ALIGNMENT = 256, AUX_ALIGNMENT = 16, MASK_STRIDE = 128 };

struct host_handle {
    uint64_t context;
};

struct host_layout {
    cudaDataType_t type;
    uint64_t rows, columns;
    int64_t stride;
};

struct host_preference {
    uint32_t schemes;
    uint64_t workspace;
};

static host_table<host_handle> handles;
static host_table<host_description> descriptions;
static host_table<host_layout> layouts;
static host_table<host_preference> preferences;

// What was made and not destroyed, of the driver too.
extern "C" size_t host_live()
{
    size_t memory = 0;
    for (auto &entry : host.memory)
        memory += !entry.second.pinned;
    return handles.objects.size() + descriptions.objects.size() + layouts.objects.size() + preferences.objects.size() +
           host.graphs.objects.size() + host.execs.objects.size() + memory;
}

template <class Body> static cublasStatus_t blas_call(const char *function, Body body)
{
    std::lock_guard<std::recursive_mutex> guard(host.lock);
    cublasStatus_t failed = (cublasStatus_t)host_injected(function);
    return failed ? failed : body();
}

// ---- what is refused

static bool is_listed(cublasLtEpilogue_t epilogue)
{
    const char *text = getenv("LAVAFLOW_STAND_IN_REFUSE");
    while (text && *text) {
        char *end;
        if (strtoul(text, &end, 10) == (unsigned long)epilogue)
            return true;
        text = *end ? end + 1 : end;
    }
    return false;
}

static bool is_known(cublasLtEpilogue_t epilogue)
{
    static const cublasLtEpilogue_t known[] = {
        CUBLASLT_EPILOGUE_DEFAULT,  CUBLASLT_EPILOGUE_RELU,        CUBLASLT_EPILOGUE_BIAS,
        CUBLASLT_EPILOGUE_RELU_AUX, CUBLASLT_EPILOGUE_RELU_BIAS,   CUBLASLT_EPILOGUE_RELU_AUX_BIAS,
        CUBLASLT_EPILOGUE_DRELU,    CUBLASLT_EPILOGUE_DRELU_BGRAD, CUBLASLT_EPILOGUE_BGRADA,
        CUBLASLT_EPILOGUE_BGRADB,
    };
    for (cublasLtEpilogue_t one : known)
        if (one == epilogue)
            return true;
    return false;
}

static bool is_aligned(const void *at, uint64_t to)
{
    return at && (uint64_t)at % to == 0;
}

static cublasStatus_t check_epilogue(const host_description &how, uint64_t m)
{
    const cublasLtEpilogue_t e = how.epilogue;
    if (!is_known(e) || is_listed(e))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if ((host_has(e, CUBLASLT_EPILOGUE_BIAS) || host_sums(e)) && !is_aligned(how.bias, AUX_ALIGNMENT))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if ((e & 128) &&
        (!is_aligned(how.mask, AUX_ALIGNMENT) || how.mask_stride % MASK_STRIDE || how.mask_stride < (int64_t)m))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return CUBLAS_STATUS_SUCCESS;
}

static bool is_layout(const host_layout *layout)
{
    return layout && layout->rows && layout->columns && layout->stride >= (int64_t)layout->rows;
}

struct host_problem {
    const host_description *how;
    const host_layout *a, *b, *d;
    uint64_t m, n, k;
};

static cublasStatus_t pose(cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                           cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, host_problem *p)
{
    const host_layout *of_c = layouts.find(c);
    *p = { descriptions.find(desc), layouts.find(a), layouts.find(b), layouts.find(d), 0, 0, 0 };
    if (!p->how || !is_layout(p->a) || !is_layout(p->b) || !is_layout(of_c) || !is_layout(p->d))
        return CUBLAS_STATUS_INVALID_VALUE;
    bool turn_a = p->how->turn_a == CUBLAS_OP_T, turn_b = p->how->turn_b == CUBLAS_OP_T;
    p->m = turn_a ? p->a->columns : p->a->rows;
    p->k = turn_a ? p->a->rows : p->a->columns;
    p->n = turn_b ? p->b->rows : p->b->columns;
    if ((turn_b ? p->b->columns : p->b->rows) != p->k || p->d->rows != p->m || p->d->columns != p->n ||
        of_c->rows != p->m || of_c->columns != p->n)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (p->a->type != CUDA_R_32F || p->b->type != CUDA_R_32F || of_c->type != CUDA_R_32F || p->d->type != CUDA_R_32F ||
        p->how->scale != CUDA_R_32F ||
        (p->how->compute != CUBLAS_COMPUTE_32F && p->how->compute != CUBLAS_COMPUTE_32F_FAST_TF32))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return check_epilogue(*p->how, p->m);
}

// What an algorithm is for: it runs nothing else.
static uint64_t sign(const host_problem &p)
{
    uint64_t hash = 1469598103934665603u;
    for (uint64_t part :
         { p.m, p.n, p.k, (uint64_t)p.how->epilogue, (uint64_t)p.how->compute, (uint64_t)p.how->turn_a,
           (uint64_t)p.how->turn_b, (uint64_t)p.a->stride, (uint64_t)p.b->stride, (uint64_t)p.d->stride })
        hash = (hash ^ part) * 1099511628211u;
    return hash;
}

// ---- the functions

size_t cublasLtGetVersion()
{
    return VERSION;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    return blas_call(__func__, [&] {
        if (!host_current_context())
            return CUBLAS_STATUS_NOT_INITIALIZED;
        *handle = handles.add<cublasLtHandle_t>({ host_current() });
        return CUBLAS_STATUS_SUCCESS;
    });
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    return blas_call(__func__,
                     [&] { return handles.remove(handle) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED; });
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute, cudaDataType_t scale)
{
    return blas_call(__func__, [&] {
        *desc = descriptions.add<cublasLtMatmulDesc_t>(
            { compute, scale, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, NULL, NULL, 0 });
        return CUBLAS_STATUS_SUCCESS;
    });
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    return blas_call(__func__,
                     [&] { return descriptions.remove(desc) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE; });
}

template <class Value> static cublasStatus_t set(Value *value, const void *bytes, size_t size)
{
    if (!bytes || size != sizeof *value)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(value, bytes, size);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              const void *bytes, size_t size)
{
    return blas_call(__func__, [&] {
        host_description *found = descriptions.find(desc);
        switch (found ? attribute : CUBLASLT_MATMUL_DESC_COMPUTE_TYPE) {
        case CUBLASLT_MATMUL_DESC_TRANSA:
            return set(&found->turn_a, bytes, size);
        case CUBLASLT_MATMUL_DESC_TRANSB:
            return set(&found->turn_b, bytes, size);
        case CUBLASLT_MATMUL_DESC_EPILOGUE:
            return set(&found->epilogue, bytes, size);
        case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
            return set(&found->bias, bytes, size);
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
            return set(&found->mask, bytes, size);
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
            return set(&found->mask_stride, bytes, size);
        default:
            return CUBLAS_STATUS_INVALID_VALUE;
        }
    });
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t stride)
{
    return blas_call(__func__, [&] {
        *layout = layouts.add<cublasLtMatrixLayout_t>({ type, rows, columns, stride });
        return CUBLAS_STATUS_SUCCESS;
    });
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    return blas_call(__func__,
                     [&] { return layouts.remove(layout) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE; });
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    return blas_call(__func__, [&] {
        *preference = preferences.add<cublasLtMatmulPreference_t>({ CUBLASLT_REDUCTION_SCHEME_MASK, 0 });
        return CUBLAS_STATUS_SUCCESS;
    });
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    return blas_call(
        __func__, [&] { return preferences.remove(preference) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE; });
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void *bytes,
                                                    size_t size)
{
    return blas_call(__func__, [&] {
        host_preference *found = preferences.find(preference);
        if (found && attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
            return set(&found->schemes, bytes, size);
        if (found && attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
            return set(&found->workspace, bytes, size);
        return CUBLAS_STATUS_INVALID_VALUE;
    });
}

// One algorithm for each problem; it adds two halves up in the workspace, so it must be allowed that.
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int *count)
{
    return blas_call(__func__, [&]() -> cublasStatus_t {
        const host_preference *allowed = preferences.find(preference);
        host_problem problem;
        *count = 0;
        if (!handles.find(handle))
            return CUBLAS_STATUS_NOT_INITIALIZED;
        if (!allowed || wanted < 1)
            return CUBLAS_STATUS_INVALID_VALUE;
        cublasStatus_t status = pose(desc, a, b, c, d, &problem);
        if (status)
            return status;
        if (allowed->workspace < HOST_BLAS_WORKSPACE || !(allowed->schemes & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE))
            return CUBLAS_STATUS_SUCCESS;
        memset(results, 0, sizeof *results);
        results->algo.data[0] = sign(problem);
        results->workspaceSize = HOST_BLAS_WORKSPACE;
        *count = 1;
        return CUBLAS_STATUS_SUCCESS;
    });
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute, void *bytes,
                                                    size_t size, size_t *written)
{
    return blas_call(__func__, [&] {
        int value = attribute == CUBLASLT_ALGO_CONFIG_ID                 ? (int)(algo->data[0] % 100)
                    : attribute == CUBLASLT_ALGO_CONFIG_SPLITK_NUM       ? 2
                    : attribute == CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE
                                                                         : 0;
        if (!bytes || size != sizeof value || attribute > CUBLASLT_ALGO_CONFIG_STAGES_ID)
            return CUBLAS_STATUS_INVALID_VALUE;
        memcpy(bytes, &value, size);
        *written = size;
        return CUBLAS_STATUS_SUCCESS;
    });
}

static bool is_number(const void *at, float wanted)
{
    return at && *(const float *)at == wanted;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t of_a, const void *b, cublasLtMatrixLayout_t of_b, const void *beta,
                              const void *c, cublasLtMatrixLayout_t of_c, void *d, cublasLtMatrixLayout_t of_d,
                              const cublasLtMatmulAlgo_t *algo, void *workspace, size_t size, cudaStream_t stream)
{
    return blas_call(__func__, [&]() -> cublasStatus_t {
        const host_handle *found = handles.find(handle);
        host_stream *on = host_find_stream((CUstream)stream);
        host_problem p;
        if (!found || found->context != host_current())
            return CUBLAS_STATUS_NOT_INITIALIZED;
        cublasStatus_t status = pose(desc, of_a, of_b, of_c, of_d, &p);
        if (status)
            return status;
        if (!on || !algo || size < HOST_BLAS_WORKSPACE || !is_aligned(workspace, ALIGNMENT))
            return CUBLAS_STATUS_INVALID_VALUE;
        if (algo->data[0] != sign(p) || c != d || !is_number(alpha, 1) || !is_number(beta, 0) ||
            !is_aligned(a, ALIGNMENT) || !is_aligned(b, ALIGNMENT) || !is_aligned(d, ALIGNMENT))
            return CUBLAS_STATUS_NOT_SUPPORTED;
        host_product product = {
            p.m, p.n, p.k, {}, {}, (float *)d, (uint64_t)p.d->stride, *p.how, (unsigned char *)workspace, host_current()
        };
        product.a = { (const float *)a, p.a->rows, p.a->columns, (uint64_t)p.a->stride, p.how->turn_a == CUBLAS_OP_T };
        product.b = { (const float *)b, p.b->rows, p.b->columns, (uint64_t)p.b->stride, p.how->turn_b == CUBLAS_OP_T };
        host_queue(
            on, [product] { return host_product_run(product); }, workspace);
        return CUBLAS_STATUS_SUCCESS;
    });
}
