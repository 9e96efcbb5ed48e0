// Texts, names and listings of HDF5 files.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/h5.h"

bool lf_h5_read_dataset(hid_t object, hid_t memory_type, void *buffer)
{
    return H5Dread(object, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, buffer) >= 0;
}

bool lf_h5_read_attribute(hid_t object, hid_t memory_type, void *buffer)
{
    return H5Aread(object, memory_type, buffer) >= 0;
}

// The pointers and the texts in one block. `size` 0: `raw` holds pointers (NULL is the empty text), else texts of
// `size` bytes.
static char **texts_pack(const void *raw, size_t count, size_t size, H5T_str_t padding)
{
    const char *const *pointers = raw;
    size_t bytes = count * sizeof(char *) + 1;
    for (size_t i = 0; i < count; i++)
        bytes += 1 + (size ? size : pointers[i] ? strlen(pointers[i]) : 0);
    char **texts = malloc(bytes);
    if (!texts)
        return NULL;
    char *out = (char *)(texts + count);
    for (size_t i = 0; i < count; i++) {
        const char *text = size ? (const char *)raw + i * size : pointers[i] ? pointers[i] : "";
        size_t length = size ? strnlen(text, size) : strlen(text);
        while (size && padding == H5T_STR_SPACEPAD && length > 0 && text[length - 1] == ' ')
            length--;
        texts[i] = out;
        memcpy(out, text, length);
        out[length] = 0;
        out += length + 1;
    }
    return texts;
}

char **lf_h5_texts(hid_t object, lf_h5_read *read, hid_t type, hid_t space, const char *where, lf_error *err)
{
    char **texts = NULL;
    void *raw = NULL;
    hid_t memory = H5Tcopy(type);
    hssize_t count = H5Sget_simple_extent_npoints(space);
    htri_t variable = H5Tis_variable_str(type);
    size_t size = variable > 0 ? 0 : H5Tget_size(type);
    if (memory < 0 || count < 0 || variable < 0 || (!variable && size == 0)) {
        lf_h5_error(err, LF_EFORMAT, "%s: cannot read the text", where);
        goto done;
    }
    size_t each = variable ? sizeof(char *) : size;
    if ((size_t)count > SIZE_MAX / 2 / (each + sizeof(char *)) || !(raw = calloc((size_t)count + 1, each))) {
        lf_error_set(err, LF_ENOMEM, "%s: out of memory for %lld texts", where, (long long)count);
        goto done;
    }
    if (!read(object, memory, raw)) {
        lf_h5_error(err, LF_EFORMAT, "%s: cannot read the text", where);
        goto done;
    }
    texts = texts_pack(raw, (size_t)count, size, H5Tget_strpad(type));
    if (!texts)
        lf_error_set(err, LF_ENOMEM, "%s: out of memory for %lld texts", where, (long long)count);
    if (variable)
        H5Dvlen_reclaim(memory, space, H5P_DEFAULT, raw);
done:
    free(raw);
    H5Tclose(memory);
    return texts;
}

static char *one_text(hid_t object, lf_h5_read *read, hid_t type, hid_t space, const char *where, lf_error *err)
{
    if (H5Tget_class(type) != H5T_STRING || H5Sget_simple_extent_npoints(space) != 1) {
        lf_error_set(err, LF_EFORMAT, "%s: is %lld value(s) of type %s; expects one text", where,
                     (long long)H5Sget_simple_extent_npoints(space), lf_h5_type_name(type));
        return NULL;
    }
    char **texts = lf_h5_texts(object, read, type, space, where, err);
    char *text = texts ? strdup(texts[0]) : NULL;
    if (texts && !text)
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", where);
    free(texts);
    return text;
}

char *lf_h5_dataset_text(hid_t set, const char *where, lf_error *err)
{
    hid_t type = H5Dget_type(set), space = H5Dget_space(set);
    char *text = one_text(set, lf_h5_read_dataset, type, space, where, err);
    H5Sclose(space);
    H5Tclose(type);
    return text;
}

static hid_t attribute_open(hid_t object, const char *name, const char *where, lf_error *err)
{
    hid_t attribute = H5Aexists(object, name) > 0 ? H5Aopen(object, name, H5P_DEFAULT) : -1;
    if (attribute < 0)
        lf_error_set(err, LF_EFORMAT, "%s@%s: is missing", where, name);
    return attribute;
}

char *lf_h5_attribute_text(hid_t object, const char *name, const char *where, lf_error *err)
{
    hid_t attribute = attribute_open(object, name, where, err);
    if (attribute < 0)
        return NULL;
    char full[600];
    snprintf(full, sizeof full, "%s@%s", where, name);
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    char *text = one_text(attribute, lf_h5_read_attribute, type, space, full, err);
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    return text;
}

