// Devices that add up what each of them has without the host. Exact sums: a block is cut into slices, one a device;
// every device sends its parts of a slice to the slice's owner, who adds them along the tree with the kernel that
// programs use, and sends the total back. Fast sums are NCCL's own.
//
// A link has streams of its own and leaves all else of its devices alone, for their threads go on meanwhile.
#include "cuda/nccl.h"

#include <assert.h>
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/tree.h"
#include "cuda/internal.h"

typedef struct station {
    cu_device *dev;
    cu_nccl_comm comm; // NULL: aborted, or not made
    CUstream stream;
    CUdeviceptr staging; // slices of others' parts
    size_t capacity;     // its bytes
    uint64_t own;        // address of its first part
} station;

typedef struct cu_link {
    lf_link base;
    station *stations; // [count]
    unsigned count;
} cu_link;

// A sum while it is made.
typedef struct job {
    cu_link *link;
    const lf_link_part *parts;
    size_t part_count, n;
    size_t each; // numbers of a slice, a multiple of 4; the last ones may be shorter or empty
    lf_tree_part *tree;
    uint64_t *place; // [part_count]: of each part's slice, on the device that adds
    unsigned owner;  // of that slice
    lf_error *err;
    bool failed;
} job;

// ---- the library

static struct {
#define FIELD(field, symbol, result, arguments) result(*field) arguments;
    CU_NCCL_FUNCTIONS(FIELD)
#undef FIELD
} nccl;

