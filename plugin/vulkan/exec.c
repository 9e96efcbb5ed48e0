// A program on a device: descriptor sets made once, command buffers recorded once for each (first segment, last, steps)
// and then only submitted.
#include <stdlib.h>
#include <string.h>

#include "vulkan/ahead.h"
#include "vulkan/small.h"

#define RECORDING_MAX 16

typedef struct vk_dispatch {
    VkPipeline pipeline;
    VkPipelineLayout layout;
    VkDescriptorSet sets[VK_AHEAD_MAX]; // by slot; all the same one where the operands do not move
    uint32_t groups[2];
    uint32_t push[PUSH_MAX];
    uint32_t segment;
    bool barrier;
    bool gathers; // for the following slots too
} vk_dispatch;

typedef struct vk_recording {
    VkCommandBuffer commands; // null: the slot is free
    uint32_t first, last;     // segments
    uint32_t steps;
    uint64_t dispatches;
    uint64_t submission; // the last one that it was part of
    uint64_t run;        // of the exec, when it was last used
} vk_recording;

typedef struct vk_exec {
    lf_program *program;                     // fused
    vk_buffer *regions[LF_REGION_COUNT + 1]; // borrowed, but for the last: REGION_AHEAD
    vk_ahead ahead;
    VkDescriptorPool pool;
    vk_dispatch *dispatches; // in order of execution
    size_t dispatch_count;
    vk_dispatch advance;
    vk_small *small; // whole steps; NULL: as dispatches
    VkBufferView *views;
    size_t view_count;
    vk_recording recordings[RECORDING_MAX];
    uint64_t runs;
} vk_exec;

// ---- submitting and waiting

VkCommandBuffer vk_commands_begin(vk_device *dev, VkCommandBufferUsageFlags usage, lf_error *err)
{
    VkCommandBuffer commands = VK_NULL_HANDLE;
    VkCommandBufferAllocateInfo info = { .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                         .commandPool = dev->commands,
                                         .commandBufferCount = 1 };
    VkCommandBufferBeginInfo begin = { .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO, .flags = usage };
    VkResult result = dev->vk.vkAllocateCommandBuffers(dev->device, &info, &commands);
    if (result == VK_SUCCESS)
        result = dev->vk.vkBeginCommandBuffer(commands, &begin);
    if (result == VK_SUCCESS)
        return commands;
    vk_error(err, result, "%s: cannot begin a command buffer", dev->properties.deviceName);
    vk_commands_free(dev, commands);
    return VK_NULL_HANDLE;
}

bool vk_commands_end(vk_device *dev, VkCommandBuffer commands, lf_error *err)
{
    VkResult result = dev->vk.vkEndCommandBuffer(commands);
    return result == VK_SUCCESS || vk_error(err, result, "%s: cannot record commands", dev->properties.deviceName);
}

void vk_commands_free(vk_device *dev, VkCommandBuffer commands)
{
    if (commands)
        dev->vk.vkFreeCommandBuffers(dev->device, dev->commands, 1, &commands);
}

void vk_barrier(vk_device *dev, VkCommandBuffer commands)
{
    const VkPipelineStageFlags stages =
        VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT | VK_PIPELINE_STAGE_HOST_BIT;
    VkMemoryBarrier all = { .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                            .srcAccessMask =
                                VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT | VK_ACCESS_HOST_WRITE_BIT,
                            .dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT |
                                             VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT |
                                             VK_ACCESS_HOST_READ_BIT };
    dev->vk.vkCmdPipelineBarrier(commands, stages, stages, 0, 1, &all, 0, NULL, 0, NULL);
}

void vk_compute_barrier(vk_device *dev, VkCommandBuffer commands)
{
    VkMemoryBarrier barrier = { .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                                .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT,
                                .dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT };
    dev->vk.vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                                 0, 1, &barrier, 0, NULL, 0, NULL);
}

