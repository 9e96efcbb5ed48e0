// An operation of a program becomes dispatches: which kernel, cut how, over which memory.
#include <string.h>

#include "abi.h"
#include "core/random.h"
#include "vulkan/internal.h"

static uint32_t divide_up(uint64_t n, uint32_t by)
{
    return (uint32_t)((n + by - 1) / by);
}

static uint32_t float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

// Whether an operand is a range of a block of parameters, which may be longer than what can be bound: the operation
// then becomes several dispatches.
static bool is_cut(const lf_op *op, unsigned operand)
{
    switch (op->kind) {
    case LF_OP_SGD:
    case LF_OP_ADAM:
    case LF_OP_RMSPROP:
    case LF_OP_LION:
    case LF_OP_LAMB:
        return operand >= LF_UPDATE_GRADS && operand <= LF_UPDATE_V;
    case LF_OP_ACCUMULATE:
        return operand != LF_ACCUMULATE_SCHEDULE;
    case LF_OP_AVERAGE:
        return operand != LF_AVERAGE_SCHEDULE;
    case LF_OP_SUM:
        return true;
    case LF_OP_SUM_SQUARES:
        return operand == LF_SUM_SQUARES_X;
    default:
        return false;
    }
}

static uint64_t round_up(uint64_t bytes)
{
    return (bytes + 15) / 16 * 16; // whole groups of four words; tensors start at multiples of 256 bytes
}

static void use(vk_call *call, const lf_program *prog, const lf_op *op, unsigned operand, vk_view view)
{
    const lf_tensor *tensor = lf_op_tensor(prog, op, operand);
    call->operands[operand].view = view; // one that is absent is bound too, to other memory
    if (!tensor)
        return;
    if (tensor->region == LF_REGION_SCHEDULE)
        call->operands[operand].view = VIEW_WORD4; // for all that read it, see schedule.glsl
    call->operands[operand].region = tensor->region;
    call->operands[operand].offset = tensor->offset;
    call->operands[operand].size = round_up(lf_tensor_bytes(tensor));
}

// A grid of `groups` workgroups, folded where one row of them would be too long.
static void set_groups(const vk_device *dev, vk_call *call, uint32_t groups)
{
    uint32_t limit = dev->properties.limits.maxComputeWorkGroupCount[0];
    uint32_t lines = divide_up(groups, limit);
    call->groups[0] = divide_up(groups, lines);
    call->groups[1] = lines;
}

uint32_t vk_stored_kind(lf_dtype stored)
{
    return stored == LF_F32 ? 2 : stored == LF_I8 || stored == LF_I16 || stored == LF_I32;
}

static void lower_gather(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call)
{
    const lf_tensor *y = lf_op_tensor(prog, op, LF_GATHER_Y);
    uint32_t target_words = y ? y->cols : 0;
    lf_dtype stored = lf_op_tensor(prog, op, LF_GATHER_DATA)->type;
    bool quads = op->inputs % 4 == 0;
    use(call, prog, op, LF_GATHER_DATA, VIEW_WORD);
    use(call, prog, op, LF_GATHER_TARGETS, VIEW_WORD);
    use(call, prog, op, LF_GATHER_SCALING, quads ? VIEW_FLOAT4 : VIEW_FLOAT);
    use(call, prog, op, LF_GATHER_ORDER, VIEW_WORD);
    use(call, prog, op, LF_GATHER_SCHEDULE, VIEW_WORD4);
    use(call, prog, op, LF_GATHER_X, VIEW_FLOAT);
    use(call, prog, op, LF_GATHER_Y, VIEW_FLOAT);
    const uint32_t rows = dev->tiles.gather_rows;
    const uint32_t spec[] = { dev->tiles.gather_lanes, quads, 8 * (uint32_t)lf_dtype_size(stored),
                              vk_stored_kind(stored), rows };
    const uint32_t push[] = { 0, op->rows, op->inputs, target_words, op->row };
    memcpy(call->spec, spec, sizeof spec);
    memcpy(call->push, push, sizeof push);
    set_groups(dev, call, divide_up(op->rows, rows));
}

