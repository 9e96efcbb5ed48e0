#include "io/dataset.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/dataset_parts.h"
#include "io/h5_write.h"

static const char *const part_names[LF_PART_COUNT] = { "train", "valid", "test" };

static bool spec_check(const lf_dataset_spec *spec, bool *split, lf_error *err)
{
    double sum = 0;
    *split = false;
    if (!spec->file || !*spec->file) {
        lf_error_set(err, LF_EARG, "data set: no file is named");
        return false;
    }
    if (spec->normalize && strcmp(spec->normalize, "standard") != 0 && strcmp(spec->normalize, "minmax") != 0) {
        lf_error_set(err, LF_EARG, "%s: normalize is \"%s\"; expects \"standard\" or \"minmax\"", spec->file,
                     spec->normalize);
        return false;
    }
    if (!spec->x && spec->y) {
        lf_error_set(err, LF_EARG, "%s: y names %s, but x names no object", spec->file, spec->y);
        return false;
    }
    if (!spec->x && spec->w) {
        lf_error_set(err, LF_EARG, "%s: w names %s, but x names no object", spec->file, spec->w);
        return false;
    }
    for (int id = 0; id < LF_PART_COUNT; id++) {
        if (!(spec->split[id] >= 0 && spec->split[id] <= 1)) {
            lf_error_set(err, LF_EARG, "%s: split: %s is %g; expects a fraction of 0 to 1", spec->file, part_names[id],
                         spec->split[id]);
            return false;
        }
        sum += spec->split[id];
        // One part with every row is those rows in their order, which reads fastest.
        *split |= spec->split[id] > 0 && !(id == LF_PART_TRAIN && spec->split[id] == 1);
    }
    if (sum > 1 + 1e-9) {
        lf_error_set(err, LF_EARG, "%s: split: the fractions sum to %.12g; expects at most 1", spec->file, sum);
        return false;
    }
    if (*split && !spec->x) {
        lf_error_set(err, LF_EARG, "%s: split divides the rows that x and y name, but x names no object", spec->file);
        return false;
    }
    return true;
}

// Opens an object that goes with x, row for row.
static bool open_beside(lf_source *source, const lf_dataset *data, const lf_source *x, const char *path, lf_error *err)
{
    if (!lf_source_open(source, data->h5, data->file, path, err))
        return false;
    if (source->rows != x->rows) {
        lf_error_set(err, LF_EFORMAT, "%s: has %llu rows, but %s has %llu", source->where,
                     (unsigned long long)source->rows, x->where, (unsigned long long)x->rows);
        return false;
    }
    return true;
}

static bool open_weights(lf_source *w, const lf_dataset *data, const lf_source *x, const char *path, lf_error *err)
{
    if (!open_beside(w, data, x, path, err))
        return false;
    if (w->rank > 2 || w->columns != 1) {
        lf_error_set(err, LF_EFORMAT, "%s: has rank %d and %lu values a row; expects weights as (rows) or (rows, 1)",
                     w->where, w->rank, (unsigned long)w->columns);
        return false;
    }
    lf_source_deliver(w, LF_F32);
    return true;
}

// Opens x, y and w at the given paths as sources `at`; y and w may be NULL.
static bool open_sources(lf_dataset *data, int at, const char *x, const char *y, const char *w, lf_error *err)
{
    return lf_source_open(&data->x[at], data->h5, data->file, x, err) &&
           (!y || open_beside(&data->y[at], data, &data->x[at], y, err)) &&
           (!w || open_weights(&data->w[at], data, &data->x[at], w, err));
}

static bool open_standard(lf_dataset *data, lf_error *err)
{
    char x[16], y[16], w[16];
    bool any = false;
    for (int id = 0; id < LF_PART_COUNT; id++) {
        snprintf(x, sizeof x, "/%s/x", part_names[id]);
        snprintf(y, sizeof y, "/%s/y", part_names[id]);
        snprintf(w, sizeof w, "/%s/w", part_names[id]);
        bool has_x = lf_h5_exists(data->h5, x), has_y = lf_h5_exists(data->h5, y), has_w = lf_h5_exists(data->h5, w);
        any |= has_x;
        if (!has_x && !has_y && !has_w)
            continue;
        if (!open_sources(data, id, x, has_y ? y : NULL, has_w ? w : NULL, err))
            return false;
    }
    // None of them: opening the first says what is there instead.
    return any || open_sources(data, LF_PART_TRAIN, "/train/x", NULL, NULL, err);
}

