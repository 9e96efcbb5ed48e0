// The kernels: one function for each operation. Their sources are compiled once for f32 per instruction set and once
// for f64 (the oracle); each compilation is a variant with a table of its own. lower.c binds them to memory.
#ifndef LF_CPU_KERNELS_H
#define LF_CPU_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi.h"
#include "cpu/sparse.h"
#include "program/program.h"

// What differs from step to step.
typedef struct cpu_step {
    const struct lf_schedule_header *header;
    const struct lf_schedule_row *row;
    size_t index;  // of the step in the stretch: its place in metrics
    bool has_next; // the schedule's next row is the next step's
    bool panels;   // kernels and moments are in panels, where there are some
} cpu_step;

typedef struct cpu_call cpu_call;

// Columns of a slice: what a thread owns of a kernel; see panels.h.
enum { CPU_SLICE = 64 };
// Columns of the widest tile of a product: linear_update has a row of it on its stack.
enum { CPU_TILE_COLS = 32768 };

// Own products (multiply.h): a tile of fewer columns is the library's, in all variants alike; and the most weights of a
// layer whose kernel is turned round for linear_dx.
enum { CPU_MULTIPLY_COLS = 16, CPU_TURNED = 8192 };

enum { CPU_PANEL_KERNEL, CPU_PANEL_M, CPU_PANEL_V, CPU_PANEL_COUNT };

// Does one block of an operation. Blocks of one operation write disjoint memory and may run at the same time.
typedef void cpu_kernel(const cpu_call *call, const cpu_step *step, uint32_t block);

// An operation bound to memory. Its blocks tile its result, a matrix of `rows` by `cols`, row of tiles by row of tiles
// or, `by_columns`, column of tiles by column of tiles: a thread's share of the blocks is then a slice of the columns.
// The tiles depend on the operation's shape alone, so that results are equal for any number of threads.
struct cpu_call {
    cpu_kernel *run;
    void *at[LF_OPERAND_MAX]; // by the operand's number; NULL where the operation has none
    lf_op op;
    uint32_t rows, cols;
    uint32_t tile_rows, tile_cols;
    uint32_t grid_rows, grid_cols, blocks; // tiles in a column of tiles, in a row of tiles, in all
    bool by_columns;
    bool multiplies;               // linear, linear_dw, linear_update: the product is our own
    float *panel[CPU_PANEL_COUNT]; // linear, linear_update: NULL: none
    cpu_sparse *sparse;            // gather, and linear and linear_update of its x; NULL: none
    lf_dtype stored;               // gather: type of data
    lf_dtype target;               // gather: type of targets, u32 or f32
    uint32_t target_cols;          // gather
};

typedef struct cpu_tile {
    uint32_t row, col; // of its first element
    uint32_t rows, cols;
} cpu_tile;

static inline cpu_tile cpu_tile_of(const cpu_call *call, uint32_t block)
{
    uint32_t across = call->by_columns ? block / call->grid_rows : block % call->grid_cols;
    uint32_t down = call->by_columns ? block % call->grid_rows : block / call->grid_cols;
    uint32_t row = down * call->tile_rows, col = across * call->tile_cols;
    uint32_t rows = call->rows - row, cols = call->cols - col;
    return (cpu_tile){ .row = row,
                       .col = col,
                       .rows = rows < call->tile_rows ? rows : call->tile_rows,
                       .cols = cols < call->tile_cols ? cols : call->tile_cols };
}

// How many of an operation's rows, from its first on, are the batch's.
static inline uint32_t cpu_valid_rows(const cpu_call *call, const cpu_step *step)
{
    uint32_t rows = step->row->rows, rest = rows > call->op.row ? rows - call->op.row : 0;
    return rest < call->op.rows ? rest : call->op.rows;
}

typedef struct cpu_kernels {
    const char *variant; // "f32 avx512"
    bool multiplies;     // has products of its own
    cpu_kernel *run[LF_OP_COUNT];
} cpu_kernels;

extern const cpu_kernels cpu_kernels_f64;
extern const cpu_kernels cpu_kernels_f32;
#ifdef LF_CPU_X86_VARIANTS
extern const cpu_kernels cpu_kernels_f32_avx2;
extern const cpu_kernels cpu_kernels_f32_avx512;
#endif

#endif
