#include "io/threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
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
