#include "train/linked.h"

#include <stdlib.h>

#include "core/log.h"

// Numbers below which the host is as fast.
enum { LEAST = 1 << 16 };

static void forget_sums(lf_linked *l)
{
    for (size_t i = 0; i < l->sum_count; i++)
        free(l->sums[i].parts);
    free(l->sums);
    l->sums = NULL;
    l->sum_count = 0;
}

static void unlink_devices(lf_linked *l)
{
    lf_link_destroy(l->link);
    free(l->devices);
    l->link = NULL;
    l->devices = NULL;
    l->device_count = 0;
}

void lf_linked_finish(lf_linked *l)
{
    forget_sums(l);
    unlink_devices(l);
}

static int by_shard(const void *a, const void *b)
{
    const lf_link_part *left = a, *right = b;
    return left->first < right->first ? -1 : left->first > right->first;
}

// The parts of one sum on all devices. True where they are large enough, and memory is there.
static bool list_parts(lf_linked_sum_parts *sum, const lf_replica *replicas, unsigned count, size_t index)
{
    size_t most = 0;
    for (unsigned i = 0; i < count; i++)
        most += replicas[i].lost ? 0 : replicas[i].program->exchanges[index].part_count;
    for (unsigned i = 0, device = 0; i < count; i++) {
        const lf_program *program = replicas[i].program;
        if (replicas[i].lost)
            continue;
        const lf_exchange *e = &program->exchanges[index];
        sum->size = lf_tensor_bytes(&program->tensors[e->total]) / sizeof(float);
        if (!sum->parts && sum->size >= LEAST && program->real == LF_F32)
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
    if (sum->parts)
        qsort(sum->parts, sum->count, sizeof *sum->parts, by_shard);
    return sum->parts;
}

static bool list_sums(lf_linked *l, const lf_replica *replicas, unsigned count, unsigned first)
{
    bool any = false;
    l->sum_count = replicas[first].program->exchange_count;
    l->sums = calloc(l->sum_count + 1, sizeof *l->sums);
    if (!l->sums)
        l->sum_count = 0;
    for (size_t i = 0; i < l->sum_count; i++)
        any |= list_parts(&l->sums[i], replicas, count, i);
    return any;
}

// A link takes seconds to make, so it stays as long as its devices do.
static bool link_devices(lf_linked *l, const lf_replica *replicas, unsigned count, unsigned alive)
{
    lf_error err;
    if (l->link && l->device_count == alive)
        return true;
    unlink_devices(l);
    l->devices = calloc(alive, sizeof *l->devices);
    for (unsigned i = 0; l->devices && i < count; i++)
        if (!replicas[i].lost)
            l->devices[l->device_count++] = replicas[i].device;
    l->link = l->devices ? lf_link_create(l->devices, alive, &err) : NULL;
    if (l->link)
        return true;
    if (l->devices)
        lf_log(LF_LOG_DEBUG, "devices exchange through the host: %s", err.text);
    unlink_devices(l);
    l->failed = alive;
    return false;
}

void lf_linked_plan(lf_linked *l, const lf_replica *replicas, unsigned count)
{
    unsigned alive = 0, first = 0;
    forget_sums(l);
    if (l->failed && l->device_count >= l->failed)
        unlink_devices(l);
    for (unsigned i = count; i-- > 0;)
        if (!replicas[i].lost) {
            alive++;
            first = i;
        }
    if (alive < 2 || (l->failed && alive >= l->failed) || !list_sums(l, replicas, count, first) ||
        !link_devices(l, replicas, count, alive))
        forget_sums(l);
}

bool lf_linked_has(const lf_linked *l, size_t sum)
{
    return sum < l->sum_count && l->sums[sum].parts;
}

bool lf_linked_add(lf_linked *l, size_t sum, bool fast, lf_error *err)
{
    const lf_linked_sum_parts *s = &l->sums[sum];
    if (lf_link_sum(l->link, s->parts, s->count, s->size, fast, err))
        return true;
    lf_log(LF_LOG_WARN, "devices exchange through the host from here on: %s", err->text);
    l->failed = l->device_count;
    return false;
}
