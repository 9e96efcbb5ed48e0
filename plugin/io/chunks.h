// Chunked values read by several threads: HDF5 finds the chunks and fetches their bytes, one at a time; inflating them
// and putting them into place happens outside its lock. source_read.c and digest.c call this.
#ifndef LF_IO_CHUNKS_H
#define LF_IO_CHUNKS_H

#include "io/h5.h"

typedef struct lf_chunks lf_chunks;

// Inside lf_h5_enter. `set`: borrowed. `where`: its name in messages, borrowed. NULL without an error where HDF5 has to
// read by itself: not chunked, chunks of more than 64 MiB, no filters or others than shuffle and deflate, chunks that
// nobody wrote.
lf_chunks *lf_chunks_open(hid_t set, const char *where);
void lf_chunks_close(lf_chunks *chunks);

// A part of the values: rows first … first + count - 1, and of dimension 1, if there is one, from … from + width - 1.
typedef struct lf_box {
    uint64_t first, count, from, width;
} lf_box;

// Whether most of the chunks that a box touches lies in it. A small piece of chunks is HDF5's, which keeps them for the
// next one.
bool lf_chunks_fill(const lf_chunks *chunks, const lf_box *box);

// Reads a box of values in the type in which they are stored. `locked`: the caller is inside lf_h5_enter.
bool lf_chunks_read(const lf_chunks *chunks, const lf_box *box, bool locked, void *out, lf_error *err);

#endif
