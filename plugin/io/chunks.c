#include "io/chunks.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "io/chunk_filters.h"
#include "io/threads.h"

enum {
    MOST_CHUNK_BYTES = 64 << 20,
    MOST_BYTES = 256 << 20,  // of chunks in memory at a time
    THREAD_BYTES = 256 << 10 // worth another thread: it takes as long as starting one, several times over
};

struct lf_chunks {
    hid_t set;
    const char *where;
    int rank;        // at least 2; the last dimensions that chunks do not divide are one here with the one before them
    uint64_t merged; // indices of the last dimension here for one of the data set's
    hsize_t dims[H5S_MAX_RANK], chunk[H5S_MAX_RANK];
    size_t element, chunk_bytes;
    lf_chunk_filters filters;
};

// The first and last chunk that a box touches, and the box itself, in each dimension.
typedef struct grid {
    hsize_t start[H5S_MAX_RANK], end[H5S_MAX_RANK]; // of the box; end: one after
    hsize_t low[H5S_MAX_RANK], across[H5S_MAX_RANK];
    uint64_t chunks;
} grid;

static bool set_shape(lf_chunks *chunks, hid_t list, hid_t space)
{
    hsize_t *dims = chunks->dims, *chunk = chunks->chunk;
    chunks->rank = H5Sget_simple_extent_dims(space, dims, NULL);
    if (chunks->rank < 1 || H5Pget_chunk(list, H5S_MAX_RANK, chunk) != chunks->rank)
        return false;
    if (chunks->rank == 1) {
        dims[1] = chunk[1] = 1;
        chunks->rank = 2;
    }
    uint64_t bytes = chunks->element;
    for (int i = 0; i < chunks->rank; i++) {
        if (!dims[i] || !chunk[i] || bytes > MOST_CHUNK_BYTES / chunk[i])
            return false;
        bytes *= chunk[i];
    }
    chunks->chunk_bytes = (size_t)bytes;
    chunks->merged = 1;
    for (int last = chunks->rank - 1; last > 1 && chunk[last] == dims[last]; last--) {
        chunks->merged = dims[last];
        dims[last - 1] *= dims[last];
        chunk[last - 1] *= chunk[last];
        chunks->rank--;
    }
    return true;
}

// HDF5 fails alike for a chunk that nobody wrote and for one that it cannot find; who knows what to put there is HDF5.
static bool all_written(const lf_chunks *chunks, hid_t set, hid_t space)
{
    hsize_t written = 0;
    uint64_t all = 1;
    for (int i = 0; i < chunks->rank; i++)
        all *= (chunks->dims[i] - 1) / chunks->chunk[i] + 1;
    return H5Dget_num_chunks(set, space, &written) >= 0 && written == all;
}

lf_chunks *lf_chunks_open(hid_t set, const char *where)
{
    hid_t list = H5Dget_create_plist(set), space = H5Dget_space(set), type = H5Dget_type(set);
    unsigned options = 0;
    lf_chunks *chunks = calloc(1, sizeof *chunks);
    bool good = chunks && list >= 0 && space >= 0 && type >= 0 && H5Pget_layout(list) == H5D_CHUNKED &&
                H5Pget_chunk_opts(list, &options) >= 0 && options == 0;
    if (good) {
        chunks->set = set;
        chunks->where = where;
        chunks->element = H5Tget_size(type);
        good = H5Tis_variable_str(type) <= 0 && chunks->element > 0 && set_shape(chunks, list, space) &&
               lf_chunk_filters_find(list, &chunks->filters) && all_written(chunks, set, space);
    }
    H5Tclose(type);
    H5Sclose(space);
    H5Pclose(list);
    if (good)
        return chunks;
    free(chunks);
    return NULL;
}

void lf_chunks_close(lf_chunks *chunks)
{
    free(chunks);
}

static grid make_grid(const lf_chunks *chunks, const lf_box *box)
{
    grid at = { .chunks = 1 };
    at.start[0] = box->first;
    at.end[0] = box->first + box->count;
    uint64_t unit = chunks->rank == 2 ? chunks->merged : 1;
    at.start[1] = box->from * unit;
    at.end[1] = at.start[1] + box->width * unit;
    for (int i = 0; i < chunks->rank; i++) {
        if (i > 1)
            at.end[i] = chunks->dims[i];
        at.low[i] = at.start[i] / chunks->chunk[i];
        at.across[i] = (at.end[i] - 1) / chunks->chunk[i] - at.low[i] + 1;
        at.chunks *= at.across[i];
    }
    return at;
}

bool lf_chunks_fill(const lf_chunks *chunks, const lf_box *box)
{
    grid at = make_grid(chunks, box);
    uint64_t bytes = chunks->element;
    for (int i = 0; i < chunks->rank; i++)
        bytes *= at.end[i] - at.start[i];
    return bytes > at.chunks * chunks->chunk_bytes / 2;
}

