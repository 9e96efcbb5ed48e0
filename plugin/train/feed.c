#include "train/feed.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/random.h"
#include "ranks/ranks.h"

enum { UPLOAD_BYTES = 8 << 20 }; // read from the file to the device in pieces of about this size

struct lf_feed {
    lf_feed_params p;
    const lf_part *part;
    uint32_t stretch_rows; // at most; whole batches, unless a pass is shorter
    bool resident;
    size_t teacher_width;    // with a teacher
    uint64_t pass, position; // of the next stretch that lf_feed_next gives
    uint32_t *order;         // [stretch_rows]
    uint64_t *rows;          // [stretch_rows]: of the part, by place in the window
    uint32_t *place;         // [stretch_rows]: in the window, by position
    uint32_t count;          // rows of the window
    uint32_t first, end;     // of a batch: those of this process in the window
    float *weights;          // [stretch_rows]: by position of the stretch on the device; NULL without weights
    float *own_weights;      // [stretch_rows]: the same, 0 where the row is another process's; NULL where none is
    // A window that is read ahead; NULL when everything is resident.
    unsigned char *x, *y;
    float *w;       // [stretch_rows]; when everything is resident [rows of the part]; NULL without weights
    float *teacher; // [stretch_rows * outputs]; NULL without a teacher
    pthread_t reader;
    bool reader_started;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum { READER_IDLE, READER_READS, READER_DONE, READER_FAILED, READER_QUITS } state; // under `lock`
    lf_error reader_error;
};

uint64_t lf_row_bytes_sum(lf_row_bytes row)
{
    return row.x + row.y + row.w + row.teacher;
}

uint32_t lf_feed_window(uint64_t rows, lf_row_bytes row, uint32_t unit, uint64_t budget, uint64_t max_tensor)
{
    uint64_t all = lf_row_bytes_sum(row), widest = row.x > row.y ? row.x : row.y;
    if (row.teacher > widest)
        widest = row.teacher;
    if (all * rows <= budget && widest * rows <= max_tensor && rows <= UINT32_MAX - unit)
        return (uint32_t)rows;
    uint64_t most = budget / 2 / all;
    if (most > max_tensor / widest)
        most = max_tensor / widest;
    if (most > UINT32_MAX)
        most = UINT32_MAX;
    return (uint32_t)(most / unit * unit);
}

void lf_feed_rows(const lf_part *part, bool shuffle, uint64_t seed, uint64_t pass, uint64_t position, uint32_t count,
                  uint64_t *rows)
{
    lf_permutation order = lf_permutation_make(seed, LF_STREAM_SHUFFLE, (uint32_t)pass, part->rows);
    for (uint32_t i = 0; i < count; i++)
        rows[i] = shuffle ? lf_permutation_at(&order, position + i) : position + i;
}

void lf_feed_own(lf_feed *feed, uint32_t first, uint32_t end)
{
    feed->p.first = first;
    feed->p.end = end;
}

static uint32_t rows_of_next(const lf_feed *feed)
{
    uint64_t left = feed->part->rows - feed->position;
    return left < feed->stretch_rows ? (uint32_t)left : feed->stretch_rows;
}

static void advance(const lf_feed *feed, uint64_t *pass, uint64_t *position)
{
    uint64_t left = feed->part->rows - *position;
    if (left <= feed->stretch_rows) {
        ++*pass;
        *position = 0;
    } else {
        *position += feed->stretch_rows;
    }
}

// `first` and `numbers`: which rows they are; without `numbers`, consecutive ones.
static bool check_targets(const lf_feed *feed, const float *y, uint64_t first, const uint64_t *numbers, size_t count,
                          lf_error *err)
{
    size_t outputs = feed->part->outputs;
    for (size_t i = 0; i < count * outputs; i++)
        if (!(y[i] >= 0 && y[i] <= 1)) {
            size_t row = i / outputs;
            lf_error_set(err, LF_EDATA, "%s: value %g at row %" PRIu64 " is outside 0..1, which the loss needs",
                         feed->part->y_path, (double)y[i], numbers ? numbers[row] : first + row);
            return false;
        }
    return true;
}

