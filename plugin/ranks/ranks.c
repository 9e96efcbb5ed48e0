#include "ranks/internal.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static lf_ranks_world world = { .count = 1 };

const lf_ranks_world *lf_ranks_get(void)
{
    return &world;
}

static long number_in(const char *variable)
{
    const char *text = getenv(variable);
    return text ? strtol(text, NULL, 10) : 0;
}

static const struct {
    const char *count, *rank;
} variables[] = { { "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK" },
                  { "PMI_SIZE", "PMI_RANK" },
                  // Slurm's own count also stands in a batch script, which is one process and has no PMIX_RANK.
                  { "SLURM_STEP_NUM_TASKS", "PMIX_RANK" },
                  { "SLURM_NTASKS", "PMIX_RANK" } };
enum { BY_SLURM = 2 };

// How many processes were started together, as their launcher tells them, where it stands, and which this one is; 0:
// there is none.
static long launched(const char **variable, uint32_t *rank)
{
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        if (getenv(variables[i].count) && (i < BY_SLURM || getenv(variables[i].rank))) {
            *variable = variables[i].count;
            *rank = (uint32_t)number_in(variables[i].rank);
            return number_in(variables[i].count);
        }
    return 0;
}

bool lf_ranks_place(uint32_t *rank, uint32_t *count)
{
    const char *variable;
    long launched_count = launched(&variable, rank);
    bool several = launched_count > 1;
    *count = several ? (uint32_t)launched_count : 1;
    *rank = several ? *rank : 0;
    return several;
}

bool lf_ranks_started(void)
{
    uint32_t rank, count;
    return lf_ranks_place(&rank, &count);
}

static bool initialise(lf_mpi *mpi, lf_error *err)
{
    int already = 0, level = 0;
    if (!lf_mpi_check(mpi, mpi->initialized(&already), "MPI_Initialized", err))
        return false;
    if (already && !lf_mpi_check(mpi, mpi->query_thread(&level), "MPI_Query_thread", err))
        return false;
    // A rank that waits turns in a loop. It yields to those that work, where there are more of them than cores.
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", false);
    if (!already && !lf_mpi_check(mpi, mpi->init_thread(NULL, NULL, LF_MPI_SERIALIZED, &level), "MPI_Init_thread", err))
        return false;
    world.ours |= !already;
    if (level >= LF_MPI_SERIALIZED)
        return true;
    lf_error_set(err, LF_EUNSUPPORTED, "MPI: %s gives thread level %d, but %d (serialized) is needed", mpi->name, level,
                 LF_MPI_SERIALIZED);
    return false;
}

static bool copy_world(lf_mpi *mpi, lf_mpi_slot *slot, lf_mpi_handle *comm, lf_error *err)
{
    if (!lf_mpi_check(mpi, mpi->comm_dup(mpi->world, slot), "MPI_Comm_dup", err))
        return false;
    *comm = lf_mpi_handle_of(mpi, slot);
    return lf_mpi_check(mpi, mpi->comm_set_errhandler(*comm, mpi->errors_return), "MPI_Comm_set_errhandler", err);
}

static bool join(lf_mpi *mpi, lf_error *err)
{
    int rank = 0, count = 0;
    if (!copy_world(mpi, &world.slot, &world.comm, err) || !copy_world(mpi, &world.aside_slot, &world.aside, err) ||
        !lf_mpi_check(mpi, mpi->comm_rank(world.comm, &rank), "MPI_Comm_rank", err) ||
        !lf_mpi_check(mpi, mpi->comm_size(world.comm, &count), "MPI_Comm_size", err))
        return false;
    const char *variable = NULL;
    uint32_t expected_rank;
    long expected = launched(&variable, &expected_rank);
    if (expected != count) { // else every process would believe that it is alone, and write the same files
        lf_error_set(err, LF_EUNSUPPORTED,
                     "MPI: %s sees %d process%s, but %s is %ld: the launcher belongs to another MPI; LAVAFLOW_LIBMPI "
                     "can name its library",
                     mpi->name, count, count == 1 ? "" : "es", variable, expected);
        return false;
    }
    world.rank = (uint32_t)rank;
    world.count = (uint32_t)count;
    return true;
}

