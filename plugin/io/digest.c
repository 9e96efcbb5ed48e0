// sha256 of the logical content of HDF5 objects. What is hashed, in order:
//   object:    "group" or "dataset"; its path below the root, "" for the root itself; its attributes sorted by name
//              (those that begin with LF_H5_PROVENANCE are left out); of a data set its content
//   attribute: "attribute"; its name; its content
//   content:   type text ("u1", "i4", "f8", "text", …); number of dimensions and dimensions as 8 bytes each; values,
//              little-endian as stored, texts with their closing zero whatever their length in the file
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/chunks.h"
#include "io/dataset.h"
#include "io/h5.h"

enum { PIECE_BYTES = 8 << 20 };

typedef struct type_text {
    char text[512];
    size_t used;
} type_text;

static void add(type_text *to, const char *text)
{
    int wrote = snprintf(to->text + to->used, sizeof to->text - to->used, "%s", text);
    to->used += (size_t)wrote < sizeof to->text - to->used ? (size_t)wrote : sizeof to->text - to->used - 1;
}

static void add_sized(type_text *to, const char *kind, size_t size)
{
    char text[48];
    snprintf(text, sizeof text, "%s%zu", kind, size);
    add(to, text);
}

static hid_t little_endian(hid_t type, type_text *text, int depth);

// Members without padding between them.
static hid_t little_endian_compound(hid_t type, type_text *text, int depth)
{
    int members = H5Tget_nmembers(type);
    hid_t compound = H5Tcreate(H5T_COMPOUND, 1);
    size_t size = 0;
    add(text, "{");
    for (int i = 0; compound >= 0 && i < members; i++) {
        char *name = H5Tget_member_name(type, (unsigned)i);
        hid_t member = H5Tget_member_type(type, (unsigned)i);
        add(text, name ? name : "");
        add(text, ":");
        hid_t plain = member >= 0 && name ? little_endian(member, text, depth + 1) : -1;
        size_t end = size + (plain >= 0 ? H5Tget_size(plain) : 0);
        if (plain < 0 || H5Tset_size(compound, end) < 0 || H5Tinsert(compound, name, size, plain) < 0) {
            H5Tclose(compound);
            compound = -1;
        }
        size = end;
        add(text, ";");
        H5Tclose(plain);
        H5Tclose(member);
        H5free_memory(name);
    }
    add(text, "}");
    return compound;
}

static hid_t little_endian_array(hid_t type, type_text *text, int depth)
{
    hsize_t dims[H5S_MAX_RANK] = { 0 };
    int rank = H5Tget_array_dims2(type, dims);
    hid_t base = H5Tget_super(type);
    hid_t plain = rank > 0 && base >= 0 ? little_endian(base, text, depth + 1) : -1;
    hid_t array = plain >= 0 ? H5Tarray_create2(plain, (unsigned)rank, dims) : -1;
    for (int i = 0; i < rank; i++)
        add_sized(text, "x", (size_t)dims[i]);
    H5Tclose(plain);
    H5Tclose(base);
    return array;
}

// The type in which values are hashed and its text. Negative for what has no bytes of its own: references and
// variable-length values.
static hid_t little_endian(hid_t type, type_text *text, int depth)
{
    enum { DEPTH = 16 };
    hid_t plain = -1, base;
    size_t size = H5Tget_size(type);
    if (depth > DEPTH)
        return -1;
    switch (H5Tget_class(type)) {
    case H5T_INTEGER:
    case H5T_FLOAT:
    case H5T_BITFIELD:
        add_sized(text,
                  H5Tget_class(type) == H5T_FLOAT      ? "f"
                  : H5Tget_class(type) == H5T_BITFIELD ? "b"
                  : H5Tget_sign(type) == H5T_SGN_2     ? "i"
                                                       : "u",
                  size);
        plain = H5Tcopy(type);
        if (H5Tset_order(plain, H5T_ORDER_LE) < 0) {
            H5Tclose(plain);
            return -1;
        }
        return plain;
    case H5T_ENUM:
        base = H5Tget_super(type);
        plain = little_endian(base, text, depth + 1);
        H5Tclose(base);
        return plain;
    case H5T_STRING:
        if (H5Tis_variable_str(type) != 0)
            return -1;
        add_sized(text, "s", size);
        return H5Tcopy(type);
    case H5T_OPAQUE:
        add_sized(text, "o", size);
        return H5Tcopy(type);
    case H5T_COMPOUND:
        return little_endian_compound(type, text, depth);
    case H5T_ARRAY:
        return little_endian_array(type, text, depth);
    default:
        return -1;
    }
}

