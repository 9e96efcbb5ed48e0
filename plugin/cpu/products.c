// Linear layers: products through CBLAS on one tile of the result, with what follows them done while the tile is in
// cache. x (batch, inputs), kernel (inputs, outputs), y, z and dy (batch, outputs); all row-major.
#include <cblas.h>

#include "cpu/activation.h"
#include "cpu/sums.h"

// c = op(a)·op(b), where c is a tile of (tile->rows, tile->cols) and both products run over `inner`.
static void product(CBLAS_TRANSPOSE trans_a, CBLAS_TRANSPOSE trans_b, const cpu_tile *tile, uint32_t inner,
                    const real *a, uint32_t lda, const real *b, uint32_t ldb, real *c, uint32_t ldc)
{
#ifdef LF_REAL_IS_DOUBLE
    cblas_dgemm
#else
    cblas_sgemm
#endif
        (CblasRowMajor, trans_a, trans_b, (int)tile->rows, (int)tile->cols, (int)inner, 1, a, (int)lda, b, (int)ldb, 0,
         c, (int)ldc);
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
    (void)step;
    const lf_op *op = &call->op;
    cpu_tile tile = cpu_tile_of(call, block);
    const real *x = call->at[LF_LINEAR_X], *kernel = call->at[LF_LINEAR_KERNEL], *bias = call->at[LF_LINEAR_BIAS];
    size_t at = (size_t)tile.row * op->outputs + tile.col;
    real *y = (real *)call->at[LF_LINEAR_Y] + at, *z = call->at[LF_LINEAR_Z];
    if (z)
        z += at;
    product(CblasNoTrans, CblasNoTrans, &tile, op->inputs, x + (size_t)tile.row * op->inputs, op->inputs,
            kernel + tile.col, op->outputs, y, op->outputs);
    CPU_FOR_ACTIVATION(op->activation, finish_rows(kind, (real)op->alpha, tile, op->outputs, bias + tile.col, y, z))
}

static inline void pass_activation(unsigned kind, real alpha, cpu_tile tile, size_t stride, const real *restrict saved,
                                   real *restrict dx)
{
    for (uint32_t i = 0; i < tile.rows; i++, saved += stride, dx += stride)
        for (uint32_t j = 0; j < tile.cols; j++)
            dx[j] = cpu_activate_dx(kind, alpha, dx[j], saved[j]);
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
    product(CblasNoTrans, CblasTrans, &tile, op->outputs, dy + (size_t)tile.row * op->outputs, op->outputs,
            kernel + (size_t)tile.col * op->outputs, op->outputs, dx, op->inputs);
    if (saved && op->activation != LF_ACT_NONE)
        CPU_FOR_ACTIVATION(op->activation, pass_activation(kind, (real)op->alpha, tile, op->inputs, saved + at, dx))
}

void CPU_NAME(linear_dw)(const cpu_call *call, const cpu_step *step, uint32_t block)
{
    (void)step;
    const lf_op *op = &call->op;
    cpu_tile tile = cpu_tile_of(call, block);
    const real *x = call->at[LF_LINEAR_DW_X], *dy = (const real *)call->at[LF_LINEAR_DW_DY] + tile.col;
    real *dkernel = (real *)call->at[LF_LINEAR_DW_DKERNEL] + (size_t)tile.row * op->outputs + tile.col;
    product(CblasTrans, CblasNoTrans, &tile, op->rows, x + tile.row, op->inputs, dy, op->outputs, dkernel, op->outputs);
    if (tile.row == 0) {
        real *dbias = (real *)call->at[LF_LINEAR_DW_DBIAS] + tile.col;
        CPU_SUM_COLUMNS(dbias, op->rows, tile.cols, i, j, dy[i * op->outputs + j])
    }
}
