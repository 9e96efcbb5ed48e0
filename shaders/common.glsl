// What every kernel shares: how operands are read and written.
//
// Binding numbers are the operand positions of program.h. A `storage` build reads and writes storage buffers. A `texel`
// build (LF_TEXEL) reads through storage texel buffers at LF_OPERAND_MAX + position, and writes storage buffers: lavapipe
// loads from storage buffers lane by lane in a loop, calls a function for each load from a uniform texel buffer, and has
// straight vector code for storage texel buffers. There the host chooses the view's format, so a pipeline may use
// LF_LOAD (one word an index) or LF_LOAD4 (four) of an operand, not both.
#extension GL_GOOGLE_include_directive : require
#include "abi.h"

#define LF_OPERAND_MAX 9

#ifdef LF_TEXEL
#define LF_READ_AS(slot, name, word, quad, image)                                           \
    layout(binding = LF_OPERAND_MAX + slot, word) readonly uniform image name##_view;       \
    layout(binding = LF_OPERAND_MAX + slot, quad) readonly uniform image name##_view4;
#define LF_READ(slot, name)       LF_READ_AS(slot, name, r32f, rgba32f, imageBuffer)
#define LF_READ_WORDS(slot, name) LF_READ_AS(slot, name, r32ui, rgba32ui, uimageBuffer)
#define LF_LOAD(name, at)         imageLoad(name##_view, int(at)).x
#define LF_LOAD4(name, at)        imageLoad(name##_view4, int(at))
#define LF_UPDATE(slot, name)     LF_READ(slot, name) LF_WRITE(slot, name)
#else
#define LF_READ_AS(slot, name, word, quad)                                                  \
    layout(binding = slot, std430) readonly buffer name##_read { word name##_view[]; };     \
    layout(binding = slot, std430) readonly buffer name##_read4 { quad name##_view4[]; };
#define LF_READ(slot, name)       LF_READ_AS(slot, name, float, vec4)
#define LF_READ_WORDS(slot, name) LF_READ_AS(slot, name, uint, uvec4)
#define LF_LOAD(name, at)         name##_view[at]
#define LF_LOAD4(name, at)        name##_view4[at]
#define LF_UPDATE(slot, name)                                                               \
    layout(binding = slot, std430) buffer name##_block { float name##_view[]; };            \
    layout(binding = slot, std430) buffer name##_block4 { vec4 name##_view4[]; };
#endif

#define LF_WRITE_AS(slot, name, quad)                                                       \
    layout(binding = slot, std430) writeonly buffer name##_write { float name##_out[]; };   \
    layout(binding = slot, std430) writeonly buffer name##_write4 { quad name##_out4[]; };
#define LF_STORE(name, at, value)  name##_out[at] = value
#ifdef LF_TEXEL // lavapipe stores lane by lane in a loop, word by word: half as many words of twice the size
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
u64vec2 lf_pairs(vec4 value)
{
    return u64vec2(packUint2x32(floatBitsToUint(value.xy)), packUint2x32(floatBitsToUint(value.zw)));
}
#define LF_WRITE(slot, name)       LF_WRITE_AS(slot, name, u64vec2)
#define LF_STORE4(name, at, value) name##_out4[at] = lf_pairs(value)
#else
#define LF_WRITE(slot, name)       LF_WRITE_AS(slot, name, vec4)
#define LF_STORE4(name, at, value) name##_out4[at] = value
#endif

// For operands declared by LF_UPDATE.
#ifdef LF_TEXEL
#define LF_REPLACE(name, at, value)  LF_STORE(name, at, value)
#define LF_REPLACE4(name, at, value) LF_STORE4(name, at, value)
#else
#define LF_REPLACE(name, at, value)  name##_view[at] = value
#define LF_REPLACE4(name, at, value) name##_view4[at] = value
#endif

// Words at, at + 1, … at + 3 of a matrix (rows, width), where `column` is the column of the first: one load if rows are
// multiples of four words, else one a word that never leaves the row.
#define LF_LOAD_QUAD(quads, name, at, column, width)                                        \
    (quads ? LF_LOAD4(name, (at) / 4)                                                       \
           : vec4(LF_LOAD(name, at), LF_LOAD(name, (at) + min(1u, (width) - 1 - (column))), \
                  LF_LOAD(name, (at) + min(2u, (width) - 1 - (column))),                    \
                  LF_LOAD(name, (at) + min(3u, (width) - 1 - (column)))))

// The counterparts for stores: words past the row's end are dropped.
#define LF_STORE_QUAD(quads, name, at, column, width, value)                                \
    LF_PUT_QUAD(LF_STORE, LF_STORE4, quads, name, at, column, width, value)
#define LF_REPLACE_QUAD(quads, name, at, column, width, value)                              \
    LF_PUT_QUAD(LF_REPLACE, LF_REPLACE4, quads, name, at, column, width, value)
#define LF_PUT_QUAD(put, put4, quads, name, at, column, width, value)                       \
    if (quads) {                                                                            \
        put4(name, (at) / 4, value);                                                        \
    } else {                                                                                \
        for (uint word_ = 0; word_ < 4; word_++)                                            \
            if ((column) + word_ < (width))                                                 \
                put(name, (at) + word_, (value)[word_]);                                    \
    }

// Declared before its first use: gl_WorkGroupSize is (1, 1, 1) until then.
layout(local_size_x_id = 0) in;

// This invocation's number in a dispatch that is folded into two dimensions.
uint lf_invocation()
{
    uint group = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
    return group * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
}
