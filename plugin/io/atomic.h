// Replaces a file so that a kill, a full disk or an error at any moment leaves the old complete file or the new one.
// Only io/ includes this.
#ifndef LF_IO_ATOMIC_H
#define LF_IO_ATOMIC_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

// Writes a temporary file `.<name>.<pid>.tmp` beside `path`, fsyncs it, renames it to `path` and fsyncs the folder. On
// failure `path` is as it was and the temporary file is gone. A killed writer's temporary file is removed by the next
// successful write of the same path. The new file keeps the old one's permissions; a symbolic link stays one.
bool lf_file_replace(const char *path, const void *bytes, size_t size, lf_error *err);

// The same in steps, for a file that is written piece by piece.
typedef struct lf_replacement lf_replacement;
lf_replacement *lf_replace_begin(const char *path, lf_error *err); // NULL on failure
int lf_replace_fd(const lf_replacement *file);                     // open for reading and writing; borrowed
bool lf_replace_finish(lf_replacement *file, lf_error *err);       // fsync and rename; frees in any case
void lf_replace_abandon(lf_replacement *file);                     // NULL is ignored

#endif
