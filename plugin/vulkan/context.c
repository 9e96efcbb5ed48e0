// The list of Vulkan devices, opening and closing one.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vulkan/internal.h"

#define DEVICE_MAX 64

static void format_uuid(char text[37], const uint8_t *uuid)
{
    char *at = text;
    for (unsigned i = 0; i < VK_UUID_SIZE; i++)
        at += sprintf(at, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", uuid[i]);
}

// A queue family that computes, preferably one that does nothing else; UINT32_MAX: none.
static uint32_t find_family(VkPhysicalDevice physical)
{
    VkQueueFamilyProperties families[32];
    uint32_t count = 32, found = UINT32_MAX;
    vkGetPhysicalDeviceQueueFamilyProperties(physical, &count, families);
    for (uint32_t i = 0; i < count; i++) {
        bool alone = !(families[i].queueFlags & VK_QUEUE_GRAPHICS_BIT);
        if ((families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) && (found == UINT32_MAX || alone)) {
            found = i;
            if (alone)
                break;
        }
    }
    return found;
}

uint64_t vk_max_operand(const VkPhysicalDeviceLimits *limits, const vk_tiles *tiles)
{
    uint64_t texels = (uint64_t)limits->maxTexelBufferElements * sizeof(uint32_t),
             range = limits->maxStorageBufferRange;
    return (tiles->texel && texels < range ? texels : range) / 256 * 256;
}

static bool describe(VkPhysicalDevice physical, uint32_t index, lf_device_info *info)
{
    VkPhysicalDeviceVulkan11Properties ids = { .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES };
    VkPhysicalDeviceDriverProperties driver = { .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES,
                                                .pNext = &ids };
    VkPhysicalDeviceProperties2 all = { .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2 };
    VkPhysicalDeviceTimelineSemaphoreFeatures timeline = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES
    };
    VkPhysicalDeviceFeatures2 features = { .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2 };
    VkPhysicalDeviceMemoryProperties memory;

    vkGetPhysicalDeviceProperties(physical, &all.properties);
    uint32_t version = all.properties.apiVersion;
    if (version >= VK_API_VERSION_1_2) { // older devices do not know these structures
        all.pNext = &driver;
        vkGetPhysicalDeviceProperties2(physical, &all);
        features.pNext = &timeline;
        vkGetPhysicalDeviceFeatures2(physical, &features);
        format_uuid(info->uuid, ids.deviceUUID);
    }
    vkGetPhysicalDeviceMemoryProperties(physical, &memory);
    const VkPhysicalDeviceProperties *p = &all.properties;

    snprintf(info->id, sizeof info->id, "vulkan:%u", index);
    snprintf(info->backend, sizeof info->backend, "vulkan");
    snprintf(info->name, sizeof info->name, "%s", p->deviceName);
    snprintf(info->driver_name, sizeof info->driver_name, "%.63s", driver.driverName);
    if (driver.driverInfo[0])
        snprintf(info->driver_version, sizeof info->driver_version, "%s", driver.driverInfo);
    else
        snprintf(info->driver_version, sizeof info->driver_version, "%u", p->driverVersion);
    snprintf(info->api_version, sizeof info->api_version, "%u.%u.%u", VK_API_VERSION_MAJOR(version),
             VK_API_VERSION_MINOR(version), VK_API_VERSION_PATCH(version));
    vk_kernels_digest(info->kernels);
    info->hardware_gpu = p->deviceType != VK_PHYSICAL_DEVICE_TYPE_CPU;
    info->discrete = p->deviceType == VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU;
    for (uint32_t i = 0; i < memory.memoryHeapCount; i++)
        if (memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT && memory.memoryHeaps[i].size > info->memory)
            info->memory = memory.memoryHeaps[i].size;
    vk_tiles tiles;
    vk_tiles_choose(&tiles, physical, info->hardware_gpu, &p->limits, &ids);
    info->max_tensor = vk_max_operand(&p->limits, &tiles);

    if (version < VK_API_VERSION_1_2)
        snprintf(info->unavailable, sizeof info->unavailable, "Vulkan %s, and 1.2 is needed", info->api_version);
    else if (find_family(physical) == UINT32_MAX)
        snprintf(info->unavailable, sizeof info->unavailable, "no queue that computes");
    else if (!timeline.timelineSemaphore)
        snprintf(info->unavailable, sizeof info->unavailable, "no timeline semaphores");
    else if (p->limits.maxPerStageDescriptorStorageBuffers < LF_OPERAND_MAX)
        snprintf(info->unavailable, sizeof info->unavailable, "a shader may use %u storage buffers, and %u are needed",
                 p->limits.maxPerStageDescriptorStorageBuffers, LF_OPERAND_MAX);
    return !info->unavailable[0];
}

