#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/h5_header.h"
#include "io/rows_file.h"

static bool set_read(hid_t set, const char *where, uint64_t rows, uint32_t cols, float *values, lf_error *err)
{
    hsize_t dims[H5S_MAX_RANK] = { 0 };
    hid_t type = H5Dget_type(set), space = H5Dget_space(set);
    int rank = H5Sget_simple_extent_dims(space, dims, NULL);
    bool good = false;
    if (H5Tget_class(type) != H5T_FLOAT || H5Tget_size(type) != sizeof *values)
        lf_error_set(err, LF_EFORMAT, "%s: holds values of type %s, %zu bytes each; expects floats of 4 bytes", where,
                     lf_h5_type_name(type), H5Tget_size(type));
    else if (rank != (cols ? 2 : 1) || dims[0] != rows || (cols && dims[1] != cols))
        lf_error_set(err, LF_EFORMAT, "%s: has rank %d, shape (%llu, %llu); expects rank %d, shape (%llu, %lu)", where,
                     rank, (unsigned long long)dims[0], (unsigned long long)dims[1], cols ? 2 : 1,
                     (unsigned long long)rows, (unsigned long)cols);
    else if (!lf_h5_storage_check(set, where, err) || !lf_h5_written_check(set, where, err))
        good = false;
    else if (H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0)
        lf_h5_error(err, LF_EFORMAT, "%s: cannot read", where);
    else
        good = true;
    H5Sclose(space);
    H5Tclose(type);
    return good;
}

bool lf_rows_read(const char *path, const char *format, const char *object, uint64_t rows, uint32_t cols, float *values,
                  lf_error *err)
{
    char where[600];
    snprintf(where, sizeof where, "%s:%s", path, object);
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    hid_t file = lf_h5_file_open(path, err);
    bool good = file >= 0 && lf_h5_header_check(file, path, format, LF_ROWS_MAJOR, format, err);
    hid_t set = good ? lf_h5_dataset_open(file, path, object, H5P_DEFAULT, err) : -1;
    good = set >= 0 && set_read(set, where, rows, cols, values, err);
    H5Dclose(set);
    H5Fclose(file);
    lf_h5_leave(&scope);
    return good;
}

char *lf_rows_read_text(const char *path, const char *attribute)
{
    const char *at = strrchr(attribute, '@');
    if (!at)
        return NULL;
    char *object = at == attribute ? strdup("/") : strndup(attribute, (size_t)(at - attribute)), *text = NULL;
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    hid_t file = object ? lf_h5_file_open(path, NULL) : -1;
    hid_t owner = file >= 0 ? lf_h5_object_open(file, path, object, NULL) : -1;
    if (owner >= 0)
        text = lf_h5_attribute_text(owner, at + 1, path, NULL);
    H5Oclose(owner);
    H5Fclose(file);
    lf_h5_leave(&scope);
    free(object);
    return text;
}
