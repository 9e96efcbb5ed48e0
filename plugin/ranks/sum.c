// Totals over the parts of all ranks. Here: what every rank adds up alone, and the way for few bytes.
#include "ranks/internal.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "core/tree.h"

static struct {
    void *bytes;
    size_t size;
} kept[LF_BLOCK_COUNT];

void *lf_ranks_keep(lf_ranks_block block, size_t size, lf_error *err)
{
    if (size > kept[block].size) {
        free(kept[block].bytes);
        kept[block].bytes = malloc(size);
        kept[block].size = kept[block].bytes ? size : 0;
        if (!kept[block].bytes)
            lf_error_set(err, LF_ENOMEM, "a sum over ranks: out of memory: %zu bytes", size);
    }
    return kept[block].bytes;
}

void lf_ranks_release(void)
{
    for (size_t i = 0; i < LF_BLOCK_COUNT; i++)
        free(kept[i].bytes);
    memset(kept, 0, sizeof kept);
}

// Neighbours in the tree that one rank holds become one part, so that no more than needed is sent.
static bool make_plan(lf_sum_plan *plan, const lf_ranks_part *parts, size_t part_count, lf_error *err)
{
    plan->merges = lf_ranks_keep(LF_BLOCK_PLAN, part_count * (sizeof *plan->merges + sizeof *plan->parts), err);
    if (!plan->merges)
        return false;
    plan->parts = (lf_ranks_part *)(plan->merges + part_count);
    plan->merge_count = plan->part_count = 0;
    for (size_t i = 0; i < part_count; i++) {
        assert(parts[i].rank != lf_ranks_get()->rank || parts[i].values);
        lf_ranks_part *last = &plan->parts[plan->part_count++];
        *last = parts[i];
        while (last > plan->parts && last[-1].rank == last->rank && last[-1].count == last->count &&
               last[-1].first % (2 * last->count) == 0) {
            if (last->rank == lf_ranks_get()->rank)
                plan->merges[plan->merge_count++] = (lf_sum_merge){ last[-1].values, last->values };
            plan->part_count--;
            last--;
            last->count *= 2;
        }
    }
    return true;
}

void lf_ranks_merge(const lf_sum_plan *plan, size_t first, size_t n)
{
    for (size_t i = 0; i < plan->merge_count; i++)
        lf_tree_add(plan->merges[i].into + first, plan->merges[i].from + first, n);
}

// Where the values of each rank's parts begin when they lie rank by rank; in bytes, as MPI counts them here.
static void lay_out(const lf_sum_plan *plan, size_t n, uint32_t ranks, int counts[], int offsets[])
{
    memset(counts, 0, ranks * sizeof *counts);
    for (size_t i = 0; i < plan->part_count; i++)
        counts[plan->parts[i].rank] += (int)(n * sizeof(float));
    for (uint32_t r = 0, at = 0; r < ranks; at += (uint32_t)counts[r++])
        offsets[r] = (int)at;
}

static bool sum_gathered(const lf_sum_plan *plan, float *total, size_t n, lf_error *err)
{
    const lf_ranks_world *world = lf_ranks_get();
    const size_t size = n * sizeof(float), all = plan->part_count * size;
    assert(all <= INT_MAX);
    char *staging = lf_ranks_keep(LF_BLOCK_STAGING, all, err);
    lf_tree_part *parts =
        lf_ranks_keep(LF_BLOCK_REQUESTS, plan->part_count * sizeof *parts + world->count * 3 * sizeof(int), err);
    if (!staging || !parts)
        return false;
    int *counts = (int *)(parts + plan->part_count), *offsets = counts + world->count, *next = offsets + world->count;
    lay_out(plan, n, world->count, counts, offsets);
    memcpy(next, offsets, world->count * sizeof *next);

    lf_ranks_merge(plan, 0, n);
    for (size_t i = 0; i < plan->part_count; i++) {
        const lf_ranks_part *part = &plan->parts[i];
        float *place = (float *)(staging + next[part->rank]);
        next[part->rank] += (int)size;
        if (part->rank == world->rank)
            memcpy(place, part->values, size);
        parts[i] = (lf_tree_part){ part->first, part->count, place };
    }
    const lf_mpi *mpi = &world->mpi;
    if (world->open &&
        !lf_mpi_check(mpi,
                      mpi->allgatherv(mpi->in_place, 0, mpi->byte, staging, counts, offsets, mpi->byte, world->comm),
                      "MPI_Allgatherv", err))
        return false;
    lf_tree_sum(parts, plan->part_count, n);
    memcpy(total, parts[0].values, size);
    return true;
}

bool lf_ranks_sum_by(lf_sum_way way, const lf_ranks_part *parts, size_t part_count, float *total, size_t n,
                     lf_error *err)
{
    // Of all parts together: about what a network carries in the time of the exchange that is saved (3 GB/s, 20 us).
    // Within a machine the two ways take about equally long there.
    enum { FEW_BYTES = 65536 };
    lf_sum_plan plan;
    if (!n)
        return true;
    if (!make_plan(&plan, parts, part_count, err))
        return false;
    if (way == LF_SUM_BY_SIZE)
        way = n <= FEW_BYTES / sizeof(float) / plan.part_count ? LF_SUM_GATHERED : LF_SUM_SLICED;
    return way == LF_SUM_GATHERED ? sum_gathered(&plan, total, n, err) : lf_ranks_sum_sliced(&plan, total, n, err);
}

bool lf_ranks_add(const float *mine, float *total, size_t n, lf_error *err)
{
    const size_t most = (size_t)1 << 28; // MPI counts in int
    const lf_ranks_world *world = lf_ranks_get();
    const lf_mpi *mpi = &world->mpi;
    if (!world->open)
        memcpy(total, mine, n * sizeof *mine);
    for (size_t done = 0; world->open && done < n;) {
        size_t piece = n - done < most ? n - done : most;
        if (!lf_mpi_check(mpi, mpi->allreduce(mine + done, total + done, (int)piece, mpi->real, mpi->sum, world->comm),
                          "MPI_Allreduce", err))
            return false;
        done += piece;
    }
    return true;
}

bool lf_ranks_sum(lf_ranks_part *parts, size_t part_count, float *total, size_t n, lf_error *err)
{
    return lf_ranks_sum_by(LF_SUM_BY_SIZE, parts, part_count, total, n, err);
}
