// Large products through cuBLASLt, where its library is found at run time; all others, and all where it is not, are
// kernels of our own.
//
// cuBLASLt counts columns first: a row-major matrix is its own transpose there. So yᵀ = kernelᵀ·xᵀ is asked for, which
// in its terms is kernel (outputs, inputs) times x (inputs, rows), and likewise the gradients.
#include "cuda/internal.h"

#include <stdlib.h>

#if __has_include(<cublasLt.h>)

#include <cublasLt.h>
#include <dlfcn.h>
#include <string.h>

#include "abi.h"
#include "core/log.h"

#define WORKSPACE_SIZE ((size_t)32 << 20)
#define LEAST_WORK     ((uint64_t)1 << 26) // multiply-adds; below it a launch of our own is as fast

#define LT_FUNCTIONS(X)                                                                                                \
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

struct cu_products {
    void *library;
#define FIELD(name) __typeof__(&name) name;
    LT_FUNCTIONS(FIELD)
#undef FIELD
    cublasLtHandle_t handle;
    cublasComputeType_t compute; // of the program whose products are made
    CUdeviceptr workspace;       // of the one that runs
};

// D (m, n) = A (m, k) · B (k, n), columns first.
typedef struct product {
    uint64_t a, b, d, bias; // addresses; bias 0: none
    uint32_t m, n, k;
    bool a_turned, b_turned; // lies in memory as its transpose
    cublasLtEpilogue_t epilogue;
} product;

// ---- the library