// sum (rows, columns) over depth; see product.glsl.
static void set_product(const vk_device *dev, const lf_op *op, vk_call *call, uint32_t rows, uint32_t columns,
                        uint32_t depth, uint32_t left_width, uint32_t right_width)
{
    vk_cut cut = vk_cut_of(dev, op->kind, rows, columns, depth);
    if (columns <= cut.lanes * 4)
        cut.quads = 1;
    const uint32_t spec[] = { cut.lanes,        cut.bands,           cut.rows,
                              cut.quads,        left_width % 4 == 0, right_width % 4 == 0,
                              columns % 4 == 0, op->activation };
    const uint32_t push[] = { 0, rows, columns, depth, float_bits(op->alpha) };
    memcpy(call->spec, spec, sizeof spec);
    memcpy(call->push, push, sizeof push);
    if (dev->tiles.texel)
        memcpy(call->spec + 13, push + 1, 3 * sizeof *push); // the shape, as constants too
    call->groups[0] = divide_up(columns, cut.lanes * cut.quads * 4);
    call->groups[1] = divide_up(rows, cut.bands * cut.rows);
}

static vk_view float_view(uint32_t width)
{
    return width % 4 == 0 ? VIEW_FLOAT4 : VIEW_FLOAT;
}

static void lower_linear(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call)
{
    set_product(dev, op, call, op->rows, op->outputs, op->inputs, op->inputs, op->outputs);
    use(call, prog, op, LF_LINEAR_X, float_view(op->inputs));
    use(call, prog, op, LF_LINEAR_KERNEL, float_view(op->outputs));
    use(call, prog, op, LF_LINEAR_BIAS, float_view(op->outputs));
    use(call, prog, op, LF_LINEAR_Y, VIEW_FLOAT);
    use(call, prog, op, LF_LINEAR_Z, VIEW_FLOAT);
    call->spec[8] = op->operands[LF_LINEAR_Z] != LF_NO_TENSOR;
}

static void lower_linear_dx(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call)
{
    set_product(dev, op, call, op->rows, op->inputs, op->outputs, op->outputs, op->outputs);
    use(call, prog, op, LF_LINEAR_DX_DY, float_view(op->outputs));
    use(call, prog, op, LF_LINEAR_DX_KERNEL, float_view(op->outputs));
    use(call, prog, op, LF_LINEAR_DX_SAVED, float_view(op->inputs));
    use(call, prog, op, LF_LINEAR_DX_DX, VIEW_FLOAT);
}

static void lower_linear_dw(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call)
{
    set_product(dev, op, call, op->inputs, op->outputs, op->rows, op->inputs, op->outputs);
    use(call, prog, op, LF_LINEAR_DW_X, float_view(op->inputs));
    use(call, prog, op, LF_LINEAR_DW_DY, float_view(op->outputs));
    use(call, prog, op, LF_LINEAR_DW_DKERNEL, VIEW_FLOAT);
    use(call, prog, op, LF_LINEAR_DW_DBIAS, VIEW_FLOAT);
}

static void lower_linear_update(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call)
{
    static const uint32_t rules[] = { [LF_OP_SGD] = LF_RULE_SGD,
                                      [LF_OP_ADAM] = LF_RULE_ADAM,
                                      [LF_OP_RMSPROP] = LF_RULE_RMSPROP,
                                      [LF_OP_LION] = LF_RULE_LION };
    set_product(dev, op, call, op->inputs, op->outputs, op->rows, op->inputs, op->outputs);
    use(call, prog, op, LF_LINEAR_UPDATE_X, float_view(op->inputs));
    use(call, prog, op, LF_LINEAR_UPDATE_SCHEDULE, VIEW_WORD4);
    for (unsigned i = LF_LINEAR_UPDATE_DY; i <= LF_LINEAR_UPDATE_BIAS_V; i++)
        if (i != LF_LINEAR_UPDATE_SCHEDULE)
            use(call, prog, op, i, float_view(op->outputs));
    const uint32_t spec[] = { rules[op->optimizer], op->clip_value > 0, op->decoupled,
                              op->operands[LF_LINEAR_UPDATE_KERNEL_M] != LF_NO_TENSOR, op->nesterov };
    const float push[] = { op->clip_value, op->weight_decay, op->bias_decay, op->momentum, op->beta1,
                           op->beta2,      1 - op->beta1,    1 - op->beta2,  op->eps };
    memcpy(call->spec + 8, spec, sizeof spec);
    memcpy(call->push + 5, push, sizeof push);
}

