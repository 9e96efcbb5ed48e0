#include "cpu/panels.h"

#include <stdlib.h>
#include <string.h>

struct cpu_panel {
    float *matrix; // (rows, cols), row-major
    float *memory; // slice after slice, each (rows, CPU_SLICE)
    uint32_t rows, cols;
};

// Whether nothing but `update` and, for a kernel, forward products whose tiles are slices touches the tensor.
static bool is_private(const lf_program *prog, const cpu_call *calls, const lf_tensor *tensor, const lf_op *update,
                       bool is_kernel)
{
    for (size_t i = 0; i < prog->op_count; i++) {
        const lf_op *op = &prog->ops[i];
        for (unsigned k = 0; op != update && k < LF_OPERAND_MAX; k++) {
            const lf_tensor *other = lf_op_tensor(prog, op, k);
            if (other && lf_tensors_overlap(tensor, other) &&
                !(is_kernel && op->kind == LF_OP_LINEAR && k == LF_LINEAR_KERNEL && calls[i].multiplies))
                return false;
        }
    }
    return true;
}

static bool add(cpu_panels *panels, float *matrix, const lf_tensor *tensor, float **memory)
{
    uint32_t slices = (tensor->cols + CPU_SLICE - 1) / CPU_SLICE;
    void *block = NULL;
    if (posix_memalign(&block, 4096, (size_t)slices * tensor->rows * CPU_SLICE * sizeof(float)) != 0)
        return false;
    memset(block, 0, (size_t)slices * tensor->rows * CPU_SLICE * sizeof(float));
    *memory = block;
    panels->list[panels->count++] =
        (cpu_panel){ .matrix = matrix, .memory = block, .rows = tensor->rows, .cols = tensor->cols };
    panels->slices += slices;
    return true;
}

// The forward products that read the kernel, whose panel it is.
static void share(const lf_program *prog, cpu_call *calls, const lf_tensor *kernel, float *memory)
{
    for (size_t i = 0; i < prog->op_count; i++)
        if (prog->ops[i].kind == LF_OP_LINEAR &&
            lf_tensors_overlap(lf_op_tensor(prog, &prog->ops[i], LF_LINEAR_KERNEL), kernel))
            calls[i].panel[CPU_PANEL_KERNEL] = memory;
}

static bool add_update(cpu_panels *panels, const lf_program *prog, cpu_call *calls, size_t at)
{
    static const unsigned operands[CPU_PANEL_COUNT] = { LF_LINEAR_UPDATE_KERNEL, LF_LINEAR_UPDATE_KERNEL_M,
                                                        LF_LINEAR_UPDATE_KERNEL_V };
    const lf_op *op = &prog->ops[at];
    for (unsigned i = 0; i < CPU_PANEL_COUNT; i++) {
        const lf_tensor *tensor = lf_op_tensor(prog, op, operands[i]);
        bool is_kernel = i == CPU_PANEL_KERNEL;
        if (!tensor || !is_private(prog, calls, tensor, op, is_kernel))
            continue;
        if (!add(panels, calls[at].at[operands[i]], tensor, &calls[at].panel[i]))
            return false;
        if (is_kernel)
            share(prog, calls, tensor, calls[at].panel[i]);
    }
    return true;
}

bool cpu_panels_create(cpu_panels *panels, const lf_program *prog, cpu_call *calls, lf_error *err)
{
    panels->list = calloc(CPU_PANEL_COUNT * prog->op_count, sizeof *panels->list);
    bool ok = panels->list != NULL;
    for (size_t i = 0; ok && prog->real == LF_F32 && i < prog->op_count; i++)
        if (prog->ops[i].kind == LF_OP_LINEAR_UPDATE && calls[i].multiplies)
            ok = add_update(panels, prog, calls, i);
    if (!ok)
        lf_error_set(err, LF_ENOMEM, "cpu: out of memory for the weights of a program of %zu operations",
                     prog->op_count);
    return ok;
}

void cpu_panels_destroy(cpu_panels *panels)
{
    for (size_t i = 0; i < panels->count; i++)
        free(panels->list[i].memory);
    free(panels->list);
}

typedef struct moving {
    const cpu_panels *panels;
    bool back;
} moving;

static void move_slice(const void *context, uint32_t slice)
{
    const moving *m = context;
    const cpu_panel *panel = m->panels->list;
    uint32_t count;
    while (slice >= (count = (panel->cols + CPU_SLICE - 1) / CPU_SLICE)) {
        slice -= count;
        panel++;
    }
    uint32_t first = slice * CPU_SLICE, rest = panel->cols - first;
    size_t bytes = (rest < CPU_SLICE ? rest : CPU_SLICE) * sizeof(float);
    float *from = panel->matrix + first, *to = panel->memory + (size_t)slice * panel->rows * CPU_SLICE;
    for (uint32_t i = 0; i < panel->rows; i++, from += panel->cols, to += CPU_SLICE)
        memcpy(m->back ? from : to, m->back ? to : from, bytes);
}

void cpu_panels_fill(const cpu_panels *panels, cpu_pool *pool)
{
    cpu_pool_run(pool, move_slice, &(moving){ panels, false }, panels->slices);
}

void cpu_panels_return(const cpu_panels *panels, cpu_pool *pool)
{
    cpu_pool_run(pool, move_slice, &(moving){ panels, true }, panels->slices);
}
