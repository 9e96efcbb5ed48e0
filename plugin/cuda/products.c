// Which of a program's products go through cuBLASLt, with which epilogue, and what is then left to kernels of our own.
// All others, and all where it is not found, are kernels of our own: below so many multiply-adds these are as fast.
//
// yᵀ = kernelᵀ·xᵀ is asked for, which counted by columns is kernel (outputs, inputs) times x (inputs, rows), and
// likewise the gradients.
//
// A layer's relu leaves a mask of one bit an element, and the product that makes the gradient to the relu's output
// applies it on its way to memory. Without it a sweep of our own follows, which reads that gradient and the relu's
// output and writes the gradient again: 12 bytes an element of the batch, against 1/8 written and 1/8 read. Of a layer
// of 4096 and 8192 rows that is 403 MB against 8 MB, some 120 µs of an H100's memory beside a product of 5.8 ms, or of
// 0.7 ms in tf32. The sums of the masked gradient over its rows, which are the gradient to the layer's bias, come
// along; the linear_dw then needs none. The mask is the exec's, so that it lasts from one submission to the next, and
// what is fused depends on the program alone, not on how its run is cut.
//
// gelu stays with kernels of our own: the library's is the approximation by tanh, ours has the error function.
#include <stdint.h>
#include <stdlib.h>

#include "cuda/library.h"

#define LEAST_WORK ((uint64_t)1 << 26) // multiply-adds

static const size_t NONE = SIZE_MAX; // no operation

typedef struct plan {
    cu_fused fused;
    uint64_t mask; // address. linear: to be written; linear_dx: to be read. 0: none
    size_t relu;   // linear_dx: the linear with the relu that it goes back through, or NONE
    size_t dw;     // linear_dx: the operation whose bias's gradient it can sum on the way, or NONE
    bool summed;   // linear_dw: that is done
} plan;

struct cu_products {
    const lf_program *program;
    const uint64_t *address; // of the regions; while it is made
    plan *plans;             // of the operations
    CUdeviceptr masks;       // 0: none
};

// ---- what belongs together

static uint64_t least_work(void)
{
    const char *text = getenv("LAVAFLOW_CUBLASLT_FROM");
    return text && *text ? strtoull(text, NULL, 10) : LEAST_WORK;
}

static bool is_large(const lf_op *op)
{
    bool multiplies = op->kind == LF_OP_LINEAR || op->kind == LF_OP_LINEAR_DX || op->kind == LF_OP_LINEAR_DW;
    return multiplies && (uint64_t)op->rows * op->inputs * op->outputs >= least_work();
}

static bool touches(const lf_program *prog, const lf_op *op, lf_tensor_id id, bool reads_too)
{
    const lf_op_info *info = lf_op_info_of(op->kind);
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++) {
        const lf_tensor *tensor = lf_op_tensor(prog, op, i);
        if (tensor && (reads_too || info->operands[i].written) && lf_tensors_overlap(tensor, &prog->tensors[id]))
            return true;
    }
    return false;
}

// The linear with the relu that a linear_dx goes back through, if it is what wrote that relu's output.
static size_t find_relu(const lf_program *prog, size_t dx)
{
    const lf_op *op = &prog->ops[dx];
    const lf_tensor_id saved = op->operands[LF_LINEAR_DX_SAVED];
    size_t i = dx;
    if (op->activation != LF_ACT_RELU)
        return NONE;
    while (i-- > 0)
        if (touches(prog, &prog->ops[i], saved, false))
            break;
    if (i == NONE)
        return NONE;
    const lf_op *linear = &prog->ops[i];
    bool is_it = linear->kind == LF_OP_LINEAR && linear->activation == LF_ACT_RELU && is_large(linear) &&
                 linear->operands[LF_LINEAR_Y] == saved && linear->operands[LF_LINEAR_Z] == LF_NO_TENSOR;
    return is_it ? i : NONE;
}

