// An operation of a program becomes a launch: its kernel's number, its shape, and the grid of blocks.
#include "cuda/lower.h"

#include <stddef.h>

#include "core/random.h"

_Static_assert(LF_CALL_OPERANDS >= LF_OPERAND_MAX, "a place for each operand");
_Static_assert((int)LF_STORED_U8 == LF_U8 && (int)LF_STORED_I8 == LF_I8 && (int)LF_STORED_U16 == LF_U16 &&
                   (int)LF_STORED_I16 == LF_I16 && (int)LF_STORED_U32 == LF_U32 && (int)LF_STORED_I32 == LF_I32 &&
                   (int)LF_STORED_F32 == LF_F32,
               "kernels number the types as the host does");

static const char *const names[] = {
    [LF_OP_GATHER] = "lf_gather",
    [LF_OP_LINEAR] = "lf_linear",
    [LF_OP_ACTIVATION] = "lf_activation",
    [LF_OP_CROSS_ENTROPY] = "lf_cross_entropy",
    [LF_OP_VALUE_LOSS] = "lf_value_loss",
    [LF_OP_ACTIVATION_DX] = "lf_activation_dx",
    [LF_OP_LINEAR_DX] = "lf_linear_dx",
    [LF_OP_LINEAR_DW] = "lf_linear_dw",
    [LF_OP_LINEAR_UPDATE] = "", // programs are not fused here
    [LF_OP_LINEAR_LOSS] = "",
    [LF_OP_SGD] = "lf_sgd",
    [LF_OP_ADAM] = "lf_adam",
    [LF_OP_RMSPROP] = "lf_rmsprop",
    [LF_OP_LION] = "lf_lion",
    [LF_OP_LAMB] = "lf_lamb",
    [LF_OP_DROPOUT] = "lf_dropout",
    [LF_OP_ADD] = "lf_add",
    [LF_OP_LAYER_NORM] = "lf_layer_norm",
    [LF_OP_LAYER_NORM_DX] = "lf_layer_norm_dx",
    [LF_OP_BATCH_STATS] = "lf_batch_stats",
    [LF_OP_BATCH_NORM] = "lf_batch_norm",
    [LF_OP_BATCH_NORM_DX] = "lf_batch_norm_dx",
    [LF_OP_NORM_DW] = "lf_norm_dw",
    [LF_OP_GATHER_ROWS] = "lf_gather_rows",
    [LF_OP_DISTILL] = "lf_distill",
    [LF_OP_SOFTEN] = "lf_soften",
    [LF_OP_ACCUMULATE] = "lf_accumulate",
    [LF_OP_SUM_SQUARES] = "lf_sum_squares",
    [LF_OP_CLIP] = "lf_clip",
    [LF_OP_TRUST] = "lf_trust",
    [LF_OP_AVERAGE] = "lf_average",
    [LF_OP_SUM] = "lf_sum",
    [LF_OP_COLUMN_SUMS] = "lf_column_sums",
    [LF_OP_BATCH_TOTALS] = "lf_batch_totals",
    [CU_KERNEL_LINEAR_MIDDLE] = "lf_linear_middle",
    [CU_KERNEL_LINEAR_DX_MIDDLE] = "lf_linear_dx_middle",
    [CU_KERNEL_LINEAR_DW_MIDDLE] = "lf_linear_dw_middle",
    [CU_KERNEL_LINEAR_WIDE] = "lf_linear_wide",
    [CU_KERNEL_LINEAR_DX_WIDE] = "lf_linear_dx_wide",
    [CU_KERNEL_LINEAR_DW_WIDE] = "lf_linear_dw_wide",
    [CU_KERNEL_SMALL_STEPS] = "lf_small_steps",
    [CU_KERNEL_ADVANCE] = "lf_advance",
};
_Static_assert(sizeof names / sizeof *names == CU_KERNEL_COUNT, "a name for each kernel");

const char *cu_kernel_name(unsigned kernel)
{
    return names[kernel];
}

// A launch while it is made: the grid's sides may not fit yet.
typedef struct cut {
    cu_launch *launch;
    uint64_t across, down; // blocks along x and y
} cut;

static uint64_t divide_up(uint64_t n, uint64_t by)
{
    return (n + by - 1) / by;
}

static void set_block(cut *c, uint32_t across, uint32_t down)
{
    c->launch->block[0] = across;
    c->launch->block[1] = down;
}

// A thread for each group of four; see sweep.cuh.
static void cut_sweep(cut *c, uint64_t threads)
{
    set_block(c, LF_SWEEP_THREADS, 1);
    c->across = divide_up(threads, LF_SWEEP_THREADS);
}

