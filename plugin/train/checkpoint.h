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

enum { LF_TRAIN_OPTIONS = 3072 };

// Where a training is. `options` is text that must be equal for a resume to be the same training.
typedef struct lf_train_place {
    uint64_t epoch, step, position, seed;
    lf_sums sums; // of the epoch so far
    const lf_optimizer *optimizer;
    lf_plateau plateau;
    double monitor_best;       // of what the training watches; NaN: none yet
    uint64_t monitor_epoch;    // that had it, from 1; 0: none yet
    const float *best_weights; // params, then state, of that epoch; borrowed; NULL: not kept
    const uint64_t *rows;      // of the batch that failed, where they are to be told; borrowed
    size_t row_count;
    char schedule[LF_SCHEDULE_TEXT];
    char options[LF_TRAIN_OPTIONS];
} lf_train_place;

// The blocks of a program that change from update to update, beside the weights, and their names in a file.
typedef struct lf_train_block {
    lf_tensor_id id;
    const char *name; // "m", "v", "average"
} lf_train_block;
#define LF_TRAIN_BLOCK_MAX (LF_MOMENT_COUNT + 1)
size_t lf_train_blocks(const lf_program *program, lf_train_block blocks[LF_TRAIN_BLOCK_MAX]);

// Reads weights (into model->params) and the other blocks from the session, and writes a checkpoint.
bool lf_checkpoint_save(const char *path, lf_model *model, lf_session *session, const lf_train_place *place,
                        lf_error *err);

// The shards of the training that wrote a checkpoint; 1: none, or it cannot be read, which loading it tells.
uint32_t lf_checkpoint_shards(const char *path);

// Reads a checkpoint's weights into the model and fills `place`'s numbers; refuses one of other options or optimizer.
// The file is kept for lf_checkpoint_restore once there is a session.
lf_model_file *lf_checkpoint_load(const char *path, lf_model *model, lf_train_place *place, lf_error *err);
bool lf_checkpoint_restore(const lf_model_file *file, const lf_model *model, lf_session *session, lf_error *err);
// The weights of the best epoch, params, then state; false: the file has none.
bool lf_checkpoint_take_best(const lf_model_file *file, const lf_model *model, float *best);

// Gives the file at `path` a second name <stem>-<step>.h5, and deletes the oldest such files but `keep`. Any that are
// named otherwise stay.
bool lf_checkpoint_keep(const char *path, uint64_t step, unsigned keep, lf_error *err);

#endif
