// What a journal's writer and its reader share. Only io/ includes this.
#ifndef LF_IO_JOURNAL_H
#define LF_IO_JOURNAL_H

#include <stdbool.h>

#include "core/error.h"

// The file's first line; then records: a frame of the length, its complement and the crc32 of what follows (4 bytes
// each), then the kind (1), and what the call was given: numbers as 8 bytes, texts as a length and their bytes with the
// closing zero. All little-endian. By the complement a record is found behind a damaged one.
#define LF_JOURNAL_START "lavaflow journal 1\n"
extern const char lf_journal_head[];
enum { LF_JOURNAL_HEAD = sizeof LF_JOURNAL_START - 1, LF_JOURNAL_FRAME = 12 };

typedef enum lf_journal_kind {
    LF_JOURNAL_TEXT = 1,
    LF_JOURNAL_NUMBERS,
    LF_JOURNAL_GROUP,
    LF_JOURNAL_SERIES,
    LF_JOURNAL_DIGEST,
    LF_JOURNAL_REWIND,
    LF_JOURNAL_LOG,
    LF_JOURNAL_NOTE
} lf_journal_kind;

// Cuts off what is behind the last whole record of the file that `fd` may write, or all if its first line is torn.
bool lf_journal_trim(const char *path, int fd, lf_error *err);

#endif
