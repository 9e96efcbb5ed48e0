#include "vulkan/ahead.h"

// Of all slots together, so that they stay in a cache beside what else a step touches. Any device can bind as much.
#define MOST_BYTES ((size_t)1 << 20)

static size_t slot_bytes(const lf_program *prog, lf_tensor_id id)
{
    return id == LF_NO_TENSOR ? 0 : (lf_tensor_bytes(&prog->tensors[id]) + 255) / 256 * 256;
}

bool vk_ahead_create(vk_device *dev, const lf_program *prog, vk_ahead *ahead, lf_error *err)
{
    const lf_op *gather = &prog->ops[0];
    *ahead = (vk_ahead){ .steps = 1 };
    if (!prog->params.fuses || prog->params.shards > 1 || gather->kind != LF_OP_GATHER)
        return true;
    ahead->fills[0] = gather->operands[LF_GATHER_X];
    ahead->fills[1] = gather->operands[LF_GATHER_Y];
    size_t bytes = 0;
    for (unsigned i = 0; i < 2; i++)
        bytes += ahead->slot[i] = slot_bytes(prog, ahead->fills[i]);
    while (ahead->steps < VK_AHEAD_MAX && 2 * ahead->steps * bytes <= MOST_BYTES)
        ahead->steps *= 2;
    if (ahead->steps > 1)
        ahead->rows = (vk_buffer *)vk_buffer_create(&dev->base, ahead->steps * bytes, err);
    return ahead->steps == 1 || ahead->rows;
}

void vk_ahead_destroy(vk_device *dev, vk_ahead *ahead)
{
    if (ahead->rows)
        vk_buffer_destroy(&dev->base, &ahead->rows->base);
}

bool vk_ahead_place(const vk_ahead *ahead, const lf_op *op, uint32_t slot, vk_call *call)
{
    bool any = false;
    for (unsigned i = 0; ahead->steps > 1 && i < LF_OPERAND_MAX; i++)
        for (unsigned k = 0; k < 2; k++) {
            if (op->operands[i] == LF_NO_TENSOR || op->operands[i] != ahead->fills[k])
                continue;
            any = true;
            call->operands[i].region = REGION_AHEAD;
            call->operands[i].offset = (k ? ahead->steps * ahead->slot[0] : 0) + slot * ahead->slot[k];
            if (op->kind == LF_OP_GATHER) {
                call->operands[i].size = ahead->steps * ahead->slot[k];
                call->push[GATHER_PUSH_SLOTS + k] = (uint32_t)(ahead->slot[k] / sizeof(float));
            }
        }
    return any;
}
