// A program becomes an array of calls bound to memory, in stages: the calls of a stage share one parallel-for, for they
// do not depend on each other, or only row by row (a chain). A step then looks nothing up and allocates nothing.
#include <limits.h>
#include <stdlib.h>

#include "cpu/cpu.h"
#include "cpu/denormal.h"
#include "cpu/panels.h"

typedef struct cpu_stage {
    const cpu_call *calls;
    uint32_t count, blocks; // calls; blocks of all of them, of a chain those of each
    uint32_t segment;
    bool chain; // a block is the same rows of every call, one after the other
} cpu_stage;

typedef struct cpu_exec {
    cpu_call *calls;
    cpu_stage *stages;
    size_t stage_count;
    uint32_t *schedule;  // the region: a header of words, then rows
    lf_program *program; // fused
    cpu_panels panels;
    cpu_sparse *sparse; // of the batch's x; NULL: nobody would use it
} cpu_exec;

// A stage at a step: what the blocks of one parallel-for share.
typedef struct cpu_job {
    const cpu_stage *stage;
    cpu_step step;
} cpu_job;

static void run_block(const void *context, uint32_t block)
{
    const cpu_job *job = context;
    const cpu_call *call = job->stage->calls;
    if (job->stage->chain) {
        for (const cpu_call *end = call + job->stage->count; call < end; call++)
            call->run(call, &job->step, block);
        return;
    }
    while (block >= call->blocks)
        block -= call++->blocks;
    call->run(call, &job->step, block);
}

static uint32_t round_up(uint32_t value, uint32_t unit)
{
    return value / unit * unit + (value % unit ? unit : 0);
}

static uint32_t ceil_div(uint32_t value, uint32_t by)
{
    return value / by + (value % by != 0);
}

// Halves the longer side until a tile of the product is small enough to share out. A million multiply-adds take some
// 20 µs, a handful of times what handing out a block costs, and OpenBLAS has a fast path of its own for up to a
// million. A bigger product is cut into about 32.
static void tile_product(cpu_call *call, uint32_t inner)
{
    enum { UNIT = 16 };
    double all = (double)call->rows * call->cols * inner, target = all / 32 > 1e6 ? all / 32 : 1e6;
    uint32_t rows = call->rows, cols = call->cols;
    while (cols > CPU_TILE_COLS || ((double)rows * cols * inner > target && (rows > UNIT || cols > UNIT))) {
        if (rows > cols)
            rows = round_up(ceil_div(rows, 2), UNIT);
        else
            cols = round_up(ceil_div(cols, 2), UNIT);
    }
    call->tile_rows = rows;
    call->tile_cols = cols;
}

// A product is small enough for our own loops where b (depth, outputs), which they read in place, lies in the caches.
// It is then cut into slices of columns: a thread keeps its part of the weights in its own cache from product to
// product.
static void tile_slices(cpu_call *call, const cpu_kernels *kernels, uint32_t depth, uint32_t unit)
{
    call->by_columns = true;
    call->multiplies =
        kernels->multiplies && call->cols >= CPU_MULTIPLY_COLS && (size_t)depth * call->cols <= (size_t)1 << 20;
    if (!call->multiplies) {
        tile_product(call, depth);
        return;
    }
    uint32_t rows = call->rows;
    call->tile_cols = call->cols < CPU_SLICE ? call->cols : CPU_SLICE;
    while ((double)rows * call->tile_cols * depth > 6e5 && rows > unit)
        rows = round_up(ceil_div(rows, 2), unit);
    call->tile_rows = rows;
}

// Whole rows, about `elements` elements of them.
static void tile_rows(cpu_call *call, uint32_t elements)
{
    uint32_t rows = elements / call->cols;
    call->tile_rows = rows > call->rows ? call->rows : rows ? rows : 1;
    call->tile_cols = call->cols;
}

// A single row of column sums over `rows` rows: strips of whole cache lines, about 16384 elements each.
static void tile_columns(cpu_call *call, uint32_t rows)
{
    enum { UNIT = 64 };
    uint32_t cols = round_up(ceil_div(16384, rows), UNIT);
    call->rows = call->tile_rows = 1;
    call->tile_cols = call->cols < cols ? call->cols : cols;
}

