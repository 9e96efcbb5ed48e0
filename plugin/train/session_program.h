// What a session's options and its part come to: whether they fit, and the program for them. session.c calls this, and
// lf_session_check and lf_session_compile are here.
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

#endif
