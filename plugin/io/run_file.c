#include "io/run_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "io/atomic.h"
#include "io/model_content.h"
#include "io/run_record.h"

// What a group that is only on the way to something is in NeXus' terms.
static const char *nexus_class(const char *path)
{
    if (strcmp(path, "parameters") == 0)
        return "NXparameters";
    if (strncmp(path, "step_", 5) == 0 && !strchr(path, '/'))
        return "NXprocess";
    return "NXcollection";
}

static bool path_check(const char *path, lf_error *err)
{
    size_t length = strlen(path);
    bool good = length > 0 && path[0] != '/' && path[length - 1] != '/' && !strstr(path, "//");
    for (const char *part = path; good && part;) {
        size_t part_length = strcspn(part, "/");
        good = strncmp(part, ".", part_length) != 0 && strncmp(part, "..", part_length) != 0;
        part = part[part_length] ? part + part_length + 1 : NULL;
    }
    if (!good)
        lf_error_set(err, LF_EARG, "run file: \"%s\" is no path below /entry", path);
    return good;
}

// Where the name of an attribute begins in a path, at its '@'; NULL: the path names none.
static const char *attribute_of(const char *path)
{
    const char *slash = strrchr(path, '/'), *at = strrchr(path, '@');
    return at && !(slash && at < slash) ? at : NULL;
}

bool lf_run_path_check(const char *path, lf_error *err)
{
    const char *at = attribute_of(path);
    if (!at)
        return path_check(path, err);
    if (!at[1]) {
        lf_error_set(err, LF_EARG, "run file: \"%s\" names no attribute", path);
        return false;
    }
    char *owner = strndup(path, (size_t)(at - path));
    if (!owner)
        lf_error_set(err, LF_ENOMEM, "run file: out of memory");
    bool good = owner && (!*owner || path_check(owner, err));
    free(owner);
    return good;
}

static bool refuse(const lf_run *run, lf_error *err)
{
    lf_error_set(err, LF_EARG, "%s: a journal holds no models and is not saved", run->journal_path);
    return false;
}

hid_t lf_run_group(const lf_run *run, const char *path, const char *nx_class, lf_error *err)
{
    if (!path_check(path, err))
        return -1;
    char *prefix = strdup(path);
    if (!prefix) {
        lf_error_set(err, LF_ENOMEM, "run file: out of memory");
        return -1;
    }
    hid_t group = -1;
    for (size_t i = 1, length = strlen(path); i <= length; i++) {
        if (path[i] != '/' && path[i] != 0)
            continue;
        prefix[i] = 0;
        bool is_new = !lf_h5_exists(run->entry, prefix);
        H5Gclose(group);
        group = lf_h5_group_make(run->entry, prefix, err);
        const char *class = path[i] == 0 && nx_class ? nx_class : is_new ? nexus_class(prefix) : NULL;
        if (group < 0 || (class && !lf_h5_set_text(group, "NX_class", class, err))) {
            H5Gclose(group);
            group = -1;
            break;
        }
        prefix[i] = path[i];
    }
    free(prefix);
    return group;
}

// Opens what an attribute is set on; a missing one becomes a group.
static hid_t attribute_owner(const lf_run *run, const char *path, lf_error *err)
{
    if (!lf_h5_exists(run->entry, path))
        return lf_run_group(run, path, NULL, err);
    hid_t object = H5Oopen(run->entry, path, H5P_DEFAULT);
    if (object < 0)
        lf_h5_error(err, LF_EARG, "run file: %s: cannot open", path);
    return object;
}

// A value with its type in the file and in memory; rank 0: a scalar.
typedef struct typed {
    hid_t type, memory_type;
    int rank;
    const hsize_t *dims;
    const void *data;
} typed;

static bool has_shape(hid_t space, const typed *v)
{
    hsize_t dims[H5S_MAX_RANK] = { 0 };
    H5S_class_t class = v->rank == 0 ? H5S_SCALAR : H5S_SIMPLE;
    bool same = H5Sget_simple_extent_type(space) == class && H5Sget_simple_extent_dims(space, dims, NULL) == v->rank;
    for (int i = 0; same && i < v->rank; i++)
        same = dims[i] == v->dims[i];
    return same;
}

// Overwrites a value of the same type and shape, so that its attributes stay.
static bool overwrite(const lf_run *run, const char *path, const typed *v)
{
    hid_t set = lf_h5_exists(run->entry, path) ? H5Dopen2(run->entry, path, H5P_DEFAULT) : -1;
    if (set < 0)
        return false;
    hid_t old_type = H5Dget_type(set), space = H5Dget_space(set);
    bool good = H5Tequal(old_type, v->type) > 0 && has_shape(space, v) &&
                H5Dwrite(set, v->memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, v->data) >= 0;
    H5Sclose(space);
    H5Tclose(old_type);
    H5Dclose(set);
    return good;
}

