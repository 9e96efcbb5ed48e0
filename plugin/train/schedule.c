#include "train/schedule.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "abi.h"

static const struct {
    const char *name;
    lf_schedule defaults;
} kinds[] = {
    [LF_SCHEDULE_CONSTANT] = { "constant", { .kind = LF_SCHEDULE_CONSTANT } },
    [LF_SCHEDULE_STEP] = { "step", { .kind = LF_SCHEDULE_STEP, .gamma = .1 } },
    [LF_SCHEDULE_MULTISTEP] = { "multistep", { .kind = LF_SCHEDULE_MULTISTEP, .gamma = .1 } },
    [LF_SCHEDULE_EXPONENTIAL] = { "exponential", { .kind = LF_SCHEDULE_EXPONENTIAL } },
    [LF_SCHEDULE_COSINE] = { "cosine", { .kind = LF_SCHEDULE_COSINE } },
    [LF_SCHEDULE_LINEAR] = { "linear", { .kind = LF_SCHEDULE_LINEAR } },
    [LF_SCHEDULE_ONE_CYCLE] = { "one_cycle", { .kind = LF_SCHEDULE_ONE_CYCLE, .rise = .3, .div = 25, .final = -1 } },
    [LF_SCHEDULE_PLATEAU] = { "plateau",
                              { .kind = LF_SCHEDULE_PLATEAU, .factor = .1, .patience = 10, .threshold = 1e-4 } },
};
_Static_assert(sizeof kinds / sizeof *kinds == LF_SCHEDULE_COUNT, "a row for each schedule");

const char *lf_schedule_name(lf_schedule_kind kind)
{
    return kinds[kind].name;
}

bool lf_schedule_find(const char *name, lf_schedule_kind *out)
{
    for (unsigned i = 0; i < LF_SCHEDULE_COUNT; i++)
        if (!strcmp(kinds[i].name, name)) {
            *out = (lf_schedule_kind)i;
            return true;
        }
    return false;
}

lf_schedule lf_schedule_default(lf_schedule_kind kind)
{
    return kinds[kind].defaults;
}

bool lf_schedule_check(const lf_schedule *s, lf_error *err)
{
    const char *name = kinds[s->kind].name;
    bool has_gamma =
        s->kind == LF_SCHEDULE_STEP || s->kind == LF_SCHEDULE_MULTISTEP || s->kind == LF_SCHEDULE_EXPONENTIAL;
    if (!(s->warmup >= 0))
        lf_error_set(err, LF_EARG, "schedule: warmup must be 0 or more, not %g", s->warmup);
    else if (has_gamma && !(s->gamma > 0))
        lf_error_set(err, LF_EARG, "schedule \"%s\": gamma must be above 0, not %g", name, s->gamma);
    else if (s->kind == LF_SCHEDULE_STEP && !s->every)
        lf_error_set(err, LF_EARG, "schedule \"step\": every must be at least 1");
    else if (s->kind == LF_SCHEDULE_MULTISTEP && !s->milestone_count)
        lf_error_set(err, LF_EARG, "schedule \"multistep\": needs milestones");
    else if (s->kind == LF_SCHEDULE_ONE_CYCLE && !(s->rise > 0 && s->rise < 1 && s->div > 0))
        lf_error_set(err, LF_EARG,
                     "schedule \"one_cycle\": rise must be between 0 and 1 and div above 0, not %g and %g", s->rise,
                     s->div);
    else if (s->kind == LF_SCHEDULE_PLATEAU && !(s->factor > 0 && s->factor < 1))
        lf_error_set(err, LF_EARG, "schedule \"plateau\": factor must be between 0 and 1, not %g", s->factor);
    else
        return true;
    return false;
}

