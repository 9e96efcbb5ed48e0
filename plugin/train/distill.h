// Knowledge distillation (Hinton, Vinyals, Dean 2015): what the teachers say of every row does not depend on the
// student, so it is computed once, before the training, unless they are asked to run at every step. start.c calls this.
#ifndef LF_TRAIN_DISTILL_H
#define LF_TRAIN_DISTILL_H

#include "train/session.h"
#include "train/train.h"

#define LF_TEACHER_MAX 16

// Temperature, alpha, the teachers' widths, hints.
bool lf_distillation_check(const lf_train_params *params, lf_error *err);
// Unless they are live, runs the teachers over the training part on `device`, or reads what they said from the cache.
// `device` NULL: another process does, and `outputs` is there to be filled. False on failure; finish either way.
bool lf_distillation_init(lf_distillation *d, const lf_train_params *params, const char *device, lf_error *err);
void lf_distillation_finish(lf_distillation *d);

#endif
