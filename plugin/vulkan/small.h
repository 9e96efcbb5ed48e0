// Small programs (program/small.h) as one dispatch a step: see shaders/small.comp.
#ifndef LF_VULKAN_SMALL_H
#define LF_VULKAN_SMALL_H

#include "vulkan/internal.h"

typedef struct vk_small vk_small;

// False on failure. *small is NULL where the program is not one, does not fit the device, or would not run faster so.
bool vk_small_create(vk_device *dev, const lf_program *prog, vk_buffer *const regions[LF_REGION_COUNT],
                     vk_small **small, lf_error *err);
// Nothing that was recorded is pending any more.
void vk_small_destroy(vk_device *dev, vk_small *small);
// Records whole steps, without the barriers before and behind them, and without moving the schedule's counter. Returns
// the number of dispatches.
uint64_t vk_small_record(vk_device *dev, const vk_small *small, VkCommandBuffer commands, uint32_t steps);

#endif