void lf_schedule_text(const lf_schedule *s, const lf_span *span, char *text, size_t size)
{
    uint64_t length = s->kind == LF_SCHEDULE_CONSTANT || s->kind == LF_SCHEDULE_PLATEAU ? 0 : span->steps;
    int used = snprintf(text, size,
                        "%s over %" PRIu64 " steps per %s warmup %.9g final %.9g gamma %.9g every %" PRIu64
                        " rise %.9g div %.9g factor %.9g patience %u threshold %.9g milestones",
                        kinds[s->kind].name, length, s->per_epoch ? "epoch" : "step", s->warmup, s->final, s->gamma,
                        s->every, s->rise, s->div, s->factor, s->patience, s->threshold);
    for (unsigned i = 0; i < s->milestone_count && used > 0 && (size_t)used < size; i++)
        used += snprintf(text + used, size - (size_t)used, " %" PRIu64, s->milestones[i]);
}

static double between(double from, double to, double fraction) // along half a cosine
{
    return to + (from - to) * (1 + cos(3.14159265358979323846 * fraction)) / 2;
}

static double one_cycle(const lf_schedule *s, double lr, double t, double length)
{
    // PyTorch's OneCycleLR counts from 0 to length - 1, and ends at the first rate over 10,000.
    double peak = s->rise * length - 1, last = length - 1, first = lr / s->div;
    double end = s->final < 0 ? first / 1e4 : s->final;
    if (t < peak)
        return between(first, lr, t / peak);
    return between(lr, end, last > peak ? (t - peak) / (last - peak) : 1);
}

double lf_schedule_lr(const lf_schedule *s, double lr, const lf_span *span, uint64_t update)
{
    uint64_t at = s->per_epoch ? update / span->epoch_steps : update;
    uint64_t all = s->per_epoch ? (span->steps + span->epoch_steps - 1) / span->epoch_steps : span->steps;
    if ((double)at < s->warmup)
        return lr * ((double)at + 1) / s->warmup;
    double t = (double)at - ceil(s->warmup), length = (double)all - ceil(s->warmup), passed = 0;
    double fraction = length > 0 ? fmin(t / length, 1) : 1;
    switch (s->kind) {
    case LF_SCHEDULE_STEP:
        return lr * pow(s->gamma, floor(t / (double)s->every));
    case LF_SCHEDULE_MULTISTEP:
        for (unsigned i = 0; i < s->milestone_count; i++)
            passed += (double)s->milestones[i] <= t;
        return lr * pow(s->gamma, passed);
    case LF_SCHEDULE_EXPONENTIAL:
        return lr * pow(s->gamma, t);
    case LF_SCHEDULE_COSINE:
        return between(lr, s->final, fraction);
    case LF_SCHEDULE_LINEAR:
        return lr + (s->final - lr) * fraction;
    case LF_SCHEDULE_ONE_CYCLE:
        return one_cycle(s, lr, t, length);
    default:
        return lr;
    }
}

bool lf_plateau_epoch(lf_plateau *plateau, const lf_schedule *s, double loss)
{
    if (loss < plateau->best * (1 - s->threshold)) {
        plateau->best = loss;
        plateau->waited = 0;
        return false;
    }
    if (++plateau->waited <= s->patience)
        return false;
    plateau->reductions++;
    plateau->waited = 0;
    return true;
}

double lf_plateau_scale(const lf_plateau *plateau, const lf_schedule *s)
{
    double scale = 1;
    for (uint64_t i = 0; i < plateau->reductions; i++)
        scale *= s->factor;
    return scale;
}

void lf_schedule_rates(const lf_optimizer *optimizer, double lr, uint64_t update, struct lf_schedule_row *row)
{
    double t = (double)update + 1, scale = optimizer->kind == LF_OPTIMIZER_LAMB ? 1 : lr;
    row->lr = (float)lr;
    row->step_size = (float)(scale / (1 - pow((double)optimizer->beta1, t)));
    row->inv_sqrt_correct2 = (float)(1 / sqrt(1 - pow((double)optimizer->beta2, t)));
}