// One call of lf_chunks_read, shared by its threads.
typedef struct job {
    const lf_chunks *chunks;
    const grid *at;
    char *out;
    bool locked;
    pthread_mutex_t lock; // around what follows, and around HDF5 if it is `locked`
    uint64_t next;        // chunk that nobody has taken
    uint64_t failed;      // number of the first chunk that failed; UINT64_MAX: none
    lf_error error;       // its
} job;

// What a thread works with. The three hold a chunk each; `filtered` grows to the longest one.
typedef struct room {
    lf_unfilter *unfilter;
    char *filtered, *inflated, *plain;
    size_t filtered_size;
} room;

static void h5_enter(job *j, lf_h5_scope *scope)
{
    if (!j->locked) {
        lf_h5_enter(scope);
        return;
    }
    pthread_mutex_lock(&j->lock);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); // each thread may have its own setting
}

static void h5_leave(job *j, const lf_h5_scope *scope)
{
    if (j->locked)
        pthread_mutex_unlock(&j->lock);
    else
        lf_h5_leave(scope);
}

// The bytes of a chunk as they lie in the file.
static bool fetch(job *j, room *r, const hsize_t *origin, uint32_t *mask, size_t *length, lf_error *err)
{
    const size_t most = 2 * j->chunks->chunk_bytes + 4096; // a filter may have made more of them
    hsize_t stored = 0;
    if (H5Dget_chunk_storage_size(j->chunks->set, origin, &stored) < 0) {
        lf_h5_error(err, LF_EFORMAT, "cannot be found");
        return false;
    }
    *length = (size_t)stored;
    if (stored > most) {
        lf_error_set(err, LF_EFORMAT, "takes %llu bytes; expects at most %zu", (unsigned long long)stored, most);
        return false;
    }
    if (*length > r->filtered_size) {
        free(r->filtered);
        r->filtered = malloc(*length);
        r->filtered_size = r->filtered ? *length : 0;
    }
    if (*length > r->filtered_size) {
        lf_error_set(err, LF_ENOMEM, "out of memory for %zu bytes", *length);
        return false;
    }
    if (H5Dread_chunk(j->chunks->set, H5P_DEFAULT, origin, mask, r->filtered) < 0) {
        lf_h5_error(err, LF_EFORMAT, "cannot be read");
        return false;
    }
    return true;
}

// The chunk's values from its bytes, at `place` or, if that is NULL, somewhere in the room.
static const char *undo(const job *j, room *r, uint32_t mask, size_t length, char *place, lf_error *err)
{
    const lf_chunks *chunks = j->chunks;
    const lf_chunk_filters *filters = &chunks->filters;
    const bool deflated = filters->deflate && !(mask & filters->deflate_mask);
    const bool shuffled = filters->shuffle && !(mask & filters->shuffle_mask);
    const size_t size = chunks->chunk_bytes;
    const char *values = r->filtered, *why = NULL;
    if (deflated) {
        char *to = place && !shuffled ? place : r->inflated;
        if (!lf_unfilter_inflate(r->unfilter, values, length, to, size, &why)) {
            lf_error_set(err, LF_EFORMAT, "%s", why);
            return NULL;
        }
        values = to;
    } else if (length != size) {
        lf_error_set(err, LF_EFORMAT, "takes %zu bytes; expects %zu", length, size);
        return NULL;
    }
    if (shuffled) {
        char *to = place ? place : r->plain;
        lf_unshuffle(values, size, filters->shuffle, to);
        values = to;
    }
    return values;
}

// Copies the part of a chunk that lies in the box, from dimension `dim` on.
static void place_part(const job *j, const hsize_t *origin, int dim, const char *from, char *to)
{
    const lf_chunks *chunks = j->chunks;
    const grid *at = j->at;
    size_t inner_from = chunks->element, inner_to = chunks->element; // bytes of one index
    for (int i = dim + 1; i < chunks->rank; i++) {
        inner_from *= (size_t)chunks->chunk[i];
        inner_to *= (size_t)(at->end[i] - at->start[i]);
    }
    hsize_t start = origin[dim] > at->start[dim] ? origin[dim] : at->start[dim];
    hsize_t stop = origin[dim] + chunks->chunk[dim];
    size_t count = (size_t)((stop < at->end[dim] ? stop : at->end[dim]) - start);
    from += (size_t)(start - origin[dim]) * inner_from;
    to += (size_t)(start - at->start[dim]) * inner_to;
    if (dim == chunks->rank - 1)
        memcpy(to, from, count * chunks->element);
    for (size_t i = 0; dim < chunks->rank - 1 && i < count; i++)
        place_part(j, origin, dim + 1, from + i * inner_from, to + i * inner_to);
}