bool vk_submit(vk_device *dev, VkCommandBuffer commands, lf_error *err)
{
    const uint64_t number = dev->submitted + 1;
    VkTimelineSemaphoreSubmitInfo timeline = { .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
                                               .signalSemaphoreValueCount = 1,
                                               .pSignalSemaphoreValues = &number };
    VkSubmitInfo info = { .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                          .pNext = &timeline,
                          .commandBufferCount = 1,
                          .pCommandBuffers = &commands,
                          .signalSemaphoreCount = 1,
                          .pSignalSemaphores = &dev->done };
    VkResult result = dev->vk.vkQueueSubmit(dev->queue, 1, &info, VK_NULL_HANDLE);
    if (result != VK_SUCCESS)
        return vk_error(err, result, "%s: cannot submit commands", dev->properties.deviceName);
    dev->submitted = number;
    return true;
}

bool vk_wait_for(vk_device *dev, uint64_t submission, lf_error *err)
{
    VkSemaphoreWaitInfo info = { .sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
                                 .semaphoreCount = 1,
                                 .pSemaphores = &dev->done,
                                 .pValues = &submission };
    VkResult result = submission ? dev->vk.vkWaitSemaphores(dev->device, &info, UINT64_MAX) : VK_SUCCESS;
    return result == VK_SUCCESS || vk_error(err, result, "%s: the work did not finish", dev->properties.deviceName);
}

bool vk_wait(lf_device *base, lf_error *err)
{
    vk_device *dev = (vk_device *)base;
    return vk_wait_for(dev, dev->submitted, err) && vk_validation_check(err);
}

// ---- making

static VkBufferView add_view(vk_device *dev, vk_exec *exec, const VkDescriptorBufferInfo *range, vk_view view,
                             lf_error *err)
{
    static const VkFormat formats[] = { [VIEW_FLOAT] = VK_FORMAT_R32_SFLOAT,
                                        [VIEW_FLOAT4] = VK_FORMAT_R32G32B32A32_SFLOAT,
                                        [VIEW_WORD] = VK_FORMAT_R32_UINT,
                                        [VIEW_WORD4] = VK_FORMAT_R32G32B32A32_UINT };
    VkBufferViewCreateInfo info = { .sType = VK_STRUCTURE_TYPE_BUFFER_VIEW_CREATE_INFO,
                                    .buffer = range->buffer,
                                    .format = formats[view],
                                    .offset = range->offset,
                                    .range = range->range };
    VkBufferView made = VK_NULL_HANDLE;
    VkResult result = dev->vk.vkCreateBufferView(dev->device, &info, NULL, &made);
    if (result != VK_SUCCESS)
        vk_error(err, result, "%s: cannot view %llu bytes of a buffer", dev->properties.deviceName,
                 (unsigned long long)range->range);
    else
        exec->views[exec->view_count++] = made;
    return made;
}

// Which operand's memory stands for one that is absent, and that the kernel leaves alone: one that is written if it
// would be, so that no hazard appears where the program has none.
static unsigned find_stand_in(const vk_call *call, unsigned operand)
{
    const lf_operand_info *infos = call->kernel == KERNEL_ADVANCE ? NULL : lf_op_info_of(call->kernel)->operands;
    if (call->operands[operand].size)
        return operand;
    unsigned other = 0;
    while (!call->operands[other].size || infos[other].written != infos[operand].written)
        other++;
    return other;
}