// `items` of every row are shared out to at most `most` lanes; see lanes.cuh.
static void cut_rows(cut *c, uint64_t rows, uint64_t items, uint32_t most)
{
    uint32_t lanes = 1;
    while (lanes < most && lanes < items)
        lanes *= 2;
    set_block(c, lanes, LF_LANES_THREADS / lanes);
    c->across = divide_up(rows, c->launch->block[1]);
}

// See columns.cuh. Where columns are summed, a block takes all rows.
static void cut_columns(cut *c, const lf_op *op, bool sums)
{
    const uint32_t most = sums ? LF_COLUMN_THREADS / LF_COLUMN_LANES : 8;
    uint32_t bands = 1;
    while (bands < most && bands < op->rows)
        bands *= 2;
    set_block(c, LF_COLUMN_LANES, bands);
    c->launch->shared = sums ? LF_COLUMN_LANES * bands * (uint32_t)sizeof(float) : 0;
    c->across = sums ? 1 : divide_up(op->rows, bands * LF_COLUMN_ROWS);
    c->down = divide_up(op->outputs, LF_COLUMN_LANES);
}

typedef struct product_cut {
    uint32_t tile, threads, shared;
} product_cut;

// The biggest tiles of which a device of some hundred multiprocessors still gets enough; see product.cuh.
static void cut_product(cut *c, uint64_t rows, uint64_t columns)
{
    static const product_cut cuts[] = { { LF_SMALL_TILE, LF_SMALL_THREADS, LF_SMALL_SHARED },
                                        { LF_MIDDLE_TILE, LF_MIDDLE_THREADS, LF_MIDDLE_SHARED },
                                        { LF_WIDE_TILE, LF_WIDE_THREADS, LF_WIDE_SHARED } };
    static const unsigned kernels[LF_OP_COUNT][3] = {
        [LF_OP_LINEAR] = { LF_OP_LINEAR, CU_KERNEL_LINEAR_MIDDLE, CU_KERNEL_LINEAR_WIDE },
        [LF_OP_LINEAR_DX] = { LF_OP_LINEAR_DX, CU_KERNEL_LINEAR_DX_MIDDLE, CU_KERNEL_LINEAR_DX_WIDE },
        [LF_OP_LINEAR_DW] = { LF_OP_LINEAR_DW, CU_KERNEL_LINEAR_DW_MIDDLE, CU_KERNEL_LINEAR_DW_WIDE },
    };
    enum { ENOUGH = 64 };
    unsigned size = sizeof cuts / sizeof *cuts - 1;
    while (size > 0 && (rows < cuts[size].tile || columns < cuts[size].tile ||
                        divide_up(rows, cuts[size].tile) * divide_up(columns, cuts[size].tile) < ENOUGH))
        size--;
    c->launch->kernel = kernels[c->launch->kernel][size];
    set_block(c, cuts[size].threads, 1);
    c->launch->shared = cuts[size].shared;
    c->across = divide_up(rows, cuts[size].tile);
    c->down = divide_up(columns, cuts[size].tile);
}

// clip and trust: one block of warps; see scale.cuh.
static void cut_scale(cut *c)
{
    set_block(c, 32, LF_LANES_THREADS / 32);
    c->launch->shared = LF_LANES_THREADS / 32 * (uint32_t)sizeof(float);
}

static void cut_op(cut *c, const lf_op *op)
{
    switch (op->kind) {
    case LF_OP_GATHER:
        cut_rows(c, op->rows, divide_up(op->inputs, 4), LF_LANES_THREADS);
        break;
    case LF_OP_GATHER_ROWS:
        cut_rows(c, op->rows, op->outputs, LF_LANES_THREADS);
        break;
    case LF_OP_LINEAR:
        cut_product(c, op->rows, op->outputs);
        break;
    case LF_OP_LINEAR_DX:
        cut_product(c, op->rows, op->inputs);
        break;
    case LF_OP_LINEAR_DW:
        cut_product(c, op->inputs, op->outputs);
        break;
    case LF_OP_CROSS_ENTROPY:
    case LF_OP_VALUE_LOSS:
    case LF_OP_DISTILL:
    case LF_OP_SOFTEN:
    case LF_OP_LAYER_NORM:
    case LF_OP_LAYER_NORM_DX:
        cut_rows(c, op->rows, op->outputs, 32);
        break;
    case LF_OP_SUM_SQUARES:
        cut_rows(c, divide_up(op->outputs, LF_SQUARES_CHUNK), LF_SQUARES_CHUNK / 4, 32);
        break;
    case LF_OP_BATCH_STATS:
    case LF_OP_NORM_DW:
    case LF_OP_COLUMN_SUMS:
        cut_columns(c, op, true);
        break;
    case LF_OP_BATCH_NORM:
    case LF_OP_BATCH_NORM_DX:
        cut_columns(c, op, false);
        break;
    case LF_OP_BATCH_TOTALS:
        cut_sweep(c, op->outputs);
        break;
    case LF_OP_CLIP:
    case LF_OP_TRUST:
        cut_scale(c);
        break;
    case LF_OP_ACTIVATION:
    case LF_OP_ACTIVATION_DX:
    case LF_OP_DROPOUT:
    case LF_OP_ADD:
    case LF_OP_SGD:
    case LF_OP_ADAM:
    case LF_OP_RMSPROP:
    case LF_OP_LION:
    case LF_OP_LAMB:
    case LF_OP_ACCUMULATE:
    case LF_OP_AVERAGE:
    case LF_OP_SUM:
        cut_sweep(c, divide_up((uint64_t)op->rows * op->outputs, 4));
        break;
    case LF_OP_LINEAR_UPDATE:
    case LF_OP_LINEAR_LOSS:
    case LF_OP_COUNT:
        break;
    }
}

