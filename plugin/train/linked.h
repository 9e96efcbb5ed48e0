// Sums that devices make among themselves, without the host: large ones, where a backend links all devices of the
// training (device.h), those of other processes too. exchange.c calls this, while no member is at work but for
// lf_linked_has and _add.
//
// Several processes link their devices when all of them meet, and what one of them does to its devices later is its own
// affair: before each sum they ask each other whether the link still is what all think it is, and after it whether all
// have got their totals. Where one has not, none has, and all go on through the host from there.
#ifndef LF_TRAIN_LINKED_H
#define LF_TRAIN_LINKED_H

#include "train/replica.h"

typedef struct lf_linked_sum_parts {
    lf_link_part *parts; // [count], ascending; NULL: the sum is made on the host
    size_t count, size;
} lf_linked_sum_parts;

// Zeros: nothing is linked.
typedef struct lf_linked {
    uint32_t process, process_count; // set by exchange.c; 0 of 0 or 1: there is no other
    lf_link *link;
    lf_device **devices;       // [device_count], of this process, in the link
    unsigned device_count;     // 0: there is none
    unsigned failed;           // so many devices could not be linked, or their link failed; 0: not so far
    lf_linked_sum_parts *sums; // [sum_count]
    size_t sum_count;
    // Of several processes.
    unsigned all; // devices in the link
    bool joined;  // they are linked, as all processes have it
    bool met;     // nothing has changed here since they met
} lf_linked;

// For the replicas that are not lost and their programs of now. Where it does not work, nothing is linked: the log says
// why, and it is tried again when fewer devices are left. With several processes it is lf_linked_meet that links.
void lf_linked_plan(lf_linked *linked, const lf_replica *replicas, unsigned count);
void lf_linked_finish(lf_linked *linked);

// Several processes: all of them call it, before steps that they make together. linked_meet.c.
bool lf_linked_meet(lf_linked *linked, const lf_replica *replicas, unsigned count, lf_error *err);

bool lf_linked_is_large(size_t size); // enough for a link
bool lf_linked_has(const lf_linked *linked, size_t sum);

typedef enum lf_linked_outcome {
    LF_LINKED_DONE,
    LF_LINKED_NOT,    // not linked: the sum is the host's
    LF_LINKED_FAILED, // nothing is linked until the next plan
    LF_LINKED_ALONE,  // the other processes cannot be reached
} lf_linked_outcome;

// Several processes call it for the same sums, all of which have `size` numbers there, linked or not.
lf_linked_outcome lf_linked_add(lf_linked *linked, size_t sum, size_t size, bool fast, lf_error *err);

// ---- for linked_meet.c

// Parts of other processes' devices, [count].
typedef struct lf_linked_others {
    const lf_link_part *parts;
    size_t count;
} lf_linked_others;

// Lists the sums: own devices are numbered from `first` on. Whether one is to be linked.
bool lf_linked_list(lf_linked *linked, const lf_replica *replicas, unsigned count, unsigned first,
                    const lf_linked_others *others);
void lf_linked_forget(lf_linked *linked); // the sums
void lf_linked_cut(lf_linked *linked);    // the link
bool lf_linked_take_devices(lf_linked *linked, const lf_replica *replicas, unsigned count);
unsigned lf_linked_alive(const lf_replica *replicas, unsigned count);

#endif
