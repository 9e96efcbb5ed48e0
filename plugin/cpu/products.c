// Linear layers: products of one tile of the result, with what follows them done while the tile is in cache. Small ones
// are our own (multiply.c), large ones go through CBLAS. x (batch, inputs), kernel (inputs, outputs), y, z and dy
// (batch, outputs); all row-major.
#include <cblas.h>

#include "cpu/activation.h"
#include "cpu/multiply.h"
#include "cpu/sums.h"
#include "cpu/update.h"

// c = a·b, or aᵀ·b where a_turned.
static void product(const cpu_call *call, const cpu_product *p)
{
#if CPU_MULTIPLIES
    if (call->multiplies && p->cols >= CPU_MULTIPLY_COLS) {
        CPU_NAME(multiply)(p);
        return;
    }
#endif
    (void)call;
#ifdef LF_REAL_IS_DOUBLE
    cblas_dgemm
#else
    cblas_sgemm
#endif
        (CblasRowMajor, p->a_turned ? CblasTrans : CblasNoTrans, CblasNoTrans, (int)p->rows, (int)p->cols,
         (int)p->depth, 1, p->a, (int)p->a_stride, p->b, (int)p->b_stride, 0, p->c, (int)p->c_stride);
}

// A tile's part of a matrix of the layer's shape: in its panel, or in its region.
typedef struct place {
    real *first;
    size_t stride;
} place;

static place place_of(const cpu_call *call, const cpu_step *step, unsigned panel, unsigned operand, uint32_t row,
                      uint32_t col)
{
    const lf_op *op = &call->op;
#ifndef LF_REAL_IS_DOUBLE
    if (step->panels && call->panel[panel]) // tiles are slices
        return (place){ call->panel[panel] + ((size_t)(col / CPU_SLICE) * op->inputs + row) * CPU_SLICE, CPU_SLICE };
#endif
    (void)step, (void)panel;
    real *matrix = call->at[operand];
    return (place){ matrix ? matrix + (size_t)row * op->outputs + col : NULL, op->outputs };
}

// z = product + bias, y = act(z); the product stands in y, and z is kept where it is asked for.
static inline void finish_rows(unsigned kind, real alpha, cpu_tile tile, size_t stride, const real *restrict bias,
                               real *restrict y, real *restrict z)
{
    for (uint32_t i = 0; i < tile.rows; i++, y += stride) {
        if (z) {
            for (uint32_t j = 0; j < tile.cols; j++) {
                z[j] = y[j] + bias[j];
                y[j] = cpu_activate(kind, alpha, z[j]);
            }
            z += stride;
        } else {
            for (uint32_t j = 0; j < tile.cols; j++)
                y[j] = cpu_activate(kind, alpha, y[j] + bias[j]);
        }
    }
}

void CPU_NAME(linear)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    const lf_op *op = &call->op;
    cpu_tile tile = cpu_tile_of(call, block);
    place kernel = place_of(call, step, CPU_PANEL_KERNEL, LF_LINEAR_KERNEL, 0, tile.col);
    const real *x = call->at[LF_LINEAR_X], *bias = call->at[LF_LINEAR_BIAS];
    size_t at = (size_t)tile.row * op->outputs + tile.col;
    real *y = (real *)call->at[LF_LINEAR_Y] + at, *z = call->at[LF_LINEAR_Z];
    if (z)
        z += at;
    const cpu_product p = { .rows = tile.rows,
                            .cols = tile.cols,
                            .depth = op->inputs,
                            .a = x + (size_t)tile.row * op->inputs,
                            .a_stride = op->inputs,
                            .b = kernel.first,
                            .b_stride = kernel.stride,
                            .c = y,
                            .c_stride = op->outputs };
#if CPU_MULTIPLIES
    if (call->sparse && call->sparse->on)
        CPU_NAME(multiply_lists)(call->sparse, tile.row, &p);
    else
