// One numeric data set read as rows: the first dimension counts rows, the others are one row's columns, flattened.
// dataset.c and its neighbours call this; only io/ includes it.
#ifndef LF_IO_SOURCE_H
#define LF_IO_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/dtype.h"
#include "core/error.h"
#include "io/chunks.h"
#include "io/h5.h"

typedef struct lf_source {
    char *where; // "file:/object", for messages
    hid_t set;
    int rank; // >= 1
    hsize_t dims[H5S_MAX_RANK];
    uint64_t rows;     // dims[0]
    uint32_t columns;  // product of the other dimensions
    bool floats;       // stored as floats
    lf_dtype stored;   // delivered type
    hid_t memory_type; // HDF5's name for `stored`; not to be closed
    size_t row_size;   // bytes of a delivered row

    // Chunked data: rows are read in blocks of `block_rows` rows, aligned, each in strips of `strip` along dimension 1,
    // so that one read inflates each chunk once and the scratch memory stays bounded. 0: not chunked.
    uint64_t block_rows;
    hsize_t strip;
    lf_chunks *chunks; // of values already in the delivered type; NULL: HDF5 reads all of them

    // Contiguous values already in the delivered type lie in the file at `offset` and are read without HDF5.
    int fd; // -1: read through HDF5
    off_t offset;
} lf_source;

// A wanted row and its place in the result.
typedef struct lf_pick {
    uint64_t row;
    size_t at;
} lf_pick;

// Inside lf_h5_enter. Checks existence, type, storage and shape. On failure nothing is left open.
bool lf_source_open(lf_source *source, hid_t file, const char *file_name, const char *path, lf_error *err);
void lf_source_close(lf_source *source);
// Delivers another type than the stored one: LF_U32 or LF_F32.
void lf_source_deliver(lf_source *source, lf_dtype type);

// Rows to read at a time in order to read all of them once, of about `bytes`: whole blocks.
size_t lf_source_piece(const lf_source *source, size_t bytes);

// The others take the lock themselves. Rows are not checked here.
// Rows first … first + count - 1 in `type`, or the source's own type if negative.
bool lf_source_read_span(const lf_source *source, uint64_t first, size_t count, hid_t type, void *out, lf_error *err);
// Picks sorted by row.
bool lf_source_read_picks(const lf_source *source, const lf_pick *picks, size_t count, void *out, lf_error *err);

#endif
