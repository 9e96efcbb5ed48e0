#include "train/replica.h"

#include <stdlib.h>
#include <string.h>

#include "ranks/ranks.h"

static bool create_region(lf_replica *r, lf_region region, lf_error *err)
{
    size_t size = r->program->region_size[region];
    r->regions.region[region] = lf_device_buffer_create(r->device, size, err);
    r->owned[region] = true;
    if (!r->regions.region[region])
        lf_error_prefix(err, "region %s of %zu bytes on %s", lf_region_name(region), size, r->device->info.id);
    return r->regions.region[region] != NULL;
}

// Memory that the system grants and then does not have would end the process, or another one.
static bool check_memory(const lf_replica *r, lf_error *err)
{
    const lf_device_info *info = &r->device->info;
    double need = 0;
    for (unsigned i = 0; i < LF_REGION_COUNT; i++)
        need += (double)r->program->region_size[i];
    if (need <= (double)info->memory)
        return true;
    lf_error_set(err, LF_ENOMEM, "the model with %zu parameters and its data take %.3g GiB, but %s has %.3g GiB",
                 r->program->params.model->param_count, need / 0x1p30, info->id, (double)info->memory / 0x1p30);
    return false;
}

bool lf_replica_init(lf_replica *r, lf_device *device, lf_program *program, const lf_replica *weights, lf_error *err)
{
    *r = (lf_replica){ .device = device, .program = program };
    if (!check_memory(r, err))
        return false;
    for (unsigned i = 0; i < LF_REGION_COUNT; i++) {
        bool averaged = i == LF_REGION_PARAMS && weights && weights->program->average != LF_NO_TENSOR;
        if (!program->region_size[i])
            continue;
        if ((i == LF_REGION_PARAMS || i == LF_REGION_STATE) && weights)
            r->regions.region[i] = weights->regions.region[averaged ? LF_REGION_AVERAGE : i];
        else if (!create_region(r, (lf_region)i, err))
            return false;
    }
    r->exec = lf_device_exec_create(device, program, &r->regions, err);
    return r->exec != NULL;
}

void lf_replica_finish(lf_replica *r)
{
    lf_device_exec_destroy(r->device, r->exec);
    for (unsigned i = 0; i < LF_REGION_COUNT; i++)
        if (r->owned[i])
            lf_device_buffer_destroy(r->device, r->regions.region[i]);
    lf_program_destroy(r->program);
    *r = (lf_replica){ 0 };
}

bool lf_replica_change(lf_replica *r, lf_program *program, lf_error *err)
{
    lf_device_exec_destroy(r->device, r->exec);
    lf_program *before = r->program;
    r->exec = NULL;
    r->program = program;
    bool ok = true;
    for (unsigned i = 0; ok && i < LF_REGION_COUNT; i++) {
        if (program->region_size[i] == before->region_size[i])
            continue;
        lf_device_buffer_destroy(r->device, r->regions.region[i]);
        ok = create_region(r, (lf_region)i, err);
    }
    lf_program_destroy(before);
    if (ok)
        r->exec = lf_device_exec_create(r->device, program, &r->regions, err);
    return r->exec != NULL;
}

bool lf_replica_write(lf_replica *r, lf_region region, size_t offset, const void *bytes, size_t size, lf_error *err)
{
    return lf_device_buffer_write(r->device, r->regions.region[region], offset, bytes, size, err);
}

bool lf_replica_read(const lf_replica *r, lf_region region, size_t offset, void *bytes, size_t size, lf_error *err)
{
    return lf_device_buffer_read(r->device, bytes, r->regions.region[region], offset, size, err);
}

bool lf_replicas_lose(lf_replica *replicas, unsigned count, unsigned which, const lf_error *err)
{
    unsigned alive = 0;
    for (unsigned i = 0; i < count; i++)
        alive += !replicas[i].lost;
    if (err->code != LF_EDEVICE || alive < 2)
        return false;
    replicas[which].lost = true;
    replicas[which].error = *err;
    return true;
}

bool lf_replicas_write(lf_replica *replicas, unsigned count, lf_region region, size_t offset, const void *bytes,
                       size_t size, lf_error *err)
{
    for (unsigned i = 0; i < count; i++)
        if (!replicas[i].lost && !lf_replica_write(&replicas[i], region, offset, bytes, size, err) &&
            !lf_replicas_lose(replicas, count, i, err))
            return false;
    return true;
}

static bool is_same_kind(const lf_device_info *a, const lf_device_info *b)
{
    return !strcmp(a->backend, b->backend) && !strcmp(a->name, b->name) &&
           !strcmp(a->driver_version, b->driver_version);
}

bool lf_replicas_differ(const lf_replica *replicas, unsigned count)
{
    bool differ = false;
    for (unsigned i = 1; i < count; i++)
        differ |= !is_same_kind(&replicas[0].device->info, &replicas[i].device->info);
    return differ;
}

bool lf_replicas_equalise(lf_replica *replicas, unsigned count, unsigned first, bool processes, lf_error *err)
{
    static const lf_region changing[] = { LF_REGION_PARAMS, LF_REGION_MOMENTS, LF_REGION_STATE, LF_REGION_AVERAGE };
    bool ok = true;
    for (size_t r = 0; ok && r < sizeof changing / sizeof *changing; r++) {
        size_t size = replicas[first].program->region_size[changing[r]];
        void *bytes = malloc(size + 1);
        if (!bytes)
            lf_error_set(err, LF_ENOMEM, "%s of %zu bytes: out of memory", lf_region_name(changing[r]), size);
        ok = bytes && (!size || lf_replica_read(&replicas[first], changing[r], 0, bytes, size, err));
        ok = processes ? lf_ranks_agree(ok, err) : ok;
        ok = ok && (!processes || !size || lf_ranks_broadcast(bytes, size, err)) &&
             (!size || lf_replicas_write(replicas, count, changing[r], 0, bytes, size, err));
        free(bytes);
    }
    return ok;
}