static void hash_shape(lf_hash *hash, const char *type, hid_t space)
{
    hsize_t dims[H5S_MAX_RANK] = { 0 };
    int rank = H5Sget_simple_extent_dims(space, dims, NULL);
    lf_hash_text(hash, type);
    lf_hash_u64(hash, rank < 0 ? 0 : (uint64_t)rank);
    for (int i = 0; i < rank; i++)
        lf_hash_u64(hash, dims[i]);
}

static bool hash_texts(lf_hash *hash, hid_t object, lf_h5_read *read, hid_t type, hid_t space, const char *where,
                       lf_error *err)
{
    hssize_t count = H5Sget_simple_extent_npoints(space);
    hash_shape(hash, "text", space);
    char **texts = lf_h5_texts(object, read, type, space, where, err);
    for (hssize_t i = 0; texts && i < count; i++)
        lf_hash_text(hash, texts[i]);
    free(texts);
    return texts;
}

// An attribute that has no bytes of its own (references to dimension scales, …) is left out.
static bool hash_attribute(lf_hash *hash, hid_t object, const char *name, const char *where, lf_error *err)
{
    type_text text = { 0 };
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute), plain = -1;
    hssize_t count = H5Sget_simple_extent_npoints(space);
    void *values = NULL;
    bool good = attribute >= 0 && type >= 0 && count >= 0;
    if (!good) {
        lf_h5_error(err, LF_EFORMAT, "%s@%s: cannot read", where, name);
    } else if (H5Tget_class(type) == H5T_STRING) {
        lf_hash_text(hash, "attribute");
        lf_hash_text(hash, name);
        good = hash_texts(hash, attribute, lf_h5_read_attribute, type, space, where, err);
    } else if ((plain = little_endian(type, &text, 0)) >= 0) {
        size_t size = H5Tget_size(plain);
        lf_hash_text(hash, "attribute");
        lf_hash_text(hash, name);
        hash_shape(hash, text.text, space);
        values = calloc((size_t)count + 1, size);
        if (!values) {
            lf_error_set(err, LF_ENOMEM, "%s@%s: out of memory", where, name);
            good = false;
        } else if (count > 0 && H5Aread(attribute, plain, values) < 0) {
            lf_h5_error(err, LF_EFORMAT, "%s@%s: cannot read", where, name);
            good = false;
        } else {
            lf_hash_update(hash, values, (size_t)count * size);
        }
    }
    free(values);
    H5Tclose(plain);
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    return good;
}

static bool hash_attributes(lf_hash *hash, hid_t object, const char *where, lf_error *err)
{
    size_t count = 0;
    char **names = lf_h5_attribute_names(object, &count, err);
    if (!names) {
        lf_error_prefix(err, "%s", where);
        return false;
    }
    bool good = true;
    for (size_t i = 0; good && i < count; i++)
        if (strncmp(names[i], LF_H5_PROVENANCE, strlen(LF_H5_PROVENANCE)) != 0)
            good = hash_attribute(hash, object, names[i], where, err);
    lf_h5_names_free(names, count);
    return good;
}

