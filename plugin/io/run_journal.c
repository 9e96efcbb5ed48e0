// A run as a journal: a line that says what the file is, then a record of what each call was given. It is appended with
// one write(), so that only the last one can be torn.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "io/journal.h"
#include "io/run_record.h"

const char lf_journal_head[] = LF_JOURNAL_START;

// What is put together for a record; the frame comes first.
typedef struct writer {
    unsigned char *bytes;
    size_t size, room;
    bool failed;
} writer;

static void put(writer *w, const void *bytes, size_t size)
{
    if (w->size + size > w->room && !w->failed) {
        size_t room = 2 * (w->size + size);
        unsigned char *grown = realloc(w->bytes, room);
        w->failed = !grown;
        if (grown) {
            w->bytes = grown;
            w->room = room;
        }
    }
    if (w->failed)
        return;
    if (size)
        memcpy(w->bytes + w->size, bytes, size);
    w->size += size;
}

static void put_u64(writer *w, uint64_t value)
{
    unsigned char bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(value >> 8 * i);
    put(w, bytes, sizeof bytes);
}

static void put_f64(writer *w, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_u64(w, bits);
}

static void put_text(writer *w, const char *text)
{
    size_t size = strlen(text);
    put_u64(w, size);
    put(w, text, size + 1); // with its closing zero, so that a reader can borrow it
}

static writer record_begin(lf_journal_kind what)
{
    writer w = { 0 };
    const unsigned char frame[LF_JOURNAL_FRAME] = { 0 }, number = (unsigned char)what;
    put(&w, frame, LF_JOURNAL_FRAME);
    put(&w, &number, 1);
    return w;
}

static void set_u32(unsigned char *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (unsigned char)(value >> 8 * i);
}

