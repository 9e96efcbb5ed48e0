#include "io/model_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "io/atomic.h"
#include "io/h5_header.h"
#include "io/model_content.h"

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return isnan(value) ? 0 : bits; // NaNs have many bit patterns; "none" has one
}

static size_t tensor_size(const lf_file_tensor *tensor)
{
    return (size_t)(tensor->rows ? tensor->rows : 1) * tensor->cols;
}

static void hash_values(lf_hash *hash, const float *values, size_t count)
{
    unsigned char bytes[4096];
    while (count > 0) {
        size_t piece = count < sizeof bytes / 4 ? count : sizeof bytes / 4;
        for (size_t i = 0; i < piece; i++) {
            uint32_t bits;
            memcpy(&bits, &values[i], 4);
            for (int b = 0; b < 4; b++)
                bytes[4 * i + (size_t)b] = (unsigned char)(bits >> (8 * b));
        }
        lf_hash_update(hash, bytes, 4 * piece);
        values += piece;
        count -= piece;
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const lf_file_tensor *const *)a)->name, (*(const lf_file_tensor *const *)b)->name);
}

bool lf_tensors_digest(const lf_file_tensor *tensors, size_t count, char hex[65], lf_error *err)
{
    lf_hash *hash = lf_hash_create(err);
    const lf_file_tensor **sorted = malloc((count + 1) * sizeof *sorted);
    if (hash && !sorted)
        lf_error_set(err, LF_ENOMEM, "digest: out of memory for %zu tensors", count);
    bool good = hash && sorted;
    if (good) {
        for (size_t i = 0; i < count; i++)
            sorted[i] = &tensors[i];
        qsort(sorted, count, sizeof *sorted, by_name);
        for (size_t i = 0; i < count; i++) {
            const lf_file_tensor *tensor = sorted[i];
            lf_hash_text(hash, tensor->name);
            lf_hash_u64(hash, tensor->rows ? 2 : 1);
            if (tensor->rows)
                lf_hash_u64(hash, tensor->rows);
            lf_hash_u64(hash, tensor->cols);
            hash_values(hash, tensor->values, tensor_size(tensor));
        }
        lf_hash_finish(hash, hex);
    }
    free(sorted);
    lf_hash_destroy(hash);
    return good;
}

bool lf_model_content_digest(const lf_model_file *file, char hex[65], lf_error *err)
{
    char moments[65] = "";
    const lf_train_state *state = file->state;
    if (state && !lf_tensors_digest(state->moments, state->moment_count, moments, err))
        return false;
    lf_hash *hash = lf_hash_create(err);
    if (!hash)
        return false;
    lf_hash_text(hash, file->definition);
    lf_hash_text(hash, file->digest);
    if (state) {
        lf_hash_text(hash, moments);
        lf_hash_text(hash, state->optimizer);
        lf_hash_text(hash, state->schedule ? state->schedule : "");
        lf_hash_text(hash, state->options ? state->options : "");
        lf_hash_u64(hash, state->optimizer_step);
        lf_hash_u64(hash, state->epoch);
        lf_hash_u64(hash, state->step);
        lf_hash_u64(hash, state->position);
        lf_hash_u64(hash, state->seed);
        lf_hash_u64(hash, state->waited);
        lf_hash_u64(hash, state->reductions);
        lf_hash_u64(hash, bits_of(state->best));
        // Only where they are given, so that files written before these fields keep their digest.
        if (!isnan(state->monitor_best) || state->monitor_epoch > 0 || state->row_count > 0) {
            lf_hash_text(hash, "monitor");
            lf_hash_u64(hash, bits_of(state->monitor_best));
            lf_hash_u64(hash, state->monitor_epoch);
            lf_hash_u64(hash, state->row_count);
            for (size_t i = 0; i < state->row_count; i++)
                lf_hash_u64(hash, state->rows[i]);
        }
        if (state->epoch_rows > 0) {
            lf_hash_text(hash, "epoch");
            lf_hash_u64(hash, bits_of(state->epoch_loss));
            lf_hash_u64(hash, bits_of(state->epoch_weight));
            lf_hash_u64(hash, bits_of(state->epoch_right));
            lf_hash_u64(hash, state->epoch_rows);
        }
    }
    lf_hash_finish(hash, hex);
    lf_hash_destroy(hash);
    return true;
}

static bool tensors_write(hid_t group, const lf_file_tensor *tensors, size_t count, lf_error *err)
{
    for (size_t i = 0; i < count; i++) {
        const lf_file_tensor *tensor = &tensors[i];
        const char *name = tensor->name;
        if (!name || !*name || *name == '/' || name[0] == '.' || strstr(name, "/.") || strstr(name, "//") ||
            tensor->cols == 0 || lf_h5_exists(group, name)) {
            lf_error_set(err, LF_EARG,
                         "tensor %zu (\"%s\"): expects a new relative name and at least one column, has %lu", i,
                         name ? name : "", (unsigned long)tensor->cols);
            return false;
        }
        const hsize_t shape[] = { tensor->rows, tensor->cols };
        if (!lf_h5_write_array(group, name, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, tensor->rows ? 2 : 1,
                               tensor->rows ? shape : shape + 1, tensor->values, err))
            return false;
    }
    return true;
}

