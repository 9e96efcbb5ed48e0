// What a session's options and its part come to: whether they fit, the program for them, and what its steps are told.
// session.c calls this, and lf_session_check and lf_session_compile are here.
#ifndef LF_TRAIN_SESSION_PROGRAM_H
#define LF_TRAIN_SESSION_PROGRAM_H

#include "train/session.h"

bool lf_session_weighted(const lf_session_params *params, const lf_part *part);
// Whether the teachers' outputs come from outside the program.
bool lf_session_given_teacher(const lf_session_params *params);
// Batches that share an update: at most those of a pass, whose end updates anyway.
uint32_t lf_session_together(const lf_session_params *params, const lf_part *part);
// Rows that an update averages over.
uint32_t lf_session_unit(const lf_session_params *params, const lf_part *part);

// Rows that are trained on without others being read: all, or as many as memory allows on the device, of all processes,
// that has least of it, so that all have the same stretches. 0 on failure. All processes call it.
uint32_t lf_session_window(const lf_session_params *params, const lf_part *part, lf_error *err);

// For these of the batch's shards; NULL: all. NULL on failure.
lf_program *lf_session_compile_held(const lf_session_params *params, uint32_t rows, const uint32_t *held,
                                    uint32_t held_count, lf_error *err);

// ---- session_schedule.c

// Batches of so many rows.
uint32_t lf_session_steps(const lf_session_params *params, uint32_t rows);
// The schedule of a stretch, whose first step follows `step` others, as the region has it, with rates times `lr_scale`:
// how many bytes it is. The device's step counter is 0 in it.
size_t lf_session_schedule(const lf_session_params *params, const lf_part *part, const lf_stretch *stretch,
                           uint64_t step, double lr_scale, uint32_t *schedule);

#endif