// A data set, or an attribute if the last part of the path has an '@'.
static bool set_value(lf_run *run, const char *path, const typed *v, lf_error *err)
{
    if (!lf_run_path_check(path, err))
        return false;
    run->reshaped = true;
    const char *slash = strrchr(path, '/'), *at = attribute_of(path);
    if (!at) {
        if (slash) {
            char *parent = strndup(path, (size_t)(slash - path));
            hid_t group = parent ? lf_run_group(run, parent, NULL, err) : -1;
            free(parent);
            if (group < 0)
                return false;
            H5Gclose(group);
        }
        return overwrite(run, path, v) ||
               lf_h5_write_array(run->entry, path, v->type, v->memory_type, v->rank, v->dims, v->data, err);
    }
    char *owner = strndup(path, (size_t)(at - path));
    hid_t object = !owner ? -1 : *owner ? attribute_owner(run, owner, err) : H5Oopen(run->entry, ".", H5P_DEFAULT);
    bool good = object >= 0 && lf_h5_set_array(object, at + 1, v->type, v->memory_type, v->rank, v->dims, v->data, err);
    free(owner);
    H5Oclose(object);
    return good;
}

static bool set_scalar(lf_run *run, const char *path, hid_t type, hid_t memory_type, const void *data, lf_error *err)
{
    return set_value(run, path, &(typed){ .type = type, .memory_type = memory_type, .data = data }, err);
}

static bool set_array(lf_run *run, const char *path, lf_journal_type kind, size_t rank, const uint64_t *shape,
                      const void *data, lf_error *err)
{
    enum { MOST = 4 };
    hsize_t dims[MOST];
    if (rank < 1 || rank > MOST) {
        lf_error_set(err, LF_EARG, "run file: %s: an array of rank %zu; expects 1 to %d", path, rank, MOST);
        return false;
    }
    if (run->journal >= 0)
        return lf_journal_numbers(run, path, kind, rank, shape, data, err);
    for (size_t i = 0; i < rank; i++)
        dims[i] = shape[i];
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    const bool whole = kind == LF_JOURNAL_I64;
    const typed v = { .type = whole ? H5T_STD_I64LE : H5T_IEEE_F64LE,
                      .memory_type = whole ? H5T_NATIVE_INT64 : H5T_NATIVE_DOUBLE,
                      .rank = (int)rank,
                      .dims = dims,
                      .data = data };
    bool good = set_value(run, path, &v, err);
    lf_h5_leave(&scope);
    return good;
}

bool lf_run_set_text(lf_run *run, const char *path, const char *value, lf_error *err)
{
    if (run->journal >= 0)
        return lf_journal_text(run, path, value, err);
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    hid_t type = lf_h5_text_type();
    bool good = set_scalar(run, path, type, type, &value, err);
    H5Tclose(type);
    lf_h5_leave(&scope);
    return good;
}

bool lf_run_set_f64(lf_run *run, const char *path, double value, lf_error *err)
{
    if (run->journal >= 0)
        return lf_journal_numbers(run, path, LF_JOURNAL_F64, 0, NULL, &value, err);
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    bool good = set_scalar(run, path, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value, err);
    lf_h5_leave(&scope);
    return good;
}

bool lf_run_set_i64(lf_run *run, const char *path, int64_t value, lf_error *err)
{
    if (run->journal >= 0)
        return lf_journal_numbers(run, path, LF_JOURNAL_I64, 0, NULL, &value, err);
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    bool good = set_scalar(run, path, H5T_STD_I64LE, H5T_NATIVE_INT64, &value, err);
    lf_h5_leave(&scope);
    return good;
}

bool lf_run_set_f64s(lf_run *run, const char *path, size_t rank, const uint64_t *shape, const double *values,
                     lf_error *err)
{
    return set_array(run, path, LF_JOURNAL_F64, rank, shape, values, err);
}

bool lf_run_set_i64s(lf_run *run, const char *path, size_t rank, const uint64_t *shape, const int64_t *values,
                     lf_error *err)
{
    return set_array(run, path, LF_JOURNAL_I64, rank, shape, values, err);
}

bool lf_run_set_group(lf_run *run, const char *path, const char *nx_class, lf_error *err)
{
    if (run->journal >= 0)
        return path_check(path, err) && lf_journal_group(run, path, nx_class, err);
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    run->reshaped = true;
    hid_t group = lf_run_group(run, path, nx_class, err);
    bool good = group >= 0;
    H5Gclose(group);
    lf_h5_leave(&scope);
    return good;
}

bool lf_run_model(lf_run *run, const char *step, const char *name, lf_model_file *file, lf_error *err)
{
    if (run->journal >= 0)
        return refuse(run, err);
    char path[600];
    snprintf(path, sizeof path, "result/%s/%s", step, name);
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    bool good = true;
    if (lf_h5_exists(run->entry, path) && H5Ldelete(run->entry, path, H5P_DEFAULT) < 0) {
        lf_h5_error(err, LF_EARG, "run file: %s: cannot replace", path);
        good = false;
    }
    hid_t group = good ? lf_run_group(run, path, NULL, err) : -1;
    good = group >= 0 && lf_model_content_write(group, file, err);
    H5Gclose(group);
    lf_h5_leave(&scope);
    return good;
}

