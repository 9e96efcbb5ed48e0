// Reads a journal and applies it to a run in memory.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "io/journal.h"
#include "io/run_record.h"

// A file that is read from an offset on, a piece at a time.
typedef struct source {
    const char *path;
    int fd;
    uint64_t offset; // of what is next
    unsigned char *bytes;
    size_t at, size, room; // next and end of what is read
} source;

static const unsigned char *source_next(const source *in)
{
    return in->bytes + in->at;
}

static bool source_open(source *in, const char *path, uint64_t offset, lf_error *err)
{
    *in = (source){ .path = path, .offset = offset ? offset : LF_JOURNAL_HEAD, .fd = open(path, O_RDONLY | O_CLOEXEC) };
    if (in->fd < 0) {
        lf_error_set(err, LF_EIO, "%s: cannot be opened: %s", path, strerror(errno));
        return false;
    }
    char start[LF_JOURNAL_HEAD];
    ssize_t got = offset ? LF_JOURNAL_HEAD : pread(in->fd, start, LF_JOURNAL_HEAD, 0);
    if (!offset && (got < 0 || memcmp(start, lf_journal_head, (size_t)got) != 0)) {
        lf_error_set(err, LF_EFORMAT, "%s: expected a journal of lavaflow, which begins with \"%.18s\"", path,
                     lf_journal_head);
        close(in->fd);
        return false;
    }
    return true;
}

// Makes `size` bytes at the offset available; false where the file ends before, or with *failed an error.
static bool source_fill(source *in, size_t size, bool *failed, lf_error *err)
{
    enum { PIECE = 1 << 20 };
    if (in->size - in->at >= size)
        return true;
    if (in->at)
        memmove(in->bytes, in->bytes + in->at, in->size - in->at);
    in->size -= in->at;
    in->at = 0;
    size_t want = size > PIECE ? size : PIECE;
    if (want > in->room) {
        unsigned char *grown = realloc(in->bytes, want);
        if (!grown) {
            lf_error_set(err, LF_ENOMEM, "%s: out of memory", in->path);
            *failed = true;
            return false;
        }
        in->bytes = grown;
        in->room = want;
    }
    while (in->size < size) {
        ssize_t got = pread(in->fd, in->bytes + in->size, in->room - in->size, (off_t)(in->offset + in->size));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            lf_error_set(err, LF_EIO, "%s: cannot be read: %s", in->path, strerror(errno));
            *failed = true;
        }
        if (got <= 0)
            return false;
        in->size += (size_t)got;
    }
    return true;
}

static void source_skip(source *in, size_t size)
{
    in->at += size;
    in->offset += size;
}

static void source_seek(source *in, uint64_t offset)
{
    in->offset = offset;
    in->at = in->size = 0;
}

static void source_close(source *in)
{
    if (in->fd >= 0)
        close(in->fd);
    free(in->bytes);
}

