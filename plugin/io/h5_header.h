// The head of the formats that are lavaflow's own: attributes format, format_version, creator, creator_version and,
// once the rest is written, complete = 1. Only io/ includes this, inside lf_h5_enter.
#ifndef LF_IO_H5_HEADER_H
#define LF_IO_H5_HEADER_H

#include "io/h5_write.h"

bool lf_h5_header_write(hid_t group, const char *format, int major, int minor, lf_error *err);
bool lf_h5_complete_write(hid_t group, lf_error *err);

// The root of `file` says this format and major version and is complete. `kind` names it in messages: "model file".
bool lf_h5_header_check(hid_t file, const char *path, const char *format, int major, const char *kind, lf_error *err);

#endif
