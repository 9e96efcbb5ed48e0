// Rows that do not all fit on the devices pass through a window.
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/clock.h"
#include "train/feed_parts.h"

enum { TOGETHER_ROWS = 1 << 20 }; // of one reading, whose lists take some 50 bytes a row

static size_t first_of(const lf_feed *feed, uint32_t slot)
{
    return (size_t)slot * feed->stretch_rows;
}

static lf_rows_out columns_of(const lf_feed *feed, uint32_t slot)
{
    const lf_row_bytes *row = &feed->p.row;
    size_t first = first_of(feed, slot);
    return (lf_rows_out){ feed->x + first * row->x, row->y ? feed->y + first * row->y : NULL,
                          row->w ? feed->w + first : NULL };
}

// Which rows a slot is to hold. Leaves out those that are other processes', and returns how many are left.
static uint32_t list_rows(lf_feed *feed, uint32_t slot, uint64_t pass, uint64_t position)
{
    uint64_t *rows = feed->rows + first_of(feed, slot);
    uint32_t *place = feed->place + first_of(feed, slot), all = lf_feed_stretch_rows(feed, position), count = 0;
    lf_feed_rows(feed->part, feed->p.shuffle, feed->p.seed, pass, position, all, rows);
    for (uint32_t i = 0; i < all; i++) {
        bool own = lf_feed_is_own(feed, position + i);
        place[i] = own ? count : 0;
        if (own)
            rows[count++] = rows[i];
    }
    return count;
}

static void copy_teacher(lf_feed *feed, uint32_t slot)
{
    const size_t width = feed->teacher_width, first = first_of(feed, slot);
    for (uint32_t i = 0; feed->teacher && i < feed->count; i++)
        memcpy(feed->teacher + (first + i) * width, feed->p.teacher + feed->rows[first + i] * width,
               width * sizeof *feed->teacher);
}

static double thread_seconds(void)
{
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (double)used.tv_sec + 1e-9 * (double)used.tv_nsec;
}

// The next stretches, all in one piece, so that what they need of a part of the file is read together.
static bool read_stretches(lf_feed *feed, uint32_t stretches, lf_error *err)
{
    const double start = lf_clock(), used = thread_seconds();
    const uint64_t *rows = feed->rows + first_of(feed, feed->slot);
    const lf_rows_out out = columns_of(feed, feed->slot);
    uint64_t pass = feed->pass, position = feed->position;
    feed->count = 0;
    for (uint32_t i = 0; i < stretches; i++) {
        feed->count += list_rows(feed, feed->slot + i, pass, position);
        lf_feed_advance(feed, &pass, &position);
    }
    if (!feed->count)
        return true;
    if (!lf_dataset_read(feed->p.data, feed->p.part, rows, feed->count, &out, err) ||
        !lf_feed_settle(feed, &out, 0, rows, feed->count, err))
        return false;
    copy_teacher(feed, feed->slot);
    // A thread that shares its core with another still gets a good part of it.
    feed->waited = thread_seconds() - used < (lf_clock() - start) / 4;
    return true;
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
        pthread_mutex_unlock(&feed->lock);
        bool ok = read_stretches(feed, 1, &feed->reader_error);
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

// A device that computes on every core would wait for a reader that takes one from it, and for the thread that lost it;
// its threads had better read, all of them, when it is idle. Not if they would wait for the file.
static bool reads_ahead(const lf_feed *feed)
{
    return !feed->direct || !feed->full || feed->waited;
}

static bool fills_cores(const lf_device_info *info)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 && info->units >= (unsigned)CPU_COUNT(&set);
}

static void *host_memory(const lf_feed *feed, lf_region region)
{
    const lf_buffer *buffer = feed->p.replicas->regions.region[region];
    return buffer ? buffer->host : NULL;
}

static bool make_room(lf_feed *feed)
{
    const lf_row_bytes *row = &feed->p.row;
    const size_t rows = feed->stretch_rows;
    if (feed->direct) {
        feed->x = host_memory(feed, LF_REGION_DATA);
        feed->y = host_memory(feed, LF_REGION_TARGETS);
        feed->w = host_memory(feed, LF_REGION_ROW_WEIGHTS);
        feed->teacher = host_memory(feed, LF_REGION_TEACHER);
        feed->slots = feed->p.program->params.rows / feed->stretch_rows;
        feed->slots = feed->slots * rows > TOGETHER_ROWS ? TOGETHER_ROWS / feed->stretch_rows : feed->slots;
        feed->slots = feed->slots < 2 ? 2 : feed->slots;
    } else {
        feed->slots = 1;
        feed->x = malloc(rows * row->x);
        feed->y = malloc(rows * row->y + 1);
        feed->w = row->w ? calloc(rows, sizeof *feed->w) : NULL;
        feed->teacher = row->teacher ? calloc(rows, row->teacher) : NULL;
    }
    feed->rows = calloc(feed->slots * rows, sizeof *feed->rows);
    feed->place = calloc(feed->slots * rows, sizeof *feed->place);
    return feed->x && (feed->y || !row->y) && (feed->w || !row->w) && (feed->teacher || !row->teacher) && feed->rows &&
           feed->place;
}

