// The loop: pieces of steps, and what happens between them.
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "ranks/ranks.h"
#include "train/training.h"

// A training that took less leaves no checkpoint at its end where they are to be rare: it is repeated sooner.
static const double RARE_SECONDS = 1;

static double accuracy(const lf_train_params *p, const lf_sums *sums)
{
    return lf_sums_accuracy(sums, p->loss);
}

static void tell_progress(training *t)
{
    const lf_train_params *p = t->p;
    if (!p->events.progress)
        return;
    double each = (lf_clock() - t->start) / (double)(t->place.step - t->first_step);
    p->events.progress(p->events.user,
                       &(lf_progress){ .epoch = t->place.epoch + 1,
                                       .epochs = p->epochs,
                                       .step = t->place.step,
                                       .steps = t->total_steps,
                                       .loss = lf_sums_loss(&t->place.sums),
                                       .accuracy = accuracy(p, &t->place.sums),
                                       .rows_per_second = (double)t->epoch_rows / t->epoch_seconds,
                                       .seconds_left = each * (double)(t->total_steps - t->place.step) });
}

static bool add_losses(training *t, const lf_piece *piece, lf_error *err)
{
    if (piece->steps > t->losses_capacity) {
        double *larger = realloc(t->losses, piece->steps * sizeof *larger);
        if (!larger) {
            lf_error_set(err, LF_ENOMEM, "losses of %u steps: out of memory", piece->steps);
            return false;
        }
        t->losses = larger;
        t->losses_capacity = piece->steps;
    }
    for (uint32_t i = 0; i < piece->steps; i++) {
        lf_sums sums = lf_piece_step_sums(piece, i);
        lf_sums_add(&t->place.sums, &sums);
        t->losses[i] = lf_sums_loss(&sums);
        if (!isfinite(t->losses[i])) {
            t->failed_step = piece->step + i + 1;
            lf_error_set(
                err, LF_EDATA,
                "the loss is %s at step %" PRIu64 " (epoch %" PRIu64 "): a smaller learning rate than %g may help",
                isnan(t->losses[i]) ? "nan" : "infinite", piece->step + i + 1, piece->pass + 1, t->p->optimizer.lr);
            return false;
        }
    }
    return true;
}

static bool go_on_unless_stopped(const training *t, lf_error *err)
{
    bool stop = t->p->stop && *t->p->stop;
    if (!lf_training_any(t, &stop, err))
        return false;
    if (!stop)
        return true;
    lf_error_set(err, LF_EINTERRUPTED,
                 "interrupted at step %" PRIu64 " of %" PRIu64 " (epoch %" PRIu64 " of %" PRIu64 ")", t->place.step,
                 t->total_steps, t->place.epoch + 1, t->p->epochs);
    return false;
}

// Whether a multiple of `every` lies among the steps behind `before`.
static bool is_due(const training *t, uint64_t before, uint64_t every)
{
    return every && t->place.step / every > before / every;
}

static bool checkpoint_is_due(const training *t, uint64_t before, bool *due, lf_error *err)
{
    const lf_train_params *p = t->p;
    *due = is_due(t, before, p->checkpoint_every) ||
           (p->checkpoint_seconds > 0 && lf_clock() - t->saved >= p->checkpoint_seconds);
    return lf_training_decide(t, due, err);
}

static bool save_checkpoint(training *t, lf_error *err)
{
    const lf_train_params *p = t->p;
    if (!p->checkpoint || t->saved_step == t->place.step)
        return true;
    bool ok = t->rank || // the first process writes
              ((!p->events.saving || p->events.saving(p->events.user, t->place.step, err)) &&
               lf_checkpoint_save(p->checkpoint, t->model, t->session, &t->place, err) &&
               (!p->keep || lf_checkpoint_keep(p->checkpoint, t->place.step, p->keep, err)));
    if (!lf_ranks_agree(ok, err))
        return false;
    t->saved_step = t->place.step;
    t->saved = lf_clock();
    return true;
}

static bool save_if_due(training *t, uint64_t before, lf_error *err)
{
    bool due, goes_on = !t->p->checkpoint_rarely || !t->script_ends;
    return checkpoint_is_due(t, before, &due, err) && (!due || !goes_on || save_checkpoint(t, err));
}

