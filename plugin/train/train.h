// Training, evaluation and prediction of a model on a part of a data set: what the Lua functions call. The loop knows
// nothing of any backend; the backends know nothing of training.
#ifndef LF_TRAIN_TRAIN_H
#define LF_TRAIN_TRAIN_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "device/device.h"
#include "io/dataset.h"
#include "program/program.h"
#include "train/schedule.h"

// Values of an epoch; NaN where there is none (accuracy of losses of values, validation without a part).
typedef struct lf_epoch {
    uint64_t epoch;                // from 1
    uint64_t step;                 // training steps done
    double loss, accuracy;         // means over the epoch's rows, while the weights changed
    double val_loss, val_accuracy; // with the weights at its end
    double lr;                     // at its last step
    char digest[65];               // of the weights at its end
} lf_epoch;

typedef struct lf_step {
    uint64_t epoch, step; // from 1
    double loss, lr;      // of the batch, before its update; of its update
} lf_step;

typedef struct lf_progress {
    uint64_t epoch, epochs, step, steps; // from 1; steps: of the whole training
    double loss, accuracy;               // of the epoch so far
    double rows_per_second, seconds_left;
} lf_progress;

// A device of a training of this process.
typedef struct lf_train_device {
    lf_device_info info;
    unsigned opened; // how many before it are the same device, opened several times
    uint32_t shards; // that it works on at the end; 0 where there are none
    double busy;     // seconds that it computed; of several devices
    bool lost;
} lf_train_device;

// What a training tells while it runs, all on the calling thread while the device is idle. Any may be NULL.
typedef struct lf_train_events {
    void *user;
    // Before the first step; `step`: of the checkpoint that it goes on from, else 0. The devices are those of this
    // process, in the order in which they were asked for.
    void (*started)(void *user, const lf_train_device *devices, unsigned count, uint64_t step);
    // A device is lost: the others go on with its shards, from the step that it did not finish.
    void (*lost)(void *user, const lf_train_device *device, uint64_t step, const char *why);
    void (*progress)(void *user, const lf_progress *progress);                       // after each submission
    void (*steps)(void *user, uint64_t first, uint32_t count, const double *losses); // first: from 1
    void (*digest)(void *user, uint64_t step, const char hex[65]);                   // every digest_every steps
    void (*ended)(void *user, const lf_epoch *epoch); // an epoch has its values; before the checkpoint that holds it
    // Before a checkpoint is written: what was told so far must last. False: it cannot, and nothing is written.
    bool (*saving)(void *user, uint64_t step, lf_error *err);
    // After every step_every steps, or the update they are part of. Both: false stops; with err->code set it is a
    // failure.
    bool (*step)(void *user, const lf_step *step, lf_error *err);
    bool (*epoch)(void *user, const lf_epoch *epoch, lf_error *err);
} lf_train_events;

// A value that a training watches, to end when it becomes no better, and to keep the best weights.
typedef enum lf_monitor {
    LF_MONITOR_NONE,
    LF_MONITOR_LOSS,
    LF_MONITOR_ACCURACY, // larger is better
    LF_MONITOR_VAL_LOSS,
    LF_MONITOR_VAL_ACCURACY,
    LF_MONITOR_COUNT
} lf_monitor;
const char *lf_monitor_name(lf_monitor monitor); // "none", "loss", …
bool lf_monitor_find(const char *name, lf_monitor *out);

