// Makes data set files from other formats. binding/ calls this for `lavaflow import`.
#ifndef LF_IO_IMPORT_H
#define LF_IO_IMPORT_H

#include <stdbool.h>

#include "core/error.h"

// The four IDX files of MNIST (train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-…; each plain or with .gz) in
// `folder` into a data set file (DESIGN 3) at `out`, written atomically: x u8 (rows, 28, 28) with scale 1/255, y u8.
bool lf_import_mnist(const char *folder, const char *out, lf_error *err);

#endif
