// What the tests of train/ share: a small data set on disk, and a training with what it told.
#ifndef TRIAL_H
#define TRIAL_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "train/checkpoint.h"
#include "train/train.h"

enum { ROWS = 1003, FEATURES = 12, CLASSES = 3, VALID_ROWS = 301 };

extern const char *device;
// Classes; values; classes whose rows have weights 1, 2, 3 by class; files that a training may write.
extern char data_path[64], values_path[64], weighted_path[64], checkpoint_path[64], other_path[64];

// A training with what it told.
typedef struct trial {
    lf_train_params params;
    lf_train_result result;
    lf_error err;
    bool ok;
    double losses[4096];
    uint64_t loss_count, next_step, epochs, digests;
    lf_epoch last;
    volatile sig_atomic_t stop;
    uint64_t stop_after;                     // steps
    uint64_t end_after;                      // epochs
    uint64_t told_steps, last_step, stop_at; // of on_step
} trial;

trial *begin(const char *path); // with a model 12-17-3, or 12-17-2 for values, and Adam
trial *run(trial *t);
trial *run_well(trial *t); // fails the test if the training fails
void end(trial *t);
// Scores of its model on a part, with its own loss; free with lf_evaluation_finish.
lf_evaluation score(const trial *t, lf_part_id part, uint32_t batch);
bool on_step(void *user, const lf_step *step, lf_error *err);
void assert_same(const trial *a, const trial *b);
void assert_near(const trial *a, const trial *b, double bound); // the losses, within bound of 1 + |loss|

// Runs the tests on the device that the program's argument names; 77 when it is absent.
int run_on_device(int argc, char **argv, const struct CMUnitTest *tests, size_t count);

#endif
