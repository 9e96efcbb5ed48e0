#include "ranks/mpi.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(void *) == 8, "handles of both families pass as arguments of 64 bits");

// By soname: binaries of a family are compatible as long as it stays. A plain libmpi.so may be of either.
static const char *const open_mpi_names[] = { "libmpi.so.40", "libmpi.so" };
static const char *const mpich_names[] = { "libmpich.so.12", "libmpi.so.12" };
enum { NAMES = sizeof open_mpi_names / sizeof *open_mpi_names };
_Static_assert(sizeof mpich_names == sizeof open_mpi_names, "one length for both lists");

static const struct {
    const char *name;
    size_t offset;
} functions[] = {
    { "MPI_Init_thread", offsetof(lf_mpi, init_thread) },
    { "MPI_Query_thread", offsetof(lf_mpi, query_thread) },
    { "MPI_Initialized", offsetof(lf_mpi, initialized) },
    { "MPI_Finalize", offsetof(lf_mpi, finalize) },
    { "MPI_Abort", offsetof(lf_mpi, abort) },
    { "MPI_Error_string", offsetof(lf_mpi, error_string) },
    { "MPI_Comm_dup", offsetof(lf_mpi, comm_dup) },
    { "MPI_Comm_free", offsetof(lf_mpi, comm_free) },
    { "MPI_Comm_rank", offsetof(lf_mpi, comm_rank) },
    { "MPI_Comm_size", offsetof(lf_mpi, comm_size) },
    { "MPI_Comm_set_errhandler", offsetof(lf_mpi, comm_set_errhandler) },
    { "MPI_Barrier", offsetof(lf_mpi, barrier) },
    { "MPI_Bcast", offsetof(lf_mpi, bcast) },
    { "MPI_Allgatherv", offsetof(lf_mpi, allgatherv) },
    { "MPI_Iallgather", offsetof(lf_mpi, iallgather) },
    { "MPI_Allreduce", offsetof(lf_mpi, allreduce) },
    { "MPI_Isend", offsetof(lf_mpi, isend) },
    { "MPI_Irecv", offsetof(lf_mpi, irecv) },
    { "MPI_Wait", offsetof(lf_mpi, wait) },
    { "MPI_Test", offsetof(lf_mpi, test) },
};

// Opens the first of the names that can be opened; `tried` [size] lists them.
static void *open_first(const char *const names[], size_t count, lf_mpi *mpi, char *tried, size_t size)
{
    for (size_t i = 0; i < count; i++) {
        // Global, since Open MPI's own plugins look for its symbols there.
        void *library = dlopen(names[i], RTLD_NOW | RTLD_GLOBAL);
        if (library) {
            snprintf(mpi->name, sizeof mpi->name, "%s", names[i]);
            return library;
        }
        const char *why = dlerror(); // names the file
        size_t used = strlen(tried);
        snprintf(tried + used, size - used, "%s%s", used ? "; " : "", why ? why : names[i]);
    }
    return NULL;
}

static void *open_library(lf_mpi *mpi, bool mpich_first, lf_error *err)
{
    char tried[800] = "";
    const char *wanted = getenv("LAVAFLOW_LIBMPI");
    if (wanted && *wanted) {
        void *library = open_first(&wanted, 1, mpi, tried, sizeof tried);
        if (!library)
            lf_error_set(err, LF_ENOTFOUND, "MPI: LAVAFLOW_LIBMPI cannot be opened: %s", tried);
        return library;
    }
    const char *const *first = mpich_first ? mpich_names : open_mpi_names;
    const char *const *second = mpich_first ? open_mpi_names : mpich_names;
    void *library = open_first(first, NAMES, mpi, tried, sizeof tried);
    if (!library)
        library = open_first(second, NAMES, mpi, tried, sizeof tried);
    if (!library)
        lf_error_set(err, LF_ENOTFOUND, "MPI: no library can be opened, and LAVAFLOW_LIBMPI names none: %s", tried);
    return library;
}

static void set_handles(lf_mpi *mpi, void *library)
{
    void *world = dlsym(library, "ompi_mpi_comm_world");
    mpi->mpich = !world;
    if (mpi->mpich) { // the values that MPICH's ABI initiative keeps fixed
        mpi->world = 0x44000000;
        mpi->byte = 0x4c00010d;
        mpi->real = 0x4c00040a;
        mpi->sum = 0x58000003;
        mpi->errors_return = 0x54000001;
        mpi->no_status = (void *)(intptr_t)1;
        mpi->in_place = (void *)(intptr_t)-1;
    } else {
        mpi->world = (lf_mpi_handle)world;
        mpi->byte = (lf_mpi_handle)dlsym(library, "ompi_mpi_byte");
        mpi->real = (lf_mpi_handle)dlsym(library, "ompi_mpi_float");
        mpi->sum = (lf_mpi_handle)dlsym(library, "ompi_mpi_op_sum");
        mpi->errors_return = (lf_mpi_handle)dlsym(library, "ompi_mpi_errors_return");
        mpi->no_status = NULL;
        mpi->in_place = (void *)(intptr_t)1;
    }
}

bool lf_mpi_open(lf_mpi *mpi, bool mpich_first, lf_error *err)
{
    void *library = open_library(mpi, mpich_first, err);
    if (!library)
        return false;
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *symbol = dlsym(library, functions[i].name);
        if (!symbol) {
            lf_error_set(err, LF_EUNSUPPORTED, "MPI: %s has no %s", mpi->name, functions[i].name);
            return false;
        }
        memcpy((char *)mpi + functions[i].offset, &symbol, sizeof symbol);
    }
    set_handles(mpi, library);
    if (!mpi->byte || !mpi->real || !mpi->sum || !mpi->errors_return) {
        lf_error_set(err, LF_EUNSUPPORTED,
                     "MPI: %s has ompi_mpi_comm_world, but not ompi_mpi_byte, _float, _op_sum and _errors_return",
                     mpi->name);
        return false;
    }
    return true;
}

lf_mpi_handle lf_mpi_handle_of(const lf_mpi *mpi, const lf_mpi_slot *slot)
{
    return mpi->mpich ? (lf_mpi_handle)slot->number : (lf_mpi_handle)slot->object;
}

bool lf_mpi_check(const lf_mpi *mpi, int code, const char *call, lf_error *err)
{
    if (!code)
        return true;
    char text[LF_MPI_ERROR_TEXT] = "";
    int length = 0;
    if (mpi->error_string(code, text, &length))
        snprintf(text, sizeof text, "error %d", code);
    lf_error_set(err, LF_EIO, "MPI: %s: %.900s", call, text);
    return false;
}
