#include "train/exchange.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/tree.h"
#include "ranks/ranks.h"
#include "train/linked.h"

// Numbers that the last member to give adds up itself: another thread's waking would take longer.
enum { SMALL = 1 << 18 };

typedef struct sum {
    size_t size;
    float **parts;    // [part_count], each [size]
    float *total;     // [size]
    uint64_t done;    // steps whose total stood here; the last one's does
    unsigned given;   // members whose parts of the next one are there
    unsigned waiting; // members that have not taken the total yet
    bool kept;        // it was made on the devices, and now stands here too, for members that begin the step anew
} sum;

struct lf_exchanger {
    sum *sums;
    size_t sum_count;
    lf_member_part *parts; // of this process, ascending
    size_t part_count;
    lf_ranks_part *ranks; // of all processes, ascending; one per neighbourhood of a process's shards
    size_t rank_count;
    uint32_t process, process_count;
    bool fast;
    unsigned members;
    size_t next; // sum to be made
    lf_linked linked;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    bool started, adding, stopped, quits, failed; // under `lock`
    bool unlinked;                                // the link has failed, and the step is to be done again
    lf_error error;
};

// ---- adding up

// The parts of this process that lie in a neighbourhood, into the first one's memory.
static float *add_own(lf_exchanger *x, sum *s, uint32_t first, uint32_t count)
{
    lf_tree_part *list = calloc(x->part_count, sizeof *list);
    size_t length = 0, at = 0;
    for (size_t i = 0; list && i < x->part_count; i++) {
        if (x->parts[i].first < first || x->parts[i].first >= first + count)
            continue;
        if (!length)
            at = i;
        list[length++] = (lf_tree_part){ x->parts[i].first, x->parts[i].count, s->parts[i] };
    }
    if (list)
        lf_tree_sum(list, length, s->size);
    free(list);
    return list ? s->parts[at] : NULL;
}

static void swap_total(sum *s)
{
    float *total = s->parts[0];
    s->parts[0] = s->total;
    s->total = total;
}

static bool add_along_tree(lf_exchanger *x, sum *s, lf_error *err)
{
    bool ok = true;
    for (size_t i = 0; ok && i < x->rank_count; i++) {
        lf_ranks_part *part = &x->ranks[i];
        if (part->rank != x->process)
            continue;
        part->values = add_own(x, s, part->first, part->count);
        ok = part->values != NULL;
    }
    if (!ok)
        lf_error_set(err, LF_ENOMEM, "exchange: out of memory for %zu parts", x->part_count);
    else if (x->process_count > 1)
        ok = lf_ranks_sum(x->ranks, x->rank_count, s->total, s->size, err);
    else // the first part's memory holds it
        swap_total(s);
    return ok;
}

// What the parts of a member come to, in the memory of its first one.
static void add_of_member(lf_exchanger *x, sum *s, unsigned member)
{
    float *first = NULL;
    for (size_t i = 0; i < x->part_count; i++) {
        if (x->parts[i].member != member)
            continue;
        if (first)
            lf_tree_add(first, s->parts[i], s->size);
        else
            first = s->parts[i];
    }
}

static bool is_first_of_member(const lf_exchanger *x, size_t part)
{
    size_t i = 0;
    while (x->parts[i].member != x->parts[part].member)
        i++;
    return i == part;
}

static bool add_fast(lf_exchanger *x, sum *s, lf_error *err)
{
    for (size_t i = 1; i < x->part_count; i++)
        if (is_first_of_member(x, i))
            lf_tree_add(s->parts[0], s->parts[i], s->size);
    if (x->process_count > 1)
        return lf_ranks_add(s->parts[0], s->total, s->size, err);
    swap_total(s);
    return true;
}

static bool add_up(lf_exchanger *x, sum *s, bool *unlinked, lf_error *err)
{
    lf_linked_outcome linked = lf_linked_add(&x->linked, (size_t)(s - x->sums), s->size, x->fast, err);
    *unlinked = linked == LF_LINKED_FAILED;
    if (linked == LF_LINKED_NOT)
        return x->fast ? add_fast(x, s, err) : add_along_tree(x, s, err);
    return linked == LF_LINKED_DONE;
}

static bool is_ready(const lf_exchanger *x)
{
    return !x->failed && !x->unlinked && !x->adding && x->members && x->sum_count &&
           x->sums[x->next].given == x->members;
}

// The sum that is ready. Under the lock, which it leaves meanwhile.
static void make_next(lf_exchanger *x)
{
    sum *s = &x->sums[x->next];
    x->adding = true;
    pthread_mutex_unlock(&x->lock);
    bool unlinked, ok = add_up(x, s, &unlinked, &x->error);
    pthread_mutex_lock(&x->lock);
    x->adding = false;
    if (ok) {
        s->done++;
        s->given = 0;
        s->waiting = x->members;
        x->next = (x->next + 1) % x->sum_count;
    } else {
        x->unlinked = unlinked;
        x->failed = !unlinked;
        x->stopped = true;
    }
    pthread_cond_broadcast(&x->changed);
}

