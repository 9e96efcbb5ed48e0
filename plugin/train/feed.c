#include <inttypes.h>
#include <stdlib.h>

#include "core/random.h"
#include "ranks/ranks.h"
#include "train/feed_parts.h"

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

// Whether rows are read straight into the devices' memory, so that there is no other beside it.
static bool is_direct(const lf_device *device, unsigned count)
{
    return count == 1 && device->info.host_memory;
}

uint32_t lf_feed_region(uint64_t rows, uint32_t window, const lf_device *device, unsigned count)
{
    return window < rows && is_direct(device, count) && window <= UINT32_MAX / 2 ? 2 * window : window;
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

uint32_t lf_feed_stretch_rows(const lf_feed *feed, uint64_t position)
{
    uint64_t left = feed->part->rows - position;
    return left < feed->stretch_rows ? (uint32_t)left : feed->stretch_rows;
}

void lf_feed_advance(const lf_feed *feed, uint64_t *pass, uint64_t *position)
{
    uint64_t left = feed->part->rows - *position;
    if (left <= feed->stretch_rows) {
        ++*pass;
        *position = 0;
    } else {
        *position += feed->stretch_rows;
    }
}

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

bool lf_feed_settle(const lf_feed *feed, const lf_rows_out *rows, uint64_t first, const uint64_t *numbers, size_t count,
                    lf_error *err)
{
    const float *class_weights = feed->p.class_weights;
    const uint32_t *labels = rows->y;
    for (size_t i = 0; rows->w && class_weights && i < count; i++)
        rows->w[i] *= class_weights[labels[i]];
    for (size_t i = 0; rows->y && feed->p.numbers && i < count; i++)
        ((float *)rows->y)[i] = (float)labels[i];
    return !feed->p.unit_targets || check_targets(feed, rows->y, first, numbers, count, err);
}

bool lf_feed_write_teacher(lf_feed *feed, const float *outputs, uint64_t count, lf_error *err)
{
    return lf_replicas_write(feed->p.replicas, feed->p.replica_count, LF_REGION_TEACHER, 0, outputs,
                             count * feed->teacher_width * sizeof *outputs, err);
}

static bool write_column(lf_feed *feed, lf_region region, size_t row, uint32_t at, const void *values, size_t count,
                         lf_error *err)
{
    return !row ||
           lf_replicas_write(feed->p.replicas, feed->p.replica_count, region, at * row, values, count * row, err);
}

bool lf_feed_write(lf_feed *feed, uint32_t at, const lf_rows_out *rows, size_t count, lf_error *err)
{
    const lf_row_bytes *row = &feed->p.row;
    return write_column(feed, LF_REGION_DATA, row->x, at, rows->x, count, err) &&
           write_column(feed, LF_REGION_TARGETS, row->y, at, rows->y, count, err) &&
           write_column(feed, LF_REGION_ROW_WEIGHTS, row->w, at, rows->w, count, err);
}

bool lf_feed_agree(const lf_feed_params *p, bool ok, lf_error *err)
{
    return p->rank_count > 1 ? lf_ranks_agree(ok, err) : ok;
}

bool lf_feed_is_own(const lf_feed *feed, uint64_t position)
{
    uint64_t in_batch = feed->end ? position % feed->p.batch : 0;
    return !feed->end || (in_batch >= feed->first && in_batch < feed->end);
}

// What holds a stretch, whether or not it is read ahead.
static bool make_lists(lf_feed *feed, lf_error *err)
{
    const bool weighted = feed->p.row.w, divided = weighted && feed->p.end;
    feed->order = calloc(feed->stretch_rows, sizeof *feed->order);
    feed->rows = feed->resident ? calloc(feed->stretch_rows, sizeof *feed->rows) : NULL;
    feed->weights = weighted ? calloc(feed->stretch_rows, sizeof *feed->weights) : NULL;
    feed->own_weights = divided ? calloc(feed->stretch_rows, sizeof *feed->own_weights) : NULL;
    if (feed->order && (feed->rows || !feed->resident) && (feed->weights || !weighted) &&
        (feed->own_weights || !divided))
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
        lf_feed_agree(params, false, err); // the others ask
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
        lf_feed_agree(params, false, err);
        goto error;
    }
    if (params->teacher)
        feed->teacher_width = params->program->tensors[params->program->teacher].cols;
    feed->resident = params->window >= feed->part->rows; // for all processes or none, whatever their regions
    feed->direct = !feed->resident && is_direct(params->replicas->device, params->replica_count);
    feed->stretch_rows = compiled->positions;
    const uint32_t window = feed->direct ? compiled->rows / 2 : params->window;
    if (!feed->resident && window < feed->stretch_rows)
        feed->stretch_rows = window;
    feed->stretch_rows = feed->stretch_rows / params->unit * params->unit;
    bool ok = make_lists(feed, err);
    if (!(feed->resident ? lf_feed_upload(feed, ok, err)
                         : lf_feed_agree(params, ok && lf_feed_window_open(feed, err), err)))
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
    lf_feed_window_close(feed);
    pthread_cond_destroy(&feed->changed);
    pthread_mutex_destroy(&feed->lock);
    free(feed->weights);
    free(feed->own_weights);
    free(feed->order);
    free(feed);
}

// Before others are read to their place.
static void take_weights(lf_feed *feed, uint32_t count)
{
    float *weights = feed->own_weights ? feed->own_weights : feed->weights;
    for (uint32_t i = 0; weights && i < count; i++)
        weights[i] = lf_feed_is_own(feed, feed->position + i) ? feed->w[feed->order[i]] : 0;
}

// A row's weight is one process's, so that the order of the sum does not matter. One that has failed takes no part,
// which all know by then.
static bool spread_weights(lf_feed *feed, uint32_t count, bool ok, lf_error *err)
{
    if (!feed->own_weights)
        return ok;
    return lf_ranks_agree(ok, err) && lf_ranks_add(feed->own_weights, feed->weights, count, err);
}

static void order_resident(lf_feed *feed, uint32_t count)
{
    lf_feed_rows(feed->part, feed->p.shuffle, feed->p.seed, feed->pass, feed->position, count, feed->rows);
    for (uint32_t i = 0; i < count; i++)
        feed->order[i] = (uint32_t)feed->rows[i];
}

bool lf_feed_next(lf_feed *feed, lf_stretch *stretch, lf_error *err)
{
    uint32_t count = lf_feed_stretch_rows(feed, feed->position);
    *stretch = (lf_stretch){ feed->pass, feed->position, count, feed->weights };
    bool ok = feed->resident || lf_feed_window_take(feed, err);
    if (feed->resident)
        order_resident(feed, count);
    take_weights(feed, count);
    if (!spread_weights(feed, count, ok, err))
        return false;
    if (feed->resident)
        lf_feed_advance(feed, &feed->pass, &feed->position);
    else
        lf_feed_window_leave(feed);
    return lf_replicas_write(feed->p.replicas, feed->p.replica_count, LF_REGION_ORDER, 0, feed->order,
                             count * sizeof *feed->order, err);
}
