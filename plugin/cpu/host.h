// What this machine and this process give the cpu backend.
#ifndef LF_CPU_HOST_H
#define LF_CPU_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "cpu/kernels.h"

#define CPU_THREADS_MAX 256

// LAVAFLOW_THREADS if it is set, else the CPUs that the scheduler and the control group let this process use.
// 0 when LAVAFLOW_THREADS is not a number from 1 to CPU_THREADS_MAX.
unsigned cpu_host_threads(lf_error *err);

void cpu_host_name(char *name, size_t size); // the CPU's model
uint64_t cpu_host_memory(void);              // bytes

// The f32 variants that this CPU can run, the widest last; returns how many.
#define CPU_VARIANTS_MAX 3
size_t cpu_host_variants(const cpu_kernels *variants[CPU_VARIANTS_MAX]);
const cpu_kernels *cpu_host_kernels(void); // the widest

// The CBLAS library in words, and one thread for each of its calls, where it can be asked for that.
const char *cpu_host_blas(void);
void cpu_host_blas_single(void);

// sha256 over what decides the bits of a result: the kernels' sources and compiler, the variant, the CBLAS library.
void cpu_host_digest(char hex[65]);

#endif
