// The affine map from stored values to values: attributes of x, and `normalize`.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/dataset_parts.h"

// `values` (columns) gets the attribute, spread if it is one value, or `missing` without it.
static bool read_map(const lf_source *x, const char *name, float missing, float *values, lf_error *err)
{
    for (uint32_t i = 0; i < x->columns; i++)
        values[i] = missing;
    if (H5Aexists(x->set, name) <= 0)
        return true;
    hid_t attribute = H5Aopen(x->set, name, H5P_DEFAULT);
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    hssize_t count = H5Sget_simple_extent_npoints(space);
    H5T_class_t class = H5Tget_class(type);
    bool good = false;
    if (class != H5T_INTEGER && class != H5T_FLOAT)
        lf_error_set(err, LF_EFORMAT, "%s@%s: holds values of type %s; expects numbers", x->where, name,
                     lf_h5_type_name(type));
    else if (count != 1 && count != (hssize_t)x->columns)
        lf_error_set(err, LF_EFORMAT, "%s@%s: has %lld values, but a row of x has %lu features", x->where, name,
                     (long long)count, (unsigned long)x->columns);
    else if (H5Aread(attribute, H5T_NATIVE_FLOAT, values) < 0)
        lf_h5_error(err, LF_EFORMAT, "%s@%s: cannot read", x->where, name);
    else
        good = true;
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    for (uint32_t i = 0; good && i < x->columns; i++) {
        if (count == 1)
            values[i] = values[0];
        if (!isfinite(values[i])) {
            lf_error_set(err, LF_EDATA, "%s@%s: is %g at feature %lu", x->where, name, (double)values[i],
                         (unsigned long)i);
            good = false;
        }
    }
    return good;
}

bool lf_dataset_attributes(lf_dataset *data, lf_error *err)
{
    for (int id = 0; id < LF_PART_COUNT; id++) {
        const lf_source *x = &data->x[lf_dataset_sources(data, (lf_part_id)id)];
        if (x->set < 0)
            continue;
        data->scale[id] = malloc(x->columns * sizeof(float));
        data->offset[id] = malloc(x->columns * sizeof(float));
        if (!data->scale[id] || !data->offset[id]) {
            lf_error_set(err, LF_ENOMEM, "%s: out of memory for %lu features", x->where, (unsigned long)x->columns);
            return false;
        }
        if (!read_map(x, "scale", 1, data->scale[id], err) || !read_map(x, "offset", 0, data->offset[id], err))
            return false;
    }
    return true;
}

// Streamed per feature, as differences from the first row: a constant feature then has a deviation of exactly 0, and
// squares of large means do not drown it.
typedef struct moments {
    double first, sum, squares, least, most;
} moments;

static void gather(moments *features, const lf_part *part, const double *row, bool first)
{
    for (uint32_t i = 0; i < part->features; i++) {
        double value = row[i] * (double)part->scale[i] + (double)part->offset[i];
        moments *m = &features[i];
        if (first)
            *m = (moments){ .first = value, .least = value, .most = value };
        double from_first = value - m->first;
        m->sum += from_first;
        m->squares += from_first * from_first;
        m->least = value < m->least ? value : m->least;
        m->most = value > m->most ? value : m->most;
    }
}

static void widen(lf_dtype type, const void *stored, size_t count, double *wide)
{
#define LF_WIDEN(id, element)                                                                                          \
    case id:                                                                                                           \
        for (size_t i = 0; i < count; i++)                                                                             \
            wide[i] = ((const element *)stored)[i];                                                                    \
        break
    switch (type) {
        LF_WIDEN(LF_U8, uint8_t);
        LF_WIDEN(LF_I8, int8_t);
        LF_WIDEN(LF_U16, uint16_t);
        LF_WIDEN(LF_I16, int16_t);
        LF_WIDEN(LF_U32, uint32_t);
        LF_WIDEN(LF_I32, int32_t);
        LF_WIDEN(LF_F32, float);
    default:
        break;
    }
#undef LF_WIDEN
}

// One bit for each row of the object: whether the training part has it. So a split, too, is read in file order.
static unsigned char *mark_rows(const lf_dataset *data, uint64_t object_rows)
{
    unsigned char *bits = calloc((size_t)(object_rows / 8 + 1), 1);
    for (uint64_t i = 0; bits && i < data->parts[LF_PART_TRAIN].rows; i++) {
        uint64_t row = lf_dataset_object_row(data, LF_PART_TRAIN, i);
        bits[row / 8] |= (unsigned char)(1u << row % 8);
    }
    return bits;
}

// Moments of the training part's values.
static bool measure(const lf_dataset *data, moments *features, lf_error *err)
{
    const lf_part *train = &data->parts[LF_PART_TRAIN];
    const lf_source *x = &data->x[LF_PART_TRAIN];
    size_t piece = lf_source_piece(x, 4u << 20);
    unsigned char *bits = mark_rows(data, x->rows);
    void *stored = malloc(piece * x->row_size);
    double *wide = malloc(x->columns * sizeof *wide);
    bool good = bits && stored && wide, first = true;
    if (!good)
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", train->x_path);
    for (uint64_t row = 0; good && row < x->rows; row += piece) {
        size_t count = x->rows - row < piece ? (size_t)(x->rows - row) : piece;
        good = lf_source_read_span(x, row, count, -1, stored, err);
        for (size_t i = 0; good && i < count; i++) {
            if (!(bits[(row + i) / 8] >> (row + i) % 8 & 1))
                continue;
            const char *values = (const char *)stored + i * x->row_size;
            const uint64_t at = row + i;
            good = lf_dataset_check_finite(x, values, &at, 1, err);
            widen(x->stored, values, x->columns, wide);
            gather(features, train, wide, first);
            first = false;
        }
    }
    free(wide);
    free(stored);
    free(bits);
    return good;
}

bool lf_dataset_normalize(lf_dataset *data, const char *normalize, lf_error *err)
{
    if (!lf_dataset_part(data, LF_PART_TRAIN, err)) {
        lf_error_prefix(err, "normalize = \"%s\"", normalize);
        return false;
    }
    const lf_part *train = &data->parts[LF_PART_TRAIN];
    moments *features = calloc(train->features, sizeof *features);
    if (!features)
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", train->x_path);
    bool good = features && measure(data, features, err);
    bool standard = strcmp(normalize, "standard") == 0;
    for (uint32_t i = 0; good && i < train->features; i++) {
        const moments *m = &features[i];
        double rows = (double)train->rows, mean = m->sum / rows, variance = m->squares / rows - mean * mean;
        double zero = standard ? m->first + mean : m->least;
        double unit = standard ? sqrt(variance > 0 ? variance : 0) : m->most - m->least;
        if (!(unit > 0))
            unit = 1; // a feature that never changes only loses its mean
        for (int id = 0; id < LF_PART_COUNT; id++) {
            if (data->parts[id].rows == 0)
                continue;
            data->offset[id][i] = (float)(((double)data->offset[id][i] - zero) / unit);
            data->scale[id][i] = (float)((double)data->scale[id][i] / unit);
            if (!isfinite(data->offset[id][i]) || !isfinite(data->scale[id][i])) {
                lf_error_set(err, LF_EDATA,
                             "%s: normalize = \"%s\": feature %lu has no finite scale (zero %g, unit %g)",
                             data->parts[id].x_path, normalize, (unsigned long)i, zero, unit);
                good = false;
                break;
            }
        }
    }
    free(features);
    return good;
}