// The row counts of a split. Part k ends where the fractions up to k end, so that the last part takes what rounding
// leaves.
static bool cut_parts(lf_dataset *data, const lf_dataset_spec *spec, lf_error *err)
{
    uint64_t rows = data->x[0].rows, begin = 0;
    double sum = 0;
    data->split_seed = spec->split_seed;
    data->order = lf_permutation_make(spec->split_seed, LF_STREAM_SPLIT, 0, rows);
    for (int id = 0; id < LF_PART_COUNT; id++) {
        sum += spec->split[id];
        uint64_t end = fabs(sum - 1) <= 1e-9 ? rows : (uint64_t)(sum * (double)rows + .5);
        if (spec->split[id] == 0)
            end = begin;
        if (spec->split[id] > 0 && end <= begin) {
            lf_error_set(err, LF_EARG, "%s: split: %s is %g of %llu rows, which is not one row", data->x[0].where,
                         part_names[id], spec->split[id], (unsigned long long)rows);
            return false;
        }
        data->first[id] = begin;
        data->parts[id].rows = end - begin;
        begin = end;
    }
    return true;
}

// The length of @classes; 0 without it.
static bool class_names(const lf_source *y, uint64_t *count, lf_error *err)
{
    *count = 0;
    if (H5Aexists(y->set, "classes") <= 0)
        return true;
    hid_t attribute = H5Aopen(y->set, "classes", H5P_DEFAULT);
    hid_t space = H5Aget_space(attribute);
    hssize_t length = H5Sget_simple_extent_npoints(space);
    int rank = H5Sget_simple_extent_ndims(space);
    H5Sclose(space);
    H5Aclose(attribute);
    if (rank != 1 || length < 1 || length > INT_MAX) {
        lf_error_set(err, LF_EFORMAT, "%s@classes: has rank %d and %lld values; expects a list of names", y->where,
                     rank, (long long)length);
        return false;
    }
    *count = (uint64_t)length;
    return true;
}

// Kind of the targets of source `at`, and the length of @classes.
static bool target_kind(lf_dataset *data, int at, lf_target_kind *kind, uint64_t *names, lf_error *err)
{
    lf_source *y = &data->y[at];
    *kind = LF_TARGET_NONE;
    *names = 0;
    if (y->set < 0)
        return true;
    if (!class_names(y, names, err))
        return false;
    *kind = y->columns == 1 && (!y->floats || *names > 0) ? LF_TARGET_CLASSES : LF_TARGET_VALUES;
    lf_source_deliver(y, *kind == LF_TARGET_CLASSES ? LF_U32 : LF_F32);
    return true;
}

// The targets of every source, and one number of names for the whole file. Takes the lock for each step itself.
static bool find_targets(lf_dataset *data, lf_error *err)
{
    const lf_source *named = NULL;
    for (int at = 0; at < LF_PART_COUNT; at++) {
        uint64_t count = 0;
        lf_h5_scope scope;
        lf_h5_enter(&scope);
        bool good = target_kind(data, at, &data->kinds[at], &count, err);
        lf_h5_leave(&scope);
        if (!good)
            return false;
        if (data->kinds[at] != LF_TARGET_CLASSES || count == 0)
            continue;
        if (named && count != data->names) {
            lf_error_set(err, LF_EFORMAT, "%s@classes: has %llu names, but %s@classes has %llu", data->y[at].where,
                         (unsigned long long)count, named->where, (unsigned long long)data->names);
            return false;
        }
        data->names = count;
        named = &data->y[at];
    }
    return true;
}

// Parts of one data set belong to one model: they have the same shape of row.
static bool parts_agree(const lf_dataset *data, lf_error *err)
{
    const lf_part *one = NULL;
    for (int id = 0; id < LF_PART_COUNT; id++) {
        const lf_part *part = &data->parts[id];
        if (part->rows == 0)
            continue;
        if (!one)
            one = part;
        if (part->features != one->features) {
            lf_error_set(err, LF_EFORMAT, "%s: has %lu features a row, but %s has %lu", part->x_path,
                         (unsigned long)part->features, one->x_path, (unsigned long)one->features);
            return false;
        }
        if (!part->y_path || !one->y_path)
            continue;
        if (part->target != one->target || part->outputs != one->outputs) {
            static const char *const names[] = { "none", "classes", "values" };
            lf_error_set(err, LF_EFORMAT, "%s: holds %s, %lu a row, but %s holds %s, %lu a row", part->y_path,
                         names[part->target], (unsigned long)part->outputs, one->y_path, names[one->target],
                         (unsigned long)one->outputs);
            return false;
        }
    }
    return true;
}

