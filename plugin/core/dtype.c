#include "core/dtype.h"

static const struct {
    const char *name;
    size_t size;
} types[] = {
    [LF_U8] = { "u8", 1 },   [LF_I8] = { "i8", 1 },   [LF_U16] = { "u16", 2 }, [LF_I16] = { "i16", 2 },
    [LF_U32] = { "u32", 4 }, [LF_I32] = { "i32", 4 }, [LF_F32] = { "f32", 4 }, [LF_F64] = { "f64", 8 },
};
_Static_assert(sizeof types / sizeof *types == LF_DTYPE_COUNT, "a row for each type");

size_t lf_dtype_size(lf_dtype type)
{
    return types[type].size;
}

const char *lf_dtype_name(lf_dtype type)
{
    return types[type].name;
}
