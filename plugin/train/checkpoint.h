// A model, or a training in progress, as the tensors of a file. train.c and binding/ call this.
#ifndef LF_TRAIN_CHECKPOINT_H
#define LF_TRAIN_CHECKPOINT_H

#include <stdbool.h>

#include "io/model_file.h"
#include "program/model.h"
#include "train/session.h"

// sha256 of a model's weights, by name, shape and value.
bool lf_model_digest(const lf_model *model, char hex[65], lf_error *err);

// The model's tensors as views of its own block, with its definition; free with lf_model_view_finish.
bool lf_model_view_init(const lf_model *model, lf_model_file *view, lf_error *err);
void lf_model_view_finish(lf_model_file *view);

bool lf_model_save(const lf_model *model, const char *path, lf_error *err);

// Copies a file's weights into a model of the same names and shapes.
bool lf_model_take_weights(lf_model *model, const lf_model_file *file, const char *path, lf_error *err);

// Where a training is. `options` is text that must be equal for a resume to be the same training.
typedef struct lf_train_place {
    uint64_t epoch, step, position, seed;
    const lf_optimizer *optimizer;
    double best; // of a plateau schedule: see lf_train_state; HUGE_VAL: none
    uint64_t waited, reductions;
    char schedule[LF_SCHEDULE_TEXT];
    char options[1536];
} lf_train_place;

// Reads weights (into model->params) and moments from the session, and writes a checkpoint.
bool lf_checkpoint_save(const char *path, lf_model *model, lf_session *session, const lf_train_place *place,
                        lf_error *err);

// Reads a checkpoint's weights into the model and fills `place`'s numbers; refuses one of other options or optimizer.
// The file is kept for lf_checkpoint_restore once there is a session.
lf_model_file *lf_checkpoint_load(const char *path, lf_model *model, lf_train_place *place, lf_error *err);
bool lf_checkpoint_restore(const lf_model_file *file, const lf_model *model, lf_session *session, lf_error *err);

#endif
