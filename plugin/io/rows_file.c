// The values do not pass through HDF5: it lays each matrix out in one piece of the temporary file, and rows are written
// to their place there. So memory stays small, and a full disk is an error of the very rows that do not fit.
#include "io/rows_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/atomic.h"
#include "io/h5_disk.h"
#include "io/h5_header.h"

typedef struct matrix {
    char *name; // without a slash in front
    uint64_t rows, put;
    size_t row_size; // bytes
    off_t offset;    // of its first row in the file
} matrix;

struct lf_rows_file {
    char *path;
    lf_replacement *replacement;
    lf_h5_disk disk;
    hid_t h5;
    matrix *matrices;
    size_t count;
};

lf_rows_file *lf_rows_create(const char *path, const char *format, lf_error *err)
{
    lf_rows_file *file = calloc(1, sizeof *file);
    if (file)
        file->h5 = -1;
    if (!file || !(file->path = strdup(path))) {
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", path);
        lf_rows_abandon(file);
        return NULL;
    }
    file->replacement = lf_replace_begin(path, err);
    if (!file->replacement) {
        lf_rows_abandon(file);
        return NULL;
    }
    file->disk.fd = lf_replace_fd(file->replacement);
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    file->h5 = lf_h5_disk_create(&file->disk, err);
    hid_t root = file->h5 >= 0 ? H5Gopen2(file->h5, "/", H5P_DEFAULT) : -1;
    bool good = root >= 0 && lf_h5_header_write(root, format, LF_ROWS_MAJOR, LF_ROWS_MINOR, err);
    H5Gclose(root);
    lf_h5_leave(&scope);
    if (!good) {
        lf_error_prefix(err, "%s", path);
        lf_rows_abandon(file);
        return NULL;
    }
    return file;
}

static const char *plain_name(const char *object)
{
    return object + (object[0] == '/');
}

static matrix *find(const lf_rows_file *file, const char *object)
{
    for (size_t i = 0; i < file->count; i++)
        if (strcmp(file->matrices[i].name, plain_name(object)) == 0)
            return &file->matrices[i];
    return NULL;
}

static bool name_check(const lf_rows_file *file, const char *object, lf_error *err)
{
    const char *name = plain_name(object);
    size_t length = strlen(name);
    bool good = length > 0 && name[0] != '/' && name[length - 1] != '/' && !strstr(name, "//") && !strchr(name, '@');
    for (const char *part = name; good && part;) {
        size_t part_length = strcspn(part, "/");
        good = strncmp(part, ".", part_length) != 0 && strncmp(part, "..", part_length) != 0;
        part = part[part_length] ? part + part_length + 1 : NULL;
    }
    if (!good)
        lf_error_set(err, LF_EARG, "%s: \"%s\" is no name for an object", file->path, object);
    return good;
}

bool lf_rows_add(lf_rows_file *file, const char *object, lf_dtype type, uint64_t rows, uint32_t cols, lf_error *err)
{
    if (!name_check(file, object, err))
        return false;
    if (type != LF_F32 && type != LF_U32) {
        lf_error_set(err, LF_EARG, "%s:%s: has type %s; expects f32 or u32", file->path, object, lf_dtype_name(type));
        return false;
    }
    const size_t row_size = (cols ? cols : 1) * lf_dtype_size(type);
    if (rows == 0 || rows > INT64_MAX / 2 / row_size) {
        lf_error_set(err, LF_EARG, "%s:%s: has %llu rows of %zu bytes; expects 1 to %llu rows", file->path, object,
                     (unsigned long long)rows, row_size, (unsigned long long)(INT64_MAX / 2 / row_size));
        return false;
    }
    if (find(file, object)) {
        lf_error_set(err, LF_EARG, "%s:%s: is there already", file->path, object);
        return false;
    }
    matrix *grown = realloc(file->matrices, (file->count + 1) * sizeof *grown);
    if (grown)
        file->matrices = grown;
    matrix made = { .name = strdup(plain_name(object)), .rows = rows, .row_size = row_size };
    if (!grown || !made.name) {
        lf_error_set(err, LF_ENOMEM, "%s:%s: out of memory", file->path, object);
        free(made.name);
        return false;
    }
    const hsize_t dims[] = { rows, cols };
    haddr_t offset;
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    bool good = lf_h5_reserve(file->h5, made.name, type == LF_F32 ? H5T_IEEE_F32LE : H5T_STD_U32LE, cols ? 2 : 1, dims,
                              &offset, err);
    lf_h5_leave(&scope);
    if (!good) {
        lf_error_prefix(err, "%s", file->path);
        free(made.name);
        return false;
    }
    made.offset = (off_t)offset;
    file->matrices[file->count++] = made;
    return true;
}

