// NCCL, opened at run time: every function of it that this room calls stands once in the table below, as version 2.7
// and later export it. Its own header, which few machines have, is not needed.
#ifndef LF_CUDA_NCCL_H
#define LF_CUDA_NCCL_H

#include <cuda.h>
#include <stddef.h>

typedef struct ncclComm *cu_nccl_comm; // a device's place among those that were linked with it

// Numbers of its interface.
typedef enum cu_nccl_result { CU_NCCL_SUCCESS = 0, CU_NCCL_IN_PROGRESS = 7 } cu_nccl_result;
enum { CU_NCCL_FLOAT = 7, CU_NCCL_SUM = 0 };

// X(field of nccl.c's table, exported name, what it returns, arguments)
#define CU_NCCL_FUNCTIONS(X)                                                                                           \
    X(GetErrorString, ncclGetErrorString, const char *, (cu_nccl_result result))                                       \
    X(CommInitAll, ncclCommInitAll, cu_nccl_result, (cu_nccl_comm * comms, int count, const int *devices))             \
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

#endif
