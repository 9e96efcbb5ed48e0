// The cpu backend's own types; cpu.c is its face, lower.c binds programs to memory and runs them.
#ifndef LF_CPU_CPU_H
#define LF_CPU_CPU_H

#include "cpu/kernels.h"
#include "cpu/pool.h"
#include "device/device.h"

typedef struct cpu_device {
    lf_device base;
    cpu_pool *pool;
    const cpu_kernels *f32; // the variant for this machine
} cpu_device;

typedef struct cpu_buffer {
    lf_buffer base;
    unsigned char *memory;
} cpu_buffer;

lf_exec *cpu_exec_create(lf_device *dev, const lf_program *prog, const lf_bindings *regions, lf_error *err);
void cpu_exec_destroy(lf_device *dev, lf_exec *exec);
bool cpu_exec_run(lf_device *dev, lf_exec *exec, uint32_t first, uint32_t last, uint32_t steps, lf_error *err);

#endif