// Multiplications, about, of an operation whose rows have nothing to do with each other; 0: not of that kind.
static double row_work(const lf_op *op)
{
    switch (op->kind) {
    case LF_OP_LINEAR:
    case LF_OP_LINEAR_DX:
        return (double)op->rows * op->inputs * op->outputs;
    case LF_OP_CROSS_ENTROPY:
    case LF_OP_VALUE_LOSS:
    case LF_OP_DISTILL: // exponentials: a rough weight
        return 40. * op->rows * op->outputs;
    case LF_OP_ACTIVATION:
    case LF_OP_ACTIVATION_DX:
    case LF_OP_DROPOUT:
    case LF_OP_LAYER_NORM:
    case LF_OP_LAYER_NORM_DX:
        return 10. * op->rows * op->outputs;
    default:
        return 0;
    }
}

// Small operations that work row by row, as those at the end of a classifier are, go into one chain: there the threads
// meet once, and what one operation leaves in a core's cache is where the next one looks for it. All are cut alike, in
// a chain or not, so that no bit depends on who stands beside them.
static bool is_link(const cpu_call *call)
{
    double work = row_work(&call->op);
    return work > 0 && work <= 1e6 && call->tile_cols == call->cols;
}

static void tile(cpu_call *call, const cpu_kernels *kernels)
{
    enum { SWEEP = 16384, CHAIN_ROWS = 32 };
    _Static_assert(SWEEP % LF_SQUARES_CHUNK == 0, "a block of sum_squares owns whole partial sums");
    const lf_op *op = &call->op;
    call->rows = op->rows;
    call->cols = op->outputs;
    switch (op->kind) {
    case LF_OP_GATHER:
        tile_rows(call, 3200); // some rows: each waits for memory
        break;
    case LF_OP_GATHER_ROWS:
    case LF_OP_ADD:
        tile_rows(call, 16384);
        break;
    case LF_OP_LINEAR:
        tile_slices(call, kernels, op->inputs, 32);
        break;
    case LF_OP_ACTIVATION:
    case LF_OP_ACTIVATION_DX:
    case LF_OP_CROSS_ENTROPY:
    case LF_OP_VALUE_LOSS:
    case LF_OP_DISTILL:
    case LF_OP_SOFTEN:
    case LF_OP_DROPOUT:
    case LF_OP_LAYER_NORM:
    case LF_OP_LAYER_NORM_DX:
    case LF_OP_BATCH_NORM:
    case LF_OP_BATCH_NORM_DX:
        tile_rows(call, 4096);
        break;
    case LF_OP_BATCH_STATS:
    case LF_OP_NORM_DW:
    case LF_OP_COLUMN_SUMS:
        tile_columns(call, op->rows);
        break;
    case LF_OP_BATCH_TOTALS:
        tile_columns(call, 1);
        break;
    case LF_OP_LINEAR_DX:
        call->cols = op->inputs;
        tile_product(call, op->outputs);
        call->multiplies = kernels->multiplies && call->tile_cols == call->cols && call->cols >= CPU_MULTIPLY_COLS &&
                           (size_t)op->inputs * op->outputs <= CPU_TURNED;
        break;
    case LF_OP_LINEAR_DW:
    case LF_OP_LINEAR_UPDATE:
        call->rows = op->inputs;
        tile_slices(call, kernels, op->rows, CPU_CHUNK); // see multiply_lists_turned
        break;
    case LF_OP_SGD:
    case LF_OP_ADAM:
    case LF_OP_RMSPROP:
    case LF_OP_LION:
    case LF_OP_LAMB:
    case LF_OP_ACCUMULATE:
    case LF_OP_SUM_SQUARES:
    case LF_OP_AVERAGE:
    case LF_OP_SUM:
        call->tile_rows = 1;
        call->tile_cols = call->cols < SWEEP ? call->cols : SWEEP;
        break;
    case LF_OP_CLIP:
    case LF_OP_TRUST:
        call->tile_rows = 1;
        call->tile_cols = call->cols;
        break;
    case LF_OP_LINEAR_LOSS: // not asked for
    case LF_OP_COUNT:
        break;
    }
    if (is_link(call))
        call->tile_rows = CHAIN_ROWS;
    call->grid_cols = ceil_div(call->cols, call->tile_cols);
    call->grid_rows = ceil_div(call->rows, call->tile_rows);
    call->blocks = call->grid_rows * call->grid_cols;
}

