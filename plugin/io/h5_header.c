#include "io/h5_header.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool lf_h5_header_write(hid_t group, const char *format, int major, int minor, lf_error *err)
{
    const int version[] = { major, minor };
    const hsize_t two = 2;
    return lf_h5_set_fixed_text(group, "format", format, err) &&
           lf_h5_set_array(group, "format_version", H5T_STD_I32LE, H5T_NATIVE_INT, 1, &two, version, err) &&
           lf_h5_set_fixed_text(group, "creator", "lavaflow", err) &&
           lf_h5_set_fixed_text(group, "creator_version", LF_VERSION, err);
}

bool lf_h5_complete_write(hid_t group, lf_error *err)
{
    const uint8_t complete = 1;
    return lf_h5_set_array(group, "complete", H5T_STD_U8LE, H5T_NATIVE_UINT8, 0, NULL, &complete, err);
}

static bool version_check(hid_t root, const char *path, int major, lf_error *err)
{
    int version[2] = { 0, 0 };
    hid_t attribute = H5Aexists(root, "format_version") > 0 ? H5Aopen(root, "format_version", H5P_DEFAULT) : -1;
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    bool good = attribute >= 0 && H5Tget_class(type) == H5T_INTEGER && H5Sget_simple_extent_npoints(space) == 2 &&
                H5Aread(attribute, H5T_NATIVE_INT, version) >= 0;
    if (!good)
        lf_error_set(err, LF_EFORMAT, "%s:/@format_version: is missing or not two integers", path);
    else if (version[0] != major) {
        lf_error_set(err, LF_EUNSUPPORTED, "%s: has format version %d.%d; this lavaflow reads %d.x", path, version[0],
                     version[1], major);
        good = false;
    }
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    return good;
}

bool lf_h5_header_check(hid_t file, const char *path, const char *format, int major, const char *kind, lf_error *err)
{
    uint64_t complete = 0;
    char where[600];
    bool good = false;
    snprintf(where, sizeof where, "%s:/", path);
    hid_t root = lf_h5_object_open(file, path, "/", err);
    if (root < 0)
        return false;
    char *found = lf_h5_attribute_text(root, "format", where, err);
    if (!found)
        lf_error_prefix(err, "%s: is not a lavaflow %s", path, kind);
    else if (strcmp(found, format) != 0)
        lf_error_set(err, LF_EFORMAT, "%s@format: is \"%s\"; expects \"%s\"", where, found, format);
    else if (version_check(root, path, major, err) && lf_h5_attribute_u64(root, "complete", where, &complete, err)) {
        good = complete == 1;
        if (!good)
            lf_error_set(err, LF_EFORMAT, "%s@complete: is %llu, not 1: the file was not finished", where,
                         (unsigned long long)complete);
    }
    free(found);
    H5Oclose(root);
    return good;
}
