// The kernels as pipelines. A pipeline is made when a program first needs it, with its sizes as specialization
// constants, and lives as long as the device.
#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "spirv.h"
#include "vulkan/internal.h"

typedef struct spirv {
    const uint32_t *words;
    size_t size; // bytes
} spirv;

#define BOTH(name)                                                                                                     \
    {                                                                                                                  \
        { spirv_##name##_storage, sizeof spirv_##name##_storage },                                                     \
        {                                                                                                              \
            spirv_##name##_texel, sizeof spirv_##name##_texel                                                          \
        }                                                                                                              \
    }

static const spirv codes[][2] = {
    // by how operands are read: storage buffers, texel buffers
    [LF_OP_GATHER] = BOTH(gather),
    [LF_OP_LINEAR] = BOTH(linear),
    [LF_OP_ACTIVATION] = BOTH(activation),
    [LF_OP_CROSS_ENTROPY] = BOTH(cross_entropy),
    [LF_OP_VALUE_LOSS] = BOTH(value_loss),
    [LF_OP_ACTIVATION_DX] = BOTH(activation_dx),
    [LF_OP_LINEAR_DX] = BOTH(linear_dx),
    [LF_OP_LINEAR_DW] = BOTH(linear_dw),
    [LF_OP_LINEAR_UPDATE] = BOTH(linear_update),
    [LF_OP_LINEAR_LOSS] = BOTH(linear_loss),
    [LF_OP_SGD] = BOTH(sgd),
    [LF_OP_ADAM] = BOTH(adam),
    [LF_OP_RMSPROP] = BOTH(rmsprop),
    [LF_OP_LION] = BOTH(lion),
    [LF_OP_LAMB] = BOTH(lamb),
    [LF_OP_DROPOUT] = BOTH(dropout),
    [LF_OP_ADD] = BOTH(add),
    [LF_OP_LAYER_NORM] = BOTH(layer_norm),
    [LF_OP_LAYER_NORM_DX] = BOTH(layer_norm_dx),
    [LF_OP_BATCH_STATS] = BOTH(batch_stats),
    [LF_OP_BATCH_NORM] = BOTH(batch_norm),
    [LF_OP_BATCH_NORM_DX] = BOTH(batch_norm_dx),
    [LF_OP_NORM_DW] = BOTH(norm_dw),
    [LF_OP_GATHER_ROWS] = BOTH(gather_rows),
    [LF_OP_DISTILL] = BOTH(distill),
    [LF_OP_SOFTEN] = BOTH(soften),
    [LF_OP_ACCUMULATE] = BOTH(accumulate),
    [LF_OP_SUM_SQUARES] = BOTH(sum_squares),
    [LF_OP_CLIP] = BOTH(clip),
    [LF_OP_TRUST] = BOTH(trust),
    [LF_OP_AVERAGE] = BOTH(average),
    [LF_OP_SUM] = BOTH(sum),
    [LF_OP_COLUMN_SUMS] = BOTH(column_sums),
    [LF_OP_BATCH_TOTALS] = BOTH(batch_totals),
    [KERNEL_ADVANCE] = BOTH(advance),
    [KERNEL_SMALL] = BOTH(small),
};
_Static_assert(sizeof codes / sizeof *codes == KERNEL_COUNT, "code for each kernel");
_Static_assert(LF_OPERAND_MAX == 9, "shaders/common.glsl counts the texel buffers from the same number");

const char *vk_kernel_name(unsigned kernel)
{
    return kernel == KERNEL_ADVANCE ? "advance" : kernel == KERNEL_SMALL ? "small" : lf_op_info_of(kernel)->name;
}

void vk_kernels_digest(char hex[65])
{
    hex[0] = 0;
    lf_hash *hash = lf_hash_create(NULL);
    if (!hash)
        return;
    for (unsigned i = 0; i < KERNEL_COUNT; i++)
        for (unsigned reads = 0; reads < 2; reads++)
            lf_hash_update(hash, codes[i][reads].words, codes[i][reads].size);
    lf_hash_finish(hash, hex);
    lf_hash_destroy(hash);
}

static VkDescriptorSetLayoutBinding binding_of(uint32_t number, VkDescriptorType type)
{
    return (VkDescriptorSetLayoutBinding){
        .binding = number, .descriptorType = type, .descriptorCount = 1, .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT
    };
}

uint32_t vk_kernel_bindings(unsigned kernel, bool texel, VkDescriptorSetLayoutBinding bindings[BINDING_MAX])
{
    // What is not an operation reads no texel buffers.
    static const lf_operand_info own = { .role = "own", .written = true };
    uint32_t count = 0, operands = kernel == KERNEL_ADVANCE ? 1
                                   : kernel == KERNEL_SMALL ? KERNEL_SMALL_OPERANDS
                                                            : LF_OPERAND_MAX;
    for (uint32_t i = 0; i < operands; i++) {
        const lf_operand_info *info = kernel < LF_OP_COUNT ? &lf_op_info_of(kernel)->operands[i] : &own;
        if (!info->role)
            break;
        if (info->written || !texel)
            bindings[count++] = binding_of(i, VK_DESCRIPTOR_TYPE_STORAGE_BUFFER);
        if (info->read && texel)
            bindings[count++] = binding_of(LF_OPERAND_MAX + i, VK_DESCRIPTOR_TYPE_STORAGE_TEXEL_BUFFER);
    }
    return count;
}

static bool kernel_init(vk_device *dev, unsigned kernel, lf_error *err)
{
    vk_kernel *k = &dev->kernels[kernel];
    const spirv *code = &codes[kernel][dev->tiles.texel];
    VkShaderModuleCreateInfo module = { .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
                                        .codeSize = code->size,
                                        .pCode = code->words };
    VkResult result = dev->vk.vkCreateShaderModule(dev->device, &module, NULL, &k->module);
    if (result != VK_SUCCESS)
        goto error;
    VkDescriptorSetLayoutBinding bindings[BINDING_MAX];
    VkDescriptorSetLayoutCreateInfo set = { .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
                                            .bindingCount = vk_kernel_bindings(kernel, dev->tiles.texel, bindings),
                                            .pBindings = bindings };
    result = dev->vk.vkCreateDescriptorSetLayout(dev->device, &set, NULL, &k->set_layout);
    if (result != VK_SUCCESS)
        goto error;
    VkPushConstantRange push = { .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT, .size = PUSH_MAX * sizeof(uint32_t) };
    VkPipelineLayoutCreateInfo layout = { .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                          .setLayoutCount = 1,
                                          .pSetLayouts = &k->set_layout,
                                          .pushConstantRangeCount = 1,
                                          .pPushConstantRanges = &push };
    result = dev->vk.vkCreatePipelineLayout(dev->device, &layout, NULL, &k->layout);
    if (result == VK_SUCCESS)
        return true;
error:
    return vk_error(err, result, "%s: kernel %s", dev->properties.deviceName, vk_kernel_name(kernel));
}

bool vk_kernels_init(vk_device *dev, lf_error *err)
{
    for (unsigned i = 0; i < KERNEL_COUNT; i++)
        if (!kernel_init(dev, i, err))
            return false;
    size_t size = 0;
    void *bytes = vk_kernel_cache_load(dev->cache_name, &size);
    VkPipelineCacheCreateInfo info = { .sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO,
                                       .initialDataSize = bytes ? size : 0,
                                       .pInitialData = bytes };
    VkResult result = dev->vk.vkCreatePipelineCache(dev->device, &info, NULL, &dev->cache);
    dev->cache_size = bytes ? size : 0;
    free(bytes);
    return result == VK_SUCCESS ||
           vk_error(err, result, "%s: cannot create a pipeline cache", dev->properties.deviceName);
}

static void save_cache(vk_device *dev)
{
    size_t size = 0;
    if (dev->vk.vkGetPipelineCacheData(dev->device, dev->cache, &size, NULL) != VK_SUCCESS || size <= dev->cache_size)
        return; // it never shrinks, so nothing is new
    void *bytes = malloc(size ? size : 1);
    if (bytes && dev->vk.vkGetPipelineCacheData(dev->device, dev->cache, &size, bytes) == VK_SUCCESS && size)
        vk_kernel_cache_save(dev->cache_name, bytes, size);
    free(bytes);
}

void vk_kernels_finish(vk_device *dev)
{
    if (dev->cache)
        save_cache(dev);
    for (size_t i = 0; i < dev->pipeline_count; i++)
        dev->vk.vkDestroyPipeline(dev->device, dev->pipelines[i].handle, NULL);
    free(dev->pipelines);
    dev->vk.vkDestroyPipelineCache(dev->device, dev->cache, NULL);
    for (unsigned i = 0; i < KERNEL_COUNT; i++) {
        dev->vk.vkDestroyPipelineLayout(dev->device, dev->kernels[i].layout, NULL);
        dev->vk.vkDestroyDescriptorSetLayout(dev->device, dev->kernels[i].set_layout, NULL);
        dev->vk.vkDestroyShaderModule(dev->device, dev->kernels[i].module, NULL);
    }
}

VkPipeline vk_kernels_pipeline(vk_device *dev, unsigned kernel, const uint32_t *spec, lf_error *err)
{
    for (size_t i = 0; i < dev->pipeline_count; i++)
        if (dev->pipelines[i].kernel == kernel && !memcmp(dev->pipelines[i].spec, spec, sizeof dev->pipelines[i].spec))
            return dev->pipelines[i].handle;

    vk_pipeline *grown = realloc(dev->pipelines, (dev->pipeline_count + 1) * sizeof *grown);
    if (!grown) {
        lf_error_set(err, LF_ENOMEM, "kernel %s: out of memory", vk_kernel_name(kernel));
        return VK_NULL_HANDLE;
    }
    dev->pipelines = grown;
    VkSpecializationMapEntry entries[SPEC_MAX];
    for (uint32_t i = 0; i < SPEC_MAX; i++) // constants that a kernel does not have are ignored
        entries[i] = (VkSpecializationMapEntry){ .constantID = i, .offset = i * 4, .size = 4 };
    VkSpecializationInfo constants = {
        .mapEntryCount = SPEC_MAX, .pMapEntries = entries, .dataSize = SPEC_MAX * sizeof *spec, .pData = spec
    };
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .layout = dev->kernels[kernel].layout,
        .stage = { .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                   .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                   .module = dev->kernels[kernel].module,
                   .pName = "main",
                   .pSpecializationInfo = &constants },
    };
    VkPipeline pipeline = VK_NULL_HANDLE;
    VkResult result = dev->vk.vkCreateComputePipelines(dev->device, dev->cache, 1, &info, NULL, &pipeline);
    if (result != VK_SUCCESS) {
        vk_error(err, result, "%s: cannot compile kernel %s", dev->properties.deviceName, vk_kernel_name(kernel));
        return VK_NULL_HANDLE;
    }
    vk_pipeline *made = &dev->pipelines[dev->pipeline_count++];
    made->kernel = kernel;
    made->handle = pipeline;
    memcpy(made->spec, spec, sizeof made->spec);
    return pipeline;
}
