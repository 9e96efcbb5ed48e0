// Model and checkpoint files (DESIGN 4). binding/ and train/ call this.
#ifndef LF_IO_MODEL_FILE_H
#define LF_IO_MODEL_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

typedef struct lf_file_tensor {
    char *name;          // "linear_1/kernel", in /optimizer "linear_1/kernel/m"
    uint32_t rows, cols; // rows 0: one-dimensional, (cols)
    float *values;       // (rows, cols), row-major
} lf_file_tensor;

// What a checkpoint holds beside the weights.
typedef struct lf_train_state {
    char optimizer[32];      // "adam", …
    uint64_t optimizer_step; // updates done
    uint64_t epoch;          // epochs finished
    uint64_t step;           // training steps done, from the start of the training
    uint64_t position;       // rows already used of the epoch in progress
    uint64_t seed;
    double epoch_loss, epoch_weight, epoch_right; // sums over the rows of the epoch in progress
    uint64_t epoch_rows;                          // how many
    char *schedule;                               // the learning rate's, in words; may be NULL
    double best;                                  // lowest loss so far, where the schedule watches it; NaN: none
    uint64_t waited;                              // epochs since `best`
    uint64_t reductions;                          // of the learning rate because of that
    double monitor_best;                          // best value of what the training watches for its end; NaN: none
    uint64_t monitor_epoch;                       // the epoch that had it, from 1; 0: none
    uint64_t *rows;                               // those of the batch that a training stopped at, in order; owned
    size_t row_count;                             // 0: not given
    char *options;           // "name value, name value, …": all that a resume must have in common; may be NULL
    lf_file_tensor *moments; // "linear_1/kernel/m", and of any other name behind the tensor's: owned
    size_t moment_count;
} lf_train_state;

typedef struct lf_model_file {
    char *definition; // JSON text: layers and their options
    lf_file_tensor *tensors;
    size_t tensor_count;
    lf_train_state *state; // NULL in a plain model file
    char run[40];          // UUID of the run that trained it; empty: not known, or none
    char digest[65];       // filled by read and write: lf_tensors_digest of `tensors`
} lf_model_file;

// sha256 over the tensors sorted by name; of each its name with the closing zero, the number of dimensions and the
// dimensions as 8 little-endian bytes each, and the values as little-endian f32.
bool lf_tensors_digest(const lf_file_tensor *tensors, size_t count, char hex[65], lf_error *err);

// Writes atomically: a new file beside `path`, fsync, rename, fsync of the folder. On failure `path` is as it was and
// nothing is left beside it. Names must be relative paths that differ. Fills file->digest.
bool lf_model_file_write(const char *path, lf_model_file *file, lf_error *err);

// Reads and checks format, version, completeness, shapes and digests. Tensors come in the order of their names. NULL on
// failure.
lf_model_file *lf_model_file_read(const char *path, lf_error *err);
void lf_model_file_destroy(lf_model_file *file); // frees everything it points to; for files made by read

#endif