static void *open_library(void)
{
    static const char *const names[] = { "libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so" };
    const char *asked = getenv("LAVAFLOW_LIBCUBLASLT");
    void *library = NULL;
    if (asked && *asked)
        return dlopen(asked, RTLD_NOW | RTLD_LOCAL);
    for (unsigned i = 0; i < sizeof names / sizeof *names && !library; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    return library;
}

static bool find_functions(cu_products *lt)
{
    bool all = true;
#define FIND(name)                                                                                                     \
    {                                                                                                                  \
        void *address = dlsym(lt->library, #name);                                                                     \
        memcpy(&lt->name, &address, sizeof address);                                                                   \
        all = all && address;                                                                                          \
    }
    LT_FUNCTIONS(FIND)
#undef FIND
    return all;
}

void cu_products_destroy(cu_products *lt)
{
    if (!lt)
        return;
    if (lt->handle)
        lt->cublasLtDestroy(lt->handle);
    if (lt->workspace)
        cu.MemFree(lt->workspace);
    free(lt); // the library stays: it does not unload cleanly
}

// At the first large product of a device. NULL: without the library.
static cu_products *products_create(cu_device *dev)
{
    const char *why = "it was not found";
    cu_products *lt = calloc(1, sizeof *lt);
    if (!lt)
        return NULL;
    lt->library = open_library();
    if (lt->library)
        why = "it is not of version 12 or 13";
    if (lt->library && find_functions(lt)) {
        why = "it does not start";
        if (lt->cublasLtCreate(&lt->handle) != CUBLAS_STATUS_SUCCESS)
            lt->handle = NULL;
        else if (cu.MemAlloc(&lt->workspace, WORKSPACE_SIZE) == CUDA_SUCCESS)
            return lt;
        lt->workspace = 0;
    }
    lf_log(LF_LOG_DEBUG, "%s: large products without cuBLASLt: %s", dev->base.info.name, why);
    cu_products_destroy(lt);
    return NULL;
}

// ---- one product

typedef struct plan {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t choice;
} plan;

static void plan_finish(cu_products *lt, plan *p)
{
    if (p->preference)
        lt->cublasLtMatmulPreferenceDestroy(p->preference);
    if (p->a)
        lt->cublasLtMatrixLayoutDestroy(p->a);
    if (p->b)
        lt->cublasLtMatrixLayoutDestroy(p->b);
    if (p->d)
        lt->cublasLtMatrixLayoutDestroy(p->d);
    if (p->desc)
        lt->cublasLtMatmulDescDestroy(p->desc);
}

static bool layout_create(cu_products *lt, cublasLtMatrixLayout_t *layout, uint32_t rows, uint32_t columns, bool turned)
{
    uint32_t stored_rows = turned ? columns : rows, stored_columns = turned ? rows : columns;
    return lt->cublasLtMatrixLayoutCreate(layout, CUDA_R_32F, stored_rows, stored_columns, stored_rows) ==
           CUBLAS_STATUS_SUCCESS;
}

static bool describe(cu_products *lt, plan *p, const product *what)
{
    const cublasOperation_t a = what->a_turned ? CUBLAS_OP_T : CUBLAS_OP_N,
                            b = what->b_turned ? CUBLAS_OP_T : CUBLAS_OP_N;
    const void *bias = (const void *)(uintptr_t)what->bias;
#define SET(attribute, value)                                                                                          \
    (lt->cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_##attribute, &(value), sizeof(value)) ==         \
     CUBLAS_STATUS_SUCCESS)
    return lt->cublasLtMatmulDescCreate(&p->desc, lt->compute, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS && SET(TRANSA, a) &&
           SET(TRANSB, b) && SET(EPILOGUE, what->epilogue) && (!bias || SET(BIAS_POINTER, bias)) &&
           layout_create(lt, &p->a, what->m, what->k, what->a_turned) &&
           layout_create(lt, &p->b, what->k, what->n, what->b_turned) &&
           layout_create(lt, &p->d, what->m, what->n, false);
#undef SET
}

// The library's first choice among the algorithms whose sums have a fixed order: it depends on the shape alone, so
// equal shapes are computed alike.
static bool choose(cu_products *lt, plan *p)
{
    const uint32_t schemes =
        CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_INPLACE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const size_t workspace = WORKSPACE_SIZE;
    int count = 0;
#define SET(attribute, value)                                                                                          \
    (lt->cublasLtMatmulPreferenceSetAttribute(p->preference, CUBLASLT_MATMUL_PREF_##attribute, &(value),               \
                                              sizeof(value)) == CUBLAS_STATUS_SUCCESS)
    return lt->cublasLtMatmulPreferenceCreate(&p->preference) == CUBLAS_STATUS_SUCCESS &&
           SET(REDUCTION_SCHEME_MASK, schemes) && SET(MAX_WORKSPACE_BYTES, workspace) &&
           lt->cublasLtMatmulAlgoGetHeuristic(lt->handle, p->desc, p->a, p->b, p->d, p->d, p->preference, 1, &p->choice,
                                              &count) == CUBLAS_STATUS_SUCCESS &&
           count > 0 && p->choice.state == CUBLAS_STATUS_SUCCESS;
#undef SET
}

static CUgraph capture(cu_device *dev, const plan *p, const product *what)
{
    cu_products *lt = dev->products;
    const float one = 1, zero = 0;
    const void *a = (const void *)(uintptr_t)what->a, *b = (const void *)(uintptr_t)what->b;
    void *d = (void *)(uintptr_t)what->d, *workspace = (void *)(uintptr_t)lt->workspace;
    CUgraph graph = NULL;
    if (cu.StreamBeginCapture(dev->compute, CU_STREAM_CAPTURE_MODE_RELAXED) != CUDA_SUCCESS)
        return NULL;
    cublasStatus_t status = lt->cublasLtMatmul(lt->handle, p->desc, &one, a, p->a, b, p->b, &zero, d, p->d, d, p->d,
                                               &p->choice.algo, workspace, WORKSPACE_SIZE, (cudaStream_t)dev->compute);
    if (cu.StreamEndCapture(dev->compute, &graph) != CUDA_SUCCESS)
        return NULL;
    if (status == CUBLAS_STATUS_SUCCESS)
        return graph;
    cu.GraphDestroy(graph);
    return NULL;
}

static CUgraph make(cu_device *dev, const char *op, const product *what)
{
    plan p = { 0 };
    int id = -1;
    size_t written;
    CUgraph graph = NULL;
    if (describe(dev->products, &p, what) && choose(dev->products, &p))
        graph = capture(dev, &p, what);
    if (graph)
        dev->products->cublasLtMatmulAlgoConfigGetAttribute(&p.choice.algo, CUBLASLT_ALGO_CONFIG_ID, &id, sizeof id,
                                                            &written);
    lf_log(LF_LOG_DEBUG, "%s: %s %ux%ux%u: cuBLASLt algorithm %d", dev->base.info.name, op, what->n, what->m, what->k,
           id);
    plan_finish(dev->products, &p);
    return graph;
}

// ---- operations

// What the library's epilogues cannot do is left to a kernel of our own. Its GELU is an approximation.
static bool lower_rest(const lf_program *prog, const lf_op *op, lf_op_kind kind, uint32_t width,
                       const lf_tensor_id operands[3], const uint64_t address[LF_REGION_COUNT], cu_rest *rest)
{
    lf_op activation = *op; // of the same place, rows and activation
    activation.kind = kind;
    activation.inputs = activation.outputs = width;
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++)
        activation.operands[i] = i < 3 ? operands[i] : LF_NO_TENSOR;
    rest->needed = true;
    return cu_lower(prog, &activation, address, &rest->launch, NULL);
}

static product describe_linear(const lf_op *op, const struct lf_call *call, bool fused)
{
    return (product){ .a = call->operand[LF_LINEAR_KERNEL],
                      .b = call->operand[LF_LINEAR_X],
                      .d = call->operand[op->operands[LF_LINEAR_Z] == LF_NO_TENSOR ? LF_LINEAR_Y : LF_LINEAR_Z],
                      .bias = call->operand[LF_LINEAR_BIAS],
                      .m = op->outputs,
                      .n = op->rows,
                      .k = op->inputs,
                      .epilogue = fused ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_BIAS };
}

static product describe_linear_dx(const lf_op *op, const struct lf_call *call)
{
    return (product){ .a = call->operand[LF_LINEAR_DX_KERNEL],
                      .b = call->operand[LF_LINEAR_DX_DY],
                      .d = call->operand[LF_LINEAR_DX_DX],
                      .m = op->inputs,
                      .n = op->rows,
                      .k = op->outputs,
                      .a_turned = true,
                      .epilogue = CUBLASLT_EPILOGUE_DEFAULT };
}

static product describe_linear_dw(const lf_op *op, const struct lf_call *call)
{
    return (product){ .a = call->operand[LF_LINEAR_DW_DY],
                      .b = call->operand[LF_LINEAR_DW_X],
                      .d = call->operand[LF_LINEAR_DW_DKERNEL],
                      .bias = call->operand[LF_LINEAR_DW_DBIAS],
                      .m = op->outputs,
                      .n = op->inputs,
                      .k = op->rows,
                      .b_turned = true,
                      .epilogue = CUBLASLT_EPILOGUE_BGRADA }; // sums of A along k
}

static CUgraph capture_linear(cu_device *dev, const lf_program *prog, const lf_op *op,
                              const uint64_t address[LF_REGION_COUNT], const cu_launch *launch, cu_rest *rest)
{
    const bool keeps = op->operands[LF_LINEAR_Z] != LF_NO_TENSOR;
    const bool fused = op->activation == LF_ACT_RELU && !keeps;
    const lf_tensor_id y = op->operands[LF_LINEAR_Y],
                       operands[] = { keeps ? op->operands[LF_LINEAR_Z] : y, y, LF_NO_TENSOR };
    const product what = describe_linear(op, &launch->call, fused);
    if ((keeps || (op->activation != LF_ACT_NONE && !fused)) &&
        !lower_rest(prog, op, LF_OP_ACTIVATION, op->outputs, operands, address, rest))
        return NULL;
    return make(dev, "linear", &what);
}

static CUgraph capture_linear_dx(cu_device *dev, const lf_program *prog, const lf_op *op,
                                 const uint64_t address[LF_REGION_COUNT], const cu_launch *launch, cu_rest *rest)
{
    const lf_tensor_id dx = op->operands[LF_LINEAR_DX_DX], operands[] = { dx, op->operands[LF_LINEAR_DX_SAVED], dx };
    const product what = describe_linear_dx(op, &launch->call);
    if (op->activation != LF_ACT_NONE &&
        !lower_rest(prog, op, LF_OP_ACTIVATION_DX, op->inputs, operands, address, rest))
        return NULL;
    return make(dev, "linear_dx", &what);
}

static bool is_large(const lf_op *op)
{
    bool multiplies = op->kind == LF_OP_LINEAR || op->kind == LF_OP_LINEAR_DX || op->kind == LF_OP_LINEAR_DW;
    return multiplies && (uint64_t)op->rows * op->inputs * op->outputs >= LEAST_WORK;
}

CUgraph cu_product_capture(cu_device *dev, const lf_program *prog, const lf_op *op,
                           const uint64_t address[LF_REGION_COUNT], const cu_launch *launch, cu_rest *rest)
{
    rest->needed = false;
    if (!is_large(op))
        return NULL;
    if (!dev->products_tried)
        dev->products = products_create(dev);
    dev->products_tried = true;
    if (!dev->products)
        return NULL;
    dev->products->compute = prog->params.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    if (op->kind == LF_OP_LINEAR)
        return capture_linear(dev, prog, op, address, launch, rest);
    if (op->kind == LF_OP_LINEAR_DX)
        return capture_linear_dx(dev, prog, op, address, launch, rest);
    const product what = describe_linear_dw(op, &launch->call);
    return make(dev, "linear_dw", &what);
}

#else // a toolkit without cuBLASLt

void cu_products_destroy(cu_products *products)
{
    (void)products;
}

CUgraph cu_product_capture(cu_device *dev, const lf_program *prog, const lf_op *op,
                           const uint64_t address[LF_REGION_COUNT], const cu_launch *launch, cu_rest *rest)
{
    (void)dev, (void)prog, (void)op, (void)address, (void)launch;
    rest->needed = false;
    return NULL;
}

#endif