static void *exchange_main(void *user)
{
    lf_exchanger *x = user;
    pthread_mutex_lock(&x->lock);
    for (;;) {
        while (!x->quits && !is_ready(x))
            pthread_cond_wait(&x->changed, &x->lock);
        if (x->quits)
            break;
        make_next(x);
    }
    pthread_mutex_unlock(&x->lock);
    return NULL;
}

// ---- life

bool lf_exchanger_share(lf_exchanger *x, const uint32_t *shares, lf_error *err)
{
    uint32_t all = 0, first = 0;
    for (uint32_t p = 0; p < x->process_count; p++)
        all += shares[p];
    free(x->ranks);
    x->rank_count = 0;
    x->ranks = calloc(all, sizeof *x->ranks);
    if (!x->ranks)
        lf_error_set(err, LF_ENOMEM, "exchange: out of memory for %u shards", all);
    for (uint32_t p = 0; x->ranks && p < x->process_count; p++) {
        uint32_t end = first + shares[p];
        while (first < end) {
            uint32_t count = 1;
            while (first % (2 * count) == 0 && first + 2 * count <= end)
                count *= 2;
            x->ranks[x->rank_count++] = (lf_ranks_part){ .first = first, .count = count, .rank = p };
            first += count;
        }
    }
    return x->ranks != NULL;
}

lf_exchanger *lf_exchanger_create(const lf_exchanger_params *params, lf_error *err)
{
    lf_exchanger *x = calloc(1, sizeof *x);
    if (!x) {
        lf_error_set(err, LF_ENOMEM, "exchange: out of memory");
        return NULL;
    }
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->changed, NULL);
    x->process = params->process;
    x->process_count = params->process_count;
    x->fast = params->fast;
    x->linked.process = params->process;
    x->linked.process_count = params->process_count;
    x->sums = calloc(params->sum_count + 1, sizeof *x->sums);
    bool ok = x->sums && lf_exchanger_share(x, params->shares, err);
    for (size_t i = 0; ok && i < params->sum_count; i++) {
        x->sums[i].size = params->sizes[i];
        x->sums[i].total = calloc(params->sizes[i], sizeof(float));
        ok = x->sums[i].total != NULL;
        x->sum_count++;
    }
    if (!ok)
        lf_error_set(err, LF_ENOMEM, "exchange: out of memory for %zu sums", params->sum_count);
    else if (pthread_create(&x->thread, NULL, exchange_main, x) != 0)
        lf_error_set(err, LF_ENOMEM, "exchange: cannot start its thread");
    else
        x->started = true;
    if (x->started)
        return x;
    lf_exchanger_destroy(x);
    return NULL;
}

static void free_parts(lf_exchanger *x)
{
    for (size_t i = 0; i < x->sum_count; i++) {
        for (size_t p = 0; x->sums[i].parts && p < x->part_count; p++)
            free(x->sums[i].parts[p]);
        free(x->sums[i].parts);
        x->sums[i].parts = NULL;
    }
    free(x->parts);
    x->parts = NULL;
    x->part_count = 0;
}

void lf_exchanger_destroy(lf_exchanger *x)
{
    if (!x)
        return;
    if (x->started) {
        pthread_mutex_lock(&x->lock);
        x->quits = true;
        pthread_cond_broadcast(&x->changed);
        pthread_mutex_unlock(&x->lock);
        pthread_join(x->thread, NULL);
    }
    free_parts(x);
    lf_linked_finish(&x->linked);
    for (size_t i = 0; i < x->sum_count; i++)
        free(x->sums[i].total);
    free(x->sums);
    free(x->ranks);
    pthread_cond_destroy(&x->changed);
    pthread_mutex_destroy(&x->lock);
    free(x);
}

static bool make_parts(lf_exchanger *x, const lf_member_part *parts, size_t part_count)
{
    x->parts = calloc(part_count, sizeof *x->parts);
    if (!x->parts)
        return false;
    memcpy(x->parts, parts, part_count * sizeof *parts);
    x->part_count = part_count;
    for (size_t i = 0; i < x->sum_count; i++) {
        sum *s = &x->sums[i];
        s->parts = calloc(part_count, sizeof *s->parts);
        for (size_t p = 0; s->parts && p < part_count; p++) {
            s->parts[p] = malloc(s->size * sizeof(float));
            if (!s->parts[p])
                return false;
        }
        if (!s->parts)
            return false;
    }
    return true;
}