static bool write_all(int fd, const unsigned char *bytes, size_t size)
{
    while (size) {
        ssize_t written = write(fd, bytes, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        bytes += written;
        size -= (size_t)written;
    }
    return true;
}

// Frees the record. A journal that could not be written is left as it was.
static bool append(lf_run *run, writer *w, lf_error *err)
{
    bool good = !w->failed;
    if (!good)
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", run->journal_path);
    if (good) {
        uint32_t size = (uint32_t)(w->size - LF_JOURNAL_FRAME);
        set_u32(w->bytes, size);
        set_u32(w->bytes + 4, ~size);
        set_u32(w->bytes + 8, (uint32_t)crc32(crc32(0, NULL, 0), w->bytes + LF_JOURNAL_FRAME, size));
        lf_h5_scope scope;
        lf_h5_enter(&scope); // one record at a time
        off_t before = lseek(run->journal, 0, SEEK_END);
        good = before >= 0 && write_all(run->journal, w->bytes, w->size);
        if (!good) {
            lf_error_set(err, LF_EIO, "%s: cannot be written: %s", run->journal_path, strerror(errno));
            if (before >= 0 && ftruncate(run->journal, before) != 0)
                lf_error_prefix(err, "and its end is torn");
        }
        lf_h5_leave(&scope);
    }
    free(w->bytes);
    return good;
}

bool lf_journal_text(lf_run *run, const char *path, const char *value, lf_error *err)
{
    if (!lf_run_path_check(path, err))
        return false;
    writer w = record_begin(LF_JOURNAL_TEXT);
    put_text(&w, path);
    put_text(&w, value);
    return append(run, &w, err);
}

bool lf_journal_group(lf_run *run, const char *path, const char *nx_class, lf_error *err)
{
    writer w = record_begin(LF_JOURNAL_GROUP);
    put_text(&w, path);
    put_text(&w, nx_class ? nx_class : "");
    return append(run, &w, err);
}

bool lf_journal_numbers(lf_run *run, const char *path, lf_journal_type type, size_t rank, const uint64_t *shape,
                        const void *values, lf_error *err)
{
    if (!lf_run_path_check(path, err))
        return false;
    writer w = record_begin(LF_JOURNAL_NUMBERS);
    size_t count = 1;
    put_text(&w, path);
    put_u64(&w, type);
    put_u64(&w, rank);
    for (size_t i = 0; i < rank; i++) {
        put_u64(&w, shape[i]);
        count *= shape[i];
    }
    for (size_t i = 0; i < count; i++) {
        if (type == LF_JOURNAL_F64)
            put_f64(&w, ((const double *)values)[i]);
        else
            put_u64(&w, (uint64_t)((const int64_t *)values)[i]);
    }
    return append(run, &w, err);
}

bool lf_journal_series(lf_run *run, const char *step, const char *name, size_t count, const int64_t *steps,
                       const double *times, const double *values, lf_error *err)
{
    writer w = record_begin(LF_JOURNAL_SERIES);
    put_text(&w, step);
    put_text(&w, name);
    put_u64(&w, count);
    for (size_t i = 0; i < count; i++) {
        put_u64(&w, (uint64_t)steps[i]);
        put_f64(&w, times[i]);
        put_f64(&w, values[i]);
    }
    return append(run, &w, err);
}

bool lf_journal_digest(lf_run *run, const char *step, int64_t at, const char hex[65], lf_error *err)
{
    writer w = record_begin(LF_JOURNAL_DIGEST);
    put_text(&w, step);
    put_u64(&w, (uint64_t)at);
    put_text(&w, hex);
    return append(run, &w, err);
}

bool lf_journal_rewind(lf_run *run, const char *step, const char *name, int64_t at, lf_error *err)
{
    writer w = record_begin(LF_JOURNAL_REWIND);
    put_text(&w, step);
    put_text(&w, name ? name : "");
    put_u64(&w, (uint64_t)at);
    return append(run, &w, err);
}

bool lf_journal_log(lf_run *run, const char *level, const char *text, lf_error *err)
{
    writer w = record_begin(LF_JOURNAL_LOG);
    put_f64(&w, lf_run_time(run));
    put_text(&w, level);
    put_text(&w, text);
    return append(run, &w, err);
}

bool lf_run_note(lf_run *run, const char *text, lf_error *err)
{
    if (run->journal < 0)
        return true;
    writer w = record_begin(LF_JOURNAL_NOTE);
    put_text(&w, text);
    return append(run, &w, err);
}

bool lf_run_sync(lf_run *run, lf_error *err)
{
    if (run->journal < 0 || fdatasync(run->journal) == 0)
        return true;
    lf_error_set(err, LF_EIO, "%s: cannot be written: %s", run->journal_path, strerror(errno));
    return false;
}

void lf_journal_close(lf_run *run)
{
    if (run->journal >= 0)
        close(run->journal);
    free(run->journal_path);
}

static bool head_write(lf_run *run, lf_error *err)
{
    struct stat info;
    if (fstat(run->journal, &info) == 0 &&
        (info.st_size > 0 || write_all(run->journal, (const unsigned char *)lf_journal_head, LF_JOURNAL_HEAD)))
        return true;
    lf_error_set(err, LF_EIO, "%s: cannot be written: %s", run->journal_path, strerror(errno));
    return false;
}

lf_run *lf_run_journal(const char *path, const char *uuid, double elapsed, lf_error *err)
{
    lf_run *run = calloc(1, sizeof *run);
    if (!run || !(run->journal_path = strdup(path))) {
        free(run);
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", path);
        return NULL;
    }
    clock_gettime(CLOCK_MONOTONIC, &run->start);
    run->elapsed = elapsed;
    run->entry = run->file = -1;
    snprintf(run->uuid, sizeof run->uuid, "%s", uuid);
    run->journal = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (run->journal < 0)
        lf_error_set(err, LF_EIO, "%s: cannot be opened: %s", path, strerror(errno));
    if (run->journal >= 0 && lf_journal_trim(path, run->journal, err) && head_write(run, err))
        return run;
    lf_run_destroy(run);
    return NULL;
}