// The linear_dw that takes what a linear_dx gives, if nobody touches its bias's gradient, or changes what it takes,
// between them.
static size_t find_dw(const lf_program *prog, size_t dx)
{
    const lf_tensor_id dy = prog->ops[dx].operands[LF_LINEAR_DX_DX];
    size_t dw = dx + 1;
    while (dw < prog->op_count &&
           (prog->ops[dw].kind != LF_OP_LINEAR_DW || prog->ops[dw].operands[LF_LINEAR_DW_DY] != dy))
        dw++;
    if (dw == prog->op_count || !is_large(&prog->ops[dw]))
        return NONE;
    for (size_t i = dx + 1; i < dw; i++)
        if (touches(prog, &prog->ops[i], dy, false) ||
            touches(prog, &prog->ops[i], prog->ops[dw].operands[LF_LINEAR_DW_DBIAS], true))
            return NONE;
    return dw;
}

// Finds what belongs together, and returns the bytes of the masks.
static size_t pair(const cu_library *library, cu_products *products)
{
    const lf_program *prog = products->program;
    size_t bytes = 0;
    for (size_t i = 0; i < prog->op_count; i++) {
        plan *p = &products->plans[i];
        const bool is_dx = prog->ops[i].kind == LF_OP_LINEAR_DX && is_large(&prog->ops[i]);
        p->relu = is_dx && cu_library_has_relu(library) ? find_relu(prog, i) : NONE;
        p->dw = p->relu != NONE ? find_dw(prog, i) : NONE;
        if (p->relu != NONE)
            bytes += cu_mask_bytes(prog->ops[p->relu].outputs, prog->ops[p->relu].rows);
    }
    return bytes;
}

static bool place_masks(cu_device *dev, cu_products *products, lf_error *err)
{
    const lf_program *prog = products->program;
    const size_t bytes = pair(dev->library, products);
    CUresult result = bytes ? cu.MemAlloc(&products->masks, bytes) : CUDA_SUCCESS;
    if (result != CUDA_SUCCESS) {
        products->masks = 0;
        return cu_fail(dev, err, result, "cannot allocate %zu bytes for the masks of relus", bytes);
    }
    uint64_t at = products->masks;
    for (size_t i = 0; i < prog->op_count; i++) {
        plan *p = &products->plans[i], *relu = p->relu != NONE ? &products->plans[p->relu] : NULL;
        if (relu && !relu->mask) {
            relu->mask = at;
            at += cu_mask_bytes(prog->ops[p->relu].outputs, prog->ops[p->relu].rows);
        }
        if (relu)
            p->mask = relu->mask;
    }
    return true;
}

// ---- one operation

typedef struct maker {
    cu_device *dev;
    cu_products *products;
    size_t index;
    const lf_op *op;
    const struct lf_call *call;
    lf_error *err;
} maker;

// A way to compute an operation: what the library does, and the operation of ours, of the same rows, that does the
// rest.
typedef struct way {
    cu_epilogue epilogue;
    lf_op_kind rest; // LF_OP_COUNT: nothing is left
} way;

static bool lower_rest(const maker *m, lf_op_kind kind, cu_fused *fused)
{
    const lf_program *prog = m->products->program;
    const lf_tensor_id *of = m->op->operands;
    lf_op rest = *m->op;
    rest.kind = kind;
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++)
        rest.operands[i] = LF_NO_TENSOR;
    if (kind == LF_OP_ACTIVATION) {
        const bool keeps = of[LF_LINEAR_Z] != LF_NO_TENSOR;
        rest.operands[LF_ACTIVATION_X] = of[keeps ? LF_LINEAR_Z : LF_LINEAR_Y];
        rest.operands[LF_ACTIVATION_Y] = of[LF_LINEAR_Y];
    } else if (kind == LF_OP_ACTIVATION_DX) {
        rest.outputs = rest.inputs;
        rest.operands[LF_ACTIVATION_DX_DY] = rest.operands[LF_ACTIVATION_DX_DX] = of[LF_LINEAR_DX_DX];
        rest.operands[LF_ACTIVATION_DX_SAVED] = of[LF_LINEAR_DX_SAVED];
    } else {
        rest.operands[LF_COLUMN_SUMS_X] = of[LF_LINEAR_DW_DY];
        rest.operands[LF_COLUMN_SUMS_SCHEDULE] = prog->schedule;
        rest.operands[LF_COLUMN_SUMS_OUT] = of[LF_LINEAR_DW_DBIAS];
    }
    fused->has_rest = true;
    return cu_lower(prog, &rest, m->products->address, &fused->rest, m->err);
}

