#include "train/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/identity.h"

static const char *const best_name = "best";

bool lf_model_view_init(const lf_model *model, lf_model_file *view, lf_error *err)
{
    *view = (lf_model_file){ .definition = lf_model_definition(model), .tensor_count = model->tensor_count };
    memcpy(view->run, model->run, sizeof view->run);
    view->tensors = calloc(model->tensor_count, sizeof *view->tensors);
    if (!view->tensors || !view->definition) {
        lf_error_set(err, LF_ENOMEM, "model: out of memory");
        lf_model_view_finish(view);
        return false;
    }
    for (size_t i = 0; i < model->tensor_count; i++) {
        lf_param *param = &model->tensors[i];
        view->tensors[i] = (lf_file_tensor){ param->name, param->rows, param->cols, lf_param_values(model, param) };
    }
    return true;
}

void lf_model_view_finish(lf_model_file *view)
{
    free(view->definition);
    free(view->tensors);
    *view = (lf_model_file){ 0 };
}

bool lf_model_digest(const lf_model *model, char hex[65], lf_error *err)
{
    lf_model_file view;
    if (!lf_model_view_init(model, &view, err))
        return false;
    bool ok = lf_tensors_digest(view.tensors, view.tensor_count, hex, err);
    lf_model_view_finish(&view);
    return ok;
}

bool lf_model_save(const lf_model *model, const char *path, lf_error *err)
{
    lf_model_file view;
    if (!lf_model_view_init(model, &view, err))
        return false;
    bool ok = lf_model_file_write(path, &view, err);
    lf_model_view_finish(&view);
    return ok;
}

static const lf_file_tensor *find_tensor(const lf_file_tensor *tensors, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(tensors[i].name, name))
            return &tensors[i];
    return NULL;
}

// The tensor of a file that belongs to a parameter, by name and shape.
static const lf_file_tensor *match(const lf_file_tensor *tensors, size_t count, const lf_param *param,
                                   const char *suffix, const char *path, lf_error *err)
{
    char name[LF_NAME_MAX + 16];
    snprintf(name, sizeof name, "%s%s", param->name, suffix);
    const lf_file_tensor *tensor = find_tensor(tensors, count, name);
    if (!tensor)
        lf_error_set(err, LF_EFORMAT, "%s: the file has no %s, which the model needs", path, name);
    else if (tensor->rows == param->rows && tensor->cols == param->cols)
        return tensor;
    else
        lf_error_set(err, LF_EFORMAT, "%s: %s has shape (%u, %u) in the file, but (%u, %u) in the model", path, name,
                     tensor->rows, tensor->cols, param->rows, param->cols);
    return NULL;
}

bool lf_model_take_weights(lf_model *model, const lf_model_file *file, const char *path, lf_error *err)
{
    for (size_t i = 0; i < model->tensor_count; i++)
        if (!match(file->tensors, file->tensor_count, &model->tensors[i], "", path, err))
            return false;
    for (size_t i = 0; i < model->tensor_count; i++) {
        const lf_param *param = &model->tensors[i];
        const lf_file_tensor *tensor = match(file->tensors, file->tensor_count, param, "", path, err);
        memcpy(lf_param_values(model, param), tensor->values, lf_param_size(param) * sizeof(float));
    }
    memcpy(model->run, file->run, sizeof model->run);
    model->initialised = true;
    return true;
}

size_t lf_train_blocks(const lf_program *program, lf_train_block blocks[LF_TRAIN_BLOCK_MAX])
{
    size_t count = 0;
    for (unsigned i = 0; i < LF_MOMENT_COUNT; i++)
        if (program->moment[i] != LF_NO_TENSOR)
            blocks[count++] = (lf_train_block){ program->moment[i], lf_moment_name((lf_moment)i) };
    if (program->average != LF_NO_TENSOR)
        blocks[count++] = (lf_train_block){ program->average, "average" };
    return count;
}

