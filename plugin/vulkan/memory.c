// Buffers: one VkBuffer and one piece of memory each. Where the device's own memory can be mapped the host copies
// straight into it; else, and for reads of memory that the host does not cache, through a staging buffer.
#include <stdlib.h>
#include <string.h>

#include "vulkan/internal.h"

#define STAGING_SIZE ((VkDeviceSize)16 << 20)

#define LOCAL  VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT
#define MAPPED (VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT)
#define CACHED VK_MEMORY_PROPERTY_HOST_CACHED_BIT

typedef struct memory_wish {
    VkMemoryPropertyFlags flags;
    bool largest; // only in the device's largest heap: the small window that some GPUs map is for others
} memory_wish;

static VkDeviceSize largest_heap(const vk_device *dev)
{
    VkDeviceSize most = 0;
    for (uint32_t i = 0; i < dev->memory.memoryHeapCount; i++)
        if (dev->memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT &&
            dev->memory.memoryHeaps[i].size > most)
            most = dev->memory.memoryHeaps[i].size;
    return most;
}

// The first memory type that fulfils the earliest wish; every wish list ends with one that is always fulfilled.
static uint32_t find_memory(const vk_device *dev, uint32_t allowed, const memory_wish *wishes, size_t count)
{
    VkDeviceSize most = largest_heap(dev);
    for (size_t w = 0; w < count; w++)
        for (uint32_t i = 0; i < dev->memory.memoryTypeCount; i++) {
            const VkMemoryType *type = &dev->memory.memoryTypes[i];
            if ((allowed >> i & 1) && (type->propertyFlags & wishes[w].flags) == wishes[w].flags &&
                (!wishes[w].largest || dev->memory.memoryHeaps[type->heapIndex].size == most))
                return i;
        }
    return 0;
}

// On failure nothing is left; `out`'s handles are null.
static bool allocate(vk_device *dev, VkDeviceSize size, const memory_wish *wishes, size_t wish_count, VkBuffer *buffer,
                     VkDeviceMemory *memory, VkMemoryPropertyFlags *flags, lf_error *err)
{
    const char *name = dev->properties.deviceName;
    *buffer = VK_NULL_HANDLE;
    *memory = VK_NULL_HANDLE;
    if (size > dev->max_allocation) {
        lf_error_set(err, LF_ENOMEM, "%s: a buffer of %llu bytes is more than the %llu that the device allows", name,
                     (unsigned long long)size, (unsigned long long)dev->max_allocation);
        return false;
    }
    VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .size = size,
        .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_STORAGE_TEXEL_BUFFER_BIT |
                 VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT,
    };
    VkResult result = dev->vk.vkCreateBuffer(dev->device, &info, NULL, buffer);
    if (result != VK_SUCCESS)
        goto error;
    VkMemoryRequirements needs;
    dev->vk.vkGetBufferMemoryRequirements(dev->device, *buffer, &needs);
    uint32_t type = find_memory(dev, needs.memoryTypeBits, wishes, wish_count);
    VkMemoryAllocateInfo piece = { .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                   .allocationSize = needs.size,
                                   .memoryTypeIndex = type };
    result = dev->vk.vkAllocateMemory(dev->device, &piece, NULL, memory);
    if (result == VK_SUCCESS)
        result = dev->vk.vkBindBufferMemory(dev->device, *buffer, *memory, 0);
    if (result != VK_SUCCESS)
        goto error;
    *flags = dev->memory.memoryTypes[type].propertyFlags;
    return true;
error:
    vk_error(err, result, "%s: cannot allocate a buffer of %llu bytes (the device has %llu)", name,
             (unsigned long long)size, (unsigned long long)largest_heap(dev));
    dev->vk.vkDestroyBuffer(dev->device, *buffer, NULL);
    dev->vk.vkFreeMemory(dev->device, *memory, NULL);
    *buffer = VK_NULL_HANDLE;
    *memory = VK_NULL_HANDLE;
    return false;
}

static bool ready_staging(vk_device *dev, lf_error *err)
{
    static const memory_wish wishes[] = { { MAPPED | CACHED, false }, { MAPPED, false } };
    if (dev->staging)
        return true;
    VkMemoryPropertyFlags flags;
    if (!allocate(dev, STAGING_SIZE, wishes, 2, &dev->staging, &dev->staging_memory, &flags, err))
        return false;
    VkResult result = dev->vk.vkMapMemory(dev->device, dev->staging_memory, 0, VK_WHOLE_SIZE, 0, &dev->staging_mapped);
    if (result == VK_SUCCESS)
        return true;
    vk_staging_destroy(dev);
    return vk_error(err, result, "%s: cannot map %llu bytes of host memory", dev->properties.deviceName,
                    (unsigned long long)STAGING_SIZE);
}

void vk_staging_destroy(vk_device *dev)
{
    dev->vk.vkDestroyBuffer(dev->device, dev->staging, NULL);
    dev->vk.vkFreeMemory(dev->device, dev->staging_memory, NULL);
    dev->staging = VK_NULL_HANDLE;
    dev->staging_memory = VK_NULL_HANDLE;
}

