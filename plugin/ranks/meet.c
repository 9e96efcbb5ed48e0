// A gather that sleeps while it waits, and may be given up.
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/clock.h"
#include "ranks/internal.h"

static const struct timespec nap = { .tv_nsec = 500000 };

// MPI goes on using what a gather was given that was given up.
static void *abandoned;

static bool wait_for(const lf_mpi *mpi, lf_mpi_slot *request, double seconds, bool *met, lf_error *err)
{
    const double start = lf_clock();
    for (int done = 0; !done;) {
        if (!lf_mpi_check(mpi, mpi->test(request, &done, mpi->no_status), "MPI_Test", err))
            return false;
        *met = done;
        if (!done && lf_clock() - start >= seconds)
            return true;
        if (!done)
            nanosleep(&nap, NULL);
    }
    return true;
}

bool lf_ranks_meet(const void *mine, size_t size, void *all, double seconds, bool *met, lf_error *err)
{
    const lf_ranks_world *world = lf_ranks_get();
    const lf_mpi *mpi = &world->mpi;
    *met = true;
    if (!world->open)
        return memmove(all, mine, size) != NULL;
    char *own = malloc(size * (world->count + 1)), *gathered = own ? own + size : NULL;
    if (!own) {
        lf_error_set(err, LF_ENOMEM, "what %u processes say: out of memory", world->count);
        return false;
    }
    memcpy(own, mine, size);
    lf_mpi_slot request;
    *met = false; // until it has, MPI may use the memory
    bool ok =
        lf_mpi_check(mpi,
                     mpi->iallgather(own, (int)size, mpi->byte, gathered, (int)size, mpi->byte, world->aside, &request),
                     "MPI_Iallgather", err) &&
        wait_for(mpi, &request, seconds, met, err);
    if (ok && *met)
        memcpy(all, gathered, size * world->count);
    if (!*met)
        abandoned = own;
    else
        free(own);
    return ok;
}