// Targets and weights as the device takes them, from those that were read.
static void finish_rows(const lf_feed *feed, const lf_rows_out *rows, size_t count)
{
    const float *class_weights = feed->p.class_weights;
    const uint32_t *labels = rows->y;
    for (size_t i = 0; rows->w && class_weights && i < count; i++)
        rows->w[i] *= class_weights[labels[i]];
    for (size_t i = 0; rows->y && feed->p.numbers && i < count; i++)
        ((float *)rows->y)[i] = (float)labels[i];
}

static bool is_own(const lf_feed *feed, uint64_t position)
{
    uint64_t in_batch = feed->end ? position % feed->p.batch : 0;
    return !feed->end || (in_batch >= feed->first && in_batch < feed->end);
}

// Leaves out the rows that are other processes'.
static void place_rows(lf_feed *feed, uint64_t position, uint32_t count)
{
    feed->count = 0;
    for (uint32_t i = 0; i < count; i++) {
        bool own = is_own(feed, position + i);
        feed->place[i] = own ? feed->count : 0;
        if (own)
            feed->rows[feed->count++] = feed->rows[i];
    }
}

static bool read_window(lf_feed *feed, uint64_t pass, uint64_t position, uint32_t count, lf_error *err)
{
    const lf_rows_out out = { feed->x, feed->p.row.y ? feed->y : NULL, feed->w };
    lf_feed_rows(feed->part, feed->p.shuffle, feed->p.seed, pass, position, count, feed->rows);
    place_rows(feed, position, count);
    bool listed = feed->p.shuffle || feed->count < count;
    count = feed->count;
    if (!count)
        return true;
    bool ok = listed ? lf_dataset_read(feed->p.data, feed->p.part, feed->rows, count, &out, err)
                     : lf_dataset_read_span(feed->p.data, feed->p.part, position, count, &out, err);
    if (ok)
        finish_rows(feed, &out, count);
    return ok && (!feed->p.unit_targets || check_targets(feed, out.y, 0, feed->rows, count, err));
}

static void *reader_main(void *user)
{
    lf_feed *feed = user;
    pthread_mutex_lock(&feed->lock);
    for (;;) {
        while (feed->state != READER_READS && feed->state != READER_QUITS)
            pthread_cond_wait(&feed->changed, &feed->lock);
        if (feed->state == READER_QUITS)
            break;
        uint64_t pass = feed->pass, position = feed->position;
        uint32_t count = rows_of_next(feed);
        pthread_mutex_unlock(&feed->lock);
        bool ok = read_window(feed, pass, position, count, &feed->reader_error);
        pthread_mutex_lock(&feed->lock);
        if (feed->state == READER_READS)
            feed->state = ok ? READER_DONE : READER_FAILED;
        pthread_cond_broadcast(&feed->changed);
    }
    pthread_mutex_unlock(&feed->lock);
    return NULL;
}

static void set_state(lf_feed *feed, int state)
{
    pthread_mutex_lock(&feed->lock);
    feed->state = state;
    pthread_cond_broadcast(&feed->changed);
    pthread_mutex_unlock(&feed->lock);
}

static bool write_teacher(lf_feed *feed, const float *outputs, uint64_t count, lf_error *err)
{
    return lf_replicas_write(feed->p.replicas, feed->p.replica_count, LF_REGION_TEACHER, 0, outputs,
                             count * feed->teacher_width * sizeof *outputs, err);
}

// Those that belong to the window's rows.
static bool write_window_teacher(lf_feed *feed, uint32_t count, lf_error *err)
{
    size_t width = feed->teacher_width;
    for (uint32_t i = 0; i < count; i++)
        memcpy(feed->teacher + i * width, feed->p.teacher + feed->rows[i] * width, width * sizeof *feed->teacher);
    return write_teacher(feed, feed->teacher, count, err);
}

static bool write_column(lf_feed *feed, lf_region region, size_t row, uint32_t at, const void *values, size_t count,
                         lf_error *err)
{
    return !row ||
           lf_replicas_write(feed->p.replicas, feed->p.replica_count, region, at * row, values, count * row, err);
}

static bool write_rows(lf_feed *feed, uint32_t at, const lf_rows_out *rows, size_t count, lf_error *err)
{
    const lf_row_bytes *row = &feed->p.row;
    return write_column(feed, LF_REGION_DATA, row->x, at, rows->x, count, err) &&
           write_column(feed, LF_REGION_TARGETS, row->y, at, rows->y, count, err) &&
           write_column(feed, LF_REGION_ROW_WEIGHTS, row->w, at, rows->w, count, err);
}