// A transfer of its own: a copy to or from the staging buffer, or, without `region`, zeros over all of `buf`.
static bool transfer(vk_device *dev, const vk_buffer *buf, bool write, const VkBufferCopy *region, lf_error *err)
{
    VkCommandBuffer commands = vk_commands_begin(dev, VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT, err);
    if (!commands)
        return false;
    vk_barrier(dev, commands);
    if (!region)
        dev->vk.vkCmdFillBuffer(commands, buf->handle, 0, VK_WHOLE_SIZE, 0);
    else if (write)
        dev->vk.vkCmdCopyBuffer(commands, dev->staging, buf->handle, 1, region);
    else
        dev->vk.vkCmdCopyBuffer(commands, buf->handle, dev->staging, 1, region);
    vk_barrier(dev, commands);
    bool done =
        vk_commands_end(dev, commands, err) && vk_submit(dev, commands, err) && vk_wait_for(dev, dev->submitted, err);
    if (done || vk_wait_for(dev, dev->submitted, NULL))
        vk_commands_free(dev, commands);
    return done;
}

lf_buffer *vk_buffer_create(lf_device *base, size_t size, lf_error *err)
{
    static const memory_wish wishes[] = {
        { LOCAL | MAPPED | CACHED, true }, { LOCAL | MAPPED, true }, { LOCAL, false }, { 0, false }
    };
    vk_device *dev = (vk_device *)base;
    vk_buffer *buf = calloc(1, sizeof *buf);
    if (!buf) {
        lf_error_set(err, LF_ENOMEM, "%s: a buffer of %zu bytes: out of memory", dev->properties.deviceName, size);
        return NULL;
    }
    VkMemoryPropertyFlags flags;
    buf->capacity = ((VkDeviceSize)size + 15) / 16 * 16;
    if (!allocate(dev, buf->capacity, wishes, 4, &buf->handle, &buf->memory, &flags, err))
        goto error;
    if ((flags & MAPPED) == MAPPED) {
        VkResult result = dev->vk.vkMapMemory(dev->device, buf->memory, 0, VK_WHOLE_SIZE, 0, &buf->mapped);
        if (result != VK_SUCCESS) {
            vk_error(err, result, "%s: cannot map a buffer of %zu bytes", dev->properties.deviceName, size);
            goto error;
        }
        buf->cached = flags & CACHED;
        memset(buf->mapped, 0, buf->capacity);
    } else if (!transfer(dev, buf, true, NULL, err)) {
        goto error;
    }
    return &buf->base;
error:
    vk_buffer_destroy(base, &buf->base);
    return NULL;
}

void vk_buffer_destroy(lf_device *base, lf_buffer *head)
{
    vk_device *dev = (vk_device *)base;
    vk_buffer *buf = (vk_buffer *)head;
    if (!buf)
        return;
    vk_wait_for(dev, buf->last_use, NULL); // a lost device has nothing pending
    dev->vk.vkDestroyBuffer(dev->device, buf->handle, NULL);
    dev->vk.vkFreeMemory(dev->device, buf->memory, NULL);
    free(buf);
}

bool vk_buffer_write(lf_device *base, lf_buffer *dst, size_t offset, const void *src, size_t size, lf_error *err)
{
    vk_device *dev = (vk_device *)base;
    vk_buffer *buf = (vk_buffer *)dst;
    if (buf->mapped) {
        if (!vk_wait_for(dev, buf->last_use, err))
            return false;
        memcpy((char *)buf->mapped + offset, src, size);
        return true;
    }
    if (!ready_staging(dev, err))
        return false;
    for (size_t done = 0; done < size;) {
        size_t part = size - done < STAGING_SIZE ? size - done : STAGING_SIZE;
        memcpy(dev->staging_mapped, (const char *)src + done, part);
        if (!transfer(dev, buf, true, &(VkBufferCopy){ .dstOffset = offset + done, .size = part }, err))
            return false;
        done += part;
    }
    return true;
}

bool vk_buffer_read(lf_device *base, void *dst, const lf_buffer *src, size_t offset, size_t size, lf_error *err)
{
    vk_device *dev = (vk_device *)base;
    const vk_buffer *buf = (const vk_buffer *)src;
    if (buf->mapped && buf->cached) {
        if (!vk_wait_for(dev, buf->last_use, err))
            return false;
        memcpy(dst, (const char *)buf->mapped + offset, size);
        return true;
    }
    if (!ready_staging(dev, err))
        return false;
    for (size_t done = 0; done < size;) {
        size_t part = size - done < STAGING_SIZE ? size - done : STAGING_SIZE;
        if (!transfer(dev, buf, false, &(VkBufferCopy){ .srcOffset = offset + done, .size = part }, err))
            return false;
        memcpy((char *)dst + done, dev->staging_mapped, part);
        done += part;
    }
    return true;
}
