// Learning rates, and the rows of the schedule region, which hold what differs from step to step. session.c and train.c
// call this; binding/ fills lf_schedule from a script.
#ifndef LF_TRAIN_SCHEDULE_H
#define LF_TRAIN_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "program/program.h"

typedef enum lf_schedule_kind {
    LF_SCHEDULE_CONSTANT,
    LF_SCHEDULE_STEP,        // lr · gamma^⌊t / every⌋
    LF_SCHEDULE_MULTISTEP,   // lr · gamma^(milestones at or before t)
    LF_SCHEDULE_EXPONENTIAL, // lr · gamma^t
    LF_SCHEDULE_COSINE,    // final + (lr - final) · (1 + cos(π t / T)) / 2; Loshchilov, Hutter 2017, without restarts
    LF_SCHEDULE_LINEAR,    // lr + (final - lr) · t / T
    LF_SCHEDULE_ONE_CYCLE, // cosines from lr / div up to lr over `rise` of T, then down to final; Smith, Topin 2018
    LF_SCHEDULE_PLATEAU,   // lr · factor^n, see lf_plateau
    LF_SCHEDULE_COUNT,
} lf_schedule_kind;

#define LF_MILESTONE_MAX 16

// t counts updates (steps, where batches do not accumulate), or epochs, from the end of the warm-up; T is the length of
// the whole training without it.
typedef struct lf_schedule {
    lf_schedule_kind kind;
    bool per_epoch;
    double warmup;  // steps (or epochs) over which the rate rises linearly from lr / warmup to lr
    double final;   // rate at the end: cosine, linear, one_cycle
    double gamma;   // step, multistep, exponential
    uint64_t every; // step
    uint64_t milestones[LF_MILESTONE_MAX]; // multistep; ascending
    unsigned milestone_count;
    double rise, div;  // one_cycle
    double factor;     // plateau
    unsigned patience; // plateau: epochs without a better value before the rate falls
    double threshold;  // plateau: better means below best · (1 - threshold)
} lf_schedule;

const char *lf_schedule_name(lf_schedule_kind kind);
bool lf_schedule_find(const char *name, lf_schedule_kind *out);
lf_schedule lf_schedule_default(lf_schedule_kind kind); // PyTorch's defaults where it has them
bool lf_schedule_check(const lf_schedule *schedule, lf_error *err);

// Lengths of the training that the schedule spans.
typedef struct lf_span {
    uint64_t steps, epoch_steps; // updates in all; in an epoch
} lf_span;

// Everything that its rates depend on, as text of at most LF_SCHEDULE_TEXT bytes. Rates that do not depend on the
// training's length say "over 0 steps".
#define LF_SCHEDULE_TEXT 640
void lf_schedule_text(const lf_schedule *schedule, const lf_span *span, char *text, size_t size);

// The learning rate of an update, from 0.
double lf_schedule_lr(const lf_schedule *schedule, double lr, const lf_span *span, uint64_t update);

// What a plateau schedule remembers from epoch to epoch.
typedef struct lf_plateau {
    double best;     // loss so far; HUGE_VAL: none
    uint64_t waited; // epochs since
    uint64_t reductions;
} lf_plateau;

// After an epoch: the rate falls when the loss has not become better for `patience` epochs, as PyTorch's
// ReduceLROnPlateau does. True: it falls.
bool lf_plateau_epoch(lf_plateau *plateau, const lf_schedule *schedule, double loss);
// What rates are multiplied by: the same product in the same order after a resume.
double lf_plateau_scale(const lf_plateau *plateau, const lf_schedule *schedule);

struct lf_schedule_row; // shaders/abi.h

// Fills a row's rates for update `update` (from 0) at learning rate `lr`; for the adams with the bias corrections of
// their step update + 1.
void lf_schedule_rates(const lf_optimizer *optimizer, double lr, uint64_t update, struct lf_schedule_row *row);

#endif
