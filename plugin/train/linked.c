#include "train/linked.h"

#include <stdlib.h>

#include "core/log.h"
#include "ranks/ranks.h"

// Numbers below which the host is as fast.
enum { LEAST = 1 << 16 };

bool lf_linked_is_large(size_t size)
{
    return size >= LEAST;
}

void lf_linked_forget(lf_linked *l)
{
    for (size_t i = 0; i < l->sum_count; i++)
        free(l->sums[i].parts);
    free(l->sums);
    l->sums = NULL;
    l->sum_count = 0;
}

void lf_linked_cut(lf_linked *l)
{
    lf_link_destroy(l->link);
    free(l->devices);
    l->link = NULL;
    l->devices = NULL;
    l->device_count = 0;
}

void lf_linked_finish(lf_linked *l)
{
    lf_linked_forget(l);
    lf_linked_cut(l);
}

// ---- listing

static int by_shard(const void *a, const void *b)
{
    const lf_link_part *left = a, *right = b;
    return left->first < right->first ? -1 : left->first > right->first;
}

unsigned lf_linked_alive(const lf_replica *replicas, unsigned count)
{
    unsigned alive = 0;
    for (unsigned i = 0; i < count; i++)
        alive += !replicas[i].lost;
    return alive;
}

// The parts of one sum on all devices. True where they are large enough, and memory is there.
static bool list_parts(lf_linked_sum_parts *sum, const lf_replica *replicas, unsigned count, size_t index,
                       unsigned first, const lf_linked_others *others)
{
    size_t most = others->count;
    for (unsigned i = 0; i < count; i++)
        most += replicas[i].lost ? 0 : replicas[i].program->exchanges[index].part_count;
    for (unsigned i = 0, device = first; i < count; i++) {
        const lf_program *program = replicas[i].program;
        if (replicas[i].lost)
            continue;
        const lf_exchange *e = &program->exchanges[index];
        sum->size = lf_tensor_bytes(&program->tensors[e->total]) / sizeof(float);
        if (!sum->parts && lf_linked_is_large(sum->size) && program->real == LF_F32)
            sum->parts = calloc(most, sizeof *sum->parts);
        for (size_t p = 0; sum->parts && p < e->part_count; p++) {
            const lf_tensor *tensor = &program->tensors[e->parts[p].tensor];
            sum->parts[sum->count++] = (lf_link_part){ .device = device,
                                                       .first = e->parts[p].first,
                                                       .count = e->parts[p].count,
                                                       .buffer = replicas[i].regions.region[tensor->region],
                                                       .offset = tensor->offset };
        }
        device++;
    }
    for (size_t p = 0; sum->parts && p < others->count; p++)
        sum->parts[sum->count++] = others->parts[p];
    if (sum->parts)
        qsort(sum->parts, sum->count, sizeof *sum->parts, by_shard);
    return sum->parts;
}

bool lf_linked_list(lf_linked *l, const lf_replica *replicas, unsigned count, unsigned first,
                    const lf_linked_others *others)
{
    bool any = false;
    unsigned some = 0;
    while (replicas[some].lost)
        some++;
    l->sum_count = replicas[some].program->exchange_count;
    l->sums = calloc(l->sum_count + 1, sizeof *l->sums);
    if (!l->sums)
        l->sum_count = 0;
    for (size_t i = 0; i < l->sum_count; i++)
        any |= list_parts(&l->sums[i], replicas, count, i, first, others);
    return any;
}

// ---- linking

bool lf_linked_take_devices(lf_linked *l, const lf_replica *replicas, unsigned count)
{
    l->devices = calloc(lf_linked_alive(replicas, count), sizeof *l->devices);
    for (unsigned i = 0; l->devices && i < count; i++)
        if (!replicas[i].lost)
            l->devices[l->device_count++] = replicas[i].device;
    return l->devices;
}

// A link takes seconds to make, so it stays as long as its devices do.
static bool link_devices(lf_linked *l, const lf_replica *replicas, unsigned count, unsigned alive)
{
    lf_error err;
    if (l->link && l->device_count == alive)
        return true;
    lf_linked_cut(l);
    if (lf_linked_take_devices(l, replicas, count))
        l->link = lf_link_create(l->devices, alive, NULL, &err);
    if (l->link)
        return true;
    if (l->devices)
        lf_log(LF_LOG_DEBUG, "devices exchange through the host: %s", err.text);
    lf_linked_cut(l);
    l->failed = alive;
    return false;
}

void lf_linked_plan(lf_linked *l, const lf_replica *replicas, unsigned count)
{
    const unsigned alive = lf_linked_alive(replicas, count);
    lf_linked_forget(l);
    l->met = false;
    if (l->process_count > 1)
        return;
    if (l->failed && l->device_count >= l->failed)
        lf_linked_cut(l);
    if (alive < 2 || (l->failed && alive >= l->failed) ||
        !lf_linked_list(l, replicas, count, 0, &(lf_linked_others){ 0 }) || !link_devices(l, replicas, count, alive))
        lf_linked_forget(l);
}

bool lf_linked_has(const lf_linked *l, size_t sum)
{
    return sum < l->sum_count && l->sums[sum].parts;
}

// ---- adding up

// What all processes know, one tells.
static void warn(const lf_linked *l, const lf_error *err)
{
    if (l->process == 0)
        lf_log(LF_LOG_WARN, "devices exchange through the host from here on: %s", err->text);
}

static bool add(const lf_linked *l, size_t sum, bool fast, lf_error *err)
{
    const lf_linked_sum_parts *s = &l->sums[sum];
    return lf_link_sum(l->link, s->parts, s->count, s->size, fast, err);
}

static lf_linked_outcome add_alone(lf_linked *l, size_t sum, bool fast, lf_error *err)
{
    if (!lf_linked_has(l, sum))
        return LF_LINKED_NOT;
    if (add(l, sum, fast, err))
        return LF_LINKED_DONE;
    warn(l, err);
    l->failed = l->device_count;
    return LF_LINKED_FAILED;
}

static lf_linked_outcome add_joined(lf_linked *l, size_t sum, bool fast, lf_error *err)
{
    const bool has = lf_linked_has(l, sum);
    lf_error alone;
    bool all;
    // One that has lost a device has left the link: nobody is to wait for it there.
    if (!lf_ranks_vote_open(err) || !lf_ranks_vote_close(has, &all, err))
        return LF_LINKED_ALONE;
    if (all) {
        if (!lf_ranks_vote_open(err))
            return LF_LINKED_ALONE;
        bool well = add(l, sum, fast, err);
        if (!lf_ranks_vote_close(well, &all, &alone)) {
            *err = alone;
            return LF_LINKED_ALONE;
        }
        if (all)
            return LF_LINKED_DONE;
        l->failed = l->all;
        lf_ranks_agree(well, err); // all say why
        warn(l, err);
    }
    l->joined = false;
    return has ? LF_LINKED_FAILED : LF_LINKED_NOT;
}

lf_linked_outcome lf_linked_add(lf_linked *l, size_t sum, size_t size, bool fast, lf_error *err)
{
    if (l->process_count <= 1)
        return add_alone(l, sum, fast, err);
    return l->joined && lf_linked_is_large(size) ? add_joined(l, sum, fast, err) : LF_LINKED_NOT;
}
