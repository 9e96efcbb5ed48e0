// The rows of several steps gathered by one dispatch. A gather is short, and whatever its length it costs a launch and
// a wait, so where batches are small it fetches what the next steps read too, each step's rows into a slot of their
// own.
#ifndef LF_VULKAN_AHEAD_H
#define LF_VULKAN_AHEAD_H

#include "vulkan/internal.h"

#define VK_AHEAD_MAX 8

typedef struct vk_ahead {
    uint32_t steps;        // slots; 1: the rows stand where the program says
    lf_tensor_id fills[2]; // what a gather fills, the second LF_NO_TENSOR where there are no targets
    size_t slot[2];        // bytes of a slot of each; all slots of the first stand before those of the second
    vk_buffer *rows;
} vk_ahead;

// One slot where the program does not fuse, works in shards, or has large batches. False on failure.
bool vk_ahead_create(vk_device *dev, const lf_program *prog, vk_ahead *ahead, lf_error *err);
// Nothing that was recorded is pending any more.
void vk_ahead_destroy(vk_device *dev, vk_ahead *ahead);
// Moves those operands of a call that the gather fills to `slot`; the gather itself, placed at slot 0, fills all slots.
// False: there are none, and the call is the same for all slots.
bool vk_ahead_place(const vk_ahead *ahead, const lf_op *op, uint32_t slot, vk_call *call);

#endif
