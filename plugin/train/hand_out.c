#include "train/hand_out.h"

#include "core/random.h"

void lf_hand_out(uint32_t shards, const double *seconds, unsigned count, uint32_t *counts)
{
    for (unsigned i = 0; i < count; i++)
        counts[i] = 1;
    for (uint32_t left = shards - count; left; left--) {
        unsigned best = 0; // would be done first with one more
        for (unsigned i = 1; i < count; i++)
            if (seconds[i] * (counts[i] + 1) < seconds[best] * (counts[best] + 1))
                best = i;
        counts[best]++;
    }
}

double lf_hand_out_seconds(const double *seconds, unsigned count, const uint32_t *counts)
{
    double most = 0;
    for (unsigned i = 0; i < count; i++)
        if (seconds[i] * counts[i] > most)
            most = seconds[i] * counts[i];
    return most;
}

void lf_hand_out_scatter(uint32_t shards, unsigned count, uint64_t seed, unsigned *owners)
{
    lf_permutation order = lf_permutation_make(seed, LF_STREAM_SHUFFLE, 0, shards);
    for (uint32_t i = 0; i < shards; i++) // each at least one
        owners[lf_permutation_at(&order, i)] =
            i < count ? i : (unsigned)(lf_uniform(seed, LF_STREAM_SHUFFLE, 1, i) * (float)count);
}
