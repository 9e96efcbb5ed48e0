// Which devices there are, which of them this process may see, and which one a text means.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "device/backend.h"

// In the order in which "auto" and a UUID take them: a card of NVIDIA's is there through CUDA and through Vulkan.
static const lf_backend *const backends[] = { &lf_backend_cuda, &lf_backend_vulkan, &lf_backend_cpu };
enum { BACKEND_COUNT = sizeof backends / sizeof *backends, DEVICE_MAX = 64, ENTRY_SIZE = 64 };
static const char AUTO[] = "auto", ALL[] = "all", VARIABLE[] = "LAVAFLOW_DEVICES", SEPARATORS[] = ", ";

typedef struct found {
    lf_device_info info;
    const lf_backend *backend;
    uint32_t index; // within the backend
} found;

// What this process may see: NULL is everything, else a list of ids, UUIDs and "backend:UUID".
static const char *listed(void)
{
    const char *list = getenv(VARIABLE);
    return list && *list ? list : NULL;
}

// Copies the list's next entry and moves *list behind it. False at its end.
static bool next_entry(const char **list, char entry[ENTRY_SIZE])
{
    *list += strspn(*list, SEPARATORS);
    size_t length = strcspn(*list, SEPARATORS);
    snprintf(entry, ENTRY_SIZE, "%.*s", (int)(length < ENTRY_SIZE ? length : ENTRY_SIZE), *list);
    *list += length;
    return length > 0;
}

static bool has_prefix(const char *spec, const char *backend)
{
    size_t length = strlen(backend);
    return !strncmp(spec, backend, length) && (!spec[length] || spec[length] == ':');
}

// "vulkan:0", a UUID, "vulkan:UUID".
static bool is_exactly(const lf_device_info *info, const char *spec)
{
    const char *colon = strchr(spec, ':'), *uuid = colon && has_prefix(spec, info->backend) ? colon + 1 : spec;
    return !strcmp(info->id, spec) || (info->uuid[0] && !strcasecmp(info->uuid, uuid));
}

static bool is_visible(const lf_device_info *info)
{
    const char *list = listed();
    char entry[ENTRY_SIZE];
    bool absence = info->unavailable[0] && !strcmp(info->id, info->backend); // of all of the backend's devices
    bool visible = !list;
    while (!visible && next_entry(&list, entry))
        visible = is_exactly(info, entry) || (absence && has_prefix(entry, info->backend));
    return visible;
}

// Only the backend that the prefix names can have the device; any can, where it names none.
static bool may_have(const lf_backend *backend, const char *spec)
{
    for (size_t b = 0; b < BACKEND_COUNT; b++)
        if (has_prefix(spec, backends[b]->name))
            return backends[b] == backend;
    return true;
}

static bool may_have_visible(const lf_backend *backend)
{
    const char *list = listed();
    char entry[ENTRY_SIZE];
    bool may = !list;
    while (!may && next_entry(&list, entry))
        may = may_have(backend, entry);
    return may;
}

// The rows among which `spec` can be; "auto": all. A backend that cannot have it is not asked, since some start slowly.
static size_t list_for(const char *spec, found *all, size_t capacity)
{
    size_t count = 0;
    lf_device_info *infos = calloc(DEVICE_MAX, sizeof *infos);
    for (size_t b = 0; infos && b < BACKEND_COUNT; b++) {
        if (!may_have(backends[b], spec) || !may_have_visible(backends[b]))
            continue;
        memset(infos, 0, DEVICE_MAX * sizeof *infos);
        size_t rows = backends[b]->list(infos, DEVICE_MAX);
        for (size_t i = 0; i < rows && count < capacity; i++)
            if (is_visible(&infos[i]))
                all[count++] = (found){ infos[i], backends[b], (uint32_t)i };
    }
    free(infos);
    return count;
}

size_t lf_device_list(lf_device_info *infos, size_t capacity)
{
    found *all = calloc(capacity, sizeof *all);
    size_t count = all ? list_for(AUTO, all, capacity) : 0;
    for (size_t i = 0; i < count; i++)
        infos[i] = all[i].info;
    free(all);
    return count;
}

