// What writing and reading a model file share, and run files reuse. Only io/ includes this.
#ifndef LF_IO_MODEL_CONTENT_H
#define LF_IO_MODEL_CONTENT_H

#include "io/h5_write.h"
#include "io/model_file.h"

#define LF_MODEL_RUN    LF_H5_PROVENANCE "run" // attribute
#define LF_MODEL_FORMAT "lavaflow-model"
enum { LF_MODEL_MAJOR = 1, LF_MODEL_MINOR = 0 };

// A definition longer than this is a data set: attributes of all kinds of files stay under 64 KiB.
enum { LF_MODEL_DEFINITION_MAX = 60000 };

// sha256 over everything that a load uses: definition, the tensors' digest, optimizer, state and moments.
bool lf_model_content_digest(const lf_model_file *file, char hex[65], lf_error *err);

// Writes a model file's content below an open group: "/" of a model file, a result of a run. Fills file->digest.
// Inside lf_h5_enter.
bool lf_model_content_write(hid_t group, lf_model_file *file, lf_error *err);

#endif
