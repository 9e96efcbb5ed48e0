// A sum in which every rank adds up a slice of the values. What goes over the wire is least that way: of one part each
// of N ranks, (N - 1)/N to the ranks that sum and (N - 1)/N back. It is done in chunks of the values, so that memory
// stays bounded and one chunk is summed while the next one is on its way.
#include "ranks/internal.h"

#include <string.h>

#include "core/tree.h"

enum { SLICE_VALUES = 262144 }; // 1 MB of a chunk, each rank's: less costs latency, more memory

typedef struct pending {
    lf_mpi_slot *requests;
    size_t count;
} pending;

typedef struct sum_job {
    const lf_ranks_world *world;
    const lf_sum_plan *plan;
    float *total;
    size_t n;
    size_t slice_values; // in a chunk, each rank's at most
    lf_tree_part *tree;  // [part_count]
    // Two chunks are under way at a time.
    float *staging[2]; // (parts that others hold, slice_values)
    pending parts[2], totals[2];
} sum_job;

typedef struct slice {
    size_t first, count;
} slice;

static slice slice_of(const sum_job *job, size_t chunk, uint32_t rank)
{
    const size_t ranks = job->world->count, most = job->slice_values * ranks;
    const size_t begin = chunk * most, count = job->n - begin < most ? job->n - begin : most;
    const size_t first = count * rank / ranks, end = count * (rank + 1) / ranks;
    return (slice){ begin + first, end - first };
}

static bool send_slice(sum_job *job, pending *under_way, const float *values, slice s, uint32_t to, int tag,
                       lf_error *err)
{
    const lf_mpi *mpi = &job->world->mpi;
    return !s.count || lf_mpi_check(mpi,
                                    mpi->isend(values, (int)(s.count * sizeof *values), mpi->byte, (int)to, tag,
                                               job->world->comm, &under_way->requests[under_way->count++]),
                                    "MPI_Isend", err);
}

static bool receive_slice(sum_job *job, pending *under_way, float *values, slice s, uint32_t from, int tag,
                          lf_error *err)
{
    const lf_mpi *mpi = &job->world->mpi;
    return !s.count || lf_mpi_check(mpi,
                                    mpi->irecv(values, (int)(s.count * sizeof *values), mpi->byte, (int)from, tag,
                                               job->world->comm, &under_way->requests[under_way->count++]),
                                    "MPI_Irecv", err);
}

static bool wait_for(sum_job *job, pending *under_way, lf_error *err)
{
    const lf_mpi *mpi = &job->world->mpi;
    for (size_t i = 0; i < under_way->count; i++)
        if (!lf_mpi_check(mpi, mpi->wait(&under_way->requests[i], mpi->no_status), "MPI_Wait", err))
            return false;
    under_way->count = 0;
    return true;
}

// Where a part of another rank arrives: they lie in the order of the parts.
static float *staged(const sum_job *job, size_t chunk, size_t index)
{
    return job->staging[chunk % 2] + index * job->slice_values;
}

// Messages between two ranks arrive in the order in which they were sent, so one tag serves for all parts.
static bool exchange_parts(sum_job *job, size_t chunk, lf_error *err)
{
    const uint32_t me = job->world->rank, ranks = job->world->count;
    pending *under_way = &job->parts[chunk % 2];
    const slice mine = slice_of(job, chunk, me), last = slice_of(job, chunk, ranks - 1);
    const size_t begin = slice_of(job, chunk, 0).first;
    lf_ranks_merge(job->plan, begin, last.first + last.count - begin);
    for (size_t i = 0, index = 0; i < job->plan->part_count; i++) {
        const lf_ranks_part *part = &job->plan->parts[i];
        if (part->rank != me &&
            !receive_slice(job, under_way, staged(job, chunk, index++), mine, part->rank, LF_TAG_PARTS, err))
            return false;
        for (uint32_t k = 1; part->rank == me && k < ranks; k++) {
            const uint32_t to = (me + k) % ranks; // each rank begins with another one
            const slice s = slice_of(job, chunk, to);
            if (!send_slice(job, under_way, part->values + s.first, s, to, LF_TAG_PARTS, err))
                return false;
        }
    }
    return true;
}