#ifdef __GLIBC__
static void at_exit(int status, void *user)
{
    (void)user;
    if (!status)
        lf_ranks_close();
}
#else
static void at_exit(void)
{
    lf_ranks_close();
}
#endif

// MPI has to be ended by every process that ends well. One that fails is not to wait for the others there: it leaves,
// and its launcher ends them. A host unloads the plugin before it exits, so the code is to stay.
static void close_at_exit(void)
{
    Dl_info self;
    if (dladdr(&world, &self))
        dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
#ifdef __GLIBC__
    on_exit(at_exit, NULL);
#else
    atexit(at_exit);
#endif
}

bool lf_ranks_open(uint32_t *rank, uint32_t *count, lf_error *err)
{
    if (!world.open && lf_ranks_started()) {
        bool mpich_first = getenv("PMI_SIZE") && !getenv("OMPI_COMM_WORLD_SIZE");
        if (!lf_mpi_open(&world.mpi, mpich_first, err) || !initialise(&world.mpi, err))
            return false;
        // On the world, for its duplication. Ours has its own.
        if (!lf_mpi_check(&world.mpi, world.mpi.comm_set_errhandler(world.mpi.world, world.mpi.errors_return),
                          "MPI_Comm_set_errhandler", err) ||
            !join(&world.mpi, err))
            return false;
        world.open = true;
        close_at_exit();
    }
    *rank = world.rank;
    *count = world.count;
    return true;
}

void lf_ranks_close(void)
{
    lf_ranks_release();
    if (!world.open)
        return;
    world.open = false;
    world.mpi.comm_free(&world.slot);
    world.mpi.comm_free(&world.aside_slot);
    if (world.ours)
        world.mpi.finalize();
}

_Noreturn void lf_ranks_abort(int exit_status)
{
    if (world.open)
        world.mpi.abort(world.comm, exit_status);
    _exit(exit_status);
}

bool lf_ranks_barrier(lf_error *err)
{
    return !world.open || lf_mpi_check(&world.mpi, world.mpi.barrier(world.comm), "MPI_Barrier", err);
}

bool lf_ranks_broadcast_from(uint32_t root, void *bytes, size_t size, lf_error *err)
{
    const size_t most = (size_t)1 << 30; // MPI counts in int
    for (size_t done = 0; world.open && done < size;) {
        size_t piece = size - done < most ? size - done : most;
        if (!lf_mpi_check(&world.mpi,
                          world.mpi.bcast((char *)bytes + done, (int)piece, world.mpi.byte, (int)root, world.comm),
                          "MPI_Bcast", err))
            return false;
        done += piece;
    }
    return true;
}

bool lf_ranks_broadcast(void *bytes, size_t size, lf_error *err)
{
    return lf_ranks_broadcast_from(0, bytes, size, err);
}

// Seldom called and with little, so one broadcast after the other is soon enough.
bool lf_ranks_gather(const void *mine, size_t size, void *all, lf_error *err)
{
    memmove((char *)all + world.rank * size, mine, size);
    for (uint32_t r = 0; world.open && r < world.count; r++)
        if (!lf_ranks_broadcast_from(r, (char *)all + r * size, size, err))
            return false;
    return true;
}

bool lf_ranks_agree(bool ok, lf_error *err)
{
    if (!world.open)
        return ok;
    uint32_t first = world.count;                // that has failed
    for (uint32_t r = 0; r < world.count; r++) { // without memory, which may be what is lacking
        bool told = ok;
        if (!lf_ranks_broadcast_from(r, &told, sizeof told, err))
            return false;
        first = !told && r < first ? r : first;
    }
    if (first == world.count)
        return true;
    if (lf_ranks_broadcast_from(first, err, sizeof *err, err) && first)
        lf_error_prefix(err, "process %u", first);
    return false;
}
