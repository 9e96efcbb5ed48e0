// What the files of io/ share around HDF5: the lock, its errors by value, opening files and objects without surprises.
// Only io/ includes this. Unless said otherwise a function here expects its caller to be inside lf_h5_enter.
#ifndef LF_IO_H5_H
#define LF_IO_H5_H

#include <hdf5.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/hash.h"

// Begins the names of attributes that say where an object comes from, which is no part of its content.
#define LF_H5_PROVENANCE "provenance_"

// HDF5 may be built without locks of its own, so one lock of io/ surrounds every use. Not recursive. While it is held,
// HDF5 prints nothing on this thread; leaving gives the host program its own setting back.
typedef struct lf_h5_scope {
    H5E_auto2_t report;
    void *user;
} lf_h5_scope;
void lf_h5_enter(lf_h5_scope *scope);
void lf_h5_leave(const lf_h5_scope *scope);

// "text: HDF5's innermost message". Call it right after the failure: the next call into HDF5 forgets the message.
#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
void lf_h5_error(lf_error *err, lf_code code, const char *format, ...);

// Opens `path` for reading, and says whether it is missing, a folder, not HDF5 or cut short. Negative on failure.
hid_t lf_h5_file_open(const char *path, lf_error *err);

// True if the link is there, even if it leads nowhere or out of the file: opening then says so.
bool lf_h5_exists(hid_t file, const char *path);

// Opens a data set, not through external links. `access` is a data set access list, or H5P_DEFAULT. A message about a
// missing object lists what the file has. Negative on failure.
hid_t lf_h5_dataset_open(hid_t file, const char *file_name, const char *path, hid_t access, lf_error *err);
// The same for a group or a data set.
hid_t lf_h5_object_open(hid_t file, const char *file_name, const char *path, lf_error *err);

// "integer", "string", "compound", …
const char *lf_h5_type_name(hid_t type);

// Every filter of the data set can be undone here and its values lie in this file. `where` names it in messages.
bool lf_h5_storage_check(hid_t set, const char *where, lf_error *err);

// The file holds enough bytes for the data set's shape: a damaged or never written file can claim any shape at no cost.
bool lf_h5_written_check(hid_t set, const char *where, lf_error *err);

// The text of a scalar string data set or attribute, of fixed or variable length; free it. NULL on failure.
char *lf_h5_dataset_text(hid_t set, const char *where, lf_error *err);
char *lf_h5_attribute_text(hid_t object, const char *name, const char *where, lf_error *err);
// A scalar integer attribute.
bool lf_h5_attribute_u64(hid_t object, const char *name, const char *where, uint64_t *value, lf_error *err);

// `count` strings of a data set or attribute with type `type`, read by `read`, as one block to free: the pointers, then
// the texts. Fixed lengths lose their padding.
typedef bool lf_h5_read(hid_t object, hid_t memory_type, void *buffer);
bool lf_h5_read_dataset(hid_t object, hid_t memory_type, void *buffer);
bool lf_h5_read_attribute(hid_t object, hid_t memory_type, void *buffer);
char **lf_h5_texts(hid_t object, lf_h5_read *read, hid_t type, hid_t space, const char *where, lf_error *err);

// The objects at and below `root`, in name order, groups before what they hold. `names` are full paths.
typedef struct lf_h5_object {
    char *path;
    bool is_group;
} lf_h5_object;
typedef struct lf_h5_listing {
    lf_h5_object *objects;
    size_t count;
} lf_h5_listing;
bool lf_h5_list(hid_t file, const char *file_name, const char *root, lf_h5_listing *listing, lf_error *err);
void lf_h5_listing_finish(lf_h5_listing *listing);

// Hashes the logical content of an object and of everything below it, as lf_h5_digest does.
bool lf_h5_hash(lf_hash *hash, hid_t file, const char *file_name, const char *path, lf_error *err);

// Calls `visit` with the names of what a group holds, sorted. False when it is, or when they cannot be listed.
typedef bool lf_h5_visit_member(void *user, const char *name, lf_error *err);
bool lf_h5_each_member(hid_t group, lf_h5_visit_member *visit, void *user, lf_error *err);

// Names of the attributes of an object, sorted. Free each and the array.
char **lf_h5_attribute_names(hid_t object, size_t *count, lf_error *err);
void lf_h5_names_free(char **names, size_t count);

#endif
