// A training at work. Only train/ includes this: train.c runs it, start.c begins it, best.c watches it, replay.c is
// there for when it fails.
#ifndef LF_TRAIN_TRAINING_H
#define LF_TRAIN_TRAINING_H

#include "train/checkpoint.h"
#include "train/distill.h"
#include "train/session.h"
#include "train/train.h"

// Everything that a training's future depends on, in memory.
typedef struct lf_snapshot {
    lf_train_place place;
    double taken, cost; // clock, seconds
    float *blocks;      // params, then those of lf_checkpoint_blocks; NULL: none was taken
    float *state;
} lf_snapshot;

typedef struct training {
    const lf_train_params *p;
    lf_train_result *result;
    lf_model *model;      // p->model, or a copy with hint layers
    lf_device **devices;  // [device_count], of this process
    lf_device **used;     // [used_count]: those that the sessions were opened on, which are not lost
    unsigned *used_index; // [used_count]: in `devices`
    unsigned used_count;
    unsigned device_count;
    uint32_t rank, rank_count;        // of the processes that train together
    unsigned *rank_devices;           // [rank_count]
    uint32_t shards;                  // of a batch; 1: none
    lf_session *session, *validation; // the first process validates
    unsigned validates_on;            // device of the validation
    lf_distillation distillation;
    uint64_t rows, epoch_steps, total_steps;
    lf_span span; // of the whole training: max_steps cuts it short without changing its rates
    lf_train_place place;
    uint64_t first_step; // where this run began; more than 0 after a resume
    uint64_t run_end;    // step up to which the session is to run: then something is due
    uint64_t saved_step; // of the checkpoint; UINT64_MAX: there is none
    double saved;        // clock; at first the start
    uint64_t epoch_rows; // of the epoch, in this run; and the seconds that they took
    double epoch_seconds;
    double start;
    double *losses; // of a piece's steps
    uint32_t losses_capacity;
    double last_loss;     // of the last step
    bool script_ends;     // a callback said so. A checkpoint of that does not know it: a training that goes on from it
                          // would go past the end
    uint64_t failed_step; // from 1: its loss was not finite; 0: none
    float *best;          // params, then state, of the best epoch's model; NULL: not kept
    lf_snapshot snapshot;
} training;

// start.c
bool lf_training_begin(training *t, lf_error *err);
bool lf_training_open(training *t, lf_error *err);                // the sessions, at t->place
bool lf_training_open_validation(training *t, lf_error *err);     // anew, where its device was lost
void lf_training_close(training *t);                              // them
uint64_t lf_training_group_end(const training *t, uint64_t step); // of the update that the step before it is part of

// agree.c: what the processes of a training settle between them. Where there is one, nothing is asked.
bool lf_training_decide(const training *t, bool *yes, lf_error *err);               // the first one's word
bool lf_training_any(const training *t, bool *yes, lf_error *err);                  // whether one of them says so
bool lf_training_compare(const training *t, const char *options, lf_error *err);    // they run the same training
bool lf_training_share(const training *t, void *bytes, size_t size, lf_error *err); // the first one's, to all
bool lf_training_settle(const training *t, lf_error *err);                          // data sets, each reads a part

// best.c
// Compares an epoch with the best before it; keeps its weights if it is better. False: failure.
bool lf_training_watch(training *t, const lf_epoch *epoch, lf_error *err);
bool lf_training_patience_is_over(const training *t);
void lf_training_restore_best(training *t); // into p->model

// replay.c
// Takes a snapshot if one is due, as it is where an epoch begins: a replay never passes the end of one. The device is
// idle.
bool lf_training_snapshot(training *t, lf_error *err);
// After a loss that is not finite: goes back to the snapshot, runs up to the step before the failed one, writes
// p->replay and says so in front of `err`.
void lf_training_leave_replay(training *t, lf_error *err);
void lf_training_snapshot_finish(lf_snapshot *snapshot);

#endif