static bool write_set(vk_device *dev, vk_exec *exec, const vk_call *call, VkDescriptorSet set, lf_error *err)
{
    VkDescriptorSetLayoutBinding bindings[BINDING_MAX];
    VkDescriptorBufferInfo ranges[BINDING_MAX];
    VkBufferView views[BINDING_MAX];
    VkWriteDescriptorSet writes[BINDING_MAX];
    uint32_t count = vk_kernel_bindings(call->kernel, dev->tiles.texel, bindings);
    for (uint32_t i = 0; i < count; i++) {
        unsigned operand = bindings[i].binding % LF_OPERAND_MAX, memory = find_stand_in(call, operand);
        ranges[i] = (VkDescriptorBufferInfo){ .buffer = exec->regions[call->operands[memory].region]->handle,
                                              .offset = call->operands[memory].offset,
                                              .range = call->operands[memory].size };
        writes[i] = (VkWriteDescriptorSet){ .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                                            .dstSet = set,
                                            .dstBinding = bindings[i].binding,
                                            .descriptorCount = 1,
                                            .descriptorType = bindings[i].descriptorType,
                                            .pBufferInfo = &ranges[i],
                                            .pTexelBufferView = &views[i] };
        if (bindings[i].descriptorType != VK_DESCRIPTOR_TYPE_STORAGE_TEXEL_BUFFER)
            continue;
        views[i] = add_view(dev, exec, &ranges[i], call->operands[operand].view, err);
        if (!views[i])
            return false;
    }
    dev->vk.vkUpdateDescriptorSets(dev->device, count, writes, 0, NULL);
    return true;
}

static bool make_set(vk_device *dev, vk_exec *exec, const vk_call *call, VkDescriptorSet *set, lf_error *err)
{
    VkDescriptorSetAllocateInfo info = { .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
                                         .descriptorPool = exec->pool,
                                         .descriptorSetCount = 1,
                                         .pSetLayouts = &dev->kernels[call->kernel].set_layout };
    VkResult result = dev->vk.vkAllocateDescriptorSets(dev->device, &info, set);
    if (result != VK_SUCCESS)
        return vk_error(err, result, "%s: cannot bind the operands of %s", dev->properties.deviceName,
                        vk_kernel_name(call->kernel));
    return write_set(dev, exec, call, *set, err);
}

// `op` is NULL where the call is none of the program's.
static bool make_dispatch(vk_device *dev, vk_exec *exec, const lf_op *op, vk_call *call, vk_dispatch *made,
                          lf_error *err)
{
    bool moves = op && vk_ahead_place(&exec->ahead, op, 0, call);
    made->gathers = moves && op->kind == LF_OP_GATHER;
    made->pipeline = vk_kernels_pipeline(dev, call->kernel, call->spec, err);
    if (!made->pipeline)
        return false;
    made->layout = dev->kernels[call->kernel].layout;
    memcpy(made->groups, call->groups, sizeof made->groups);
    memcpy(made->push, call->push, sizeof made->push);
    const uint32_t own = moves && !made->gathers ? exec->ahead.steps : 1;
    for (uint32_t slot = 0; slot < VK_AHEAD_MAX; slot++) {
        if (slot && slot < own)
            vk_ahead_place(&exec->ahead, op, slot, call);
        made->sets[slot] = made->sets[0];
        if (slot < own && !make_set(dev, exec, call, &made->sets[slot], err))
            return false;
    }
    return true;
}

static bool make_room(vk_device *dev, vk_exec *exec, size_t dispatches, lf_error *err)
{
    exec->dispatches = calloc(dispatches, sizeof *exec->dispatches);
    exec->views = calloc((exec->ahead.steps * dispatches + 1) * LF_OPERAND_MAX, sizeof *exec->views);
    if (!exec->dispatches || !exec->views) {
        lf_error_set(err, LF_ENOMEM, "%s: a program of %zu dispatches: out of memory", dev->properties.deviceName,
                     dispatches);
        return false;
    }
    const uint32_t sets = exec->ahead.steps * (uint32_t)dispatches + 1;
    const VkDescriptorPoolSize sizes[] = {
        { .type = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, .descriptorCount = sets * LF_OPERAND_MAX },
        { .type = VK_DESCRIPTOR_TYPE_STORAGE_TEXEL_BUFFER, .descriptorCount = sets * LF_OPERAND_MAX },
    };
    VkDescriptorPoolCreateInfo info = { .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
                                        .maxSets = sets,
                                        .poolSizeCount = dev->tiles.texel ? 2 : 1,
                                        .pPoolSizes = sizes };
    VkResult result = dev->vk.vkCreateDescriptorPool(dev->device, &info, NULL, &exec->pool);
    return result == VK_SUCCESS ||
           vk_error(err, result, "%s: cannot create a pool of %u descriptor sets", dev->properties.deviceName, sets);
}

