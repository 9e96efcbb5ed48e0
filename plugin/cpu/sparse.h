// The elements of a batch's x that are not zero. Images with a background, one-hot and counted words are mostly zeros,
// and a product that passes over them has equal bits as long as all weights are finite: what is left out would add a
// zero to each sum.
#ifndef LF_CPU_SPARSE_H
#define LF_CPU_SPARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CPU_CHUNK = 64 }; // columns of x whose part of a kernel's slice fits into a first-level cache

typedef struct cpu_sparse {
    uint32_t rows, cols, chunks;
    uint32_t line;   // places of a row's list
    uint32_t *index; // (rows, line): columns, ascending
    float *value;    // (rows, line)
    uint32_t *ends;  // (rows, chunks): where in its list a chunk's elements end
    bool on;         // the lists stand, and x does not
    bool counts;     // x stands, and its rows' elements are counted as if they were listed
    uint32_t wait;   // batches until they are counted again
} cpu_sparse;

cpu_sparse *cpu_sparse_create(uint32_t rows, uint32_t cols); // NULL: out of memory
void cpu_sparse_destroy(cpu_sparse *sparse);

static inline uint32_t cpu_sparse_begin(const cpu_sparse *s, uint32_t row, uint32_t chunk)
{
    return chunk ? s->ends[(size_t)row * s->chunks + chunk - 1] : 0;
}

// Notes the elements of a row that is not listed.
static inline void cpu_sparse_count(cpu_sparse *s, uint32_t row, uint32_t elements)
{
    s->ends[(size_t)row * s->chunks + s->chunks - 1] = elements;
}

// Before a batch is gathered: decides whether in lists, by the last batch that was listed or counted. Of those that are
// not listed one in sixteen is counted.
void cpu_sparse_choose(cpu_sparse *sparse);

#endif