static bool read_piece(lf_feed *feed, uint64_t first, size_t count, const lf_rows_out *out, lf_error *err)
{
    if (!lf_dataset_read_span(feed->p.data, feed->p.part, first, count, out, err))
        return false;
    finish_rows(feed, out, count);
    return !feed->p.unit_targets || check_targets(feed, out->y, first, NULL, count, err);
}

static bool write_piece(lf_feed *feed, uint64_t first, size_t count, const lf_rows_out *rows, lf_error *err)
{
    if (feed->w)
        memcpy(feed->w + first, rows->w, count * sizeof *feed->w);
    return write_rows(feed, (uint32_t)first, rows, count, err);
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

static bool agree(const lf_feed_params *p, bool ok, lf_error *err)
{
    return p->rank_count > 1 ? lf_ranks_agree(ok, err) : ok;
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
    ok = agree(&feed->p, ok, err);
    return ok && (u->ranks == 1 || lf_ranks_broadcast(&u->piece, sizeof u->piece, err));
}

// In pieces, so that the host never holds the whole data beside the device. `ok`: nothing has failed before.
static bool upload_all(lf_feed *feed, bool ok, lf_error *err)
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
        all = agree(&feed->p, ok && read_own(feed, &u, first, err), err);
        ok = all && spread(feed, &u, first, err);
    }
    if (all)
        ok = agree(&feed->p, ok && (!feed->p.teacher || write_teacher(feed, feed->p.teacher, part->rows, err)), err);
    free(u.own);
    free(u.other);
    return ok;
}

static bool start_reader(lf_feed *feed, lf_error *err)
{
    const lf_part *part = feed->part;
    feed->x = malloc(feed->stretch_rows * feed->p.row.x);
    feed->y = malloc(feed->stretch_rows * feed->p.row.y + 1);
    if (feed->p.row.w)
        feed->w = calloc(feed->stretch_rows, sizeof *feed->w);
    if (feed->p.teacher)
        feed->teacher = calloc(feed->stretch_rows * feed->teacher_width, sizeof *feed->teacher);
    if (!feed->x || !feed->y || (feed->p.teacher && !feed->teacher) || (feed->p.row.w && !feed->w)) {
        lf_error_set(err, LF_ENOMEM, "%s: out of memory for a window of %u rows", part->x_path, feed->stretch_rows);
        return false;
    }
    feed->state = READER_READS;
    if (pthread_create(&feed->reader, NULL, reader_main, feed) != 0) {
        lf_error_set(err, LF_ENOMEM, "%s: cannot start the reader thread", part->x_path);
        return false;
    }
    feed->reader_started = true;
    return true;
}

// What holds a stretch, whether or not it is read ahead.
static bool make_lists(lf_feed *feed, lf_error *err)
{
    const bool weighted = feed->p.row.w, divided = weighted && feed->p.end;
    feed->order = calloc(feed->stretch_rows, sizeof *feed->order);
    feed->rows = calloc(feed->stretch_rows, sizeof *feed->rows);
    feed->place = calloc(feed->stretch_rows, sizeof *feed->place);
    feed->weights = weighted ? calloc(feed->stretch_rows, sizeof *feed->weights) : NULL;
    feed->own_weights = divided ? calloc(feed->stretch_rows, sizeof *feed->own_weights) : NULL;
    if (feed->order && feed->rows && feed->place && (feed->weights || !weighted) && (feed->own_weights || !divided))
        return true;
    lf_error_set(err, LF_ENOMEM, "data feed: out of memory for %u positions", feed->stretch_rows);
    return false;
}

