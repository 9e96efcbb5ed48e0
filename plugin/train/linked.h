// Sums that the devices of a process make among themselves, without the host: large ones, where a backend links them
// all (device.h). exchange.c calls this, while no member is at work but for lf_linked_has and _add.
#ifndef LF_TRAIN_LINKED_H
#define LF_TRAIN_LINKED_H

#include "train/replica.h"

typedef struct lf_linked_sum_parts {
    lf_link_part *parts; // [count], ascending; NULL: the sum is made on the host
    size_t count, size;
} lf_linked_sum_parts;

// Zeros: nothing is linked.
typedef struct lf_linked {
    lf_link *link;
    lf_device **devices;       // [device_count], of the link
    unsigned device_count;     // 0: there is none
    unsigned failed;           // so many devices could not be linked, or their link failed; 0: not so far
    lf_linked_sum_parts *sums; // [sum_count]
    size_t sum_count;
} lf_linked;

// For the replicas that are not lost and their programs of now. Where it does not work, nothing is linked: the log says
// why, and it is tried again when fewer devices are left.
void lf_linked_plan(lf_linked *linked, const lf_replica *replicas, unsigned count);
void lf_linked_finish(lf_linked *linked);

bool lf_linked_has(const lf_linked *linked, size_t sum);
// False: the link has failed, and nothing is linked until the next plan.
bool lf_linked_add(lf_linked *linked, size_t sum, bool fast, lf_error *err);

#endif
