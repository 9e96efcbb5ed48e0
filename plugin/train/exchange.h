// Sums over the shards of a batch, between the devices of a process and those of others: members give their parts of a
// sum, a thread adds them up along the tree, and members take the total. What they do meanwhile is theirs. Sums are
// numbered as the exchanges of the program are (program.h), and made in that order, step after step. team.c calls this.
//
// Large sums may be made among the devices, where a backend links them (linked.h): then the members' parts stay where
// they are, and the total comes there, which is in the place of their first part. A link that fails stops the members,
// and the step is done again through the host. Totals that stand are never made again, for other processes have taken
// them and gone on.
//
// Fast sums are not made along the tree: each member adds up its own parts before it gives them, then the members' are
// added in their order, then MPI adds the processes' in an order of its own. Their bits depend on who holds what.
#ifndef LF_TRAIN_EXCHANGE_H
#define LF_TRAIN_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "train/replica.h"

typedef struct lf_exchanger lf_exchanger;

// A neighbourhood of shards that a member of this process sums by itself.
typedef struct lf_member_part {
    uint32_t first, count;
    unsigned member; // its number, any that no other has
} lf_member_part;

typedef struct lf_exchanger_params {
    size_t sum_count;
    const size_t *sizes;    // [sum_count]: numbers in each; copied
    const uint32_t *shares; // [process_count]: shards of each process, which are neighbours; copied
    uint32_t process_count; // more than one: they are opened already (ranks.h)
    uint32_t process;       // this one
    bool fast;
} lf_exchanger_params;

lf_exchanger *lf_exchanger_create(const lf_exchanger_params *params, lf_error *err);
void lf_exchanger_destroy(lf_exchanger *exchanger);

// Other shares of the processes [process_count], which all of them change at the same step. Before lf_exchanger_plan.
bool lf_exchanger_share(lf_exchanger *exchanger, const uint32_t *shares, lf_error *err);

// Before lf_exchanger_plan, where the step after `steps` is to be done again, with what members have done of it so far:
// keeps the totals that stand on devices alone. False: no device gives them.
bool lf_exchanger_keep(lf_exchanger *exchanger, const lf_replica *replicas, unsigned count, uint64_t steps,
                       lf_error *err);

// Who gives what: `parts` ascending by `first`, from `members` members, which have made `steps` whole steps. Sums of
// the next one that are complete stay so. No member is at work.
bool lf_exchanger_plan(lf_exchanger *exchanger, unsigned members, const lf_member_part *parts, size_t part_count,
                       uint64_t steps, lf_error *err);

// After lf_exchanger_plan, of members that are the replicas not lost, with the programs that they have now: links them.
void lf_exchanger_link(lf_exchanger *exchanger, const lf_replica *replicas, unsigned count);
// The same for several processes, which all call it before steps that they make together.
bool lf_exchanger_meet(lf_exchanger *exchanger, const lf_replica *replicas, unsigned count, lf_error *err);
// Whether the sum's parts and total stay on the devices, until the next plan or meeting.
bool lf_exchanger_is_linked(const lf_exchanger *exchanger, size_t sum);

// Where a member puts its part of a sum of step `step`, once the total before is no longer needed. NULL: it is complete
// already, or lf_exchanger_stop was called (*stopped).
float *lf_exchanger_part(lf_exchanger *exchanger, size_t sum, uint32_t first, uint64_t step, bool *stopped);
// All of the member's parts of a sum are there.
void lf_exchanger_give(lf_exchanger *exchanger, size_t sum, unsigned member);

// The total, which the member then has taken. NULL: it will not come, for lf_exchanger_stop was called.
const float *lf_exchanger_total(lf_exchanger *exchanger, size_t sum, uint64_t step);
void lf_exchanger_take(lf_exchanger *exchanger, size_t sum);

// Wakes those that wait for what is not there. What is there can still be taken, so that all members end at one step.
void lf_exchanger_stop(lf_exchanger *exchanger);
// When no member is at work any more: sums whose parts are all there are finished; false if another process failed.
bool lf_exchanger_settle(lf_exchanger *exchanger, lf_error *err);

#endif
