// Which programs small_steps can run, and its launch.
#include "cuda/small.h"

#include <stdlib.h>
#include <string.h>

#include "small_layout.h"

enum { GATHER, LINEAR_1, LINEAR_2, LOSS, DW_2, DX_2, DW_1, UPDATE, OPS };

static lf_tensor_id operand(const lf_program *prog, unsigned op, unsigned number)
{
    return prog->ops[op].operands[number];
}

static bool same(const lf_program *prog, unsigned op, unsigned number, unsigned other, unsigned other_number)
{
    return operand(prog, op, number) == operand(prog, other, other_number);
}

static bool has_the_operations(const lf_program *prog)
{
    static const lf_op_kind kinds[UPDATE] = { LF_OP_GATHER,    LF_OP_LINEAR,    LF_OP_LINEAR,   LF_OP_CROSS_ENTROPY,
                                              LF_OP_LINEAR_DW, LF_OP_LINEAR_DX, LF_OP_LINEAR_DW };
    if (prog->real != LF_F32 || prog->exchange_count || prog->op_count < OPS || prog->op_count > OPS + 1)
        return false;
    for (unsigned i = 0; i < UPDATE; i++)
        if (prog->ops[i].kind != kinds[i] || prog->ops[i].rows != prog->params.batch)
            return false;
    return true;
}

// The operations are joined as those of two layers are.
static bool is_two_layers(const lf_program *prog)
{
    lf_tensor_id saved = operand(prog, LINEAR_1, LF_LINEAR_Z);
    if (saved == LF_NO_TENSOR)
        saved = operand(prog, LINEAR_1, LF_LINEAR_Y);
    const lf_op *dx = &prog->ops[DX_2], *first = &prog->ops[LINEAR_1];
    return same(prog, GATHER, LF_GATHER_X, LINEAR_1, LF_LINEAR_X) &&
           same(prog, GATHER, LF_GATHER_Y, LOSS, LF_LOSS_TARGET) &&
           same(prog, LINEAR_1, LF_LINEAR_Y, LINEAR_2, LF_LINEAR_X) &&
           same(prog, LINEAR_2, LF_LINEAR_Y, LOSS, LF_LOSS_Z) && prog->ops[LINEAR_2].activation == LF_ACT_NONE &&
           dx->activation == first->activation &&
           (dx->activation == LF_ACT_NONE || dx->operands[LF_LINEAR_DX_SAVED] == saved) &&
           same(prog, LOSS, LF_LOSS_DZ, DW_2, LF_LINEAR_DW_DY) && same(prog, LOSS, LF_LOSS_DZ, DX_2, LF_LINEAR_DX_DY) &&
           same(prog, DW_2, LF_LINEAR_DW_X, LINEAR_2, LF_LINEAR_X) &&
           same(prog, DX_2, LF_LINEAR_DX_KERNEL, LINEAR_2, LF_LINEAR_KERNEL) &&
           same(prog, DX_2, LF_LINEAR_DX_DX, DW_1, LF_LINEAR_DW_DY) &&
           same(prog, DW_1, LF_LINEAR_DW_X, GATHER, LF_GATHER_X) &&
           operand(prog, LOSS, LF_LOSS_WEIGHTS) == LF_NO_TENSOR && operand(prog, LOSS, LF_LOSS_TEACHER) == LF_NO_TENSOR;
}

// The update of a tensor of parameters: its operation, or NULL.
static const lf_op *update_of(const lf_program *prog, const lf_tensor *param)
{
    for (size_t i = UPDATE; i < prog->op_count; i++) {
        const lf_tensor *range = lf_op_tensor(prog, &prog->ops[i], LF_UPDATE_PARAMS);
        if (param->offset >= range->offset && param->offset < range->offset + lf_tensor_bytes(range))
            return &prog->ops[i];
    }
    return NULL;
}

static bool is_plain_update(const lf_program *prog, const lf_op *op)
{
    const lf_tensor *grads = lf_op_tensor(prog, op, LF_UPDATE_GRADS);
    return (op->kind == LF_OP_SGD || op->kind == LF_OP_ADAM) && op->kind == prog->ops[UPDATE].kind &&
           grads->offset == lf_op_tensor(prog, op, LF_UPDATE_PARAMS)->offset && // not a sum behind them
           op->clip_value == 0 && op->operands[LF_UPDATE_SCALE] == LF_NO_TENSOR;
}

static uint32_t place_of(const lf_tensor *param)
{
    return (uint32_t)(param->offset / sizeof(float));
}

// What becomes of the parameters: the places of the four tensors, and the decays of kernels and of biases.
static bool set_params(const lf_program *prog, struct lf_call *call)
{
    const lf_tensor *kernels[2], *biases[2];
    for (unsigned i = 0; i < 2; i++) {
        kernels[i] = lf_op_tensor(prog, &prog->ops[LINEAR_1 + i], LF_LINEAR_KERNEL);
        biases[i] = lf_op_tensor(prog, &prog->ops[LINEAR_1 + i], LF_LINEAR_BIAS);
    }
    const lf_op *of_kernels = update_of(prog, kernels[0]), *of_biases = update_of(prog, biases[0]);
    if (!of_kernels || !of_biases || of_kernels != update_of(prog, kernels[1]) ||
        of_biases != update_of(prog, biases[1]))
        return false;
    call->kernel_1 = place_of(kernels[0]);
    call->kernel_2 = place_of(kernels[1]);
    call->bias_1 = place_of(biases[0]);
    call->bias_2 = place_of(biases[1]);
    call->weight_decay = of_kernels->weight_decay;
    call->bias_decay = of_biases->weight_decay;
    return true;
}

