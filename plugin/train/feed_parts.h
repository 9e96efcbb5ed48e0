// What the files that make up a feed share. Only they include this.
#ifndef LF_TRAIN_FEED_PARTS_H
#define LF_TRAIN_FEED_PARTS_H

#include <pthread.h>

#include "train/feed.h"

struct lf_feed {
    lf_feed_params p;
    const lf_part *part;
    uint32_t stretch_rows; // at most; whole batches, unless a pass is shorter
    bool resident;
    size_t teacher_width;    // with a teacher
    uint64_t pass, position; // of the next stretch that lf_feed_next gives
    uint32_t *order;         // [stretch_rows]
    float *weights;          // [stretch_rows]: by position of the stretch on the device; NULL without weights
    float *own_weights;      // [stretch_rows]: the same, 0 where the row is another process's; NULL where none is
    float *w;                // by row of the data region; NULL without weights

    // The rest is for a window, and counts in slots of stretch_rows rows: one, or, where the host reads straight into
    // the device's memory, two and more, so that one is read into while another is trained on.
    uint32_t slots, slot; // how many; that of the next stretch
    uint32_t ready;       // stretches that have been read, from the next one on
    bool direct, full;    // into the device's memory; which computes on every core that there is
    bool waited;          // the last reading, mostly for the file
    uint32_t count;       // rows of it
    uint32_t first, end;  // of a batch: those of this process in it
    uint64_t *rows;       // [slots * stretch_rows]: of the part, by place in the slot; one slot if `resident`
    uint32_t *place;      // [slots * stretch_rows]: in the slot, by position
    unsigned char *x, *y; // [slots * stretch_rows], borrowed if `direct`, as `w` and `teacher` are
    float *teacher;       // [slots * stretch_rows * teacher_width]; NULL without a teacher
    pthread_t reader;
    bool reader_started;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum { READER_IDLE, READER_READS, READER_DONE, READER_FAILED, READER_QUITS } state; // under `lock`
    lf_error reader_error;
};

// Whether the row at a position of a pass is this process's.
bool lf_feed_is_own(const lf_feed *feed, uint64_t position);
// Rows of the stretch at a position, and the place of the one after it.
uint32_t lf_feed_stretch_rows(const lf_feed *feed, uint64_t position);
void lf_feed_advance(const lf_feed *feed, uint64_t *pass, uint64_t *position);

// Targets and weights that were read become those that the device takes. `first` and `numbers`: which rows they are;
// without `numbers`, consecutive ones.
bool lf_feed_settle(const lf_feed *feed, const lf_rows_out *rows, uint64_t first, const uint64_t *numbers, size_t count,
                    lf_error *err);
// To row `at` and those after it, on all devices.
bool lf_feed_write(lf_feed *feed, uint32_t at, const lf_rows_out *rows, size_t count, lf_error *err);
bool lf_feed_write_teacher(lf_feed *feed, const float *outputs, uint64_t count, lf_error *err);
bool lf_feed_agree(const lf_feed_params *p, bool ok, lf_error *err);

// upload.c: all rows to the devices. `ok`: nothing has failed before.
bool lf_feed_upload(lf_feed *feed, bool ok, lf_error *err);

// window.c
bool lf_feed_window_open(lf_feed *feed, lf_error *err);
void lf_feed_window_close(lf_feed *feed); // also what was not opened
// The next stretch is on the devices then, and `order` says where.
bool lf_feed_window_take(lf_feed *feed, lf_error *err);
// It is the caller's; what it was read to may be read to again, as far as it is not the devices'.
void lf_feed_window_leave(lf_feed *feed);

#endif