static bool piece_done(void *user, const lf_piece *piece, lf_error *err)
{
    training *t = user;
    const lf_train_params *p = t->p;
    if (!add_losses(t, piece, err)) {
        if (t->failed_step && p->events.steps) // those before it are told
            p->events.steps(p->events.user, piece->step + 1, (uint32_t)(t->failed_step - piece->step - 1), t->losses);
        return false;
    }
    t->epoch_rows += piece->rows;
    t->epoch_seconds += piece->seconds;
    t->last_loss = t->losses[piece->steps - 1];
    t->place.step = piece->step + piece->steps;
    t->place.position = piece->position + piece->rows;
    if (p->events.steps)
        p->events.steps(p->events.user, piece->step + 1, piece->steps, t->losses);
    tell_progress(t);
    // At the end of an epoch the rest comes after its validation; a sum of gradients is not kept.
    if (t->place.position == t->rows || t->place.step != lf_training_group_end(t, t->place.step))
        return true;
    if (!lf_training_snapshot(t, err))
        return false;
    if (t->place.step == t->run_end) // what is due there comes before a checkpoint of it
        return true;
    return save_if_due(t, t->place.step, err) && go_on_unless_stopped(t, err);
}

static bool validation_done(void *user, const lf_piece *piece, lf_error *err)
{
    (void)err; // a validation is run to its end: the epoch's values are complete or absent
    lf_piece_add(piece, user);
    return true;
}

// What the model is now, into t->model, and into p->model what the caller has of it.
static bool read_model(training *t, lf_error *err)
{
    if (!lf_session_read_result(t->session, t->model, err))
        return false;
    if (t->model != t->p->model)
        lf_model_copy_shared(t->p->model, t->model);
    return true;
}

static bool digest_weights(training *t, char hex[65], lf_error *err)
{
    return read_model(t, err) && lf_model_digest(t->p->model, hex, err);
}

// Of the update that the last step was part of.
static double last_lr(const training *t)
{
    uint64_t last = t->place.step - 1, in_epoch = last % t->epoch_steps;
    uint64_t update = last / t->epoch_steps * t->span.epoch_steps + in_epoch / t->p->accumulate;
    return lf_plateau_scale(&t->place.plateau, &t->p->schedule) *
           lf_schedule_lr(&t->p->schedule, t->p->optimizer.lr, &t->span, update);
}

// By the validation's loss, if there is one.
static void follow_plateau(training *t, double loss)
{
    if (t->p->schedule.kind == LF_SCHEDULE_PLATEAU && lf_plateau_epoch(&t->place.plateau, &t->p->schedule, loss))
        lf_session_scale_lr(t->session, lf_plateau_scale(&t->place.plateau, &t->p->schedule));
}

// What a callback says to one process is said to all.
static bool agree_to_go_on(training *t, bool *go_on, lf_error *err)
{
    bool stop = !*go_on;
    if (!lf_training_any(t, &stop, err))
        return false;
    *go_on = !stop;
    t->script_ends |= stop;
    return true;
}

// On the first device; if that is lost, on the next one.
static bool validate_here(training *t, lf_sums *sums, lf_error *err)
{
    for (bool done = false; !done;) {
        *sums = (lf_sums){ 0 };
        done = (t->validates_on == lf_session_primary(t->session) || lf_training_open_validation(t, err)) &&
               lf_session_run(t->validation, UINT64_MAX, 0, validation_done, sums, err);
        if (!done && (err->code != LF_EDEVICE || !lf_session_lose_primary(t->session, err)))
            return false;
    }
    return true;
}

// In the first process.
static bool validate(training *t, lf_sums *sums, lf_error *err)
{
    bool ok = t->rank || validate_here(t, sums, err);
    return lf_ranks_agree(ok, err) && lf_training_share(t, sums, sizeof *sums, err);
}