bool lf_h5_attribute_u64(hid_t object, const char *name, const char *where, uint64_t *value, lf_error *err)
{
    hid_t attribute = attribute_open(object, name, where, err);
    if (attribute < 0)
        return false;
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    bool good = false;
    if (H5Tget_class(type) != H5T_INTEGER || H5Sget_simple_extent_npoints(space) != 1)
        lf_error_set(err, LF_EFORMAT, "%s@%s: is %lld value(s) of type %s; expects one integer", where, name,
                     (long long)H5Sget_simple_extent_npoints(space), lf_h5_type_name(type));
    else if (H5Aread(attribute, H5T_NATIVE_UINT64, value) < 0)
        lf_h5_error(err, LF_EFORMAT, "%s@%s: cannot read", where, name);
    else
        good = true;
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    return good;
}

typedef struct lister {
    lf_h5_listing *listing;
    const char *root; // without a trailing slash
    bool out_of_memory;
} lister;

static herr_t add_object(hid_t root, const char *name, const H5O_info_t *info, void *user)
{
    (void)root;
    lister *list = user;
    lf_h5_listing *listing = list->listing;
    if (info->type != H5O_TYPE_GROUP && info->type != H5O_TYPE_DATASET)
        return 0;
    if ((listing->count & (listing->count - 1)) == 0) { // grows at powers of two
        size_t room = listing->count ? 2 * listing->count : 1;
        lf_h5_object *grown = realloc(listing->objects, room * sizeof *grown);
        if (!grown) {
            list->out_of_memory = true;
            return -1;
        }
        listing->objects = grown;
    }
    bool self = strcmp(name, ".") == 0;
    size_t size = strlen(list->root) + strlen(name) + 2;
    char *path = malloc(size);
    if (!path) {
        list->out_of_memory = true;
        return -1;
    }
    if (self)
        snprintf(path, size, "%s", *list->root ? list->root : "/");
    else
        snprintf(path, size, "%s/%s", list->root, name);
    listing->objects[listing->count++] = (lf_h5_object){ .path = path, .is_group = info->type == H5O_TYPE_GROUP };
    return 0;
}

bool lf_h5_list(hid_t file, const char *file_name, const char *root, lf_h5_listing *listing, lf_error *err)
{
    *listing = (lf_h5_listing){ 0 };
    hid_t object = lf_h5_object_open(file, file_name, root, err);
    if (object < 0)
        return false;
    char *base = strdup(root);
    for (size_t n = base ? strlen(base) : 0; n > 0 && base[n - 1] == '/'; n--)
        base[n - 1] = 0;
    lister list = { .listing = listing, .root = base, .out_of_memory = !base };
    bool good = base && H5Ovisit(object, H5_INDEX_NAME, H5_ITER_INC, add_object, &list) >= 0;
    if (list.out_of_memory)
        lf_error_set(err, LF_ENOMEM, "%s:%s: out of memory", file_name, root);
    else if (!good)
        lf_h5_error(err, LF_EFORMAT, "%s:%s: cannot list the objects", file_name, root);
    if (!good)
        lf_h5_listing_finish(listing);
    free(base);
    H5Oclose(object);
    return good;
}

void lf_h5_listing_finish(lf_h5_listing *listing)
{
    for (size_t i = 0; i < listing->count; i++)
        free(listing->objects[i].path);
    free(listing->objects);
    *listing = (lf_h5_listing){ 0 };
}

typedef struct name_list {
    char **names;
    size_t count;
} name_list;

static herr_t add_name(hid_t object, const char *name, const H5A_info_t *info, void *user)
{
    (void)object;
    (void)info;
    name_list *list = user;
    char **grown = realloc(list->names, (list->count + 1) * sizeof *grown);
    if (grown)
        list->names = grown;
    char *copy = grown ? strdup(name) : NULL;
    if (!copy)
        return -1;
    list->names[list->count++] = copy;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

char **lf_h5_attribute_names(hid_t object, size_t *count, lf_error *err)
{
    // One more than there are, so that no attributes is not NULL.
    name_list list = { .names = calloc(1, sizeof(char *)) };
    if (!list.names || H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, add_name, &list) < 0) {
        lf_h5_error(err, LF_EFORMAT, "cannot list the attributes");
        lf_h5_names_free(list.names, list.count);
        return NULL;
    }
    qsort(list.names, list.count, sizeof *list.names, by_name);
    *count = list.count;
    return list.names;
}

void lf_h5_names_free(char **names, size_t count)
{
    for (size_t i = 0; names && i < count; i++)
        free(names[i]);
    free(names);
}

bool lf_h5_each_member(hid_t group, lf_h5_visit_member *visit, void *user, lf_error *err)
{
    H5G_info_t info;
    bool good = H5Gget_info(group, &info) >= 0;
    for (hsize_t i = 0; good && i < info.nlinks; i++) {
        char name[256];
        good = H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, name, sizeof name, H5P_DEFAULT) >= 0;
        if (good && !visit(user, name, err))
            return false;
    }
    if (!good)
        lf_h5_error(err, LF_EFORMAT, "a group cannot be listed");
    return good;
}