// Rows of a piece: whole chunks, so that each is inflated once.
static hsize_t piece_rows(hid_t set, const hsize_t *dims, int rank, size_t element)
{
    hsize_t row = 1, chunk[H5S_MAX_RANK] = { 0 };
    for (int i = 1; i < rank; i++)
        row *= dims[i] ? dims[i] : 1;
    hsize_t rows = PIECE_BYTES / element / row + 1;
    hid_t list = H5Dget_create_plist(set);
    if (H5Pget_layout(list) == H5D_CHUNKED && H5Pget_chunk(list, H5S_MAX_RANK, chunk) == rank && chunk[0] > 0)
        rows = (rows + chunk[0] - 1) / chunk[0] * chunk[0];
    H5Pclose(list);
    return rows < dims[0] ? rows : dims[0];
}

// Rows of the whole values, as `plain`; by several threads where they are stored so.
static bool read_rows(hid_t set, hid_t plain, const lf_chunks *chunks, const hsize_t *start, const hsize_t *size,
                      int rank, hid_t space, void *values, const char *where, lf_error *err)
{
    if (chunks)
        return lf_chunks_read(chunks, &(lf_box){ start[0], size[0], 0, rank > 1 ? size[1] : 1 }, true, values, err);
    hid_t memory = rank > 0 ? H5Screate_simple(rank, size, NULL) : H5Screate(H5S_SCALAR);
    bool good = memory >= 0 &&
                (rank == 0 || H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, size, NULL) >= 0) &&
                H5Dread(set, plain, memory, space, H5P_DEFAULT, values) >= 0;
    if (!good)
        lf_h5_error(err, LF_EFORMAT, "%s: cannot read", where);
    H5Sclose(memory);
    return good;
}

static bool hash_values(lf_hash *hash, hid_t set, hid_t plain, hid_t space, const char *where, lf_error *err)
{
    hsize_t dims[H5S_MAX_RANK] = { 1 }, start[H5S_MAX_RANK] = { 0 }, size[H5S_MAX_RANK] = { 1 };
    int rank = H5Sget_simple_extent_dims(space, dims, NULL);
    hssize_t count = H5Sget_simple_extent_npoints(space);
    size_t element = H5Tget_size(plain);
    if (rank < 0 || count < 0) {
        lf_h5_error(err, LF_EFORMAT, "%s: cannot read", where);
        return false;
    }
    if (count == 0)
        return true;
    hsize_t rows = piece_rows(set, dims, rank, element), row_values = (hsize_t)count / dims[0];
    void *values = row_values * rows <= SIZE_MAX / element ? malloc((size_t)(row_values * rows) * element) : NULL;
    if (!values) {
        lf_error_set(err, LF_ENOMEM, "%s: out of memory for %llu rows", where, (unsigned long long)rows);
        return false;
    }
    bool good = true;
    hid_t type = H5Dget_type(set);
    lf_chunks *chunks = H5Tequal(type, plain) > 0 ? lf_chunks_open(set, where) : NULL;
    H5Tclose(type);
    memcpy(size, dims, sizeof size);
    for (start[0] = 0; good && start[0] < dims[0]; start[0] += rows) {
        size[0] = dims[0] - start[0] < rows ? dims[0] - start[0] : rows;
        good = read_rows(set, plain, chunks, start, size, rank, space, values, where, err);
        if (good)
            lf_hash_update(hash, values, (size_t)(row_values * size[0]) * element);
    }
    lf_chunks_close(chunks);
    free(values);
    return good;
}

// A data set that was never written: its fill value stands for all values, however many the shape claims.
static bool hash_unwritten(lf_hash *hash, hid_t set, hid_t plain, const char *where, lf_error *err)
{
    hid_t list = H5Dget_create_plist(set);
    void *value = calloc(1, H5Tget_size(plain));
    bool good = value && H5Pget_fill_value(list, plain, value) >= 0;
    if (!good)
        lf_h5_error(err, LF_EFORMAT, "%s: cannot read its fill value", where);
    lf_hash_text(hash, "unwritten");
    if (good)
        lf_hash_update(hash, value, H5Tget_size(plain));
    free(value);
    H5Pclose(list);
    return good;
}

