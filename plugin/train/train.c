#include "train/train.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "train/checkpoint.h"
#include "train/distill.h"
#include "train/identity.h"
#include "train/session.h"

typedef struct training {
    const lf_train_params *p;
    lf_train_result *result;
    lf_device *device;
    lf_session *session, *validation;
    lf_distillation distillation;
    uint64_t rows, total_steps;
    lf_span span; // of the whole training: max_steps cuts it short without changing its rates
    lf_train_place place;
    uint64_t first_step; // where this run began; more than 0 after a resume
    lf_sums epoch_sums;
    double epoch_seconds;
    double start;
    double *losses; // of a piece's steps
    uint32_t losses_capacity;
} training;

// Evaluation is free to use larger batches than training; they only have to be the same on every run.
static uint32_t validation_batch(uint32_t batch)
{
    return batch > 256 ? batch : 256;
}

static double accuracy(const lf_train_params *p, const lf_sums *sums)
{
    return p->loss == LF_LOSS_CROSS_ENTROPY ? sums->hits / (double)sums->rows : (double)NAN;
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
                                       .loss = t->epoch_sums.loss / (double)t->epoch_sums.rows,
                                       .accuracy = accuracy(p, &t->epoch_sums),
                                       .rows_per_second = (double)t->epoch_sums.rows / t->epoch_seconds,
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
        t->epoch_sums.loss += sums.loss;
        t->epoch_sums.hits += sums.hits;
        t->epoch_sums.rows += sums.rows;
        t->losses[i] = sums.loss / (double)sums.rows;
        if (!isfinite(t->losses[i])) {
            lf_error_set(err, LF_EDATA,
                         "the loss is %g at step %" PRIu64 " (epoch %" PRIu64
                         "): a smaller learning rate than %g may help",
                         t->losses[i], piece->step + i + 1, piece->pass + 1, t->p->optimizer.lr);
            return false;
        }
    }
    return true;
}

static bool go_on_unless_stopped(const training *t, lf_error *err)
{
    if (!t->p->stop || !*t->p->stop)
        return true;
    lf_error_set(err, LF_EINTERRUPTED,
                 "interrupted at step %" PRIu64 " of %" PRIu64 " (epoch %" PRIu64 " of %" PRIu64 ")", t->place.step,
                 t->total_steps, t->place.epoch + 1, t->p->epochs);
    return false;
}

static bool piece_done(void *user, const lf_piece *piece, lf_error *err)
{
    training *t = user;
    const lf_train_params *p = t->p;
    if (!add_losses(t, piece, err))
        return false;
    t->epoch_seconds += piece->seconds;
    t->place.step = piece->step + piece->steps;
    t->place.position = piece->position + piece->rows;
    if (p->events.steps)
        p->events.steps(p->events.user, piece->step + 1, piece->steps, t->losses);
    tell_progress(t);
    return t->place.position == t->rows || go_on_unless_stopped(t, err); // at an epoch's end, after its validation
}

static bool validation_done(void *user, const lf_piece *piece, lf_error *err)
{
    (void)err; // a validation is run to its end: the epoch's values are complete or absent
    lf_piece_add(piece, user);
    return true;
}

static bool digest_weights(training *t, char hex[65], lf_error *err)
{
    return lf_session_read_weights(t->session, t->p->model, err) && lf_model_digest(t->p->model, hex, err);
}

static bool save_checkpoint(training *t, lf_error *err)
{
    return !t->p->checkpoint || lf_checkpoint_save(t->p->checkpoint, t->p->model, t->session, &t->place, err);
}

// By how much a plateau schedule has lowered the rate: the same product in the same order after a resume.
static double lr_scale(const training *t)
{
    double scale = 1;
    for (uint64_t i = 0; i < t->place.reductions; i++)
        scale *= t->p->schedule.factor;
    return scale;
}