static uint32_t get_u32(const unsigned char *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

// What a record holds, taken from front to back; `bad` once it held less than it should.
typedef struct reader {
    const unsigned char *at, *end;
    bool bad;
} reader;

static uint64_t get_u64(reader *r)
{
    if (r->end - r->at < 8) {
        r->bad = true;
        return 0;
    }
    uint64_t value = (uint64_t)get_u32(r->at) | (uint64_t)get_u32(r->at + 4) << 32;
    r->at += 8;
    return value;
}

static double get_f64(reader *r)
{
    uint64_t bits = get_u64(r);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Borrowed of the record.
static const char *get_text(reader *r)
{
    uint64_t size = get_u64(r);
    if (r->bad || (uint64_t)(r->end - r->at) <= size || r->at[size] != 0) {
        r->bad = true;
        return "";
    }
    const char *text = (const char *)r->at;
    r->at += size + 1;
    return text;
}

// How often something of `size` bytes follows, at most.
static size_t get_count(reader *r, size_t size)
{
    uint64_t count = get_u64(r);
    r->bad |= count > (uint64_t)(r->end - r->at) / size;
    return r->bad ? 0 : (size_t)count;
}

typedef struct replay {
    lf_run *run;
    double shift;
    const char *step;
    lf_run_told_fn *told;
    void *user;
    double *last;
} replay;

static void note_time(const replay *p, double time)
{
    if (p->last)
        *p->last = time;
}

static bool apply_series(const replay *p, reader *r, lf_error *err)
{
    const char *step = get_text(r), *name = get_text(r);
    size_t count = get_count(r, 24);
    int64_t *steps = malloc(count * sizeof *steps + 1);
    double *times = malloc(count * sizeof *times + 1), *values = malloc(count * sizeof *values + 1);
    bool good = steps && times && values;
    if (!good)
        lf_error_set(err, LF_ENOMEM, "a journal's series: out of memory");
    for (size_t i = 0; good && i < count; i++) {
        steps[i] = (int64_t)get_u64(r);
        times[i] = get_f64(r) + p->shift;
        values[i] = get_f64(r);
    }
    good = good && (r->bad || lf_run_series(p->run, step, name, count, steps, times, values, err));
    if (good && !r->bad && count)
        note_time(p, times[count - 1]);
    free(steps);
    free(times);
    free(values);
    return good;
}

static bool apply_numbers(const replay *p, reader *r, lf_error *err)
{
    const char *path = get_text(r);
    lf_journal_type type = get_u64(r) == LF_JOURNAL_F64 ? LF_JOURNAL_F64 : LF_JOURNAL_I64;
    uint64_t rank = get_u64(r), shape[4] = { 0 }, count = 1;
    r->bad |= rank > 4;
    for (uint64_t i = 0; !r->bad && i < rank; i++) {
        shape[i] = get_u64(r);
        count = shape[i] && count > UINT64_MAX / shape[i] ? UINT64_MAX : count * shape[i];
    }
    r->bad |= count > (uint64_t)(r->end - r->at) / 8;
    if (r->bad)
        return true;
    uint64_t *values = malloc((size_t)count * sizeof *values + 1);
    if (!values) {
        lf_error_set(err, LF_ENOMEM, "a journal's values: out of memory");
        return false;
    }
    for (uint64_t i = 0; i < count; i++)
        values[i] = get_u64(r);
    const void *data = values;
    bool good = type == LF_JOURNAL_F64 ? (rank ? lf_run_set_f64s(p->run, path, (size_t)rank, shape, data, err)
                                               : lf_run_set_f64(p->run, path, *(const double *)data, err))
                                       : (rank ? lf_run_set_i64s(p->run, path, (size_t)rank, shape, data, err)
                                               : lf_run_set_i64(p->run, path, *(const int64_t *)data, err));
    free(values);
    return good;
}

static bool apply_digest(const replay *p, reader *r, lf_error *err)
{
    const char *step = get_text(r);
    int64_t at = (int64_t)get_u64(r);
    const char *hex = get_text(r);
    char digest[65] = "";
    r->bad |= strlen(hex) != 64;
    if (r->bad)
        return true;
    memcpy(digest, hex, sizeof digest);
    return lf_run_digest(p->run, step, at, digest, err);
}

static bool apply_log(const replay *p, reader *r, lf_error *err)
{
    double time = get_f64(r) + p->shift;
    const char *level = get_text(r), *text = get_text(r);
    if (r->bad)
        return true;
    note_time(p, time);
    if (!lf_run_log_at(p->run, time, p->step, level, text, err))
        return false;
    if (p->told)
        p->told(p->user, &(lf_run_told){ .level = level, .text = text, .time = time });
    return true;
}

static bool apply(const replay *p, reader *r, lf_error *err)
{
    const char *one, *other;
    switch (*r->at++) {
    case LF_JOURNAL_TEXT:
        one = get_text(r);
        other = get_text(r);
        return r->bad || lf_run_set_text(p->run, one, other, err);
    case LF_JOURNAL_GROUP:
        one = get_text(r);
        other = get_text(r);
        return r->bad || lf_run_set_group(p->run, one, *other ? other : NULL, err);
    case LF_JOURNAL_NUMBERS:
        return apply_numbers(p, r, err);
    case LF_JOURNAL_SERIES:
        return apply_series(p, r, err);
    case LF_JOURNAL_DIGEST:
        return apply_digest(p, r, err);
    case LF_JOURNAL_REWIND: {
        one = get_text(r);
        other = get_text(r);
        int64_t at = (int64_t)get_u64(r);
        return r->bad || lf_run_rewind(p->run, one, *other ? other : NULL, at, err);
    }
    case LF_JOURNAL_LOG:
        return apply_log(p, r, err);
    case LF_JOURNAL_NOTE:
        one = get_text(r);
        if (!r->bad && p->told)
            p->told(p->user, &(lf_run_told){ .text = one });
        return true;
    default:
        r->bad = true;
        return true;
    }
}

// The size of the whole record at the source's offset; 0: there is none, or with *failed an error.
static size_t record_size(source *in, bool *failed, lf_error *err)
{
    if (!source_fill(in, LF_JOURNAL_FRAME, failed, err))
        return 0;
    uint32_t size = get_u32(source_next(in));
    if (size == 0 || get_u32(source_next(in) + 4) != ~size ||
        !source_fill(in, LF_JOURNAL_FRAME + (size_t)size, failed, err))
        return 0;
    uint32_t sum = (uint32_t)crc32(crc32(0, NULL, 0), source_next(in) + LF_JOURNAL_FRAME, size);
    return sum == get_u32(source_next(in) + 8) ? LF_JOURNAL_FRAME + (size_t)size : 0;
}

// The same, where what is no record is the torn end of the file, or an error if a record follows.
static size_t next_record(source *in, bool *failed, lf_error *err)
{
    size_t size = record_size(in, failed, err);
    if (size || *failed)
        return size;
    const uint64_t start = in->offset;
    bool follows = false;
    while (!follows && source_fill(in, LF_JOURNAL_FRAME + 1, failed, err)) {
        source_skip(in, 1);
        follows = record_size(in, failed, err) > 0;
    }
    source_seek(in, start);
    if (!follows)
        return 0;
    size = record_size(in, failed, err); // its writer may have gone on meanwhile
    if (!size && !*failed) {
        lf_error_set(err, LF_EDATA, "%s: is damaged: the checksum of the record at byte %llu does not match", in->path,
                     (unsigned long long)start);
        *failed = true;
    }
    return size;
}

bool lf_run_replay(lf_run *run, const char *path, uint64_t *offset, double shift, const char *step,
                   lf_run_told_fn *told, void *user, double *last, lf_error *err)
{
    const replay p = { .run = run, .shift = shift, .step = step, .told = told, .user = user, .last = last };
    source in;
    if (!source_open(&in, path, *offset, err))
        return false;
    bool failed = false;
    size_t size;
    while (!failed && (size = next_record(&in, &failed, err)) > 0) {
        reader r = { .at = source_next(&in) + LF_JOURNAL_FRAME, .end = source_next(&in) + size };
        failed = !apply(&p, &r, err);
        if (!failed && r.bad) {
            lf_error_set(err, LF_EDATA, "%s: is damaged: the record at byte %llu does not hold together", path,
                         (unsigned long long)in.offset);
            failed = true;
        }
        if (failed)
            break;
        source_skip(&in, size);
    }
    *offset = in.offset;
    source_close(&in);
    return !failed;
}

bool lf_journal_trim(const char *path, int fd, lf_error *err)
{
    source in;
    if (!source_open(&in, path, 0, err))
        return false;
    bool failed = false;
    size_t size;
    while ((size = next_record(&in, &failed, err)) > 0)
        source_skip(&in, size);
    off_t end = lseek(in.fd, 0, SEEK_END) < LF_JOURNAL_HEAD ? 0 : (off_t)in.offset;
    if (!failed && ftruncate(fd, end) != 0) {
        lf_error_set(err, LF_EIO, "%s: cannot be written: %s", path, strerror(errno));
        failed = true;
    }
    source_close(&in);
    return !failed;
}
