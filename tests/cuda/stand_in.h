// A stand-in for the CUDA driver, and for NCCL (nccl.cpp): a library that exports the functions of the table in
// plugin/cuda/driver.h and runs the kernels on the host. LAVAFLOW_LIBCUDA names it, and LAVAFLOW_LIBNCCL may. As with a
// real device, work that is queued on a stream runs later: when somebody waits for it, and what it then finds is in
// memory.
//
// LAVAFLOW_STAND_IN_DEVICES=N          so many devices; 1 by default
// LAVAFLOW_STAND_IN_MEMORY=BYTES       of each
// LAVAFLOW_STAND_IN_VERSION=12020      of the driver
// LAVAFLOW_STAND_IN_FAIL=NAME@3=719    the third call of that function fails so; several, separated by commas
// LAVAFLOW_STAND_IN_ORDER=…            launch.h; of independent nodes of a graph too
#ifndef LF_CUDA_STAND_IN_H
#define LF_CUDA_STAND_IN_H

#include <cuda.h>
#include <stdint.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

// What each device has: multiprocessors, and in each of these so many threads and bytes of shared memory at a time, of
// which a block may have so many and the driver keeps some for itself.
enum {
    HOST_PROCESSORS = 16,
    HOST_RESIDENT_THREADS = 2048,
    HOST_SHARED_OF_PROCESSOR = 228 << 10,
    HOST_SHARED_OF_BLOCK = 227 << 10,
    HOST_SHARED_RESERVED = 1 << 10,
};

enum { HOST_FOR_EVER = 30 }; // seconds after which what waits for another process is taken for a hang

// CUDA_ERROR_NOT_READY: it waits for another process, and is to be tried again.
typedef std::function<CUresult(void)> host_work;

struct host_graph {
    struct node {
        uint64_t id;
        host_work work;
        std::vector<size_t> after; // earlier nodes, by place
        const void *memory;        // that it works in, so that it must not run beside another such node; or NULL
    };
    std::vector<node> nodes;
    std::map<uint64_t, size_t> places; // of nodes, by id
};

// A stream that is captured puts its work into a graph; streams that wait for its events join.
struct host_capture {
    host_graph graph;
    uint64_t origin; // the stream that began
};

struct host_context {
    unsigned device, holders;
    CUresult error; // of the first failure after which a context is lost
    size_t used;
};

// Where a stream or an event stands in a capture: behind these nodes.
struct host_captured {
    std::shared_ptr<host_capture> capture;
    std::vector<size_t> tail;
};

struct host_stream {
    uint64_t context;
    std::deque<host_work> queue;
    uint64_t queued, done;
    host_captured captured;
    unsigned queries;
    bool stuck; // behind a group of NCCL that never ends
};

struct host_event {
    uint64_t context, stream, ticket; // the work of that stream that was queued before it
    host_captured captured;
};

struct host_module {
    uint64_t context;
};

struct host_function {
    uint64_t module;
    const char *name;
    void *kernel;
    unsigned shared_max; // dynamic shared memory that a launch may ask for
};

struct host_shape {
    unsigned grid[3], block[3], shared;
    bool cooperative;
};

struct host_exec {
    uint64_t context;
    std::shared_ptr<const host_graph> graph;
};

struct host_memory {
    uint64_t context;
    size_t size;
    bool pinned; // on the host
};

// Handles are numbers that are never used again, so that one outlived by its object is found out.
uint64_t host_new_id();
template <class Object> class host_table
{
  public:
    template <class Handle> Handle add(Object object)
    {
        uint64_t id = host_new_id();
        objects.emplace(id, std::move(object));
        return reinterpret_cast<Handle>(id);
    }
    template <class Handle> Object *find(Handle handle)
    {
        auto found = objects.find((uint64_t)handle);
        return found == objects.end() ? nullptr : &found->second;
    }
    template <class Handle> bool remove(Handle handle)
    {
        return objects.erase((uint64_t)handle);
    }
    std::map<uint64_t, Object> objects;
};

struct host_state {
    std::recursive_mutex lock;
    bool initialised;
    host_table<host_context> contexts;
    host_table<host_stream> streams;
    host_table<host_event> events;
    host_table<host_module> modules;
    host_table<host_function> functions;
    host_table<host_graph> graphs;
    host_table<host_exec> execs;
    std::map<uint64_t, host_memory> memory; // by address
};
extern host_state host;

// The calling thread's context: its number, 0 for none, and itself.
uint64_t host_current();
host_context *host_current_context();

// What LAVAFLOW_STAND_IN_FAIL has for this call of that function; marks the current context as lost where that error
// means it.
CUresult host_injected(const char *function);

// Before anything else a function calls one of these. Without a context:
template <class Body> CUresult host_call(const char *function, Body body)
{
    std::lock_guard<std::recursive_mutex> guard(host.lock);
    CUresult failed = host_injected(function);
    if (failed)
        return failed;
    return host.initialised ? body() : CUDA_ERROR_NOT_INITIALIZED;
}

// In the current context, which is there and not lost:
template <class Body> CUresult host_call_in_context(const char *function, Body body)
{
    return host_call(function, [&]() -> CUresult {
        host_context *context = host_current_context();
        if (!context)
            return host_current() ? CUDA_ERROR_CONTEXT_IS_DESTROYED : CUDA_ERROR_INVALID_CONTEXT;
        return context->error ? context->error : body(*context);
    });
}

// The memory that holds all these bytes, or NULL.
const host_memory *host_find_memory(uint64_t address, size_t size);
void host_free_memory(uint64_t context); // all that a context has left

unsigned host_count_comms(uint64_t context); // NCCL's

// A stream of the current context, or NULL.
host_stream *host_find_stream(CUstream stream);
// Runs the first `ticket` works ever queued there, and what they wait for, as far as that does not wait for another
// process. A failure loses the context.
void host_drain(uint64_t stream, uint64_t ticket);
// Runs all that is queued in a context, and returns how that went.
CUresult host_drain_all(uint64_t context);
// Queues it, or makes it a node of the capture.
void host_queue(host_stream *stream, host_work work, const void *memory = NULL);

size_t host_graph_add(host_graph *graph, host_work work, std::vector<size_t> after, const void *memory = NULL);
// Whether all that these nodes do comes before where others end.
bool host_graph_is_joined(const host_graph &graph, const std::vector<size_t> &nodes, std::vector<size_t> end);
CUresult host_graph_run(const host_graph &graph);

// The work of a launch, or why the driver would refuse it.
CUresult host_kernel_work(CUfunction function, const host_shape &shape, void **params, host_work *work);

#endif
