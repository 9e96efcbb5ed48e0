// How a training begins: its options are checked, its model and teachers made ready, its checkpoint read, its sessions
// opened. And what it would run, in words.
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "ranks/ranks.h"
#include "train/identity.h"
#include "train/training.h"

// Evaluation is free to use larger batches than training; they only have to be the same on every run.
static uint32_t validation_batch(uint32_t batch)
{
    return batch > 256 ? batch : 256;
}

static lf_session_params session_params(const lf_train_params *p, const lf_model *model)
{
    return (lf_session_params){ .model = model,
                                .data = p->data,
                                .part = p->part,
                                .loss = p->loss,
                                .loss_options = p->loss_options,
                                .class_weights = p->class_weights,
                                .class_weight_count = p->class_weight_count,
                                .optimizer = p->optimizer,
                                .average = p->average,
                                .tf32 = p->tf32,
                                .batch = p->batch,
                                .accumulate = p->accumulate,
                                .shuffle = p->shuffle,
                                .seed = p->seed,
                                .passes = p->epochs };
}

static lf_session_params validation_params(const lf_train_params *p, const lf_model *model)
{
    return (lf_session_params){ .model = model,
                                .data = p->validation,
                                .part = p->validation_part,
                                .loss = p->loss,
                                .loss_options = p->loss_options,
                                .class_weights = p->class_weights,
                                .class_weight_count = p->class_weight_count,
                                .batch = validation_batch(p->batch),
                                .passes = p->epochs };
}

static uint64_t bytes_of_rows(const lf_session_params *params, const lf_part *part)
{
    return part->rows * lf_row_bytes_sum(lf_session_row_bytes(params, part));
}

static bool check_monitor(const lf_train_params *p, lf_error *err)
{
    bool validates = p->monitor == LF_MONITOR_VAL_LOSS || p->monitor == LF_MONITOR_VAL_ACCURACY;
    bool accuracy = p->monitor == LF_MONITOR_ACCURACY || p->monitor == LF_MONITOR_VAL_ACCURACY;
    if (validates && !p->validation)
        lf_error_set(err, LF_EARG, "monitor \"%s\" needs a validation part", lf_monitor_name(p->monitor));
    else if (accuracy && !lf_loss_has_accuracy(p->loss))
        lf_error_set(err, LF_EARG, "monitor \"%s\": loss \"%s\" has no accuracy", lf_monitor_name(p->monitor),
                     lf_loss_name(p->loss));
    else
        return true;
    return false;
}

static bool check(const lf_train_params *p, lf_error *err)
{
    lf_session_params train = session_params(p, p->model), validation = validation_params(p, p->model);
    if (!p->batch || !p->epochs || !p->accumulate) {
        lf_error_set(err, LF_EARG, "batch, epochs and accumulate must be at least 1, not %u, %" PRIu64 " and %u",
                     p->batch, p->epochs, p->accumulate);
        return false;
    }
    if ((uint64_t)p->batch * p->accumulate > 1u << 30) {
        lf_error_set(err, LF_EARG, "an update of %u batches of %u rows is too large: at most %u rows", p->accumulate,
                     p->batch, 1u << 30);
        return false;
    }
    if (!(p->average >= 0 && p->average < 1)) {
        lf_error_set(err, LF_EARG, "ema must be between 0 and 1, not %g", (double)p->average);
        return false;
    }
    for (size_t i = 0; i < p->model->layer_count; i++)
        if (p->model->layers[i].kind == LF_LAYER_BATCH_NORM && p->batch < 2) {
            lf_error_set(err, LF_EARG, "%s needs batches of at least 2 rows, not %u", p->model->layers[i].name,
                         p->batch);
            return false;
        }
    return check_monitor(p, err) && lf_distillation_check(p, err) && lf_schedule_check(&p->schedule, err) &&
           lf_session_check(&train, err) && (!p->validation || lf_session_check(&validation, err));
}

