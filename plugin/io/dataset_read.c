#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/dataset_parts.h"

bool lf_dataset_check_finite(const lf_source *source, const void *values, const uint64_t *rows, size_t count,
                             lf_error *err)
{
    if (source->stored != LF_F32 || !source->floats)
        return true;
    const uint32_t exponent = 0x7f800000u; // all ones in a NaN or infinity
    const uint32_t *row = values;
    for (size_t i = 0; i < count; i++, row += source->columns) {
        uint32_t bad = 0;
        for (uint32_t column = 0; column < source->columns; column++)
            bad |= (row[column] & exponent) == exponent;
        if (!bad)
            continue;
        const float *value = (const float *)values + i * source->columns;
        uint32_t column = 0;
        while (isfinite(value[column]))
            column++;
        lf_error_set(err, LF_EDATA, "%s: value %g at row %llu, column %lu", source->where, (double)value[column],
                     (unsigned long long)rows[i], (unsigned long)column);
        return false;
    }
    return true;
}

// open() scanned the labels, but another program may have changed the file since.
static bool check_labels(const lf_source *y, const uint32_t *labels, const uint64_t *rows, size_t count,
                         uint32_t classes, lf_error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (labels[i] < classes)
            continue;
        lf_error_set(err, LF_EDATA, "%s: label %lu at row %llu is outside 0..%lu", y->where, (unsigned long)labels[i],
                     (unsigned long long)rows[i], (unsigned long)classes - 1);
        return false;
    }
    return true;
}

static bool check_weights(const lf_source *w, const float *weights, const uint64_t *rows, size_t count, lf_error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (weights[i] >= 0 && weights[i] <= FLT_MAX)
            continue;
        lf_error_set(err, LF_EDATA, "%s: weight %g at row %llu; expects finite numbers from 0", w->where,
                     (double)weights[i], (unsigned long long)rows[i]);
        return false;
    }
    return true;
}

// Sorts by row, 11 bits at a time from the lowest. `spare` has the same size; the sorted array is returned.
static lf_pick *sort_picks(lf_pick *picks, lf_pick *spare, size_t count, uint64_t rows)
{
    enum { BITS = 11, BUCKETS = 1 << BITS };
    for (int shift = 0; shift < 64 && (rows - 1) >> shift; shift += BITS) {
        size_t starts[BUCKETS + 1] = { 0 };
        for (size_t i = 0; i < count; i++)
            starts[(picks[i].row >> shift & (BUCKETS - 1)) + 1]++;
        for (int b = 0; b < BUCKETS; b++)
            starts[b + 1] += starts[b];
        for (size_t i = 0; i < count; i++)
            spare[starts[picks[i].row >> shift & (BUCKETS - 1)]++] = picks[i];
        lf_pick *swap = picks;
        picks = spare;
        spare = swap;
    }
    return picks;
}

// `rows` are the object's.
static bool read_sources(lf_dataset *data, lf_part_id id, const uint64_t *rows, size_t count, const lf_rows_out *out,
                         lf_error *err)
{
    const lf_part *part = &data->parts[id];
    int at = lf_dataset_sources(data, id);
    const lf_source *from[] = { &data->x[at], &data->y[at], &data->w[at] };
    void *to[] = { out->x, out->y, part->w_path ? out->w : NULL };
    bool ascending = true, consecutive = true;
    for (size_t i = 1; i < count; i++) {
        ascending &= rows[i] > rows[i - 1];
        consecutive &= rows[i] == rows[i - 1] + 1;
    }
    lf_pick *picks = NULL, *sorted = NULL;
    if (!consecutive) {
        picks = malloc(2 * count * sizeof *picks);
        if (!picks) {
            lf_error_set(err, LF_ENOMEM, "%s: out of memory for %zu rows", part->x_path, count);
            return false;
        }
        for (size_t i = 0; i < count; i++)
            picks[i] = (lf_pick){ .row = rows[i], .at = i };
        sorted = ascending ? picks : sort_picks(picks, picks + count, count, from[0]->rows);
    }
    bool good = true;
    for (int i = 0; good && i < 3; i++) {
        if (!to[i])
            continue;
        good = consecutive ? lf_source_read_span(from[i], rows[0], count, -1, to[i], err)
                           : lf_source_read_picks(from[i], sorted, count, to[i], err);
        good = good && (i == 2 ? check_weights(from[i], to[i], rows, count, err)
                               : lf_dataset_check_finite(from[i], to[i], rows, count, err));
    }
    if (good && out->y && part->target == LF_TARGET_CLASSES)
        good = check_labels(from[1], out->y, rows, count, part->classes, err);
    for (size_t i = 0; good && out->w && !part->w_path && i < count; i++)
        out->w[i] = 1;
    free(picks);
    return good;
}

// Checks the call and turns the part's rows (NULL: consecutive from `first`) into the object's.
static bool read_rows(lf_dataset *data, lf_part_id id, const uint64_t *rows, uint64_t first, size_t count,
                      const lf_rows_out *out, lf_error *err)
{
    const lf_part *part = lf_dataset_part(data, id, err);
    if (!part)
        return false;
    if (out->y && part->target == LF_TARGET_NONE) {
        lf_error_set(err, LF_EARG, "%s: has no targets", part->x_path);
        return false;
    }
    if (count == 0)
        return true;
    uint64_t *mapped = malloc(count * sizeof *mapped);
    if (!mapped) {
        lf_error_set(err, LF_ENOMEM, "%s: out of memory for %zu rows", part->x_path, count);
        return false;
    }
    bool good = true;
    for (size_t i = 0; good && i < count; i++) {
        uint64_t row = rows ? rows[i] : first + i;
        good = row < part->rows && row >= first;
        if (good)
            mapped[i] = lf_dataset_object_row(data, id, row);
        else
            lf_error_set(err, LF_EARG, "%s: row %llu of part \"%s\" is outside 0..%llu", part->x_path,
                         (unsigned long long)row, part->name, (unsigned long long)part->rows - 1);
    }
    good = good && read_sources(data, id, mapped, count, out, err);
    free(mapped);
    return good;
}

bool lf_dataset_read(lf_dataset *data, lf_part_id id, const uint64_t *rows, size_t count, const lf_rows_out *out,
                     lf_error *err)
{
    return read_rows(data, id, rows, 0, count, out, err);
}

bool lf_dataset_read_span(lf_dataset *data, lf_part_id id, uint64_t first, size_t count, const lf_rows_out *out,
                          lf_error *err)
{
    return read_rows(data, id, NULL, first, count, out, err);
}

size_t lf_dataset_piece(const lf_dataset *data, lf_part_id id, size_t bytes)
{
    enum { SCATTERED_BYTES = 64 << 20 }; // every piece of a split part takes rows of most chunks
    const lf_source *x = &data->x[lf_dataset_sources(data, id)];
    if (data->split && x->block_rows && bytes < SCATTERED_BYTES)
        bytes = SCATTERED_BYTES;
    size_t rows = lf_source_piece(x, bytes);
    return rows < data->parts[id].rows ? rows : (size_t)data->parts[id].rows;
}
