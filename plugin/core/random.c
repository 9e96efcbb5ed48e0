#include "core/random.h"

#include <math.h>

static void draw(uint64_t seed, lf_stream stream, uint32_t index, uint64_t block, uint32_t out[4])
{
    const uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
    const uint32_t counter[4] = { (uint32_t)block, (uint32_t)(block >> 32), index, (uint32_t)stream };
    lf_philox(counter, key, out);
}

float lf_uniform(uint64_t seed, lf_stream stream, uint32_t index, uint64_t element)
{
    uint32_t words[4];
    draw(seed, stream, index, element / 4, words);
    return (float)(words[element % 4] >> 8) * 0x1p-24f;
}

float lf_normal(uint64_t seed, lf_stream stream, uint32_t index, uint64_t element)
{
    uint32_t words[4];
    draw(seed, stream, index, element / 2, words);
    const uint32_t *pair = words + 2 * (element % 2);
    double radius = sqrt(-2.0 * log(((double)pair[0] + 1.0) * 0x1p-32)); // of (0, 1], so that the log is finite
    return (float)(radius * cos(6.283185307179586 * (double)pair[1] * 0x1p-32));
}

lf_permutation lf_permutation_make(uint64_t seed, lf_stream stream, uint32_t index, uint64_t count)
{
    lf_permutation order = { .count = count };
    uint32_t bits = 2; // at least one bit a half
    while (bits < 64 && (count - 1) >> bits)
        bits++;
    order.right_bits = bits / 2;
    order.left_bits = bits - order.right_bits;
    draw(seed, stream, index, 0, order.keys);
    draw(seed, stream, index, 1, order.keys + 4);
    return order;
}

// Any function of (half, key) makes a Feistel network a permutation; this one mixes well (a multiply-xorshift hash).
static uint32_t round_function(uint32_t half, uint32_t key)
{
    uint32_t h = half * 0x9E3779B1u + key;
    h ^= h >> 16;
    h *= 0x85EBCA6Bu;
    h ^= h >> 13;
    h *= 0xC2B2AE35u;
    return h ^ h >> 16;
}

uint64_t lf_permutation_at(const lf_permutation *order, uint64_t position)
{
    const uint64_t left_mask = (1ull << order->left_bits) - 1, right_mask = (1ull << order->right_bits) - 1;
    uint64_t value = position;
    do {
        uint64_t left = value >> order->right_bits, right = value & right_mask;
        for (int i = 0; i < 8; i += 2) {
            left ^= round_function((uint32_t)right, order->keys[i]) & left_mask;
            right ^= round_function((uint32_t)left, order->keys[i + 1]) & right_mask;
        }
        value = left << order->right_bits | right;
    } while (value >= order->count);
    return value;
}
