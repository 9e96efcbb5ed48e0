// A program on a device: its operations lowered once to launches, and graphs of them, one for each (first segment,
// last, steps), made at first need and then only launched.
#include <stdlib.h>
#include <string.h>

#include "cuda/internal.h"
#include "cuda/small.h"
#include "small_layout.h"

#define RECORDING_MAX 16
#define GRAPH_NODES   2048 // a longer run is several graphs, for a graph's making takes time and memory with its length
#define EDGES_MAX     4    // from each node to the nodes before it; more go through an empty node

typedef struct cu_node {
    CUgraph product; // in place of the launch, where not NULL; of `products`
    cu_launch launch;
    uint32_t segment;
    bool barrier;
} cu_node;

typedef struct cu_recording {
    CUgraphExec graph;    // NULL: the slot is free
    uint32_t first, last; // segments
    uint32_t steps;
    bool advances; // ends by moving the schedule's counter
    uint64_t dispatches;
    uint64_t use; // number of the search that last found it
} cu_recording;

typedef struct cu_exec {
    const lf_program *program;         // borrowed
    uint64_t address[LF_REGION_COUNT]; // of the regions
    cu_products *products;             // NULL: all of them are launches
    cu_node *nodes;                    // in order of execution
    size_t node_count;
    CUgraphNode *before, *group; // [node_count + 1] each: see graph_maker
    cu_recording recordings[RECORDING_MAX];
    uint64_t uses;
    cu_small small;
    CUdeviceptr scratch; // of `small`; 0: the program is not
} cu_exec;

// ---- making

// One operation becomes one node, or two.
static bool make_nodes(cu_device *dev, cu_exec *exec, size_t index, lf_error *err)
{
    const lf_op *op = &exec->program->ops[index];
    const cu_fused *fused = cu_products_find(exec->products, index);
    cu_node *node = &exec->nodes[exec->node_count++];
    *node = (cu_node){ .segment = op->segment, .barrier = op->barrier };
    if (!cu_lower(exec->program, op, exec->address, &node->launch, err)) {
        lf_error_prefix(err, "%s", dev->base.info.name);
        return false;
    }
    if (!fused)
        return true;
    node->product = fused->graph;
    node->barrier = true; // products share a workspace
    if (fused->has_rest)
        exec->nodes[exec->node_count++] = (cu_node){ .launch = fused->rest, .segment = op->segment, .barrier = true };
    return true;
}

static bool make_room(cu_device *dev, cu_exec *exec, size_t op_count, lf_error *err)
{
    exec->nodes = calloc(2 * op_count, sizeof *exec->nodes);
    exec->before = calloc(2 * op_count + 1, sizeof(CUgraphNode));
    exec->group = calloc(2 * op_count + 1, sizeof(CUgraphNode));
    if (exec->nodes && exec->before && exec->group)
        return true;
    lf_error_set(err, LF_ENOMEM, "%s: a program of %zu operations: out of memory", dev->base.info.name, op_count);
    return false;
}

// Whole steps of a small program are one launch, if the device holds all its blocks at once.
static bool make_small(cu_device *dev, cu_exec *exec, lf_error *err)
{
    int shared = 0, processors = 0, blocks = 0;
    const cu_launch *launch = &exec->small.launch;
    CUfunction function = dev->functions[CU_KERNEL_SMALL_STEPS];
    CUresult result =
        cu.DeviceGetAttribute(&shared, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, dev->device);
    if (result == CUDA_SUCCESS)
        result = cu.DeviceGetAttribute(&processors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, dev->device);
    if (result == CUDA_SUCCESS &&
        !cu_small_fits(exec->program, exec->address, (size_t)shared, (uint32_t)processors, &exec->small))
        return true;
    if (result == CUDA_SUCCESS) // for all programs alike, since the function is one
        result = cu.FuncSetAttribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared);
    if (result == CUDA_SUCCESS)
        result = cu.OccupancyMaxActiveBlocksPerMultiprocessor(
            &blocks, function, (int)(launch->block[0] * launch->block[1] * launch->block[2]), launch->shared);
    if (result == CUDA_SUCCESS && (uint64_t)blocks * (uint64_t)processors < launch->grid[0])
        return true;
    if (result == CUDA_SUCCESS)
        result = cu.MemAlloc(&exec->scratch, exec->small.scratch);
    if (result == CUDA_SUCCESS)
        return true;
    exec->scratch = 0;
    return cu_fail(dev, err, result, "cannot prepare %s, with %zu bytes", cu_kernel_name(CU_KERNEL_SMALL_STEPS),
                   exec->small.scratch);
}