static bool end_epoch(training *t, uint64_t before, bool *go_on, lf_error *err)
{
    const lf_train_params *p = t->p;
    // Without rows there is a validation only: the training that is resumed was finished.
    lf_epoch epoch = { .epoch = t->place.epoch + (t->place.sums.rows > 0),
                       .step = t->place.step,
                       .loss = t->place.sums.rows ? lf_sums_loss(&t->place.sums) : (double)NAN,
                       .accuracy = accuracy(p, &t->place.sums),
                       .val_loss = (double)NAN,
                       .val_accuracy = (double)NAN,
                       .lr = last_lr(t) };
    if (p->validation) {
        lf_sums sums = { 0 };
        if (!validate(t, &sums, err))
            return false;
        epoch.val_loss = lf_sums_loss(&sums);
        epoch.val_accuracy = accuracy(p, &sums);
    }
    if (!digest_weights(t, epoch.digest, err))
        return false;
    // An epoch that max_steps or a callback cuts is told, but decides nothing: it may be resumed.
    bool whole = lf_session_pass_done(t->session);
    if (whole) {
        t->place.epoch++;
        t->place.position = 0;
        t->place.sums = (lf_sums){ 0 };
        follow_plateau(t, t->p->validation ? epoch.val_loss : epoch.loss);
    }
    t->epoch_rows = 0;
    t->epoch_seconds = 0;
    if (p->events.ended && t->place.step > t->first_step) // else they were told before the checkpoint
        p->events.ended(p->events.user, &epoch);
    if (whole && !lf_training_watch(t, &epoch, err))
        return false;
    if (p->average != 0 && !read_model(t, err)) // which the watch may have read itself
        return false;
    // What the callback does is behind the training when it goes on from the checkpoint.
    err->code = LF_OK;
    *go_on = !p->events.epoch || p->events.epoch(p->events.user, &epoch, err);
    if ((!*go_on && err->code != LF_OK) || !agree_to_go_on(t, go_on, err))
        return false;
    return (p->checkpoint_rarely ? save_if_due(t, before, err) : save_checkpoint(t, err)) &&
           lf_training_snapshot(t, err);
}

// The next step at which something that happens every `every` steps does: the end of an update.
static uint64_t next_event(const training *t, uint64_t every)
{
    return every ? lf_training_group_end(t, (t->place.step / every + 1) * every) : UINT64_MAX;
}

static uint64_t steps_until_event(const training *t)
{
    const lf_train_params *p = t->p;
    const uint64_t every[] = { p->digest_every, p->checkpoint ? p->checkpoint_every : 0,
                               p->events.step ? p->step_every : 0 };
    uint64_t next = t->total_steps;
    for (size_t i = 0; i < sizeof every / sizeof *every; i++)
        next = next_event(t, every[i]) < next ? next_event(t, every[i]) : next;
    return next - t->place.step;
}

static bool tell_digest(training *t, lf_error *err)
{
    char hex[65];
    if (!digest_weights(t, hex, err))
        return false;
    if (t->p->events.digest)
        t->p->events.digest(t->p->events.user, t->place.step, hex);
    return true;
}

static bool tell_step(training *t, bool *go_on, lf_error *err)
{
    const lf_train_events *events = &t->p->events;
    if (!read_model(t, err)) // which the callback may look at
        return false;
    const lf_step step = { .epoch = t->place.epoch + 1, .step = t->place.step, .loss = t->last_loss, .lr = last_lr(t) };
    err->code = LF_OK;
    *go_on = events->step(events->user, &step, err);
    return (*go_on || err->code == LF_OK) && agree_to_go_on(t, go_on, err);
}

// What is due after the steps behind `before`. Where an epoch or the training ends, digest and checkpoint follow the
// validation.
static bool do_events(training *t, uint64_t before, bool ends, bool *go_on, lf_error *err)
{
    const lf_train_params *p = t->p;
    if (!ends && is_due(t, before, p->digest_every) && !tell_digest(t, err))
        return false;
    if (p->events.step && is_due(t, before, p->step_every) && !tell_step(t, go_on, err))
        return false;
    return ends || save_if_due(t, before, err);
}

