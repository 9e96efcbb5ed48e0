// A run in memory: what is set goes into an HDF5 file in memory at once; what grows (series, digests, log) is kept in
// arrays and becomes data sets when the run is saved. Only io/ includes this.
#ifndef LF_IO_RUN_RECORD_H
#define LF_IO_RUN_RECORD_H

#include <time.h>

#include "io/h5_write.h"
#include "io/run_file.h"

typedef struct lf_run_series_data {
    char *step, *name;
    size_t count, room;
    int64_t *steps;
    double *times, *values;
} lf_run_series_data;

typedef struct lf_run_digests {
    char *step;
    size_t count, room;
    int64_t *at;
    char (*hex)[64]; // without a closing zero, as the file holds them
} lf_run_digests;

typedef struct lf_run_log_line {
    double time;
    char *step, *level, *text;
} lf_run_log_line;

// Guarded by io/'s lock.
struct lf_run {
    hid_t file, entry;
    char uuid[37];
    struct timespec start;
    double elapsed; // at start
    int journal;    // file to append to; -1: the run is in memory
    char *journal_path;
    struct lf_run_live *live; // NULL: there is no live file
    bool reshaped;            // since the live file was made: something was set or taken back
    lf_run_series_data *series;
    size_t series_count;
    lf_run_digests *digests;
    size_t digest_count;
    lf_run_log_line *lines;
    size_t line_count, line_room;
};

// Inside lf_h5_enter. Opens the group at `path` below /entry; groups that are made get a class, the last one `nx_class`
// if it is not NULL.
hid_t lf_run_group(const lf_run *run, const char *path, const char *nx_class, lf_error *err);

// A path as lf_run_set_text takes it.
bool lf_run_path_check(const char *path, lf_error *err);

bool lf_run_log_at(lf_run *run, double time, const char *step, const char *level, const char *text, lf_error *err);

// Inside lf_h5_enter, for a run in memory.
bool lf_run_series_add(lf_run *run, const char *step, const char *name, size_t count, const int64_t *steps,
                       const double *times, const double *values, lf_error *err);
bool lf_run_digest_add(lf_run *run, const char *step, int64_t at, const char hex[64], lf_error *err);
bool lf_run_log_add(lf_run *run, double time, const char *step, const char *level, const char *text, lf_error *err);
bool lf_run_records_write(lf_run *run, lf_error *err);
bool lf_run_digests_write(lf_run *run, lf_error *err); // /digest

// What texts of fixed length have room for in a live file's log, and which attribute names those that only it has.
enum { LF_LIVE_LEVEL = 8, LF_LIVE_STEP = 64, LF_LIVE_TEXT = 256 };
#define LF_LIVE_OWN "live"
hid_t lf_run_text_type(size_t size, H5T_str_t padding); // UTF-8; close it. Negative on failure.
void lf_run_live_finish(lf_run *run);

// lf_run_save with an end_time.
bool lf_run_save_at(lf_run *run, const char *path, const char *status, int exit_code, const struct timespec *end,
                    lf_error *err);
void lf_run_records_finish(lf_run *run);

// The calls of run_file.h for a run that is a journal.
bool lf_journal_text(lf_run *run, const char *path, const char *value, lf_error *err);
bool lf_journal_group(lf_run *run, const char *path, const char *nx_class, lf_error *err);
typedef enum lf_journal_type { LF_JOURNAL_F64, LF_JOURNAL_I64 } lf_journal_type;
// rank 0: a scalar.
bool lf_journal_numbers(lf_run *run, const char *path, lf_journal_type type, size_t rank, const uint64_t *shape,
                        const void *values, lf_error *err);
bool lf_journal_series(lf_run *run, const char *step, const char *name, size_t count, const int64_t *steps,
                       const double *times, const double *values, lf_error *err);
bool lf_journal_digest(lf_run *run, const char *step, int64_t at, const char hex[65], lf_error *err);
bool lf_journal_rewind(lf_run *run, const char *step, const char *name, int64_t at, lf_error *err);
bool lf_journal_log(lf_run *run, const char *level, const char *text, lf_error *err);
void lf_journal_close(lf_run *run);

#endif