static bool bind(cpu_call *call, const cpu_kernels *kernels, const lf_program *prog, const lf_op *op,
                 const lf_bindings *regions, lf_error *err)
{
    if (op->rows > INT_MAX || op->inputs > INT_MAX || op->outputs > INT_MAX) { // CBLAS counts in int
        lf_error_set(err, LF_EUNSUPPORTED, "cpu: %s of %u rows, %u inputs, %u outputs: at most %d of each",
                     lf_op_info_of(op->kind)->name, op->rows, op->inputs, op->outputs, INT_MAX);
        return false;
    }
    *call = (cpu_call){ .run = kernels->run[op->kind], .op = *op };
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++) {
        const lf_tensor *tensor = lf_op_tensor(prog, op, i);
        if (tensor)
            call->at[i] = ((cpu_buffer *)regions->region[tensor->region])->memory + tensor->offset;
    }
    if (op->kind == LF_OP_GATHER) {
        const lf_tensor *y = lf_op_tensor(prog, op, LF_GATHER_Y);
        call->stored = lf_op_tensor(prog, op, LF_GATHER_DATA)->type;
        if (y) {
            call->target = lf_op_tensor(prog, op, LF_GATHER_TARGETS)->type;
            call->target_cols = y->cols;
        }
    }
    tile(call, kernels);
    return true;
}

// Whether all that reads the batch's x is a product that takes lists instead.
static bool takes_lists(const cpu_exec *exec, const lf_program *prog)
{
    const lf_op *gather = &prog->ops[0];
    if (prog->real != LF_F32 || !prog->params.fuses || gather->kind != LF_OP_GATHER)
        return false;
    const lf_tensor *x = lf_op_tensor(prog, gather, LF_GATHER_X);
    for (size_t i = 1; i < prog->op_count; i++)
        for (unsigned k = 0; k < LF_OPERAND_MAX; k++) {
            const lf_op *op = &prog->ops[i];
            const lf_tensor *tensor = lf_op_tensor(prog, op, k);
            bool takes = (op->kind == LF_OP_LINEAR && k == LF_LINEAR_X) ||
                         (op->kind == LF_OP_LINEAR_UPDATE && k == LF_LINEAR_UPDATE_X);
            if (tensor && lf_tensors_overlap(tensor, x) &&
                !(takes && exec->calls[i].multiplies && op->outputs % CPU_SLICE == 0))
                return false;
        }
    return true;
}

static bool make_lists(cpu_exec *exec, const lf_program *prog, lf_error *err)
{
    const lf_op *gather = &prog->ops[0];
    if (!takes_lists(exec, prog))
        return true;
    exec->sparse = cpu_sparse_create(gather->rows, gather->inputs);
    if (!exec->sparse) {
        lf_error_set(err, LF_ENOMEM, "cpu: out of memory for a list of %u x %u elements", gather->rows, gather->inputs);
        return false;
    }
    for (size_t i = 0; i < prog->op_count; i++)
        if (i == 0 || exec->calls[i].at[LF_LINEAR_X] == exec->calls[0].at[LF_GATHER_X])
            exec->calls[i].sparse = exec->sparse;
    return true;
}

// A stage ends where the next operation needs a barrier, and at the end of a segment, for they are run one by one too,
// but where steps run whole.
static void cut_stages(cpu_exec *exec, const lf_program *prog)
{
    for (size_t i = 0; i < prog->op_count; i++) {
        const lf_op *op = &prog->ops[i];
        const cpu_call *call = &exec->calls[i];
        cpu_stage *last = exec->stage_count ? &exec->stages[exec->stage_count - 1] : NULL;
        bool goes_on = last && op->segment == last->segment;
        bool links = last && (goes_on || prog->params.fuses) && (last->chain || last->count == 1) && is_link(call) &&
                     is_link(call - 1) && call->rows == call[-1].rows;
        if (!links && (!goes_on || op->barrier || last->chain)) {
            last = &exec->stages[exec->stage_count++];
            *last = (cpu_stage){ .calls = call, .segment = op->segment };
        }
        last->chain = links;
        last->segment = op->segment;
        last->count++;
        last->blocks = links ? call->blocks : last->blocks + call->blocks;
    }
}

