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
    LF_STREAM_DROPOUT =
        4, // what dropout keeps; `index` is the layer's, and the training step is the counter's high word
} lf_stream;

// One round of Philox: what it makes of a counter, and the next round's key.
static inline void lf_philox_round(uint32_t counter[4], uint32_t key[2])
{
    uint64_t p0 = (uint64_t)0xD2511F53u * counter[0], p1 = (uint64_t)0xCD9E8D57u * counter[2];
    uint32_t n0 = (uint32_t)(p1 >> 32) ^ counter[1] ^ key[0], n2 = (uint32_t)(p0 >> 32) ^ counter[3] ^ key[1];
    counter[1] = (uint32_t)p1;
    counter[3] = (uint32_t)p0;
    counter[0] = n0;
    counter[2] = n2;
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
}

// Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Inline and without
// a loop, so that a loop over counters becomes a vector loop.
static inline void lf_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c[4] = { counter[0], counter[1], counter[2], counter[3] }, k[2] = { key[0], key[1] };
    lf_philox_round(c, k), lf_philox_round(c, k), lf_philox_round(c, k), lf_philox_round(c, k), lf_philox_round(c, k);
    lf_philox_round(c, k), lf_philox_round(c, k), lf_philox_round(c, k), lf_philox_round(c, k), lf_philox_round(c, k);
    out[0] = c[0];
    out[1] = c[1];
    out[2] = c[2];
    out[3] = c[3];
}

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