static struct lf_call call_of(const lf_program *prog, const lf_op *op, const uint64_t address[LF_REGION_COUNT])
{
    struct lf_call call = { .rows = op->rows,
                            .row = op->row,
                            .batch = op->batch,
                            .inputs = op->inputs,
                            .outputs = op->outputs,
                            .activation = op->activation,
                            .adds = op->adds,
                            .value = op->value,
                            .training = op->training,
                            .by_row = op->by_row,
                            .decoupled = op->decoupled,
                            .nesterov = op->nesterov,
                            .layer = op->stream,
                            .stream = LF_STREAM_DROPOUT,
                            .alpha = op->alpha,
                            .beta1 = op->beta1,
                            .beta2 = op->beta2,
                            .eps = op->eps,
                            .momentum = op->momentum,
                            .weight_decay = op->weight_decay,
                            .clip_value = op->clip_value,
                            .clip_norm = op->clip_norm,
                            .share = op->share,
                            .delta = op->delta,
                            .label_smoothing = op->label_smoothing,
                            .rate = op->rate,
                            .soft_weight = op->soft_weight,
                            .temperature = op->temperature };
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++) {
        const lf_tensor *tensor = lf_op_tensor(prog, op, i);
        if (tensor)
            call.operand[i] = address[tensor->region] + tensor->offset;
    }
    if (op->kind == LF_OP_GATHER) {
        const lf_tensor *y = lf_op_tensor(prog, op, LF_GATHER_Y);
        call.stored = lf_op_tensor(prog, op, LF_GATHER_DATA)->type;
        call.target_width = y ? y->cols : 0;
    }
    return call;
}

bool cu_lower(const lf_program *prog, const lf_op *op, const uint64_t address[LF_REGION_COUNT], cu_launch *launch,
              lf_error *err)
{
    const uint64_t most_across = INT32_MAX, most_down = 65535; // of a grid, on every device
    *launch = (cu_launch){ .kernel = op->kind, .call = call_of(prog, op, address), .block = { 1, 1, 1 } };
    cut c = { .launch = launch, .across = 1, .down = 1 };
    cut_op(&c, op);
    if (c.across > most_across || c.down > most_down) {
        lf_error_set(err, LF_EUNSUPPORTED, "%s needs %llu x %llu blocks, and %llu x %llu are possible",
                     names[launch->kernel], (unsigned long long)c.across, (unsigned long long)c.down,
                     (unsigned long long)most_across, (unsigned long long)most_down);
        return false;
    }
    launch->grid[0] = (uint32_t)c.across;
    launch->grid[1] = (uint32_t)c.down;
    launch->grid[2] = 1;
    return true;
}

void cu_lower_advance(const lf_program *prog, const uint64_t address[LF_REGION_COUNT], uint32_t steps,
                      cu_launch *launch)
{
    const lf_tensor *schedule = &prog->tensors[prog->schedule];
    *launch = (cu_launch){ .kernel = CU_KERNEL_ADVANCE, .grid = { 1, 1, 1 }, .block = { 1, 1, 1 } };
    launch->call.operand[0] = address[schedule->region] + schedule->offset;
    launch->call.step = steps;
}

void cu_lower_sum(uint64_t x, uint64_t y, size_t n, cu_launch *launch)
{
    *launch = (cu_launch){ .kernel = LF_OP_SUM, .call = { .rows = 1, .outputs = (uint32_t)n }, .block = { 1, 1, 1 } };
    cut c = { .launch = launch, .across = 1, .down = 1 };
    launch->call.operand[LF_SUM_X] = x;
    launch->call.operand[LF_SUM_Y] = y;
    cut_sweep(&c, divide_up(n, 4));
    launch->grid[0] = (uint32_t)c.across;
    launch->grid[1] = launch->grid[2] = 1;
}
