// Devices that fail on request, so that what happens then can be tested. The variable LAVAFLOW_FAULT is a list of
// DEVICE@step=N, separated by commas: the device fails as a lost one does when training step N (from 1) begins.
// DEVICE@step=N.K: when it has given its parts of the K-th sum of that step.
// DEVICE#2 is the second opening of a device that is opened several times. team.c calls this.
#ifndef LF_TRAIN_FAULT_H
#define LF_TRAIN_FAULT_H

#include <stdbool.h>
#include <stdint.h>

#include "device/device.h"

typedef struct lf_fault lf_fault;

bool lf_faults_read(lf_fault **faults, lf_error *err); // NULL where there are none
void lf_faults_free(lf_fault *faults);

// Whether the device is to fail now; `err` then says so. `sum` 0: the step begins.
bool lf_fault_is_due(const lf_fault *faults, const lf_device *device, uint64_t step, uint32_t sum, lf_error *err);

#endif
