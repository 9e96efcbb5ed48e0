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
    char *level, *text;
} lf_run_log_line;

// Guarded by io/'s lock.
struct lf_run {
    hid_t file, entry;
    char uuid[37];
    struct timespec start;
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

bool lf_run_records_write(lf_run *run, lf_error *err); // inside lf_h5_enter
void lf_run_records_finish(lf_run *run);

#endif
