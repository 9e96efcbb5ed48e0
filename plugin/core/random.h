// Random numbers as pure functions of (seed, stream, counter): no state, so a resume needs no history and every
// device can draw the same. Everyone may call.
#ifndef LF_CORE_RANDOM_H
#define LF_CORE_RANDOM_H

#include <stdint.h>

// What a number is drawn for. Streams never share numbers.
typedef enum lf_stream {
    LF_STREAM_INIT = 1,    // initial weights; `index` is the tensor's index in the model
    LF_STREAM_SHUFFLE = 2, // order of rows; `index` is the epoch
    LF_STREAM_SPLIT = 3,   // split of a data set by fractions
} lf_stream;

// Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
void lf_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

// Uniform in [0, 1) with 24 bits, for element `element` of (seed, stream, index).
float lf_uniform(uint64_t seed, lf_stream stream, uint32_t index, uint64_t element);
// Standard normal, by Box and Muller's transform.
float lf_normal(uint64_t seed, lf_stream stream, uint32_t index, uint64_t element);

// A pseudo-random order of 0 … count-1: a keyed Feistel network over the next power of two, walked until it lands
// inside (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
typedef struct lf_permutation {
    uint64_t count;
    uint32_t left_bits, right_bits;
    uint32_t keys[8];
} lf_permutation;

lf_permutation lf_permutation_make(uint64_t seed, lf_stream stream, uint32_t index, uint64_t count);
// The element at `position` (< count) of the order.
uint64_t lf_permutation_at(const lf_permutation *order, uint64_t position);

#endif
