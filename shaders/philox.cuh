// Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. The twin of
// lf_philox in core/random.h, with equal bits.
#ifndef LF_PHILOX_CUH
#define LF_PHILOX_CUH

#include "common.cuh"

struct lf_words {
    uint32_t at[4];
};

LF_INLINE lf_words lf_philox(lf_words c, uint32_t key_low, uint32_t key_high)
{
    for (unsigned round = 0; round < 10; round++) {
        uint64_t first = (uint64_t)0xD2511F53u * c.at[0], second = (uint64_t)0xCD9E8D57u * c.at[2];
        c = { { (uint32_t)(second >> 32) ^ c.at[1] ^ key_low, (uint32_t)second,
                (uint32_t)(first >> 32) ^ c.at[3] ^ key_high, (uint32_t)first } };
        key_low += 0x9E3779B9u;
        key_high += 0xBB67AE85u;
    }
    return c;
}

#endif