static void set_update(const lf_op *op, struct lf_call *call)
{
    call->adam = op->kind == LF_OP_ADAM;
    call->decoupled = op->decoupled;
    call->nesterov = op->nesterov;
    call->beta1 = op->beta1;
    call->beta2 = op->beta2;
    call->eps = op->eps;
    call->momentum = op->momentum;
}

static uint64_t address_of(const lf_program *prog, lf_tensor_id id, const uint64_t address[LF_REGION_COUNT])
{
    return id == LF_NO_TENSOR ? 0 : address[prog->tensors[id].region] + prog->tensors[id].offset;
}

static void set_operands(const lf_program *prog, const uint64_t address[LF_REGION_COUNT], struct lf_call *call)
{
    const lf_tensor_id operands[LF_SMALL_SCRATCH] = {
        [LF_SMALL_DATA] = operand(prog, GATHER, LF_GATHER_DATA),
        [LF_SMALL_TARGETS] = operand(prog, GATHER, LF_GATHER_TARGETS),
        [LF_SMALL_SCALING] = operand(prog, GATHER, LF_GATHER_SCALING),
        [LF_SMALL_ORDER] = operand(prog, GATHER, LF_GATHER_ORDER),
        [LF_SMALL_SCHEDULE] = prog->schedule,
        [LF_SMALL_PARAMS] = prog->weights,
        [LF_SMALL_M] = prog->moment[LF_MOMENT_M],
        [LF_SMALL_V] = prog->moment[LF_MOMENT_V],
        [LF_SMALL_METRICS] = operand(prog, LOSS, LF_LOSS_METRICS),
        [LF_SMALL_OUTPUT] = prog->output,
    };
    for (unsigned i = 0; i < LF_SMALL_SCRATCH; i++)
        call->operand[i] = address_of(prog, operands[i], address);
}

// The units of a block; 0: none would do.
static uint32_t units_of(uint32_t hidden, uint32_t blocks)
{
    for (uint32_t units = 4; units <= 8; units *= 2)
        if (hidden % units == 0 && hidden / units <= blocks)
            return units;
    return 0;
}

bool cu_small_fits(const lf_program *prog, const uint64_t address[LF_REGION_COUNT], size_t shared, uint32_t blocks,
                   cu_small *small)
{
    const char *fuse = getenv("LAVAFLOW_FUSE");
    if ((fuse && !strcmp(fuse, "0")) || !has_the_operations(prog) || !is_two_layers(prog))
        return false;
    for (size_t i = UPDATE; i < prog->op_count; i++)
        if (!is_plain_update(prog, &prog->ops[i]))
            return false;
    const lf_op *first = &prog->ops[LINEAR_1], *loss = &prog->ops[LOSS];
    lf_dtype stored = lf_op_tensor(prog, &prog->ops[GATHER], LF_GATHER_DATA)->type;
    uint32_t units = units_of(first->outputs, blocks < LF_SMALL_STEPS_BLOCKS ? blocks : LF_SMALL_STEPS_BLOCKS),
             batch = prog->params.batch;
    struct lf_call call = { .batch = batch,
                            .inputs = first->inputs,
                            .outputs = loss->outputs,
                            .hidden = first->outputs,
                            .stored = stored,
                            .activation = first->activation,
                            .alpha = first->alpha,
                            .label_smoothing = loss->label_smoothing,
                            .saves_z = first->operands[LF_LINEAR_Z] != LF_NO_TENSOR };
    if (!units || (stored != LF_U8 && stored != LF_F32) || !set_params(prog, &call))
        return false;
    struct lf_small_layout at =
        lf_small_layout_of(batch, call.inputs, units, call.outputs, (uint32_t)lf_dtype_size(stored));
    if ((size_t)at.size * sizeof(float) > shared)
        return false;
    set_update(&prog->ops[UPDATE], &call);
    set_operands(prog, address, &call);
    uint32_t lanes = 1, count = call.hidden / units;
    while (lanes < 32 && lanes < call.outputs)
        lanes *= 2;
    *small = (cu_small){ .launch = { .kernel = CU_KERNEL_SMALL_STEPS,
                                     .call = call,
                                     .grid = { count, 1, 1 },
                                     .block = { lanes, LF_SMALL_STEPS_THREADS / lanes, 1 },
                                     .shared = at.size * (uint32_t)sizeof(float) },
                         .scratch = LF_SMALL_FLAGS_BYTES + (size_t)2 * count * at.classes * sizeof(float),
                         .zeroed = LF_SMALL_FLAGS_BYTES };
    return true;
}
