// Brings the rows of a part to the devices of a session: all of them once, or, when they do not fit, through a window.
// A reader thread fills it from the file while the device computes, or, where the device computes on every core of this
// machine, all threads do in between. Either way the device sees the same rows in the
// same order. session.c calls this.
#ifndef LF_TRAIN_FEED_H
#define LF_TRAIN_FEED_H

#include <stdbool.h>
#include <stdint.h>

#include "io/dataset.h"
#include "train/replica.h"

typedef struct lf_feed lf_feed;

// Bytes of one row on the device.
typedef struct lf_row_bytes {
    uint64_t x, y, w, teacher; // y, w and teacher 0: there are none
} lf_row_bytes;
uint64_t lf_row_bytes_sum(lf_row_bytes row);

typedef struct lf_feed_params {
    lf_dataset *data; // borrowed
    lf_part_id part;
    lf_row_bytes row;
    bool numbers;               // class numbers become values f32: the loss is one of values
    bool unit_targets;          // values of targets must be in 0..1
    const float *class_weights; // [classes], borrowed: a row's weight is multiplied by its class's; NULL: none
    uint32_t unit;              // rows that stay together in a stretch: those of an update
    uint32_t window;            // lf_feed_window's, or less: another process's
    const lf_program *program;  // used while creating; its rows and positions are those of the data region, which is
                                // lf_feed_region's, and the most of a stretch
    lf_replica *replicas;       // [replica_count], borrowed; `order`, `data` and `targets` of each are written
    unsigned replica_count;
    const float *teacher; // (rows of the part, outputs), borrowed, for the `teacher` region; NULL: none
    // Where rows are read for the shards of this process alone: `first` … end - 1 of each `batch` of a pass; end 0:
    // all. Weights of all rows are then told by those who read them.
    uint32_t batch, first, end;
    // Processes that train together, more than one: what lies on all their devices is read once, each reads a part of
    // it. All create their feeds at the same time then, with equal windows.
    uint32_t rank, rank_count;
    bool shuffle;
    uint64_t seed;           // with shuffle: the order of a pass is a function of (seed, pass, position)
    uint64_t pass, position; // where to start
    uint64_t passes;         // after pass number passes - 1, nothing is read ahead any more
} lf_feed_params;

// Consecutive positions of a pass that are on the device now; position `position + i` stands at order[i].
typedef struct lf_stretch {
    uint64_t pass, position;
    uint32_t rows;
    const float *weights; // by position, with lf_row_bytes.w; valid until the next stretch; else NULL
} lf_stretch;

// The rows of a window: all, or, if they take more than `budget` bytes or than the device can bind, as many whole units
// as keep the window on the device and the one being read within the budget.
// 0 when not even one unit fits.
uint32_t lf_feed_window(uint64_t rows, lf_row_bytes row, uint32_t unit, uint64_t budget, uint64_t max_tensor);

// The rows of the data region for such a window: twice as many where what is being read lies there too.
uint32_t lf_feed_region(uint64_t rows, uint32_t window, const lf_device *device, unsigned count);

// The rows at consecutive positions of a pass.
void lf_feed_rows(const lf_part *part, bool shuffle, uint64_t seed, uint64_t pass, uint64_t position, uint32_t count,
                  uint64_t *rows);

lf_feed *lf_feed_create(const lf_feed_params *params, lf_error *err);
void lf_feed_destroy(lf_feed *feed);

// The rows of this process, from the stretch on that follows the next one, which is being read.
void lf_feed_own(lf_feed *feed, uint32_t first, uint32_t end);

// Waits for the next stretch and writes it to the devices, which must be idle. Passes follow each other without end.
bool lf_feed_next(lf_feed *feed, lf_stretch *stretch, lf_error *err);

#endif