lf_feed *lf_feed_create(const lf_feed_params *params, lf_error *err)
{
    const lf_compile_params *compiled = &params->program->params;
    lf_feed *feed = calloc(1, sizeof *feed);
    if (!feed) {
        lf_error_set(err, LF_ENOMEM, "data feed: out of memory");
        agree(params, false, err); // the others ask
        return NULL;
    }
    pthread_mutex_init(&feed->lock, NULL);
    pthread_cond_init(&feed->changed, NULL);
    feed->p = *params;
    feed->pass = params->pass;
    feed->position = params->position;
    feed->first = params->first;
    feed->end = params->end;
    feed->part = lf_dataset_part(params->data, params->part, err);
    if (!feed->part) {
        agree(params, false, err);
        goto error;
    }
    if (params->teacher)
        feed->teacher_width = params->program->tensors[params->program->teacher].cols;
    feed->resident = compiled->rows >= feed->part->rows;
    feed->stretch_rows = compiled->positions;
    if (!feed->resident && compiled->rows < feed->stretch_rows)
        feed->stretch_rows = compiled->rows;
    feed->stretch_rows = feed->stretch_rows / params->unit * params->unit;
    bool ok = make_lists(feed, err);
    if (!(feed->resident ? upload_all(feed, ok, err) : agree(params, ok && start_reader(feed, err), err)))
        goto error;
    return feed;
error:
    lf_feed_destroy(feed);
    return NULL;
}

void lf_feed_destroy(lf_feed *feed)
{
    if (!feed)
        return;
    if (feed->reader_started) {
        set_state(feed, READER_QUITS);
        pthread_join(feed->reader, NULL);
    }
    pthread_cond_destroy(&feed->changed);
    pthread_mutex_destroy(&feed->lock);
    free(feed->x);
    free(feed->y);
    free(feed->w);
    free(feed->weights);
    free(feed->own_weights);
    free(feed->rows);
    free(feed->place);
    free(feed->teacher);
    free(feed->order);
    free(feed);
}

static bool take_window(lf_feed *feed, lf_error *err)
{
    pthread_mutex_lock(&feed->lock);
    if (feed->state == READER_IDLE) { // nothing was read ahead after the last pass that was announced
        feed->state = READER_READS;
        pthread_cond_broadcast(&feed->changed);
    }
    while (feed->state == READER_READS)
        pthread_cond_wait(&feed->changed, &feed->lock);
    bool ok = feed->state == READER_DONE;
    pthread_mutex_unlock(&feed->lock);
    if (!ok) {
        *err = feed->reader_error;
        return false;
    }
    const lf_rows_out window = { feed->x, feed->y, feed->w };
    return write_rows(feed, 0, &window, feed->count, err) &&
           (!feed->p.teacher || write_window_teacher(feed, feed->count, err));
}

// Before the reader overwrites them.
static void take_weights(lf_feed *feed, uint32_t count)
{
    float *weights = feed->own_weights ? feed->own_weights : feed->weights;
    for (uint32_t i = 0; weights && i < count; i++)
        weights[i] = is_own(feed, feed->position + i) ? feed->w[feed->order[i]] : 0;
}

// A row's weight is one process's, so that the order of the sum does not matter. One that has failed takes no part,
// which all know by then.
static bool spread_weights(lf_feed *feed, uint32_t count, bool ok, lf_error *err)
{
    if (!feed->own_weights)
        return ok;
    return lf_ranks_agree(ok, err) && lf_ranks_add(feed->own_weights, feed->weights, count, err);
}

bool lf_feed_next(lf_feed *feed, lf_stretch *stretch, lf_error *err)
{
    uint32_t count = rows_of_next(feed);
    *stretch = (lf_stretch){ feed->pass, feed->position, count, feed->weights };
    if (feed->resident) {
        lf_feed_rows(feed->part, feed->p.shuffle, feed->p.seed, feed->pass, feed->position, count, feed->rows);
        for (uint32_t i = 0; i < count; i++)
            feed->order[i] = (uint32_t)feed->rows[i];
        take_weights(feed, count);
        advance(feed, &feed->pass, &feed->position);
    } else {
        bool ok = take_window(feed, err);
        memcpy(feed->order, feed->place, count * sizeof *feed->order);
        take_weights(feed, count);
        if (!spread_weights(feed, count, ok, err))
            return false;
        pthread_mutex_lock(&feed->lock);
        advance(feed, &feed->pass, &feed->position);
        feed->first = feed->p.first;
        feed->end = feed->p.end;
        feed->state = feed->pass < feed->p.passes ? READER_READS : READER_IDLE;
        pthread_cond_broadcast(&feed->changed);
        pthread_mutex_unlock(&feed->lock);
    }
    return lf_replicas_write(feed->p.replicas, feed->p.replica_count, LF_REGION_ORDER, 0, feed->order,
                             count * sizeof *feed->order, err);
}