static size_t set_unavailable(lf_device_info *infos, size_t capacity, const char *why)
{
    if (!capacity)
        return 0;
    infos[0] = (lf_device_info){ .id = "vulkan", .backend = "vulkan" };
    snprintf(infos[0].unavailable, sizeof infos[0].unavailable, "%.*s", (int)sizeof infos[0].unavailable - 1, why);
    return 1;
}

static size_t list(lf_device_info *infos, size_t capacity)
{
    lf_error err = { 0 };
    VkInstance instance = vk_instance_acquire(&err);
    if (!instance)
        return set_unavailable(infos, capacity, err.text);
    VkPhysicalDevice physical[DEVICE_MAX];
    uint32_t count = capacity < DEVICE_MAX ? (uint32_t)capacity : DEVICE_MAX;
    VkResult result = vkEnumeratePhysicalDevices(instance, &count, physical);
    if (result < 0) {
        vk_error(&err, result, "cannot list Vulkan devices");
        count = (uint32_t)set_unavailable(infos, capacity, err.text);
    } else if (!count) {
        count = (uint32_t)set_unavailable(infos, capacity, "the Vulkan drivers find no device");
    } else {
        for (uint32_t i = 0; i < count; i++) {
            infos[i] = (lf_device_info){ 0 };
            describe(physical[i], i, &infos[i]);
        }
    }
    vk_instance_release();
    return count;
}

void vk_tiles_choose(vk_tiles *tiles, VkPhysicalDevice physical, bool hardware, const VkPhysicalDeviceLimits *limits,
                     const VkPhysicalDeviceVulkan11Properties *subgroups)
{
    const char *asked = getenv("LAVAFLOW_TILES"); // for tests and tuning; vk_trials_init reads the rest of it
    if (asked && (!strncmp(asked, "cpu", 3) || !strncmp(asked, "gpu", 3)))
        hardware = asked[0] == 'g';
    if (hardware) {
        *tiles = (vk_tiles){ .lanes = 8,
                             .bands = 8,
                             .rows = 4,
                             .sweep_lanes = 128,
                             .sweep_items = 1,
                             .gather_lanes = 64,
                             .gather_rows = 1,
                             .row_lanes = 32 };
        return;
    }
    // A processor that runs one subgroup a workgroup in vector registers: lavapipe.
    uint32_t lanes = subgroups->subgroupSize;
    VkPhysicalDeviceFeatures features;
    vkGetPhysicalDeviceFeatures(physical, &features);
    bool shuffles = subgroups->subgroupSupportedOperations & VK_SUBGROUP_FEATURE_SHUFFLE_BIT &&
                    subgroups->subgroupSupportedStages & VK_SHADER_STAGE_COMPUTE_BIT && lanes >= 4;
    *tiles = (vk_tiles){ .texel = shuffles && features.shaderInt64 &&
                                  limits->maxPerStageDescriptorStorageImages >= LF_OPERAND_MAX,
                         .lanes = lanes,
                         .bands = 1,
                         .rows = 8,
                         .sweep_lanes = 128,
                         .sweep_items = 8,
                         .gather_lanes = lanes,
                         .gather_rows = lanes < 8 ? lanes : 8,
                         .row_lanes = 1 };
}

bool vk_tiles_is_processor(const vk_tiles *tiles)
{
    return tiles->bands == 1;
}

