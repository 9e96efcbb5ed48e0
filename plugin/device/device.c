// The front of the seam: checks arguments, counts what lives.
#include "device/device.h"

#include <assert.h>

void lf_device_close(lf_device *dev)
{
    if (!dev)
        return;
    assert(!dev->live_buffers && !dev->live_execs);
    dev->impl->destroy(dev);
}

lf_buffer *lf_device_buffer_create(lf_device *dev, size_t size, lf_error *err)
{
    assert(size > 0);
    lf_buffer *buf = dev->impl->buffer_create(dev, size, err);
    if (buf) {
        buf->size = size;
        dev->live_buffers++;
    }
    return buf;
}

void lf_device_buffer_destroy(lf_device *dev, lf_buffer *buf)
{
    if (!buf)
        return;
    dev->live_buffers--;
    dev->impl->buffer_destroy(dev, buf);
}

bool lf_device_buffer_write(lf_device *dev, lf_buffer *dst, size_t offset, const void *src, size_t size, lf_error *err)
{
    assert(offset <= dst->size && size <= dst->size - offset);
    return !size || dev->impl->buffer_write(dev, dst, offset, src, size, err);
}

bool lf_device_buffer_read(lf_device *dev, void *dst, const lf_buffer *src, size_t offset, size_t size, lf_error *err)
{
    assert(offset <= src->size && size <= src->size - offset);
    return !size || dev->impl->buffer_read(dev, dst, src, offset, size, err);
}

lf_exec *lf_device_exec_create(lf_device *dev, const lf_program *prog, const lf_bindings *regions, lf_error *err)
{
    for (unsigned i = 0; i < LF_REGION_COUNT; i++)
        assert(!prog->region_size[i] || (regions->region[i] && regions->region[i]->size >= prog->region_size[i]));
    for (size_t o = 0; o < prog->op_count; o++) {
        const lf_operand_info *operands = lf_op_info_of(prog->ops[o].kind)->operands;
        for (unsigned i = 0; i < LF_OPERAND_MAX && operands[i].role; i++)
            assert(operands[i].optional || prog->ops[o].operands[i] != LF_NO_TENSOR);
    }
    lf_exec *exec = dev->impl->exec_create(dev, prog, regions, err);
    if (exec)
        dev->live_execs++;
    return exec;
}

void lf_device_exec_destroy(lf_device *dev, lf_exec *exec)
{
    if (!exec)
        return;
    dev->live_execs--;
    dev->impl->exec_destroy(dev, exec);
}

bool lf_device_exec_run(lf_device *dev, lf_exec *exec, uint32_t first, uint32_t last, uint32_t steps, lf_error *err)
{
    assert(first <= last);
    return !steps || dev->impl->exec_run(dev, exec, first, last, steps, err);
}

bool lf_device_wait(lf_device *dev, lf_error *err)
{
    return dev->impl->wait(dev, err);
}

static bool is_linkable(lf_device *const devs[], unsigned count, unsigned least, lf_error *err)
{
    const lf_device_impl *impl = devs[0]->impl;
    bool alike = count >= least;
    for (unsigned i = 1; i < count; i++)
        alike = alike && devs[i]->impl->link_create == impl->link_create;
    if (alike && impl->link_create)
        return true;
    if (alike)
        lf_error_set(err, LF_EUNSUPPORTED, "nothing links devices of %s", devs[0]->info.backend);
    else
        lf_error_set(err, LF_EUNSUPPORTED, "%u devices: nothing links them", count);
    return false;
}

bool lf_link_offer(lf_device *const devs[], unsigned count, lf_link_id *id, lf_error *err)
{
    return is_linkable(devs, count, 1, err) && devs[0]->impl->link_offer(devs, count, id, err);
}

lf_link *lf_link_create(lf_device *const devs[], unsigned count, const lf_link_group *group, lf_error *err)
{
    if (!is_linkable(devs, count, group ? 1 : 2, err))
        return NULL;
    assert(!group || (group->first + count <= group->count && group->goes_on));
    lf_link *link = devs[0]->impl->link_create(devs, count, group, err);
    if (link)
        link->impl = devs[0]->impl;
    return link;
}

void lf_link_destroy(lf_link *link)
{
    if (link)
        link->impl->link_destroy(link);
}

static inline bool is_within(const lf_link_part *part, size_t n)
{
    return part->offset <= part->buffer->size && n <= (part->buffer->size - part->offset) / sizeof(float);
}

bool lf_link_sum(lf_link *link, const lf_link_part *parts, size_t part_count, size_t n, bool fast, lf_error *err)
{
    assert(part_count > 1);
    for (size_t i = 0; i < part_count; i++)
        assert(parts[i].offset % 16 == 0 && (!parts[i].buffer || is_within(&parts[i], n)));
    return !n || link->impl->link_sum(link, parts, part_count, n, fast, err);
}
