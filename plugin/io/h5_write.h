// Making HDF5 files: most are built in memory, then written in one piece. Only io/ includes this, inside lf_h5_enter.
// Nothing made here carries a time, so equal content gives equal bytes.
#ifndef LF_IO_H5_WRITE_H
#define LF_IO_H5_WRITE_H

#include "io/h5.h"

// A new file in memory. `size` is about how much it will hold, 0: unknown. Negative on failure.
hid_t lf_h5_memory_create(size_t size, lf_error *err);
// The file's bytes; free them.
void *lf_h5_memory_image(hid_t file, size_t *size, lf_error *err);

// What every file, group or data set made here has, set on its creation list.
bool lf_h5_prepare(hid_t list, bool is_group);

// A new data set whose values lie in one piece of the file, from byte `*offset`, and are not written yet: the caller
// writes them there. Missing groups are made.
bool lf_h5_reserve(hid_t at, const char *path, hid_t type, int rank, const hsize_t *dims, haddr_t *offset,
                   lf_error *err);

// Opens the group at `path` below `at`, and makes it and those above it where they are missing.
hid_t lf_h5_group_make(hid_t at, const char *path, lf_error *err);

// Data sets at `path` below `at`; missing groups are made and an older data set is replaced. `rank` 0: a scalar.
// lf_h5_write_series: one-dimensional, extendable, in chunks, deflated.
bool lf_h5_write_array(hid_t at, const char *path, hid_t file_type, hid_t memory_type, int rank, const hsize_t *dims,
                       const void *values, lf_error *err);
bool lf_h5_write_series(hid_t at, const char *path, hid_t file_type, hid_t memory_type, size_t count,
                        const void *values, lf_error *err);
bool lf_h5_write_text(hid_t at, const char *path, const char *text, lf_error *err);

// Attributes; an older one is replaced.
bool lf_h5_set_array(hid_t object, const char *name, hid_t file_type, hid_t memory_type, int rank, const hsize_t *dims,
                     const void *values, lf_error *err);
bool lf_h5_set_text(hid_t object, const char *name, const char *text, lf_error *err);
bool lf_h5_attributes_copy(hid_t from, hid_t to, lf_error *err); // all of an object's
bool lf_h5_set_texts(hid_t object, const char *name, size_t count, const char *const *texts, lf_error *err);

// Variable-length UTF-8, which h5py shows as str; close it. Negative on failure.
hid_t lf_h5_text_type(void);

// The same texts in fixed length, for files that must survive damage: HDF5 1.10 crashes on a damaged heap of
// variable-length values.
bool lf_h5_write_fixed_text(hid_t at, const char *path, const char *text, lf_error *err);
bool lf_h5_set_fixed_text(hid_t object, const char *name, const char *text, lf_error *err);

#endif
