// Run files (DESIGN 5). A run is built in memory and written in one piece at its end: binding/ calls this.
#ifndef LF_IO_RUN_FILE_H
#define LF_IO_RUN_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "io/model_file.h"

typedef struct lf_run lf_run;

lf_run *lf_run_create(lf_error *err); // with /entry, its NX_class, a new UUID and start_time
void lf_run_destroy(lf_run *run);
const char *lf_run_uuid(const lf_run *run); // 36 characters

// Paths are below /entry and missing groups are made: "parameters/lr", "system/device_0/name". A path whose last part
// has an '@' names an attribute: "script@sha256", "step_1@NX_class", "@title" of /entry itself. Setting again replaces
// the value and keeps the attributes. A value in place of a group is refused. Any thread may call.
bool lf_run_set_text(lf_run *run, const char *path, const char *value, lf_error *err);
bool lf_run_set_f64(lf_run *run, const char *path, double value, lf_error *err);
bool lf_run_set_i64(lf_run *run, const char *path, int64_t value, lf_error *err);
// An array in C order; rank 1 … 4.
bool lf_run_set_f64s(lf_run *run, const char *path, size_t rank, const uint64_t *shape, const double *values,
                     lf_error *err);
bool lf_run_set_i64s(lf_run *run, const char *path, size_t rank, const uint64_t *shape, const int64_t *values,
                     lf_error *err);
bool lf_run_set_group(lf_run *run, const char *path, const char *nx_class, lf_error *err);

// Appends to metrics/<step>/<name>/{step,time,value}; time in seconds since the run's start. Names have no '/'.
bool lf_run_series(lf_run *run, const char *step, const char *name, size_t count, const int64_t *steps,
                   const double *times, const double *values, lf_error *err);
// digests/<step>: the weights' sha256 after training step `at`.
bool lf_run_digest(lf_run *run, const char *step, int64_t at, const char hex[65], lf_error *err);
bool lf_run_log(lf_run *run, const char *level, const char *text, lf_error *err);
// result/<step>/<name>: a model file's content, in place of an older one. Fills file->digest.
bool lf_run_model(lf_run *run, const char *step, const char *name, lf_model_file *file, lf_error *err);

double lf_run_time(const lf_run *run); // seconds since its start

// Sets end_time, status and exit_code and writes atomically, as lf_model_file_write does. May be called again.
bool lf_run_save(lf_run *run, const char *path, const char *status, int exit_code, lf_error *err);

// Walks any HDF5 file below `root` in name order, for `show` and others: each group or data set, then its attributes.
// Values are NULL for arrays longer than `limit` elements or empty, and where they cannot be read here (a filter that
// is missing). More than 8 dimensions come as LF_H5_OTHER with rank 0. A node is borrowed for the visit; the visitor
// may call io/ and must return. A visitor that stops is no failure.
typedef struct lf_h5_node {
    const char *path; // full path; an attribute's is "object@name"
    enum { LF_H5_GROUP, LF_H5_TEXT, LF_H5_INTEGER, LF_H5_FLOAT, LF_H5_OTHER } kind;
    size_t rank; // 0: a scalar
    uint64_t shape[8];
    size_t count;             // elements
    const char *const *texts; // [count], by kind
    const int64_t *integers;  // clamped to the range of int64_t
    const double *floats;
} lf_h5_node;
typedef bool lf_h5_visit(void *user, const lf_h5_node *node); // false stops
bool lf_h5_walk(const char *file, const char *root, size_t limit, lf_h5_visit *visit, void *user, lf_error *err);

#endif