typedef struct lf_train_params {
    lf_model *model; // weights are drawn with `seed` unless it has some; holds the new ones afterwards, also on failure
    lf_dataset *data;
    lf_part_id part;
    lf_dataset *validation; // NULL: none
    lf_part_id validation_part;
    lf_loss loss;
    lf_loss_options loss_options;
    const float *class_weights; // [class_weight_count], borrowed; NULL: none
    uint32_t class_weight_count;
    lf_optimizer optimizer;
    lf_schedule schedule;            // of the learning rate
    const lf_model *const *teachers; // for distillation; borrowed
    unsigned teacher_count;          // 0: none
    float alpha, temperature;        // temperature: with cross_entropy
    bool live;                       // the teachers run at every step; else their outputs are computed once
    const char *teacher_cache;       // file that keeps those outputs; NULL: memory alone
    const lf_hint *hints;            // with one teacher; it is `live` then
    size_t hint_count;
    bool tf32; // as in program.h; validation and teachers compute in f32
    uint32_t batch;
    uint32_t accumulate; // batches that share an update; at least 1
    float average;       // decay of the weights' moving average, which validation and the result use; 0: none
    uint64_t epochs, seed;
    uint64_t max_steps; // 0: no limit; an update that it cuts is finished
    lf_monitor monitor;
    double min_delta;  // less than that is not better
    uint64_t patience; // epochs without a better value before the training ends; 0: it does not
    bool restore_best; // the model ends with the best epoch's weights
    const char *best;  // model file written at each better epoch; NULL: none
    bool shuffle;
    const char *run; // UUID of the run that it is part of, which the model is marked with; NULL: none
    // "auto", "cpu", "vulkan:0", …; one may stand several times. "all" stands for every GPU, each once, or for "auto"
    // where there is none. Borrowed, at least one. With several processes (ranks.h) each gives its own.
    const char *const *devices;
    unsigned device_count;
    uint32_t shards;           // of a batch: a power of two, at most its rows; 0: the smallest power of two that is at
                               // least the number of devices of all processes, none for one
    bool even_shards;          // every device gets as many as the others; else by measured speed
    bool fast;                 // sums over devices are added up in whatever order is fastest; else along the tree
    uint64_t window;           // bytes for resident rows of a device; 0: half of its memory
    const char *checkpoint;    // file written when stopped, and as the next three say; NULL: none
    bool checkpoint_rarely;    // not at the end of every epoch, but at the training's if it took a second
    uint64_t checkpoint_every; // steps: written then too; 0: not
    double checkpoint_seconds; // written when so much time has passed since the last one or the start; 0: not
    unsigned keep;             // as many of the last ones are kept as <stem>-<step>.h5; 0: none
    const char *resume;        // checkpoint to go on from; NULL: start
    const char *replay;        // checkpoint of before the step whose loss was not finite; NULL: none
    uint64_t step_every;       // of events.step; at least 1
    uint64_t digest_every;     // steps; 0: only at the end of epochs
    volatile sig_atomic_t *stop; // set to the signal's number to stop; may be NULL
    lf_train_events events;
} lf_train_params;

typedef struct lf_train_result {
    lf_train_device *devices; // [device_count]; see lf_train_result_finish
    unsigned device_count;
    uint32_t shards;         // of a batch; 1: it was not divided
    uint32_t ranks;          // processes
    double exchange_seconds; // of the loop: gradients on their way, while no device computed
    uint64_t epochs, steps;  // done, a resumed part included
    uint64_t submissions;    // of the training, validation included
    uint64_t dispatches;
    double seconds;      // of the loop: without opening the device and loading the data
    char digest[65];     // of the final weights
    uint64_t best_epoch; // from 1; 0: none was watched
    double best_value;
    enum { LF_TRAIN_DONE, LF_TRAIN_MAX_STEPS, LF_TRAIN_EPOCH_EVENT, LF_TRAIN_STEP_EVENT, LF_TRAIN_PATIENCE } stopped;
    bool checkpointed; // the checkpoint is of the last step that was done
} lf_train_result;

// Trains. False on failure; LF_EINTERRUPTED when `stop` was set, after the checkpoint if there is one to write.
// Finish the result also then.
bool lf_train(const lf_train_params *params, lf_train_result *result, lf_error *err);
void lf_train_result_finish(lf_train_result *result);

// The programs that lf_train would run, in words (lf_program_explain), training and validation. Opens no device.
// malloc'ed; NULL on failure.
char *lf_train_explain(const lf_train_params *params, lf_error *err);

typedef struct lf_evaluate_params {
    const lf_model *model;
    lf_dataset *data;
    lf_part_id part;
    lf_loss loss; // LF_LOSS_NONE for lf_predict
    lf_loss_options loss_options;
    const float *class_weights; // [class_weight_count], borrowed; NULL: none
    uint32_t class_weight_count;
    uint32_t top_k; // the label is among so many largest logits; limited by the outputs
    uint32_t batch;
    const char *device;
    uint64_t window;
    volatile sig_atomic_t *stop;
} lf_evaluate_params;

// NaN or NULL where a value does not belong to the loss.
typedef struct lf_evaluation {
    lf_device_info device;
    double loss, accuracy;
    uint64_t rows;
    double seconds;
    // cross_entropy
    uint32_t classes; // the model's outputs
    uint32_t top_k;
    double top_k_accuracy, macro_f1;
    uint64_t *confusion;             // (classes, classes): true class, predicted class
    double *precision, *recall, *f1; // [classes]; 0 where they are 0 / 0
    // losses of values
    double mse, mae, r2; // r2: 1 - squared errors / squared distances from each output's mean, over all outputs
} lf_evaluation;

// Free the result with lf_evaluation_finish, also on failure.
bool lf_evaluate(const lf_evaluate_params *params, lf_evaluation *result, lf_error *err);
void lf_evaluation_finish(lf_evaluation *result);

// The softmax of z / temperature is exp((z[j] - *largest) / temperature) / result.
double lf_softmax_sum(const float *z, uint32_t count, double temperature, double *largest);

// Calls `rows` with the model's outputs (count, outputs) for rows first … of the part, in order.
typedef bool lf_predict_fn(void *user, uint64_t first, uint32_t count, const float *outputs, lf_error *err);
bool lf_predict(const lf_evaluate_params *params, lf_predict_fn *rows, void *user, lf_error *err);

#endif