static void utc_text(const struct timespec *when, char text[40])
{
    struct tm parts;
    char seconds[32];
    gmtime_r(&when->tv_sec, &parts);
    strftime(seconds, sizeof seconds, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(text, 40, "%s.%03dZ", seconds, (int)(when->tv_nsec / 1000000));
}

// A random UUID, RFC 4122 version 4.
static bool new_uuid(char text[37], lf_error *err)
{
    unsigned char b[16];
    if (getrandom(b, sizeof b, 0) != (ssize_t)sizeof b) {
        lf_error_set(err, LF_EIO, "run file: no random bytes for its UUID");
        return false;
    }
    b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
    for (int i = 0, at = 0; i < 16; i++)
        at += snprintf(text + at, (size_t)(37 - at), i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", b[i]);
    return true;
}

static bool head_write(lf_run *run, lf_error *err)
{
    char now[40];
    struct timespec start;
    clock_gettime(CLOCK_REALTIME, &start);
    utc_text(&start, now);
    hid_t root = H5Gopen2(run->file, "/", H5P_DEFAULT);
    bool good = new_uuid(run->uuid, err) && root >= 0 && lf_h5_set_text(root, "NX_class", "NXroot", err) &&
                lf_h5_set_text(root, "default", "entry", err) && lf_h5_set_text(root, "creator", "lavaflow", err) &&
                lf_h5_set_text(root, "creator_version", LF_VERSION, err) &&
                lf_h5_set_text(run->entry, "NX_class", "NXentry", err) &&
                lf_h5_write_text(run->entry, "entry_identifier_uuid", run->uuid, err) &&
                lf_h5_write_text(run->entry, "start_time", now, err) &&
                lf_h5_write_text(run->entry, "program_name", "lavaflow", err);
    hid_t program = good ? H5Dopen2(run->entry, "program_name", H5P_DEFAULT) : -1;
    good = program >= 0 && lf_h5_set_text(program, "version", LF_VERSION, err);
    H5Dclose(program);
    H5Gclose(root);
    return good;
}

const char *lf_run_uuid(const lf_run *run)
{
    return run->uuid;
}

lf_run *lf_run_create(lf_error *err)
{
    lf_run *run = calloc(1, sizeof *run);
    if (!run) {
        lf_error_set(err, LF_ENOMEM, "run file: out of memory");
        return NULL;
    }
    clock_gettime(CLOCK_MONOTONIC, &run->start);
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    run->entry = run->journal = -1;
    run->file = lf_h5_memory_create(0, err);
    if (run->file >= 0)
        run->entry = lf_h5_group_make(run->file, "entry", err);
    bool good = run->entry >= 0 && head_write(run, err);
    lf_h5_leave(&scope);
    if (!good) {
        lf_run_destroy(run);
        return NULL;
    }
    return run;
}

void lf_run_destroy(lf_run *run)
{
    if (!run)
        return;
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    lf_run_live_finish(run);
    if (run->entry >= 0)
        H5Gclose(run->entry);
    if (run->file >= 0)
        H5Fclose(run->file);
    lf_h5_leave(&scope);
    lf_run_records_finish(run);
    lf_journal_close(run);
    free(run);
}

double lf_run_time(const lf_run *run)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return run->elapsed + (double)(now.tv_sec - run->start.tv_sec) + 1e-9 * (double)(now.tv_nsec - run->start.tv_nsec);
}

bool lf_run_save_at(lf_run *run, const char *path, const char *status, int exit_code, const struct timespec *when,
                    lf_error *err)
{
    char text[40];
    utc_text(when, text);
    const char *end = text;
    const int64_t code = exit_code;
    void *image = NULL;
    size_t size = 0;
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    hid_t type = lf_h5_text_type();
    if (set_scalar(run, "end_time", type, type, &end, err) && set_scalar(run, "status", type, type, &status, err) &&
        set_scalar(run, "exit_code", H5T_STD_I64LE, H5T_NATIVE_INT64, &code, err) && lf_run_records_write(run, err) &&
        lf_run_digests_write(run, err))
        image = lf_h5_memory_image(run->file, &size, err);
    H5Tclose(type);
    lf_h5_leave(&scope);
    if (!image)
        lf_error_prefix(err, "%s", path);
    bool good = image && lf_file_replace(path, image, size, err);
    free(image);
    return good;
}

bool lf_run_save(lf_run *run, const char *path, const char *status, int exit_code, lf_error *err)
{
    if (run->journal >= 0)
        return refuse(run, err);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return lf_run_save_at(run, path, status, exit_code, &now, err);
}