lf_exec *cu_exec_create(lf_device *base, const lf_program *prog, const lf_bindings *regions, lf_error *err)
{
    cu_device *dev = (cu_device *)base;
    if (!cu_enter(dev, err))
        return NULL;
    if (prog->real != LF_F32) {
        lf_error_set(err, LF_EUNSUPPORTED, "%s: a program in %s, and only f32 is possible here", dev->base.info.name,
                     lf_dtype_name(prog->real));
        return NULL;
    }
    cu_exec *exec = calloc(1, sizeof *exec);
    if (!exec) {
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", dev->base.info.name);
        return NULL;
    }
    exec->program = prog;
    if (!make_room(dev, exec, prog->op_count, err))
        goto error;
    for (unsigned i = 0; i < LF_REGION_COUNT; i++)
        if (regions->region[i])
            exec->address[i] = ((cu_buffer *)regions->region[i])->memory;
    if (!cu_products_create(dev, prog, exec->address, &exec->products, err))
        goto error;
    for (size_t i = 0; i < prog->op_count; i++)
        if (!make_nodes(dev, exec, i, err))
            goto error;
    if (!make_small(dev, exec, err))
        goto error;
    return (lf_exec *)exec;
error:
    cu_exec_destroy(base, (lf_exec *)exec);
    return NULL;
}

void cu_exec_destroy(lf_device *base, lf_exec *head)
{
    cu_device *dev = (cu_device *)base;
    cu_exec *exec = (cu_exec *)head;
    if (!exec)
        return;
    cu.CtxSetCurrent(dev->context);
    cu.StreamSynchronize(dev->compute); // a failed device has nothing pending
    for (unsigned i = 0; i < RECORDING_MAX; i++)
        if (exec->recordings[i].graph)
            cu.GraphExecDestroy(exec->recordings[i].graph);
    cu_products_destroy(exec->products);
    if (exec->scratch)
        cu.MemFree(exec->scratch);
    free(exec->nodes);
    free(exec->before);
    free(exec->group);
    free(exec);
}

// ---- recording

// Launches between two barriers are a group: each of them comes after all of the group before, and after nothing else.
typedef struct graph_maker {
    cu_device *dev;
    CUgraph graph;
    CUgraphNode *before, *group;
    size_t before_count, group_count;
} graph_maker;

static CUresult begin_group(graph_maker *maker)
{
    if (!maker->group_count)
        return CUDA_SUCCESS;
    CUgraphNode *free_nodes = maker->before;
    maker->before = maker->group;
    maker->before_count = maker->group_count;
    maker->group = free_nodes;
    maker->group_count = 0;
    if (maker->before_count <= EDGES_MAX)
        return CUDA_SUCCESS;
    CUgraphNode all;
    CUresult result = cu.GraphAddEmptyNode(&all, maker->graph, maker->before, maker->before_count);
    maker->before[0] = all;
    maker->before_count = 1;
    return result;
}

static CUresult add_launch(graph_maker *maker, const cu_launch *launch, uint32_t step)
{
    struct lf_call call = launch->call;
    void *params[] = { &call };
    call.step = step;
    CUDA_KERNEL_NODE_PARAMS_v2 node = {
        .func = maker->dev->functions[launch->kernel],
        .gridDimX = launch->grid[0],
        .gridDimY = launch->grid[1],
        .gridDimZ = launch->grid[2],
        .blockDimX = launch->block[0],
        .blockDimY = launch->block[1],
        .blockDimZ = launch->block[2],
        .sharedMemBytes = launch->shared,
        .kernelParams = params, // the driver copies them
    };
    return cu.GraphAddKernelNode(&maker->group[maker->group_count++], maker->graph, maker->before, maker->before_count,
                                 &node);
}