// The first way that the library takes. None: *taken is CU_EPILOGUE_COUNT. False: something failed.
static bool take(const maker *m, cu_product what, const way *ways, unsigned count, cu_epilogue *taken)
{
    plan *p = &m->products->plans[m->index];
    what.mask = p->mask;
    what.tf32 = m->products->program->params.tf32;
    *taken = CU_EPILOGUE_COUNT;
    for (unsigned i = 0; i < count; i++) {
        what.epilogue = ways[i].epilogue;
        if (!cu_library_capture(m->dev, lf_op_info_of(m->op->kind)->name, &what, &p->fused.graph, m->err))
            return false;
        if (!p->fused.graph)
            continue;
        *taken = what.epilogue;
        return ways[i].rest == LF_OP_COUNT || lower_rest(m, ways[i].rest, &p->fused);
    }
    return true;
}

static bool make_linear(const maker *m)
{
    const lf_op *op = m->op;
    const unsigned long long *at = m->call->operand;
    const bool keeps = op->operands[LF_LINEAR_Z] != LF_NO_TENSOR,
               relu = op->activation == LF_ACT_RELU && !keeps && cu_library_has_relu(m->dev->library);
    const cu_product what = { .a = at[LF_LINEAR_KERNEL],
                              .b = at[LF_LINEAR_X],
                              .d = at[keeps ? LF_LINEAR_Z : LF_LINEAR_Y],
                              .bias = at[LF_LINEAR_BIAS],
                              .m = op->outputs,
                              .n = op->rows,
                              .k = op->inputs };
    plan *p = &m->products->plans[m->index];
    way ways[3];
    unsigned count = 0;
    cu_epilogue taken;
    if (p->mask)
        ways[count++] = (way){ CU_EPILOGUE_RELU_MASK, LF_OP_COUNT };
    if (relu)
        ways[count++] = (way){ CU_EPILOGUE_RELU, LF_OP_COUNT };
    ways[count++] = (way){ CU_EPILOGUE_BIAS, keeps || op->activation ? LF_OP_ACTIVATION : LF_OP_COUNT };
    bool well = take(m, what, ways, count, &taken);
    for (size_t i = m->index; i < m->products->program->op_count && taken != CU_EPILOGUE_RELU_MASK; i++)
        if (m->products->plans[i].relu == m->index)
            m->products->plans[i].mask = 0; // nobody writes it
    return well;
}

static bool make_linear_dx(const maker *m)
{
    const lf_op *op = m->op;
    const unsigned long long *at = m->call->operand;
    plan *p = &m->products->plans[m->index];
    cu_product what = { .a = at[LF_LINEAR_DX_KERNEL],
                        .b = at[LF_LINEAR_DX_DY],
                        .d = at[LF_LINEAR_DX_DX],
                        .m = op->inputs,
                        .n = op->rows,
                        .k = op->outputs,
                        .a_turned = true };
    way ways[3];
    unsigned count = 0;
    cu_epilogue taken;
    if (p->mask && p->dw != NONE) {
        const lf_program *prog = m->products->program;
        const lf_tensor *bias = lf_op_tensor(prog, &prog->ops[p->dw], LF_LINEAR_DW_DBIAS);
        what.bias = m->products->address[bias->region] + bias->offset;
        ways[count++] = (way){ CU_EPILOGUE_MASKED_SUMS, LF_OP_COUNT };
    }
    if (p->mask)
        ways[count++] = (way){ CU_EPILOGUE_MASKED, LF_OP_COUNT };
    ways[count++] = (way){ CU_EPILOGUE_NONE, op->activation ? LF_OP_ACTIVATION_DX : LF_OP_COUNT };
    bool well = take(m, what, ways, count, &taken);
    if (taken == CU_EPILOGUE_MASKED_SUMS)
        m->products->plans[p->dw].summed = true;
    return well;
}

