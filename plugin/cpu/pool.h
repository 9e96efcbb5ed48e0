// Threads that stay alive, and a parallel-for over numbered blocks. Which thread runs which block is left to chance, so
// blocks must not depend on each other, and what they compute must not depend on who computes it.
#ifndef LF_CPU_POOL_H
#define LF_CPU_POOL_H

#include <stdint.h>

#include "core/error.h"

typedef struct cpu_pool cpu_pool;
typedef void cpu_pool_fn(const void *context, uint32_t block);

// `threads` counts the caller of cpu_pool_run too: 1 starts none.
cpu_pool *cpu_pool_create(unsigned threads, lf_error *err);
void cpu_pool_destroy(cpu_pool *pool);

// Calls fn(context, 0 … blocks - 1), in any order and on any thread, and returns when all are done. What the caller
// wrote before is seen by the blocks; what they wrote is seen by the caller after. One caller at a time; fn must not
// call back.
void cpu_pool_run(cpu_pool *pool, cpu_pool_fn *fn, const void *context, uint32_t blocks);

#endif