static bool open_queue(vk_device *dev, lf_error *err)
{
    const float priority = 1;
    VkDeviceQueueCreateInfo queue = { .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                      .queueFamilyIndex = dev->family,
                                      .queueCount = 1,
                                      .pQueuePriorities = &priority };
    VkPhysicalDeviceTimelineSemaphoreFeatures timeline = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES, .timelineSemaphore = VK_TRUE
    };
    VkPhysicalDeviceFeatures features = { .shaderInt64 = dev->tiles.texel }; // shaders/common.glsl
    VkDeviceCreateInfo info = { .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                .pNext = &timeline,
                                .queueCreateInfoCount = 1,
                                .pQueueCreateInfos = &queue,
                                .pEnabledFeatures = &features };
    VkResult result = vkCreateDevice(dev->physical, &info, NULL, &dev->device);
    if (result != VK_SUCCESS)
        return vk_error(err, result, "%s: cannot open the device", dev->properties.deviceName);
    volkLoadDeviceTable(&dev->vk, dev->device);
    dev->vk.vkGetDeviceQueue(dev->device, dev->family, 0, &dev->queue);

    VkCommandPoolCreateInfo pool = { .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                     .queueFamilyIndex = dev->family };
    result = dev->vk.vkCreateCommandPool(dev->device, &pool, NULL, &dev->commands);
    if (result != VK_SUCCESS)
        return vk_error(err, result, "%s: cannot create a command pool", dev->properties.deviceName);
    VkSemaphoreTypeCreateInfo type = { .sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                                       .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE };
    VkSemaphoreCreateInfo semaphore = { .sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = &type };
    result = dev->vk.vkCreateSemaphore(dev->device, &semaphore, NULL, &dev->done);
    if (result != VK_SUCCESS)
        return vk_error(err, result, "%s: cannot create a semaphore", dev->properties.deviceName);
    return true;
}

static void read_properties(vk_device *dev)
{
    VkPhysicalDeviceVulkan11Properties ids = { .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES };
    VkPhysicalDeviceProperties2 all = { .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &ids };
    vkGetPhysicalDeviceProperties2(dev->physical, &all);
    vkGetPhysicalDeviceMemoryProperties(dev->physical, &dev->memory);
    dev->properties = all.properties;
    dev->max_allocation = ids.maxMemoryAllocationSize;
    dev->family = find_family(dev->physical);
    vk_tiles_choose(&dev->tiles, dev->physical, dev->base.info.hardware_gpu, &all.properties.limits, &ids);

    char device[37], driver[37];
    format_uuid(device, ids.deviceUUID);
    format_uuid(driver, all.properties.pipelineCacheUUID);
    snprintf(dev->cache_name, sizeof dev->cache_name, "vulkan-%s-%s", device, driver);
}

static void vk_destroy(lf_device *base)
{
    vk_device *dev = (vk_device *)base;
    if (!dev)
        return;
    if (dev->device) {
        dev->vk.vkDeviceWaitIdle(dev->device);
        vk_kernels_finish(dev);
        vk_staging_destroy(dev);
        dev->vk.vkDestroySemaphore(dev->device, dev->done, NULL);
        dev->vk.vkDestroyCommandPool(dev->device, dev->commands, NULL);
        dev->vk.vkDestroyDevice(dev->device, NULL);
    }
    if (dev->instance)
        vk_instance_release();
    free(dev->trials);
    free(dev);
}

static lf_device *open_device(uint32_t index, unsigned share, lf_error *err)
{
    (void)share;
    static const lf_device_impl impl = {
        .destroy = vk_destroy,
        .buffer_create = vk_buffer_create,
        .buffer_destroy = vk_buffer_destroy,
        .buffer_write = vk_buffer_write,
        .buffer_read = vk_buffer_read,
        .exec_create = vk_exec_create,
        .exec_destroy = vk_exec_destroy,
        .exec_run = vk_exec_run,
        .wait = vk_wait,
    };
    vk_device *dev = calloc(1, sizeof *dev);
    if (!dev) {
        lf_error_set(err, LF_ENOMEM, "vulkan:%u: out of memory", index);
        return NULL;
    }
    dev->base.impl = &impl;
    VkInstance instance = vk_instance_acquire(err);
    if (!instance)
        goto error;
    dev->instance = true;

    VkPhysicalDevice physical[DEVICE_MAX];
    uint32_t count = DEVICE_MAX;
    VkResult result = vkEnumeratePhysicalDevices(instance, &count, physical);
    if (result < 0) {
        vk_error(err, result, "cannot list Vulkan devices");
        goto error;
    }
    if (index >= count) {
        lf_error_set(err, LF_ENOTFOUND, "vulkan:%u: there are %u Vulkan devices", index, count);
        goto error;
    }
    dev->physical = physical[index];
    if (!describe(dev->physical, index, &dev->base.info)) {
        lf_error_set(err, LF_EUNSUPPORTED, "vulkan:%u (%s): %s", index, dev->base.info.name,
                     dev->base.info.unavailable);
        goto error;
    }
    read_properties(dev);
    if (!vk_trials_init(dev, err) || !open_queue(dev, err) || !vk_kernels_init(dev, err))
        goto error;
    return &dev->base;
error:
    vk_destroy(&dev->base);
    return NULL;
}

const lf_backend lf_backend_vulkan = { .name = "vulkan", .list = list, .open = open_device };
