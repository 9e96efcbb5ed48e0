// NCCL on the stand-in for the driver. What would hang or be undefined with the real library is refused here: calls
// outside a group, sends that no receive matches, other counts, memory or streams of another device. Of other processes
// that is known when their messages come (mailbox.cpp), or have not come after a while.
#include "cuda/nccl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <algorithm>
#include <string>
#include <type_traits>

#include "mailbox.h"
#include "stand_in.h"

extern "C" {
#define DECLARE(field, symbol, result, arguments) result symbol arguments;
CU_NCCL_FUNCTIONS(DECLARE)
#undef DECLARE
}

static const int UNHANDLED = 1, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, REMOTE = 6;

// Communicators of this process that were made together.
struct host_clique {
    mailbox box;
    int count;                    // of ranks
    std::map<int, uint64_t> here; // contexts, by rank
};

struct host_comm {
    uint64_t context;
    std::shared_ptr<host_clique> clique;
    int rank;
    bool blocking, joined, stuck;
    std::vector<uint64_t> streams;           // that it was used on
    std::vector<std::shared_ptr<bool>> done; // of its groups
};

enum class kind { join, send, receive, reduce };

struct operation {
    kind what;
    uint64_t comm, stream, memory, result; // result: of a reduction
    size_t count;
    int rank, peer;
};

static host_table<host_comm> comms;
static std::map<std::string, std::weak_ptr<host_clique>> cliques; // by id
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

// What fails has freed all the same.
template <class Body> static cu_nccl_result call_last(const char *function, Body body)
{
    std::lock_guard<std::recursive_mutex> guard(host.lock);
    int result = body();
    CUresult failed = host_injected(function);
    return failed ? (cu_nccl_result)failed : (cu_nccl_result)result;
}