// The rate falls when the loss (the validation's, if there is one) has not become better for `patience` epochs, as
// PyTorch's ReduceLROnPlateau does.
static void follow_plateau(training *t, double loss)
{
    const lf_schedule *s = &t->p->schedule;
    if (s->kind != LF_SCHEDULE_PLATEAU)
        return;
    if (loss < t->place.best * (1 - s->threshold)) {
        t->place.best = loss;
        t->place.waited = 0;
    } else if (++t->place.waited > s->patience) {
        t->place.reductions++;
        t->place.waited = 0;
        lf_session_scale_lr(t->session, lr_scale(t));
    }
}

static bool end_epoch(training *t, bool *go_on, lf_error *err)
{
    const lf_train_params *p = t->p;
    // Without rows there is a validation only: the training that is resumed was finished.
    lf_epoch epoch = { .epoch = t->place.epoch + (t->epoch_sums.rows > 0),
                       .step = t->place.step,
                       .loss = t->epoch_sums.loss / (double)t->epoch_sums.rows,
                       .accuracy = accuracy(p, &t->epoch_sums),
                       .val_loss = (double)NAN,
                       .val_accuracy = (double)NAN,
                       .lr = lr_scale(t) * lf_schedule_lr(&p->schedule, p->optimizer.lr, &t->span, t->place.step - 1) };
    if (t->validation) {
        lf_sums sums = { 0 };
        if (!lf_session_run(t->validation, UINT64_MAX, 0, validation_done, &sums, err))
            return false;
        epoch.val_loss = sums.loss / (double)sums.rows;
        epoch.val_accuracy = accuracy(p, &sums);
    }
    if (!digest_weights(t, epoch.digest, err))
        return false;
    if (lf_session_pass_done(t->session)) {
        t->place.epoch++;
        t->place.position = 0;
    }
    t->epoch_sums = (lf_sums){ 0 };
    t->epoch_seconds = 0;
    follow_plateau(t, t->validation ? epoch.val_loss : epoch.loss);
    if (!save_checkpoint(t, err))
        return false;
    err->code = LF_OK;
    *go_on = !p->events.epoch || p->events.epoch(p->events.user, &epoch, err);
    return *go_on || err->code == LF_OK;
}

static uint64_t steps_until_event(const training *t)
{
    uint64_t left = t->total_steps - t->place.step, every = t->p->digest_every;
    return every && every - t->place.step % every < left ? every - t->place.step % every : left;
}

static bool loop(training *t, lf_error *err)
{
    const lf_train_params *p = t->p;
    bool go_on = true;
    if (t->place.step == t->total_steps)
        return end_epoch(t, &go_on, err);
    while (go_on && t->place.step < t->total_steps) {
        if (!lf_session_run(t->session, steps_until_event(t), 0, piece_done, t, err))
            return false;
        if (p->digest_every && t->place.step % p->digest_every == 0) {
            char hex[65];
            if (!digest_weights(t, hex, err))
                return false;
            if (p->events.digest)
                p->events.digest(p->events.user, t->place.step, hex);
        }
        // max_steps may end inside an epoch, whose values are told all the same.
        bool last = t->place.step == t->total_steps;
        if ((lf_session_pass_done(t->session) || last) && !end_epoch(t, &go_on, err))
            return false;
        if (!last && go_on && !go_on_unless_stopped(t, err))
            return false;
    }
    if (!go_on)
        t->result->stopped = LF_TRAIN_EPOCH_EVENT;
    else if (t->total_steps < t->span.steps)
        t->result->stopped = LF_TRAIN_MAX_STEPS;
    return true;
}

static lf_session_params session_params(const lf_train_params *p)
{
    return (lf_session_params){ .model = p->model,
                                .data = p->data,
                                .part = p->part,
                                .loss = p->loss,
                                .optimizer = p->optimizer,
                                .batch = p->batch,
                                .shuffle = p->shuffle,
                                .seed = p->seed,
                                .passes = p->epochs };
}