static bool is_unwritten(hid_t set)
{
    hid_t list = H5Dget_create_plist(set);
    bool unwritten = H5Dget_storage_size(set) == 0 && H5Pget_layout(list) != H5D_VIRTUAL;
    H5Pclose(list);
    return unwritten;
}

static bool hash_dataset(lf_hash *hash, hid_t set, const char *where, lf_error *err)
{
    type_text text = { 0 };
    bool unwritten = is_unwritten(set);
    if (!lf_h5_storage_check(set, where, err) || (!unwritten && !lf_h5_written_check(set, where, err)))
        return false;
    hid_t type = H5Dget_type(set), space = H5Dget_space(set), plain = -1;
    bool good = false;
    if (type < 0 || space < 0) {
        lf_h5_error(err, LF_EFORMAT, "%s: cannot read its type", where);
    } else if (H5Tget_class(type) == H5T_STRING && unwritten) {
        hash_shape(hash, "text", space);
        lf_hash_text(hash, "unwritten");
        good = true;
    } else if (H5Tget_class(type) == H5T_STRING) {
        good = hash_texts(hash, set, lf_h5_read_dataset, type, space, where, err);
    } else if ((plain = little_endian(type, &text, 0)) < 0) {
        lf_error_set(err, LF_EUNSUPPORTED, "%s: holds values of type %s, which have no digest", where,
                     lf_h5_type_name(type));
    } else {
        hash_shape(hash, text.text, space);
        good =
            unwritten ? hash_unwritten(hash, set, plain, where, err) : hash_values(hash, set, plain, space, where, err);
    }
    H5Tclose(plain);
    H5Sclose(space);
    H5Tclose(type);
    return good;
}

static bool hash_object(lf_hash *hash, hid_t file, const char *file_name, const lf_h5_object *object,
                        size_t root_length, lf_error *err)
{
    char where[600];
    snprintf(where, sizeof where, "%s:%s", file_name, object->path);
    hid_t id = lf_h5_object_open(file, file_name, object->path, err);
    if (id < 0)
        return false;
    lf_hash_text(hash, object->is_group ? "group" : "dataset");
    lf_hash_text(hash, object->path + root_length);
    bool good = hash_attributes(hash, id, where, err) && (object->is_group || hash_dataset(hash, id, where, err));
    H5Oclose(id);
    return good;
}

bool lf_h5_hash(lf_hash *hash, hid_t h5, const char *file, const char *path, lf_error *err)
{
    lf_h5_listing listing = { 0 };
    bool good = lf_h5_list(h5, file, path, &listing, err);
    // The first is the root; "/" is above no name, so its length does not count.
    size_t root_length = good && listing.count > 0 ? strlen(listing.objects[0].path) : 0;
    if (root_length == 1)
        root_length = 0;
    for (size_t i = 0; good && i < listing.count; i++)
        good = hash_object(hash, h5, file, &listing.objects[i], i == 0 ? strlen(listing.objects[0].path) : root_length,
                           err);
    if (good && listing.count == 0) {
        lf_error_set(err, LF_EFORMAT, "%s:%s: is a named type, which has no content", file, path);
        good = false;
    }
    lf_h5_listing_finish(&listing);
    return good;
}

bool lf_h5_digest(const char *file, const char *path, char hex[65], lf_error *err)
{
    lf_hash *hash = lf_hash_create(err);
    if (!hash)
        return false;
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    hid_t h5 = lf_h5_file_open(file, err);
    bool good = h5 >= 0 && lf_h5_hash(hash, h5, file, path, err);
    H5Fclose(h5);
    lf_h5_leave(&scope);
    if (good)
        lf_hash_finish(hash, hex);
    lf_hash_destroy(hash);
    return good;
}
