// A block of the result stays in registers while the depth goes by: ROWS numbers of a, spread over vectors, times
// VECTORS vectors of b. With 12 x 2 vectors a term takes 24 multiply-adds for 14 loads, which is all that the loads of
// a core can feed. Nothing is packed: b's columns come from the second-level cache, which keeps up.
#include "cpu/multiply.h"

#if CPU_MULTIPLIES

#if defined(__AVX512F__)
enum { ROWS = 13 }; // 26 of 32 registers hold sums
#elif defined(__AVX2__)
enum { ROWS = 6 }; // 12 of 16
#else
enum { ROWS = 12 }; // 24 of 32
#endif
enum { VECTORS = 2 };

// One block: its first elements are a[0], b[0] and c[0]. All but p is constant where it is called.
static inline __attribute__((always_inline)) void block(const uint32_t rows, const uint32_t vectors, const bool turned,
                                                        const cpu_product *p, const real *restrict a,
                                                        const real *restrict b, real *restrict c)
{
    const size_t along = turned ? 1 : p->a_stride, deeper = turned ? p->a_stride : 1;
    cpu_vector sum[ROWS][VECTORS];
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t v = 0; v < vectors; v++)
            sum[i][v] = (cpu_vector){ 0 };
    for (uint32_t k = 0; k < p->depth; k++, a += deeper, b += p->b_stride) {
        cpu_vector right[VECTORS];
        for (uint32_t v = 0; v < vectors; v++)
            right[v] = *(const cpu_vector *)(b + v * CPU_WIDTH);
        for (uint32_t i = 0; i < rows; i++)
            for (uint32_t v = 0; v < vectors; v++)
                sum[i][v] += a[i * along] * right[v];
    }
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t v = 0; v < vectors; v++)
            *(cpu_vector *)(c + i * p->c_stride + v * CPU_WIDTH) = sum[i][v];
}

#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        block(n, vectors, turned, p, a, b, c);                                                                         \
        break;

static inline __attribute__((always_inline)) void some_rows(uint32_t rows, const uint32_t vectors, const bool turned,
                                                            const cpu_product *p, const real *a, const real *b, real *c)
{
    switch (rows) {
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
        CASE(5)
        CASE(6)
#if defined(__AVX512F__) || !defined(__AVX2__)
        CASE(7)
        CASE(8)
        CASE(9)
        CASE(10)
        CASE(11)
        CASE(12)
#endif
#if defined(__AVX512F__)
        CASE(13)
#endif
    }
}

// All rows of some columns, in blocks of nearly equal height.
static void columns(uint32_t vectors, const cpu_product *p, uint32_t column)
{
    uint32_t blocks = (p->rows + ROWS - 1) / ROWS;
    for (uint32_t n = 0, row = 0; n < blocks; n++) {
        uint32_t rows = (p->rows - row + blocks - n - 1) / (blocks - n);
        const real *a = p->a + (p->a_turned ? row : row * p->a_stride), *b = p->b + column;
        real *c = p->c + row * p->c_stride + column;
        if (vectors == VECTORS && p->a_turned)
            some_rows(rows, VECTORS, true, p, a, b, c);
        else if (vectors == VECTORS)
            some_rows(rows, VECTORS, false, p, a, b, c);
        else if (p->a_turned)
            some_rows(rows, 1, true, p, a, b, c);
        else
            some_rows(rows, 1, false, p, a, b, c);
        row += rows;
    }
}

// The last vector of columns may go over some of the one before again, to the same bits.
void CPU_NAME(multiply)(const cpu_product *p)
{
    uint32_t column = 0;
    for (; p->cols - column >= VECTORS * CPU_WIDTH; column += VECTORS * CPU_WIDTH)
        columns(VECTORS, p, column);
    for (; p->cols - column >= CPU_WIDTH; column += CPU_WIDTH)
        columns(1, p, column);
    if (column < p->cols)
        columns(1, p, p->cols - CPU_WIDTH);
}

#else
typedef int cpu_nothing_to_multiply;
#endif