static CUresult add_node(graph_maker *maker, const cu_node *node, uint32_t step)
{
    if (!node->product)
        return add_launch(maker, &node->launch, step);
    return cu.GraphAddChildGraphNode(&maker->group[maker->group_count++], maker->graph, maker->before,
                                     maker->before_count, node->product);
}

static bool is_last(const cu_exec *exec, uint32_t segment)
{
    return segment >= exec->nodes[exec->node_count - 1].segment;
}

static bool is_within(const cu_node *node, uint32_t first, uint32_t last)
{
    return node->segment >= first && node->segment <= last;
}

static CUresult add_steps(graph_maker *maker, const cu_exec *exec, cu_recording *recording)
{
    // The program's barriers also part a step from the next, but only where all of it runs: fewer operations touch
    // memory in another order.
    bool whole = recording->first == 0 && is_last(exec, recording->last);
    CUresult result = CUDA_SUCCESS;
    for (uint32_t step = 0; step < recording->steps; step++) {
        if (!whole)
            result = begin_group(maker);
        for (size_t i = 0; i < exec->node_count && result == CUDA_SUCCESS; i++) {
            const cu_node *node = &exec->nodes[i];
            if (!is_within(node, recording->first, recording->last))
                continue;
            if (node->barrier)
                result = begin_group(maker);
            if (result == CUDA_SUCCESS)
                result = add_node(maker, node, step);
            recording->dispatches++;
        }
        if (result != CUDA_SUCCESS)
            return result;
    }
    if (!recording->advances)
        return CUDA_SUCCESS;
    cu_launch advance;
    cu_lower_advance(exec->program, exec->address, recording->steps, &advance);
    result = begin_group(maker); // every step has read the counter
    recording->dispatches++;
    return result == CUDA_SUCCESS ? add_launch(maker, &advance, advance.call.step) : result;
}

static bool record(cu_device *dev, cu_exec *exec, cu_recording *recording, lf_error *err)
{
    graph_maker maker = { .dev = dev, .before = exec->before, .group = exec->group };
    CUresult result = cu.GraphCreate(&maker.graph, 0);
    if (result == CUDA_SUCCESS) {
        result = add_steps(&maker, exec, recording);
        if (result == CUDA_SUCCESS)
            result = cu.GraphInstantiate(&recording->graph, maker.graph, 0);
        if (result != CUDA_SUCCESS)
            recording->graph = NULL;
        cu.GraphDestroy(maker.graph);
    }
    return result == CUDA_SUCCESS ||
           cu_fail(dev, err, result, "cannot make a graph of %llu launches", (unsigned long long)recording->dispatches);
}

// The recording of this stretch, made anew in the place of the least recently used one if there is none.
static cu_recording *find_recording(cu_device *dev, cu_exec *exec, const cu_recording *wanted, lf_error *err)
{
    cu_recording *oldest = &exec->recordings[0];
    for (unsigned i = 0; i < RECORDING_MAX; i++) {
        cu_recording *r = &exec->recordings[i];
        if (r->graph && r->first == wanted->first && r->last == wanted->last && r->steps == wanted->steps &&
            r->advances == wanted->advances) {
            r->use = ++exec->uses;
            return r;
        }
        if (r->use < oldest->use)
            oldest = r;
    }
    CUresult result = oldest->graph ? cu.StreamSynchronize(dev->compute) : CUDA_SUCCESS; // it may still run
    if (result != CUDA_SUCCESS) {
        cu_fail(dev, err, result, "the work did not finish");
        return NULL;
    }
    if (oldest->graph)
        cu.GraphExecDestroy(oldest->graph);
    *oldest = *wanted;
    oldest->use = ++exec->uses;
    return record(dev, exec, oldest, err) ? oldest : NULL;
}

// ---- running

