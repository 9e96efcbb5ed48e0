#include "train/feed.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/random.h"

enum { UPLOAD_BYTES = 8 << 20 }; // read from the file to the device in pieces of about this size

struct lf_feed {
    lf_feed_params p;
    const lf_part *part;
    uint32_t stretch_rows; // at most; whole batches, unless a pass is shorter
    bool resident;
    uint64_t pass, position; // of the next stretch that lf_feed_next gives
    uint32_t *order;         // [stretch_rows]
    // A window that is read ahead; NULL when everything is resident.
    unsigned char *x, *y;
    uint64_t *rows; // [stretch_rows]
    float *teacher; // [stretch_rows * outputs]; NULL without a teacher
    pthread_t reader;
    bool reader_started;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum { READER_IDLE, READER_READS, READER_DONE, READER_FAILED, READER_QUITS } state; // under `lock`
    lf_error reader_error;
};

uint32_t lf_feed_window(uint64_t rows, lf_row_bytes row, uint32_t batch, uint64_t budget, uint64_t max_tensor)
{
    uint64_t all = row.x + row.y + row.teacher, widest = row.x > row.y ? row.x : row.y;
    if (row.teacher > widest)
        widest = row.teacher;
    if (all * rows <= budget && widest * rows <= max_tensor && rows <= UINT32_MAX - batch)
        return (uint32_t)rows;
    uint64_t most = budget / 2 / all;
    if (most > max_tensor / widest)
        most = max_tensor / widest;
    if (most > UINT32_MAX)
        most = UINT32_MAX;
    return (uint32_t)(most / batch * batch);
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

static uint64_t row_at(const lf_feed *feed, const lf_permutation *order, uint64_t position)
{
    return feed->p.shuffle ? lf_permutation_at(order, position) : position;
}

static lf_permutation pass_order(const lf_feed *feed, uint64_t pass)
{
    return lf_permutation_make(feed->p.seed, LF_STREAM_SHUFFLE, (uint32_t)pass, feed->part->rows);
}

static bool read_window(lf_feed *feed, uint64_t pass, uint64_t position, uint32_t count, lf_error *err)
{
    void *y = feed->p.row.y ? feed->y : NULL;
    if (!feed->p.shuffle)
        return lf_dataset_read_span(feed->p.data, feed->p.part, position, count, feed->x, y, err);
    lf_permutation order = pass_order(feed, pass);
    for (uint32_t i = 0; i < count; i++)
        feed->rows[i] = lf_permutation_at(&order, position + i);
    return lf_dataset_read(feed->p.data, feed->p.part, feed->rows, count, feed->x, y, err);
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

static size_t teacher_width(const lf_feed *feed)
{
    return feed->p.program->tensors[feed->p.program->teacher].cols;
}

static bool write_teacher(lf_feed *feed, const float *outputs, uint64_t count, lf_error *err)
{
    return lf_device_buffer_write(feed->p.device, feed->p.regions->region[LF_REGION_TEACHER], 0, outputs,
                                  count * teacher_width(feed) * sizeof *outputs, err);
}

// Those that belong to the window's rows.
static bool write_window_teacher(lf_feed *feed, uint32_t count, lf_error *err)
{
    size_t width = teacher_width(feed);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t row = feed->p.shuffle ? feed->rows[i] : feed->position + i;
        memcpy(feed->teacher + i * width, feed->p.teacher + row * width, width * sizeof *feed->teacher);
    }
    return write_teacher(feed, feed->teacher, count, err);
}

static bool write_rows(lf_feed *feed, uint32_t at, const void *x, const void *y, size_t count, lf_error *err)
{
    size_t row = feed->p.row.x, target = feed->p.row.y;
    lf_buffer *const *region = feed->p.regions->region;
    return lf_device_buffer_write(feed->p.device, region[LF_REGION_DATA], at * row, x, count * row, err) &&
           (!target ||
            lf_device_buffer_write(feed->p.device, region[LF_REGION_TARGETS], at * target, y, count * target, err));
}

// In pieces, so that the host never holds the whole data beside the device.
static bool upload_all(lf_feed *feed, lf_error *err)
{
    const lf_part *part = feed->part;
    size_t row = feed->p.row.x, target = feed->p.row.y, piece = UPLOAD_BYTES / (row + target) + 1;
    if (piece > part->rows)
        piece = part->rows;
    void *x = malloc(piece * row), *y = malloc(piece * target + 1);
    bool ok = x && y;
    if (!ok)
        lf_error_set(err, LF_ENOMEM, "%s: out of memory for %zu rows", part->x_path, piece);
    for (uint64_t first = 0; ok && first < part->rows; first += piece) {
        size_t count = part->rows - first < piece ? part->rows - first : piece;
        ok = lf_dataset_read_span(feed->p.data, feed->p.part, first, count, x, target ? y : NULL, err) &&
             write_rows(feed, (uint32_t)first, x, y, count, err);
    }
    ok = ok && (!feed->p.teacher || write_teacher(feed, feed->p.teacher, part->rows, err));
    free(x);
    free(y);
    return ok;
}

static bool start_reader(lf_feed *feed, lf_error *err)
{
    const lf_part *part = feed->part;
    feed->x = malloc(feed->stretch_rows * feed->p.row.x);
    feed->y = malloc(feed->stretch_rows * feed->p.row.y + 1);
    feed->rows = calloc(feed->stretch_rows, sizeof *feed->rows);
    if (feed->p.teacher)
        feed->teacher = calloc(feed->stretch_rows * teacher_width(feed), sizeof *feed->teacher);
    if (!feed->x || !feed->y || !feed->rows || (feed->p.teacher && !feed->teacher)) {
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

lf_feed *lf_feed_create(const lf_feed_params *params, lf_error *err)
{
    const lf_compile_params *compiled = &params->program->params;
    lf_feed *feed = calloc(1, sizeof *feed);
    if (!feed) {
        lf_error_set(err, LF_ENOMEM, "data feed: out of memory");
        return NULL;
    }
    pthread_mutex_init(&feed->lock, NULL);
    pthread_cond_init(&feed->changed, NULL);
    feed->p = *params;
    feed->pass = params->pass;
    feed->position = params->position;
    feed->part = lf_dataset_part(params->data, params->part, err);
    if (!feed->part)
        goto error;
    feed->resident = compiled->rows >= feed->part->rows;
    feed->stretch_rows = compiled->positions;
    if (!feed->resident && compiled->rows < feed->stretch_rows)
        feed->stretch_rows = compiled->rows;
    feed->stretch_rows = feed->stretch_rows / compiled->batch * compiled->batch;
    feed->order = calloc(feed->stretch_rows, sizeof *feed->order);
    if (!feed->order) {
        lf_error_set(err, LF_ENOMEM, "data feed: out of memory for %u positions", feed->stretch_rows);
        goto error;
    }
    if (!(feed->resident ? upload_all(feed, err) : start_reader(feed, err)))
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
    free(feed->rows);
    free(feed->teacher);
    free(feed->order);
    free(feed);
}

static bool take_window(lf_feed *feed, uint32_t count, lf_error *err)
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
    return write_rows(feed, 0, feed->x, feed->y, count, err) &&
           (!feed->p.teacher || write_window_teacher(feed, count, err));
}

bool lf_feed_next(lf_feed *feed, lf_stretch *stretch, lf_error *err)
{
    uint32_t count = rows_of_next(feed);
    *stretch = (lf_stretch){ feed->pass, feed->position, count };
    if (feed->resident) {
        lf_permutation order = pass_order(feed, feed->pass);
        for (uint32_t i = 0; i < count; i++)
            feed->order[i] = (uint32_t)row_at(feed, &order, feed->position + i);
        advance(feed, &feed->pass, &feed->position);
    } else {
        if (!take_window(feed, count, err))
            return false;
        for (uint32_t i = 0; i < count; i++)
            feed->order[i] = i;
        pthread_mutex_lock(&feed->lock);
        advance(feed, &feed->pass, &feed->position);
        feed->state = feed->pass < feed->p.passes ? READER_READS : READER_IDLE;
        pthread_cond_broadcast(&feed->changed);
        pthread_mutex_unlock(&feed->lock);
    }
    return lf_device_buffer_write(feed->p.device, feed->p.regions->region[LF_REGION_ORDER], 0, feed->order,
                                  count * sizeof *feed->order, err);
}
