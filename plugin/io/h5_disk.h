// HDF5 on a file that someone else opened, and whose errors are someone else's: HDF5 cannot give up a file that it
// fails to close (it crashes when the process ends), so it is told that all went well, and the first error is kept
// here. Only io/ includes this, inside lf_h5_enter.
#ifndef LF_IO_H5_DISK_H
#define LF_IO_H5_DISK_H

#include "io/h5.h"

typedef struct lf_h5_disk {
    int fd;         // open for reading and writing, borrowed
    bool followers; // for H5Fstart_swmr_write
    int error;      // errno of the first failure, after which nothing is written any more; 0: none
} lf_h5_disk;

// A new HDF5 file on an empty one. `disk` must outlive it. Negative on failure.
hid_t lf_h5_disk_create(lf_h5_disk *disk, lf_error *err);

// Writes all of `values` at a byte of the file. False with errno on failure.
bool lf_h5_disk_write(int fd, const void *values, size_t size, off_t at);

#endif