uint64_t lf_training_group_end(const training *t, uint64_t step)
{
    uint64_t in_epoch = step % t->epoch_steps, together = t->p->accumulate;
    uint64_t end = (in_epoch + together - 1) / together * together;
    return step - in_epoch + (end < t->epoch_steps ? end : t->epoch_steps);
}

// They share the memory for rows: both whole if they fit, else half of it each.
static uint64_t budget_of(const training *t, lf_error *err)
{
    const lf_train_params *p = t->p;
    const lf_part *part = lf_dataset_part(p->data, p->part, err);
    lf_session_params train = session_params(p, t->model), evaluate = validation_params(p, t->model);
    uint64_t budget = p->window, need = bytes_of_rows(&train, part);
    for (unsigned i = 0; i < t->device_count && !p->window; i++)
        if (!budget || t->devices[i]->info.memory / 2 < budget)
            budget = t->devices[i]->info.memory / 2;
    if (p->validation)
        need += bytes_of_rows(&evaluate, lf_dataset_part(p->validation, p->validation_part, err));
    return need <= budget || !p->validation ? budget : budget / 2;
}

bool lf_training_open_validation(training *t, lf_error *err)
{
    lf_session_destroy(t->validation);
    t->validates_on = lf_session_primary(t->session);
    lf_session_params evaluate = validation_params(t->p, t->model);
    evaluate.devices = &t->used[t->validates_on];
    evaluate.device_count = 1;
    evaluate.weights = t->session;
    evaluate.budget = budget_of(t, err);
    evaluate.pass = t->place.epoch;
    t->validation = lf_session_create(&evaluate, err);
    return t->validation != NULL;
}

static void lose(void *user, unsigned device, uint64_t step, const char *why)
{
    training *t = user;
    lf_train_device *lost = &t->result->devices[t->used_index[device]];
    lost->lost = true;
    if (t->p->events.lost)
        t->p->events.lost(t->p->events.user, lost, step, why);
}

bool lf_training_open(training *t, lf_error *err)
{
    const lf_train_params *p = t->p;
    lf_session_params train = session_params(p, t->model);
    t->used_count = 0;
    for (unsigned i = 0; i < t->device_count; i++)
        if (!t->result->devices[i].lost) {
            t->used[t->used_count] = t->devices[i];
            t->used_index[t->used_count++] = i;
        }
    train.devices = t->used;
    train.device_count = t->used_count;
    train.shards = t->shards;
    train.even_shards = p->even_shards;
    train.fast = p->fast;
    train.rank = t->rank;
    train.rank_count = t->rank_count;
    train.rank_devices = t->rank_devices;
    train.lost = lose;
    train.user = t;
    train.schedule = &p->schedule;
    train.span = t->span;
    train.distillation = p->teacher_count ? &t->distillation : NULL;
    train.budget = budget_of(t, err);
    train.pass = t->place.epoch;
    train.position = t->place.position;
    train.step = t->place.step;
    t->session = lf_session_create(&train, err);
    if (!t->session)
        return false;
    lf_session_scale_lr(t->session, lf_plateau_scale(&t->place.plateau, &p->schedule));
    return !p->validation || t->rank || lf_training_open_validation(t, err);
}

void lf_training_close(training *t)
{
    lf_session_destroy(t->validation); // it borrows the training's weights
    lf_session_destroy(t->session);
    t->validation = t->session = NULL;
}

// The lengths of the training, and what it must have in common with one that is resumed.
static bool measure(training *t, lf_error *err)
{
    const lf_train_params *p = t->p;
    const lf_part *part = lf_dataset_part(p->data, p->part, err);
    t->rows = part->rows;
    t->epoch_steps = (part->rows + p->batch - 1) / p->batch;
    uint64_t epoch_updates = (t->epoch_steps + p->accumulate - 1) / p->accumulate;
    t->span = (lf_span){ .steps = p->epochs * epoch_updates, .epoch_steps = epoch_updates };
    t->total_steps = p->epochs * t->epoch_steps;
    if (p->max_steps && p->max_steps < t->total_steps)
        t->total_steps = lf_training_group_end(t, p->max_steps);
    t->place.seed = p->seed;
    t->place.optimizer = &p->optimizer;
    lf_schedule_text(&p->schedule, &t->span, t->place.schedule, sizeof t->place.schedule);
    return (!p->checkpoint && !p->resume && t->rank_count <= 1) ||
           lf_train_identity(p, part, &t->span, t->shards, t->place.options, sizeof t->place.options, err);
}

