#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/h5_header.h"
#include "io/model_content.h"

// A model file while it is read.
typedef struct reader {
    const char *path;
    hid_t file;
    uint64_t most; // values that a file of this size can hold
} reader;

// deflate cannot shrink below a thousandth, so a tensor that claims more is damage, not data.
enum { SMALLEST_RATIO = 1100 };

static hid_t group_open(const reader *in, const char *path, lf_error *err)
{
    hid_t group = lf_h5_object_open(in->file, in->path, path, err);
    if (group >= 0 && H5Iget_type(group) != H5I_GROUP) {
        lf_error_set(err, LF_EFORMAT, "%s:%s: is not a group", in->path, path);
        H5Oclose(group);
        return -1;
    }
    return group;
}

// Shape and values of the open data set `set`.
static bool tensor_read(const reader *in, hid_t set, const char *where, lf_file_tensor *tensor, lf_error *err)
{
    hsize_t dims[H5S_MAX_RANK] = { 0 };
    hid_t type = H5Dget_type(set), space = H5Dget_space(set);
    int rank = H5Sget_simple_extent_ndims(space);
    bool good = false;
    if (rank == 1 || rank == 2)
        H5Sget_simple_extent_dims(space, dims, NULL);
    uint64_t rows = rank == 2 ? dims[0] : 1, cols = rank == 2 ? dims[1] : dims[0];
    if (H5Tget_class(type) != H5T_FLOAT) {
        lf_error_set(err, LF_EFORMAT, "%s: holds values of type %s; expects floats", where, lf_h5_type_name(type));
    } else if ((rank != 1 && rank != 2) || rows == 0 || cols == 0 || rows > UINT32_MAX || cols > UINT32_MAX ||
               rows > in->most / cols) {
        lf_error_set(err, LF_EFORMAT,
                     "%s: has rank %d, shape (%llu, %llu); expects one or two dimensions that fit the file", where,
                     rank, (unsigned long long)rows, (unsigned long long)cols);
    } else if (lf_h5_storage_check(set, where, err) && lf_h5_written_check(set, where, err)) {
        tensor->rows = rank == 2 ? (uint32_t)rows : 0;
        tensor->cols = (uint32_t)cols;
        tensor->values = malloc((size_t)(rows * cols) * sizeof(float));
        if (!tensor->values)
            lf_error_set(err, LF_ENOMEM, "%s: out of memory for %llu values", where, (unsigned long long)(rows * cols));
        else if (H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, tensor->values) < 0)
            lf_h5_error(err, LF_EFORMAT, "%s: cannot read", where);
        else
            good = true;
    }
    H5Sclose(space);
    H5Tclose(type);
    return good;
}

// Every data set below `group` but its definition.
static bool tensors_read(const reader *in, const char *group, lf_file_tensor **tensors, size_t *count, lf_error *err)
{
    lf_h5_listing listing;
    if (!lf_h5_list(in->file, in->path, group, &listing, err))
        return false;
    bool good = true;
    *tensors = calloc(listing.count + 1, sizeof **tensors);
    if (!*tensors) {
        lf_error_set(err, LF_ENOMEM, "%s:%s: out of memory", in->path, group);
        good = false;
    }
    for (size_t i = 0; good && i < listing.count; i++) {
        const char *path = listing.objects[i].path, *name = path + strlen(group) + 1;
        if (listing.objects[i].is_group || strcmp(name, "definition") == 0)
            continue;
        char where[600];
        snprintf(where, sizeof where, "%s:%s", in->path, path);
        lf_file_tensor *tensor = &(*tensors)[(*count)++];
        tensor->name = strdup(name);
        hid_t set = lf_h5_dataset_open(in->file, in->path, path, H5P_DEFAULT, err);
        if (!tensor->name)
            lf_error_set(err, LF_ENOMEM, "%s: out of memory", where);
        good = tensor->name && set >= 0 && tensor_read(in, set, where, tensor, err);
        H5Dclose(set);
    }
    lf_h5_listing_finish(&listing);
    return good;
}

static bool definition_read(const reader *in, lf_model_file *model, lf_error *err)
{
    char where[600];
    if (lf_h5_exists(in->file, "/model/definition")) {
        snprintf(where, sizeof where, "%s:/model/definition", in->path);
        hid_t set = lf_h5_dataset_open(in->file, in->path, "/model/definition", H5P_DEFAULT, err);
        model->definition =
            set >= 0 && lf_h5_storage_check(set, where, err) ? lf_h5_dataset_text(set, where, err) : NULL;
        H5Dclose(set);
    } else {
        snprintf(where, sizeof where, "%s:/model", in->path);
        hid_t group = group_open(in, "/model", err);
        model->definition = group >= 0 ? lf_h5_attribute_text(group, "definition", where, err) : NULL;
        H5Oclose(group);
    }
    return model->definition;
}