static bool loop(training *t, lf_error *err)
{
    const lf_train_params *p = t->p;
    bool go_on = true, step_says_on = true;
    // A resumed training may have been at its end: it only tells its validation.
    bool ended = t->place.step == t->total_steps || lf_training_patience_is_over(t);
    if (!(ended ? end_epoch(t, t->place.step, &go_on, err) : lf_training_snapshot(t, err)))
        return false;
    while (go_on && step_says_on && t->place.step < t->total_steps && !lf_training_patience_is_over(t)) {
        uint64_t before = t->place.step, steps = steps_until_event(t);
        t->run_end = before + steps;
        if (!lf_session_run(t->session, steps, 0, piece_done, t, err))
            return false;
        bool last = t->place.step == t->total_steps, ends = last || lf_session_pass_done(t->session);
        if (!do_events(t, before, ends, &step_says_on, err))
            return false;
        // Where a training ends inside an epoch, its values are told all the same.
        if ((ends || !step_says_on) && !end_epoch(t, before, &go_on, err))
            return false;
        if (!last && step_says_on && go_on && !go_on_unless_stopped(t, err))
            return false;
    }
    if (!step_says_on)
        t->result->stopped = LF_TRAIN_STEP_EVENT;
    else if (!go_on)
        t->result->stopped = LF_TRAIN_EPOCH_EVENT;
    else if (t->place.step < t->total_steps)
        t->result->stopped = LF_TRAIN_PATIENCE;
    else if (t->total_steps < p->epochs * t->epoch_steps)
        t->result->stopped = LF_TRAIN_MAX_STEPS;
    bool rarely = p->checkpoint_rarely && !t->script_ends && lf_clock() - t->start >= RARE_SECONDS;
    return !p->checkpoint_rarely || (lf_training_decide(t, &rarely, err) && (!rarely || save_checkpoint(t, err)));
}

// An interrupted training leaves a checkpoint, if it has one, and its error says so.
static void leave_checkpoint(training *t, lf_error *err)
{
    if (!t->p->checkpoint)
        return;
    lf_error failure = { LF_OK, "" };
    if (save_checkpoint(t, &failure))
        lf_error_prefix(err, "%s is written, to go on from", t->p->checkpoint);
    else
        lf_error_prefix(err, "the checkpoint could not be written (%s)", failure.text);
}

// After a failure too: the weights that were reached are the caller's. Its own error is the one to tell.
static bool take_result(training *t, bool ok, lf_error *err)
{
    lf_error failure = { LF_OK, "" };
    if (!t->session || !lf_session_read_result(t->session, t->model, &failure)) {
        if (ok)
            *err = failure;
        return false;
    }
    if (ok)
        lf_session_end(t->session);
    if (ok && t->p->restore_best)
        lf_training_restore_best(t);
    if (t->model != t->p->model)
        lf_model_copy_shared(t->p->model, t->model);
    return ok && lf_model_digest(t->p->model, t->result->digest, err);
}

static void tell_devices(const training *t)
{
    for (unsigned i = 0; i < t->used_count; i++) {
        lf_train_device *told = &t->result->devices[t->used_index[i]];
        told->shards = lf_session_shards(t->session, i);
        told->busy = lf_session_busy(t->session, i);
    }
    t->result->exchange_seconds = lf_session_exchange_seconds(t->session);
}

void lf_train_result_finish(lf_train_result *result)
{
    free(result->devices);
    result->devices = NULL;
    result->device_count = 0;
}

bool lf_train(const lf_train_params *params, lf_train_result *result, lf_error *err)
{
    lf_error local;
    if (!err)
        err = &local;
    *err = (lf_error){ LF_OK, "" };
    memset(result, 0, sizeof *result);
    training t = { .p = params, .result = result, .saved_step = UINT64_MAX };
    bool ok = lf_training_begin(&t, err);
    if (ok) {
        t.start = t.saved = lf_clock();
        ok = loop(&t, err);
        result->seconds = lf_clock() - t.start;
        if (!ok && err->code == LF_EINTERRUPTED)
            leave_checkpoint(&t, err);
        result->checkpointed = t.saved_step == t.place.step;
        if (!ok && err->code != LF_EINTERRUPTED)
            lf_training_leave_replay(&t, err);
        ok = take_result(&t, ok, err);
    }
    result->epochs = t.place.epoch;
    result->steps = t.place.step;
    for (unsigned i = 0; i < t.device_count; i++) {
        result->submissions += t.devices[i]->submissions;
        result->dispatches += t.devices[i]->dispatches;
    }
    if (t.session)
        tell_devices(&t);
    result->best_epoch = t.place.monitor_epoch;
    result->best_value = t.place.monitor_best;
    lf_training_close(&t);
    for (unsigned i = 0; i < t.device_count; i++)
        lf_device_close(t.devices[i]);
    free(t.devices);
    free(t.used);
    free(t.used_index);
    free(t.rank_devices);
    lf_distillation_finish(&t.distillation);
    lf_training_snapshot_finish(&t.snapshot);
    if (t.model != params->model)
        lf_model_destroy(t.model);
    free(t.best);
    free(t.losses);
    return ok;
}
