// Which programs small_steps can run, and its launch.
#include "cuda/small.h"

#include "program/small.h"
#include "small_layout.h"

static void set_params(const lf_program *prog, const lf_small *model, struct lf_call *call)
{
    call->kernel_1 = lf_small_place(prog, model->linear[0], LF_LINEAR_KERNEL);
    call->kernel_2 = lf_small_place(prog, model->linear[1], LF_LINEAR_KERNEL);
    call->bias_1 = lf_small_place(prog, model->linear[0], LF_LINEAR_BIAS);
    call->bias_2 = lf_small_place(prog, model->linear[1], LF_LINEAR_BIAS);
    call->weight_decay = model->kernel_decay;
    call->bias_decay = model->bias_decay;
}

static void set_update(const lf_small *model, struct lf_call *call)
{
    const lf_op *op = model->update;
    call->adam = model->optimizer == LF_OP_ADAM;
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

static void set_operands(const lf_program *prog, const lf_small *model, const uint64_t address[LF_REGION_COUNT],
                         struct lf_call *call)
{
    const lf_tensor_id operands[LF_SMALL_SCRATCH] = {
        [LF_SMALL_DATA] = model->gather->operands[LF_GATHER_DATA],
        [LF_SMALL_TARGETS] = model->gather->operands[LF_GATHER_TARGETS],
        [LF_SMALL_SCALING] = model->gather->operands[LF_GATHER_SCALING],
        [LF_SMALL_ORDER] = model->gather->operands[LF_GATHER_ORDER],
        [LF_SMALL_SCHEDULE] = prog->schedule,
        [LF_SMALL_PARAMS] = prog->weights,
        [LF_SMALL_M] = prog->moment[LF_MOMENT_M],
        [LF_SMALL_V] = prog->moment[LF_MOMENT_V],
        [LF_SMALL_METRICS] = model->loss->operands[LF_LOSS_METRICS],
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
    lf_small model;
    if (!lf_small_find(prog, &model))
        return false;
    const lf_op *first = model.linear[0], *loss = model.loss;
    lf_dtype stored = lf_op_tensor(prog, model.gather, LF_GATHER_DATA)->type;
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
    if (!units || (stored != LF_U8 && stored != LF_F32))
        return false;
    struct lf_small_layout at =
        lf_small_layout_of(batch, call.inputs, units, call.outputs, (uint32_t)lf_dtype_size(stored));
    if ((size_t)at.size * sizeof(float) > shared)
        return false;
    set_params(prog, &model, &call);
    set_update(&model, &call);
    set_operands(prog, &model, address, &call);
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
