// Data set files (DESIGN 3): the rows of x and y, in the type in which the file stores them. train/ reads rows through
// this; binding/ opens and closes. Every function may be called from any thread: io/ holds one lock around HDF5.
#ifndef LF_IO_DATASET_H
#define LF_IO_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/dtype.h"
#include "core/error.h"

typedef enum lf_part_id { LF_PART_TRAIN, LF_PART_VALID, LF_PART_TEST, LF_PART_COUNT } lf_part_id;

typedef struct lf_dataset_spec {
    const char *file;
    const char *x, *y;           // object paths; NULL x: the standard layout /train/x, /train/y, /valid/…, /test/…
    const char *w;               // with x: object path of the rows' weights, or NULL; standard layout: /train/w, …
    double split[LF_PART_COUNT]; // fractions of the rows named by x, y; all zero: every row is `train`, in order
    uint64_t split_seed;         // the split is a pseudo-random partition of the rows, a function of this seed
    const char *normalize;       // NULL, "standard" (mean 0, deviation 1 per feature over the training part) or
                                 // "minmax" (0..1 per feature over the training part)
    bool later;                  // what needs a reading of much of the file is left to lf_dataset_settle
} lf_dataset_spec;

typedef enum lf_target_kind { LF_TARGET_NONE, LF_TARGET_CLASSES, LF_TARGET_VALUES } lf_target_kind;

// One part of a data set, as train/ sees it. Everything is owned by the data set.
typedef struct lf_part {
    const char *name;      // "train", "valid", "test"
    const char *x_path;    // for messages and provenance: "datasets/mnist.h5:/train/x"
    const char *y_path;    // NULL without targets
    const char *w_path;    // NULL without weights: (rows) numbers, not negative
    uint64_t rows;         // 0: the part is absent
    uint32_t features;     // product of x's dimensions after the first
    lf_dtype stored;       // type in which x is delivered; 8-byte and half types are delivered as f32
    lf_target_kind target; // integers (rows) are classes, floats too if y has @classes; all others are values
    uint32_t outputs;      // values a row; 1 for classes
    uint32_t classes;      // largest label of all parts + 1, or the length of @classes; 0 unless classes
    const float *scale;    // (features): value = stored * scale + offset; attributes and `normalize` combined
    const float *offset;   // (features)
} lf_part;

typedef struct lf_dataset lf_dataset;

// Opens and checks: objects exist, rows agree, types are numbers, filters are known, no external links; and settles,
// unless that is for later. NULL on failure, with the path in the message.
lf_dataset *lf_dataset_open(const lf_dataset_spec *spec, lf_error *err);
void lf_dataset_close(lf_dataset *data);
// Several processes that read a file together, each a part of it, and do the same with what all have read.
typedef struct lf_sharing {
    uint32_t rank, count;                                                 // of the processes: this one, and all
    bool (*agree)(bool ok, lf_error *err);                                // whether all have done well; else why not
    bool (*tell)(uint32_t from, void *bytes, size_t size, lf_error *err); // what that process has, to all
} lf_sharing;

// Scans y (labels are whole numbers, not negative), and x where it is to be normalized: finds the parts' `classes`,
// `scale` and `offset`, which nobody may ask for before, nor read or digest rows; the same bits, and the same first row
// that is wrong, for any number of processes. `with`: all call it with data sets that are not settled; NULL: this one
// reads everything. Once it is done, it does nothing. No other thread may use the data set meanwhile.
bool lf_dataset_settle(lf_dataset *data, const lf_sharing *with, lf_error *err);
bool lf_dataset_is_settled(const lf_dataset *data);

// A copy of rows in memory, x (rows, features), as the part `test`, without targets; `name` stands in messages.
lf_dataset *lf_dataset_from_rows(const char *name, const float *x, uint64_t rows, uint32_t features, lf_error *err);

// A part with rows, or NULL with a message that lists the parts the file has.
const lf_part *lf_dataset_part(const lf_dataset *data, lf_part_id id, lf_error *err);

// Where rows are read to; NULL: not read.
typedef struct lf_rows_out {
    void *x;  // (count, features) of `stored`
    void *y;  // u32 (count) for classes, f32 (count, outputs) for values
    float *w; // (count); 1 where the part has no weights
} lf_rows_out;

// Reads rows[0..count) of the part, in that order (a row may come twice). Rows in ascending runs are read in long
// pieces; scattered rows of a chunked file inflate each chunk once per call, so one call for a window of many rows is
// much faster than one a batch. Fails on NaN or infinity in x, y or w, and on a weight below 0, naming object, row and
// column.
bool lf_dataset_read(lf_dataset *data, lf_part_id id, const uint64_t *rows, size_t count, const lf_rows_out *out,
                     lf_error *err);
// The same for the consecutive rows first … first + count - 1.
bool lf_dataset_read_span(lf_dataset *data, lf_part_id id, uint64_t first, size_t count, const lf_rows_out *out,
                          lf_error *err);

// The rows of a call for who reads a part from the first row to the last, with about `bytes` of x, or more where
// fewer would inflate chunks several times.
size_t lf_dataset_piece(const lf_dataset *data, lf_part_id id, size_t bytes);

// sha256 of what the part's x is: the logical content of its object, which rows of it in which order, scale and offset.
// Two parts of equal digests give a model the same inputs. Reads all of x.
bool lf_dataset_digest(lf_dataset *data, lf_part_id id, char hex[65], lf_error *err);

// sha256 over the logical content (type, shape, attributes, values) of the object at `path` in `file`, or of everything
// below it if it is a group: independent of chunking, filters, dates, byte order, and of where the object stands.
// Attributes that begin with "provenance_" say where something comes from, not what it is, and do not count.
bool lf_h5_digest(const char *file, const char *path, char hex[65], lf_error *err);

#endif
