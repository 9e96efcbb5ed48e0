#include "fixture.h"

#include <hdf5.h>

#include "rig.h"

static hid_t file;

bool fixture_open(void)
{
    file = H5Fopen(LF_FIXTURES "/pytorch.h5", H5F_ACC_RDONLY, H5P_DEFAULT);
    return file >= 0;
}

void fixture_close(void)
{
    H5Fclose(file);
}

static void read_attribute(const char *group, const char *name, hid_t type, void *out)
{
    hid_t id = H5Aopen_by_name(file, group, name, H5P_DEFAULT, H5P_DEFAULT);
    if (id < 0 || H5Aread(id, type, out) < 0)
        fail_msg("%s/@%s cannot be read", group, name);
    H5Aclose(id);
}

bool fixture_has(const char *group, const char *attribute)
{
    return H5Aexists_by_name(file, group, attribute, H5P_DEFAULT) > 0;
}

void fixture_text(const char *group, const char *attribute, char *text, size_t size)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, size);
    read_attribute(group, attribute, type, text);
    H5Tclose(type);
}

uint32_t fixture_uint(const char *group, const char *attribute)
{
    uint32_t value;
    read_attribute(group, attribute, H5T_NATIVE_UINT32, &value);
    return value;
}

double fixture_double(const char *group, const char *attribute)
{
    double value;
    read_attribute(group, attribute, H5T_NATIVE_DOUBLE, &value);
    return value;
}

size_t fixture_uints(const char *group, const char *attribute, uint64_t *values, size_t capacity)
{
    hid_t id = H5Aopen_by_name(file, group, attribute, H5P_DEFAULT, H5P_DEFAULT), space = H5Aget_space(id);
    hssize_t count = H5Sget_simple_extent_npoints(space);
    if (count < 0 || (size_t)count > capacity || H5Aread(id, H5T_NATIVE_UINT64, values) < 0)
        fail_msg("%s/@%s cannot be read as at most %zu numbers", group, attribute, capacity);
    H5Sclose(space);
    H5Aclose(id);
    return (size_t)count;
}

double *fixture_values(const char *group, const char *name, size_t count)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", group, name);
    hid_t id = H5Dopen2(file, path, H5P_DEFAULT), space = id < 0 ? -1 : H5Dget_space(id);
    double *values = calloc(count, sizeof *values);
    if (space < 0 || H5Sget_simple_extent_npoints(space) != (hssize_t)count ||
        H5Dread(id, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0)
        fail_msg("%s: cannot be read as %zu elements", path, count);
    H5Sclose(space);
    H5Dclose(id);
    return values;
}