// What files of models that no run trained, or of earlier versions, do not have.
static bool run_read(const reader *in, lf_model_file *model, lf_error *err)
{
    hid_t root = H5Gopen2(in->file, "/", H5P_DEFAULT);
    bool there = H5Aexists(root, LF_MODEL_RUN) > 0;
    char *text = there ? lf_h5_attribute_text(root, LF_MODEL_RUN, in->path, err) : NULL;
    bool good = !there || (text && strlen(text) < sizeof model->run);
    if (text && !good)
        lf_error_set(err, LF_EFORMAT, "%s:/@" LF_MODEL_RUN ": has %zu characters; expects a UUID of 36", in->path,
                     strlen(text));
    if (text && good)
        strcpy(model->run, text);
    free(text);
    H5Gclose(root);
    return good;
}

static bool f64_read(hid_t place, const char *name, const char *where, double *value, lf_error *err)
{
    hid_t attribute = H5Aexists(place, name) > 0 ? H5Aopen(place, name, H5P_DEFAULT) : -1;
    hid_t space = H5Aget_space(attribute);
    bool good =
        attribute >= 0 && H5Sget_simple_extent_npoints(space) == 1 && H5Aread(attribute, H5T_NATIVE_DOUBLE, value) >= 0;
    if (!good)
        lf_error_set(err, LF_EFORMAT, "%s@%s: is missing or not a number", where, name);
    H5Sclose(space);
    H5Aclose(attribute);
    return good;
}

// What files of earlier versions do not have.
static bool monitor_read(hid_t place, const char *where, lf_train_state *state, lf_error *err)
{
    const struct {
        const char *name;
        double *value;
    } numbers[] = { { "monitor_best", &state->monitor_best },
                    { "epoch_loss", &state->epoch_loss },
                    { "epoch_weight", &state->epoch_weight },
                    { "epoch_right", &state->epoch_right } };
    const struct {
        const char *name;
        uint64_t *value;
    } counts[] = { { "monitor_epoch", &state->monitor_epoch }, { "epoch_rows", &state->epoch_rows } };
    state->monitor_best = NAN;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (H5Aexists(place, numbers[i].name) > 0 && !f64_read(place, numbers[i].name, where, numbers[i].value, err))
            return false;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (H5Aexists(place, counts[i].name) > 0 &&
            !lf_h5_attribute_u64(place, counts[i].name, where, counts[i].value, err))
            return false;
    return true;
}

static bool rows_read(const reader *in, lf_train_state *state, lf_error *err)
{
    static const char path[] = "/train_state/rows";
    if (!lf_h5_exists(in->file, path))
        return true;
    char where[600];
    snprintf(where, sizeof where, "%s:%s", in->path, path);
    hid_t set = lf_h5_dataset_open(in->file, in->path, path, H5P_DEFAULT, err);
    hid_t type = H5Dget_type(set), space = H5Dget_space(set);
    int rank = H5Sget_simple_extent_ndims(space);
    hssize_t count = H5Sget_simple_extent_npoints(space);
    bool good = false;
    if (set < 0) {
        // The message is there.
    } else if (H5Tget_class(type) != H5T_INTEGER || rank != 1 || count < 1 || (uint64_t)count > in->most) {
        lf_error_set(err, LF_EFORMAT, "%s: has rank %d and %lld values of type %s; expects a list of row numbers",
                     where, rank, (long long)count, lf_h5_type_name(type));
    } else if (lf_h5_storage_check(set, where, err) && lf_h5_written_check(set, where, err)) {
        state->rows = malloc((size_t)count * sizeof *state->rows);
        if (!state->rows)
            lf_error_set(err, LF_ENOMEM, "%s: out of memory for %lld row numbers", where, (long long)count);
        else if (H5Dread(set, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, state->rows) < 0)
            lf_h5_error(err, LF_EFORMAT, "%s: cannot read", where);
        else
            good = true;
        state->row_count = good ? (size_t)count : 0;
    }
    H5Sclose(space);
    H5Tclose(type);
    H5Dclose(set);
    return good;
}

static bool optional_text(hid_t object, const char *name, const char *where, char **text, lf_error *err)
{
    if (H5Aexists(object, name) <= 0)
        return true;
    *text = lf_h5_attribute_text(object, name, where, err);
    return *text;
}