static void sum_slice(sum_job *job, size_t chunk)
{
    const slice mine = slice_of(job, chunk, job->world->rank);
    for (size_t i = 0, index = 0; i < job->plan->part_count; i++) {
        const lf_ranks_part *part = &job->plan->parts[i];
        float *values = part->rank == job->world->rank ? part->values + mine.first : staged(job, chunk, index++);
        job->tree[i] = (lf_tree_part){ part->first, part->count, values };
    }
    lf_tree_sum(job->tree, job->plan->part_count, mine.count);
    if (job->tree[0].values != job->total + mine.first)
        memcpy(job->total + mine.first, job->tree[0].values, mine.count * sizeof *job->total);
}

static bool exchange_totals(sum_job *job, size_t chunk, lf_error *err)
{
    const uint32_t me = job->world->rank, ranks = job->world->count;
    pending *under_way = &job->totals[chunk % 2];
    const slice mine = slice_of(job, chunk, me);
    for (uint32_t k = 1; k < ranks; k++) {
        const uint32_t to = (me + k) % ranks, from = (me + ranks - k) % ranks;
        const slice s = slice_of(job, chunk, from);
        if (!receive_slice(job, under_way, job->total + s.first, s, from, LF_TAG_TOTALS, err) ||
            !send_slice(job, under_way, job->total + mine.first, mine, to, LF_TAG_TOTALS, err))
            return false;
    }
    return true;
}

static bool prepare(sum_job *job, lf_error *err)
{
    const size_t ranks = job->world->count, part_count = job->plan->part_count;
    const size_t each = (job->n + ranks - 1) / ranks;
    job->slice_values = each < SLICE_VALUES ? each : SLICE_VALUES;
    size_t remote = 0;
    for (size_t i = 0; i < part_count; i++)
        remote += job->plan->parts[i].rank != job->world->rank;
    const size_t parts_most = remote + (part_count - remote) * (ranks - 1), totals_most = 2 * (ranks - 1);
    // One more of each, so that nothing is of size 0.
    job->staging[0] = lf_ranks_keep(LF_BLOCK_STAGING, (2 * remote * job->slice_values + 1) * sizeof(float), err);
    job->tree = lf_ranks_keep(
        LF_BLOCK_REQUESTS, part_count * sizeof *job->tree + 2 * (parts_most + totals_most) * sizeof(lf_mpi_slot), err);
    if (!job->staging[0] || !job->tree)
        return false;
    job->staging[1] = job->staging[0] + remote * job->slice_values;
    lf_mpi_slot *requests = (lf_mpi_slot *)(job->tree + part_count);
    for (size_t i = 0; i < 2; i++) {
        job->parts[i].requests = requests + i * (parts_most + totals_most);
        job->totals[i].requests = job->parts[i].requests + parts_most;
    }
    return true;
}

bool lf_ranks_sum_sliced(const lf_sum_plan *plan, float *total, size_t n, lf_error *err)
{
    sum_job job = { .world = lf_ranks_get(), .plan = plan, .total = total, .n = n };
    if (!prepare(&job, err))
        return false;
    const size_t most = job.slice_values * job.world->count, chunks = (n + most - 1) / most;
    if (!exchange_parts(&job, 0, err))
        return false;
    for (size_t chunk = 0; chunk < chunks; chunk++) {
        if (chunk + 1 < chunks && !exchange_parts(&job, chunk + 1, err))
            return false;
        // `total` may be what was sent: it is overwritten when the sends are done.
        if (!wait_for(&job, &job.parts[chunk % 2], err))
            return false;
        sum_slice(&job, chunk);
        if (!wait_for(&job, &job.totals[(chunk + 1) % 2], err) || !exchange_totals(&job, chunk, err))
            return false;
    }
    return wait_for(&job, &job.totals[(chunks - 1) % 2], err);
}
