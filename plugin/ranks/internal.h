// What the files of ranks/ share: the open library, and the two ways to sum. The tests and the benchmark choose one.
#ifndef LF_RANKS_INTERNAL_H
#define LF_RANKS_INTERNAL_H

#include "ranks/mpi.h"
#include "ranks/ranks.h"

typedef struct lf_ranks_world {
    lf_mpi mpi;
    lf_mpi_slot slot;       // of `comm`
    lf_mpi_handle comm;     // our copy of the world, so that another user of MPI in this process cannot be in the way
    lf_mpi_slot aside_slot; // of `aside`
    lf_mpi_handle aside;    // another, for lf_ranks_meet, which may be called beside the other functions
    uint32_t rank, count;
    bool open, ours; // MPI is initialised; and by us
} lf_ranks_world;

// One a process, as MPI itself is. Without MPI: rank 0 of 1.
const lf_ranks_world *lf_ranks_get(void);

// Blocks that are kept between calls, since page faults would take longer than the sum of a small model.
typedef enum lf_ranks_block {
    LF_BLOCK_PLAN,
    LF_BLOCK_STAGING,
    LF_BLOCK_REQUESTS,
    LF_BLOCK_VOTE,
    LF_BLOCK_COUNT
} lf_ranks_block;
// The block, of at least `size` bytes; what it held is gone.
void *lf_ranks_keep(lf_ranks_block block, size_t size, lf_error *err);
void lf_ranks_release(void);

// Of messages between two ranks on `comm`.
enum { LF_TAG_PARTS = 1, LF_TAG_TOTALS, LF_TAG_VOTE };

typedef struct lf_sum_merge {
    float *into;
    const float *from;
} lf_sum_merge;

// What every rank adds up by itself before the exchange, and what is left to exchange.
typedef struct lf_sum_plan {
    lf_sum_merge *merges; // [merge_count], of this rank, in this order
    lf_ranks_part *parts; // [part_count], ascending
    size_t merge_count, part_count;
} lf_sum_plan;

typedef enum lf_sum_way {
    LF_SUM_BY_SIZE,
    LF_SUM_GATHERED, // every rank gets all parts and adds them up: one exchange, for few bytes
    LF_SUM_SLICED,   // every rank adds up a slice: two exchanges, of the fewest bytes
} lf_sum_way;

// lf_ranks_sum. Both ways give the same bits.
bool lf_ranks_sum_by(lf_sum_way way, const lf_ranks_part *parts, size_t part_count, float *total, size_t n,
                     lf_error *err);
bool lf_ranks_sum_sliced(const lf_sum_plan *plan, float *total, size_t n, lf_error *err);

// The plan's merges, over values first … first + n - 1.
void lf_ranks_merge(const lf_sum_plan *plan, size_t first, size_t n);

#endif