// Where all of a chunk lies in one piece in the result; NULL: it does not.
static char *whole_place(const job *j, const hsize_t *origin)
{
    const lf_chunks *chunks = j->chunks;
    const grid *at = j->at;
    bool whole = chunks->rank == 2 && chunks->chunk[1] == at->end[1] - at->start[1] && origin[1] == at->start[1] &&
                 origin[0] >= at->start[0] && origin[0] + chunks->chunk[0] <= at->end[0];
    return whole ? j->out + (size_t)(origin[0] - at->start[0]) * (size_t)chunks->chunk[1] * chunks->element : NULL;
}

static bool read_chunk(job *j, room *r, uint64_t number, lf_error *err)
{
    const lf_chunks *chunks = j->chunks;
    hsize_t origin[H5S_MAX_RANK], asked[H5S_MAX_RANK];
    uint64_t rest = number;
    for (int i = chunks->rank - 1; i >= 0; i--) {
        origin[i] = (j->at->low[i] + rest % j->at->across[i]) * chunks->chunk[i];
        rest /= j->at->across[i];
    }
    memset(asked, 0, sizeof asked); // of the dimensions that were put together, a chunk begins at the first index
    memcpy(asked, origin, (size_t)chunks->rank * sizeof *origin);
    asked[chunks->rank - 1] /= chunks->merged;
    uint32_t mask = 0;
    size_t length = 0;
    lf_h5_scope scope;
    h5_enter(j, &scope);
    bool good = fetch(j, r, asked, &mask, &length, err);
    h5_leave(j, &scope);
    if (!good)
        return false;
    char *place = whole_place(j, origin);
    const char *values = undo(j, r, mask, length, place, err);
    if (values && values != place)
        place_part(j, origin, 0, values, j->out);
    return values;
}

static bool room_init(room *r, const lf_chunks *chunks)
{
    const lf_chunk_filters *filters = &chunks->filters;
    *r = (room){ 0 };
    if (filters->deflate) {
        r->unfilter = lf_unfilter_create();
        r->inflated = malloc(chunks->chunk_bytes);
    }
    if (filters->shuffle)
        r->plain = malloc(chunks->chunk_bytes);
    return (!filters->deflate || (r->unfilter && r->inflated)) && (!filters->shuffle || r->plain);
}

static void room_finish(room *r)
{
    lf_unfilter_destroy(r->unfilter);
    free(r->filtered);
    free(r->inflated);
    free(r->plain);
}

// Takes one chunk after the other until there are none, or one failed.
static void work(void *user)
{
    job *j = user;
    room r;
    lf_error err = { 0 };
    bool good = room_init(&r, j->chunks);
    if (!good)
        lf_error_set(&err, LF_ENOMEM, "out of memory for %zu bytes", j->chunks->chunk_bytes);
    for (;;) {
        pthread_mutex_lock(&j->lock);
        uint64_t number = j->failed < UINT64_MAX ? j->at->chunks : j->next;
        j->next += number < j->at->chunks;
        pthread_mutex_unlock(&j->lock);
        if (number >= j->at->chunks)
            break;
        if (good && read_chunk(j, &r, number, &err))
            continue;
        pthread_mutex_lock(&j->lock);
        if (number < j->failed) { // whichever thread was faster, the first chunk is named
            j->failed = number;
            j->error = err;
        }
        pthread_mutex_unlock(&j->lock);
        break;
    }
    room_finish(&r);
}

bool lf_chunks_read(const lf_chunks *chunks, const lf_box *box, bool locked, void *out, lf_error *err)
{
    const grid at = make_grid(chunks, box);
    job j = { .chunks = chunks, .at = &at, .out = out, .locked = locked, .failed = UINT64_MAX };
    // Each holds three.
    uint64_t threads = lf_threads_count(), held = MOST_BYTES / 3 / chunks->chunk_bytes;
    uint64_t worth = at.chunks * chunks->chunk_bytes / THREAD_BYTES;
    threads = threads < at.chunks ? threads : at.chunks;
    threads = threads < worth ? threads : worth;
    threads = threads < held ? threads : held;
    pthread_mutex_init(&j.lock, NULL);
    lf_threads_run(work, &j, threads > 1 ? (unsigned)threads - 1 : 0);
    pthread_mutex_destroy(&j.lock);
    if (j.failed == UINT64_MAX)
        return true;
    uint64_t across = at.chunks / at.across[0]; // chunks of the same rows
    lf_error_set(err, j.error.code, "%s: cannot read rows %llu..%llu: the chunk of row %llu: %s", chunks->where,
                 (unsigned long long)box->first, (unsigned long long)(box->first + box->count - 1),
                 (unsigned long long)((at.low[0] + j.failed / across) * chunks->chunk[0]), j.error.text);
    return false;
}
