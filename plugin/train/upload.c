// All rows on the devices, each read by one of the processes.
#include <stdlib.h>
#include <string.h>

#include "ranks/ranks.h"
#include "train/feed_parts.h"

enum { UPLOAD_BYTES = 8 << 20 }; // read from the file to the device in pieces of about this size

static bool read_piece(lf_feed *feed, uint64_t first, size_t count, const lf_rows_out *out, lf_error *err)
{
    return lf_dataset_read_span(feed->p.data, feed->p.part, first, count, out, err) &&
           lf_feed_settle(feed, out, first, NULL, count, err);
}

static bool write_piece(lf_feed *feed, uint64_t first, size_t count, const lf_rows_out *rows, lf_error *err)
{
    if (feed->w)
        memcpy(feed->w + first, rows->w, count * sizeof *feed->w);
    return lf_feed_write(feed, (uint32_t)first, rows, count, err);
}

// A piece lies in one block, which can be sent: weights, targets, features.
static lf_rows_out columns_of(const lf_feed *feed, void *block, size_t count)
{
    const lf_row_bytes *row = &feed->p.row;
    unsigned char *w = block, *y = w + count * row->w;
    return (lf_rows_out){ y + count * row->y, row->y ? y : NULL, row->w ? (float *)block : NULL };
}

typedef struct upload {
    void *own, *other; // blocks: what this process reads, and what it is told; NULL: there is one process
    size_t piece;      // rows
    uint32_t rank, ranks;
} upload;

static size_t rows_of_piece(const lf_feed *feed, const upload *u, uint64_t first)
{
    uint64_t rows = feed->part->rows, left = first < rows ? rows - first : 0;
    return left < u->piece ? left : u->piece;
}

// Each process reads the piece of its number.
static bool read_own(lf_feed *feed, const upload *u, uint64_t first, lf_error *err)
{
    first += u->rank * u->piece;
    size_t count = rows_of_piece(feed, u, first);
    const lf_rows_out out = columns_of(feed, u->own, count);
    return !count || read_piece(feed, first, count, &out, err);
}

// All are told of all. One that fails takes part to the end, since the others wait for it.
static bool spread(lf_feed *feed, const upload *u, uint64_t first, lf_error *err)
{
    bool ok = true;
    for (uint32_t r = 0; r < u->ranks; r++, first += u->piece) {
        void *block = r == u->rank ? u->own : u->other;
        size_t count = rows_of_piece(feed, u, first);
        const lf_rows_out rows = columns_of(feed, block, count);
        size_t size = count * (lf_row_bytes_sum(feed->p.row) - feed->p.row.teacher);
        if (u->ranks > 1 && !lf_ranks_broadcast_from(r, block, size, err))
            return false;
        ok = ok && (!count || write_piece(feed, first, count, &rows, err));
    }
    return ok;
}

// The rows of a piece, so that each process has one. Files of equal rows may be laid out differently.
static bool choose_piece(const lf_feed *feed, upload *u, bool ok, lf_error *err)
{
    uint64_t share = (feed->part->rows + u->ranks - 1) / u->ranks * feed->p.row.x - 1;
    u->piece = lf_dataset_piece(feed->p.data, feed->p.part, share < UPLOAD_BYTES ? (size_t)share : UPLOAD_BYTES);
    ok = lf_feed_agree(&feed->p, ok, err);
    return ok && (u->ranks == 1 || lf_ranks_broadcast(&u->piece, sizeof u->piece, err));
}

// In pieces, so that the host never holds the whole data beside the device.
bool lf_feed_upload(lf_feed *feed, bool ok, lf_error *err)
{
    const lf_part *part = feed->part;
    const uint32_t ranks = feed->p.rank_count > 1 ? feed->p.rank_count : 1;
    const size_t row = lf_row_bytes_sum(feed->p.row) - feed->p.row.teacher;
    upload u = { .rank = feed->p.rank, .ranks = ranks };
    if (!choose_piece(feed, &u, ok, err))
        return false;
    u.own = malloc(u.piece * row);
    u.other = ranks > 1 ? malloc(u.piece * row) : NULL;
    if (feed->p.row.w)
        feed->w = calloc(part->rows, sizeof *feed->w);
    if (!(u.own && (u.other || ranks == 1) && (feed->w || !feed->p.row.w))) {
        lf_error_set(err, LF_ENOMEM, "%s: out of memory for %zu rows", part->x_path, u.piece);
        ok = false;
    }
    bool all = true; // have done well so far
    for (uint64_t first = 0; all && first < part->rows; first += ranks * u.piece) {
        all = lf_feed_agree(&feed->p, ok && read_own(feed, &u, first, err), err);
        ok = all && spread(feed, &u, first, err);
    }
    if (all)
        ok = lf_feed_agree(
            &feed->p, ok && (!feed->p.teacher || lf_feed_write_teacher(feed, feed->p.teacher, part->rows, err)), err);
    free(u.own);
    free(u.other);
    return ok;
}
