// The two filters of HDF5 that nearly all files use, undone without HDF5. chunks.c calls this.
#ifndef LF_IO_CHUNK_FILTERS_H
#define LF_IO_CHUNK_FILTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/h5.h"

// What was done to chunks when they were written: first shuffled, then deflated, or one of the two, or nothing.
typedef struct lf_chunk_filters {
    size_t shuffle; // bytes of an element; 0: not shuffled
    bool deflate;
    uint32_t shuffle_mask, deflate_mask; // bit of a chunk's filter mask that says that it went without
} lf_chunk_filters;

// Reads them from the creation list of a data set. False: there are none, or others, or parameters that HDF5 should
// judge.
bool lf_chunk_filters_find(hid_t list, lf_chunk_filters *filters);

// Undoes them on one thread.
typedef struct lf_unfilter lf_unfilter;
lf_unfilter *lf_unfilter_create(void); // NULL: out of memory
void lf_unfilter_destroy(lf_unfilter *unfilter);
// Exactly `size` bytes; more bytes after the end of what was deflated do not count. False with the reason.
bool lf_unfilter_inflate(lf_unfilter *unfilter, const void *from, size_t length, void *to, size_t size,
                         const char **why);
// Elements of `element` bytes whose first bytes come first, then their second bytes, …; what is left over at the end
// stays as it is.
void lf_unshuffle(const void *from, size_t size, size_t element, void *to);

#endif