static lf_session_params validation_params(const lf_train_params *p)
{
    return (lf_session_params){ .model = p->model,
                                .data = p->validation,
                                .part = p->validation_part,
                                .loss = p->loss,
                                .batch = validation_batch(p->batch),
                                .passes = p->epochs };
}

static uint64_t bytes_of_rows(const lf_session_params *params, const lf_part *part)
{
    lf_row_bytes row = lf_session_row_bytes(params, part);
    return part->rows * (row.x + row.y + row.teacher);
}

static bool check(const lf_train_params *p, lf_error *err)
{
    lf_session_params train = session_params(p), validation = validation_params(p);
    if (!p->batch || !p->epochs) {
        lf_error_set(err, LF_EARG, "batch and epochs must be at least 1, not %u and %" PRIu64, p->batch, p->epochs);
        return false;
    }
    for (size_t i = 0; i < p->model->layer_count; i++)
        if (p->model->layers[i].kind == LF_LAYER_BATCH_NORM && p->batch < 2) {
            lf_error_set(err, LF_EARG, "%s needs batches of at least 2 rows, not %u", p->model->layers[i].name,
                         p->batch);
            return false;
        }
    return lf_distillation_check(p, err) && lf_schedule_check(&p->schedule, err) && lf_session_check(&train, err) &&
           (!p->validation || lf_session_check(&validation, err));
}

static bool open_sessions(training *t, const lf_part *part, lf_error *err)
{
    const lf_train_params *p = t->p;
    const lf_part *validation = p->validation ? lf_dataset_part(p->validation, p->validation_part, err) : NULL;
    lf_session_params train = session_params(p), evaluate = validation_params(p);
    train.device = evaluate.device = t->device;
    train.schedule = &p->schedule;
    train.span = t->span;
    train.distillation = p->teacher_count ? &t->distillation : NULL;
    // They share the memory for rows: both whole if they fit, else half of it each.
    uint64_t budget = p->window ? p->window : t->device->info.memory / 2;
    uint64_t need = bytes_of_rows(&train, part) + (validation ? bytes_of_rows(&evaluate, validation) : 0);
    train.budget = evaluate.budget = need <= budget || !validation ? budget : budget / 2;
    train.pass = evaluate.pass = t->place.epoch;
    train.position = t->place.position;
    train.step = t->place.step;
    t->session = lf_session_create(&train, err);
    if (!t->session)
        return false;
    lf_session_scale_lr(t->session, lr_scale(t));
    evaluate.weights = t->session;
    if (validation)
        t->validation = lf_session_create(&evaluate, err);
    return !validation || t->validation;
}

static bool begin(training *t, lf_model_file **resumed, lf_error *err)
{
    const lf_train_params *p = t->p;
    const lf_part *part = lf_dataset_part(p->data, p->part, err);
    t->rows = part->rows;
    uint64_t epoch_steps = (part->rows + p->batch - 1) / p->batch;
    t->span = (lf_span){ .steps = p->epochs * epoch_steps, .epoch_steps = epoch_steps };
    t->total_steps = p->max_steps && p->max_steps < t->span.steps ? p->max_steps : t->span.steps;
    t->place.seed = p->seed;
    t->place.optimizer = &p->optimizer;
    lf_schedule_text(&p->schedule, &t->span, t->place.schedule, sizeof t->place.schedule);
    if ((p->checkpoint || p->resume) &&
        !lf_train_identity(p, part, &t->span, t->place.options, sizeof t->place.options, err))
        return false;
    if (p->resume && !(*resumed = lf_checkpoint_load(p->resume, p->model, &t->place, err)))
        return false;
    if (t->place.step > t->total_steps) {
        lf_error_set(err, LF_EARG, "%s is at step %" PRIu64 ", past the %" PRIu64 " steps of this training", p->resume,
                     t->place.step, t->total_steps);
        return false;
    }
    if (!p->model->initialised)
        lf_model_init(p->model, p->seed);
    t->first_step = t->place.step;
    if (p->teacher_count && !lf_distillation_init(&t->distillation, p, err))
        return false;
    t->device = lf_device_open(p->device, err);
    if (!t->device)
        return false;
    t->result->device = t->device->info;
    if (p->events.started)
        p->events.started(p->events.user, &t->device->info);
    return open_sessions(t, part, err) && (!*resumed || lf_checkpoint_restore(*resumed, p->model, t->session, err));
}

