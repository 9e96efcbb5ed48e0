// Element types that data can have in memory. Everyone may include this.
#ifndef LF_CORE_DTYPE_H
#define LF_CORE_DTYPE_H

#include <stddef.h>

typedef enum lf_dtype {
    LF_U8,
    LF_I8,
    LF_U16,
    LF_I16,
    LF_U32,
    LF_I32,
    LF_F32,
    LF_F64, // only in programs compiled for the float64 oracle
    LF_DTYPE_COUNT,
} lf_dtype;

size_t lf_dtype_size(lf_dtype type);      // bytes of an element
const char *lf_dtype_name(lf_dtype type); // "u8", "f32", …

#endif
