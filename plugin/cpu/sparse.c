#include "cpu/sparse.h"

#include <stdlib.h>

cpu_sparse *cpu_sparse_create(uint32_t rows, uint32_t cols)
{
    cpu_sparse *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->rows = rows;
    s->cols = cols;
    s->chunks = cols / CPU_CHUNK + (cols % CPU_CHUNK != 0);
    s->line = cols + 16; // a vector is stored whole
    s->index = malloc((size_t)rows * s->line * sizeof *s->index);
    s->value = malloc((size_t)rows * s->line * sizeof *s->value);
    s->ends = malloc((size_t)rows * s->chunks * sizeof *s->ends);
    if (s->index && s->value && s->ends)
        return s;
    cpu_sparse_destroy(s);
    return NULL;
}

void cpu_sparse_destroy(cpu_sparse *sparse)
{
    if (!sparse)
        return;
    free(sparse->index);
    free(sparse->value);
    free(sparse->ends);
    free(sparse);
}

void cpu_sparse_choose(cpu_sparse *s)
{
    enum { COUNT_EVERY = 16 };
    if (s->on || s->counts) {
        uint64_t count = 0;
        for (uint32_t i = 0; i < s->rows; i++)
            count += cpu_sparse_begin(s, i, s->chunks);
        s->on = count <= (uint64_t)s->rows * s->cols / 2;
        s->wait = s->on ? 0 : COUNT_EVERY;
    }
    if (s->wait)
        s->wait--;
    s->counts = !s->on && !s->wait;
}