// The first replica that can be read will do: all have the same total.
static bool keep_total(sum *s, size_t index, const lf_replica *replicas, unsigned count, lf_error *err)
{
    for (unsigned i = 0; i < count && !s->kept; i++) {
        if (replicas[i].lost)
            continue;
        const lf_program *program = replicas[i].program;
        const lf_tensor *t = &program->tensors[program->exchanges[index].total];
        s->kept = lf_replica_read(&replicas[i], t->region, t->offset, s->total, s->size * sizeof(float), err);
    }
    return s->kept;
}

bool lf_exchanger_keep(lf_exchanger *x, const lf_replica *replicas, unsigned count, uint64_t steps, lf_error *err)
{
    bool ok = true;
    for (size_t i = 0; ok && i < x->sum_count; i++)
        if (x->sums[i].done > steps && lf_exchanger_is_linked(x, i))
            ok = keep_total(&x->sums[i], i, replicas, count, err);
    return ok;
}

bool lf_exchanger_plan(lf_exchanger *x, unsigned members, const lf_member_part *parts, size_t part_count,
                       uint64_t steps, lf_error *err)
{
    pthread_mutex_lock(&x->lock);
    free_parts(x);
    bool ok = make_parts(x, parts, part_count);
    x->members = members;
    x->stopped = x->unlinked = false;
    for (size_t i = 0; i < x->sum_count; i++) {
        x->sums[i].given = 0;
        x->sums[i].waiting = x->sums[i].done > steps ? members : 0;
    }
    pthread_mutex_unlock(&x->lock);
    if (!ok)
        lf_error_set(err, LF_ENOMEM, "exchange: out of memory for %zu parts of its sums", part_count);
    return ok;
}

void lf_exchanger_link(lf_exchanger *x, const lf_replica *replicas, unsigned count)
{
    lf_linked_plan(&x->linked, replicas, count);
}

bool lf_exchanger_meet(lf_exchanger *x, const lf_replica *replicas, unsigned count, lf_error *err)
{
    bool large = false;
    for (size_t i = 0; i < x->sum_count; i++)
        large |= lf_linked_is_large(x->sums[i].size);
    return x->process_count == 1 || !large || lf_linked_meet(&x->linked, replicas, count, err);
}

bool lf_exchanger_is_linked(const lf_exchanger *x, size_t index)
{
    return lf_linked_has(&x->linked, index) && !x->sums[index].kept;
}

// ---- what members do

float *lf_exchanger_part(lf_exchanger *x, size_t index, uint32_t first, uint64_t step, bool *stopped)
{
    sum *s = &x->sums[index];
    float *values = NULL;
    *stopped = false;
    pthread_mutex_lock(&x->lock);
    while (s->done == step && s->waiting && !x->stopped)
        pthread_cond_wait(&x->changed, &x->lock);
    if (s->done == step && s->waiting)
        *stopped = true;
    for (size_t i = 0; s->done == step && !s->waiting && i < x->part_count; i++)
        if (x->parts[i].first == first)
            values = s->parts[i];
    pthread_mutex_unlock(&x->lock);
    return values;
}

void lf_exchanger_give(lf_exchanger *x, size_t index, unsigned member)
{
    sum *s = &x->sums[index];
    if (x->fast && !lf_exchanger_is_linked(x, index))
        add_of_member(x, s, member);
    pthread_mutex_lock(&x->lock);
    s->given += !x->stopped; // else one might finish a step that another has given up
    bool small = s->size <= SMALL && x->process_count == 1;
    if (small && is_ready(x) && x->next == index)
        make_next(x);
    else
        pthread_cond_broadcast(&x->changed);
    pthread_mutex_unlock(&x->lock);
}

const float *lf_exchanger_total(lf_exchanger *x, size_t index, uint64_t step)
{
    sum *s = &x->sums[index];
    pthread_mutex_lock(&x->lock);
    // All parts are there: it will come.
    while (s->done == step && (!x->stopped || (s->given == x->members && !x->failed && !x->unlinked)))
        pthread_cond_wait(&x->changed, &x->lock);
    const float *total = s->done > step ? s->total : NULL;
    pthread_mutex_unlock(&x->lock);
    return total;
}

void lf_exchanger_take(lf_exchanger *x, size_t index)
{
    sum *s = &x->sums[index];
    pthread_mutex_lock(&x->lock);
    if (!--s->waiting)
        s->kept = false;
    pthread_cond_broadcast(&x->changed);
    pthread_mutex_unlock(&x->lock);
}

void lf_exchanger_stop(lf_exchanger *x)
{
    pthread_mutex_lock(&x->lock);
    x->stopped = true;
    pthread_cond_broadcast(&x->changed);
    pthread_mutex_unlock(&x->lock);
}

bool lf_exchanger_settle(lf_exchanger *x, lf_error *err)
{
    pthread_mutex_lock(&x->lock);
    while (x->adding || is_ready(x))
        pthread_cond_wait(&x->changed, &x->lock);
    bool ok = !x->failed;
    if (!ok)
        *err = x->error;
    pthread_mutex_unlock(&x->lock);
    return ok;
}