// The best epoch's weights, if they are kept; those of the checkpoint, if it has some.
static bool make_best(training *t, const lf_model_file *resumed, lf_error *err)
{
    if (!t->p->restore_best)
        return true;
    t->best = calloc(t->model->block_count + t->model->state_count + 1, sizeof *t->best);
    if (!t->best) {
        lf_error_set(err, LF_ENOMEM, "the best epoch's weights: out of memory");
        return false;
    }
    if (resumed && t->place.monitor_epoch && lf_checkpoint_take_best(resumed, t->model, t->best))
        t->place.best_weights = t->best;
    return true;
}

static bool resume(training *t, lf_model_file **file, lf_error *err)
{
    const lf_train_params *p = t->p;
    if (!p->resume)
        return true;
    *file = lf_checkpoint_load(p->resume, t->model, &t->place, err);
    if (*file && t->place.step > t->total_steps)
        lf_error_set(err, LF_EARG, "%s is at step %" PRIu64 ", past the %" PRIu64 " steps of this training", p->resume,
                     t->place.step, t->total_steps);
    return *file && t->place.step <= t->total_steps;
}

static bool make_model(training *t, lf_error *err)
{
    const lf_train_params *p = t->p;
    if (!p->model->initialised)
        lf_model_init(p->model, p->seed);
    t->model =
        p->hint_count ? lf_model_with_hints(p->model, p->teachers[0], p->hints, p->hint_count, p->seed, err) : p->model;
    return t->model != NULL;
}

// Where shards are fewer than devices, the last ones have nothing to do.
static size_t leave_out(const training *t, lf_device **devices, size_t count)
{
    size_t most = t->shards && t->rank_count == 1 && t->shards < count ? t->shards : count;
    if (most < count)
        lf_log(LF_LOG_WARN, "%u shards are fewer than the %zu devices: the last %zu are not used", t->shards, count,
               count - most);
    for (; count > most; count--)
        lf_device_close(devices[count - 1]);
    return count;
}

static bool open_devices(training *t, lf_error *err)
{
    const lf_train_params *p = t->p;
    lf_device *devices[LF_DEVICE_LIST_MAX];
    size_t count = lf_device_open_list(p->devices, p->device_count, devices, LF_DEVICE_LIST_MAX, err);
    count = leave_out(t, devices, count);
    t->devices = calloc(count + 1, sizeof *t->devices);
    t->used = calloc(count + 1, sizeof *t->used);
    t->used_index = calloc(count + 1, sizeof *t->used_index);
    t->result->devices = calloc(count + 1, sizeof *t->result->devices);
    bool ok = count && t->devices && t->used && t->used_index && t->result->devices;
    if (count && !ok)
        lf_error_set(err, LF_ENOMEM, "%zu devices: out of memory", count);
    for (size_t i = 0; i < count; i++) {
        if (!ok) {
            lf_device_close(devices[i]);
            continue;
        }
        lf_train_device *told = &t->result->devices[i];
        t->devices[i] = devices[i];
        told->info = devices[i]->info;
        told->opened = devices[i]->opened;
        t->device_count = t->result->device_count = (unsigned)i + 1;
    }
    return ok;
}

// Every process tells how many devices it has. The weights are the first one's.
static bool meet(training *t, lf_error *err)
{
    t->rank_devices = calloc(t->rank_count, sizeof *t->rank_devices);
    if (!t->rank_devices)
        lf_error_set(err, LF_ENOMEM, "%u processes: out of memory", t->rank_count);
    if (!lf_ranks_agree(t->rank_devices != NULL, err))
        return false;
    t->rank_devices[0] = t->device_count;
    return t->rank_count <= 1 || lf_ranks_gather(&t->device_count, sizeof t->device_count, t->rank_devices, err);
}

