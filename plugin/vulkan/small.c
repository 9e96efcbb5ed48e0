#include "vulkan/small.h"

#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "program/small.h"

enum { DATA, TARGETS, SCALING, ORDER, SCHEDULE, PARAMS, MOMENTS, METRICS, LOGITS, SCRATCH };
_Static_assert(SCRATCH + 1 == KERNEL_SMALL_OPERANDS, "the operands of shaders/small.comp");

enum { UNITS = 4, GROUPS_MAX = 64 }; // hidden units of a workgroup; workgroups
enum { STARTS = 1, FINISHES = 2 };   // a dispatch's stage

struct vk_small {
    VkPipeline pipeline;
    VkDescriptorPool pool;
    VkDescriptorSet set;
    vk_buffer *scratch;
    uint32_t groups, push[PUSH_MAX];
};

// The network, in numbers.
typedef struct shape {
    uint32_t batch, inputs, hidden, outputs, groups;
} shape;

// How a workgroup is cut.
typedef struct cut {
    uint32_t threads, lanes, shares, halves;
} cut;

static uint32_t divide_up(uint32_t n, uint32_t by)
{
    return (n + by - 1) / by;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

// Groups of four words that small.comp keeps in shared memory.
static uint32_t shared_quads(const shape *s, const cut *c)
{
    uint32_t items = s->outputs + 1 + divide_up(s->outputs, 4);
    return 4 * divide_up(s->inputs, 4) + items + 2 * s->batch + 2 * divide_up(s->batch * s->outputs, 4) +
           larger(c->threads, items);
}

static bool has_room(const VkPhysicalDeviceLimits *limits, const shape *s, const cut *c)
{
    uint64_t bytes = (uint64_t)shared_quads(s, c) * 16 + c->threads * sizeof(float) + 2 * s->batch * sizeof(uint32_t);
    return c->threads <= limits->maxComputeWorkGroupInvocations && c->threads <= limits->maxComputeWorkGroupSize[0] &&
           bytes <= limits->maxComputeSharedMemorySize;
}

// On a GPU as many invocations as it can have: eight share a row of the inputs, whose reads then are neighbours, and
// two the batch. On a processor one subgroup, and nothing is shared out, for a barrier costs more than it brings.
static bool choose_cut(const vk_device *dev, const shape *s, cut *c)
{
    const VkPhysicalDeviceLimits *limits = &dev->properties.limits;
    if (vk_tiles_is_processor(&dev->tiles)) {
        *c = (cut){ dev->tiles.lanes, 1, 1, 1 };
        return has_room(limits, s, c);
    }
    uint32_t lanes = 1;
    while (lanes < 32 && lanes * 16 < s->outputs) // few classes are done before lanes have met
        lanes *= 2;
    for (uint32_t threads = 512; threads >= 128; threads /= 2) {
        *c = (cut){ threads, lanes, 8, 2 };
        if (has_room(limits, s, c))
            return true;
    }
    return false;
}

static bool is_asked_for(void)
{
    const char *fuse = getenv("LAVAFLOW_FUSE");
    return fuse && !strcmp(fuse, "1");
}

// Steps of the program may run so: they run whole, and nobody reads the gradients or what stands between the layers.
// Not on a processor unless it is asked for: there a dispatch costs less than the work that every workgroup does over
// again. On lavapipe with two cores a step of 784-128-10 at batch 64 takes 11 ms so, and 1 ms operation by operation;
// of 32-32-10 at batch 64 0.5 and 0.3 ms. Only far below that it gains: 32-16-4 at batch 16, 0.12 and 0.19 ms.
static bool fits(const vk_device *dev, const lf_program *prog, lf_small *model, shape *s, cut *c)
{
    if (!prog->params.fuses || !lf_small_find(prog, model) ||
        dev->properties.limits.maxPerStageDescriptorStorageBuffers < KERNEL_SMALL_OPERANDS)
        return false;
    *s = (shape){ .batch = prog->params.batch,
                  .inputs = model->linear[0]->inputs,
                  .hidden = model->linear[0]->outputs,
                  .outputs = model->loss->outputs };
    s->groups = s->hidden / UNITS;
    if (s->hidden % UNITS || s->groups > GROUPS_MAX || !choose_cut(dev, s, c))
        return false;
    uint64_t most = vk_max_operand(&dev->properties.limits, &dev->tiles);
    for (unsigned i = 0; i < LF_REGION_COUNT; i++)
        if (prog->region_size[i] > most)
            return false;
    return !vk_tiles_is_processor(&dev->tiles) || is_asked_for();
}

static void set_spec(const lf_program *prog, const lf_small *model, const shape *s, const cut *c,
                     uint32_t spec[SPEC_MAX])
{
    lf_dtype stored = lf_op_tensor(prog, model->gather, LF_GATHER_DATA)->type;
    const lf_op *first = model->linear[0], *update = model->update;
    bool adam = model->optimizer == LF_OP_ADAM;
    const uint32_t values[] = { c->threads,
                                c->lanes,
                                s->batch,
                                shared_quads(s, c),
                                c->shares,
                                c->halves,
                                first->activation,
                                first->operands[LF_LINEAR_Z] != LF_NO_TENSOR,
                                8 * (uint32_t)lf_dtype_size(stored) + 256 * vk_stored_kind(stored),
                                s->inputs % 4 == 0,
                                adam ? LF_RULE_ADAM : LF_RULE_SGD,
                                prog->moment[LF_MOMENT_M] != LF_NO_TENSOR,
                                adam ? update->decoupled : update->nesterov };
    memcpy(spec, values, sizeof values);
}

// In words from the start of the region.
static uint32_t place_of_moment(const lf_program *prog, lf_moment moment)
{
    lf_tensor_id id = prog->moment[moment];
    return id == LF_NO_TENSOR ? 0 : (uint32_t)(prog->tensors[id].offset / sizeof(float));
}

static void set_push(const lf_program *prog, const lf_small *model, const shape *s, uint32_t push[PUSH_MAX])
{
    const lf_op *update = model->update, *const *linear = model->linear;
    const uint32_t sizes[] = { s->inputs,
                               s->hidden,
                               s->outputs,
                               lf_small_place(prog, linear[0], LF_LINEAR_KERNEL),
                               lf_small_place(prog, linear[0], LF_LINEAR_BIAS),
                               lf_small_place(prog, linear[1], LF_LINEAR_KERNEL),
                               lf_small_place(prog, linear[1], LF_LINEAR_BIAS),
                               place_of_moment(prog, LF_MOMENT_M),
                               place_of_moment(prog, LF_MOMENT_V) };
    const float rates[] = { linear[0]->alpha,    model->loss->label_smoothing,
                            model->kernel_decay, model->bias_decay,
                            update->momentum,    update->beta1,
                            update->beta2,       1 - update->beta1,
                            1 - update->beta2,   update->eps };
    _Static_assert(2 * sizeof(uint32_t) + sizeof sizes + sizeof rates <= PUSH_MAX * sizeof(uint32_t), "they fit");
    memcpy(push + 2, sizes, sizeof sizes);
    memcpy(push + 2 + sizeof sizes / sizeof *sizes, rates, sizeof rates);
}

static VkDescriptorBufferInfo range_of(const lf_program *prog, vk_buffer *const regions[LF_REGION_COUNT],
                                       lf_tensor_id id)
{
    const lf_tensor *tensor = &prog->tensors[id];
    return (VkDescriptorBufferInfo){ .buffer = regions[tensor->region]->handle,
                                     .offset = tensor->offset,
                                     .range = (lf_tensor_bytes(tensor) + 15) / 16 * 16 };
}

static void write_set(vk_device *dev, const vk_small *small, const lf_program *prog, const lf_small *model,
                      vk_buffer *const regions[LF_REGION_COUNT])
{
    const lf_tensor_id tensors[] = { [DATA] = model->gather->operands[LF_GATHER_DATA],
                                     [TARGETS] = model->gather->operands[LF_GATHER_TARGETS],
                                     [SCALING] = model->gather->operands[LF_GATHER_SCALING],
                                     [ORDER] = model->gather->operands[LF_GATHER_ORDER],
                                     [SCHEDULE] = prog->schedule,
                                     [PARAMS] = prog->weights,
                                     [MOMENTS] = prog->weights, // where there are none, and nothing reads them
                                     [METRICS] = model->loss->operands[LF_LOSS_METRICS],
                                     [LOGITS] = prog->output };
    VkDescriptorBufferInfo ranges[KERNEL_SMALL_OPERANDS];
    VkWriteDescriptorSet writes[KERNEL_SMALL_OPERANDS];
    for (unsigned i = DATA; i < SCRATCH; i++)
        ranges[i] = range_of(prog, regions, tensors[i]);
    if (regions[LF_REGION_MOMENTS])
        ranges[MOMENTS] = (VkDescriptorBufferInfo){ regions[LF_REGION_MOMENTS]->handle, 0, VK_WHOLE_SIZE };
    ranges[SCRATCH] = (VkDescriptorBufferInfo){ small->scratch->handle, 0, VK_WHOLE_SIZE };
    for (unsigned i = 0; i < KERNEL_SMALL_OPERANDS; i++)
        writes[i] = (VkWriteDescriptorSet){ .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                                            .dstSet = small->set,
                                            .dstBinding = i,
                                            .descriptorCount = 1,
                                            .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                            .pBufferInfo = &ranges[i] };
    dev->vk.vkUpdateDescriptorSets(dev->device, KERNEL_SMALL_OPERANDS, writes, 0, NULL);
}

static bool make_set(vk_device *dev, vk_small *small, lf_error *err)
{
    const VkDescriptorPoolSize size = { .type = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                        .descriptorCount = KERNEL_SMALL_OPERANDS };
    VkDescriptorPoolCreateInfo pool = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO, .maxSets = 1, .poolSizeCount = 1, .pPoolSizes = &size
    };
    VkDescriptorSetAllocateInfo set = { .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
                                        .descriptorSetCount = 1,
                                        .pSetLayouts = &dev->kernels[KERNEL_SMALL].set_layout };
    VkResult result = dev->vk.vkCreateDescriptorPool(dev->device, &pool, NULL, &small->pool);
    set.descriptorPool = small->pool;
    if (result == VK_SUCCESS)
        result = dev->vk.vkAllocateDescriptorSets(dev->device, &set, &small->set);
    return result == VK_SUCCESS || vk_error(err, result, "%s: cannot bind the operands of %s",
                                            dev->properties.deviceName, vk_kernel_name(KERNEL_SMALL));
}

