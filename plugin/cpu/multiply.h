// Products of matrices that lie in a processor's caches, where a library's call and its packing cost as much as the
// product. Only the kernels' sources include it.
#ifndef LF_CPU_MULTIPLY_H
#define LF_CPU_MULTIPLY_H

#include "cpu/real.h"
#include "cpu/sparse.h"

// The plain x86 variant has no fused multiply-add, and the oracle needs no speed: they have the library's products.
#if !defined(LF_REAL_IS_DOUBLE) && (defined(__FMA__) || defined(__aarch64__))
#define CPU_MULTIPLIES 1
#else
#define CPU_MULTIPLIES 0
#endif

#if defined(__AVX512F__)
#define CPU_WIDTH 16
#elif defined(__AVX2__)
#define CPU_WIDTH 8
#else
#define CPU_WIDTH 4
#endif
#if CPU_MULTIPLIES
// Numbers anywhere in memory: aligned as one is, and it may alias arrays of them.
typedef real cpu_vector __attribute__((vector_size(CPU_WIDTH * sizeof(real)), aligned(_Alignof(real)), may_alias));
#endif

// A tile of c = op(a)·b: c (rows, cols), op(a) (rows, depth), b (depth, cols); row i of c begins at c + i c_stride.
// a_turned: a is stored (depth, rows).
typedef struct cpu_product {
    uint32_t rows, cols, depth; // cols: at least CPU_MULTIPLY_COLS
    const real *a, *b;
    real *c;
    size_t a_stride, b_stride, c_stride;
    bool a_turned;
} cpu_product;

// Each element is one sum over the depth, in order and with one rounding a term, so that its bits depend neither on the
// tile nor on the width of vectors. Only where CPU_MULTIPLIES.
void CPU_NAME(multiply)(const cpu_product *p);

// Lists `count` elements of row `row` of x, which begin with chunk `chunk`; NULL: zeros. A row's are listed in order.
void CPU_NAME(list)(cpu_sparse *s, uint32_t row, uint32_t chunk, const float *x, uint32_t count);
// The same products of a matrix in lists: of its rows from `first_row` on, and of the columns of the chunk that begins
// with `first_col`. A tile is a slice wide; `a` is not used.
void CPU_NAME(multiply_lists)(const cpu_sparse *s, uint32_t first_row, const cpu_product *p);
void CPU_NAME(multiply_lists_turned)(const cpu_sparse *s, uint32_t first_col, const cpu_product *p);

#endif