static const found *find_auto(const found *all, size_t count)
{
    const found *cpu = NULL, *gpu = NULL, *any = NULL;
    for (size_t i = 0; i < count; i++) {
        if (all[i].info.unavailable[0])
            continue;
        any = any ? any : &all[i]; // where the cpu may not be used
        if (all[i].info.hardware_gpu && (!gpu || (all[i].info.discrete && !gpu->info.discrete)))
            gpu = &all[i];
        if (all[i].backend == &lf_backend_cpu)
            cpu = &all[i];
    }
    return gpu ? gpu : cpu ? cpu : any;
}

// An exact match goes before a part of a name, "vulkan:NAME-PART"; of those with one UUID, the first that can be used.
static const found *find_named(const found *all, size_t count, const char *spec)
{
    const found *exact = NULL;
    for (size_t i = 0; i < count; i++)
        if (is_exactly(&all[i].info, spec) && (!exact || exact->info.unavailable[0]))
            exact = &all[i];
    if (exact)
        return exact;
    const char *colon = strchr(spec, ':');
    if (!colon || !colon[1] || colon[1 + strspn(colon + 1, "0123456789")] == 0)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        const lf_device_info *info = &all[i].info;
        if (!info->unavailable[0] && has_prefix(spec, info->backend) && strcasestr(info->name, colon + 1))
            return &all[i];
    }
    return NULL;
}

// Puts "separator, id" and, if there is one, ": reason" at the end of what `text` holds; what does not fit is cut.
static void append(char *text, size_t size, const char *separator, const char *id, const char *reason)
{
    size_t used = strlen(text);
    snprintf(text + used, size - used, "%s%s%s%s", used ? separator : "", id, *reason ? ": " : "", reason);
}

static bool is_listed(const char *spec)
{
    const char *list = listed();
    char entry[ENTRY_SIZE];
    bool is = !strcmp(spec, AUTO);
    while (!is && next_entry(&list, entry))
        is = !strcasecmp(entry, spec);
    return is;
}

// Why a device that was asked for cannot be used is part of the answer; "auto" asks for all of them.
static void set_not_found(const found *all, size_t count, const char *spec, lf_error *err)
{
    char usable[256] = "", missing[512] = "";
    for (size_t i = 0; i < count; i++) {
        const lf_device_info *info = &all[i].info;
        if (!info->unavailable[0])
            append(usable, sizeof usable, ", ", info->id, "");
        else if (!strcmp(spec, AUTO) || has_prefix(spec, info->backend))
            append(missing, sizeof missing, "; ", info->id, info->unavailable);
    }
    const char *has = *usable ? usable : "none at all", *list = listed();
    if (!list)
        lf_error_set(err, LF_ENOTFOUND, "device \"%s\": %s; this machine has %s", spec,
                     *missing ? missing : "there is none", has);
    else
        lf_error_set(err, LF_ENOTFOUND, "device \"%s\": %s; %s, \"%s\", leaves %s", spec,
                     *missing          ? missing
                     : is_listed(spec) ? "this machine has none"
                                       : "it is not to be used here",
                     VARIABLE, list, has);
}

static bool find(const char *spec, found *which, lf_error *err)
{
    found *all = calloc(DEVICE_MAX, sizeof *all);
    if (!all) {
        lf_error_set(err, LF_ENOMEM, "device \"%s\": out of memory", spec);
        return false;
    }
    size_t count = list_for(spec, all, DEVICE_MAX);
    const found *it = strcmp(spec, AUTO) ? find_named(all, count, spec) : find_auto(all, count);
    bool usable = it && !it->info.unavailable[0];
    if (usable)
        *which = *it;
    else if (it)
        lf_error_set(err, LF_EUNSUPPORTED, "device \"%s\": %s", spec, it->info.unavailable);
    else
        set_not_found(all, list_for(AUTO, all, DEVICE_MAX), spec, err);
    free(all);
    return usable;
}