cu_nccl_result ncclGetVersion(int *version)
{
    *version = 21403;
    return CU_NCCL_SUCCESS;
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

cu_nccl_result ncclGetUniqueId(cu_nccl_id *id)
{
    return call(__func__, [&]() -> int {
        std::string name = mailbox::name();
        if (name.empty() || name.size() >= sizeof id->bytes)
            return refuse(UNHANDLED, "no folder, or too long a name of it");
        memset(id->bytes, 0, sizeof id->bytes);
        memcpy(id->bytes, name.c_str(), name.size());
        return CU_NCCL_SUCCESS;
    });
}

cu_nccl_result ncclCommInitRankConfig(cu_nccl_comm *made, int count, cu_nccl_id id, int rank, cu_nccl_config *config)
{
    return call(__func__, [&]() -> int {
        const host_context *context = host_current_context();
        if (config->magic != 0xcafebeef || config->version != 21400 || config->size != sizeof *config)
            return refuse(INVALID_ARGUMENT, "a configuration that is none");
        if (!depth)
            return refuse(INVALID_USAGE, "a communicator outside a group, which would wait for the other devices'");
        if (rank < 0 || rank >= count)
            return refuse(INVALID_ARGUMENT, "a rank that is none");
        if (!context || context->error)
            return UNHANDLED;
        std::shared_ptr<host_clique> clique = cliques[id.bytes].lock();
        if (!clique)
            cliques[id.bytes] = clique = std::make_shared<host_clique>(host_clique{ mailbox(id.bytes), count, {} });
        if (clique->count != count || !clique->box.join(rank, context->device))
            return refuse(INVALID_USAGE, "a rank or a device that is there twice, or another number of them");
        clique->here[rank] = host_current();
        *made = comms.add<cu_nccl_comm>({ host_current(), clique, rank, config->blocking != 0, false, false, {}, {} });
        pending.push_back({ kind::join, (uint64_t)*made, 0, 0, 0, 0, rank, 0 });
        return config->blocking ? CU_NCCL_SUCCESS : CU_NCCL_IN_PROGRESS;
    });
}

cu_nccl_result ncclCommDestroy(cu_nccl_comm comm)
{
    return call_last(__func__, [&]() -> int {
        host_comm *found = comms.find(comm);
        if (!found)
            return refuse(INVALID_ARGUMENT, "no such communicator");
        if (found->stuck || !found->blocking) {
            refuse(INVALID_USAGE, "ncclCommDestroy of what is stuck, or waits for other processes, would hang");
            abort();
        }
        found->clique->box.leave(found->rank);
        comms.remove(comm);
        return CU_NCCL_SUCCESS;
    });
}

// What waits on its streams ends, without its results.
cu_nccl_result ncclCommAbort(cu_nccl_comm comm)
{
    return call_last(__func__, [&]() -> int {
        host_comm *found = comms.find(comm);
        if (!found)
            return refuse(INVALID_ARGUMENT, "no such communicator");
        for (auto &done : found->done)
            *done = true;
        for (uint64_t id : found->streams)
            if (host_stream *stream = host.streams.find(id))
                stream->stuck = false;
        found->clique->box.leave(found->rank);
        comms.remove(comm);
        return CU_NCCL_SUCCESS;
    });
}

// A process whose devices are stuck is told by the first of them.
cu_nccl_result ncclCommGetAsyncError(cu_nccl_comm comm, cu_nccl_result *state)
{
    return call(__func__, [&]() -> int {
        host_comm *found = comms.find(comm);
        if (!found)
            return refuse(INVALID_ARGUMENT, "no such communicator");
        found->joined = found->joined || found->clique->box.is_complete(found->clique->count);
        *state = !found->joined ? CU_NCCL_IN_PROGRESS : CU_NCCL_SUCCESS;
        if (found->stuck && found->rank == found->clique->here.begin()->first)
            *state = (cu_nccl_result)REMOTE;
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
    if (comm && !comm->joined)
        return refuse(INVALID_USAGE, "a communicator that is not ready");
    if (!comm || !stream || stream->context != comm->context)
        return refuse(INVALID_ARGUMENT, "a stream of another device");
    if (type != CU_NCCL_FLOAT || !op.count)
        return refuse(INVALID_ARGUMENT, "a type or a count that is not meant");
    if (!is_memory_of(comm->context, op.memory, op.count) ||
        (op.what == kind::reduce && !is_memory_of(comm->context, op.result, op.count)))
        return refuse(INVALID_ARGUMENT, "memory of another device");
    if (op.what != kind::reduce && (op.peer == comm->rank || op.peer < 0 || op.peer >= comm->clique->count))
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
    std::shared_ptr<host_clique> clique;
    std::map<uint64_t, uint64_t> streams;                   // to their tickets
    std::vector<std::pair<operation, operation>> transfers; // within the process
    std::vector<operation> sends, receives;                 // to and from others
    std::vector<operation> reductions;
    std::map<std::pair<int, int>, std::vector<char>> arrived; // by ranks: from others, for reductions
    bool sent;
    std::shared_ptr<bool> done;
    time_t begun;
};

static size_t bytes_of(const operation &op)
{
    return op.count * sizeof(float);
}

static void send_all(group *g)
{
    std::vector<std::vector<char>> travelling; // all leave before one arrives
    for (auto &transfer : g->transfers) {
        const char *from = (const char *)transfer.first.memory;
        travelling.emplace_back(from, from + bytes_of(transfer.first));
    }
    for (const operation &op : g->sends)
        g->clique->box.send("message", op.rank, op.peer, (const void *)op.memory, bytes_of(op));
    for (const operation &op : g->reductions)
        for (int to = 0; to < g->clique->count; to++)
            if (!g->clique->here.count(to))
                g->clique->box.send("number", op.rank, to, (const void *)op.memory, bytes_of(op));
    for (size_t i = 0; i < g->transfers.size(); i++)
        memcpy((void *)g->transfers[i].second.memory, travelling[i].data(), travelling[i].size());
}

// One message; it is taken off the list once it is there.
static mailbox::outcome receive_next(group *g)
{
    const operation op = g->receives.back();
    std::vector<char> bytes(bytes_of(op));
    mailbox::outcome outcome = g->clique->box.receive("message", op.peer, op.rank, &bytes);
    if (outcome == mailbox::THERE) {
        memcpy((void *)op.memory, bytes.data(), bytes.size());
        g->receives.pop_back();
    }
    return outcome;
}

// What one rank of another process has to add, for all of this one's.
static mailbox::outcome receive_numbers(group *g, int from)
{
    for (const operation &op : g->reductions) {
        auto place = std::make_pair(from, op.rank);
        std::vector<char> bytes(bytes_of(op));
        if (g->arrived.count(place))
            continue;
        mailbox::outcome outcome = g->clique->box.receive("number", from, op.rank, &bytes);
        if (outcome != mailbox::THERE)
            return outcome;
        g->arrived[place] = bytes;
    }
    return mailbox::THERE;
}

static mailbox::outcome receive_all(group *g)
{
    mailbox::outcome outcome = mailbox::THERE;
    // Each sender's in the order of its sends.
    while (!g->receives.empty() && outcome == mailbox::THERE)
        outcome = receive_next(g);
    for (int from = 0; !g->reductions.empty() && from < g->clique->count && outcome == mailbox::THERE; from++)
        if (!g->clique->here.count(from))
            outcome = receive_numbers(g, from);
    return outcome;
}

static void reduce(group *g)
{
    std::vector<float> total(g->reductions[0].count);
    for (int r = g->clique->count; r-- > 0;) { // in an order that is nobody else's
        const float *values = nullptr;
        for (const operation &op : g->reductions)
            if (op.rank == r)
                values = (const float *)op.memory;
        if (!values)
            values = (const float *)g->arrived[{ r, g->reductions[0].rank }].data();
        for (size_t i = 0; i < total.size(); i++)
            total[i] += values[i];
    }
    for (const operation &op : g->reductions)
        memcpy((void *)op.result, total.data(), total.size() * sizeof(float));
}

static CUresult run_group(group *g)
{
    if (*g->done)
        return CUDA_SUCCESS;
    for (auto &entry : g->streams) {
        const host_stream *stream = host.streams.find(entry.first);
        host_drain(entry.first, entry.second);
        if (stream && stream->done < entry.second)
            return CUDA_ERROR_NOT_READY;
    }
    if (!g->sent) {
        send_all(g);
        g->begun = time(NULL);
    }
    g->sent = true;
    mailbox::outcome outcome = receive_all(g);
    if (outcome == mailbox::NOT_YET && time(NULL) - g->begun > HOST_FOR_EVER) {
        refuse(INVALID_USAGE, "a receive that nobody sends to would hang");
        abort();
    }
    if (outcome == mailbox::NOT_YET)
        return CUDA_ERROR_NOT_READY;
    if (outcome == mailbox::ANOTHER_SIZE)
        return refuse(INVALID_ARGUMENT, "counts that differ") ? CUDA_ERROR_LAUNCH_FAILED : CUDA_SUCCESS;
    if (!g->reductions.empty())
        reduce(g);
    *g->done = true;
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
        bool here = g->clique->here.count(op.peer);
        if (op.what == kind::receive)
            (here ? receives : g->receives).push_back(op);
        else if (op.what == kind::reduce)
            g->reductions.push_back(op);
        else if (op.what == kind::send && !here)
            g->sends.push_back(op);
    }
    std::reverse(g->receives.begin(), g->receives.end());
    for (const operation &op : all)
        if (op.what == kind::send && g->clique->here.count(op.peer) && !match(&receives, op, g))
            return refuse(INVALID_USAGE, "a send that nobody receives would hang");
    if (!receives.empty())
        return refuse(INVALID_USAGE, "a receive that nobody sends to would hang");
    if (!g->reductions.empty() && g->reductions.size() != g->clique->here.size())
        return refuse(INVALID_USAGE, "a reduction without all devices would hang");
    for (const operation &op : g->reductions)
        if (op.count != g->reductions[0].count)
            return refuse(INVALID_ARGUMENT, "counts that differ");
    return CU_NCCL_SUCCESS;
}

// A group of communicators that come to be. Without other processes all are there.
static int end_joining(const std::vector<operation> &all)
{
    bool complete = true;
    for (const operation &op : all) {
        host_comm *comm = comms.find(op.comm);
        comm->joined = comm->clique->box.is_complete(comm->clique->count);
        complete = complete && comm->joined;
        if (comm->blocking && !comm->joined)
            return refuse(INVALID_USAGE, "a rank that nobody has would be waited for for ever");
    }
    return complete ? CU_NCCL_SUCCESS : CU_NCCL_IN_PROGRESS;
}

// LAVAFLOW_STAND_IN_FAIL=stuck@2=1: the second group never ends, for a device that it waits for is lost.
static int end_group(const std::vector<operation> &all)
{
    auto g = std::make_shared<group>();
    for (const operation &op : all)
        if (!comms.find(op.comm))
            return refuse(INVALID_ARGUMENT, "a communicator that was destroyed meanwhile");
    if (all.empty() || all[0].what == kind::join)
        return end_joining(all);
    g->clique = comms.find(all[0].comm)->clique;
    g->done = std::make_shared<bool>(false);
    int result = make_group(all, g.get());
    bool stuck = host_injected("stuck");
    for (const operation &op : all) {
        host_comm *comm = comms.find(op.comm);
        host_stream *stream = host.streams.find(op.stream);
        if (result || g->streams.count(op.stream))
            continue;
        g->streams[op.stream] = stream->queued;
        comm->streams.push_back(op.stream);
        comm->done.push_back(g->done);
        comm->stuck |= stuck;
        stream->stuck |= stuck;
        if (!stuck)
            host_queue(stream, [=] { return run_group(g.get()); });
    }
    return result;
}

cu_nccl_result ncclGroupEnd(void)
{
    std::vector<operation> all; // even of a group whose end fails
    if (depth && !--depth)
        all.swap(pending);
    return call(__func__, [&]() -> int { return depth ? CU_NCCL_SUCCESS : end_group(all); });
}

#define IS_AS_TOLD(field, symbol, result, arguments)                                                                   \
    static_assert(std::is_same<decltype(&symbol), result(*) arguments>::value, #symbol " differs");
CU_NCCL_FUNCTIONS(IS_AS_TOLD)
