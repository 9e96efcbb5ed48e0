// Which device works on which shards of a batch. Pure. team.c calls this.
#ifndef LF_TRAIN_HAND_OUT_H
#define LF_TRAIN_HAND_OUT_H

#include <stdbool.h>
#include <stdint.h>

// How many of `shards` each of `count` devices gets, at least one: so that the slowest is done as early as can be.
// `seconds` [count]: what a shard takes there. `counts` [count] is filled; shards >= count >= 1.
void lf_hand_out(uint32_t shards, const double *seconds, unsigned count, uint32_t *counts);

// How long a step takes with such counts: that of the device that is done last.
double lf_hand_out_seconds(const double *seconds, unsigned count, const uint32_t *counts);

// Whether `best` shortens the step of `now` by enough to be worth new programs.
bool lf_hand_out_is_worth(const double *seconds, unsigned count, const uint32_t *now, const uint32_t *best);

// The seed of the next, which LAVAFLOW_HAND_OUT names; 0: shards are handed out by speed.
uint64_t lf_hand_out_seed(void);
// A device for each shard [shards], drawn at random: that a result does not depend on it is what tests show.
void lf_hand_out_scatter(uint32_t shards, unsigned count, uint64_t seed, unsigned *owners);

#endif