#endif
        product(call, &p);
    CPU_FOR_ACTIVATION(op->activation, finish_rows(kind, (real)op->alpha, tile, op->outputs, bias + tile.col, y, z))
}

static inline void pass_activation(unsigned kind, real alpha, cpu_tile tile, size_t stride, const real *restrict saved,
                                   real *restrict dx)
{
    for (uint32_t i = 0; i < tile.rows; i++, saved += stride, dx += stride)
        for (uint32_t j = 0; j < tile.cols; j++)
            dx[j] = cpu_activate_dx(kind, alpha, dx[j], saved[j]);
}

#if CPU_MULTIPLIES
// dy·kernelᵀ, of few outputs: the library takes its time for these.
static void multiply_turned(const lf_op *op, const cpu_tile *tile, const real *dy, const real *kernel, real *dx)
{
    real turned[CPU_TURNED]; // (outputs, inputs)
    for (uint32_t i = 0; i < op->inputs; i++)
        for (uint32_t j = 0; j < op->outputs; j++)
            turned[(size_t)j * op->inputs + i] = kernel[(size_t)i * op->outputs + j];
    CPU_NAME(multiply)
    (&(cpu_product){ .rows = tile->rows,
                     .cols = op->inputs,
                     .depth = op->outputs,
                     .a = dy,
                     .a_stride = op->outputs,
                     .b = turned,
                     .b_stride = op->inputs,
                     .c = dx,
                     .c_stride = op->inputs });
}
#endif

static void product_dx(const cpu_call *call, const cpu_tile *tile, const real *dy, const real *kernel, real *dx)
{
    const lf_op *op = &call->op;
#if CPU_MULTIPLIES
    if (call->multiplies) {
        multiply_turned(op, tile, dy, kernel, dx);
        return;
    }
#endif
#ifdef LF_REAL_IS_DOUBLE
    cblas_dgemm
#else
    cblas_sgemm
#endif
        (CblasRowMajor, CblasNoTrans, CblasTrans, (int)tile->rows, (int)tile->cols, (int)op->outputs, 1, dy,
         (int)op->outputs, kernel, (int)op->outputs, 0, dx, (int)op->inputs);
}

void CPU_NAME(linear_dx)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    (void)step;
    const lf_op *op = &call->op;
    cpu_tile tile = cpu_tile_of(call, block);
    const real *dy = call->at[LF_LINEAR_DX_DY], *kernel = call->at[LF_LINEAR_DX_KERNEL];
    const real *saved = call->at[LF_LINEAR_DX_SAVED];
    size_t at = (size_t)tile.row * op->inputs + tile.col;
    real *dx = (real *)call->at[LF_LINEAR_DX_DX] + at;
    product_dx(call, &tile, dy + (size_t)tile.row * op->outputs, kernel + (size_t)tile.col * op->outputs, dx);
    if (saved && op->activation != LF_ACT_NONE)
        CPU_FOR_ACTIVATION(op->activation, pass_activation(kind, (real)op->alpha, tile, op->inputs, saved + at, dx))
}

// Rows `first` … first + rows - 1 of a tile's columns of xᵀ·dy.
static cpu_product gradient(const lf_op *op, const real *x, const real *dy, uint32_t first, uint32_t rows,
                            const cpu_tile *tile, real *c, size_t c_stride)
{
    return (cpu_product){ .rows = rows,
                          .cols = tile->cols,
                          .depth = op->rows,
                          .a = x + first,
                          .a_stride = op->inputs,
                          .a_turned = true,
                          .b = dy + tile->col,
                          .b_stride = op->outputs,
                          .c = c,
                          .c_stride = c_stride };
}

static void sum_columns(const lf_op *op, const real *dy, const cpu_tile *tile, real *sums)
{
    const real *from = dy + tile->col;
    CPU_SUM_COLUMNS(sums, op->rows, tile->cols, i, j, from[i * op->outputs + j])
}

