#include "cpu/pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/denormal.h"

// A step is a row of short jobs, microseconds apart, so a thread that is out of work first spins, for some 50 µs. Then
// it offers its core to others for some milliseconds before it sleeps: who is woken may be put on the core of the one
// who wakes it, and waits there while that one spins.
#define SPINS  4000
#define YIELDS 4000

// A thread's own share of a job's blocks: the end of it in the upper half, the next one that nobody has claimed in the
// lower. One word, so that a claim is one addition and never mixes two jobs.
typedef struct cpu_share {
    _Alignas(64) _Atomic uint64_t ticket;
} cpu_share;

typedef struct cpu_worker {
    cpu_pool *pool;
    pthread_t thread;
    unsigned index; // of its share; the caller's is 0
} cpu_worker;

struct cpu_pool {
    _Alignas(64) _Atomic uint32_t jobs; // counts those published
    _Alignas(64) _Atomic uint32_t left; // blocks of the job that are not done
    // Written while left is 0, read only by those who hold a claim.
    _Alignas(64) cpu_pool_fn *fn;
    const void *context;

    cpu_share *shares; // [threads]
    unsigned threads;  // with the caller
    cpu_worker *workers;
    unsigned started; // workers

    _Atomic uint32_t sleepers; // workers that wait on `work`
    atomic_bool caller_sleeps; // on `done`
    atomic_bool stop;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
};

static inline void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static bool unclaimed(uint64_t ticket)
{
    return (uint32_t)ticket < ticket >> 32;
}

static void finish_block(cpu_pool *pool)
{
    if (atomic_fetch_sub(&pool->left, 1) == 1 && atomic_load(&pool->caller_sleeps)) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_signal(&pool->done);
        pthread_mutex_unlock(&pool->lock);
    }
}

// First the thread's own share, which is the same part of memory in job after job and so in its cache, then what is
// left of the others'.
static void run_blocks(cpu_pool *pool, unsigned self)
{
    for (unsigned i = 0; i < pool->threads; i++) {
        _Atomic uint64_t *share = &pool->shares[(self + i) % pool->threads].ticket;
        while (unclaimed(atomic_load(share))) {
            uint64_t ticket = atomic_fetch_add(share, 1);
            if (!unclaimed(ticket))
                break;
            pool->fn(pool->context, (uint32_t)ticket);
            finish_block(pool);
        }
    }
}

static bool idle(cpu_pool *pool, uint32_t seen)
{
    return atomic_load(&pool->jobs) == seen && !atomic_load(&pool->stop);
}

static bool unfinished(cpu_pool *pool, uint32_t seen)
{
    (void)seen;
    return atomic_load(&pool->left) != 0;
}

// Stays awake as long as it may pay, while `waits` says so.
static void stay_awake(bool (*waits)(cpu_pool *, uint32_t), cpu_pool *pool, uint32_t seen)
{
    for (unsigned i = 0; i < SPINS && waits(pool, seen); i++)
        pause_briefly();
    for (unsigned i = 0; i < YIELDS && waits(pool, seen); i++)
        sched_yield();
}

static void *work(void *argument)
{
    const cpu_worker *self = argument;
    cpu_pool *pool = self->pool;
    uint32_t seen = 0;
    cpu_denormals_flush();
    while (!atomic_load(&pool->stop)) {
        stay_awake(idle, pool, seen);
        if (idle(pool, seen)) {
            pthread_mutex_lock(&pool->lock);
            // Before the last look at `jobs`; who publishes one looks at both in the other order.
            atomic_fetch_add(&pool->sleepers, 1);
            while (idle(pool, seen))
                pthread_cond_wait(&pool->work, &pool->lock);
            atomic_fetch_sub(&pool->sleepers, 1);
            pthread_mutex_unlock(&pool->lock);
        }
        seen = atomic_load(&pool->jobs);
        run_blocks(pool, self->index);
    }
    return NULL;
}

// Hands out the blocks in order, an equal share to each thread.
static void publish(cpu_pool *pool, cpu_pool_fn *fn, const void *context, uint32_t blocks)
{
    pool->fn = fn;
    pool->context = context;
    atomic_store(&pool->left, blocks);
    uint64_t start = 0;
    for (unsigned i = 0; i < pool->threads; i++) {
        uint64_t end = ((uint64_t)blocks * (i + 1) + pool->threads - 1) / pool->threads;
        atomic_store(&pool->shares[i].ticket, end << 32 | start);
        start = end;
    }
    atomic_fetch_add(&pool->jobs, 1);
    if (atomic_load(&pool->sleepers) == 0)
        return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
}

void cpu_pool_run(cpu_pool *pool, cpu_pool_fn *fn, const void *context, uint32_t blocks)
{
    if (blocks <= 1 || pool->threads == 1) {
        for (uint32_t i = 0; i < blocks; i++)
            fn(context, i);
        return;
    }
    publish(pool, fn, context, blocks);
    run_blocks(pool, 0);

    stay_awake(unfinished, pool, 0);
    if (!unfinished(pool, 0))
        return;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->caller_sleeps, true);
    while (atomic_load(&pool->left))
        pthread_cond_wait(&pool->done, &pool->lock);
    atomic_store(&pool->caller_sleeps, false);
    pthread_mutex_unlock(&pool->lock);
}

static bool start_workers(cpu_pool *pool, lf_error *err)
{
    sigset_t all, before; // the host's signal handlers run on the host's threads
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int status = 0;
    while (pool->started + 1 < pool->threads && !status) {
        cpu_worker *worker = &pool->workers[pool->started];
        *worker = (cpu_worker){ .pool = pool, .index = pool->started + 1 };
        status = pthread_create(&worker->thread, NULL, work, worker);
        pool->started += !status;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (status)
        lf_error_set(err, LF_EDEVICE, "cpu: cannot start thread %u of %u: %s", pool->started + 2, pool->threads,
                     strerror(status));
    return !status;
}

cpu_pool *cpu_pool_create(unsigned threads, lf_error *err)
{
    cpu_pool *pool = aligned_alloc(_Alignof(cpu_pool), sizeof *pool);
    if (!pool) {
        lf_error_set(err, LF_ENOMEM, "cpu: out of memory for a pool of %u threads", threads);
        return NULL;
    }
    memset(pool, 0, sizeof *pool);
    pool->threads = threads;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->shares = aligned_alloc(_Alignof(cpu_share), threads * sizeof *pool->shares);
    pool->workers = calloc(threads, sizeof *pool->workers);
    if (!pool->shares || !pool->workers) {
        lf_error_set(err, LF_ENOMEM, "cpu: out of memory for a pool of %u threads", threads);
        goto error;
    }
    memset(pool->shares, 0, threads * sizeof *pool->shares);
    if (!start_workers(pool, err))
        goto error;
    return pool;
error:
    cpu_pool_destroy(pool);
    return NULL;
}

void cpu_pool_destroy(cpu_pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->stop, true);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    free(pool->workers);
    free(pool->shares);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}
