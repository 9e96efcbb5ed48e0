#include "io/h5_write.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SERIES_CHUNK = 1024, DEFLATE_LEVEL = 4 };

// No times, and the order of its attributes (a group: also of its links). That order
// asks for HDF5 1.8's object headers, which have checksums: damage to them is an error, whereas HDF5 itself can crash
// on damage to the older ones. (Asking for 1.8's format as a whole runs into a defect of 1.10: H5Fget_file_image leaves
// a wrong checksum on the file's own header.) Links and attributes stay in those headers, however many: HDF5 1.10 crashes
// on damage to the heaps that it would move them to.
bool lf_h5_prepare(hid_t list, bool is_group)
{
    enum { MOST = 4096 };
    return list >= 0 && H5Pset_obj_track_times(list, false) >= 0 &&
           H5Pset_attr_creation_order(list, H5P_CRT_ORDER_TRACKED) >= 0 &&
           H5Pset_attr_phase_change(list, MOST, MOST - 1) >= 0 &&
           (!is_group || (H5Pset_link_creation_order(list, H5P_CRT_ORDER_TRACKED) >= 0 &&
                          H5Pset_link_phase_change(list, MOST, MOST - 1) >= 0));
}

hid_t lf_h5_memory_create(size_t size, lf_error *err)
{
    const size_t least = 64 << 10;
    // HDF5 tells files in memory apart by their names: a run is open while a model is written.
    static atomic_uint count;
    char name[32];
    snprintf(name, sizeof name, "lavaflow-%u", atomic_fetch_add(&count, 1));
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), creation = H5Pcreate(H5P_FILE_CREATE), file = -1;
    // The file grows by this step, and each growth may copy it.
    if (access >= 0 && creation >= 0 && H5Pset_fapl_core(access, size / 8 + least, false) >= 0 &&
        lf_h5_prepare(creation, true))
        file = H5Fcreate(name, H5F_ACC_TRUNC, creation, access);
    if (file < 0)
        lf_h5_error(err, LF_ENOMEM, "cannot create an HDF5 file in memory");
    H5Pclose(creation);
    H5Pclose(access);
    return file;
}

void *lf_h5_memory_image(hid_t file, size_t *size, lf_error *err)
{
    ssize_t bytes = H5Fflush(file, H5F_SCOPE_LOCAL) >= 0 ? H5Fget_file_image(file, NULL, 0) : -1;
    void *image = bytes > 0 ? malloc((size_t)bytes) : NULL;
    if (bytes > 0 && !image) {
        lf_error_set(err, LF_ENOMEM, "out of memory for a file of %zd bytes", bytes);
    } else if (bytes <= 0 || H5Fget_file_image(file, image, (size_t)bytes) != bytes) {
        lf_h5_error(err, LF_ENOMEM, "cannot build the HDF5 file");
        free(image);
        image = NULL;
    }
    *size = image ? (size_t)bytes : 0;
    return image;
}

hid_t lf_h5_text_type(void)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type >= 0 && H5Tset_size(type, H5T_VARIABLE) >= 0 && H5Tset_cset(type, H5T_CSET_UTF8) >= 0)
        return type;
    H5Tclose(type);
    return -1;
}

// An empty text takes one zero: HDF5 has no strings of no bytes.
static hid_t fixed_text_type(const char *text)
{
    size_t length = strlen(text);
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type >= 0 && H5Tset_size(type, length ? length : 1) >= 0 && H5Tset_cset(type, H5T_CSET_UTF8) >= 0 &&
        H5Tset_strpad(type, H5T_STR_NULLPAD) >= 0)
        return type;
    H5Tclose(type);
    return -1;
}

// Opens or makes one group whose parent exists. HDF5 can make all groups of a path at once, but those carry times.
static hid_t one_group(hid_t at, const char *path, lf_error *err)
{
    if (lf_h5_exists(at, path)) {
        hid_t there = H5Gopen2(at, path, H5P_DEFAULT);
        if (there < 0)
            lf_error_set(err, LF_EARG, "%s: is not a group", path);
        return there;
    }
    hid_t list = H5Pcreate(H5P_GROUP_CREATE), group = -1;
    if (lf_h5_prepare(list, true))
        group = H5Gcreate2(at, path, H5P_DEFAULT, list, H5P_DEFAULT);
    if (group < 0)
        lf_h5_error(err, LF_EARG, "%s: cannot make the group", path);
    H5Pclose(list);
    return group;
}