// Tensors over blocks of the model's layout, with names behind those of the model's tensors: "linear_1/kernel/m", …
typedef struct tensor_list {
    lf_file_tensor *tensors;
    size_t count;
} tensor_list;

static bool add_tensors(tensor_list *list, const lf_model *model, bool state, const char *name, const float *block)
{
    for (size_t i = 0; i < model->tensor_count; i++) {
        const lf_param *param = &model->tensors[i];
        char whole[LF_NAME_MAX + 16];
        if (param->state != state)
            continue;
        snprintf(whole, sizeof whole, "%s/%s", param->name, name);
        char *copy = strdup(whole);
        if (!copy)
            return false;
        list->tensors[list->count++] =
            (lf_file_tensor){ copy, param->rows, param->cols, (float *)block + param->offset };
    }
    return true;
}

static bool list_tensors(tensor_list *list, const lf_model *model, const lf_train_block *blocks, size_t count,
                         const float *values, const float *best, lf_error *err)
{
    list->tensors = calloc((count + 1) * model->tensor_count + 1, sizeof *list->tensors);
    bool ok = list->tensors != NULL;
    for (size_t i = 0; ok && i < count; i++)
        ok = add_tensors(list, model, false, blocks[i].name, values + i * model->block_count);
    if (ok && best)
        ok = add_tensors(list, model, false, best_name, best) &&
             add_tensors(list, model, true, best_name, best + model->block_count);
    if (!ok)
        lf_error_set(err, LF_ENOMEM, "checkpoint: out of memory for the names of its tensors");
    return ok;
}

static bool write_checkpoint(const char *path, lf_model *model, const tensor_list *list, const lf_train_place *place,
                             lf_error *err)
{
    lf_model_file view;
    if (!lf_model_view_init(model, &view, err))
        return false;
    lf_train_state state = { .optimizer_step = place->step,
                             .epoch = place->epoch,
                             .step = place->step,
                             .position = place->position,
                             .seed = place->seed,
                             .epoch_loss = place->sums.loss,
                             .epoch_weight = place->sums.weight,
                             .epoch_right = place->sums.right,
                             .epoch_rows = place->sums.rows,
                             .best = isfinite(place->plateau.best) ? place->plateau.best : (double)NAN,
                             .waited = place->plateau.waited,
                             .reductions = place->plateau.reductions,
                             .monitor_best = place->monitor_best,
                             .monitor_epoch = place->monitor_epoch,
                             .rows = (uint64_t *)place->rows,
                             .row_count = place->row_count,
                             .schedule = (char *)place->schedule,
                             .moments = list->tensors,
                             .moment_count = list->count,
                             .options = (char *)place->options };
    snprintf(state.optimizer, sizeof state.optimizer, "%s", lf_optimizer_name(place->optimizer->kind));
    view.state = &state;
    bool ok = lf_model_file_write(path, &view, err);
    lf_model_view_finish(&view);
    return ok;
}

bool lf_checkpoint_save(const char *path, lf_model *model, lf_session *session, const lf_train_place *place,
                        lf_error *err)
{
    lf_train_block blocks[LF_TRAIN_BLOCK_MAX];
    size_t count = lf_train_blocks(lf_session_program(session), blocks);
    float *values = calloc(count * model->block_count + 1, sizeof *values);
    tensor_list list = { 0 };
    bool ok = values != NULL;
    if (!ok)
        lf_error_set(err, LF_ENOMEM, "%s: out of memory for the checkpoint", path);
    for (size_t i = 0; ok && i < count; i++)
        ok = lf_session_read_block(session, blocks[i].id, values + i * model->block_count, err);
    ok = ok && lf_session_read_weights(session, model, err) &&
         list_tensors(&list, model, blocks, count, values, place->best_weights, err) &&
         write_checkpoint(path, model, &list, place, err);
    for (size_t i = 0; i < list.count; i++)
        free(list.tensors[i].name);
    free(list.tensors);
    free(values);
    return ok;
}

