// How fast devices exchange gradients with the host and with one another, as a training on several of them does it.
// binding/ calls this.
#ifndef LF_TRAIN_BANDWIDTH_H
#define LF_TRAIN_BANDWIDTH_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

// Seconds of the parts of an exchange: every device's numbers are read at once, added up along the tree, and the total
// is written to every device at once. For one device nothing is added up: what it takes to read from it and write to
// it. `linked`: the same exchange among the devices alone (device.h); 0: nothing links them.
typedef struct lf_bandwidth {
    double read, sum, write, linked;
} lf_bandwidth;

// Opens the devices, as lf_device_open_list takes them, and measures exchanges of `bytes` [count], each a multiple of
// 4: medians of several, into `seconds` [count].
bool lf_bandwidth_measure(const char *const *specs, size_t spec_count, const size_t *bytes, size_t count,
                          lf_bandwidth *seconds, lf_error *err);

#endif