hid_t lf_h5_group_make(hid_t at, const char *path, lf_error *err)
{
    char *prefix = strdup(path);
    hid_t group = prefix ? H5Gopen2(at, ".", H5P_DEFAULT) : -1;
    if (group < 0)
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", path);
    for (size_t i = 1, length = strlen(path); group >= 0 && length > 0 && i <= length; i++) {
        if ((path[i] != '/' && path[i] != 0) || path[i - 1] == '/')
            continue;
        prefix[i] = 0;
        H5Gclose(group);
        group = one_group(at, prefix, err);
        prefix[i] = path[i];
    }
    free(prefix);
    return group;
}

// The group that holds the last part of a path.
static hid_t parent_make(hid_t at, const char *path, lf_error *err)
{
    const char *slash = strrchr(path, '/');
    char *parent = strndup(path, slash ? (size_t)(slash - path) : 0);
    hid_t group = parent ? lf_h5_group_make(at, parent, err) : -1;
    if (!parent)
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", path);
    free(parent);
    return group;
}

// A group is not replaced: it holds other things.
static bool remove_older(hid_t at, const char *path, lf_error *err)
{
    if (!lf_h5_exists(at, path))
        return true;
    hid_t older = H5Oopen(at, path, H5P_DEFAULT);
    bool is_group = H5Iget_type(older) == H5I_GROUP;
    H5Oclose(older);
    if (is_group)
        lf_error_set(err, LF_EARG, "%s: is a group; it cannot become a value", path);
    else if (H5Ldelete(at, path, H5P_DEFAULT) < 0)
        lf_h5_error(err, LF_EARG, "%s: cannot replace", path);
    else
        return true;
    return false;
}

