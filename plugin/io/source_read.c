#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/source.h"
#include "io/threads.h"

// Nearby wanted rows are read in one piece with the rows between them, as long as copying those costs less than one
// more call. Measured: pread costs about as much as copying some KB, H5Dread as much as some 100 KB. A piece that is
// not larger stays in a core's cache until its rows are picked out.
enum {
    RAW_GAP_BYTES = 8 << 10,
    RAW_PIECE_BYTES = 256 << 10,
    HDF5_GAP_BYTES = 64 << 10,
    HDF5_PIECE_BYTES = 8 << 20,
};
// Worth another thread, which takes some 50 µs to start.
enum { SLICE_PICKS = 4096, SLICE_BYTES = 2 << 20 };

static bool read_raw(const lf_source *source, uint64_t first, size_t count, void *out, lf_error *err)
{
    char *to = out;
    size_t left = count * source->row_size;
    off_t at = source->offset + (off_t)(first * source->row_size);
    while (left > 0) {
        ssize_t got = pread(source->fd, to, left, at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            lf_error_set(err, got < 0 ? LF_EIO : LF_EFORMAT, "%s: cannot read rows %llu..%llu: %s", source->where,
                         (unsigned long long)first, (unsigned long long)(first + count - 1),
                         got < 0 ? strerror(errno) : "the file is cut short");
            return false;
        }
        to += got;
        at += got;
        left -= (size_t)got;
    }
    return true;
}

// A call that several threads share.
typedef struct shared {
    const lf_source *source;
    uint64_t first;       // row
    const lf_pick *picks; // NULL: consecutive rows
    char *out;
} shared;

static bool read_raw_slice(void *user, size_t first, size_t count, lf_error *err)
{
    const shared *s = user;
    return read_raw(s->source, s->first + first, count, s->out + first * s->source->row_size, err);
}

// The box of rows first … first + count - 1 and indices from … from + width - 1 of dimension 1.
static bool read_box(const lf_source *source, uint64_t first, size_t count, hsize_t from, hsize_t width, hid_t type,
                     void *out, lf_error *err)
{
    hsize_t start[H5S_MAX_RANK] = { first, from }, size[H5S_MAX_RANK];
    memcpy(size, source->dims, sizeof size);
    size[0] = count;
    if (source->rank > 1)
        size[1] = width;
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    hid_t space = H5Dget_space(source->set);
    // Of the same rank as the file's: HDF5 is far slower between different ranks.
    hid_t memory = H5Screate_simple(source->rank, size, NULL);
    bool good = space >= 0 && memory >= 0 && H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, size, NULL) >= 0 &&
                H5Dread(source->set, type, memory, space, H5P_DEFAULT, out) >= 0;
    if (!good)
        lf_h5_error(err, LF_EFORMAT, "%s: cannot read rows %llu..%llu", source->where, (unsigned long long)first,
                    (unsigned long long)(first + count - 1));
    H5Sclose(memory);
    H5Sclose(space);
    lf_h5_leave(&scope);
    return good;
}

// The same in the delivered type.
static bool read_delivered(const lf_source *source, uint64_t first, size_t count, hsize_t from, hsize_t width,
                           void *out, lf_error *err)
{
    const lf_box box = { first, count, from, width };
    if (source->chunks && lf_chunks_fill(source->chunks, &box))
        return lf_chunks_read(source->chunks, &box, false, out, err);
    return read_box(source, first, count, from, width, source->memory_type, out, err);
}

static hsize_t width_of(const lf_source *source)
{
    return source->rank > 1 ? source->dims[1] : 1;
}

bool lf_source_read_span(const lf_source *source, uint64_t first, size_t count, hid_t type, void *out, lf_error *err)
{
    if (count == 0)
        return true;
    shared s = { .source = source, .first = first, .out = out };
    if (type < 0 && source->fd >= 0)
        return lf_threads_share(count, SLICE_BYTES / source->row_size + 1, read_raw_slice, &s, err);
    return type < 0 ? read_delivered(source, first, count, 0, width_of(source), out, err)
                    : read_box(source, first, count, 0, width_of(source), type, out, err);
}