// An interrupted training leaves a checkpoint, if it has one, and its error says so.
static void leave_checkpoint(training *t, lf_error *err)
{
    if (!t->p->checkpoint)
        return;
    lf_error failure = { LF_OK, "" };
    t->result->checkpointed = save_checkpoint(t, &failure);
    if (t->result->checkpointed)
        lf_error_prefix(err, "%s is written, to go on from", t->p->checkpoint);
    else
        lf_error_prefix(err, "the checkpoint could not be written (%s)", failure.text);
}

bool lf_train(const lf_train_params *params, lf_train_result *result, lf_error *err)
{
    lf_error local;
    if (!err)
        err = &local;
    *err = (lf_error){ LF_OK, "" };
    memset(result, 0, sizeof *result);
    if (!check(params, err))
        return false;
    training t = { .p = params, .result = result, .place.best = HUGE_VAL };
    lf_model_file *resumed = NULL;
    bool ok = begin(&t, &resumed, err);
    lf_model_file_destroy(resumed);
    if (ok) {
        t.start = lf_clock();
        ok = loop(&t, err);
        result->seconds = lf_clock() - t.start;
        if (!ok && err->code == LF_EINTERRUPTED)
            leave_checkpoint(&t, err);
        // After a failure too: the weights that were reached are the caller's. Its own error is the one to tell.
        lf_error failure;
        if (!lf_session_read_weights(t.session, params->model, &failure) && ok) {
            *err = failure;
            ok = false;
        }
        ok = ok && lf_model_digest(params->model, result->digest, err);
    }
    result->epochs = t.place.epoch;
    result->steps = t.place.step;
    if (t.device) {
        result->submissions = t.device->submissions;
        result->dispatches = t.device->dispatches;
    }
    free(t.losses);
    lf_distillation_finish(&t.distillation);
    lf_session_destroy(t.validation); // it borrows the training's weights
    lf_session_destroy(t.session);
    lf_device_close(t.device);
    return ok;
}

static bool explain_one(FILE *out, const char *title, const lf_session_params *s, lf_error *err)
{
    const lf_part *part = lf_dataset_part(s->data, s->part, err);
    if (!part)
        return false;
    uint32_t rows = part->rows < UINT32_MAX / 2 ? (uint32_t)part->rows : UINT32_MAX / 2;
    uint64_t steps = (part->rows + s->batch - 1) / s->batch;
    lf_program *program = lf_session_compile(s, rows, err);
    char *text = program ? lf_program_explain(program) : NULL;
    if (text)
        fprintf(out, "%s: %" PRIu64 " steps a pass over %s\n%s", title, steps, part->x_path, text);
    else if (program)
        lf_error_set(err, LF_ENOMEM, "explain: out of memory");
    free(text);
    lf_program_destroy(program);
    return text != NULL;
}

char *lf_train_explain(const lf_train_params *p, lf_error *err)
{
    if (!check(p, err))
        return NULL;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) {
        lf_error_set(err, LF_ENOMEM, "explain: out of memory");
        return NULL;
    }
    lf_session_params train = session_params(p), validation = validation_params(p);
    const lf_distillation distillation = { .alpha = p->alpha, .temperature = p->temperature };
    train.distillation = p->teacher_count ? &distillation : NULL;
    bool ok = explain_one(out, "training", &train, err) &&
              (!p->validation || explain_one(out, "validation", &validation, err));
    fclose(out);
    if (!ok) {
        free(text);
        return NULL;
    }
    return text;
}
