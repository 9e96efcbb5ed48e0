// Work that is cut into items, done by several threads. Only io/ includes this.
#ifndef LF_IO_THREADS_H
#define LF_IO_THREADS_H

#include <stddef.h>

// Calls `work` on the calling thread and on up to `more` others, and returns when all have ended. Fewer where threads
// cannot be started.
void lf_threads_run(void (*work)(void *user), void *user, unsigned more);

// How many threads may work at once, the caller included: LAVAFLOW_THREADS, or the CPUs of this process, at most 16.
unsigned lf_threads_count(void);

#endif
