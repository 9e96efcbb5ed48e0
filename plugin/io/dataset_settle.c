// What is known of a data set only when much of its file was read: labels here, the scale of x in dataset_scale.c.
#include <limits.h>
#include <math.h>
#include <stdlib.h>

#include "io/dataset_parts.h"

static const lf_sharing alone = { .count = 1 };

bool lf_sharing_agree(const lf_sharing *with, bool ok, lf_error *err)
{
    return with->count > 1 ? with->agree(ok, err) : ok;
}

static void refuse_label(const lf_source *y, uint64_t names, double label, unsigned long long row, lf_error *err)
{
    if (isfinite(label) && label != floor(label))
        lf_error_set(err, LF_EDATA, "%s: label %g at row %llu is not a whole number", y->where, label, row);
    else if (names > 0)
        lf_error_set(err, LF_EDATA, "%s: label %.0f at row %llu is outside 0..%llu", y->where, label, row,
                     (unsigned long long)names - 1);
    else
        lf_error_set(err, LF_EDATA, "%s: label %.0f at row %llu is outside 0..%d; classes count from 0", y->where,
                     label, row, INT_MAX - 1);
}

// Checks the labels of rows first … end - 1 and raises `classes` to the largest + 1; with `names` > 0 labels must be
// less. Takes the lock.
static bool scan_labels(const lf_source *y, uint64_t first, uint64_t end, uint64_t names, uint64_t *classes,
                        lf_error *err)
{
    enum { PIECE = 1 << 16 };
    double *labels = malloc(PIECE * sizeof *labels);
    if (!labels) {
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", y->where);
        return false;
    }
    bool good = true;
    double limit = names > 0 ? (double)names : (double)INT_MAX;
    for (uint64_t row = first; good && row < end; row += PIECE) {
        size_t count = end - row < PIECE ? (size_t)(end - row) : PIECE;
        good = lf_source_read_span(y, row, count, H5T_NATIVE_DOUBLE, labels, err);
        for (size_t i = 0; good && i < count; i++) {
            double label = labels[i];
            good = label >= 0 && label < limit && label == floor(label);
            if (!good)
                refuse_label(y, names, label, row + i, err);
            else if ((uint64_t)label >= *classes)
                *classes = (uint64_t)label + 1;
        }
    }
    free(labels);
    return good;
}

// One number of classes for the whole file. Processes that agree after each source, in the order of their rows, tell of
// the first label that is wrong.
static bool find_classes(const lf_dataset *data, const lf_sharing *with, uint64_t *classes, lf_error *err)
{
    uint64_t own = 0;
    for (int at = 0; at < LF_PART_COUNT; at++) {
        const lf_source *y = &data->y[at];
        bool labels = data->kinds[at] == LF_TARGET_CLASSES;
        uint64_t each = labels ? y->rows / with->count + 1 : 0, first = with->rank * each, end = first + each;
        end = labels && end > y->rows ? y->rows : end;
        if (!lf_sharing_agree(with, !labels || scan_labels(y, first, end, data->names, &own, err), err))
            return false;
    }
    *classes = data->names > own ? data->names : own;
    for (uint32_t from = 0; with->count > 1 && from < with->count; from++) {
        uint64_t told = own;
        if (!with->tell(from, &told, sizeof told, err))
            return false;
        *classes = told > *classes ? told : *classes;
    }
    return true;
}

bool lf_dataset_settle(lf_dataset *data, const lf_sharing *with, lf_error *err)
{
    uint64_t classes;
    if (data->settled)
        return true;
    with = with ? with : &alone;
    if (!find_classes(data, with, &classes, err) || !lf_dataset_normalize(data, with, err))
        return false;
    for (int id = 0; id < LF_PART_COUNT; id++)
        if (data->parts[id].target == LF_TARGET_CLASSES)
            data->parts[id].classes = (uint32_t)classes;
    data->settled = true;
    return true;
}

bool lf_dataset_is_settled(const lf_dataset *data)
{
    return data->settled;
}
