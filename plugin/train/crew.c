#include "train/crew.h"

#include <pthread.h>
#include <stdlib.h>

typedef struct hand {
    lf_crew *crew;
    lf_member *member;
    pthread_t thread;
    bool started;
} hand;

struct lf_crew {
    hand *hands; // [count]
    unsigned count;
    lf_exchanger *exchanger;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    // Under `lock`.
    uint64_t runs;   // counts them
    uint64_t target; // steps
    unsigned working;
    bool quits;
};

static void work(lf_crew *crew, lf_member *m, uint64_t target)
{
    lf_member_outcome result = LF_MEMBER_DONE;
    while (result == LF_MEMBER_DONE && m->done < target) {
        result = lf_member_step(m, m->done);
        m->done += result == LF_MEMBER_DONE;
    }
    if (result == LF_MEMBER_FAILED)
        m->replica->lost = true; // seen by others once nobody works
    if (result != LF_MEMBER_DONE)
        lf_exchanger_stop(crew->exchanger);
}

static void *hand_main(void *user)
{
    const hand *self = user;
    lf_crew *crew = self->crew;
    pthread_mutex_lock(&crew->lock);
    for (uint64_t heard = 0;;) {
        while (!crew->quits && crew->runs == heard)
            pthread_cond_wait(&crew->changed, &crew->lock);
        if (crew->quits)
            break;
        heard = crew->runs;
        uint64_t target = crew->target;
        if (self->member->replica->lost) // not counted among those that work
            continue;
        pthread_mutex_unlock(&crew->lock);
        work(crew, self->member, target);
        pthread_mutex_lock(&crew->lock);
        crew->working--;
        pthread_cond_broadcast(&crew->changed);
    }
    pthread_mutex_unlock(&crew->lock);
    return NULL;
}

void lf_crew_run(lf_crew *crew, uint64_t target)
{
    pthread_mutex_lock(&crew->lock);
    crew->target = target;
    for (unsigned i = 0; i < crew->count; i++)
        crew->working += !crew->hands[i].member->replica->lost;
    crew->runs++;
    pthread_cond_broadcast(&crew->changed);
    while (crew->working)
        pthread_cond_wait(&crew->changed, &crew->lock);
    pthread_mutex_unlock(&crew->lock);
}

lf_crew *lf_crew_create(lf_member *members, unsigned count, lf_exchanger *exchanger, lf_error *err)
{
    lf_crew *crew = calloc(1, sizeof *crew);
    if (crew)
        crew->hands = calloc(count, sizeof *crew->hands);
    if (!crew || !crew->hands) {
        lf_error_set(err, LF_ENOMEM, "threads of %u devices: out of memory", count);
        free(crew);
        return NULL;
    }
    pthread_mutex_init(&crew->lock, NULL);
    pthread_cond_init(&crew->changed, NULL);
    crew->count = count;
    crew->exchanger = exchanger;
    for (unsigned i = 0; i < count; i++) {
        hand *h = &crew->hands[i];
        *h = (hand){ .crew = crew, .member = &members[i] };
        h->started = pthread_create(&h->thread, NULL, hand_main, h) == 0;
        if (!h->started) {
            lf_error_set(err, LF_ENOMEM, "%s: no memory for its thread", members[i].replica->device->info.id);
            lf_crew_destroy(crew);
            return NULL;
        }
    }
    return crew;
}

void lf_crew_destroy(lf_crew *crew)
{
    if (!crew)
        return;
    pthread_mutex_lock(&crew->lock);
    crew->quits = true;
    pthread_cond_broadcast(&crew->changed);
    pthread_mutex_unlock(&crew->lock);
    for (unsigned i = 0; i < crew->count; i++)
        if (crew->hands[i].started)
            pthread_join(crew->hands[i].thread, NULL);
    pthread_cond_destroy(&crew->changed);
    pthread_mutex_destroy(&crew->lock);
    free(crew->hands);
    free(crew);
}
