// What is taken out of a run file, and run files made of what a killed run has left.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/atomic.h"
#include "io/run_record.h"

typedef struct extraction {
    hid_t from, to;
} extraction;

static bool extract_member(void *user, const char *name, lf_error *err)
{
    const extraction *e = user;
    if (H5Ocopy(e->from, name, e->to, name, H5P_DEFAULT, H5P_DEFAULT) >= 0)
        return true;
    lf_h5_error(err, LF_EFORMAT, "%s: cannot be copied", name);
    return false;
}

bool lf_run_extract(const char *path, const char *group, const char *out, lf_error *err)
{
    void *image = NULL;
    size_t size = 0;
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    hid_t file = lf_h5_file_open(path, err), memory = -1;
    extraction e = { -1, -1 };
    if (file >= 0)
        e.from = lf_h5_object_open(file, path, group, err);
    if (e.from >= 0)
        memory = lf_h5_memory_create(0, err);
    if (memory >= 0)
        e.to = H5Gopen2(memory, "/", H5P_DEFAULT);
    if (e.to >= 0 && lf_h5_each_member(e.from, extract_member, &e, err) && lf_h5_attributes_copy(e.from, e.to, err))
        image = lf_h5_memory_image(memory, &size, err);
    else if (e.from >= 0)
        lf_error_prefix(err, "%s:%s", path, group);
    H5Gclose(e.to);
    H5Fclose(memory);
    H5Oclose(e.from);
    H5Fclose(file);
    lf_h5_leave(&scope);
    bool good = image && lf_file_replace(out, image, size, err);
    free(image);
    return good;
}

// A live file, its size, and what a visitor of its members stands in: metrics, then one of its trainings; or digests.
typedef struct reading {
    lf_run *run;
    const char *path;
    uint64_t size;
    hid_t group;
    const char *training;
} reading;

// HDF5 gives zeros for what lies beyond the end of a file, so each chunk must end before it.
static bool chunks_check(hid_t set, uint64_t file_size)
{
    hsize_t count = 0;
    hid_t space = H5Dget_space(set);
    bool good = H5Dget_num_chunks(set, space, &count) >= 0;
    for (hsize_t i = 0; good && i < count; i++) {
        hsize_t offset, size;
        unsigned filters;
        haddr_t at;
        good = H5Dget_chunk_info(set, space, i, &offset, &filters, &at, &size) >= 0 && at + size <= file_size;
    }
    H5Sclose(space);
    return good;
}

// The values of a growing data set in *values, which is freed by the caller; NULL where there are none.
static bool column_read(const reading *r, hid_t group, const char *name, hid_t type, void *values, size_t *count,
                        lf_error *err)
{
    hid_t set = lf_h5_dataset_open(group, r->path, name, H5P_DEFAULT, err), space = H5Dget_space(set);
    hssize_t length = H5Sget_simple_extent_npoints(space);
    bool good = set >= 0 && length >= 0 && chunks_check(set, r->size);
    void *read = good && length > 0 ? calloc((size_t)length, H5Tget_size(type)) : NULL;
    good = good && (!length || (read && H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, read) >= 0));
    if (set >= 0 && !good)
        lf_error_set(err, LF_EDATA, "%s: %s: is cut short or damaged", r->path, name);
    H5Sclose(space);
    H5Dclose(set);
    memcpy(values, &read, sizeof read);
    *count = good ? (size_t)length : 0;
    return good;
}

static size_t least(size_t a, size_t b, size_t c)
{
    size_t ab = a < b ? a : b;
    return ab < c ? ab : c;
}

static bool series_read(void *user, const char *name, lf_error *err)
{
    const reading *r = user;
    hid_t group = H5Gopen2(r->group, name, H5P_DEFAULT);
    size_t steps, times, values;
    int64_t *step = NULL;
    double *time = NULL, *value = NULL;
    // The steps first: where it goes on being written, the others have as many.
    bool good = column_read(r, group, "step", H5T_NATIVE_INT64, &step, &steps, err) &&
                column_read(r, group, "time", H5T_NATIVE_DOUBLE, &time, &times, err) &&
                column_read(r, group, "value", H5T_NATIVE_DOUBLE, &value, &values, err);
    H5Gclose(group);
    good = good && lf_run_series_add(r->run, r->training, name, least(steps, times, values), step, time, value, err);
    free(step);
    free(time);
    free(value);
    return good;
}

static bool training_read(void *user, const char *name, lf_error *err)
{
    reading inner = *(const reading *)user;
    char path[600];
    snprintf(path, sizeof path, "metrics/%s", name);
    inner.training = name;
    inner.group = H5Gopen2(inner.group, name, H5P_DEFAULT);
    hid_t own = inner.group >= 0 ? lf_run_group(inner.run, path, NULL, err) : -1;
    bool good = own >= 0 && lf_h5_attributes_copy(inner.group, own, err) &&
                lf_h5_each_member(inner.group, series_read, &inner, err);
    if (inner.group < 0)
        lf_h5_error(err, LF_EFORMAT, "%s: %s: cannot be opened", inner.path, path);
    H5Gclose(own);
    H5Gclose(inner.group);
    return good;
}

static bool digests_read(void *user, const char *name, lf_error *err)
{
    const reading *r = user;
    hid_t group = H5Gopen2(r->group, name, H5P_DEFAULT), type = lf_run_text_type(64, H5T_STR_NULLPAD);
    size_t steps, texts;
    int64_t *step = NULL;
    char *hex = NULL;
    bool good = column_read(r, group, "step", H5T_NATIVE_INT64, &step, &steps, err) &&
                column_read(r, group, "sha256", type, &hex, &texts, err);
    H5Tclose(type);
    H5Gclose(group);
    for (size_t i = 0; good && i < steps && i < texts; i++)
        good = lf_run_digest_add(r->run, name, step[i], hex + 64 * i, err);
    free(step);
    free(hex);
    return good;
}