static void set_sweep(const vk_device *dev, vk_call *call, uint32_t quads)
{
    call->spec[0] = dev->tiles.sweep_lanes;
    call->spec[1] = dev->tiles.sweep_items;
    call->push[1] = quads;
    set_groups(dev, call, divide_up(quads, dev->tiles.sweep_lanes * dev->tiles.sweep_items));
}

static void lower_elementwise(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call)
{
    set_sweep(dev, call, divide_up((uint64_t)op->rows * op->outputs, 4));
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++)
        use(call, prog, op, i, VIEW_FLOAT4);
}

static void lower_activation(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call)
{
    lower_elementwise(dev, prog, op, call);
    call->spec[2] = op->activation;
    call->push[2] = float_bits(op->alpha);
}

static void lower_dropout(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call)
{
    lower_elementwise(dev, prog, op, call);
    call->push[2] = float_bits(op->rate);
    call->push[3] = float_bits(1 / (1 - op->rate));
    call->push[4] = op->stream;
    call->push[5] = LF_STREAM_DROPOUT;
    call->push[6] = op->row * op->outputs / 4;
    call->push[7] = op->row * op->outputs % 4;
}

// Work on rows of the batch; see lanes.glsl.
static void set_rows(const vk_device *dev, const lf_op *op, vk_call *call)
{
    uint32_t lanes = dev->tiles.row_lanes, width = dev->tiles.sweep_lanes;
    call->spec[0] = width;
    call->spec[1] = lanes;
    call->push[1] = op->rows;
    call->push[2] = op->outputs;
    set_groups(dev, call, divide_up((uint64_t)op->rows * lanes, width));
}

static void lower_loss(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call)
{
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++)
        use(call, prog, op, i, VIEW_FLOAT);
    use(call, prog, op, LF_LOSS_TARGET, op->kind == LF_OP_VALUE_LOSS ? VIEW_FLOAT : VIEW_WORD);
    set_rows(dev, op, call);
    call->spec[2] = op->operands[LF_LOSS_DZ] != LF_NO_TENSOR;
    call->spec[3] = op->operands[LF_LOSS_WEIGHTS] != LF_NO_TENSOR;
    call->spec[4] = op->value;
    call->spec[5] = op->operands[LF_LOSS_TEACHER] != LF_NO_TENSOR;
    call->spec[6] = op->adds;
    const float push[] = { op->soft_weight, op->temperature, op->label_smoothing, op->share, op->delta };
    memcpy(call->push + 3, push, sizeof push);
    call->push[8] = op->row;
    call->push[9] = op->batch;
}

