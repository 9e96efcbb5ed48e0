// Graphs: nodes with what comes before them, run in any order that keeps it.
#include <stdio.h>

#include <algorithm>

#include "launch.h"
#include "stand_in.h"

CUresult CUDAAPI cuGraphCreate(CUgraph *graph, unsigned)
{
    return host_call(__func__, [&] {
        *graph = host.graphs.add<CUgraph>({});
        return CUDA_SUCCESS;
    });
}

CUresult CUDAAPI cuGraphDestroy(CUgraph graph)
{
    return host_call(__func__, [&] { return host.graphs.remove(graph) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; });
}

size_t host_graph_add(host_graph *graph, host_work work, std::vector<size_t> after, const void *memory)
{
    uint64_t id = host_new_id();
    graph->places[id] = graph->nodes.size();
    graph->nodes.push_back({ id, std::move(work), std::move(after), memory });
    return graph->nodes.size() - 1;
}

static CUresult add_node(CUgraphNode *node, CUgraph handle, const CUgraphNode *after, size_t count, host_work work,
                         const void *memory = NULL)
{
    host_graph *graph = host.graphs.find(handle);
    std::vector<size_t> places;
    if (!graph)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < count; i++) {
        auto place = graph->places.find((uint64_t)after[i]);
        if (place == graph->places.end())
            return CUDA_ERROR_INVALID_VALUE;
        places.push_back(place->second);
    }
    *node = (CUgraphNode)graph->nodes[host_graph_add(graph, std::move(work), std::move(places), memory)].id;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphAddKernelNode_v2(CUgraphNode *node, CUgraph graph, const CUgraphNode *after, size_t count,
                                         const CUDA_KERNEL_NODE_PARAMS_v2 *params)
{
    return host_call_in_context(__func__, [&](host_context &) {
        host_shape shape = { { params->gridDimX, params->gridDimY, params->gridDimZ },
                             { params->blockDimX, params->blockDimY, params->blockDimZ },
                             params->sharedMemBytes,
                             false };
        host_work work;
        CUresult result = host_kernel_work(params->func, shape, params->kernelParams, &work);
        return result ? result : add_node(node, graph, after, count, work);
    });
}

CUresult CUDAAPI cuGraphAddEmptyNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *after, size_t count)
{
    return host_call(__func__, [&] { return add_node(node, graph, after, count, [] { return CUDA_SUCCESS; }); });
}

bool host_graph_is_joined(const host_graph &graph, const std::vector<size_t> &nodes, std::vector<size_t> end)
{
    std::vector<bool> before(graph.nodes.size());
    while (!end.empty()) {
        size_t node = end.back();
        end.pop_back();
        if (before[node])
            continue;
        before[node] = true;
        end.insert(end.end(), graph.nodes[node].after.begin(), graph.nodes[node].after.end());
    }
    return std::all_of(nodes.begin(), nodes.end(), [&](size_t node) { return before[node]; });
}

// The memory that nodes work in, of a graph or of what becomes one node.
static const void *memory_of(const host_graph &graph)
{
    const void *memory = NULL;
    for (const host_graph::node &node : graph.nodes)
        memory = node.memory ? node.memory : memory;
    return memory;
}

// Of the nodes that work in memory of their own, each comes after the one before it.
static bool take_turns(const host_graph &graph)
{
    std::map<const void *, size_t> last;
    for (size_t n = 0; n < graph.nodes.size(); n++) {
        const void *memory = graph.nodes[n].memory;
        if (memory && last.count(memory) && !host_graph_is_joined(graph, { last[memory] }, { n })) {
            fprintf(stderr, "stand-in: two nodes of a graph may work in the same memory at the same time\n");
            return false;
        }
        if (memory)
            last[memory] = n;
    }
    return true;
}

// The child is copied as it is now.
CUresult CUDAAPI cuGraphAddChildGraphNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *after, size_t count,
                                          CUgraph child)
{
    return host_call(__func__, [&] {
        const host_graph *found = host.graphs.find(child);
        if (!found)
            return CUDA_ERROR_INVALID_VALUE;
        auto copy = std::make_shared<const host_graph>(*found);
        return add_node(
            node, graph, after, count, [copy] { return host_graph_run(*copy); }, memory_of(*copy));
    });
}

// In any order that keeps what comes after what: nodes that are ready stand on a stack, the next one at its back.
CUresult host_graph_run(const host_graph &graph)
{
    std::vector<size_t> missing(graph.nodes.size()), ready;
    std::vector<std::vector<size_t>> next(graph.nodes.size());
    for (size_t n = 0; n < graph.nodes.size(); n++) {
        missing[n] = graph.nodes[n].after.size();
        for (size_t before : graph.nodes[n].after)
            next[before].push_back(n);
        if (!missing[n])
            ready.push_back(n);
    }
    while (!ready.empty()) {
        std::vector<unsigned> order(ready.size());
        host_order(order.data(), (unsigned)order.size());
        std::swap(ready[order[0]], ready.back());
        size_t node = ready.back();
        ready.pop_back();
        CUresult result = graph.nodes[node].work();
        if (result)
            return result;
        for (size_t n : next[node])
            if (!--missing[n])
                ready.push_back(n);
    }
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long)
{
    return host_call_in_context(__func__, [&](host_context &) {
        const host_graph *found = host.graphs.find(graph);
        if (!found || !take_turns(*found))
            return CUDA_ERROR_INVALID_VALUE;
        *exec = host.execs.add<CUgraphExec>({ host_current(), std::make_shared<const host_graph>(*found) });
        return CUDA_SUCCESS;
    });
}

CUresult CUDAAPI cuGraphExecDestroy(CUgraphExec exec)
{
    return host_call(__func__, [&] { return host.execs.remove(exec) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; });
}

CUresult CUDAAPI cuGraphLaunch(CUgraphExec exec, CUstream stream)
{
    return host_call_in_context(__func__, [&](host_context &) {
        const host_exec *found = host.execs.find(exec);
        host_stream *on = host_find_stream(stream);
        if (!found || !on || found->context != on->context)
            return CUDA_ERROR_INVALID_HANDLE;
        std::shared_ptr<const host_graph> graph = found->graph;
        host_queue(on, [graph] { return host_graph_run(*graph); });
        return CUDA_SUCCESS;
    });
}
