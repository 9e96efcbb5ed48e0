// Several processes that train together, on one machine or many: what they exchange, through MPI. The library is opened
// at run time, and only in a process that mpirun, mpiexec or srun has started. train/ and binding/ call this.
//
// Every function but the first three is collective: all ranks call it, in the same order, or all wait forever; one
// thread at a time. A rank that fails ends all (lf_ranks_abort).
#ifndef LF_RANKS_RANKS_H
#define LF_RANKS_RANKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

// Whether the environment says that this process is one of several that were started together. Opens nothing.
bool lf_ranks_started(void);

// The same, with what the environment says of this process; 0 of 1 where it is alone.
bool lf_ranks_place(uint32_t *rank, uint32_t *count);

// Opens MPI and initialises it at the first call. True with *count 1 and *rank 0 where lf_ranks_started is false.
// False: the library is missing or does not start; the message says which names were tried.
bool lf_ranks_open(uint32_t *rank, uint32_t *count, lf_error *err);

// Ends MPI if it was opened; nothing else may be called after it. A process that exits with status 0 has it called.
void lf_ranks_close(void);

bool lf_ranks_barrier(lf_error *err);
// From rank 0, or `root`, to all.
bool lf_ranks_broadcast(void *bytes, size_t size, lf_error *err);
bool lf_ranks_broadcast_from(uint32_t root, void *bytes, size_t size, lf_error *err);
// `mine` of every rank, in their order, into `all` [count * size].
bool lf_ranks_gather(const void *mine, size_t size, void *all, lf_error *err);

// Whether all have done well. Else false on all, with the error of the first one that has not, which names its rank
// unless that is 0.
bool lf_ranks_agree(bool ok, lf_error *err);

// The same for what takes its time, and must not go on once another rank has failed: lf_ranks_vote_open before it,
// lf_ranks_vote_is_lost now and then meanwhile, which waits for nobody, and then lf_ranks_vote_close: whether `all`
// have done well. One vote at a time, and no other function of these within.
bool lf_ranks_vote_open(lf_error *err);
bool lf_ranks_vote_is_lost(void);
bool lf_ranks_vote_close(bool well, bool *all, lf_error *err);

// lf_ranks_gather for ranks that come at very different times: it sleeps while it waits. Gives up after `seconds`
// (INFINITY: never), with *met false; the others may then be in any other of these functions, and this rank has to
// leave with a status that is not 0, or to call lf_ranks_abort.
bool lf_ranks_meet(const void *mine, size_t size, void *all, double seconds, bool *met, lf_error *err);

// One part of a sum over shards: `values` [n] is the sum over shards first … first + count - 1 (see program.h).
typedef struct lf_ranks_part {
    uint32_t first, count;
    float *values; // NULL where another rank holds it
    uint32_t rank; // that holds it
} lf_ranks_part;

// The total of all parts, which together cover all shards, along the tree (lf_tree_sum), into `total` [n] on every
// rank. Every rank passes the same list but for `values`, ascending by `first`. Slices go to the rank that sums them,
// and come back from it. `total` may be one of the `values`; the others are overwritten.
bool lf_ranks_sum(lf_ranks_part *parts, size_t part_count, float *total, size_t n, lf_error *err);

// The sum of `mine` [n] of all ranks, added up in whatever order MPI likes, into `total` [n], which is other memory.
bool lf_ranks_add(const float *mine, float *total, size_t n, lf_error *err);

// Ends all ranks at once.
_Noreturn void lf_ranks_abort(int exit_status);

#endif
