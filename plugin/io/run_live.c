// A file beside a run that shows it while it goes on, in HDF5's single-writer-multiple-readers mode: no object may be
// made in a file once that has begun, so a new object makes a new file, which takes the old one's place. After a kill
// the file stays readable. The models that steps have written are left out.
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/h5_disk.h"
#include "io/run_record.h"

// Each append writes the last chunk anew, so those of long texts are short.
enum { CHUNK = 1024, LOG_CHUNK = 64, COLUMNS = 4 };

// Extendable data sets that belong together and how many rows they have; the first is written last, since readers go by
// it.
typedef struct rows {
    hid_t sets[COLUMNS];
    size_t count;
} rows;

struct lf_run_live {
    lf_h5_disk disk;
    hid_t file;
    rows *series, *digests, log; // in the order of the run's
    size_t series_count, digest_count;
};

static void rows_close(rows *r)
{
    for (int i = 0; i < COLUMNS; i++)
        if (r->sets[i] > 0)
            H5Dclose(r->sets[i]);
    *r = (rows){ 0 };
}

static void live_close(struct lf_run_live *live)
{
    if (!live)
        return;
    for (size_t i = 0; i < live->series_count; i++)
        rows_close(&live->series[i]);
    for (size_t i = 0; i < live->digest_count; i++)
        rows_close(&live->digests[i]);
    rows_close(&live->log);
    if (live->file >= 0)
        H5Fclose(live->file);
    if (live->disk.fd >= 0)
        close(live->disk.fd);
    free(live->series);
    free(live->digests);
    free(live);
}

void lf_run_live_finish(lf_run *run)
{
    live_close(run->live);
    run->live = NULL;
}

void lf_run_live_close(lf_run *run)
{
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    lf_run_live_finish(run);
    lf_h5_leave(&scope);
}

hid_t lf_run_text_type(size_t size, H5T_str_t padding)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type >= 0 && H5Tset_size(type, size) >= 0 && H5Tset_strpad(type, padding) >= 0 &&
        H5Tset_cset(type, H5T_CSET_UTF8) >= 0)
        return type;
    H5Tclose(type);
    return -1;
}

