// Rows of the schedule region: what differs from step to step. session.c calls this.
#ifndef LF_TRAIN_SCHEDULE_H
#define LF_TRAIN_SCHEDULE_H

#include <stdint.h>

#include "abi.h"
#include "program/program.h"

// Fills the rates of training step `step` (from 0): lr and, for the adams, the bias corrections of update step + 1.
void lf_schedule_rates(const lf_optimizer *optimizer, uint64_t step, struct lf_schedule_row *row);

// The learning rate at a step.
double lf_schedule_lr(const lf_optimizer *optimizer, uint64_t step);

#endif
