#include "train/shares.h"

#include <stdlib.h>
#include <string.h>

#include "program/program.h"
#include "ranks/ranks.h"
#include "train/hand_out.h"

bool lf_shares_init(lf_shares *s, uint32_t rank, uint32_t rank_count, uint32_t shards, const unsigned *devices,
                    bool even, lf_error *err)
{
    *s = (lf_shares){ .rank = rank, .rank_count = rank_count, .shards = shards };
    s->now = calloc(3 * (size_t)rank_count, sizeof *s->now);
    if (!s->now) {
        lf_error_set(err, LF_ENOMEM, "shares of %u processes: out of memory", rank_count);
        return false;
    }
    s->coming = s->now + rank_count;
    s->wanted = s->coming + rank_count;
    uint64_t all = 0, before = 0;
    for (uint32_t r = 0; r < rank_count; r++) {
        all += devices[r];
        s->most = devices[r] > s->most ? devices[r] : s->most;
    }
    s->speeds = calloc((size_t)(rank_count + 1) * s->most, sizeof *s->speeds);
    if (!s->speeds) {
        lf_error_set(err, LF_ENOMEM, "speeds of %u processes: out of memory", rank_count);
        return false;
    }
    s->fixed = even || shards <= rank_count;
    for (uint32_t r = 0; r < rank_count; r++) {
        uint64_t end = before + devices[r];
        s->now[r] = s->coming[r] = s->wanted[r] = (uint32_t)(shards * end / all - shards * before / all);
        before = end;
    }
    return true;
}

void lf_shares_finish(lf_shares *s)
{
    free(s->now);
    free(s->speeds);
    s->now = NULL;
    s->speeds = NULL;
}

void lf_shares_of(const uint32_t *list, uint32_t rank, uint32_t *first, uint32_t *count)
{
    *first = 0;
    for (uint32_t r = 0; r < rank; r++)
        *first += list[r];
    *count = list[rank];
}

// From the speeds of all, process after process, `most` of each.
static void decide(lf_shares *s, const lf_speed *speeds, uint64_t scatter)
{
    uint32_t held[LF_SHARDS_MAX] = { 0 }, best[LF_SHARDS_MAX], ranks[LF_SHARDS_MAX];
    double seconds[LF_SHARDS_MAX] = { 0 };
    unsigned count = 0;
    bool measured = true;
    for (size_t i = 0; i < (size_t)s->rank_count * s->most; i++) {
        if (!speeds[i].held)
            continue;
        ranks[count] = (uint32_t)(i / s->most);
        held[count] = speeds[i].held;
        seconds[count] = speeds[i].seconds;
        measured &= seconds[count++] > 0;
    }
    if (scatter) {
        unsigned owners[LF_SHARDS_MAX];
        memset(best, 0, sizeof best);
        lf_hand_out_scatter(s->shards, count, scatter, owners);
        for (uint32_t i = 0; i < s->shards; i++)
            best[owners[i]]++;
    } else if (measured) {
        lf_hand_out(s->shards, seconds, count, best);
        measured = lf_hand_out_is_worth(seconds, count, held, best);
    }
    if (!scatter && !measured)
        return;
    memset(s->wanted, 0, s->rank_count * sizeof *s->wanted);
    for (unsigned i = 0; i < count; i++)
        s->wanted[ranks[i]] += best[i];
}

bool lf_shares_decide(lf_shares *s, const lf_speed *speeds, unsigned count, uint64_t scatter, lf_error *err)
{
    lf_speed *own = s->speeds, *all = own + s->most;
    memset(own, 0, s->most * sizeof *own);
    memcpy(own, speeds, count * sizeof *own);
    if (!lf_ranks_gather(own, s->most * sizeof *own, all, err))
        return false;
    decide(s, all, scatter);
    return true;
}

bool lf_shares_turn(lf_shares *s, bool read_ahead)
{
    const uint32_t *next = read_ahead ? s->coming : s->wanted;
    size_t size = s->rank_count * sizeof *next;
    bool changed = memcmp(s->now, next, size) != 0;
    memcpy(s->now, next, size);
    memcpy(s->coming, s->wanted, size);
    return changed;
}
