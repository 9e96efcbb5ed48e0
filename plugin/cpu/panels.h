// Kernels and their moments, each slice of columns in a place of its own while many steps run.
//
// A slice is one thread's, step after step. In the regions, row-major, the slices of a row are neighbours, and a core's
// prefetcher fetches the other core's part along with its own: the update of 784 x 128 then takes 60 µs on two cores
// where 15 would do. So a run of steps begins by moving slices into panels and ends by moving them back.
#ifndef LF_CPU_PANELS_H
#define LF_CPU_PANELS_H

#include "cpu/cpu.h"

typedef struct cpu_panel cpu_panel;

typedef struct cpu_panels {
    cpu_panel *list;
    size_t count;
    uint32_t slices; // of all
} cpu_panels;

// For the linear_updates of a fused program, whose operations are bound to `calls`: for kernels that nobody but their
// layer's forward pass reads, and for all moments. Sets the calls' panels.
bool cpu_panels_create(cpu_panels *panels, const lf_program *prog, cpu_call *calls, lf_error *err);
void cpu_panels_destroy(cpu_panels *panels);

void cpu_panels_fill(const cpu_panels *panels, cpu_pool *pool);   // from the regions
void cpu_panels_return(const cpu_panels *panels, cpu_pool *pool); // to the regions

#endif
