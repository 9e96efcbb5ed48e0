// What the tests of files of rows share.
#ifndef LF_TEST_IO_ROWS_H
#define LF_TEST_IO_ROWS_H

#include "util.h"

#include "io/rows_file.h"

enum { ROWS = 50, COLS = 3 };
#define FORMAT "lavaflow-predictions"

// Rows `first` … of a matrix whose values say where they are.
static inline const float *sample(float seed, uint64_t first, size_t count)
{
    static float values[ROWS * COLS];
    for (size_t i = 0; i < count * COLS; i++)
        values[i] = seed + (float)(first * COLS + i) / 1024;
    return values;
}

static inline lf_rows_file *begin(const char *path)
{
    lf_error err = { 0 };
    lf_rows_file *file = lf_rows_create(path, FORMAT, &err);
    if (!file)
        fail_msg("%s", err.text);
    return file;
}

// A whole file at `path`.
static inline void put_file(const char *path, float seed)
{
    lf_error err = { 0 };
    lf_rows_file *file = begin(path);
    OK(lf_rows_add(file, "logits", LF_F32, ROWS, COLS, &err));
    OK(lf_rows_put(file, "logits", 0, ROWS, sample(seed, 0, ROWS), &err));
    OK(lf_rows_finish(file, &err));
}

static inline void assert_holds(const char *path, float seed)
{
    lf_error err = { 0 };
    float got[ROWS * COLS];
    OK(lf_rows_read(path, FORMAT, "logits", ROWS, COLS, got, &err));
    assert_memory_equal(got, sample(seed, 0, ROWS), sizeof got);
}

#endif