static bool launch_graph(cu_device *dev, const cu_recording *recording, lf_error *err)
{
    CUresult result = cu.GraphLaunch(recording->graph, dev->compute);
    if (result != CUDA_SUCCESS)
        return cu_fail(dev, err, result, "cannot launch a graph of %llu launches",
                       (unsigned long long)recording->dispatches);
    dev->base.dispatches += recording->dispatches;
    return true;
}

// Takes back by how much the graphs of a long run have advanced the counter, which is modulo 2^32.
static bool rewind_counter(cu_device *dev, const cu_exec *exec, uint32_t steps, lf_error *err)
{
    cu_launch l;
    void *params[] = { &l.call };
    cu_lower_advance(exec->program, exec->address, 0 - steps, &l);
    CUresult result = cu.LaunchKernel(dev->functions[l.kernel], l.grid[0], l.grid[1], l.grid[2], l.block[0], l.block[1],
                                      l.block[2], l.shared, dev->compute, params, NULL);
    if (result != CUDA_SUCCESS)
        return cu_fail(dev, err, result, "cannot launch %s", cu_kernel_name(l.kernel));
    dev->base.dispatches++;
    return true;
}

// Steps that one graph holds.
static uint32_t graph_steps(const cu_exec *exec, uint32_t first, uint32_t last)
{
    uint32_t nodes = 0;
    for (size_t i = 0; i < exec->node_count; i++)
        nodes += is_within(&exec->nodes[i], first, last);
    return nodes && nodes < GRAPH_NODES ? GRAPH_NODES / nodes : 1;
}

static bool run_small(cu_device *dev, const cu_exec *exec, uint32_t steps, lf_error *err)
{
    cu_launch l = exec->small.launch;
    void *params[] = { &l.call };
    l.call.step = steps;
    l.call.operand[LF_SMALL_SCRATCH] = exec->scratch;
    CUresult result = cu.MemsetD8Async(exec->scratch, 0, exec->small.zeroed, dev->compute);
    if (result == CUDA_SUCCESS)
        result = cu.LaunchCooperativeKernel(dev->functions[l.kernel], l.grid[0], l.grid[1], l.grid[2], l.block[0],
                                            l.block[1], l.block[2], l.shared, dev->compute, params);
    if (result != CUDA_SUCCESS)
        return cu_fail(dev, err, result, "cannot launch %s", cu_kernel_name(l.kernel));
    dev->base.dispatches++;
    dev->base.submissions++;
    return true;
}

bool cu_exec_run(lf_device *base, lf_exec *head, uint32_t first, uint32_t last, uint32_t steps, lf_error *err)
{
    cu_device *dev = (cu_device *)base;
    cu_exec *exec = (cu_exec *)head;
    if (!cu_enter(dev, err))
        return false;
    if (exec->scratch && first == 0 && is_last(exec, last))
        return run_small(dev, exec, steps, err);
    const uint32_t most = graph_steps(exec, first, last), parts = steps / most, rest = steps % most;
    const bool ends = is_last(exec, last), advances = ends || steps > most;
    cu_recording wanted = { .first = first, .last = last, .steps = most, .advances = advances };
    // Both are made before either is launched, so that a failure leaves nothing half run.
    const cu_recording *part = parts ? find_recording(dev, exec, &wanted, err) : NULL;
    wanted.steps = rest;
    const cu_recording *end = rest && (part || !parts) ? find_recording(dev, exec, &wanted, err) : NULL;
    if ((parts && !part) || (rest && !end))
        return false;
    for (uint32_t i = 0; i < parts; i++)
        if (!launch_graph(dev, part, err))
            return false;
    if ((end && !launch_graph(dev, end, err)) || (advances && !ends && !rewind_counter(dev, exec, steps, err)))
        return false;
    dev->base.submissions++;
    return true;
}

bool cu_wait(lf_device *base, lf_error *err)
{
    cu_device *dev = (cu_device *)base;
    if (!cu_enter(dev, err))
        return false;
    CUresult result = cu.StreamSynchronize(dev->copy);
    if (result == CUDA_SUCCESS)
        result = cu.StreamSynchronize(dev->compute);
    return result == CUDA_SUCCESS || cu_fail(dev, err, result, "the work did not finish");
}
