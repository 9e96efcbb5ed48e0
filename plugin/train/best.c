// The value that a training watches: its best epoch, that epoch's weights, and when to give up.
#include <math.h>
#include <string.h>

#include "train/training.h"

static const char *const names[] = {
    [LF_MONITOR_NONE] = "none",
    [LF_MONITOR_LOSS] = "loss",
    [LF_MONITOR_ACCURACY] = "accuracy",
    [LF_MONITOR_VAL_LOSS] = "val_loss",
    [LF_MONITOR_VAL_ACCURACY] = "val_accuracy",
};
_Static_assert(sizeof names / sizeof *names == LF_MONITOR_COUNT, "a name for each value to watch");

const char *lf_monitor_name(lf_monitor monitor)
{
    return names[monitor];
}

bool lf_monitor_find(const char *name, lf_monitor *out)
{
    for (unsigned i = LF_MONITOR_NONE + 1; i < LF_MONITOR_COUNT; i++)
        if (!strcmp(names[i], name)) {
            *out = (lf_monitor)i;
            return true;
        }
    return false;
}

static double value_of(lf_monitor monitor, const lf_epoch *epoch)
{
    switch (monitor) {
    case LF_MONITOR_ACCURACY:
        return epoch->accuracy;
    case LF_MONITOR_VAL_LOSS:
        return epoch->val_loss;
    case LF_MONITOR_VAL_ACCURACY:
        return epoch->val_accuracy;
    default:
        return epoch->loss;
    }
}

static bool is_better(const lf_train_params *p, double value, double best)
{
    bool rises = p->monitor == LF_MONITOR_ACCURACY || p->monitor == LF_MONITOR_VAL_ACCURACY;
    if (isnan(best))
        return !isnan(value);
    return rises ? value > best + p->min_delta : value < best - p->min_delta;
}

bool lf_training_watch(training *t, const lf_epoch *epoch, lf_error *err)
{
    const lf_train_params *p = t->p;
    lf_model *model = t->model;
    double value = value_of(p->monitor, epoch);
    if (p->monitor == LF_MONITOR_NONE || !is_better(p, value, t->place.monitor_best))
        return true;
    t->place.monitor_best = value;
    t->place.monitor_epoch = epoch->epoch;
    // The epoch's weights stand in t->model: its digest was made of them.
    if (t->best) {
        memcpy(t->best, model->params, model->block_count * sizeof *t->best);
        memcpy(t->best + model->block_count, model->state, model->state_count * sizeof *t->best);
        t->place.best_weights = t->best;
    }
    if (!p->best || t->rank)
        return true;
    if (model != p->model)
        lf_model_copy_shared(p->model, model);
    return lf_model_save(p->model, p->best, err);
}

bool lf_training_patience_is_over(const training *t)
{
    return t->p->patience && t->place.epoch >= t->place.monitor_epoch + t->p->patience;
}

void lf_training_restore_best(training *t)
{
    lf_model *model = t->model;
    if (!t->place.best_weights)
        return;
    memcpy(model->params, t->best, model->block_count * sizeof *t->best);
    memcpy(model->state, t->best + model->block_count, model->state_count * sizeof *t->best);
}
