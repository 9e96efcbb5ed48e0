// Knowledge distillation (Hinton, Vinyals, Dean 2015): what the teachers say of every row does not depend on the
// student, so it is computed once, before the training. train.c calls this.
#ifndef LF_TRAIN_DISTILL_H
#define LF_TRAIN_DISTILL_H

#include "train/session.h"
#include "train/train.h"

// Loss, temperature, alpha and the teachers' outputs.
bool lf_distillation_check(const lf_train_params *params, lf_error *err);
// Runs the teachers over the training part. False on failure; finish either way.
bool lf_distillation_init(lf_distillation *d, const lf_train_params *params, lf_error *err);
void lf_distillation_finish(lf_distillation *d);

#endif
