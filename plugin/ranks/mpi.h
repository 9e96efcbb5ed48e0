// MPI as a library that is opened at run time: its functions, and the handles that its two families of binaries use.
// Only ranks/ includes this.
#ifndef LF_RANKS_MPI_H
#define LF_RANKS_MPI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

// A communicator, type or error handler. In Open MPI it is the address of an object; in MPICH and what shares its
// binary interface (Intel MPI, MVAPICH, Cray) an int. Either passes as an argument of the width of an address, as
// every 64-bit calling convention hands both over in one register or stack slot; an int is sign-extended.
typedef intptr_t lf_mpi_handle;

// Room for what the library writes: a handle of either width, where the address is all that it is given.
typedef union lf_mpi_slot {
    void *object;
    int number;
} lf_mpi_slot;

typedef struct lf_mpi {
    int (*init_thread)(int *argc, char ***argv, int required, int *provided);
    int (*initialized)(int *flag);
    int (*query_thread)(int *provided);
    int (*finalize)(void);
    int (*abort)(lf_mpi_handle comm, int status);
    int (*error_string)(int code, char *text, int *length);
    int (*comm_dup)(lf_mpi_handle comm, lf_mpi_slot *copy);
    int (*comm_free)(lf_mpi_slot *comm);
    int (*comm_rank)(lf_mpi_handle comm, int *rank);
    int (*comm_size)(lf_mpi_handle comm, int *size);
    int (*comm_set_errhandler)(lf_mpi_handle comm, lf_mpi_handle handler);
    int (*barrier)(lf_mpi_handle comm);
    int (*bcast)(void *bytes, int count, lf_mpi_handle type, int root, lf_mpi_handle comm);
    int (*allgatherv)(const void *mine, int count, lf_mpi_handle type, void *all, const int *counts, const int *offsets,
                      lf_mpi_handle all_type, lf_mpi_handle comm);
    int (*iallgather)(const void *mine, int count, lf_mpi_handle type, void *all, int each, lf_mpi_handle all_type,
                      lf_mpi_handle comm, lf_mpi_slot *request);
    int (*allreduce)(const void *mine, void *total, int count, lf_mpi_handle type, lf_mpi_handle op,
                     lf_mpi_handle comm);
    int (*isend)(const void *bytes, int count, lf_mpi_handle type, int to, int tag, lf_mpi_handle comm,
                 lf_mpi_slot *request);
    int (*irecv)(void *bytes, int count, lf_mpi_handle type, int from, int tag, lf_mpi_handle comm,
                 lf_mpi_slot *request);
    int (*wait)(lf_mpi_slot *request, void *status);
    int (*test)(lf_mpi_slot *request, int *done, void *status);

    lf_mpi_handle world, byte, real, sum, errors_return; // real: MPI_FLOAT; sum: MPI_SUM
    void *no_status, *in_place;                          // MPI_STATUS_IGNORE, MPI_IN_PLACE
    bool mpich;                                          // the family
    char name[256];                                      // of the library
} lf_mpi;

enum { LF_MPI_SERIALIZED = 2, LF_MPI_ERROR_TEXT = 1024 }; // alike in both families; at least their longest message

// Opens the library that LAVAFLOW_LIBMPI names, or the first one there is of those that systems install, MPICH's first
// if `mpich_first`. It stays open: MPI libraries do not survive being unloaded.
bool lf_mpi_open(lf_mpi *mpi, bool mpich_first, lf_error *err);

// The handle in a slot that the library has filled.
lf_mpi_handle lf_mpi_handle_of(const lf_mpi *mpi, const lf_mpi_slot *slot);

// Whether `code`, which `call` returned, is success; else `err` bears the library's text.
bool lf_mpi_check(const lf_mpi *mpi, int code, const char *call, lf_error *err);

#endif