// Texts of up to `size` bytes, each followed by a zero.
static bool texts_read(const reading *r, hid_t group, const char *name, size_t size, char **texts, size_t *count,
                       lf_error *err)
{
    hid_t type = lf_run_text_type(size + 1, H5T_STR_NULLTERM);
    bool good = column_read(r, group, name, type, texts, count, err);
    H5Tclose(type);
    return good;
}

static bool log_read(const reading *r, hid_t entry, lf_error *err)
{
    hid_t group = lf_h5_object_open(entry, r->path, "log", err);
    size_t times, levels, steps, texts;
    double *time = NULL;
    char *level = NULL, *step = NULL, *text = NULL;
    bool good = group >= 0 && column_read(r, group, "time", H5T_NATIVE_DOUBLE, &time, &times, err) &&
                texts_read(r, group, "level", LF_LIVE_LEVEL, &level, &levels, err) &&
                texts_read(r, group, "step", LF_LIVE_STEP, &step, &steps, err) &&
                texts_read(r, group, "text", LF_LIVE_TEXT, &text, &texts, err);
    H5Oclose(group);
    for (size_t i = 0, count = good ? least(times, levels, least(steps, texts, texts)) : 0; good && i < count; i++)
        good = lf_run_log_add(r->run, time[i], step + i * (LF_LIVE_STEP + 1), level + i * (LF_LIVE_LEVEL + 1),
                              text + i * (LF_LIVE_TEXT + 1), err);
    free(time);
    free(level);
    free(step);
    free(text);
    return good;
}

static bool member_copy(void *user, const char *name, lf_error *err)
{
    const reading *r = user;
    if (!strcmp(name, "metrics") || !strcmp(name, "digests") || !strcmp(name, "log"))
        return true;
    if ((lf_h5_exists(r->run->entry, name) && H5Ldelete(r->run->entry, name, H5P_DEFAULT) < 0) ||
        H5Ocopy(r->group, name, r->run->entry, name, H5P_DEFAULT, H5P_DEFAULT) < 0) {
        lf_h5_error(err, LF_EFORMAT, "%s: %s: cannot be copied", r->path, name);
        return false;
    }
    return true;
}

// Those of /entry but the live file's own.
static bool attributes_read(const reading *r, hid_t entry, lf_error *err)
{
    if (!lf_h5_attributes_copy(entry, r->run->entry, err))
        return false;
    if (H5Aexists(entry, LF_LIVE_OWN) <= 0)
        return true;
    hid_t attribute = H5Aopen(entry, LF_LIVE_OWN, H5P_DEFAULT);
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    hssize_t count = H5Sget_simple_extent_npoints(space);
    char **names = lf_h5_texts(attribute, lf_h5_read_attribute, type, space, r->path, err);
    H5Adelete(r->run->entry, LF_LIVE_OWN);
    for (hssize_t i = 0; names && i < count; i++)
        H5Adelete(r->run->entry, names[i]);
    free(names);
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    return names;
}

static bool group_read(reading *r, hid_t entry, const char *name, lf_h5_visit_member *visit, lf_error *err)
{
    if (!lf_h5_exists(entry, name))
        return true;
    r->group = lf_h5_object_open(entry, r->path, name, err);
    bool good = r->group >= 0 && lf_h5_each_member(r->group, visit, r, err);
    H5Oclose(r->group);
    return good;
}

static bool is_live(hid_t entry, const char *path, lf_error *err)
{
    hid_t set = lf_h5_dataset_open(entry, path, "status", H5P_DEFAULT, err);
    char *status = set >= 0 ? lf_h5_dataset_text(set, path, err) : NULL;
    bool good = status && !strcmp(status, "running");
    if (status && !good)
        lf_error_set(err, LF_EFORMAT, "%s: is no live file: its status is \"%s\", not \"running\"", path, status);
    free(status);
    H5Dclose(set);
    return good;
}

// Inside lf_h5_enter.
static bool live_read(reading *r, lf_error *err)
{
    hid_t file = lf_h5_file_open(r->path, err);
    hid_t entry = file >= 0 ? lf_h5_object_open(file, r->path, "/entry", err) : -1;
    r->group = entry;
    bool good = entry >= 0 && is_live(entry, r->path, err) && lf_h5_each_member(entry, member_copy, r, err) &&
                attributes_read(r, entry, err) && group_read(r, entry, "metrics", training_read, err) &&
                group_read(r, entry, "digests", digests_read, err) && log_read(r, entry, err);
    H5Oclose(entry);
    H5Fclose(file);
    return good;
}

bool lf_run_recover(const char *live, const char *path, const char *status, int exit_code, lf_error *err)
{
    struct stat info;
    if (stat(live, &info) != 0) {
        lf_error_set(err, errno == ENOENT ? LF_ENOTFOUND : LF_EIO, "%s: cannot open: %s", live, strerror(errno));
        return false;
    }
    lf_run *run = lf_run_create(err);
    if (!run)
        return false;
    reading r = { .run = run, .path = live, .size = (uint64_t)info.st_size };
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    bool good = live_read(&r, err);
    lf_h5_leave(&scope);
    good = good && lf_run_save_at(run, path, status, exit_code, &info.st_mtim, err);
    lf_run_destroy(run);
    return good;
}
