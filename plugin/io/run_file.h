// Run files (DESIGN 5). A run is built in memory and written in one piece at its end; meanwhile a live file may show
// it. A process that works for another one keeps its part of the run as a journal, which the other applies to its own
// run. binding/ calls this.
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

// A run that is a journal: a file to which each call below appends a record at once, with one write(), so that a kill
// tears at most the last record. A journal that is there already is continued, without a torn end. `uuid` is that of
// the run that it is a part of; lf_run_time starts at `elapsed` seconds. Models cannot be set, nor can it be saved.
lf_run *lf_run_journal(const char *path, const char *uuid, double elapsed, lf_error *err);
bool lf_run_sync(lf_run *run, lf_error *err); // the journal's records are on the disk; nothing for a run in memory

// Applies the whole records behind `*offset` (0: from the start) of a journal to a run in memory, and moves *offset
// behind them. `shift` is added to their times; `step` is whose lines they are in the log. `told`, if not NULL, is
// called for log lines and notes, in order, outside of io/'s lock. *last, if not NULL, becomes the last time that a
// record has, shifted, and stays where none has one. A torn or absent record ends it without an error; a file that is
// no journal, or a record that does not hold together in the middle, is one.
typedef struct lf_run_told {
    const char *level; // of a log line; NULL: a note
    const char *text;
    double time; // shifted
} lf_run_told;
typedef void lf_run_told_fn(void *user, const lf_run_told *told);
bool lf_run_replay(lf_run *run, const char *path, uint64_t *offset, double shift, const char *step,
                   lf_run_told_fn *told, void *user, double *last, lf_error *err);
// In a journal, a text for whoever replays it; a run in memory forgets it.
bool lf_run_note(lf_run *run, const char *text, lf_error *err);

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
// Takes back the values of metrics/<step>/<name> beyond training step `at`; `name` NULL: the digests of `step`.
bool lf_run_rewind(lf_run *run, const char *step, const char *name, int64_t at, lf_error *err);
// What a run in memory has of a series: borrowed until the run changes. 0 where there is none.
size_t lf_run_series_get(const lf_run *run, const char *step, const char *name, const int64_t **steps,
                         const double **values);
// digests/<step>: the weights' sha256 after training step `at`.
bool lf_run_digest(lf_run *run, const char *step, int64_t at, const char hex[65], lf_error *err);
// log/{time,level,text,step}; `step` "": the run's own. In a journal `step` is that of the replay.
bool lf_run_log(lf_run *run, const char *step, const char *level, const char *text, lf_error *err);
// result/<step>/<name>: a model file's content, in place of an older one. Fills file->digest.
bool lf_run_model(lf_run *run, const char *step, const char *name, lf_model_file *file, lf_error *err);

double lf_run_time(const lf_run *run); // seconds since its start

// Sets end_time, status and exit_code and writes atomically, as lf_model_file_write does. May be called again. The
// file's /digest holds the sha256 of the logical content of each member of /entry, as attributes of the same names.
bool lf_run_save(lf_run *run, const char *path, const char *status, int exit_code, lf_error *err);

// Compares the members of /entry with their digests. `differs` is called with the name of each that does not match, is
// missing or damaged or has none. False only when the file cannot be read as a run file.
bool lf_run_check(const char *path, void (*differs)(void *user, const char *name), void *user, lf_error *err);

// Makes `path` show the run in memory as it is now: the layout of the run file, in SWMR mode, with status "running", so
// that other programs can follow it. The first call makes the file; later ones append what came. Where objects came or
// values were taken back, a new file takes its place: a reader that sees another inode opens it again. Log lines stand
// in it as texts of fixed length, cut where they are longer; models are left out. `attributes`, at most 16 pairs of
// name and text with a closing NULL, are put on /entry; they are the live file's own. After a failure (a full disk) the
// file stays readable, and the next call makes a new one.
bool lf_run_live(lf_run *run, const char *path, const char *const *attributes, lf_error *err);
void lf_run_live_close(lf_run *run); // the file stays; destroy does it too

// Makes a run file of a live file whose writer is gone: all that it has but its own attributes, with `status` and
// `exit_code`, log lines as in other run files, end_time that of its last change. A file that is cut short is refused.
bool lf_run_recover(const char *live, const char *path, const char *status, int exit_code, lf_error *err);

// Makes a model file of a group of a run file that holds one: "/entry/result/train/model".
bool lf_run_extract(const char *path, const char *group, const char *out, lf_error *err);

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
