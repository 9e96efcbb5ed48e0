// What a data set is made of, and whether it can be read here.
#include <string.h>

#include "io/h5.h"

const char *lf_h5_type_name(hid_t type)
{
    switch (H5Tget_class(type)) {
    case H5T_INTEGER:
        return "integer";
    case H5T_FLOAT:
        return "float";
    case H5T_TIME:
        return "time";
    case H5T_STRING:
        return "string";
    case H5T_BITFIELD:
        return "bit field";
    case H5T_OPAQUE:
        return "opaque";
    case H5T_COMPOUND:
        return "compound";
    case H5T_REFERENCE:
        return "reference";
    case H5T_ENUM:
        return "enumeration";
    case H5T_VLEN:
        return "variable-length";
    case H5T_ARRAY:
        return "array";
    default:
        return "unknown";
    }
}

static bool filters_check(hid_t list, const char *where, lf_error *err)
{
    int count = H5Pget_nfilters(list);
    for (int i = 0; i < count; i++) {
        unsigned flags = 0, config = 0;
        size_t values = 0;
        char name[64] = "";
        H5Z_filter_t id = H5Pget_filter2(list, (unsigned)i, &flags, &values, NULL, sizeof name, name, NULL);
        if (id < 0) {
            lf_h5_error(err, LF_EFORMAT, "%s: cannot read filter %d", where, i);
            return false;
        }
        if (H5Zfilter_avail(id) <= 0 || H5Zget_filter_info(id, &config) < 0 ||
            !(config & H5Z_FILTER_CONFIG_DECODE_ENABLED)) {
            lf_error_set(err, LF_EUNSUPPORTED,
                         "%s: needs HDF5 filter %d%s%s%s, which is not installed (HDF5_PLUGIN_PATH names the folder)",
                         where, (int)id, *name ? " (" : "", name, *name ? ")" : "");
            return false;
        }
    }
    return true;
}

static bool storage_check(hid_t set, const char *where, int depth, lf_error *err);

// Sources in the same file may be virtual themselves, so they are checked as well.
static bool virtual_check(hid_t set, hid_t list, const char *where, int depth, lf_error *err)
{
    enum { DEPTH = 8 };
    size_t count = 0;
    hid_t file = H5Iget_file_id(set);
    bool good = depth < DEPTH && file >= 0 && H5Pget_virtual_count(list, &count) >= 0;
    if (!good)
        lf_h5_error(err, LF_EFORMAT, "%s: cannot read the virtual layout", where);
    for (size_t i = 0; good && i < count; i++) {
        char name[300] = "", source[300] = "";
        if (H5Pget_virtual_filename(list, i, name, sizeof name) < 0 ||
            H5Pget_virtual_dsetname(list, i, source, sizeof source) < 0) {
            lf_h5_error(err, LF_EFORMAT, "%s: cannot read the virtual layout", where);
            good = false;
        } else if (strcmp(name, ".") != 0 || strchr(source, '%')) {
            lf_error_set(err, LF_EUNSUPPORTED,
                         "%s: is a virtual data set with values in %s:%s; other files are not read", where, name,
                         source);
            good = false;
        } else {
            hid_t origin = lf_h5_dataset_open(file, where, source, H5P_DEFAULT, err);
            good = origin >= 0 && storage_check(origin, where, depth + 1, err);
            H5Dclose(origin);
        }
    }
    H5Fclose(file);
    return good;
}

static bool storage_check(hid_t set, const char *where, int depth, lf_error *err)
{
    hid_t list = H5Dget_create_plist(set);
    if (list < 0) {
        lf_h5_error(err, LF_EFORMAT, "%s: cannot read how it is stored", where);
        return false;
    }
    bool good = false;
    if (H5Pget_external_count(list) > 0) {
        char name[300] = "";
        H5Pget_external(list, 0, sizeof name - 1, name, NULL, NULL);
        lf_error_set(err, LF_EUNSUPPORTED, "%s: has its values outside, in %s; other files are not read", where, name);
    } else if (H5Pget_layout(list) == H5D_VIRTUAL) {
        good = virtual_check(set, list, where, depth, err);
    } else {
        good = filters_check(list, where, err);
    }
    H5Pclose(list);
    return good;
}

bool lf_h5_storage_check(hid_t set, const char *where, lf_error *err)
{
    return storage_check(set, where, 0, err);
}

bool lf_h5_written_check(hid_t set, const char *where, lf_error *err)
{
    hsize_t dims[H5S_MAX_RANK] = { 0 }, chunk[H5S_MAX_RANK] = { 0 };
    hid_t list = H5Dget_create_plist(set), space = H5Dget_space(set), type = H5Dget_type(set);
    H5D_layout_t layout = H5Pget_layout(list);
    int rank = H5Sget_simple_extent_dims(space, dims, NULL);
    uint64_t least = layout == H5D_CHUNKED ? 1 : H5Tget_size(type); // a chunk takes a byte at the very least
    bool good = layout >= 0 && rank >= 0 && (layout != H5D_CHUNKED || H5Pget_chunk(list, H5S_MAX_RANK, chunk) == rank);
    for (int i = 0; good && i < rank; i++) {
        good = layout != H5D_CHUNKED || chunk[i] > 0;
        hsize_t pieces = !good || layout != H5D_CHUNKED || dims[i] == 0 ? dims[i] : (dims[i] - 1) / chunk[i] + 1;
        least = pieces != 0 && least > UINT64_MAX / pieces ? UINT64_MAX : least * pieces;
    }
    hsize_t held = H5Dget_storage_size(set);
    if (!good) {
        lf_error_set(err, LF_EFORMAT, "%s: cannot read how it is stored", where);
    } else if (layout != H5D_VIRTUAL && least > held) {
        lf_error_set(err, LF_EDATA,
                     "%s: was not written whole: its values take at least %llu bytes, but the file holds %llu", where,
                     (unsigned long long)least, (unsigned long long)held);
        good = false;
    }
    H5Tclose(type);
    H5Sclose(space);
    H5Pclose(list);
    return good;
}
