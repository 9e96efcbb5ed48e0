// A program at work on a device: its regions, its lowered form and its feed. Training, evaluation and prediction are
// passes of a session over a part; they differ in the program and in what they do with each piece.
#ifndef LF_TRAIN_SESSION_H
#define LF_TRAIN_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "device/device.h"
#include "io/dataset.h"
#include "train/feed.h"
#include "train/schedule.h"

typedef struct lf_session lf_session;

// What teachers say of the rows of the training part: see distill.h.
typedef struct lf_distillation {
    float alpha, temperature;
    float *outputs; // (rows, outputs): mean over the teachers of softmax(logits / temperature), for losses of values of
                    // their outputs; NULL: they run in the program
    const lf_model *const *teachers; // borrowed
    unsigned teacher_count;
} lf_distillation;

typedef struct lf_session_params {
    // Borrowed. Weights are read from the first that is not lost; several, or shards, are for training.
    lf_device *const *devices;
    unsigned device_count;
    uint32_t shards;  // of a batch; 0 or 1: none. At least the number of devices of all processes
    bool even_shards; // every device gets as many; else by speed
    bool fast;        // sums over devices in any order; see exchange.h
    // Processes that train together, and how many devices each has. With several devices at least this one; 0 where one
    // device does all.
    uint32_t rank, rank_count;
    const unsigned *rank_devices;
    // A device is lost, at a training step (from 1); may be NULL.
    void (*lost)(void *user, unsigned device, uint64_t step, const char *why);
    void *user;
    const lf_model *model; // borrowed
    lf_dataset *data;      // borrowed
    lf_part_id part;
    lf_loss loss;
    lf_loss_options loss_options;
    const float *class_weights; // [class_weight_count], borrowed; NULL: none
    uint32_t class_weight_count;
    lf_optimizer optimizer;              // kind LF_OPTIMIZER_NONE: nothing is updated
    float average;                       // decay of the weights' moving average; 0: none
    const lf_schedule *schedule;         // of the learning rate; borrowed; NULL: constant
    lf_span span;                        // that it covers
    const lf_distillation *distillation; // borrowed; NULL: none
    bool tf32;                           // as in program.h
    uint32_t batch;
    uint32_t accumulate; // batches that share an update; 0 counts as 1
    bool shuffle;
    uint64_t seed;
    uint64_t pass, position; // where to start
    uint64_t passes;
    uint64_t step;             // training steps done before
    uint64_t budget;           // bytes for resident rows; 0: half of the device's memory
    const lf_session *weights; // use that session's params, or their average if it has one; NULL: its own, filled from
                               // the model
} lf_session_params;

// Consecutive steps that ran as one submission.
typedef struct lf_piece {
    uint64_t pass, position; // of its first row
    uint64_t step;           // training step of its first step, from 0
    uint32_t steps;
    uint32_t rows; // in all steps together
    uint32_t batch;
    uint32_t stride; // rows that `metrics` holds for a step, at least the batch's
    lf_loss loss;
    const float *metrics; // (steps, stride, LF_METRIC_COUNT); NULL without a loss
    double seconds;       // it took
} lf_piece;
typedef bool lf_piece_fn(void *user, const lf_piece *piece, lf_error *err); // false with `err` filled stops the pass

// Checks that model, part and loss fit, compiles, makes buffers, loads the data. NULL on failure.
lf_session *lf_session_create(const lf_session_params *params, lf_error *err);
void lf_session_destroy(lf_session *session);

// What a session runs, compiled for that many resident rows; a device is not needed. NULL on failure.
lf_program *lf_session_compile(const lf_session_params *params, uint32_t rows, lf_error *err);
lf_row_bytes lf_session_row_bytes(const lf_session_params *params, const lf_part *part);

// Only checks: the part's features are the model's inputs, labels are below its outputs, …
bool lf_session_check(const lf_session_params *params, lf_error *err);

// Runs the rest of the current pass, at most `limit` steps of it and `piece` steps a submission (0: sized so that one
// takes less than half a second), and calls `done` after each submission, when the device is idle. A pass that is left
// where an update is not complete cannot be gone on with by another session.
bool lf_session_run(lf_session *session, uint64_t limit, uint32_t piece, lf_piece_fn *done, void *user, lf_error *err);
// From the next stretch on, learning rates are multiplied by `scale`.
void lf_session_scale_lr(lf_session *session, double scale);
bool lf_session_pass_done(const lf_session *session); // the next step starts a pass

// Sums over rows, in order.
typedef struct lf_sums {
    double loss, weight; // of weighted losses; of weights
    double right;        // rows, or fractions of their outputs, that are right
    uint64_t rows;
} lf_sums;
lf_sums lf_piece_step_sums(const lf_piece *piece, uint32_t step); // of one step, counted within the piece
void lf_sums_add(lf_sums *sums, const lf_sums *more);
void lf_piece_add(const lf_piece *piece, lf_sums *sums);    // of all its steps
double lf_sums_loss(const lf_sums *sums);                   // weighted mean; 0 where every weight is 0
double lf_sums_accuracy(const lf_sums *sums, lf_loss loss); // NaN but for classes and binary_cross_entropy

// Into the model's params and state.
bool lf_session_read_weights(lf_session *session, lf_model *model, lf_error *err);
// The same, but their moving average where the session has one: what validation sees.
bool lf_session_read_result(lf_session *session, lf_model *model, lf_error *err);
// A block of the program in its model's layout, such as a moment: [block_count].
bool lf_session_read_block(lf_session *session, lf_tensor_id block, float *values, lf_error *err);
bool lf_session_write_block(lf_session *session, lf_tensor_id block, const float *values, lf_error *err);
bool lf_session_read_output(lf_session *session, float *rows, uint32_t count, lf_error *err); // (count, outputs)
const lf_program *lf_session_program(const lf_session *session);

// The device that weights are read from: the first that is not lost.
unsigned lf_session_primary(const lf_session *session);
// After it has failed: whether others are left, which then go on without it.
bool lf_session_lose_primary(lf_session *session, const lf_error *err);
// The training has ended well: tells of devices that were lost behind its last step.
void lf_session_end(lf_session *session);
// Shards that a device works on now, and seconds that it has computed (0 where there is one device); seconds in which
// none did, for what they exchange was on its way.
uint32_t lf_session_shards(const lf_session *session, unsigned device);
double lf_session_busy(const lf_session *session, unsigned device);
double lf_session_exchange_seconds(const lf_session *session);

#endif
