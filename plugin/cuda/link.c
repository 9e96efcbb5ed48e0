// Devices that add up what each of them has without the host. Exact sums: a block is cut into slices, one a device;
// every device sends its parts of a slice to the slice's owner, who adds them along the tree with the kernel that
// programs use, and sends the total back. Fast sums are NCCL's own.
//
// A link has streams of its own and leaves all else of its devices alone, for their threads go on meanwhile. Some of
// its devices may be those of other processes, which make the same calls for them: what is done here is done for one's
// own, and no call waits for another process, since that one may have failed and never come.
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/tree.h"
#include "cuda/internal.h"
#include "cuda/nccl.h"

typedef struct station {
    cu_device *dev;    // NULL: another process's; nothing of the rest is here
    cu_nccl_comm comm; // NULL: aborted, or not made
    CUstream stream;
    CUdeviceptr staging; // slices of others' parts
    size_t capacity;     // its bytes
    uint64_t part;       // address of its first part
} station;

typedef struct cu_link {
    lf_link base;
    station *stations; // [count]
    unsigned count;
    station *own; // [own_count] of them: this process's
    unsigned own_count;
    bool failed, shared; // shared: with other processes
    lf_link_group group; // if so
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

// ---- failing

static bool works(const station *s, CUresult result, const char *what, lf_error *err)
{
    return result == CUDA_SUCCESS || cu_error(err, result, "%s: %s between devices", s->dev->base.info.name, what);
}

static bool enter(const station *s, lf_error *err)
{
    return works(s, cu.CtxSetCurrent(s->dev->context), "an exchange", err);
}

// Ends what a device waits for that another one will not send.
static void give_up(cu_link *link)
{
    link->failed = true;
    for (unsigned i = 0; i < link->own_count; i++)
        if (link->own[i].comm)
            cu_nccl.CommAbort(link->own[i].comm);
    for (unsigned i = 0; i < link->own_count; i++) {
        station *s = &link->own[i];
        s->comm = NULL;
        cu.CtxSetCurrent(s->dev->context);
        if (s->stream)
            cu.StreamSynchronize(s->stream);
    }
}

// ---- waiting

// Until NCCL has begun all that it was asked for or, if `streams`, has done it. Without blocking: a device that is lost
// tells its own stream alone, and the others would wait for it for ever. It turns, as the driver's own wait does.
static bool wait_for_all(cu_link *link, bool streams, lf_error *err)
{
    for (bool done = false; !done;) {
        done = true;
        for (unsigned i = 0; i < link->own_count; i++) {
            const station *s = &link->own[i];
            cu_nccl_result state = CU_NCCL_SUCCESS;
            if (!enter(s, err))
                return false;
            CUresult result = streams ? cu.StreamQuery(s->stream) : CUDA_SUCCESS;
            if ((result != CUDA_ERROR_NOT_READY && !works(s, result, "an exchange", err)) ||
                !cu_nccl_succeeds(cu_nccl.CommGetAsyncError(s->comm, &state), "ncclCommGetAsyncError", err) ||
                !cu_nccl_succeeds(state, "an exchange", err))
                return false;
            done = done && result == CUDA_SUCCESS && state == CU_NCCL_SUCCESS;
        }
        if (!done && link->shared && !link->group.goes_on(link->group.user)) {
            lf_error_set(err, LF_EDEVICE, "NCCL: another process has failed");
            return false;
        }
        if (!done)
            sched_yield();
    }
    return true;
}

// What `calls` asks for begins at the end of the group, all at once.
static bool in_group(cu_link *link, bool (*calls)(void *user), void *user, lf_error *err)
{
    if (!cu_nccl_succeeds(cu_nccl.GroupStart(), "ncclGroupStart", err))
        return false;
    bool ok = calls(user);
    cu_nccl_result ended = cu_nccl.GroupEnd();
    return ok && cu_nccl_succeeds(ended, "ncclGroupEnd", err) && wait_for_all(link, false, err);
}

// ---- life

void cu_link_destroy(lf_link *base)
{
    cu_link *link = (cu_link *)base;
    for (unsigned i = 0; i < link->own_count; i++) {
        station *s = &link->own[i];
        cu.CtxSetCurrent(s->dev->context); // a failed device refuses what follows, and has freed it itself
        if (s->comm && link->shared)       // to destroy it would wait for the other processes
            cu_nccl.CommAbort(s->comm);
        else if (s->comm)
            cu_nccl.CommDestroy(s->comm);
        if (s->staging)
            cu.MemFree(s->staging);
        if (s->stream)
            cu.StreamDestroy(s->stream);
    }
    free(link->stations);
    free(link);
}

bool cu_link_offer(lf_device *const devs[], unsigned count, lf_link_id *id, lf_error *err)
{
    for (unsigned i = 0; i < count; i++)
        for (unsigned j = 0; j < i; j++)
            if (((cu_device *)devs[i])->device == ((cu_device *)devs[j])->device) {
                lf_error_set(err, LF_EUNSUPPORTED, "NCCL: %s is there twice", devs[i]->info.id);
                return false;
            }
    return cu_nccl_load(err) && (!id || cu_nccl_succeeds(cu_nccl.GetUniqueId(id), "ncclGetUniqueId", err));
}

typedef struct beginning {
    cu_link *link;
    lf_error *err;
} beginning;

static bool join_all(void *user)
{
    const beginning *b = user;
    cu_link *link = b->link;
    cu_nccl_config config = CU_NCCL_CONFIG(!link->shared);
    bool ok = true;
    for (unsigned i = 0; ok && i < link->own_count; i++) // each for the device whose context is the current one
        ok = enter(&link->own[i], b->err) &&
             cu_nccl_succeeds(cu_nccl.CommInitRankConfig(&link->own[i].comm, (int)link->count, link->group.id,
                                                         (int)(link->own + i - link->stations), &config),
                              "ncclCommInitRankConfig", b->err);
    return ok;
}

static bool open_stations(cu_link *link, lf_error *err)
{
    bool ok = in_group(link, join_all, &(beginning){ link, err }, err);
    for (unsigned i = 0; ok && i < link->own_count; i++) {
        station *s = &link->own[i];
        ok = enter(s, err) && works(s, cu.StreamCreate(&s->stream, CU_STREAM_NON_BLOCKING), "a stream", err);
    }
    return ok;
}

lf_link *cu_link_create(lf_device *const devs[], unsigned count, const lf_link_group *group, lf_error *err)
{
    lf_link_group alone = { .count = count };
    if (!cu_link_offer(devs, count, group ? NULL : &alone.id, err))
        return NULL;
    cu_link *link = calloc(1, sizeof *link);
    if (!link) {
        lf_error_set(err, LF_ENOMEM, "a link of %u devices: out of memory", count);
        return NULL;
    }
    link->group = group ? *group : alone;
    link->shared = group;
    link->count = link->group.count;
    link->stations = calloc(link->count, sizeof *link->stations);
    if (!link->stations) {
        lf_error_set(err, LF_ENOMEM, "a link of %u devices: out of memory", link->count);
        free(link);
        return NULL;
    }
    link->own = link->stations + link->group.first;
    link->own_count = count;
    for (unsigned i = 0; i < count; i++)
        link->own[i].dev = (cu_device *)devs[i];
    if (open_stations(link, err)) {
        if (!link->group.first) // of several processes one tells it
            lf_log(LF_LOG_DEBUG, "%u devices exchange through NCCL", link->count);
        return &link->base;
    }
    give_up(link);
    cu_link_destroy(&link->base);
    return NULL;
}

// ---- one sum

// Of no use where it is another process's.
static uint64_t address_of(const lf_link_part *part)
{
    const cu_buffer *buffer = (const cu_buffer *)part->buffer;
    return buffer ? buffer->memory + part->offset : 0;
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

// This process's side of it, which may be both or none.
static bool send(job *j, unsigned from, uint64_t out, unsigned to, uint64_t in, size_t n)
{
    const station *sender = &j->link->stations[from], *receiver = &j->link->stations[to];
    return (!sender->dev ||
            cu_nccl_succeeds(cu_nccl.Send((const void *)out, n, CU_NCCL_FLOAT, (int)to, sender->comm, sender->stream),
                             "ncclSend", j->err)) &&
           (!receiver->dev ||
            cu_nccl_succeeds(cu_nccl.Recv((void *)in, n, CU_NCCL_FLOAT, (int)from, receiver->comm, receiver->stream),
                             "ncclRecv", j->err));
}

static bool send_parts(void *user)
{
    job *j = user;
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

static bool send_totals(void *user)
{
    job *j = user;
    bool ok = true;
    for (unsigned owner = 0; ok && owner < j->link->count && slice_size(j, owner); owner++) {
        uint64_t offset = slice_begin(j, owner) * sizeof(float);
        for (unsigned to = 0; ok && to < j->link->count; to++)
            if (to != owner)
                ok = send(j, owner, j->link->stations[owner].part + offset, to, j->link->stations[to].part + offset,
                          slice_size(j, owner));
    }
    return ok;
}

static bool all_reduce(void *user)
{
    job *j = user;
    bool ok = true;
    for (unsigned i = 0; ok && i < j->link->own_count; i++) {
        const station *s = &j->link->own[i];
        ok = cu_nccl_succeeds(cu_nccl.AllReduce((const void *)s->part, (void *)s->part, j->n, CU_NCCL_FLOAT,
                                                CU_NCCL_SUM, s->comm, s->stream),
                              "ncclAllReduce", j->err);
    }
    return ok;
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
        if (!s->dev)
            continue;
        uint64_t total = s->part + slice_begin(j, owner) * sizeof(float);
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
        if (s->dev && part != s->part)
            ok = enter(s, j->err) && launch_sum(j, s, part, s->part, j->n);
    }
    return ok;
}

static bool prepare(job *j, bool fast)
{
    bool ok = true;
    for (size_t p = j->part_count; p-- > 0;) {
        j->tree[p] = (lf_tree_part){ .first = j->parts[p].first, .count = j->parts[p].count };
        j->link->stations[j->parts[p].device].part = address_of(&j->parts[p]);
    }
    j->each = ((j->n + j->link->count - 1) / j->link->count + 3) / 4 * 4;
    for (unsigned i = 0; ok && !fast && i < j->link->own_count; i++) {
        size_t others = 0;
        for (size_t p = 0; p < j->part_count; p++)
            others += j->parts[p].device != j->link->group.first + i;
        ok = reserve(&j->link->own[i], others * j->each * sizeof(float), j->err);
    }
    return ok;
}

bool cu_link_sum(lf_link *base, const lf_link_part *parts, size_t part_count, size_t n, bool fast, lf_error *err)
{
    cu_link *link = (cu_link *)base;
    job j = { .link = link, .parts = parts, .part_count = part_count, .n = n, .err = err };
    bool ok = false;
    if (link->failed) {
        lf_error_set(err, LF_EDEVICE, "NCCL: the link has failed before");
        return false;
    }
    j.tree = calloc(part_count, sizeof *j.tree);
    j.place = calloc(part_count, sizeof *j.place);
    if (!j.tree || !j.place)
        lf_error_set(err, LF_ENOMEM, "a sum of %zu parts: out of memory", part_count);
    else if (prepare(&j, fast))
        ok = (fast ? add_own(&j) && in_group(link, all_reduce, &j, err)
                   : in_group(link, send_parts, &j, err) && add_along_tree(&j) &&
                         in_group(link, send_totals, &j, err)) &&
             wait_for_all(link, true, err);
    if (!ok)
        give_up(link);
    free(j.tree);
    free(j.place);
    return ok;
}