bool lf_rows_put(lf_rows_file *file, const char *object, uint64_t first, size_t count, const void *values,
                 lf_error *err)
{
    matrix *to = find(file, object);
    if (!to) {
        char list[300] = "";
        size_t used = 0;
        for (size_t i = 0; i < file->count && used < sizeof list; i++)
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", file->matrices[i].name);
        lf_error_set(err, LF_ENOTFOUND, "%s:%s: no such object: the file has %s", file->path, object,
                     file->count ? list : "none");
        return false;
    }
    if (count == 0)
        return true;
    if (first >= to->rows || count > to->rows - first) {
        lf_error_set(err, LF_EARG, "%s:%s: %zu rows from row %llu are outside 0..%llu", file->path, object, count,
                     (unsigned long long)first, (unsigned long long)to->rows - 1);
        return false;
    }
    if (!lf_h5_disk_write(file->disk.fd, values, count * to->row_size, to->offset + (off_t)(first * to->row_size))) {
        lf_error_set(err, LF_EIO, "%s:%s: cannot write rows %llu..%llu: %s", file->path, object,
                     (unsigned long long)first, (unsigned long long)(first + count - 1), strerror(errno));
        return false;
    }
    to->put += count;
    return true;
}

bool lf_rows_text(lf_rows_file *file, const char *path, const char *value, lf_error *err)
{
    enum { MOST = 60000 }; // HDF5 keeps attributes under 64 KiB
    const char *at = strrchr(path, '@');
    if (!at || !at[1]) {
        lf_error_set(err, LF_EARG, "%s: \"%s\" names no attribute; expects object@name or @name", file->path, path);
        return false;
    }
    if (strlen(value) > MOST) {
        lf_error_set(err, LF_EARG, "%s:%s: has %zu bytes; expects at most %d", file->path, path, strlen(value), MOST);
        return false;
    }
    char *object = at == path ? strdup("/") : strndup(path, (size_t)(at - path));
    if (!object) {
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", file->path);
        return false;
    }
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    hid_t owner = lf_h5_object_open(file->h5, file->path, object, err);
    bool good = owner >= 0 && lf_h5_set_fixed_text(owner, at + 1, value, err);
    if (owner >= 0 && !good)
        lf_error_prefix(err, "%s:%s", file->path, object);
    H5Oclose(owner);
    lf_h5_leave(&scope);
    free(object);
    return good;
}

static bool all_put(const lf_rows_file *file, lf_error *err)
{
    for (size_t i = 0; i < file->count; i++) {
        const matrix *m = &file->matrices[i];
        if (m->put >= m->rows)
            continue;
        lf_error_set(err, LF_EARG, "%s:%s: has %llu rows, but only %llu were put", file->path, m->name,
                     (unsigned long long)m->rows, (unsigned long long)m->put);
        return false;
    }
    return true;
}

// Marks the file complete and closes it in HDF5.
static bool h5_finish(lf_rows_file *file, lf_error *err)
{
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    hid_t root = H5Gopen2(file->h5, "/", H5P_DEFAULT);
    bool good = root >= 0 && lf_h5_complete_write(root, err);
    H5Gclose(root);
    if (good && H5Fclose(file->h5) < 0) {
        lf_h5_error(err, LF_EIO, "cannot close the HDF5 file");
        good = false;
    }
    if (good)
        file->h5 = -1;
    lf_h5_leave(&scope);
    if (!good) {
        lf_error_prefix(err, "%s", file->path);
    } else if (file->disk.error) {
        lf_error_set(err, LF_EIO, "%s: cannot write: %s", file->path, strerror(file->disk.error));
        good = false;
    }
    return good;
}

bool lf_rows_finish(lf_rows_file *file, lf_error *err)
{
    bool good = all_put(file, err) && h5_finish(file, err);
    if (good) {
        good = lf_replace_finish(file->replacement, err);
        file->replacement = NULL;
    }
    lf_rows_abandon(file);
    return good;
}

void lf_rows_abandon(lf_rows_file *file)
{
    if (!file)
        return;
    if (file->h5 >= 0) {
        lf_h5_scope scope;
        file->disk.error = ECANCELED; // what HDF5 still holds need not be written
        lf_h5_enter(&scope);
        H5Fclose(file->h5);
        lf_h5_leave(&scope);
    }
    lf_replace_abandon(file->replacement);
    for (size_t i = 0; i < file->count; i++)
        free(file->matrices[i].name);
    free(file->matrices);
    free(file->path);
    free(file);
}