// The least power of two that gives each device one.
static uint32_t shards_for(unsigned devices)
{
    uint32_t shards = 1;
    while (shards < devices)
        shards *= 2;
    return shards;
}

static bool choose_shards(training *t, lf_error *err)
{
    unsigned devices = 0;
    for (uint32_t i = 0; i < t->rank_count; i++)
        devices += t->rank_devices[i];
    if (!t->shards)
        t->shards = shards_for(devices);
    if (!lf_shards_check(t->shards, t->p->batch, err))
        return false;
    if (t->shards >= devices)
        return true;
    lf_error_set(err, LF_EARG, "%u shards are too few for %u devices: each needs at least one", t->shards, devices);
    return false;
}

// Their outputs, which the first process has computed or read.
static bool share_teachers(training *t, lf_error *err)
{
    size_t size = t->rows * t->model->outputs * sizeof(float);
    return !t->distillation.outputs || lf_training_share(t, t->distillation.outputs, size, err);
}

bool lf_training_begin(training *t, lf_error *err)
{
    const lf_train_params *p = t->p;
    lf_model_file *resumed = NULL;
    t->place.plateau.best = HUGE_VAL;
    t->place.monitor_best = (double)NAN;
    bool ok = lf_ranks_open(&t->rank, &t->rank_count, err);
    t->result->ranks = t->rank_count;
    if (!ok || !lf_training_settle(t, err))
        return false;
    t->shards = p->shards ? p->shards : p->resume ? lf_checkpoint_shards(p->resume) : 0;
    ok = check(p, err) && make_model(t, err) && open_devices(t, err);
    ok = lf_ranks_agree(ok, err) && meet(t, err) && choose_shards(t, err);
    ok = ok && measure(t, err) && resume(t, &resumed, err) && make_best(t, resumed, err);
    t->result->shards = t->shards;
    t->first_step = t->place.step;
    if (ok && p->resume && p->checkpoint && !strcmp(p->resume, p->checkpoint))
        t->saved_step = t->first_step;
    ok = ok && lf_distillation_init(&t->distillation, p, t->rank ? NULL : t->devices[0]->info.id, err);
    ok = lf_ranks_agree(ok, err) && lf_training_compare(t, t->place.options, err) && share_teachers(t, err) &&
         lf_training_share(t, t->model->params, t->model->block_count * sizeof(float), err) &&
         lf_training_share(t, t->model->state, t->model->state_count * sizeof(float), err);
    if (ok) {
        if (p->events.started)
            p->events.started(p->events.user, t->result->devices, t->device_count, t->first_step);
        ok = lf_training_open(t, err) && (!resumed || lf_checkpoint_restore(resumed, t->model, t->session, err));
    }
    ok = lf_ranks_agree(ok, err);
    lf_model_file_destroy(resumed);
    if (ok) { // from here on the weights are this run's
        snprintf(t->model->run, sizeof t->model->run, "%s", p->run ? p->run : "");
        memcpy(p->model->run, t->model->run, sizeof p->model->run);
    }
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
    lf_model *hinted =
        p->hint_count ? lf_model_with_hints(p->model, p->teachers[0], p->hints, p->hint_count, p->seed, err) : NULL;
    lf_session_params train = session_params(p, hinted ? hinted : p->model),
                      validation = validation_params(p, p->model);
    float given; // stands for the outputs, which only a run has
    const lf_distillation distillation = { .alpha = p->alpha,
                                           .temperature = p->temperature,
                                           .outputs = p->live ? NULL : &given,
                                           .teachers = p->teachers,
                                           .teacher_count = p->teacher_count };
    train.distillation = p->teacher_count ? &distillation : NULL;
    if (p->shards)
        train.shards = p->shards ? p->shards : shards_for(p->device_count);
    bool ok = (hinted || !p->hint_count) && explain_one(out, "training", &train, err) &&
              (!p->validation || explain_one(out, "validation", &validation, err));
    lf_model_destroy(hinted);
    fclose(out);
    if (!ok) {
        free(text);
        return NULL;
    }
    return text;
}