bool lf_feed_window_open(lf_feed *feed, lf_error *err)
{
    feed->full = fills_cores(&feed->p.replicas->device->info);
    if (!make_room(feed)) {
        lf_error_set(err, LF_ENOMEM, "%s: out of memory for a window of %u rows", feed->part->x_path,
                     feed->stretch_rows);
        return false;
    }
    feed->state = reads_ahead(feed) ? READER_READS : READER_IDLE;
    if (pthread_create(&feed->reader, NULL, reader_main, feed) != 0) {
        lf_error_set(err, LF_ENOMEM, "%s: cannot start the reader thread", feed->part->x_path);
        return false;
    }
    feed->reader_started = true;
    return true;
}

void lf_feed_window_close(lf_feed *feed)
{
    if (feed->reader_started) {
        set_state(feed, READER_QUITS);
        pthread_join(feed->reader, NULL);
    }
    free(feed->rows);
    free(feed->place);
    if (feed->direct)
        return;
    free(feed->x);
    free(feed->y);
    free(feed->w);
    free(feed->teacher);
}

// How many stretches may be read now. They lie without gaps, so all but the last are whole.
static uint32_t stretches_now(const lf_feed *feed)
{
    const uint32_t most = feed->end ? 1 : TOGETHER_ROWS / feed->stretch_rows;
    uint64_t pass = feed->pass, position = feed->position;
    uint32_t count = 1;
    for (; count < most && count < feed->slots; count++) {
        bool whole = lf_feed_stretch_rows(feed, position) == feed->stretch_rows;
        lf_feed_advance(feed, &pass, &position);
        if (!whole || pass >= feed->p.passes)
            break;
    }
    return count;
}

static bool read_now(lf_feed *feed, lf_error *err)
{
    feed->slot = 0; // all are free
    uint32_t stretches = stretches_now(feed);
    if (!read_stretches(feed, stretches, err))
        return false;
    feed->ready = stretches;
    return true;
}

static bool is_reading(lf_feed *feed)
{
    pthread_mutex_lock(&feed->lock);
    bool reading = feed->state != READER_IDLE;
    pthread_mutex_unlock(&feed->lock);
    return reading;
}

static bool await_reader(lf_feed *feed, lf_error *err)
{
    pthread_mutex_lock(&feed->lock);
    while (feed->state == READER_READS)
        pthread_cond_wait(&feed->changed, &feed->lock);
    bool ok = feed->state == READER_DONE;
    if (ok) {
        feed->state = READER_IDLE;
        feed->ready = 1;
    } else {
        *err = feed->reader_error;
    }
    pthread_mutex_unlock(&feed->lock);
    return ok;
}

static bool write_devices(lf_feed *feed, lf_error *err)
{
    const lf_rows_out rows = columns_of(feed, feed->slot);
    return lf_feed_write(feed, 0, &rows, feed->count, err) &&
           (!feed->teacher || lf_feed_write_teacher(feed, feed->teacher, feed->count, err));
}

bool lf_feed_window_take(lf_feed *feed, lf_error *err)
{
    if (!feed->ready && !(is_reading(feed) ? await_reader(feed, err) : read_now(feed, err)))
        return false;
    if (!feed->direct && !write_devices(feed, err))
        return false;
    const size_t first = first_of(feed, feed->slot);
    uint32_t count = lf_feed_stretch_rows(feed, feed->position);
    for (uint32_t i = 0; i < count; i++)
        feed->order[i] = (uint32_t)(first + feed->place[first + i]);
    return true;
}

void lf_feed_window_leave(lf_feed *feed)
{
    lf_feed_advance(feed, &feed->pass, &feed->position);
    feed->first = feed->p.first;
    feed->end = feed->p.end;
    feed->slot = (feed->slot + 1) % feed->slots;
    feed->ready--;
    if (!feed->ready && reads_ahead(feed) && feed->pass < feed->p.passes)
        set_state(feed, READER_READS);
}