static bool make_linear_dw(const maker *m)
{
    static const way with_sums[] = { { CU_EPILOGUE_A_SUMS, LF_OP_COUNT }, { CU_EPILOGUE_NONE, LF_OP_COLUMN_SUMS } },
                     without[] = { { CU_EPILOGUE_NONE, LF_OP_COUNT } };
    const unsigned long long *at = m->call->operand;
    const cu_product what = { .a = at[LF_LINEAR_DW_DY],
                              .b = at[LF_LINEAR_DW_X],
                              .d = at[LF_LINEAR_DW_DKERNEL],
                              .bias = at[LF_LINEAR_DW_DBIAS],
                              .m = m->op->outputs,
                              .n = m->op->inputs,
                              .k = m->op->rows,
                              .b_turned = true };
    cu_epilogue taken;
    return m->products->plans[m->index].summed ? take(m, what, without, 1, &taken)
                                               : take(m, what, with_sums, 2, &taken);
}

static bool make(cu_device *dev, cu_products *products, size_t index, lf_error *err)
{
    const lf_op *op = &products->program->ops[index];
    cu_launch launch;
    maker m = {
        .dev = dev,
        .products = products,
        .index = index,
        .op = op,
        .call = &launch.call,
        .err = err,
    };
    if (!is_large(op))
        return true;
    if (!cu_lower(products->program, op, products->address, &launch, err))
        return false;
    return op->kind == LF_OP_LINEAR      ? make_linear(&m)
           : op->kind == LF_OP_LINEAR_DX ? make_linear_dx(&m)
                                         : make_linear_dw(&m);
}

// ---- a program

static bool has_large(const lf_program *prog)
{
    bool has = false;
    for (size_t i = 0; i < prog->op_count; i++)
        has = has || is_large(&prog->ops[i]);
    return has;
}

static bool make_all(cu_device *dev, cu_products *products, lf_error *err)
{
    bool well = place_masks(dev, products, err);
    for (size_t i = 0; well && i < products->program->op_count; i++)
        well = make(dev, products, i, err);
    return well;
}

bool cu_products_create(cu_device *dev, const lf_program *prog, const uint64_t address[LF_REGION_COUNT],
                        cu_products **made, lf_error *err)
{
    *made = NULL;
    if (!has_large(prog))
        return true;
    if (!cu_library_open(dev, err))
        return false;
    if (!dev->library)
        return true;
    cu_products *products = calloc(1, sizeof *products);
    plan *plans = calloc(prog->op_count, sizeof *plans);
    if (!products || !plans) {
        free(products);
        free(plans);
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", dev->base.info.name);
        return false;
    }
    *products = (cu_products){ .program = prog, .address = address, .plans = plans };
    if (make_all(dev, products, err)) {
        *made = products;
        return true;
    }
    cu_products_destroy(products);
    return false;
}

const cu_fused *cu_products_find(const cu_products *products, size_t op)
{
    return products && products->plans[op].fused.graph ? &products->plans[op].fused : NULL;
}

void cu_products_destroy(cu_products *products)
{
    if (!products)
        return;
    for (size_t i = 0; i < products->program->op_count; i++)
        if (products->plans[i].fused.graph)
            cu.GraphDestroy(products->plans[i].fused.graph);
    if (products->masks)
        cu.MemFree(products->masks);
    free(products->plans);
    free(products);
}
