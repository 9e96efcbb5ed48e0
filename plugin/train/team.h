// The devices of a process at work on a step together: a thread drives each through its shards, a further one adds up
// what they exchange, with the other processes' where there are some. A device that fails is left out, and its shards
// go to the others, from the step that was not finished. session.c calls this.
#ifndef LF_TRAIN_TEAM_H
#define LF_TRAIN_TEAM_H

#include <stdbool.h>
#include <stdint.h>

#include "train/replica.h"

typedef struct lf_team lf_team;

typedef struct lf_team_params {
    lf_replica *replicas; // [count], borrowed; their programs are made by `compile`
    unsigned count;
    uint32_t shards; // of a batch
    bool even;       // not by speed
    bool fast;       // see exchange.h
    // Of the processes that train together, this one's number, and how many devices each has.
    uint32_t rank, rank_count;
    const unsigned *rank_devices; // [rank_count], borrowed by lf_team_create
    bool reads_ahead;             // the rows of a process's shards alone, before it is to work on them
    // A program for these shards; and what becomes of a device that fails.
    lf_program *(*compile)(void *user, const uint32_t *held, uint32_t count, lf_error *err);
    void (*lost)(void *user, unsigned replica, uint64_t step, const char *why);
    void *user;
} lf_team_params;

// Hands the shards out, at first evenly. The replicas are not looked at yet.
lf_team *lf_team_create(const lf_team_params *params, lf_error *err);
void lf_team_destroy(lf_team *team);

// The shards that a replica is to be made for at first.
const uint32_t *lf_team_held(const lf_team *team, unsigned replica, uint32_t *count);
// The replicas are made: threads and the memory for what is exchanged.
bool lf_team_start(lf_team *team, lf_error *err);

// Runs `steps` whole steps, from `row` of the schedule on, the first of them training step `step` (from 0). Their
// metrics go to `metrics` (steps, batch, LF_METRIC_COUNT): the rows of the shards of this process. Every replica has
// then made the same updates. LF_EDEVICE: no device is left.
bool lf_team_run(lf_team *team, uint64_t step, uint32_t row, uint32_t steps, float *metrics, lf_error *err);

// After a run: hands the shards out again, over the devices of all processes, if their measured speeds make it worth
// while. All call it. Where rows are read ahead, shards go to other processes by lf_team_turn alone.
bool lf_team_balance(lf_team *team, lf_error *err);

// Where rows are read ahead, before and after the next of them are taken, when the reading of others begins: the shards
// whose rows are to be read, first … first + count - 1; and this process's are now those whose rows were.
void lf_team_coming_shards(const lf_team *team, uint32_t *first, uint32_t *count);
bool lf_team_turn(lf_team *team, lf_error *err);

// After the last run, and what was read then: tells of the devices that were lost meanwhile.
void lf_team_end(lf_team *team);

// After a run of `steps` steps: the rows of `metrics` (steps, rows, LF_METRIC_COUNT) that other processes have. All
// call it. team_gather.c.
bool lf_team_gather(const lf_team *team, float *metrics, uint32_t steps, uint32_t rows, lf_error *err);

// Which of how many processes this is, and into how many shards a batch is cut.
void lf_team_place(const lf_team *team, uint32_t *rank, uint32_t *rank_count, uint32_t *shards);
// The shards of process `rank`: first … first + count - 1.
void lf_team_rank_shards(const lf_team *team, uint32_t rank, uint32_t *first, uint32_t *count);

unsigned lf_team_alive(const lf_team *team);                // devices that are not lost
double lf_team_busy(const lf_team *team, unsigned replica); // seconds that the device computed, since the start
double lf_team_waited(const lf_team *team);                 // seconds that exchanges took while no device computed

#endif