bool vk_small_create(vk_device *dev, const lf_program *prog, vk_buffer *const regions[LF_REGION_COUNT], vk_small **made,
                     lf_error *err)
{
    lf_small model;
    shape s;
    cut c;
    uint32_t spec[SPEC_MAX] = { 0 };
    *made = NULL;
    if (!fits(dev, prog, &model, &s, &c))
        return true;
    vk_small *small = calloc(1, sizeof *small);
    if (!small) {
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", dev->properties.deviceName);
        return false;
    }
    small->groups = s.groups;
    set_push(prog, &model, &s, small->push);
    set_spec(prog, &model, &s, &c, spec);
    size_t quads = (size_t)s.groups * 2 * (divide_up(s.batch * s.outputs, 4) + s.batch);
    small->scratch = (vk_buffer *)vk_buffer_create(&dev->base, quads * 16, err);
    small->pipeline = small->scratch ? vk_kernels_pipeline(dev, KERNEL_SMALL, spec, err) : VK_NULL_HANDLE;
    if (!small->pipeline || !make_set(dev, small, err)) {
        vk_small_destroy(dev, small);
        return false;
    }
    write_set(dev, small, prog, &model, regions);
    *made = small;
    return true;
}

void vk_small_destroy(vk_device *dev, vk_small *small)
{
    if (!small)
        return;
    dev->vk.vkDestroyDescriptorPool(dev->device, small->pool, NULL);
    vk_buffer_destroy(&dev->base, (lf_buffer *)small->scratch);
    free(small);
}

uint64_t vk_small_record(vk_device *dev, const vk_small *small, VkCommandBuffer commands, uint32_t steps)
{
    VkPipelineLayout layout = dev->kernels[KERNEL_SMALL].layout;
    uint32_t push[PUSH_MAX];
    memcpy(push, small->push, sizeof push);
    dev->vk.vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, small->pipeline);
    dev->vk.vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, layout, 0, 1, &small->set, 0, NULL);
    for (uint32_t step = 0; step <= steps; step++) {
        if (step)
            vk_compute_barrier(dev, commands);
        push[0] = step;
        push[1] = (step < steps ? STARTS : 0) | (step ? FINISHES : 0);
        dev->vk.vkCmdPushConstants(commands, layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof push, push);
        dev->vk.vkCmdDispatch(commands, small->groups, 1, 1);
    }
    return (uint64_t)steps + 1;
}
