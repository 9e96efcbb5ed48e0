// A training whose loss is not finite goes back to a snapshot and stops right before the step at fault: equal bits on
// every run make that possible.
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "ranks/ranks.h"
#include "train/identity.h"
#include "train/training.h"

// Inside an epoch, snapshots take at most this part of the time.
static const double SHARE = 1. / 50;

static float *block_at(const training *t, size_t index)
{
    return t->snapshot.blocks + (index + 1) * t->model->block_count;
}

static bool take_snapshot(training *t, double now, lf_error *err)
{
    lf_snapshot *s = &t->snapshot;
    lf_model *model = t->model;
    lf_train_block blocks[LF_TRAIN_BLOCK_MAX];
    size_t count = lf_train_blocks(lf_session_program(t->session), blocks);
    if (!s->blocks) {
        s->blocks = calloc((count + 1) * model->block_count, sizeof *s->blocks);
        s->state = calloc(model->state_count + 1, sizeof *s->state);
    }
    if (!s->blocks || !s->state) {
        lf_error_set(err, LF_ENOMEM, "replay: out of memory for %zu copies of %zu parameters", count + 1,
                     model->param_count);
        return false;
    }
    if (!lf_session_read_weights(t->session, model, err))
        return false;
    memcpy(s->blocks, model->params, model->block_count * sizeof *s->blocks);
    memcpy(s->state, model->state, model->state_count * sizeof *s->state);
    for (size_t i = 0; i < count; i++)
        if (!lf_session_read_block(t->session, blocks[i].id, block_at(t, i), err))
            return false;
    s->place = t->place;
    s->taken = lf_clock();
    s->cost = s->taken - now;
    return true;
}

bool lf_training_snapshot(training *t, lf_error *err)
{
    const lf_snapshot *s = &t->snapshot;
    double now = lf_clock();
    bool recent = s->blocks && now - s->taken < 1 + s->cost / SHARE;
    if (!t->p->replay)
        return true;
    if (!lf_training_decide(t, &recent, err))
        return false;
    return (recent && t->place.position) || lf_ranks_agree(take_snapshot(t, now, err), err);
}

static bool count(void *user, const lf_piece *piece, lf_error *err)
{
    (void)err;
    training *t = user;
    lf_piece_add(piece, &t->place.sums);
    return true;
}

// The training as it was at the snapshot.
static bool go_back(training *t, lf_error *err)
{
    lf_model *model = t->model;
    t->place = t->snapshot.place;
    memcpy(model->params, t->snapshot.blocks, model->block_count * sizeof *model->params);
    memcpy(model->state, t->snapshot.state, model->state_count * sizeof *model->state);
    lf_training_close(t);
    if (!lf_training_open(t, err))
        return false;
    lf_train_block blocks[LF_TRAIN_BLOCK_MAX];
    size_t count = lf_train_blocks(lf_session_program(t->session), blocks);
    for (size_t i = 0; i < count; i++)
        if (!lf_session_write_block(t->session, blocks[i].id, block_at(t, i), err))
            return false;
    return true;
}

// Runs up to `step` steps in all, the end of an update of the snapshot's epoch.
static bool run_to(training *t, uint64_t step, lf_error *err)
{
    if (!lf_session_run(t->session, step - t->place.step, 0, count, t, err))
        return false;
    t->place.position += (step - t->place.step) * t->p->batch;
    t->place.step = step;
    return true;
}

static bool leave(training *t, lf_error *err)
{
    const lf_train_params *p = t->p;
    const lf_part *part = lf_dataset_part(p->data, p->part, err);
    uint64_t in_epoch = (t->failed_step - 1) % t->epoch_steps, step = t->failed_step - 1 - in_epoch % p->accumulate;
    if (!go_back(t, err) || !run_to(t, step, err) ||
        !lf_train_identity(p, part, &t->span, t->shards, t->place.options, sizeof t->place.options, err))
        return false;
    uint64_t left = t->rows - in_epoch * p->batch;
    t->place.row_count = left < p->batch ? left : p->batch;
    uint64_t *rows = calloc(t->place.row_count, sizeof *rows);
    bool ok = rows != NULL;
    if (!ok) {
        lf_error_set(err, LF_ENOMEM, "replay: out of memory for %zu rows", t->place.row_count);
    } else {
        lf_feed_rows(part, p->shuffle, p->seed, t->place.epoch, in_epoch * p->batch, (uint32_t)t->place.row_count,
                     rows);
        t->place.rows = rows;
        ok = t->rank || lf_checkpoint_save(p->replay, t->model, t->session, &t->place, err);
        t->place.rows = NULL;
    }
    free(rows);
    return ok;
}

void lf_training_leave_replay(training *t, lf_error *err)
{
    if (!t->p->replay || !t->failed_step || !t->snapshot.blocks)
        return;
    lf_error failure = { LF_OK, "" };
    if (leave(t, &failure))
        lf_error_prefix(err, "%s holds the training before that step, and the rows of its batch", t->p->replay);
    else
        lf_error_prefix(err, "the training before that step could not be written (%s)", failure.text);
}

void lf_training_snapshot_finish(lf_snapshot *snapshot)
{
    free(snapshot->blocks);
    free(snapshot->state);
}