// A processor has a row a lane, and one subgroup a workgroup: what it passes round, or the logits in shared memory, are
// those of few rows then.
static void lower_linear_loss(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call)
{
    set_rows(dev, op, call);
    use(call, prog, op, LF_LINEAR_LOSS_X, float_view(op->inputs));
    use(call, prog, op, LF_LINEAR_LOSS_LABEL, VIEW_WORD);
    use(call, prog, op, LF_LINEAR_LOSS_SCHEDULE, VIEW_WORD4);
    use(call, prog, op, LF_LINEAR_LOSS_METRICS, VIEW_FLOAT);
    use(call, prog, op, LF_LINEAR_LOSS_DZ, VIEW_FLOAT);
    use(call, prog, op, LF_LINEAR_LOSS_KERNEL, float_view(op->inputs)); // read so many rows of it at a time
    use(call, prog, op, LF_LINEAR_LOSS_BIAS, VIEW_FLOAT);
    use(call, prog, op, LF_LINEAR_LOSS_SAVED, float_view(op->inputs));
    use(call, prog, op, LF_LINEAR_LOSS_DX, VIEW_FLOAT);
    if (dev->tiles.row_lanes == 1) {
        call->spec[0] = dev->tiles.lanes;
        set_groups(dev, call, divide_up(op->rows, dev->tiles.lanes));
    }
    call->spec[2] = op->outputs;
    call->spec[3] = op->inputs % 4 == 0;
    call->spec[4] = op->operands[LF_LINEAR_LOSS_DX] != LF_NO_TENSOR;
    call->spec[7] = op->activation;
    const float rates[] = { op->label_smoothing, op->alpha };
    call->push[2] = op->inputs;
    memcpy(call->push + 3, rates, sizeof rates);
    call->push[5] = op->row;
    call->push[6] = op->batch;
}

static void lower_soften(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call)
{
    use(call, prog, op, LF_SOFTEN_Z, VIEW_FLOAT);
    use(call, prog, op, LF_SOFTEN_OUT, VIEW_FLOAT);
    set_rows(dev, op, call);
    call->spec[2] = op->adds;
    call->push[3] = float_bits(op->temperature);
    call->push[4] = float_bits(op->share);
}

static void lower_layer_norm(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call)
{
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++)
        use(call, prog, op, i, VIEW_FLOAT);
    set_rows(dev, op, call);
    call->push[3] = float_bits(op->eps);
}

// Work on columns; see columns.glsl. `share`: neighbouring rows of an invocation, 0: the bands share all rows.
static void set_columns(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call, uint32_t share)
{
    const vk_tiles *tiles = &dev->tiles;
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++)
        use(call, prog, op, i, float_view(op->outputs));
    call->spec[0] = tiles->lanes;
    call->spec[1] = tiles->bands;
    call->spec[2] = op->outputs % 4 == 0;
    call->push[1] = op->rows;
    call->push[2] = op->outputs;
    call->groups[0] = divide_up(op->outputs, tiles->lanes * 4);
    call->groups[1] = share ? divide_up(op->rows, tiles->bands * share) : 1;
}

static void lower_batch_stats(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call)
{
    set_columns(dev, prog, op, call, 0);
    call->spec[3] = op->training;
    call->push[3] = float_bits(op->eps);
    call->push[4] = float_bits(op->momentum);
}

static void lower_column_sums(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call)
{
    set_columns(dev, prog, op, call, 0);
    call->spec[3] = op->operands[LF_COLUMN_SUMS_SUM] != LF_NO_TENSOR;
    call->push[3] = op->row;
}

static void lower_batch_totals(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call)
{
    set_columns(dev, prog, op, call, 0);
    call->spec[4] = op->operands[LF_BATCH_TOTALS_STATS] != LF_NO_TENSOR;
    call->spec[5] = op->operands[LF_BATCH_TOTALS_MEAN] != LF_NO_TENSOR;
    call->push[3] = float_bits(op->eps);
    call->push[4] = float_bits(op->momentum);
}

static void lower_norm_dw(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call)
{
    set_columns(dev, prog, op, call, 0);
    if (op->by_row)
        use(call, prog, op, LF_NORM_DW_STATS, VIEW_FLOAT);
    call->spec[3] = op->by_row;
}

static void lower_batch_norm(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call)
{
    set_columns(dev, prog, op, call, dev->tiles.rows);
    call->spec[3] = dev->tiles.rows;
    call->push[3] = op->row;
}

static void lower_gather_rows(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call)
{
    use(call, prog, op, LF_GATHER_ROWS_SOURCE, float_view(op->outputs));
    use(call, prog, op, LF_GATHER_ROWS_ORDER, VIEW_WORD);
    use(call, prog, op, LF_GATHER_ROWS_SCHEDULE, VIEW_WORD4);
    use(call, prog, op, LF_GATHER_ROWS_OUT, VIEW_FLOAT);
    call->spec[0] = dev->tiles.gather_lanes;
    call->spec[1] = op->outputs % 4 == 0;
    call->push[1] = op->rows;
    call->push[2] = op->outputs;
    call->push[3] = op->row;
    set_groups(dev, call, op->rows);
}

