// Runs a kernel on the host as the launch of a grid. Threads of a block are fibers, which run one at a time and switch
// only where they wait; blocks run one after the other, or side by side in a cooperative launch. Not from two threads
// of the host at once.
//
// LAVAFLOW_STAND_IN_ORDER=reverse or shuffle:N runs threads and blocks in another order.
#ifndef LF_CUDA_LAUNCH_H
#define LF_CUDA_LAUNCH_H

#include <stdbool.h>
#include <stddef.h>

#include "call.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct host_launch {
    const char *name; // in messages
    void (*kernel)(const struct lf_call);
    unsigned grid[3], block[3];
    unsigned shared; // bytes of dynamic shared memory
    bool cooperative;
} host_launch;

// False, with what went wrong, where threads wait for what never comes, or the lanes of a warp meet in different calls.
bool host_launch_run(const host_launch *launch, const struct lf_call *call, char *why, size_t size);

// The order that LAVAFLOW_STAND_IN_ORDER asks for, of things that may run in any: a permutation of 0 … count - 1.
void host_order(unsigned *order, unsigned count);

#ifdef __cplusplus
}
#endif

#endif
