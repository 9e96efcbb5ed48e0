// NCCL, opened at run time: every function of it that this room calls stands once in the table below, as version 2.14
// and later export it. Its own header, which few machines have, is not needed. link.c calls this.
#ifndef LF_CUDA_NCCL_H
#define LF_CUDA_NCCL_H

#include <cuda.h>
#include <stdbool.h>
#include <stddef.h>

#include "device/device.h"

typedef struct ncclComm *cu_nccl_comm; // a device's place among those that were linked with it

// What those that are linked have in common. Passed by value.
typedef lf_link_id cu_nccl_id;

// Numbers of its interface.
typedef enum cu_nccl_result { CU_NCCL_SUCCESS = 0, CU_NCCL_IN_PROGRESS = 7 } cu_nccl_result;
enum { CU_NCCL_FLOAT = 7, CU_NCCL_SUM = 0 };

// Its options as version 2.14 has them; later ones take theirs from `version` and `size`.
typedef struct cu_nccl_config {
    size_t size;
    unsigned magic, version;
    int blocking; // 0: no call waits for another process, and what goes on is asked for by ncclCommGetAsyncError
} cu_nccl_config;
#define CU_NCCL_CONFIG(is_blocking)                                                                                    \
    {                                                                                                                  \
        .size = sizeof(cu_nccl_config), .magic = 0xcafebeef, .version = 21400, .blocking = (is_blocking)               \
    }

// X(field of the table, exported name, what it returns, arguments)
#define CU_NCCL_FUNCTIONS(X)                                                                                           \
    X(GetVersion, ncclGetVersion, cu_nccl_result, (int *version))                                                      \
    X(GetErrorString, ncclGetErrorString, const char *, (cu_nccl_result result))                                       \
    X(GetUniqueId, ncclGetUniqueId, cu_nccl_result, (cu_nccl_id * id))                                                 \
    X(CommInitRankConfig, ncclCommInitRankConfig, cu_nccl_result,                                                      \
      (cu_nccl_comm * comm, int count, cu_nccl_id id, int rank, cu_nccl_config *config))                               \
    X(CommDestroy, ncclCommDestroy, cu_nccl_result, (cu_nccl_comm comm))                                               \
    X(CommAbort, ncclCommAbort, cu_nccl_result, (cu_nccl_comm comm))                                                   \
    X(CommGetAsyncError, ncclCommGetAsyncError, cu_nccl_result, (cu_nccl_comm comm, cu_nccl_result * state))           \
    X(GroupStart, ncclGroupStart, cu_nccl_result, (void))                                                              \
    X(GroupEnd, ncclGroupEnd, cu_nccl_result, (void))                                                                  \
    X(Send, ncclSend, cu_nccl_result,                                                                                  \
      (const void *from, size_t count, int type, int peer, cu_nccl_comm comm, CUstream stream))                        \
    X(Recv, ncclRecv, cu_nccl_result,                                                                                  \
      (void *to, size_t count, int type, int peer, cu_nccl_comm comm, CUstream stream))                                \
    X(AllReduce, ncclAllReduce, cu_nccl_result,                                                                        \
      (const void *from, void *to, size_t count, int type, int op, cu_nccl_comm comm, CUstream stream))

typedef struct cu_nccl_table {
#define FIELD(field, symbol, result, arguments) result(*field) arguments;
    CU_NCCL_FUNCTIONS(FIELD)
#undef FIELD
} cu_nccl_table;

extern cu_nccl_table cu_nccl; // valid once cu_nccl_load has returned true

// Opens the library once a process and keeps it: "libnccl.so.2", or what LAVAFLOW_LIBNCCL names. LF_EUNSUPPORTED: there
// is none, or too old a one.
bool cu_nccl_load(lf_error *err);

// Whether `call` did well so far: it may be still on its way.
bool cu_nccl_succeeds(cu_nccl_result result, const char *call, lf_error *err);

#endif
