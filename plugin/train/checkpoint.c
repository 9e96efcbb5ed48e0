#include "train/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const moment_names[] = { "m", "v" };

bool lf_model_view_init(const lf_model *model, lf_model_file *view, lf_error *err)
{
    *view = (lf_model_file){ .definition = lf_model_definition(model), .tensor_count = model->tensor_count };
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
    char name[LF_NAME_MAX + 8];
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
    model->initialised = true;
    return true;
}

// The optimizer's state as tensors over blocks of the model's layout: "linear_1/kernel/m", …
static lf_file_tensor *view_moments(const lf_model *model, unsigned moments, float *blocks, size_t *count)
{
    lf_file_tensor *tensors = calloc(moments * model->tensor_count + 1, sizeof *tensors);
    *count = 0;
    for (size_t i = 0; tensors && i < moments * model->tensor_count; i++) {
        const lf_param *param = &model->tensors[i / moments];
        unsigned moment = (unsigned)(i % moments);
        char name[LF_NAME_MAX + 8];
        if (param->state) // no optimizer touches it
            continue;
        snprintf(name, sizeof name, "%s/%s", param->name, moment_names[moment]);
        tensors[(*count)++] = (lf_file_tensor){ strdup(name), param->rows, param->cols,
                                                blocks + moment * model->block_count + param->offset };
    }
    return tensors;
}

bool lf_checkpoint_save(const char *path, lf_model *model, lf_session *session, const lf_train_place *place,
                        lf_error *err)
{
    unsigned moments = lf_optimizer_moments(place->optimizer);
    float *blocks = calloc(moments * model->block_count + 1, sizeof *blocks);
    size_t tensor_count = 0;
    lf_file_tensor *tensors = blocks ? view_moments(model, moments, blocks, &tensor_count) : NULL;
    lf_model_file view = { 0 };
    bool ok = tensors != NULL;
    if (!ok)
        lf_error_set(err, LF_ENOMEM, "%s: out of memory for the checkpoint", path);
    for (unsigned i = 0; ok && i < moments; i++)
        ok = lf_session_read_moments(session, i, blocks + i * model->block_count, err);
    ok = ok && lf_session_read_weights(session, model, err) && lf_model_view_init(model, &view, err);
    if (ok) {
        lf_train_state state = { .optimizer_step = place->step,
                                 .epoch = place->epoch,
                                 .step = place->step,
                                 .position = place->position,
                                 .seed = place->seed,
                                 .best = isfinite(place->best) ? place->best : (double)NAN,
                                 .waited = place->waited,
                                 .reductions = place->reductions,
                                 .schedule = (char *)place->schedule,
                                 .moments = tensors,
                                 .moment_count = tensor_count,
                                 .options = (char *)place->options };
        snprintf(state.optimizer, sizeof state.optimizer, "%s", lf_optimizer_name(place->optimizer->kind));
        view.state = &state;
        ok = lf_model_file_write(path, &view, err);
    }
    lf_model_view_finish(&view);
    for (size_t i = 0; i < tensor_count; i++)
        free(tensors[i].name);
    free(tensors);
    free(blocks);
    return ok;
}

// The first option that differs in two lists "name value, name value, …".
static void name_difference(const char *path, const char *written, const char *asked, lf_error *err)
{
    size_t same = 0;
    while (written[same] && written[same] == asked[same])
        same++;
    while (same && !(same > 1 && written[same - 1] == ' ' && written[same - 2] == ','))
        same--;
    written += same;
    asked += same;
    lf_error_set(err, LF_EARG, "%s belongs to another training: it was written with %.*s, but this one has %.*s", path,
                 (int)strcspn(written, ","), written, (int)strcspn(asked, ","), asked);
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
        place->best = isnan(state->best) ? HUGE_VAL : state->best;
        place->waited = state->waited;
        place->reductions = state->reductions;
        return file;
    }
    lf_model_file_destroy(file);
    return NULL;
}

bool lf_checkpoint_restore(const lf_model_file *file, const lf_model *model, lf_session *session, lf_error *err)
{
    unsigned moments = lf_optimizer_moments(&lf_session_program(session)->params.optimizer);
    float *block = calloc(model->block_count, sizeof *block);
    bool ok = block != NULL;
    if (!ok)
        lf_error_set(err, LF_ENOMEM, "checkpoint: out of memory");
    for (unsigned moment = 0; ok && moment < moments; moment++) {
        char suffix[8];
        snprintf(suffix, sizeof suffix, "/%s", moment_names[moment]);
        for (size_t i = 0; ok && i < model->tensor_count; i++) {
            const lf_param *param = &model->tensors[i];
            if (param->state)
                continue;
            const lf_file_tensor *tensor =
                match(file->state->moments, file->state->moment_count, param, suffix, "checkpoint", err);
            ok = tensor != NULL;
            if (ok)
                memcpy(block + param->offset, tensor->values, lf_param_size(param) * sizeof(float));
        }
        ok = ok && lf_session_write_moments(session, moment, block, err);
    }
    free(block);
    return ok;
}
