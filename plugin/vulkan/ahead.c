#include "vulkan/ahead.h"

#include <string.h>

// Of all slots together, so that they stay in a cache beside what else a step touches.
#define MOST_BYTES ((size_t)1 << 20)

static size_t slot_bytes(const lf_program *prog, lf_tensor_id id)
{
    return id == LF_NO_TENSOR ? 0 : (lf_tensor_bytes(&prog->tensors[id]) + 255) / 256 * 256;
}

// The program's only gather, if it is one of whole batches; else NULL.
static const lf_op *find_gather(const lf_program *prog)
{
    const lf_op *found = NULL;
    for (size_t i = 0; i < prog->op_count; i++) {
        if (prog->ops[i].kind != LF_OP_GATHER)
            continue;
        if (found)
            return NULL;
        found = &prog->ops[i];
    }
    return found && prog->params.fuses && found->rows == prog->params.batch ? found : NULL;
}

bool vk_ahead_create(vk_device *dev, const lf_program *prog, vk_ahead *ahead, lf_error *err)
{
    const lf_op *gather = find_gather(prog);
    *ahead = (vk_ahead){ .steps = 1 };
    if (!gather)
        return true;
    ahead->fills[0] = gather->operands[LF_GATHER_X];
    ahead->fills[1] = gather->operands[LF_GATHER_Y];
    size_t bytes = 0, operand = vk_max_operand(&dev->properties.limits, &dev->tiles);
    for (unsigned i = 0; i < 2; i++)
        bytes += ahead->slot[i] = slot_bytes(prog, ahead->fills[i]);
    while (ahead->steps < VK_AHEAD_MAX && 2 * ahead->steps * bytes <= MOST_BYTES && 2 * ahead->steps * bytes <= operand)
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
                call->operands[i].size = (ahead->steps - slot) * ahead->slot[k];
                call->push[GATHER_PUSH_SLOTS + k] = (uint32_t)(ahead->slot[k] / sizeof(float));
            }
        }
    return any;
}
