// NCCL on the stand-in for the driver. What would hang or be undefined with the real library is refused here: calls
// outside a group, sends that no receive matches, other counts, memory or streams of another device.
#include "cuda/nccl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <type_traits>

#include "stand_in.h"

extern "C" {
#define DECLARE(field, symbol, result, arguments) result symbol arguments;
CU_NCCL_FUNCTIONS(DECLARE)
#undef DECLARE
}

static const int UNHANDLED = 1, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, REMOTE = 6;

// Communicators that were made together.
struct host_clique {
    std::vector<uint64_t> contexts; // by rank
};

struct host_comm {
    uint64_t context;
    std::shared_ptr<host_clique> clique;
    int rank;
    bool stuck;
    std::vector<uint64_t> streams; // that it was used on
};

enum class kind { send, receive, reduce };

struct operation {
    kind what;
    uint64_t comm, stream, memory, result; // result: of a reduction
    size_t count;
    int rank, peer;
};

static host_table<host_comm> comms;
static thread_local unsigned depth;
static thread_local std::vector<operation> pending;

static cu_nccl_result refuse(int result, const char *why)
{
    fprintf(stderr, "stand-in: NCCL: %s\n", why);
    return (cu_nccl_result)result;
}

template <class Body> static cu_nccl_result call(const char *function, Body body)
{
    std::lock_guard<std::recursive_mutex> guard(host.lock);
    CUresult failed = host_injected(function);
    return failed ? (cu_nccl_result)failed : (cu_nccl_result)body();
}

const char *ncclGetErrorString(cu_nccl_result result)
{
    return result == CU_NCCL_SUCCESS ? "no error" : "an error of the stand-in";
}

unsigned host_count_comms(uint64_t context)
{
    unsigned count = 0;
    for (auto &entry : comms.objects)
        count += entry.second.context == context;
    return count;
}

static uint64_t primary_context(int device)
{
    for (auto &entry : host.contexts.objects)
        if (entry.second.device == (unsigned)device)
            return entry.first;
    return 0;
}

cu_nccl_result ncclCommInitAll(cu_nccl_comm *made, int count, const int *devices)
{
    return call(__func__, [&]() -> int {
        auto clique = std::make_shared<host_clique>();
        for (int i = 0; i < count; i++) {
            uint64_t context = primary_context(devices[i]);
            for (uint64_t other : clique->contexts)
                if (other == context)
                    return refuse(INVALID_USAGE, "a device is there twice");
            if (!context || host.contexts.find(context)->error)
                return UNHANDLED;
            clique->contexts.push_back(context);
        }
        for (int i = 0; i < count; i++)
            made[i] = comms.add<cu_nccl_comm>({ clique->contexts[(size_t)i], clique, i, false, {} });
        return CU_NCCL_SUCCESS;
    });
}

cu_nccl_result ncclCommDestroy(cu_nccl_comm comm)
{
    return call(__func__, [&]() -> int {
        host_comm *found = comms.find(comm);
        if (!found)
            return refuse(INVALID_ARGUMENT, "no such communicator");
        if (found->stuck) {
            refuse(INVALID_USAGE, "ncclCommDestroy of what is stuck would hang");
            abort();
        }
        comms.remove(comm);
        return CU_NCCL_SUCCESS;
    });
}

// What waits on its streams ends, without its results.
cu_nccl_result ncclCommAbort(cu_nccl_comm comm)
{
    return call(__func__, [&]() -> int {
        host_comm *found = comms.find(comm);
        if (!found)
            return refuse(INVALID_ARGUMENT, "no such communicator");
        for (uint64_t id : found->streams)
            if (host_stream *stream = host.streams.find(id))
                stream->stuck = false;
        comms.remove(comm);
        return CU_NCCL_SUCCESS;
    });
}

cu_nccl_result ncclCommGetAsyncError(cu_nccl_comm comm, cu_nccl_result *state)
{
    return call(__func__, [&]() -> int {
        const host_comm *found = comms.find(comm);
        if (!found)
            return refuse(INVALID_ARGUMENT, "no such communicator");
        *state = (cu_nccl_result)(found->stuck && found->rank == 0 ? REMOTE : 0);
        return CU_NCCL_SUCCESS;
    });
}

// ---- groups

cu_nccl_result ncclGroupStart(void)
{
    return call(__func__, [&]() -> int {
        depth++;
        return CU_NCCL_SUCCESS;
    });
}

static bool is_memory_of(uint64_t context, uint64_t address, size_t count)
{
    const host_memory *memory = host_find_memory(address, count * sizeof(float));
    return memory && !memory->pinned && memory->context == context;
}

static int add(const operation &op, int type)
{
    const host_comm *comm = comms.find(op.comm);
    const host_stream *stream = host.streams.find(op.stream);
    if (!depth)
        return refuse(INVALID_USAGE, "a call outside a group, which would wait for the other devices' for ever");
    if (!comm || !stream || stream->context != comm->context)
        return refuse(INVALID_ARGUMENT, "a stream of another device");
    if (type != CU_NCCL_FLOAT || !op.count)
        return refuse(INVALID_ARGUMENT, "a type or a count that is not meant");
    if (!is_memory_of(comm->context, op.memory, op.count) ||
        (op.what == kind::reduce && !is_memory_of(comm->context, op.result, op.count)))
        return refuse(INVALID_ARGUMENT, "memory of another device");
    if (op.what != kind::reduce &&
        (op.peer == comm->rank || op.peer < 0 || (size_t)op.peer >= comm->clique->contexts.size()))
        return refuse(INVALID_ARGUMENT, "no such peer");
    pending.push_back(op);
    pending.back().rank = comm->rank;
    return CU_NCCL_SUCCESS;
}

