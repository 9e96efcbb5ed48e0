// A device of a team, and how it makes a step: it runs what needs nothing of the others, gives its parts of the sums
// that then stand, and takes the totals before what needs them. team.c calls this, on the member's own thread.
#ifndef LF_TRAIN_MEMBER_H
#define LF_TRAIN_MEMBER_H

#include "train/exchange.h"
#include "train/fault.h"
#include "train/replica.h"

// What all members are at: steps base … of the team's count.
typedef struct lf_member_job {
    uint64_t base;
    uint64_t step;  // training step of the first, from 0
    uint32_t row;   // of the schedule, the first one's
    float *metrics; // (steps, batch, LF_METRIC_COUNT)
} lf_member_job;

typedef struct lf_member {
    unsigned number;     // in its team
    lf_replica *replica; // borrowed, as all that follows
    lf_exchanger *exchanger;
    const lf_fault *faults;
    const lf_member_job *job;
    uint32_t held[LF_SHARDS_MAX], held_count;
    uint64_t done; // whole steps
    double busy;   // seconds
    // Seconds up to the gradients since the shards were handed out, which grow with their number; the update, which all
    // make, does not. The first step prepares, and does not count.
    double measured;
    uint64_t measured_from;
    float *metrics; // of a step: (batch, LF_METRIC_COUNT)
} lf_member;

typedef enum lf_member_outcome {
    LF_MEMBER_DONE,
    LF_MEMBER_STOPPED, // the exchange was
    LF_MEMBER_FAILED,  // replica->error
} lf_member_outcome;

lf_member_outcome lf_member_step(lf_member *member, uint64_t step);

#endif