static bool find_functions(void *library, lf_error *err)
{
    const char *missing = NULL;
#define FIND(field, symbol, result, arguments)                                                                         \
    {                                                                                                                  \
        void *address = dlsym(library, #symbol);                                                                       \
        memcpy(&nccl.field, &address, sizeof address);                                                                 \
        missing = address ? missing : #symbol;                                                                         \
    }
    CU_NCCL_FUNCTIONS(FIND)
#undef FIND
    if (missing)
        lf_error_set(err, LF_EUNSUPPORTED, "not NCCL 2.7 or later: it has no %s", missing);
    return !missing;
}

// Once a process; it stays.
static bool load(lf_error *err)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static bool found;
    const char *asked = getenv("LAVAFLOW_LIBNCCL");
    pthread_mutex_lock(&lock);
    if (!found) {
        void *library = dlopen(asked && *asked ? asked : "libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
        if (!library)
            lf_error_set(err, LF_EUNSUPPORTED, "%s", dlerror());
        found = library && find_functions(library, err);
        if (library && !found)
            dlclose(library);
    }
    bool loaded = found;
    pthread_mutex_unlock(&lock);
    return loaded;
}

// ---- failing

static bool works(const station *s, CUresult result, const char *what, lf_error *err)
{
    return result == CUDA_SUCCESS || cu_error(err, result, "%s: %s between devices", s->dev->base.info.name, what);
}

static bool succeeds(cu_nccl_result result, const char *call, lf_error *err)
{
    if (result == CU_NCCL_SUCCESS)
        return true;
    lf_error_set(err, LF_EDEVICE, "NCCL: %s: %s (%d)", call, nccl.GetErrorString(result), (int)result);
    return false;
}

static bool enter(const station *s, lf_error *err)
{
    return works(s, cu.CtxSetCurrent(s->dev->context), "an exchange", err);
}

// Ends what a device waits for that another one will not send.
static void give_up(cu_link *link)
{
    for (unsigned i = 0; i < link->count; i++)
        if (link->stations[i].comm)
            nccl.CommAbort(link->stations[i].comm);
    for (unsigned i = 0; i < link->count; i++) {
        station *s = &link->stations[i];
        s->comm = NULL;
        cu.CtxSetCurrent(s->dev->context);
        if (s->stream)
            cu.StreamSynchronize(s->stream);
    }
}

// ---- life

void cu_link_destroy(lf_link *base)
{
    cu_link *link = (cu_link *)base;
    for (unsigned i = 0; i < link->count; i++) {
        station *s = &link->stations[i];
        cu.CtxSetCurrent(s->dev->context); // a failed device refuses what follows, and has freed it itself
        if (s->comm)
            nccl.CommDestroy(s->comm);
        if (s->staging)
            cu.MemFree(s->staging);
        if (s->stream)
            cu.StreamDestroy(s->stream);
    }
    free(link->stations);
    free(link);
}

static bool open_stations(cu_link *link, lf_device *const devs[], lf_error *err)
{
    cu_nccl_comm *comms = calloc(link->count, sizeof *comms);
    int *numbers = calloc(link->count, sizeof *numbers); // the runtime's, which are the driver's
    bool ok = comms && numbers;
    if (!ok)
        lf_error_set(err, LF_ENOMEM, "a link of %u devices: out of memory", link->count);
    for (unsigned i = 0; ok && i < link->count; i++) {
        station *s = &link->stations[i];
        s->dev = (cu_device *)devs[i];
        numbers[i] = (int)s->dev->device;
        for (unsigned j = 0; ok && j < i; j++)
            ok = numbers[j] != numbers[i];
        if (!ok)
            lf_error_set(err, LF_EUNSUPPORTED, "NCCL: %s is there twice", devs[i]->info.id);
    }
    ok = ok && succeeds(nccl.CommInitAll(comms, (int)link->count, numbers), "ncclCommInitAll", err);
    for (unsigned i = 0; ok && i < link->count; i++)
        link->stations[i].comm = comms[i];
    for (unsigned i = 0; ok && i < link->count; i++) {
        station *s = &link->stations[i];
        ok = enter(s, err) && works(s, cu.StreamCreate(&s->stream, CU_STREAM_NON_BLOCKING), "a stream", err);
    }
    free(comms);
    free(numbers);
    return ok;
}

lf_link *cu_link_create(lf_device *const devs[], unsigned count, lf_error *err)
{
    if (!load(err))
        return NULL;
    cu_link *link = calloc(1, sizeof *link);
    if (link)
        link->stations = calloc(count, sizeof *link->stations);
    if (!link || !link->stations) {
        lf_error_set(err, LF_ENOMEM, "a link of %u devices: out of memory", count);
        free(link);
        return NULL;
    }
    for (unsigned i = 0; i < count; i++)
        link->stations[i].dev = (cu_device *)devs[i];
    link->count = count;
    if (open_stations(link, devs, err)) {
        lf_log(LF_LOG_DEBUG, "%u devices exchange through NCCL", count);
        return &link->base;
    }
    give_up(link);
    cu_link_destroy(&link->base);
    return NULL;
}

// ---- one sum

static uint64_t address_of(const lf_link_part *part)
{
    return ((const cu_buffer *)part->buffer)->memory + part->offset;
}

static size_t slice_begin(const job *j, unsigned owner)
{
    size_t begin = owner * j->each;
    return begin < j->n ? begin : j->n;
}

static size_t slice_size(const job *j, unsigned owner)
{
    return slice_begin(j, owner + 1) - slice_begin(j, owner);
}

static bool reserve(station *s, size_t size, lf_error *err)
{
    if (size <= s->capacity)
        return true;
    if (!enter(s, err) || (s->staging && !works(s, cu.MemFree(s->staging), "memory", err)))
        return false;
    s->staging = 0;
    s->capacity = 0;
    if (!works(s, cu.MemAlloc(&s->staging, size), "memory", err))
        return false;
    s->capacity = size;
    return true;
}

// Where a device finds its slice of each part: in the part, or in its staging.
static void find_places(job *j, unsigned owner)
{
    uint64_t next = j->link->stations[owner].staging;
    j->owner = owner;
    for (size_t p = 0; p < j->part_count; p++) {
        if (j->parts[p].device == owner) {
            j->place[p] = address_of(&j->parts[p]) + slice_begin(j, owner) * sizeof(float);
            continue;
        }
        j->place[p] = next;
        next += j->each * sizeof(float);
    }
}

static bool send(job *j, unsigned from, uint64_t out, unsigned to, uint64_t in, size_t n)
{
    const station *sender = &j->link->stations[from], *receiver = &j->link->stations[to];
    return succeeds(nccl.Send((const void *)out, n, CU_NCCL_FLOAT, (int)to, sender->comm, sender->stream), "ncclSend",
                    j->err) &&
           succeeds(nccl.Recv((void *)in, n, CU_NCCL_FLOAT, (int)from, receiver->comm, receiver->stream), "ncclRecv",
                    j->err);
}

static bool send_parts(job *j)
{
    bool ok = true;
    for (unsigned owner = 0; ok && owner < j->link->count && slice_size(j, owner); owner++) {
        find_places(j, owner);
        for (size_t p = 0; ok && p < j->part_count; p++)
            if (j->parts[p].device != owner)
                ok = send(j, j->parts[p].device, address_of(&j->parts[p]) + slice_begin(j, owner) * sizeof(float),
                          owner, j->place[p], slice_size(j, owner));
    }
    return ok;
}

static bool send_totals(job *j)
{
    bool ok = true;
    for (unsigned owner = 0; ok && owner < j->link->count && slice_size(j, owner); owner++) {
        uint64_t offset = slice_begin(j, owner) * sizeof(float);
        for (unsigned to = 0; ok && to < j->link->count; to++)
            if (to != owner)
                ok = send(j, owner, j->link->stations[owner].own + offset, to, j->link->stations[to].own + offset,
                          slice_size(j, owner));
    }
    return ok;
}

static bool all_reduce(job *j)
{
    bool ok = true;
    for (unsigned i = 0; ok && i < j->link->count; i++) {
        const station *s = &j->link->stations[i];
        ok = succeeds(
            nccl.AllReduce((const void *)s->own, (void *)s->own, j->n, CU_NCCL_FLOAT, CU_NCCL_SUM, s->comm, s->stream),
            "ncclAllReduce", j->err);
    }
    return ok;
}

// What stands between start and end of a group begins at its end, all at once.
static bool in_group(job *j, bool (*calls)(job *j))
{
    if (!succeeds(nccl.GroupStart(), "ncclGroupStart", j->err))
        return false;
    bool ok = calls(j);
    cu_nccl_result ended = nccl.GroupEnd();
    return ok && succeeds(ended, "ncclGroupEnd", j->err);
}

static bool launch_sum(job *j, const station *s, uint64_t x, uint64_t y, size_t n)
{
    cu_launch l;
    cu_lower_sum(x, y, n, &l);
    void *params[] = { &l.call };
    return works(s,
                 cu.LaunchKernel(s->dev->functions[l.kernel], l.grid[0], l.grid[1], l.grid[2], l.block[0], l.block[1],
                                 l.block[2], l.shared, s->stream, params, NULL),
                 cu_kernel_name(l.kernel), j->err);
}

static void add_slices(void *user, size_t into, size_t from)
{
    job *j = user;
    j->failed = j->failed ||
                !launch_sum(j, &j->link->stations[j->owner], j->place[from], j->place[into], slice_size(j, j->owner));
}

// Each device its slice, along the tree.
static bool add_along_tree(job *j)
{
    for (unsigned owner = 0; !j->failed && owner < j->link->count && slice_size(j, owner); owner++) {
        const station *s = &j->link->stations[owner];
        uint64_t total = s->own + slice_begin(j, owner) * sizeof(float);
        find_places(j, owner);
        if (!enter(s, j->err))
            return false;
        lf_tree_walk(j->tree, j->part_count, add_slices, j);
        if (!j->failed && j->place[0] != total)
            j->failed =
                !works(s, cu.MemcpyDtoDAsync(total, j->place[0], slice_size(j, owner) * sizeof(float), s->stream),
                       "a copy", j->err);
    }
    return !j->failed;
}

// Each device its own parts.
static bool add_own(job *j)
{
    bool ok = true;
    for (size_t p = 0; ok && p < j->part_count; p++) {
        const station *s = &j->link->stations[j->parts[p].device];
        uint64_t part = address_of(&j->parts[p]);
        if (part != s->own)
            ok = enter(s, j->err) && launch_sum(j, s, part, s->own, j->n);
    }
    return ok;
}

// Without blocking: a device that is lost tells its own stream alone, and the others would wait for it for ever. It
// turns, as the driver's own wait does.
static bool wait_for_all(job *j)
{
    for (bool done = false; !done;) {
        done = true;
        for (unsigned i = 0; i < j->link->count; i++) {
            const station *s = &j->link->stations[i];
            cu_nccl_result state = CU_NCCL_SUCCESS;
            if (!enter(s, j->err))
                return false;
            CUresult result = cu.StreamQuery(s->stream);
            done = done && result == CUDA_SUCCESS;
            if ((result != CUDA_ERROR_NOT_READY && !works(s, result, "an exchange", j->err)) ||
                !succeeds(nccl.CommGetAsyncError(s->comm, &state), "ncclCommGetAsyncError", j->err) ||
                (state != CU_NCCL_IN_PROGRESS && !succeeds(state, "an exchange", j->err)))
                return false;
        }
        if (!done)
            sched_yield();
    }
    return true;
}

static bool prepare(job *j, bool fast)
{
    bool ok = true;
    for (size_t p = j->part_count; p-- > 0;) {
        j->tree[p] = (lf_tree_part){ .first = j->parts[p].first, .count = j->parts[p].count };
        j->link->stations[j->parts[p].device].own = address_of(&j->parts[p]);
    }
    j->each = ((j->n + j->link->count - 1) / j->link->count + 3) / 4 * 4;
    for (unsigned i = 0; ok && !fast && i < j->link->count; i++) {
        size_t others = 0;
        for (size_t p = 0; p < j->part_count; p++)
            others += j->parts[p].device != i;
        ok = reserve(&j->link->stations[i], others * j->each * sizeof(float), j->err);
    }
    return ok;
}

bool cu_link_sum(lf_link *base, const lf_link_part *parts, size_t part_count, size_t n, bool fast, lf_error *err)
{
    cu_link *link = (cu_link *)base;
    job j = { .link = link, .parts = parts, .part_count = part_count, .n = n, .err = err };
    bool ok = false;
    if (!link->stations[0].comm) {
        lf_error_set(err, LF_EDEVICE, "NCCL: the link has failed before");
        return false;
    }
    j.tree = calloc(part_count, sizeof *j.tree);
    j.place = calloc(part_count, sizeof *j.place);
    if (!j.tree || !j.place)
        lf_error_set(err, LF_ENOMEM, "a sum of %zu parts: out of memory", part_count);
    else if (prepare(&j, fast))
        ok = (fast ? add_own(&j) && in_group(&j, all_reduce)
                   : in_group(&j, send_parts) && add_along_tree(&j) && in_group(&j, send_totals)) &&
             wait_for_all(&j);
    if (!ok)
        give_up(link);
    free(j.tree);
    free(j.place);
    return ok;
}