bool lf_device_find(const char *spec, lf_device_info *info, lf_error *err)
{
    found which;
    if (!find(spec, &which, err))
        return false;
    *info = which.info;
    return true;
}

static lf_device *open_found(const found *which, unsigned share, lf_error *err)
{
    lf_device *dev = which->backend->open(which->index, share, err);
    if (dev) {
        dev->info = which->info;
        dev->info.memory /= share;
    }
    return dev;
}

lf_device *lf_device_open(const char *spec, lf_error *err)
{
    found which;
    return find(spec, &which, err) ? open_found(&which, 1, err) : NULL;
}

// Every GPU once: a card that several backends reach has one UUID in all of them, and stands first where it is best.
static size_t find_gpus(found *gpus, size_t capacity)
{
    found *all = calloc(DEVICE_MAX, sizeof *all);
    size_t count = all ? list_for(AUTO, all, DEVICE_MAX) : 0, taken = 0;
    for (size_t i = 0; i < count && taken < capacity; i++) {
        bool known = !all[i].info.hardware_gpu || all[i].info.unavailable[0];
        for (size_t j = 0; j < taken && !known; j++)
            known = all[i].info.uuid[0] && !strcasecmp(gpus[j].info.uuid, all[i].info.uuid);
        if (!known)
            gpus[taken++] = all[i];
    }
    free(all);
    return taken;
}

static size_t find_list(const char *const *specs, size_t count, found *which, size_t capacity, lf_error *err)
{
    size_t taken = 0;
    if (!count)
        lf_error_set(err, LF_EARG, "devices: the list is empty");
    for (size_t i = 0; i < count; i++) {
        size_t gpus = strcmp(specs[i], ALL) ? 0 : find_gpus(which + taken, capacity - taken);
        taken += gpus;
        if (gpus)
            continue;
        if (taken == capacity) {
            lf_error_set(err, LF_EARG, "%zu devices are too many: at most %zu can train together", taken + count - i,
                         capacity);
            return 0;
        }
        if (!find(strcmp(specs[i], ALL) ? specs[i] : AUTO, &which[taken], err))
            return 0;
        taken++;
    }
    return taken;
}

static bool is_same(const found *a, const found *b)
{
    return a->backend == b->backend && a->index == b->index;
}

size_t lf_device_open_list(const char *const *specs, size_t count, lf_device **devices, size_t capacity, lf_error *err)
{
    found *which = calloc(capacity, sizeof *which);
    if (!which) {
        lf_error_set(err, LF_ENOMEM, "a list of %zu devices: out of memory", count);
        return 0;
    }
    size_t found_count = find_list(specs, count, which, capacity, err), opened = 0;
    while (opened < found_count) {
        unsigned share = 0, before = 0;
        for (size_t i = 0; i < found_count; i++) {
            share += is_same(&which[opened], &which[i]);
            before += i < opened && is_same(&which[opened], &which[i]);
        }
        devices[opened] = open_found(&which[opened], share, err);
        if (!devices[opened])
            break;
        devices[opened++]->opened = before;
    }
    if (opened < found_count)
        for (; opened; opened--)
            lf_device_close(devices[opened - 1]);
    free(which);
    return opened;
}

size_t lf_device_find_list(const char *const *specs, size_t count, lf_device_info *infos, size_t capacity,
                           lf_error *err)
{
    found *which = calloc(capacity, sizeof *which);
    size_t found_count = which ? find_list(specs, count, which, capacity, err) : 0;
    if (!which)
        lf_error_set(err, LF_ENOMEM, "a list of %zu devices: out of memory", count);
    for (size_t i = 0; i < found_count; i++)
        infos[i] = which[i].info;
    free(which);
    return found_count;
}

bool lf_link_find(const char *backend, lf_link_info *info)
{
    *info = (lf_link_info){ 0 };
    for (size_t b = 0; b < BACKEND_COUNT; b++)
        if (!strcmp(backends[b]->name, backend) && backends[b]->link_find) {
            backends[b]->link_find(info);
            return true;
        }
    return false;
}
