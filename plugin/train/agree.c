// Several processes of one training take every decision together: what one of them alone knows, a clock, a signal or a
// file, must not send them different ways.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ranks/ranks.h"
#include "train/hand_out.h"
#include "train/identity.h"
#include "train/training.h"

bool lf_training_share(const training *t, void *bytes, size_t size, lf_error *err)
{
    return t->rank_count <= 1 || lf_ranks_broadcast(bytes, size, err);
}

bool lf_training_decide(const training *t, bool *yes, lf_error *err)
{
    return lf_training_share(t, yes, sizeof *yes, err);
}

bool lf_training_any(const training *t, bool *yes, lf_error *err)
{
    bool own = *yes, ok = true;
    for (uint32_t r = 0; t->rank_count > 1 && ok && r < t->rank_count; r++) {
        bool told = own;
        ok = lf_ranks_broadcast_from(r, &told, sizeof told, err);
        *yes |= told;
    }
    return ok;
}

static void name_difference(const char *first, const char *other, uint32_t process, lf_error *err)
{
    size_t same = lf_train_options_difference(first, other);
    lf_error_set(err, LF_EARG, "process %u runs another training: it has %.*s, but process 0 has %.*s", process,
                 (int)strcspn(other + same, ","), other + same, (int)strcspn(first + same, ","), first + same);
}

bool lf_training_compare(const training *t, const char *options, lf_error *err)
{
    if (t->rank_count <= 1)
        return true;
    enum { SIZE = LF_TRAIN_OPTIONS + 512 };
    char own[SIZE] = "", first[SIZE] = "", told[SIZE];
    // Beside what makes the weights: what decides when all come together.
    const lf_train_params *p = t->p;
    snprintf(own, sizeof own,
             "%s, epochs %" PRIu64 ", max_steps %" PRIu64 ", patience %" PRIu64 ", digest_every %" PRIu64
             ", on_step_every %" PRIu64 ", checkpoint_every %" PRIu64
             ", checkpoint_seconds %g, checkpoint %d, replay %d, validation %d, even shards %d, hand-out %" PRIu64,
             options, p->epochs, p->max_steps, p->patience, p->digest_every, p->events.step ? p->step_every : 0,
             p->checkpoint_every, p->checkpoint_seconds, p->checkpoint != NULL, p->replay != NULL,
             p->validation != NULL, p->even_shards, lf_hand_out_seed());
    bool same = true;
    for (uint32_t r = 0; r < t->rank_count; r++) {
        memcpy(told, own, sizeof own);
        if (!lf_ranks_broadcast_from(r, told, sizeof told, err))
            return false;
        if (!r)
            memcpy(first, told, sizeof told);
        if (same && strcmp(first, told)) {
            name_difference(first, told, r, err);
            same = false;
        }
    }
    return same;
}

// A data set that one of them has settled by itself is settled by each, as far as it is not.
static bool settle(const training *t, lf_dataset *data, lf_error *err)
{
    const lf_sharing with = { t->rank, t->rank_count, lf_ranks_agree, lf_ranks_broadcast_from };
    bool settled = !data || lf_dataset_is_settled(data), alone = settled || t->rank_count <= 1;
    if (!lf_training_any(t, &alone, err))
        return false;
    return lf_ranks_agree(settled || lf_dataset_settle(data, alone ? NULL : &with, err), err);
}

bool lf_training_settle(const training *t, lf_error *err)
{
    return settle(t, t->p->data, err) && settle(t, t->p->validation, err);
}