static bool place_read(const reader *in, lf_train_state *state, lf_error *err)
{
    char where[600];
    snprintf(where, sizeof where, "%s:/train_state", in->path);
    hid_t place = group_open(in, "/train_state", err);
    bool good = place >= 0 && lf_h5_attribute_u64(place, "epoch", where, &state->epoch, err) &&
                lf_h5_attribute_u64(place, "step", where, &state->step, err) &&
                lf_h5_attribute_u64(place, "position", where, &state->position, err) &&
                lf_h5_attribute_u64(place, "seed", where, &state->seed, err) &&
                lf_h5_attribute_u64(place, "waited", where, &state->waited, err) &&
                lf_h5_attribute_u64(place, "reductions", where, &state->reductions, err) &&
                f64_read(place, "best", where, &state->best, err) && monitor_read(place, where, state, err) &&
                rows_read(in, state, err) && optional_text(place, "schedule", where, &state->schedule, err) &&
                optional_text(place, "options", where, &state->options, err);
    H5Oclose(place);
    return good;
}

static bool state_read(const reader *in, lf_model_file *model, lf_error *err)
{
    if (!lf_h5_exists(in->file, "/optimizer") && !lf_h5_exists(in->file, "/train_state"))
        return true;
    lf_train_state *state = model->state = calloc(1, sizeof *state);
    if (!state) {
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", in->path);
        return false;
    }
    char where[600];
    snprintf(where, sizeof where, "%s:/optimizer", in->path);
    hid_t optimizer = group_open(in, "/optimizer", err);
    char *kind = optimizer >= 0 ? lf_h5_attribute_text(optimizer, "kind", where, err) : NULL;
    bool good = kind && lf_h5_attribute_u64(optimizer, "step", where, &state->optimizer_step, err);
    if (good && strlen(kind) >= sizeof state->optimizer) {
        lf_error_set(err, LF_EFORMAT, "%s@kind: has %zu characters; expects fewer than %zu", where, strlen(kind),
                     sizeof state->optimizer);
        good = false;
    }
    if (good)
        strcpy(state->optimizer, kind);
    good = good && tensors_read(in, "/optimizer", &state->moments, &state->moment_count, err) &&
           place_read(in, state, err);
    free(kind);
    H5Oclose(optimizer);
    return good;
}

static bool digest_check(const reader *in, lf_model_file *model, lf_error *err)
{
    char where[600], content[65];
    snprintf(where, sizeof where, "%s:/digest", in->path);
    hid_t group = group_open(in, "/digest", err);
    if (group < 0)
        return false;
    char *tensors_said = lf_h5_attribute_text(group, "sha256", where, err), *content_said = NULL;
    bool good = tensors_said && optional_text(group, "content_sha256", where, &content_said, err) &&
                lf_tensors_digest(model->tensors, model->tensor_count, model->digest, err);
    if (good && strcmp(tensors_said, model->digest) != 0) {
        lf_error_set(err, LF_EDATA, "%s: the weights are damaged: their sha256 is %s, but the file says %s", in->path,
                     model->digest, tensors_said);
        good = false;
    }
    good = good && lf_model_content_digest(model, content, err);
    // Only lavaflow writes this one; a model made by another program has none.
    if (good && content_said && strcmp(content_said, content) != 0) {
        lf_error_set(err, LF_EDATA, "%s: is damaged: the sha256 of definition and state is %s, but the file says %s",
                     in->path, content, content_said);
        good = false;
    }
    free(content_said);
    free(tensors_said);
    H5Oclose(group);
    return good;
}

lf_model_file *lf_model_file_read(const char *path, lf_error *err)
{
    lf_model_file *model = calloc(1, sizeof *model);
    if (!model) {
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", path);
        return NULL;
    }
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    reader in = { .path = path, .file = lf_h5_file_open(path, err) };
    struct stat info = { 0 };
    if (in.file >= 0 && stat(path, &info) == 0)
        in.most = (uint64_t)info.st_size * SMALLEST_RATIO / sizeof(float);
    bool good = in.file >= 0 && lf_h5_header_check(in.file, path, LF_MODEL_FORMAT, LF_MODEL_MAJOR, "model file", err) &&
                run_read(&in, model, err) && definition_read(&in, model, err) &&
                tensors_read(&in, "/model", &model->tensors, &model->tensor_count, err) &&
                state_read(&in, model, err) && digest_check(&in, model, err);
    H5Fclose(in.file);
    lf_h5_leave(&scope);
    if (!good) {
        lf_model_file_destroy(model);
        return NULL;
    }
    return model;
}

static void tensors_free(lf_file_tensor *tensors, size_t count)
{
    for (size_t i = 0; tensors && i < count; i++) {
        free(tensors[i].name);
        free(tensors[i].values);
    }
    free(tensors);
}

void lf_model_file_destroy(lf_model_file *file)
{
    if (!file)
        return;
    if (file->state) {
        tensors_free(file->state->moments, file->state->moment_count);
        free(file->state->rows);
        free(file->state->schedule);
        free(file->state->options);
        free(file->state);
    }
    tensors_free(file->tensors, file->tensor_count);
    free(file->definition);
    free(file);
}
