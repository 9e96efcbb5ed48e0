#include "io/threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>

enum { MOST = 16 };

typedef struct job {
    void (*work)(void *user);
    void *user;
} job;

static void *thread_main(void *user)
{
    const job *todo = user;
    todo->work(todo->user);
    return NULL;
}

void lf_threads_run(void (*work)(void *user), void *user, unsigned more)
{
    pthread_t threads[MOST];
    unsigned started = 0;
    job todo = { work, user };
    sigset_t all, before; // signals are the host program's threads'
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (started < more && started < MOST && pthread_create(&threads[started], NULL, thread_main, &todo) == 0)
        started++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    work(user);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
}

unsigned lf_threads_count(void)
{
    const char *text = getenv("LAVAFLOW_THREADS");
    cpu_set_t set;
    long count = text ? strtol(text, NULL, 10) : 0;
    if (count < 1)
        count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return count < MOST ? (unsigned)count : MOST;
}

typedef struct slices {
    size_t count, slice;
    lf_slice_fn *work;
    void *user;
    pthread_mutex_t lock; // around what follows
    size_t next;          // item that nobody has taken
    size_t failed;        // first item of the lowest slice that failed; SIZE_MAX: none
    lf_error error;       // its
} slices;

static void work_slices(void *user)
{
    slices *s = user;
    for (;;) {
        pthread_mutex_lock(&s->lock);
        size_t first = s->failed < SIZE_MAX ? s->count : s->next, left = s->count - first;
        size_t count = left < s->slice ? left : s->slice;
        s->next = first + count;
        pthread_mutex_unlock(&s->lock);
        if (!count)
            return;
        lf_error err = { 0 };
        if (s->work(s->user, first, count, &err))
            continue;
        pthread_mutex_lock(&s->lock);
        if (first < s->failed) { // whichever thread was faster
            s->failed = first;
            s->error = err;
        }
        pthread_mutex_unlock(&s->lock);
    }
}

bool lf_threads_share(size_t count, size_t slice, lf_slice_fn *work, void *user, lf_error *err)
{
    const size_t parts = count / slice;
    const unsigned threads = parts > 1 ? lf_threads_count() : 1;
    if (threads == 1)
        return work(user, 0, count, err);
    slices s = { .count = count, .slice = slice, .work = work, .user = user, .failed = SIZE_MAX };
    pthread_mutex_init(&s.lock, NULL);
    lf_threads_run(work_slices, &s, (parts < threads ? (unsigned)parts : threads) - 1);
    pthread_mutex_destroy(&s.lock);
    if (s.failed < SIZE_MAX && err)
        *err = s.error;
    return s.failed == SIZE_MAX;
}