lf_exec *vk_exec_create(lf_device *base, const lf_program *prog, const lf_bindings *regions, lf_error *err)
{
    vk_device *dev = (vk_device *)base;
    vk_call call;
    size_t dispatches = 0;
    vk_exec *exec = calloc(1, sizeof *exec);
    if (!exec) {
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", dev->properties.deviceName);
        return NULL;
    }
    for (unsigned i = 0; i < LF_REGION_COUNT; i++)
        exec->regions[i] = (vk_buffer *)regions->region[i];
    if (prog->real != LF_F32) {
        lf_error_set(err, LF_EUNSUPPORTED, "%s: a program in %s, and only f32 is possible here",
                     dev->properties.deviceName, lf_dtype_name(prog->real));
        goto error;
    }
    if (!vk_small_create(dev, prog, exec->regions, &exec->small, err))
        goto error;
    exec->program = lf_program_fuse(prog, VK_CLASSES_MAX, err);
    if (!exec->program)
        goto error;
    prog = exec->program;
    exec->ahead.steps = 1;
    if (!exec->small) {
        vk_trials_run(dev, prog);
        if (!vk_ahead_create(dev, prog, &exec->ahead, err))
            goto error;
    }
    exec->regions[REGION_AHEAD] = exec->ahead.rows;
    for (size_t i = 0; i < prog->op_count; i++) {
        uint32_t parts = vk_lower_count(dev, prog, &prog->ops[i], err);
        if (!parts)
            goto error;
        dispatches += parts;
    }
    if (!make_room(dev, exec, dispatches, err))
        goto error;
    for (size_t i = 0; i < prog->op_count; i++) {
        const lf_op *op = &prog->ops[i];
        uint32_t parts = vk_lower_count(dev, prog, op, err);
        for (uint32_t part = 0; part < parts; part++) {
            vk_dispatch *made = &exec->dispatches[exec->dispatch_count++];
            vk_lower(dev, prog, op, part, &call);
            if (!make_dispatch(dev, exec, op, &call, made, err))
                goto error;
            made->segment = op->segment;
            made->barrier = op->barrier && part == 0; // the parts touch different memory
        }
    }
    vk_lower_advance(prog, &call);
    if (!make_dispatch(dev, exec, NULL, &call, &exec->advance, err) || !vk_validation_check(err))
        goto error;
    return (lf_exec *)exec;
error:
    vk_exec_destroy(base, (lf_exec *)exec);
    return NULL;
}

void vk_exec_destroy(lf_device *base, lf_exec *head)
{
    vk_device *dev = (vk_device *)base;
    vk_exec *exec = (vk_exec *)head;
    if (!exec)
        return;
    for (unsigned i = 0; i < RECORDING_MAX; i++) {
        vk_wait_for(dev, exec->recordings[i].submission, NULL); // a lost device has nothing pending
        vk_commands_free(dev, exec->recordings[i].commands);
    }
    vk_small_destroy(dev, exec->small);
    vk_ahead_destroy(dev, &exec->ahead);
    dev->vk.vkDestroyDescriptorPool(dev->device, exec->pool, NULL);
    for (size_t i = 0; i < exec->view_count; i++)
        dev->vk.vkDestroyBufferView(dev->device, exec->views[i], NULL);
    lf_program_destroy(exec->program);
    free(exec->views);
    free(exec->dispatches);
    free(exec);
}

// ---- recording and running

// `steps`: how many a gather serves, 1 for all else; `slot`: where the first one's rows stand.
static void record_dispatch(vk_device *dev, VkCommandBuffer commands, const vk_dispatch *d, uint32_t step,
                            uint32_t slot, uint32_t steps)
{
    uint32_t push[PUSH_MAX];
    memcpy(push, d->push, sizeof push);
    push[0] = step;
    dev->vk.vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, d->pipeline);
    dev->vk.vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, d->layout, 0, 1, &d->sets[slot], 0, NULL);
    dev->vk.vkCmdPushConstants(commands, d->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof push, push);
    dev->vk.vkCmdDispatch(commands, d->groups[0], d->groups[1], steps);
}