// In place of one that a save has left.
static hid_t set_make(hid_t group, const char *name, hid_t type, hsize_t chunk, lf_error *err)
{
    const hsize_t none = 0, unlimited = H5S_UNLIMITED;
    hid_t space = H5Screate_simple(1, &none, &unlimited), list = H5Pcreate(H5P_DATASET_CREATE), set = -1;
    bool good = space >= 0 && (!lf_h5_exists(group, name) || H5Ldelete(group, name, H5P_DEFAULT) >= 0);
    if (good && lf_h5_prepare(list, false) && H5Pset_chunk(list, 1, &chunk) >= 0)
        set = H5Dcreate2(group, name, type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    if (set < 0)
        lf_h5_error(err, LF_EIO, "live file: %s: cannot be made", name);
    H5Pclose(list);
    H5Sclose(space);
    return set;
}

static bool set_append(hid_t set, hid_t type, size_t before, size_t count, const void *values)
{
    const hsize_t start = before, added = count, length = before + count;
    if (H5Dset_extent(set, &length) < 0)
        return false;
    hid_t file = H5Dget_space(set), memory = H5Screate_simple(1, &added, NULL);
    bool good = file >= 0 && memory >= 0 &&
                H5Sselect_hyperslab(file, H5S_SELECT_SET, &start, NULL, &added, NULL) >= 0 &&
                H5Dwrite(set, type, memory, file, H5P_DEFAULT, values) >= 0 && H5Dflush(set) >= 0;
    H5Sclose(memory);
    H5Sclose(file);
    return good;
}

static bool append_failed(const char *what, lf_error *err)
{
    lf_h5_error(err, LF_EIO, "live file: %s: cannot be written", what);
    return false;
}

static bool series_append(rows *r, const lf_run_series_data *series, lf_error *err)
{
    size_t before = r->count, added = series->count - before;
    if (!added)
        return true;
    r->count = series->count;
    return (set_append(r->sets[2], H5T_NATIVE_DOUBLE, before, added, series->values + before) &&
            set_append(r->sets[1], H5T_NATIVE_DOUBLE, before, added, series->times + before) &&
            set_append(r->sets[0], H5T_NATIVE_INT64, before, added, series->steps + before)) ||
           append_failed(series->name, err);
}

static bool digests_append(rows *r, const lf_run_digests *digests, lf_error *err)
{
    size_t before = r->count, added = digests->count - before;
    if (!added)
        return true;
    r->count = digests->count;
    hid_t type = lf_run_text_type(64, H5T_STR_NULLPAD);
    bool good = set_append(r->sets[1], type, before, added, digests->hex + before) &&
                set_append(r->sets[0], H5T_NATIVE_INT64, before, added, digests->at + before);
    H5Tclose(type);
    return good || append_failed(digests->step, err);
}

// Texts of one column, padded with zeros or cut, not inside a UTF-8 character.
static char *column(const lf_run_log_line *lines, size_t count, size_t offset, size_t size)
{
    char *all = calloc(count, size);
    for (size_t i = 0; all && i < count; i++) {
        const char *text;
        memcpy(&text, (const char *)&lines[i] + offset, sizeof text);
        size_t length = strlen(text);
        if (length > size)
            for (length = size; length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80;)
                length--;
        memcpy(all + i * size, text, length);
    }
    return all;
}

static bool column_append(hid_t set, const lf_run *run, size_t before, size_t added, size_t offset, size_t size)
{
    char *texts = column(run->lines + before, added, offset, size);
    hid_t type = lf_run_text_type(size, H5T_STR_NULLPAD);
    bool good = texts && set_append(set, type, before, added, texts);
    H5Tclose(type);
    free(texts);
    return good;
}

static bool log_append(rows *r, const lf_run *run, lf_error *err)
{
    size_t before = r->count, added = run->line_count - before;
    if (!added)
        return true;
    double *times = malloc(added * sizeof *times);
    for (size_t i = 0; times && i < added; i++)
        times[i] = run->lines[before + i].time;
    r->count = run->line_count;
    bool good = times && column_append(r->sets[3], run, before, added, offsetof(lf_run_log_line, text), LF_LIVE_TEXT) &&
                column_append(r->sets[2], run, before, added, offsetof(lf_run_log_line, step), LF_LIVE_STEP) &&
                column_append(r->sets[1], run, before, added, offsetof(lf_run_log_line, level), LF_LIVE_LEVEL) &&
                set_append(r->sets[0], H5T_NATIVE_DOUBLE, before, added, times);
    free(times);
    return good || append_failed("log", err);
}

static hid_t group_at(hid_t file, const char *path, const char *nx_class, lf_error *err)
{
    hid_t group = lf_h5_group_make(file, path, err);
    if (group >= 0 && nx_class && !lf_h5_set_text(group, "NX_class", nx_class, err)) {
        H5Gclose(group);
        return -1;
    }
    return group;
}

static bool series_make(hid_t file, const lf_run_series_data *series, rows *r, lf_error *err)
{
    char path[600];
    snprintf(path, sizeof path, "entry/metrics/%s/%s", series->step, series->name);
    hid_t group = group_at(file, path, "NXdata", err);
    bool good = group >= 0 && lf_h5_set_text(group, "signal", "value", err) &&
                lf_h5_set_text(group, "axes", "step", err) &&
                (r->sets[0] = set_make(group, "step", H5T_STD_I64LE, CHUNK, err)) >= 0 &&
                (r->sets[1] = set_make(group, "time", H5T_IEEE_F64LE, CHUNK, err)) >= 0 &&
                (r->sets[2] = set_make(group, "value", H5T_IEEE_F64LE, CHUNK, err)) >= 0;
    H5Gclose(group);
    return good;
}

static bool digests_make(hid_t file, const lf_run_digests *digests, rows *r, lf_error *err)
{
    char path[600];
    snprintf(path, sizeof path, "entry/digests/%s", digests->step);
    hid_t group = group_at(file, path, NULL, err), type = lf_run_text_type(64, H5T_STR_NULLPAD);
    bool good = group >= 0 && (r->sets[0] = set_make(group, "step", H5T_STD_I64LE, CHUNK, err)) >= 0 &&
                (r->sets[1] = set_make(group, "sha256", type, CHUNK, err)) >= 0;
    H5Tclose(type);
    H5Gclose(group);
    return good;
}

static bool log_make(hid_t file, rows *r, lf_error *err)
{
    static const struct {
        const char *name;
        size_t size;
    } texts[] = { { "level", LF_LIVE_LEVEL }, { "step", LF_LIVE_STEP }, { "text", LF_LIVE_TEXT } };
    hid_t group = group_at(file, "entry/log", "NXnote", err);
    bool good = group >= 0 && (r->sets[0] = set_make(group, "time", H5T_IEEE_F64LE, LOG_CHUNK, err)) >= 0;
    for (int i = 0; good && i < 3; i++) {
        hid_t type = lf_run_text_type(texts[i].size, H5T_STR_NULLPAD);
        r->sets[i + 1] = set_make(group, texts[i].name, type, LOG_CHUNK, err);
        good = r->sets[i + 1] >= 0;
        H5Tclose(type);
    }
    H5Gclose(group);
    return good;
}

typedef struct copying {
    hid_t from, to; // groups
} copying;

// A member of a group with all below it. Models are left out: they are big, and their files are there.
static bool copy_member(void *user, const char *name, lf_error *err)
{
    const copying *c = user;
    hid_t object = H5Oopen(c->from, name, H5P_DEFAULT);
    bool is_group = H5Iget_type(object) == H5I_GROUP;
    bool good = object >= 0;
    if (good && !is_group) {
        good = H5Ocopy(c->from, name, c->to, name, H5P_DEFAULT, H5P_DEFAULT) >= 0;
    } else if (good && H5Aexists(object, "format") <= 0) {
        copying inner = { .from = object, .to = lf_h5_group_make(c->to, name, err) };
        good = inner.to >= 0 && lf_h5_attributes_copy(object, inner.to, err) &&
               lf_h5_each_member(object, copy_member, &inner, err);
        H5Gclose(inner.to);
    }
    if (!good && !is_group)
        lf_h5_error(err, LF_EIO, "live file: %s: cannot be copied", name);
    H5Oclose(object);
    return good;
}

static bool own_attributes(hid_t entry, const char *const *attributes, lf_error *err)
{
    enum { MOST = 16 };
    const char *names[MOST];
    size_t count = 0;
    for (; attributes && attributes[2 * count]; count++) {
        if (count == MOST) {
            lf_error_set(err, LF_EARG, "live file: expects at most %d attributes", MOST);
            return false;
        }
        names[count] = attributes[2 * count];
        if (!lf_h5_set_text(entry, names[count], attributes[2 * count + 1], err))
            return false;
    }
    return !count || lf_h5_set_texts(entry, LF_LIVE_OWN, count, names, err);
}

// What does not grow.
static bool copy_static(const lf_run *run, hid_t file, const char *const *attributes, lf_error *err)
{
    static const char *const of_the_end[] = { "end_time", "exit_code" };
    copying c = { .from = run->entry, .to = lf_h5_group_make(file, "entry", err) };
    hid_t root = H5Gopen2(file, "/", H5P_DEFAULT);
    bool good = c.to >= 0 && root >= 0 && lf_h5_set_text(root, "NX_class", "NXroot", err) &&
                lf_h5_set_text(root, "default", "entry", err) && lf_h5_attributes_copy(run->entry, c.to, err) &&
                lf_h5_each_member(run->entry, copy_member, &c, err) &&
                lf_h5_write_text(c.to, "status", "running", err) && own_attributes(c.to, attributes, err);
    for (size_t i = 0; good && i < sizeof of_the_end / sizeof *of_the_end; i++)
        good = !lf_h5_exists(c.to, of_the_end[i]) || H5Ldelete(c.to, of_the_end[i], H5P_DEFAULT) >= 0;
    H5Gclose(root);
    H5Gclose(c.to);
    return good;
}

static bool tables_make(const lf_run *run, struct lf_run_live *live, lf_error *err)
{
    live->series = calloc(run->series_count + 1, sizeof *live->series);
    live->digests = calloc(run->digest_count + 1, sizeof *live->digests);
    if (!live->series || !live->digests) {
        lf_error_set(err, LF_ENOMEM, "live file: out of memory");
        return false;
    }
    live->series_count = run->series_count;
    live->digest_count = run->digest_count;
    bool good = log_make(live->file, &live->log, err);
    for (size_t i = 0; good && i < run->series_count; i++)
        good = series_make(live->file, &run->series[i], &live->series[i], err);
    for (size_t i = 0; good && i < run->digest_count; i++)
        good = digests_make(live->file, &run->digests[i], &live->digests[i], err);
    return good;
}

static bool append_all(const lf_run *run, struct lf_run_live *live, lf_error *err)
{
    bool good = log_append(&live->log, run, err);
    for (size_t i = 0; good && i < live->series_count; i++)
        good = series_append(&live->series[i], &run->series[i], err);
    for (size_t i = 0; good && i < live->digest_count; i++)
        good = digests_append(&live->digests[i], &run->digests[i], err);
    return good;
}

// "dir/.name.live.tmp" of "dir/name", which a killed writer may leave and the next one replaces.
static char *temporary_name(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t size = strlen(path) + 16;
    char *text = malloc(size);
    if (text)
        snprintf(text, size, "%.*s.%s.live.tmp", (int)(name - path), path, name);
    return text;
}

// What HDF5 was given is in the file, or *err says why not.
static bool disk_check(const struct lf_run_live *live, const char *path, lf_error *err)
{
    if (live->disk.error)
        lf_error_set(err, LF_EIO, "%s: cannot be written: %s", path, strerror(live->disk.error));
    return !live->disk.error;
}

static bool file_make(const lf_run *run, struct lf_run_live *live, const char *path, const char *const *attributes,
                      lf_error *err)
{
    char *temporary = temporary_name(path);
    if (!temporary) {
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", path);
        return false;
    }
    live->disk.fd = open(temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (live->disk.fd < 0)
        lf_error_set(err, LF_EIO, "%s: cannot be written: %s", path, strerror(errno));
    else
        live->file = lf_h5_disk_create(&live->disk, err);
    bool good = live->file >= 0 && copy_static(run, live->file, attributes, err) && tables_make(run, live, err);
    if (good && H5Fstart_swmr_write(live->file) < 0) {
        lf_h5_error(err, LF_EIO, "%s: cannot be opened to readers", path);
        good = false;
    }
    good = good && append_all(run, live, err) && disk_check(live, path, err);
    if (good && rename(temporary, path) != 0) {
        lf_error_set(err, LF_EIO, "%s: cannot be replaced: %s", path, strerror(errno));
        good = false;
    }
    if (!good)
        unlink(temporary);
    free(temporary);
    return good;
}

bool lf_run_live(lf_run *run, const char *path, const char *const *attributes, lf_error *err)
{
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    bool good = true;
    if (!run->live || run->reshaped) {
        struct lf_run_live *live = calloc(1, sizeof *live);
        if (live) {
            live->file = -1;
            live->disk = (lf_h5_disk){ .fd = -1, .followers = true };
        } else {
            lf_error_set(err, LF_ENOMEM, "live file: out of memory");
        }
        good = live && file_make(run, live, path, attributes, err);
        if (good) {
            lf_run_live_finish(run);
            run->live = live;
            run->reshaped = false;
        } else {
            live_close(live);
        }
    } else {
        good = append_all(run, run->live, err) && disk_check(run->live, path, err);
        run->reshaped = !good; // then the next call makes a new file
    }
    lf_h5_leave(&scope);
    return good;
}
