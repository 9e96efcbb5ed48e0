// What trainings on several devices of the stand-in share: one wide enough for NCCL, and what the log says of it.
#ifndef WIDE_H
#define WIDE_H

#include "core/log.h"
#include "trial.h"

// Of the last training: links that were made, and those that were not or have failed.
extern unsigned linked, unlinked;
extern char unlinked_why[512]; // the last of these lines

// With lf_log_to.
void on_wide_log(void *user, lf_log_level level, const char *text);

// 12-300-220-3: sums 1 to 4 are a batch norm's, 5 is that of the first two layers, which is large enough for NCCL, and
// 6 the last one's.
trial *begin_wide(const char *const *devices, unsigned count, bool fast);

#endif