static bool is_last(const vk_exec *exec, uint32_t segment)
{
    return segment >= exec->dispatches[exec->dispatch_count - 1].segment;
}

static void record_steps(vk_device *dev, const vk_exec *exec, vk_recording *recording, VkCommandBuffer commands)
{
    // The program's barriers also part a step from the next, but only where all of it runs: fewer operations touch
    // memory in another order.
    bool whole = recording->first == 0 && is_last(exec, recording->last);
    recording->dispatches = 0;
    if (whole && exec->small) {
        recording->dispatches = vk_small_record(dev, exec->small, commands, recording->steps);
        return;
    }
    const uint32_t slots = whole ? exec->ahead.steps : 1;
    for (uint32_t step = 0; step < recording->steps; step++) {
        uint32_t slot = step % slots, rest = recording->steps - step, served = rest < slots ? rest : slots;
        bool barrier = step && !whole;
        for (size_t i = 0; i < exec->dispatch_count; i++) {
            const vk_dispatch *d = &exec->dispatches[i];
            if (d->segment < recording->first || d->segment > recording->last)
                continue;
            barrier |= d->barrier && recording->dispatches;
            if (d->gathers && slot)
                continue; // done
            if (barrier)
                vk_compute_barrier(dev, commands);
            record_dispatch(dev, commands, d, step, slot, d->gathers ? served : 1);
            recording->dispatches++;
            barrier = false;
        }
    }
}

static bool record(vk_device *dev, vk_exec *exec, vk_recording *recording, lf_error *err)
{
    VkCommandBuffer commands = vk_commands_begin(dev, VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT, err);
    if (!commands)
        return false;
    vk_barrier(dev, commands); // what earlier submissions wrote
    record_steps(dev, exec, recording, commands);
    if (is_last(exec, recording->last)) {
        vk_dispatch advance = exec->advance;
        advance.push[1] = recording->steps;
        vk_compute_barrier(dev, commands); // every step has read the counter
        record_dispatch(dev, commands, &advance, 0, 0, 1);
        recording->dispatches++;
    }
    vk_barrier(dev, commands); // the host may read
    if (!vk_commands_end(dev, commands, err)) {
        vk_commands_free(dev, commands);
        return false;
    }
    recording->commands = commands;
    return true;
}

// The recording of this stretch, made anew in the place of the least recently used one if there is none.
static vk_recording *find_recording(vk_device *dev, vk_exec *exec, uint32_t first, uint32_t last, uint32_t steps,
                                    lf_error *err)
{
    vk_recording *oldest = &exec->recordings[0];
    for (unsigned i = 0; i < RECORDING_MAX; i++) {
        vk_recording *r = &exec->recordings[i];
        if (r->commands && r->first == first && r->last == last && r->steps == steps)
            return r;
        if (r->run < oldest->run)
            oldest = r;
    }
    if (!vk_wait_for(dev, oldest->submission, err))
        return NULL;
    vk_commands_free(dev, oldest->commands);
    *oldest = (vk_recording){ .first = first, .last = last, .steps = steps };
    return record(dev, exec, oldest, err) ? oldest : NULL;
}

bool vk_exec_run(lf_device *base, lf_exec *head, uint32_t first, uint32_t last, uint32_t steps, lf_error *err)
{
    vk_device *dev = (vk_device *)base;
    vk_exec *exec = (vk_exec *)head;
    vk_recording *recording = find_recording(dev, exec, first, last, steps, err);
    if (!recording || !vk_submit(dev, recording->commands, err))
        return false;
    recording->submission = dev->submitted;
    recording->run = ++exec->runs;
    for (unsigned i = 0; i < LF_REGION_COUNT; i++)
        if (exec->regions[i])
            exec->regions[i]->last_use = dev->submitted;
    dev->base.submissions++;
    dev->base.dispatches += recording->dispatches;
    return vk_validation_check(err);
}