static bool fill_parts(lf_dataset *data, lf_error *err)
{
    const lf_target_kind *kinds = data->kinds;
    if (!find_targets(data, err))
        return false;
    for (int id = 0; id < LF_PART_COUNT; id++) {
        lf_part *part = &data->parts[id];
        int at = lf_dataset_sources(data, (lf_part_id)id);
        const lf_source *x = &data->x[at], *y = &data->y[at], *w = &data->w[at];
        if (!data->split)
            part->rows = x->set >= 0 ? x->rows : 0;
        if (part->rows == 0)
            continue;
        part->x_path = x->where;
        part->y_path = kinds[at] == LF_TARGET_NONE ? NULL : y->where;
        part->w_path = w->set < 0 ? NULL : w->where;
        part->features = x->columns;
        part->stored = x->stored;
        part->target = kinds[at];
        part->outputs = kinds[at] == LF_TARGET_NONE ? 0 : y->columns;
        part->scale = data->scale[id];
        part->offset = data->offset[id];
    }
    return parts_agree(data, err);
}

// A file in memory that holds the rows as /test/x.
static hid_t make_rows(const float *x, uint64_t rows, uint32_t features, lf_error *err)
{
    const hsize_t dims[] = { rows, features };
    hid_t file = lf_h5_memory_create(rows * features * sizeof *x, err);
    if (file >= 0 && !lf_h5_write_array(file, "/test/x", H5T_NATIVE_FLOAT, H5T_NATIVE_FLOAT, 2, dims, x, err)) {
        H5Fclose(file);
        return -1;
    }
    return file;
}

// `x` NULL: from spec->file; else spec->file is only the name of `x` (rows, features) in messages.
static lf_dataset *open_dataset(const lf_dataset_spec *spec, const float *x, uint64_t rows, uint32_t features,
                                lf_error *err)
{
    bool split;
    if (!spec_check(spec, &split, err))
        return NULL;
    lf_dataset *data = calloc(1, sizeof *data);
    if (!data || !(data->file = strdup(spec->file))) {
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", spec->file);
        free(data);
        return NULL;
    }
    data->h5 = -1;
    data->split = split;
    for (int id = 0; id < LF_PART_COUNT; id++) {
        data->x[id] = data->y[id] = data->w[id] = (lf_source){ .set = -1, .fd = -1 };
        data->parts[id].name = part_names[id];
    }
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    data->h5 = x ? make_rows(x, rows, features, err) : lf_h5_file_open(data->file, err);
    bool good =
        data->h5 >= 0 && (spec->x ? open_sources(data, 0, spec->x, spec->y, spec->w, err) : open_standard(data, err));
    good = good && (!split || cut_parts(data, spec, err)) && lf_dataset_attributes(data, err);
    lf_h5_leave(&scope);
    data->normalize = !spec->normalize                      ? LF_NORMALIZE_NONE
                      : strcmp(spec->normalize, "standard") ? LF_NORMALIZE_MINMAX
                                                            : LF_NORMALIZE_STANDARD;
    if (!good || !fill_parts(data, err) || (!spec->later && !lf_dataset_settle(data, NULL, err))) {
        lf_dataset_close(data);
        return NULL;
    }
    return data;
}

lf_dataset *lf_dataset_open(const lf_dataset_spec *spec, lf_error *err)
{
    return open_dataset(spec, NULL, 0, 0, err);
}

lf_dataset *lf_dataset_from_rows(const char *name, const float *x, uint64_t rows, uint32_t features, lf_error *err)
{
    return open_dataset(&(lf_dataset_spec){ .file = name }, x, rows, features, err);
}

void lf_dataset_close(lf_dataset *data)
{
    if (!data)
        return;
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    for (int id = 0; id < LF_PART_COUNT; id++) {
        lf_source_close(&data->x[id]);
        lf_source_close(&data->y[id]);
        lf_source_close(&data->w[id]);
        free(data->scale[id]);
        free(data->offset[id]);
    }
    if (data->h5 >= 0)
        H5Fclose(data->h5);
    lf_h5_leave(&scope);
    free(data->file);
    free(data);
}

const lf_part *lf_dataset_part(const lf_dataset *data, lf_part_id id, lf_error *err)
{
    if ((unsigned)id < LF_PART_COUNT && data->parts[id].rows > 0)
        return &data->parts[id];
    char list[64] = "";
    size_t used = 0;
    for (int other = 0; other < LF_PART_COUNT; other++)
        if (data->parts[other].rows > 0)
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "", part_names[other]);
    lf_error_set(err, LF_ENOTFOUND, "%s: has no part \"%s\"; it has %s", data->file,
                 (unsigned)id < LF_PART_COUNT ? part_names[id] : "?", list);
    return NULL;
}
