// Where several processes link their devices: each says what it has, and all come to the same conclusion.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "ranks/ranks.h"
#include "train/linked.h"

// What a process says.
typedef struct offer {
    uint32_t device_count, part_count;
    bool linked;   // these devices are in the link that all have joined
    char why[256]; // they cannot be; empty: they can
    char uuids[LF_DEVICE_LIST_MAX][37];
    struct {
        uint32_t device, first, count;
    } parts[LF_SHARDS_MAX]; // of each sum
} offer;

typedef struct meeting {
    lf_linked *linked;
    const lf_replica *replicas; // [count]
    unsigned count;
    offer *own, *all; // [process_count]
    unsigned first;   // this process's first device among all
    unsigned devices; // of all
} meeting;

// ---- what each has

static void list_replica(offer *o, const lf_replica *r)
{
    const lf_exchange *e = r->program->exchanges; // the parts of one are those of all
    for (size_t p = 0; p < e->part_count && o->part_count < LF_SHARDS_MAX; p++) {
        o->parts[o->part_count].device = o->device_count;
        o->parts[o->part_count].first = e->parts[p].first;
        o->parts[o->part_count++].count = e->parts[p].count;
    }
    snprintf(o->uuids[o->device_count], sizeof o->uuids[0], "%s", r->device->info.uuid);
    o->device_count++;
}

static void say_own(meeting *m)
{
    lf_linked *l = m->linked;
    offer *o = m->own;
    lf_error err = { 0 };
    const unsigned alive = lf_linked_alive(m->replicas, m->count);
    o->linked = l->joined && l->device_count == alive;
    if (!o->linked) {
        lf_linked_cut(l);
        if (alive > LF_DEVICE_LIST_MAX)
            lf_error_set(&err, LF_EUNSUPPORTED, "%u devices are more than %d", alive, LF_DEVICE_LIST_MAX);
        else if (!lf_linked_take_devices(l, m->replicas, m->count))
            lf_error_set(&err, LF_ENOMEM, "a link of %u devices: out of memory", alive);
        else
            lf_link_offer(l->devices, alive, NULL, &err);
    }
    snprintf(o->why, sizeof o->why, "%.*s", (int)sizeof o->why - 1, err.text);
    for (unsigned i = 0; i < m->count && alive <= LF_DEVICE_LIST_MAX; i++)
        if (!m->replicas[i].lost)
            list_replica(o, &m->replicas[i]);
}

// ---- what all make of it

// One card in two processes would wait for itself.
static bool find_twice(const meeting *m, uint32_t process, lf_error *err)
{
    for (uint32_t p = 0; p < process; p++)
        for (unsigned i = 0; i < m->all[process].device_count; i++)
            for (unsigned j = 0; j < m->all[p].device_count; j++)
                if (!strcmp(m->all[process].uuids[i], m->all[p].uuids[j])) {
                    lf_error_set(err, LF_EUNSUPPORTED, "processes %u and %u have one device, %s", p, process,
                                 m->all[p].uuids[j]);
                    return true;
                }
    return false;
}

// Whether the link of before still is right.
static bool is_linked(const meeting *m)
{
    bool linked = true;
    for (uint32_t p = 0; p < m->linked->process_count; p++)
        linked = linked && m->all[p].linked;
    return linked;
}

static bool can_link(const meeting *m, lf_error *err)
{
    for (uint32_t p = 0; p < m->linked->process_count; p++) {
        if (m->all[p].why[0]) {
            lf_error_set(err, LF_EUNSUPPORTED, "process %u: %s", p, m->all[p].why);
            return false;
        }
        if (find_twice(m, p, err))
            return false;
    }
    return true;
}

static bool goes_on(void *user)
{
    (void)user;
    return !lf_ranks_vote_is_lost();
}

// *linked: all have done it; else `why` says why not. False: the others cannot be reached.
static bool link_all(meeting *m, bool *linked, lf_error *why, lf_error *err)
{
    lf_linked *l = m->linked;
    lf_link_group group = { .first = m->first, .count = m->devices, .goes_on = goes_on };
    bool well = l->process || lf_link_offer(l->devices, l->device_count, &group.id, why);
    *linked = lf_ranks_agree(well, why);
    if (!*linked)
        return true;
    if (!lf_ranks_broadcast(&group.id, sizeof group.id, err) || !lf_ranks_vote_open(err))
        return false;
    l->link = lf_link_create(l->devices, l->device_count, &group, why);
    if (!lf_ranks_vote_close(l->link, linked, err))
        return false;
    if (!*linked)
        lf_ranks_agree(l->link, why);
    return true;
}

static bool list_all(meeting *m)
{
    lf_linked *l = m->linked;
    lf_link_part *parts = calloc(LF_SHARDS_MAX, sizeof *parts);
    size_t count = 0;
    for (uint32_t p = 0, device = 0; p < l->process_count; device += m->all[p++].device_count)
        for (uint32_t i = 0; parts && p != l->process && i < m->all[p].part_count && count < LF_SHARDS_MAX; i++)
            parts[count++] = (lf_link_part){ .device = device + m->all[p].parts[i].device,
                                             .first = m->all[p].parts[i].first,
                                             .count = m->all[p].parts[i].count };
    bool any = parts && lf_linked_list(l, m->replicas, m->count, m->first, &(lf_linked_others){ parts, count });
    free(parts);
    return any;
}

static bool conclude(meeting *m, lf_error *err)
{
    lf_linked *l = m->linked;
    lf_error why;
    bool linked = is_linked(m);
    for (uint32_t p = 0; p < l->process_count; p++) {
        m->first += p < l->process ? m->all[p].device_count : 0;
        m->devices += m->all[p].device_count;
    }
    if (!linked) {
        lf_link_destroy(l->link); // which others have left
        l->link = NULL;
    }
    if (!linked && !(l->failed && m->devices >= l->failed)) {
        if (can_link(m, &why) && !link_all(m, &linked, &why, err))
            return false;
        if (!linked) {
            if (l->process == 0)
                lf_log(LF_LOG_DEBUG, "devices exchange through the host: %s", why.text);
            l->failed = m->devices;
        }
    }
    l->joined = linked;
    l->all = m->devices;
    if (linked)
        list_all(m); // without it this process votes against the link
    else
        lf_linked_cut(l);
    return true;
}

bool lf_linked_meet(lf_linked *l, const lf_replica *replicas, unsigned count, lf_error *err)
{
    bool all_met;
    if (!lf_ranks_vote_open(err) || !lf_ranks_vote_close(l->met, &all_met, err))
        return false;
    if (all_met)
        return true;
    meeting m = { .linked = l, .replicas = replicas, .count = count };
    m.own = calloc(l->process_count + 1, sizeof *m.own);
    m.all = m.own ? m.own + 1 : NULL;
    if (!m.own)
        lf_error_set(err, LF_ENOMEM, "devices of %u processes: out of memory", l->process_count);
    bool ok = lf_ranks_agree(m.own, err);
    lf_linked_forget(l);
    l->met = true;
    if (ok) {
        say_own(&m);
        ok = lf_ranks_gather(m.own, sizeof *m.own, m.all, err) && conclude(&m, err);
    }
    free(m.own);
    return ok;
}
