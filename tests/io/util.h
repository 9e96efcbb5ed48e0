// What the tests of io/ share: a folder of their own, HDF5 files made by hand, errors compared.
#ifndef LF_TEST_IO_UTIL_H
#define LF_TEST_IO_UTIL_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <hdf5.h>

#include "core/error.h"
#include "io/dataset.h"
#include "io/model_file.h"
#include "io/run_file.h"

// Group setup and teardown: a new temporary folder, removed with everything in it.
int folder_make(void **state);
int folder_remove(void **state);
const char *folder(void);
// A path in it; one of 16 buffers that are used in turn.
const char *in_folder(const char *name);
// Entries in a folder whose name contains `text`.
int entries_with(const char *path, const char *text);

char *file_bytes(const char *path, size_t *size); // NULL if it cannot be read; free it
void file_put(const char *path, const void *bytes, size_t size);

typedef struct layout {
    const char *name;
    hsize_t chunk[4]; // all 0: contiguous
    bool compact, deflate, shuffle, checksum, szip;
} layout;

hid_t h5_make(const char *path); // a new file at `path`
void h5_put(hid_t file, const char *path, hid_t type, hid_t memory_type, int rank, const hsize_t *dims,
            const layout *shape, const void *values);
void h5_attribute(hid_t file, const char *path, const char *name, hid_t type, hid_t memory_type, int rank,
                  const hsize_t *dims, const void *values);
void h5_attribute_texts(hid_t file, const char *path, const char *name, size_t count, const char *const *texts);
hid_t h5_half(void); // IEEE half precision; close it

// A file with /train/x (rows, columns) u8 of (7 row + 3 column) and /train/y u8 of row % 10.
void small_dataset(const char *path, hsize_t rows, hsize_t columns);

lf_dataset *open_file(const char *path);                                   // standard layout, must succeed
void refused(const lf_dataset_spec *spec, lf_code code, const char *text); // opening fails with this in its message
#define assert_says(err, wanted_code, wanted) says(&(err), wanted_code, wanted, __FILE__, __LINE__)
void says(const lf_error *err, lf_code code, const char *wanted, const char *file, int line);

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        if (!(call))                                                                                                   \
            fail_msg("%s", err.text);                                                                                  \
    } while (0)

// A walk as text: "path kind shape values" a line.
typedef struct listing {
    char text[1 << 18];
    size_t used, nodes, stop_after;
} listing;
bool list_node(void *user, const lf_h5_node *node);                    // user: a listing
const listing *walk(const char *path, const char *root, size_t limit); // must succeed; valid until the next one
void assert_lists(const char *path, const char *line);

// A model of two layers with values from `seed`; with state, a checkpoint. Free with lf_model_file_destroy.
lf_model_file *sample_model(unsigned seed, bool with_state);
bool models_equal(const lf_model_file *a, const lf_model_file *b);

#endif
