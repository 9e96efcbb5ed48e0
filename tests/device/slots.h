// One operation, from numbers that a test holds to numbers that it reads.
#ifndef LF_TEST_SLOTS_H
#define LF_TEST_SLOTS_H

#include "rig.h"

// An operand with what it holds before the operation and where to read it after it; NULL: not written, not read.
typedef struct slot {
    operand operand;
    const double *before;
    double *after;
} slot;

// Runs `op`, whatever its phase, at a step of that schedule row: in f32 on the device or in f64 on the oracle.
void run_slots_at(bool in_float64, lf_op op, const slot *slots, size_t count, const struct lf_schedule_row *row);
// In a batch of `valid` rows.
void run_slots(bool in_float64, lf_op op, const slot *slots, size_t count, uint32_t valid);

double *doubles(size_t count); // zeros, which the caller frees

#define OPERAND(n, in, r, c)                                                                                           \
    {                                                                                                                  \
        .number = n, .region = LF_REGION_##in, .rows = r, .cols = c                                                    \
    }
#define TYPED(n, in, r, c, t)                                                                                          \
    {                                                                                                                  \
        .number = n, .region = LF_REGION_##in, .rows = r, .cols = c, .type = t, .typed = true                          \
    }

#endif