cu_nccl_result ncclSend(const void *from, size_t count, int type, int peer, cu_nccl_comm comm, CUstream stream)
{
    return call(__func__, [&] {
        return add({ kind::send, (uint64_t)comm, (uint64_t)stream, (uint64_t)from, 0, count, 0, peer }, type);
    });
}

cu_nccl_result ncclRecv(void *to, size_t count, int type, int peer, cu_nccl_comm comm, CUstream stream)
{
    return call(__func__, [&] {
        return add({ kind::receive, (uint64_t)comm, (uint64_t)stream, (uint64_t)to, 0, count, 0, peer }, type);
    });
}

cu_nccl_result ncclAllReduce(const void *from, void *to, size_t count, int type, int op, cu_nccl_comm comm,
                             CUstream stream)
{
    return call(__func__, [&]() -> int {
        if (op != CU_NCCL_SUM)
            return refuse(INVALID_ARGUMENT, "no sum");
        return add({ kind::reduce, (uint64_t)comm, (uint64_t)stream, (uint64_t)from, (uint64_t)to, count, 0, 0 }, type);
    });
}

// What a group does, once all of its streams have come so far.
struct group {
    std::map<uint64_t, uint64_t> streams; // to their tickets
    std::vector<std::pair<operation, operation>> transfers;
    std::vector<operation> reductions;
    bool done;
};

static void reduce(const std::vector<operation> &all)
{
    std::vector<float> total(all[0].count);
    for (size_t r = all.size(); r-- > 0;) // in an order that is nobody else's
        for (size_t i = 0; i < total.size(); i++)
            total[i] += ((const float *)all[r].memory)[i];
    for (const operation &op : all)
        memcpy((void *)op.result, total.data(), total.size() * sizeof(float));
}

static CUresult run_group(group *g)
{
    if (g->done)
        return CUDA_SUCCESS;
    g->done = true;
    for (auto &entry : g->streams)
        host_drain(entry.first, entry.second);
    std::vector<std::vector<char>> travelling; // all leave before one arrives
    for (auto &transfer : g->transfers) {
        const char *from = (const char *)transfer.first.memory;
        travelling.emplace_back(from, from + transfer.first.count * sizeof(float));
    }
    for (size_t i = 0; i < g->transfers.size(); i++)
        memcpy((void *)g->transfers[i].second.memory, travelling[i].data(), travelling[i].size());
    if (!g->reductions.empty())
        reduce(g->reductions);
    return CUDA_SUCCESS;
}

// The receive that a send belongs to: the first one between the two that is left.
static bool match(std::vector<operation> *receives, const operation &send, group *g)
{
    for (auto it = receives->begin(); it != receives->end(); ++it)
        if (it->rank == send.peer && it->peer == send.rank) {
            if (it->count != send.count)
                return false;
            g->transfers.push_back({ send, *it });
            receives->erase(it);
            return true;
        }
    return false;
}

static int make_group(const std::vector<operation> &all, group *g)
{
    std::vector<operation> receives;
    for (const operation &op : all) {
        if (op.what == kind::receive)
            receives.push_back(op);
        else if (op.what == kind::reduce)
            g->reductions.push_back(op);
    }
    for (const operation &op : all)
        if (op.what == kind::send && !match(&receives, op, g))
            return refuse(INVALID_USAGE, "a send that nobody receives would hang");
    if (!receives.empty())
        return refuse(INVALID_USAGE, "a receive that nobody sends to would hang");
    if (!g->reductions.empty() && g->reductions.size() != comms.find(all[0].comm)->clique->contexts.size())
        return refuse(INVALID_USAGE, "a reduction without all devices would hang");
    for (const operation &op : g->reductions)
        if (op.count != g->reductions[0].count)
            return refuse(INVALID_ARGUMENT, "counts that differ");
    return CU_NCCL_SUCCESS;
}

// LAVAFLOW_STAND_IN_FAIL=stuck@2=1: the second group never ends, for a device that it waits for is lost.
cu_nccl_result ncclGroupEnd(void)
{
    std::vector<operation> all; // even of a group whose end fails
    if (depth && !--depth)
        all.swap(pending);
    return call(__func__, [&]() -> int {
        if (depth)
            return CU_NCCL_SUCCESS;
        auto g = std::make_shared<group>();
        for (const operation &op : all)
            if (!comms.find(op.comm))
                return refuse(INVALID_ARGUMENT, "a communicator that was destroyed meanwhile");
        int result = make_group(all, g.get());
        bool stuck = !all.empty() && host_injected("stuck");
        for (const operation &op : all) {
            host_comm *comm = comms.find(op.comm);
            host_stream *stream = host.streams.find(op.stream);
            if (result || g->streams.count(op.stream))
                continue;
            g->streams[op.stream] = stream->queued;
            comm->streams.push_back(op.stream);
            comm->stuck |= stuck;
            stream->stuck |= stuck;
            if (!stuck)
                host_queue(stream, [=] { return run_group(g.get()); });
        }
        return result;
    });
}

#define IS_AS_TOLD(field, symbol, result, arguments)                                                                   \
    static_assert(std::is_same<decltype(&symbol), result(*) arguments>::value, #symbol " differs");
CU_NCCL_FUNCTIONS(IS_AS_TOLD)
