// How many shards of a batch each process has: at first by the number of its devices, then by the speeds that all
// devices of all processes have shown, which everyone is told and everyone decides the same from. team.c calls this.
#ifndef LF_TRAIN_SHARES_H
#define LF_TRAIN_SHARES_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"

// What a device has shown: seconds a shard, 0 where nothing was measured; and its shards, 0: it is lost.
typedef struct lf_speed {
    double seconds;
    uint32_t held;
} lf_speed;

typedef struct lf_shares {
    uint32_t rank, rank_count; // of the processes: this one, and all
    uint32_t shards;           // of a batch
    unsigned most;             // devices of a process
    bool fixed;                // there is nothing to move, or nothing is to be moved
    // [rank_count] each. A process's shards are neighbours, and follow those of the process before it.
    uint32_t *now;
    uint32_t *coming; // of the rows that are being read
    uint32_t *wanted; // as decided last
    lf_speed *speeds; // [rank_count + 1, most]: of this process, and of all; there before any is asked for
} lf_shares;

// `devices` [rank_count]: of each process.
bool lf_shares_init(lf_shares *shares, uint32_t rank, uint32_t rank_count, uint32_t shards, const unsigned *devices,
                    bool even, lf_error *err);
void lf_shares_finish(lf_shares *shares);

// Of `list` [rank_count], the shards of process `rank`: first … first + count - 1.
void lf_shares_of(const uint32_t *list, uint32_t rank, uint32_t *first, uint32_t *count);

// All processes call it, at the same step, with the speeds of their devices [count]: decides what is wanted. `scatter`:
// at random, by this seed; 0: by speed.
bool lf_shares_decide(lf_shares *shares, const lf_speed *speeds, unsigned count, uint64_t scatter, lf_error *err);

// What is wanted comes to be: at once, or, where rows are read ahead for the shards that a process will have, with the
// rows whose reading begins now. Whether the shares of now have changed.
bool lf_shares_turn(lf_shares *shares, bool read_ahead);

#endif
