// Products of a batch's lists of elements that are not zero (sparse.h). A sum takes its terms in the same order as in
// multiply.c.
#include "cpu/multiply.h"

#if CPU_MULTIPLIES

#ifdef __AVX512F__
#include <immintrin.h>
#endif

enum { VECTORS = CPU_SLICE / CPU_WIDTH, TOGETHER = 256 }; // TOGETHER: rows of x that are turned at a time

#ifdef __AVX512F__
// Adds to a list of `n`, x[0] being column `first`. Returns its new length.
static uint32_t list_some(const float *x, uint32_t first, uint32_t count, uint32_t n, uint32_t *index, float *value)
{
    const __m512i steps = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (uint32_t j = 0; j < count; j += 16) {
        uint32_t rest = count - j;
        __mmask16 there = rest < 16 ? (__mmask16)((1u << rest) - 1) : (__mmask16)0xffff;
        __m512 part = _mm512_maskz_loadu_ps(there, x + j);
        __mmask16 taken = _mm512_mask_cmp_ps_mask(there, part, _mm512_setzero_ps(), _CMP_NEQ_UQ);
        if (!taken)
            continue;
        _mm512_storeu_ps(value + n, _mm512_maskz_compress_ps(taken, part));
        __m512i columns = _mm512_add_epi32(steps, _mm512_set1_epi32((int)(first + j)));
        _mm512_storeu_si512(index + n, _mm512_maskz_compress_epi32(taken, columns));
        n += (uint32_t)__builtin_popcount(taken);
    }
    return n;
}
#else
// Every element is written where the next one that counts belongs; runs of zeros are passed over.
static uint32_t list_some(const float *x, uint32_t first, uint32_t count, uint32_t n, uint32_t *index, float *value)
{
    enum { RUN = 8 };
    for (uint32_t j = 0; j < count; j += RUN) {
        uint32_t end = count - j < RUN ? count : j + RUN;
        bool any = false;
        for (uint32_t k = j; k < end; k++)
            any |= x[k] != 0;
        for (uint32_t k = j; any && k < end; k++) {
            index[n] = first + k;
            value[n] = x[k];
            n += x[k] != 0;
        }
    }
    return n;
}
#endif

void CPU_NAME(list)(cpu_sparse *s, uint32_t row, uint32_t chunk, const float *x, uint32_t count)
{
    uint32_t *ends = s->ends + (size_t)row * s->chunks, *index = s->index + (size_t)row * s->line;
    float *value = s->value + (size_t)row * s->line;
    uint32_t n = cpu_sparse_begin(s, row, chunk);
    for (uint32_t at = 0; at < count; at += CPU_CHUNK, chunk++) {
        uint32_t cols = count - at < CPU_CHUNK ? count - at : CPU_CHUNK;
        if (x)
            n = list_some(x + at, chunk * CPU_CHUNK, cols, n, index, value);
        ends[chunk] = n;
    }
}

// Chunk after chunk, so that a chunk's rows of b stay in the nearest cache for all rows of c.
void CPU_NAME(multiply_lists)(const cpu_sparse *s, uint32_t first, const cpu_product *p)
{
    for (uint32_t chunk = 0; chunk < s->chunks; chunk++)
        for (uint32_t i = 0; i < p->rows; i++) {
            const uint32_t *index = s->index + (size_t)(first + i) * s->line;
            const float *value = s->value + (size_t)(first + i) * s->line;
            uint32_t end = s->ends[(size_t)(first + i) * s->chunks + chunk];
            real *c = p->c + i * p->c_stride;
            cpu_vector sum[VECTORS];
            for (uint32_t v = 0; v < VECTORS; v++)
                sum[v] = chunk ? *(const cpu_vector *)(c + v * CPU_WIDTH) : (cpu_vector){ 0 };
            for (uint32_t n = cpu_sparse_begin(s, first + i, chunk); n < end; n++)
                for (uint32_t v = 0; v < VECTORS; v++)
                    sum[v] += value[n] * *(const cpu_vector *)(p->b + index[n] * p->b_stride + v * CPU_WIDTH);
            for (uint32_t v = 0; v < VECTORS; v++)
                *(cpu_vector *)(c + v * CPU_WIDTH) = sum[v];
        }
}

// A chunk's elements by column: for each column its rows and values.
typedef struct by_column {
    uint32_t ends[CPU_CHUNK];
    uint16_t row[CPU_CHUNK * TOGETHER];
    float value[CPU_CHUNK * TOGETHER];
} by_column;

// Of rows `from` … to - 1.
static void turn(const cpu_sparse *s, uint32_t chunk, uint32_t from, uint32_t to, by_column *out)
{
    uint32_t next[CPU_CHUNK] = { 0 };
    for (uint32_t k = from; k < to; k++) {
        const uint32_t *index = s->index + (size_t)k * s->line;
        uint32_t end = s->ends[(size_t)k * s->chunks + chunk];
        for (uint32_t n = cpu_sparse_begin(s, k, chunk); n < end; n++)
            next[index[n] % CPU_CHUNK]++;
    }
    for (uint32_t j = 0, before = 0; j < CPU_CHUNK; j++) {
        out->ends[j] = before + next[j];
        next[j] = before;
        before = out->ends[j];
    }
    for (uint32_t k = from; k < to; k++) {
        const uint32_t *index = s->index + (size_t)k * s->line;
        const float *value = s->value + (size_t)k * s->line;
        uint32_t end = s->ends[(size_t)k * s->chunks + chunk];
        for (uint32_t n = cpu_sparse_begin(s, k, chunk); n < end; n++) {
            uint32_t at = next[index[n] % CPU_CHUNK]++;
            out->row[at] = (uint16_t)(k - from);
            out->value[at] = value[n];
        }
    }
}

// Rows of c are columns of x, those of the chunk that begins with column `first`.
void CPU_NAME(multiply_lists_turned)(const cpu_sparse *s, uint32_t first, const cpu_product *p)
{
    by_column turned;
    for (uint32_t from = 0; from < p->depth; from += TOGETHER) {
        const real *b = p->b + from * p->b_stride;
        turn(s, first / CPU_CHUNK, from, p->depth - from < TOGETHER ? p->depth : from + TOGETHER, &turned);
        for (uint32_t i = 0, n = 0; i < p->rows; i++) {
            real *c = p->c + i * p->c_stride;
            cpu_vector sum[VECTORS];
            for (uint32_t v = 0; v < VECTORS; v++)
                sum[v] = from ? *(const cpu_vector *)(c + v * CPU_WIDTH) : (cpu_vector){ 0 };
            for (; n < turned.ends[i]; n++)
                for (uint32_t v = 0; v < VECTORS; v++)
                    sum[v] += turned.value[n] * *(const cpu_vector *)(b + turned.row[n] * p->b_stride + v * CPU_WIDTH);
            for (uint32_t v = 0; v < VECTORS; v++)
                *(cpu_vector *)(c + v * CPU_WIDTH) = sum[v];
        }
    }
}

#else
typedef int cpu_nothing_to_list;
#endif