static bool set_u64(hid_t object, const char *name, uint64_t value, lf_error *err)
{
    return lf_h5_set_array(object, name, H5T_STD_U64LE, H5T_NATIVE_UINT64, 0, NULL, &value, err);
}

static bool set_f64(hid_t object, const char *name, double value, lf_error *err)
{
    return lf_h5_set_array(object, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 0, NULL, &value, err);
}

static bool state_write(hid_t group, const lf_train_state *state, lf_error *err)
{
    hid_t optimizer = lf_h5_group_make(group, "optimizer", err);
    hid_t place = optimizer >= 0 ? lf_h5_group_make(group, "train_state", err) : -1;
    bool good = place >= 0 && lf_h5_set_fixed_text(optimizer, "kind", state->optimizer, err) &&
                set_u64(optimizer, "step", state->optimizer_step, err) &&
                tensors_write(optimizer, state->moments, state->moment_count, err) &&
                set_u64(place, "epoch", state->epoch, err) && set_u64(place, "step", state->step, err) &&
                set_u64(place, "position", state->position, err) && set_u64(place, "seed", state->seed, err) &&
                set_u64(place, "waited", state->waited, err) && set_u64(place, "reductions", state->reductions, err) &&
                set_f64(place, "best", state->best, err) && set_f64(place, "monitor_best", state->monitor_best, err) &&
                set_u64(place, "monitor_epoch", state->monitor_epoch, err) &&
                set_f64(place, "epoch_loss", state->epoch_loss, err) &&
                set_f64(place, "epoch_weight", state->epoch_weight, err) &&
                set_f64(place, "epoch_right", state->epoch_right, err) &&
                set_u64(place, "epoch_rows", state->epoch_rows, err);
    const hsize_t count = state->row_count;
    if (good && count > 0)
        good = lf_h5_write_array(place, "rows", H5T_STD_U64LE, H5T_NATIVE_UINT64, 1, &count, state->rows, err);
    good = good && (!state->schedule || lf_h5_set_fixed_text(place, "schedule", state->schedule, err)) &&
           (!state->options || lf_h5_set_fixed_text(place, "options", state->options, err));
    H5Gclose(place);
    H5Gclose(optimizer);
    return good;
}

bool lf_model_content_write(hid_t group, lf_model_file *file, lf_error *err)
{
    char content[65];
    hid_t model = -1, digest = -1;
    if (!file->definition) {
        lf_error_set(err, LF_EARG, "model: has no definition");
        return false;
    }
    if (!lf_tensors_digest(file->tensors, file->tensor_count, file->digest, err) ||
        !lf_model_content_digest(file, content, err))
        return false;
    // Complete at once: the file is built in memory and written whole.
    bool good = lf_h5_header_write(group, LF_MODEL_FORMAT, LF_MODEL_MAJOR, LF_MODEL_MINOR, err) &&
                lf_h5_complete_write(group, err);
    good = good && (!file->run[0] || lf_h5_set_fixed_text(group, LF_MODEL_RUN, file->run, err));
    model = good ? lf_h5_group_make(group, "model", err) : -1;
    good = model >= 0 && tensors_write(model, file->tensors, file->tensor_count, err);
    if (good && strlen(file->definition) > LF_MODEL_DEFINITION_MAX)
        good = lf_h5_write_fixed_text(model, "definition", file->definition, err);
    else
        good = good && lf_h5_set_fixed_text(model, "definition", file->definition, err);
    good = good && (!file->state || state_write(group, file->state, err));
    digest = good ? lf_h5_group_make(group, "digest", err) : -1;
    good = digest >= 0 && lf_h5_set_fixed_text(digest, "sha256", file->digest, err) &&
           lf_h5_set_fixed_text(digest, "content_sha256", content, err);
    H5Gclose(digest);
    H5Gclose(model);
    return good;
}

bool lf_model_file_write(const char *path, lf_model_file *file, lf_error *err)
{
    size_t values = 0, size = 0;
    void *image = NULL;
    for (size_t i = 0; i < file->tensor_count; i++)
        values += tensor_size(&file->tensors[i]);
    for (size_t i = 0; file->state && i < file->state->moment_count; i++)
        values += tensor_size(&file->state->moments[i]);
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    hid_t h5 = lf_h5_memory_create(values * sizeof(float), err);
    hid_t root = h5 >= 0 ? H5Gopen2(h5, "/", H5P_DEFAULT) : -1;
    if (root >= 0 && lf_model_content_write(root, file, err))
        image = lf_h5_memory_image(h5, &size, err);
    H5Gclose(root);
    H5Fclose(h5);
    lf_h5_leave(&scope);
    if (!image)
        lf_error_prefix(err, "%s", path);
    bool good = image && lf_file_replace(path, image, size, err);
    free(image);
    return good;
}
