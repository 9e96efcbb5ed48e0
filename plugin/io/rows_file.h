// A file of matrices (DESIGN 4's head: format, version, complete) that are written row after row: predictions, and what
// a teacher says of every row. It appears, or replaces an older one, when it is finished. train/ and binding/ call
// this.
#ifndef LF_IO_ROWS_FILE_H
#define LF_IO_ROWS_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/dtype.h"
#include "core/error.h"

// One thread at a time uses a file; different files do not disturb each other.
enum { LF_ROWS_MAJOR = 1, LF_ROWS_MINOR = 0 }; // version of every format that is written here

typedef struct lf_rows_file lf_rows_file;

// Begins a file that will stand at `path`; `format` becomes the attribute @format of the root. NULL on failure.
lf_rows_file *lf_rows_create(const char *path, const char *format, lf_error *err);
// A new object (rows, cols) of `type`, LF_F32 or LF_U32; cols 0: one-dimensional. Memory stays small whatever its size.
bool lf_rows_add(lf_rows_file *file, const char *object, lf_dtype type, uint64_t rows, uint32_t cols, lf_error *err);
// Rows first … first + count - 1 of an object, in any order of calls. A disk that is full is an error here, not later.
bool lf_rows_put(lf_rows_file *file, const char *object, uint64_t first, size_t count, const void *values,
                 lf_error *err);
// An attribute, "object@name" or "@name" of the root.
bool lf_rows_text(lf_rows_file *file, const char *path, const char *value, lf_error *err);
// Flushes, fsyncs and renames as lf_model_file_write does. An object that was given fewer rows than it has is an error.
// Frees in any case; after an error what stood at `path` stays.
bool lf_rows_finish(lf_rows_file *file, lf_error *err);
// Drops what was written, and frees; NULL is ignored. What stood at `path` stays.
void lf_rows_abandon(lf_rows_file *file);

// Reads an f32 object whole. False on failure; a file or object that is missing or of another shape or format too.
bool lf_rows_read(const char *path, const char *format, const char *object, uint64_t rows, uint32_t cols, float *values,
                  lf_error *err);
// An attribute's text, malloc'ed, or NULL where file, object or attribute are missing.
char *lf_rows_read_text(const char *path, const char *attribute);

#endif
