// Work that is cut into items, done by several threads. Only io/ includes this.
#ifndef LF_IO_THREADS_H
#define LF_IO_THREADS_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

// Calls `work` on the calling thread and on up to `more` others, and returns when all have ended. Fewer where threads
// cannot be started.
void lf_threads_run(void (*work)(void *user), void *user, unsigned more);

// How many threads may work at once, the caller included: LAVAFLOW_THREADS, or the CPUs of this process, at most 16.
unsigned lf_threads_count(void);

// Items first … first + count - 1. Any thread calls it.
typedef bool lf_slice_fn(void *user, size_t first, size_t count, lf_error *err);

// Cuts the items 0 … count - 1 into slices, from the lowest on, and has `work` done on each by as many threads as may
// work at once. Items of about `slice` are worth a thread. False with the error of the lowest slice that fails.
bool lf_threads_share(size_t count, size_t slice, lf_slice_fn *work, void *user, lf_error *err);

#endif
