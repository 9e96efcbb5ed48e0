// Locks between processes that the system drops when their holders end, however they end. binding/ calls this.
#ifndef LF_IO_FILE_LOCK_H
#define LF_IO_FILE_LOCK_H

#include <stdbool.h>

#include "core/error.h"

// Opens the file, making it if need be, and locks it for this process and the children that get its descriptor (flock).
// Waits for nothing: where another process holds it, *busy is true and the result -1 without an error. The holder's
// process number, host and start stand in the file, for messages.
int lf_file_lock(const char *path, bool *busy, lf_error *err);
void lf_file_unlock(int fd); // the file stays, for whoever waits for it; negative ones are ignored

#endif
