// What each rank says to every other one, and may hear while it is busy with something else.
#include "ranks/internal.h"

#include <assert.h>

// Of the vote that is open. [count] each, this rank's own place is not used.
static struct {
    lf_mpi_slot *receives, *sends;
    char *said;  // 1: it has done well
    bool *heard; // what it said is there
    char own;
    bool open;
} vote;

bool lf_ranks_vote_open(lf_error *err)
{
    const lf_ranks_world *world = lf_ranks_get();
    const lf_mpi *mpi = &world->mpi;
    assert(!vote.open);
    vote.receives = lf_ranks_keep(LF_BLOCK_VOTE, world->count * (2 * sizeof *vote.receives + 2), err);
    if (!vote.receives)
        return false;
    vote.sends = vote.receives + world->count;
    vote.said = (char *)(vote.sends + world->count);
    vote.heard = (bool *)(vote.said + world->count);
    for (uint32_t r = 0; r < world->count; r++) {
        vote.heard[r] = r == world->rank;
        vote.said[r] = 1;
        if (r != world->rank &&
            !lf_mpi_check(mpi,
                          mpi->irecv(&vote.said[r], 1, mpi->byte, (int)r, LF_TAG_VOTE, world->comm, &vote.receives[r]),
                          "MPI_Irecv", err))
            return false;
    }
    vote.open = true;
    return true;
}

bool lf_ranks_vote_is_lost(void)
{
    const lf_ranks_world *world = lf_ranks_get();
    const lf_mpi *mpi = &world->mpi;
    bool lost = false;
    assert(vote.open);
    for (uint32_t r = 0; r < world->count; r++) {
        int done = vote.heard[r];
        if (!done && mpi->test(&vote.receives[r], &done, mpi->no_status))
            return true; // lf_ranks_vote_close says why
        vote.heard[r] = done;
        lost |= done && !vote.said[r];
    }
    return lost;
}

bool lf_ranks_vote_close(bool well, bool *all, lf_error *err)
{
    const lf_ranks_world *world = lf_ranks_get();
    const lf_mpi *mpi = &world->mpi;
    assert(vote.open);
    vote.open = false;
    vote.own = *all = well;
    for (uint32_t r = 0; r < world->count; r++)
        if (r != world->rank &&
            !lf_mpi_check(mpi, mpi->isend(&vote.own, 1, mpi->byte, (int)r, LF_TAG_VOTE, world->comm, &vote.sends[r]),
                          "MPI_Isend", err))
            return false;
    for (uint32_t r = 0; r < world->count; r++) {
        if (r == world->rank)
            continue;
        if ((!vote.heard[r] && !lf_mpi_check(mpi, mpi->wait(&vote.receives[r], mpi->no_status), "MPI_Wait", err)) ||
            !lf_mpi_check(mpi, mpi->wait(&vote.sends[r], mpi->no_status), "MPI_Wait", err))
            return false;
        *all = *all && vote.said[r];
    }
    return true;
}
