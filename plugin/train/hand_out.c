#include "train/hand_out.h"

#include <stdlib.h>

#include "core/random.h"

// What is gained by less is neither worth it nor measured well.
static const double WORTH = .9;

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

bool lf_hand_out_is_worth(const double *seconds, unsigned count, const uint32_t *now, const uint32_t *best)
{
    return lf_hand_out_seconds(seconds, count, best) <= WORTH * lf_hand_out_seconds(seconds, count, now);
}

uint64_t lf_hand_out_seed(void)
{
    const char *seed = getenv("LAVAFLOW_HAND_OUT");
    return seed ? strtoull(seed, NULL, 10) : 0;
}

void lf_hand_out_scatter(uint32_t shards, unsigned count, uint64_t seed, unsigned *owners)
{
    lf_permutation order = lf_permutation_make(seed, LF_STREAM_SHUFFLE, 0, shards);
    for (uint32_t i = 0; i < shards; i++) // each at least one
        owners[lf_permutation_at(&order, i)] =
            i < count ? i : (unsigned)(lf_uniform(seed, LF_STREAM_SHUFFLE, 1, i) * (float)count);
}
