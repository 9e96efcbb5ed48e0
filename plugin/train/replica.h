// A program on one device: its memory and its lowered form. Devices that train together hold equal params, moments and
// statistics, each in its replica; they differ in the shards that their programs are for. session.c and team.c call
// this.
#ifndef LF_TRAIN_REPLICA_H
#define LF_TRAIN_REPLICA_H

#include "device/device.h"

typedef struct lf_replica {
    lf_device *device; // borrowed
    lf_program *program;
    lf_bindings regions;
    bool owned[LF_REGION_COUNT];
    lf_exec *exec;
    bool lost;      // the device failed; nothing is written to it or read from it any more
    lf_error error; // what it failed with
} lf_replica;

// Takes the program, also on failure. `weights`: whose params, or their average, and state are used; NULL: its own.
bool lf_replica_init(lf_replica *replica, lf_device *device, lf_program *program, const lf_replica *weights,
                     lf_error *err);
void lf_replica_finish(lf_replica *replica);

// Another program, which differs in the shards that it holds; takes it, also on failure. What the shards share stays.
bool lf_replica_change(lf_replica *replica, lf_program *program, lf_error *err);

// What training changes, from `first` to the others that are not lost, and with several processes from the first one's.
// Devices of different kinds round differently, and would drift apart; others hold equal bits already.
bool lf_replicas_equalise(lf_replica *replicas, unsigned count, unsigned first, bool processes, lf_error *err);
bool lf_replicas_differ(const lf_replica *replicas, unsigned count); // in kind

// After a failure of one: whether others are left to go on without it, which it then is lost for.
bool lf_replicas_lose(lf_replica *replicas, unsigned count, unsigned which, const lf_error *err);

// To all that are not lost. One whose device fails is lost then, unless it is the last.
bool lf_replicas_write(lf_replica *replicas, unsigned count, lf_region region, size_t offset, const void *bytes,
                       size_t size, lf_error *err);

bool lf_replica_write(lf_replica *replica, lf_region region, size_t offset, const void *bytes, size_t size,
                      lf_error *err);
bool lf_replica_read(const lf_replica *replica, lf_region region, size_t offset, void *bytes, size_t size,
                     lf_error *err);

#endif