static void name_difference(const char *path, const char *written, const char *asked, lf_error *err)
{
    size_t same = lf_train_options_difference(written, asked);
    written += same;
    asked += same;
    lf_error_set(err, LF_EARG, "%s belongs to another training: it was written with %.*s, but this one has %.*s", path,
                 (int)strcspn(written, ","), written, (int)strcspn(asked, ","), asked);
}

uint32_t lf_checkpoint_shards(const char *path)
{
    lf_error none;
    lf_model_file *file = lf_model_file_read(path, &none);
    const char *at = file && file->state && file->state->options ? strstr(file->state->options, "shards ") : NULL;
    uint32_t shards = 1;
    if (at)
        shards = (uint32_t)strtoul(at + strlen("shards "), NULL, 10);
    lf_model_file_destroy(file);
    return shards ? shards : 1;
}

lf_model_file *lf_checkpoint_load(const char *path, lf_model *model, lf_train_place *place, lf_error *err)
{
    lf_model_file *file = lf_model_file_read(path, err);
    if (!file)
        return NULL;
    const lf_train_state *state = file->state;
    const char *optimizer = lf_optimizer_name(place->optimizer->kind);
    if (!state)
        lf_error_set(err, LF_EFORMAT, "%s is a model, not a checkpoint: it holds no optimizer state", path);
    else if (strcmp(state->optimizer, optimizer))
        lf_error_set(err, LF_EARG, "%s was written with optimizer %s, but this training uses %s", path,
                     state->optimizer, optimizer);
    else if (state->options && strcmp(state->options, place->options))
        name_difference(path, state->options, place->options, err);
    else if (lf_model_take_weights(model, file, path, err)) {
        place->epoch = state->epoch;
        place->step = state->step;
        place->position = state->position;
        place->sums = (lf_sums){ state->epoch_loss, state->epoch_weight, state->epoch_right, state->epoch_rows };
        place->plateau.best = isnan(state->best) ? HUGE_VAL : state->best;
        place->plateau.waited = state->waited;
        place->plateau.reductions = state->reductions;
        place->monitor_best = state->monitor_best;
        place->monitor_epoch = state->monitor_epoch;
        return file;
    }
    lf_model_file_destroy(file);
    return NULL;
}

// Tensors of the file that are named `name`, into a block.
static bool take_tensors(const lf_train_state *state, const lf_model *model, bool running, const char *name,
                         float *block, lf_error *err)
{
    char suffix[16];
    snprintf(suffix, sizeof suffix, "/%s", name);
    for (size_t i = 0; i < model->tensor_count; i++) {
        const lf_param *param = &model->tensors[i];
        if (param->state != running)
            continue;
        const lf_file_tensor *tensor = match(state->moments, state->moment_count, param, suffix, "checkpoint", err);
        if (!tensor)
            return false;
        memcpy(block + param->offset, tensor->values, lf_param_size(param) * sizeof(float));
    }
    return true;
}

bool lf_checkpoint_restore(const lf_model_file *file, const lf_model *model, lf_session *session, lf_error *err)
{
    lf_train_block blocks[LF_TRAIN_BLOCK_MAX];
    size_t count = lf_train_blocks(lf_session_program(session), blocks);
    float *block = calloc(model->block_count, sizeof *block);
    bool ok = block != NULL;
    if (!ok)
        lf_error_set(err, LF_ENOMEM, "checkpoint: out of memory");
    for (size_t i = 0; ok && i < count; i++)
        ok = take_tensors(file->state, model, false, blocks[i].name, block, err) &&
             lf_session_write_block(session, blocks[i].id, block, err);
    free(block);
    return ok;
}

bool lf_checkpoint_take_best(const lf_model_file *file, const lf_model *model, float *best)
{
    lf_error none;
    return take_tensors(file->state, model, false, best_name, best, &none) &&
           take_tensors(file->state, model, true, best_name, best + model->block_count, &none);
}