static bool write_set(hid_t at, const char *path, hid_t file_type, hid_t memory_type, hid_t space, hid_t list,
                      const void *values, lf_error *err)
{
    hid_t parent = remove_older(at, path, err) ? parent_make(at, path, err) : -1, set = -1;
    if (parent < 0)
        return false;
    if (space >= 0 && lf_h5_prepare(list, false))
        set = H5Dcreate2(at, path, file_type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    bool good = set >= 0 && H5Dwrite(set, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0;
    if (!good)
        lf_h5_error(err, LF_EARG, "%s: cannot write", path);
    H5Dclose(set);
    H5Gclose(parent);
    return good;
}

static hid_t space_of(int rank, const hsize_t *dims)
{
    return rank == 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(rank, dims, NULL);
}

bool lf_h5_write_array(hid_t at, const char *path, hid_t file_type, hid_t memory_type, int rank, const hsize_t *dims,
                       const void *values, lf_error *err)
{
    hid_t space = space_of(rank, dims), list = H5Pcreate(H5P_DATASET_CREATE);
    bool good = write_set(at, path, file_type, memory_type, space, list, values, err);
    H5Pclose(list);
    H5Sclose(space);
    return good;
}

bool lf_h5_reserve(hid_t at, const char *path, hid_t type, int rank, const hsize_t *dims, haddr_t *offset,
                   lf_error *err)
{
    hid_t parent = parent_make(at, path, err), set = -1;
    if (parent < 0)
        return false;
    hid_t space = space_of(rank, dims), list = H5Pcreate(H5P_DATASET_CREATE);
    if (space >= 0 && lf_h5_prepare(list, false) && H5Pset_layout(list, H5D_CONTIGUOUS) >= 0 &&
        H5Pset_alloc_time(list, H5D_ALLOC_TIME_EARLY) >= 0 && H5Pset_fill_time(list, H5D_FILL_TIME_NEVER) >= 0)
        set = H5Dcreate2(at, path, type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    *offset = set >= 0 ? H5Dget_offset(set) : HADDR_UNDEF;
    if (*offset == HADDR_UNDEF)
        lf_h5_error(err, LF_EIO, "%s: cannot make the data set", path);
    H5Dclose(set);
    H5Pclose(list);
    H5Sclose(space);
    H5Gclose(parent);
    return *offset != HADDR_UNDEF;
}

bool lf_h5_write_series(hid_t at, const char *path, hid_t file_type, hid_t memory_type, size_t count,
                        const void *values, lf_error *err)
{
    const hsize_t length = count, unlimited = H5S_UNLIMITED, chunk = SERIES_CHUNK;
    hid_t space = H5Screate_simple(1, &length, &unlimited), list = H5Pcreate(H5P_DATASET_CREATE);
    if (list >= 0)
        H5Pset_chunk(list, 1, &chunk);
    // Deflate gains nothing on variable-length texts, whose chunks hold only addresses.
    if (list >= 0 && H5Tis_variable_str(file_type) <= 0) {
        H5Pset_shuffle(list);
        H5Pset_deflate(list, DEFLATE_LEVEL);
    }
    bool good = write_set(at, path, file_type, memory_type, space, list, values, err);
    H5Pclose(list);
    H5Sclose(space);
    return good;
}

bool lf_h5_write_text(hid_t at, const char *path, const char *text, lf_error *err)
{
    hid_t type = lf_h5_text_type();
    bool good = lf_h5_write_array(at, path, type, type, 0, NULL, &text, err);
    H5Tclose(type);
    return good;
}

bool lf_h5_set_array(hid_t object, const char *name, hid_t file_type, hid_t memory_type, int rank, const hsize_t *dims,
                     const void *values, lf_error *err)
{
    hid_t space = space_of(rank, dims), attribute = -1;
    if (space >= 0 && (H5Aexists(object, name) <= 0 || H5Adelete(object, name) >= 0))
        attribute = H5Acreate2(object, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT);
    bool good = attribute >= 0 && H5Awrite(attribute, memory_type, values) >= 0;
    if (!good)
        lf_h5_error(err, LF_EARG, "@%s: cannot write", name);
    H5Aclose(attribute);
    H5Sclose(space);
    return good;
}

bool lf_h5_set_text(hid_t object, const char *name, const char *text, lf_error *err)
{
    hid_t type = lf_h5_text_type();
    bool good = lf_h5_set_array(object, name, type, type, 0, NULL, &text, err);
    H5Tclose(type);
    return good;
}

bool lf_h5_set_texts(hid_t object, const char *name, size_t count, const char *const *texts, lf_error *err)
{
    const hsize_t length = count;
    hid_t type = lf_h5_text_type();
    bool good = lf_h5_set_array(object, name, type, type, 1, &length, texts, err);
    H5Tclose(type);
    return good;
}

bool lf_h5_write_fixed_text(hid_t at, const char *path, const char *text, lf_error *err)
{
    hid_t type = fixed_text_type(text);
    bool good = lf_h5_write_array(at, path, type, type, 0, NULL, text, err);
    H5Tclose(type);
    return good;
}

bool lf_h5_set_fixed_text(hid_t object, const char *name, const char *text, lf_error *err)
{
    hid_t type = fixed_text_type(text);
    bool good = lf_h5_set_array(object, name, type, type, 0, NULL, text, err);
    H5Tclose(type);
    return good;
}

static bool attribute_copy(hid_t from, hid_t to, const char *name)
{
    hid_t attribute = H5Aopen(from, name, H5P_DEFAULT);
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    hssize_t count = H5Sget_simple_extent_npoints(space);
    size_t size = H5Tget_size(type);
    void *value = count > 0 && size ? calloc((size_t)count, size) : NULL;
    hid_t copy = -1;
    if (value && H5Aread(attribute, type, value) >= 0) {
        if (H5Aexists(to, name) > 0)
            H5Adelete(to, name);
        copy = H5Acreate2(to, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    }
    bool good = copy >= 0 && H5Awrite(copy, type, value) >= 0;
    if (value)
        H5Dvlen_reclaim(type, space, H5P_DEFAULT, value);
    free(value);
    H5Aclose(copy);
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    return good;
}

bool lf_h5_attributes_copy(hid_t from, hid_t to, lf_error *err)
{
    size_t count = 0;
    char **names = lf_h5_attribute_names(from, &count, err);
    bool good = names;
    for (size_t i = 0; good && i < count; i++)
        if (!attribute_copy(from, to, names[i])) {
            lf_h5_error(err, LF_EFORMAT, "attribute %s: cannot be copied", names[i]);
            good = false;
        }
    lf_h5_names_free(names, count);
    return good;
}