// Bytes of a part of a range: whole chunks of sum_squares, whose partial sums then go on from part to part.
static uint64_t part_bytes(const vk_device *dev)
{
    const uint64_t chunk = LF_SQUARES_CHUNK * sizeof(float);
    return vk_max_operand(&dev->properties.limits, &dev->tiles) / chunk * chunk; // Vulkan grants at least 16 chunks
}

// Binds the call's part of the ranges of an operation, and returns its bytes.
static uint64_t use_part(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call)
{
    uint64_t most = part_bytes(dev), from = call->part * most, rest = (uint64_t)op->outputs * sizeof(float) - from;
    uint64_t bytes = rest < most ? rest : most;
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++) {
        use(call, prog, op, i, is_cut(op, i) ? VIEW_FLOAT4 : VIEW_FLOAT);
        if (is_cut(op, i) && call->operands[i].size) {
            call->operands[i].offset += from;
            call->operands[i].size = round_up(bytes);
        }
    }
    return bytes;
}

static void lower_update(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call)
{
    uint64_t bytes = use_part(dev, prog, op, call);
    set_sweep(dev, call, divide_up(bytes, 16));
    call->spec[2] = op->operands[LF_UPDATE_SCALE] != LF_NO_TENSOR;
    call->spec[3] = op->clip_value > 0;
    call->spec[4] = op->decoupled;
    call->spec[5] = op->operands[LF_UPDATE_M] != LF_NO_TENSOR;
    call->spec[6] = op->nesterov;
    const float push[] = { op->clip_value, op->weight_decay, op->momentum,  op->beta1,
                           op->beta2,      1 - op->beta1,    1 - op->beta2, op->eps };
    memcpy(call->push + 2, push, sizeof push);
}

// accumulate, average and sum.
static void lower_block(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call)
{
    uint64_t bytes = use_part(dev, prog, op, call);
    set_sweep(dev, call, divide_up(bytes, 16));
    call->push[2] = float_bits(op->share);
}

// Work of LANES invocations on each of `rows`; see lanes.glsl.
static void set_lanes(const vk_device *dev, vk_call *call, uint32_t rows, uint32_t count)
{
    call->spec[0] = dev->tiles.sweep_lanes;
    call->spec[1] = dev->tiles.row_lanes;
    call->push[1] = count;
    set_groups(dev, call, divide_up((uint64_t)rows * dev->tiles.row_lanes, dev->tiles.sweep_lanes));
}

static void lower_sum_squares(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call)
{
    uint32_t count = (uint32_t)(use_part(dev, prog, op, call) / sizeof(float));
    set_lanes(dev, call, divide_up(count, LF_SQUARES_CHUNK), count);
    call->push[2] = (uint32_t)(call->part * part_bytes(dev) / sizeof(float) / LF_SQUARES_CHUNK);
}

// clip and trust.
static void lower_scale(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call)
{
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++)
        use(call, prog, op, i, VIEW_FLOAT);
    set_lanes(dev, call, 1, op->outputs);
    call->push[2] = float_bits(op->clip_norm);
}

