#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/h5.h"
#include "io/run_file.h"

enum { NODE_RANK = sizeof((lf_h5_node *)0)->shape / sizeof(uint64_t) };

// Nodes of one object, collected inside the lock and visited outside it, so that a visitor may call io/ itself.
typedef struct nodes {
    lf_h5_node *nodes;
    size_t count;
} nodes;

static void nodes_finish(nodes *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free((void *)list->nodes[i].path);
        free((void *)list->nodes[i].texts);
        free((void *)list->nodes[i].integers);
        free((void *)list->nodes[i].floats);
    }
    free(list->nodes);
    *list = (nodes){ 0 };
}

static lf_h5_node *nodes_add(nodes *list, const char *object, const char *attribute, lf_error *err)
{
    size_t size = strlen(object) + (attribute ? strlen(attribute) : 0) + 2;
    char *path = malloc(size);
    lf_h5_node *grown = realloc(list->nodes, (list->count + 1) * sizeof *grown);
    if (grown)
        list->nodes = grown;
    if (!path || !grown) {
        free(path);
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", object);
        return NULL;
    }
    snprintf(path, size, "%s%s%s", object, attribute ? "@" : "", attribute ? attribute : "");
    grown[list->count] = (lf_h5_node){ .path = path, .kind = LF_H5_OTHER };
    return &grown[list->count++];
}

static int64_t *integers(hid_t object, lf_h5_read *read, hid_t type, size_t count)
{
    int64_t *values = calloc(count, sizeof *values);
    bool is_unsigned = H5Tget_sign(type) == H5T_SGN_NONE;
    if (values && !read(object, is_unsigned ? H5T_NATIVE_UINT64 : H5T_NATIVE_INT64, values)) {
        free(values);
        return NULL;
    }
    // HDF5 1.10 turns some big unsigned values into negative ones.
    for (size_t i = 0; values && is_unsigned && i < count; i++)
        values[i] = (uint64_t)values[i] > INT64_MAX ? INT64_MAX : values[i];
    return values;
}

// Shape and values of a data set or attribute. Values that cannot be read here stay NULL, as those beyond the limit.
static void fill(lf_h5_node *node, hid_t object, lf_h5_read *read, hid_t type, hid_t space, size_t limit)
{
    hsize_t dims[H5S_MAX_RANK] = { 0 };
    int rank = H5Sget_simple_extent_dims(space, dims, NULL);
    hssize_t count = H5Sget_simple_extent_npoints(space);
    if (rank < 0 || count < 0)
        return;
    node->count = (size_t)count;
    if (rank > NODE_RANK)
        return;
    node->rank = (size_t)rank;
    for (int i = 0; i < rank; i++)
        node->shape[i] = dims[i];
    bool wanted = node->count > 0 && node->count <= limit;
    switch (H5Tget_class(type)) {
    case H5T_STRING:
        node->kind = LF_H5_TEXT;
        if (wanted)
            node->texts = (const char *const *)lf_h5_texts(object, read, type, space, node->path, NULL);
        break;
    case H5T_INTEGER:
    case H5T_ENUM:
        node->kind = LF_H5_INTEGER;
        if (wanted)
            node->integers = integers(object, read, type, node->count);
        break;
    case H5T_FLOAT: {
        node->kind = LF_H5_FLOAT;
        double *values = wanted ? calloc(node->count, sizeof *values) : NULL;
        if (values && !read(object, H5T_NATIVE_DOUBLE, values)) {
            free(values);
            values = NULL;
        }
        node->floats = values;
        break;
    }
    default:
        break;
    }
}

static bool add_attributes(nodes *list, hid_t object, const char *path, size_t limit, lf_error *err)
{
    size_t count = 0;
    char **names = lf_h5_attribute_names(object, &count, err);
    bool good = names;
    for (size_t i = 0; good && i < count; i++) {
        lf_h5_node *node = nodes_add(list, path, names[i], err);
        good = node;
        hid_t attribute = good ? H5Aopen(object, names[i], H5P_DEFAULT) : -1;
        hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
        if (attribute >= 0 && type >= 0 && space >= 0)
            fill(node, attribute, lf_h5_read_attribute, type, space, limit);
        H5Sclose(space);
        H5Tclose(type);
        H5Aclose(attribute);
    }
    lf_h5_names_free(names, count);
    return good;
}

static bool collect(nodes *list, hid_t file, const char *file_name, const lf_h5_object *object, size_t limit,
                    lf_error *err)
{
    hid_t id = lf_h5_object_open(file, file_name, object->path, err);
    lf_h5_node *node = id >= 0 ? nodes_add(list, object->path, NULL, err) : NULL;
    bool good = node;
    if (good && object->is_group) {
        node->kind = LF_H5_GROUP;
    } else if (good) {
        hid_t type = H5Dget_type(id), space = H5Dget_space(id);
        bool readable = lf_h5_storage_check(id, object->path, NULL) && lf_h5_written_check(id, object->path, NULL);
        fill(node, id, lf_h5_read_dataset, type, space, readable ? limit : 0);
        H5Sclose(space);
        H5Tclose(type);
    }
    good = good && add_attributes(list, id, object->path, limit, err);
    H5Oclose(id);
    return good;
}

bool lf_h5_walk(const char *file, const char *root, size_t limit, lf_h5_visit *visit, void *user, lf_error *err)
{
    lf_h5_scope scope;
    lf_h5_listing listing = { 0 };
    lf_h5_enter(&scope);
    hid_t h5 = lf_h5_file_open(file, err);
    bool good = h5 >= 0 && lf_h5_list(h5, file, root, &listing, err);
    lf_h5_leave(&scope);
    bool going = good;
    for (size_t i = 0; going && i < listing.count; i++) {
        nodes list = { 0 };
        lf_h5_enter(&scope);
        good = collect(&list, h5, file, &listing.objects[i], limit, err);
        lf_h5_leave(&scope);
        going = good;
        for (size_t n = 0; going && n < list.count; n++)
            going = visit(user, &list.nodes[n]);
        nodes_finish(&list);
    }
    lf_h5_enter(&scope);
    lf_h5_listing_finish(&listing);
    if (h5 >= 0)
        H5Fclose(h5);
    lf_h5_leave(&scope);
    return good;
}