lf_exec *cpu_exec_create(lf_device *dev, const lf_program *prog, const lf_bindings *regions, lf_error *err)
{
    const cpu_kernels *kernels = prog->real == LF_F64 ? &cpu_kernels_f64 : ((cpu_device *)dev)->f32;
    lf_program *fused = lf_program_fuse(prog, 0, err);
    if (!fused)
        return NULL;
    prog = fused;
    cpu_exec *exec = calloc(1, sizeof *exec);
    if (exec) {
        exec->program = fused;
        exec->calls = calloc(prog->op_count, sizeof *exec->calls);
        exec->stages = calloc(prog->op_count, sizeof *exec->stages);
    }
    if (!exec || !exec->calls || !exec->stages) {
        lf_error_set(err, LF_ENOMEM, "cpu: out of memory for a program of %zu operations", prog->op_count);
        goto error;
    }
    for (size_t i = 0; i < prog->op_count; i++)
        if (!bind(&exec->calls[i], kernels, prog, &prog->ops[i], regions, err))
            goto error;
    if (!cpu_panels_create(&exec->panels, prog, exec->calls, err))
        goto error;
    if (!make_lists(exec, prog, err))
        goto error;
    cut_stages(exec, prog);
    const lf_tensor *schedule = &prog->tensors[prog->schedule];
    exec->schedule = (uint32_t *)(((cpu_buffer *)regions->region[LF_REGION_SCHEDULE])->memory + schedule->offset);
    return (lf_exec *)exec;
error:
    if (!exec)
        lf_program_destroy(fused);
    cpu_exec_destroy(dev, (lf_exec *)exec);
    return NULL;
}

void cpu_exec_destroy(lf_device *dev, lf_exec *handle)
{
    (void)dev;
    cpu_exec *exec = (cpu_exec *)handle;
    if (!exec)
        return;
    cpu_sparse_destroy(exec->sparse);
    cpu_panels_destroy(&exec->panels);
    lf_program_destroy(exec->program);
    free(exec->stages);
    free(exec->calls);
    free(exec);
}

static const struct lf_schedule_row *row_at(const cpu_exec *exec, size_t index)
{
    return (const struct lf_schedule_row *)(exec->schedule + LF_SCHEDULE_HEADER_WORDS) + index;
}

// The seam cannot see what the schedule holds; a wrong row would read or write past the regions.
static bool check_schedule(const cpu_exec *exec, size_t counter, uint32_t steps, lf_error *err)
{
    const lf_compile_params *params = &exec->program->params;
    if (counter > params->steps || steps > params->steps - counter) {
        lf_error_set(err, LF_EARG, "cpu: %u steps from row %zu of a schedule of %u rows", steps, counter,
                     params->steps);
        return false;
    }
    for (uint32_t i = 0; i < steps; i++) {
        const struct lf_schedule_row *row = row_at(exec, counter + i);
        if (!row->rows || row->rows > params->batch || row->first > params->positions ||
            row->rows > params->positions - row->first) {
            lf_error_set(
                err, LF_EARG,
                "cpu: schedule row %zu: %u rows from position %u, but the batch is %u and there are %u positions",
                counter + i, row->rows, row->first, params->batch, params->positions);
            return false;
        }
    }
    return true;
}

static void run_step(cpu_exec *exec, cpu_device *dev, const cpu_step *step, uint32_t first, uint32_t last)
{
    for (size_t s = 0; s < exec->stage_count; s++) {
        const cpu_stage *stage = &exec->stages[s];
        if (stage->segment < first || stage->segment > last)
            continue;
        if (s == 0 && exec->sparse)
            cpu_sparse_choose(exec->sparse);
        const cpu_job job = { .stage = stage, .step = *step };
        cpu_pool_run(dev->pool, run_block, &job, stage->blocks);
        dev->base.dispatches += stage->count;
    }
}

bool cpu_exec_run(lf_device *base, lf_exec *handle, uint32_t first, uint32_t last, uint32_t steps, lf_error *err)
{
    enum { PAYS = 4 }; // steps, to move panels there and back
    cpu_exec *exec = (cpu_exec *)handle;
    cpu_device *dev = (cpu_device *)base;
    size_t counter = exec->schedule[0];
    if (!check_schedule(exec, counter, steps, err))
        return false;
    bool panels = exec->panels.count && steps >= PAYS;
    uint64_t mode = cpu_denormals_flush();
    if (panels)
        cpu_panels_fill(&exec->panels, dev->pool);
    for (uint32_t i = 0; i < steps; i++)
        run_step(exec, dev,
                 &(cpu_step){ .header = (const struct lf_schedule_header *)exec->schedule,
                              .row = row_at(exec, counter + i),
                              .index = counter + i,
                              .has_next = i + 1 < steps,
                              .panels = panels },
                 first, last);
    if (panels)
        cpu_panels_return(&exec->panels, dev->pool);
    cpu_denormals_restore(mode);
    base->submissions++;
    if (last >= exec->stages[exec->stage_count - 1].segment)
        exec->schedule[0] += steps;
    return true;
}