void CPU_NAME(linear_dw)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    (void)step;
    const lf_op *op = &call->op;
    cpu_tile tile = cpu_tile_of(call, block);
    const real *x = call->at[LF_LINEAR_DW_X], *dy = call->at[LF_LINEAR_DW_DY];
    real *dkernel = (real *)call->at[LF_LINEAR_DW_DKERNEL] + (size_t)tile.row * op->outputs + tile.col;
    cpu_product p = gradient(op, x, dy, tile.row, tile.rows, &tile, dkernel, op->outputs);
    product(call, &p);
    if (tile.row == 0)
        sum_columns(op, dy, &tile, (real *)call->at[LF_LINEAR_DW_DBIAS] + tile.col);
}

static real *from(const cpu_call *call, unsigned operand, size_t at)
{
    return call->at[operand] ? (real *)call->at[operand] + at : NULL;
}

static void update_bias(const cpu_call *call, const cpu_step *step, const cpu_tile *tile, real *sums)
{
    sum_columns(&call->op, call->at[LF_LINEAR_UPDATE_DY], tile, sums);
    CPU_NAME(update)
    (call->op.optimizer, &call->op, step->row,
     &(cpu_range){
         .rows = 1,
         .count = tile->cols,
         .g = sums,
         .w = from(call, LF_LINEAR_UPDATE_BIAS, tile->col),
         .m = from(call, LF_LINEAR_UPDATE_BIAS_M, tile->col),
         .v = from(call, LF_LINEAR_UPDATE_BIAS_V, tile->col),
         .scale = 1,
         .limit = call->op.clip_value,
         .decay = call->op.bias_decay,
     });
}

static void update_kernel(const cpu_call *call, const cpu_step *step, uint32_t row, uint32_t rows, const cpu_tile *tile,
                          const real *g)
{
    const lf_op *op = &call->op;
    place w = place_of(call, step, CPU_PANEL_KERNEL, LF_LINEAR_UPDATE_KERNEL, row, tile->col),
          m = place_of(call, step, CPU_PANEL_M, LF_LINEAR_UPDATE_KERNEL_M, row, tile->col),
          v = place_of(call, step, CPU_PANEL_V, LF_LINEAR_UPDATE_KERNEL_V, row, tile->col);
    const cpu_range range = { .rows = rows,
                              .count = tile->cols,
                              .g = g,
                              .g_stride = tile->cols,
                              .w = w.first,
                              .w_stride = w.stride,
                              .m = m.first,
                              .m_stride = m.stride,
                              .v = v.first,
                              .v_stride = v.stride,
                              .scale = 1,
                              .limit = op->clip_value,
                              .decay = op->weight_decay };
    CPU_NAME(update)(op->optimizer, op, step->row, &range);
}

// The gradient of some rows at a time, which the optimizer then takes from the cache. The library's products gain by
// many rows, our own need few.
void CPU_NAME(linear_update)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    enum { FEW = 26 };
    const lf_op *op = &call->op;
    cpu_tile tile = cpu_tile_of(call, block);
    real g[CPU_TILE_COLS];
    if (!step->row->updates)
        return;
    bool listed = CPU_MULTIPLIES && call->sparse && call->sparse->on;
    uint32_t most = listed ? CPU_CHUNK : call->multiplies ? FEW : CPU_TILE_COLS / tile.cols;
    for (uint32_t done = 0; done < tile.rows;) {
        uint32_t row = tile.row + done, rows = tile.rows - done < most ? tile.rows - done : most;
        cpu_product p =
            gradient(op, call->at[LF_LINEAR_UPDATE_X], call->at[LF_LINEAR_UPDATE_DY], row, rows, &tile, g, tile.cols);
#if CPU_MULTIPLIES
        if (listed)
            CPU_NAME(multiply_lists_turned)(call->sparse, row, &p);
        else
#endif
            product(call, &p);
        update_kernel(call, step, row, rows, &tile, g);
        done += rows;
    }
    if (tile.row == 0)
        update_bias(call, step, &tile, g);
}
