// The affine map from stored values to values: attributes of x, and `normalize`.
#include <math.h>
#include <stdlib.h>

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

static const char *const names[] = { "none", "standard", "minmax" };

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

// A reading of all of x, in pieces. Each process reads every so many-th of them, and adds its rows to the moments,
// which go from one to the next: the order of the sums, and with it their bits, is the file's for any number of
// processes.
typedef struct x_pass {
    const lf_dataset *data;
    const lf_source *x;
    size_t piece; // rows
    unsigned char *bits;
    void *stored; // (piece, columns)
    double *wide; // (columns)
    moments *features;
    bool begun; // a row is among the moments
} x_pass;

static bool pass_init(x_pass *p, const lf_dataset *data, size_t piece, lf_error *err)
{
    const lf_source *x = &data->x[LF_PART_TRAIN];
    *p = (x_pass){ .data = data, .x = x, .piece = piece };
    p->bits = mark_rows(data, x->rows);
    p->stored = malloc(piece * x->row_size);
    p->wide = malloc(x->columns * sizeof *p->wide);
    p->features = calloc(x->columns, sizeof *p->features);
    if (p->bits && p->stored && p->wide && p->features)
        return true;
    lf_error_set(err, LF_ENOMEM, "%s: out of memory", data->parts[LF_PART_TRAIN].x_path);
    return false;
}

static void pass_finish(x_pass *p)
{
    free(p->bits);
    free(p->stored);
    free(p->wide);
    free(p->features);
}

static bool has_row(const x_pass *p, uint64_t row)
{
    return p->bits[row / 8] >> row % 8 & 1;
}

static size_t rows_of_piece(const x_pass *p, uint64_t first)
{
    uint64_t left = first < p->x->rows ? p->x->rows - first : 0;
    return left < p->piece ? (size_t)left : p->piece;
}

static bool read_piece(x_pass *p, uint64_t first, lf_error *err)
{
    size_t count = rows_of_piece(p, first);
    bool good = !count || lf_source_read_span(p->x, first, count, -1, p->stored, err);
    for (uint64_t row = first; good && row < first + count; row++)
        good = !has_row(p, row) ||
               lf_dataset_check_finite(p->x, (const char *)p->stored + (row - first) * p->x->row_size, &row, 1, err);
    return good;
}

static void add_piece(x_pass *p, uint64_t first)
{
    size_t count = rows_of_piece(p, first);
    for (size_t i = 0; i < count; i++) {
        if (!has_row(p, first + i))
            continue;
        widen(p->x->stored, (const char *)p->stored + i * p->x->row_size, p->x->columns, p->wide);
        gather(p->features, &p->data->parts[LF_PART_TRAIN], p->wide, !p->begun);
        p->begun = true;
    }
}

// Moments of the training part's values.
static bool measure(x_pass *p, const lf_sharing *with, lf_error *err)
{
    for (uint64_t row = 0; row < p->x->rows;) {
        if (!lf_sharing_agree(with, read_piece(p, row + with->rank * p->piece, err), err))
            return false;
        for (uint32_t from = 0; from < with->count && row < p->x->rows; from++, row += p->piece) {
            if (from == with->rank)
                add_piece(p, row);
            if (with->count > 1 && (!with->tell(from, p->features, p->x->columns * sizeof *p->features, err) ||
                                    !with->tell(from, &p->begun, sizeof p->begun, err)))
                return false;
        }
    }
    return true;
}

// What processes have to have in common for it, and the rows of a piece: files of equal rows may be laid out
// differently.
typedef struct x_plan {
    uint64_t rows, columns, normalize, piece;
} x_plan;

static bool make_plan(const lf_dataset *data, const lf_sharing *with, x_plan *plan, lf_error *err)
{
    enum { PIECE_BYTES = 4 << 20 };
    const lf_source *x = &data->x[LF_PART_TRAIN];
    x_plan own = { .normalize = data->normalize };
    if (data->normalize) {
        own.rows = x->rows;
        own.columns = x->columns;
        uint64_t share = x->rows / with->count * x->row_size;
        own.piece = lf_source_piece(x, share < PIECE_BYTES ? (size_t)share : PIECE_BYTES);
    }
    *plan = own;
    if (with->count == 1)
        return true;
    if (!with->tell(0, plan, sizeof *plan, err))
        return false;
    bool same = plan->rows == own.rows && plan->columns == own.columns && plan->normalize == own.normalize;
    if (!same)
        lf_error_set(
            err, LF_EARG,
            "%s: has normalize \"%s\" for %llu rows of %llu features, but process 0 has \"%s\" for %llu of %llu",
            data->file, names[own.normalize], (unsigned long long)own.rows, (unsigned long long)own.columns,
            names[plan->normalize], (unsigned long long)plan->rows, (unsigned long long)plan->columns);
    return lf_sharing_agree(with, same, err);
}

static bool combine(lf_dataset *data, const moments *features, lf_error *err)
{
    const lf_part *train = &data->parts[LF_PART_TRAIN];
    const char *normalize = names[data->normalize];
    bool standard = data->normalize == LF_NORMALIZE_STANDARD, good = true;
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
    return good;
}

bool lf_dataset_normalize(lf_dataset *data, const lf_sharing *with, lf_error *err)
{
    x_plan plan;
    x_pass pass;
    bool good = !data->normalize || lf_dataset_part(data, LF_PART_TRAIN, err);
    if (!good)
        lf_error_prefix(err, "normalize = \"%s\"", names[data->normalize]);
    if (!lf_sharing_agree(with, good, err) || !make_plan(data, with, &plan, err))
        return false;
    if (!data->normalize)
        return true;
    good = lf_sharing_agree(with, pass_init(&pass, data, (size_t)plan.piece, err), err) && measure(&pass, with, err) &&
           combine(data, pass.features, err);
    pass_finish(&pass);
    return good;
}