// How many picks, from the first, one piece takes.
static size_t piece_length(const lf_source *source, const lf_pick *picks, size_t count)
{
    size_t gap = source->fd >= 0 ? RAW_GAP_BYTES : HDF5_GAP_BYTES;
    size_t most = source->fd >= 0 ? RAW_PIECE_BYTES : HDF5_PIECE_BYTES;
    uint64_t block = source->block_rows, from = picks[0].row;
    size_t n = 1;
    for (; n < count; n++) {
        uint64_t row = picks[n].row, last = picks[n - 1].row;
        if (block == 0) {
            if (row - last > 1 + gap / source->row_size || row - from >= most / source->row_size)
                break;
        } else if (row / block != last / block) {
            // The next block joins if it is a neighbour and fits whole, so that no block is read twice.
            if (row / block != last / block + 1 || (row / block + 1) * block - from > most / source->row_size)
                break;
        }
    }
    return n;
}

static bool is_run(const lf_pick *picks, size_t count)
{
    for (size_t i = 1; i < count; i++)
        if (picks[i].row != picks[0].row + i || picks[i].at != picks[0].at + i)
            return false;
    return true;
}

// Scratch memory for pieces: grows to the largest one.
typedef struct scratch {
    char *bytes;
    size_t size;
} scratch;

static bool scratch_reserve(scratch *room, size_t size, const char *where, lf_error *err)
{
    if (size <= room->size)
        return true;
    free(room->bytes);
    room->bytes = malloc(size);
    room->size = room->bytes ? size : 0;
    if (!room->bytes)
        lf_error_set(err, LF_ENOMEM, "%s: out of memory for %zu bytes of rows", where, size);
    return room->bytes;
}

static bool read_piece(const lf_source *source, const lf_pick *picks, size_t count, scratch *room, char *out,
                       lf_error *err)
{
    uint64_t first = picks[0].row;
    size_t rows = (size_t)(picks[count - 1].row - first) + 1;
    if (is_run(picks, count))
        return lf_source_read_span(source, first, rows, -1, out + picks[0].at * source->row_size, err);
    hsize_t width = width_of(source), strip = width;
    size_t unit = source->row_size / (size_t)width; // bytes of one index of dimension 1
    if (source->block_rows > 0 && rows <= source->block_rows)
        strip = source->strip;
    if (!scratch_reserve(room, rows * (size_t)strip * unit, source->where, err))
        return false;
    for (hsize_t from = 0; from < width; from += strip) {
        hsize_t wide = width - from < strip ? width - from : strip;
        bool good = source->fd >= 0 ? read_raw(source, first, rows, room->bytes, err)
                                    : read_delivered(source, first, rows, from, wide, room->bytes, err);
        if (!good)
            return false;
        size_t length = (size_t)wide * unit;
        for (size_t i = 0; i < count; i++)
            memcpy(out + picks[i].at * source->row_size + (size_t)from * unit,
                   room->bytes + (size_t)(picks[i].row - first) * length, length);
    }
    return true;
}

static bool read_picks(void *user, size_t first, size_t count, lf_error *err)
{
    const shared *s = user;
    const lf_pick *picks = s->picks + first;
    scratch room = { 0 };
    bool good = true;
    for (size_t i = 0; good && i < count;) {
        size_t n = piece_length(s->source, picks + i, count - i);
        good = read_piece(s->source, picks + i, n, &room, s->out, err);
        i += n;
    }
    free(room.bytes);
    return good;
}

bool lf_source_read_picks(const lf_source *source, const lf_pick *picks, size_t count, void *out, lf_error *err)
{
    shared s = { .source = source, .picks = picks, .out = out };
    if (source->fd >= 0)
        return lf_threads_share(count, SLICE_PICKS, read_picks, &s, err);
    return read_picks(&s, 0, count, err); // a block is inflated by several threads
}