// By kind of operation.
static void (*const lowerings[])(const vk_device *dev, const lf_program *prog, const lf_op *op, vk_call *call) = {
    [LF_OP_GATHER] = lower_gather,
    [LF_OP_LINEAR] = lower_linear,
    [LF_OP_LINEAR_DX] = lower_linear_dx,
    [LF_OP_LINEAR_DW] = lower_linear_dw,
    [LF_OP_LINEAR_UPDATE] = lower_linear_update,
    [LF_OP_LINEAR_LOSS] = lower_linear_loss,
    [LF_OP_ACTIVATION] = lower_activation,
    [LF_OP_ACTIVATION_DX] = lower_activation,
    [LF_OP_ADD] = lower_elementwise,
    [LF_OP_DROPOUT] = lower_dropout,
    [LF_OP_LAYER_NORM] = lower_layer_norm,
    [LF_OP_LAYER_NORM_DX] = lower_layer_norm,
    [LF_OP_BATCH_STATS] = lower_batch_stats,
    [LF_OP_BATCH_NORM] = lower_batch_norm,
    [LF_OP_BATCH_NORM_DX] = lower_batch_norm,
    [LF_OP_COLUMN_SUMS] = lower_column_sums,
    [LF_OP_BATCH_TOTALS] = lower_batch_totals,
    [LF_OP_NORM_DW] = lower_norm_dw,
    [LF_OP_GATHER_ROWS] = lower_gather_rows,
    [LF_OP_CROSS_ENTROPY] = lower_loss,
    [LF_OP_VALUE_LOSS] = lower_loss,
    [LF_OP_DISTILL] = lower_loss,
    [LF_OP_SOFTEN] = lower_soften,
    [LF_OP_SGD] = lower_update,
    [LF_OP_ADAM] = lower_update,
    [LF_OP_RMSPROP] = lower_update,
    [LF_OP_LION] = lower_update,
    [LF_OP_LAMB] = lower_update,
    [LF_OP_ACCUMULATE] = lower_block,
    [LF_OP_AVERAGE] = lower_block,
    [LF_OP_SUM] = lower_block,
    [LF_OP_SUM_SQUARES] = lower_sum_squares,
    [LF_OP_CLIP] = lower_scale,
    [LF_OP_TRUST] = lower_scale,
};
_Static_assert(sizeof lowerings / sizeof *lowerings == LF_OP_COUNT, "each operation is lowered");

uint32_t vk_lower_count(const vk_device *dev, const lf_program *prog, const lf_op *op, lf_error *err)
{
    const char *device = dev->properties.deviceName;
    uint64_t most = vk_max_operand(&dev->properties.limits, &dev->tiles);
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++) {
        const lf_tensor *tensor = lf_op_tensor(prog, op, i);
        if (tensor && !is_cut(op, i) && lf_tensor_bytes(tensor) > most) {
            lf_error_set(err, LF_EUNSUPPORTED,
                         "%s: %s (%u, %u) takes %zu bytes, and an operand may span at most %llu on this device", device,
                         tensor->name, tensor->rows, tensor->cols, lf_tensor_bytes(tensor), (unsigned long long)most);
            return 0;
        }
    }
    if (is_cut(op, LF_UPDATE_GRADS) || is_cut(op, LF_SUM_SQUARES_X))
        return divide_up((uint64_t)op->outputs * sizeof(float), (uint32_t)part_bytes(dev));
    vk_call call;
    vk_lower(dev, prog, op, 0, &call);
    for (unsigned i = 0; i < 2; i++)
        if (call.groups[i] > dev->properties.limits.maxComputeWorkGroupCount[i]) {
            lf_error_set(err, LF_EUNSUPPORTED, "%s: %s needs %u workgroups, and %u are possible on this device", device,
                         vk_kernel_name(op->kind), call.groups[i], dev->properties.limits.maxComputeWorkGroupCount[i]);
            return 0;
        }
    return 1;
}

void vk_lower(const vk_device *dev, const lf_program *prog, const lf_op *op, uint32_t part, vk_call *call)
{
    *call = (vk_call){ .kernel = op->kind, .part = part };
    lowerings[op->kind](dev, prog, op, call);
}

void vk_lower_advance(const lf_program *prog, vk_call *call)
{
    const lf_tensor *schedule = &prog->tensors[prog->schedule];
    *call = (vk_call){ .kernel = KERNEL_ADVANCE, .groups = { 1, 1 } };
    call->operands[0].region = schedule->region;
    call->operands[0].offset = schedule->offset;
    call->operands[0].size = LF_SCHEDULE_HEADER_WORDS * sizeof(uint32_t);
}
