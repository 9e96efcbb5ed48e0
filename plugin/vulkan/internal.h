// Inside the vulkan room: an open device and what its files share. Nobody outside includes this.
//
//   instance.c  the loader, the one instance, the validation layer's messages
//   context.c   the list of devices; opening and closing one
//   memory.c    buffers: memory, mapping, staging
//   kernels.c   pipelines, each made once a device; kernel_cache.c keeps the driver's cache of them on disk
//   trial.c     which of a few ways to cut a product is fastest
//   lower.c     an operation of a program becomes dispatches
//   small.c     a small program as one dispatch a step
//   ahead.c     rows of several steps gathered at once
//   exec.c      recording, submitting, waiting
#ifndef LF_VULKAN_INTERNAL_H
#define LF_VULKAN_INTERNAL_H

#include <volk.h>

#include "device/backend.h"

// ---- errors

// Fills `err` with "message: VK_ERROR_…", as LF_ENOMEM or LF_EDEVICE; returns false.
#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
bool vk_error(lf_error *err, VkResult result, const char *format, ...);

// ---- the instance: shared by all that use Vulkan in this process

// NULL: no loader, no driver, or validation is asked for (LAVAFLOW_VALIDATION=1 or sync) and its layer is missing.
VkInstance vk_instance_acquire(lf_error *err);
void vk_instance_release(void);
// Fails once, with the text, if the validation layer has reported an error since the last call.
bool vk_validation_check(lf_error *err);

// ---- kernels

#define KERNEL_ADVANCE        ((unsigned)LF_OP_COUNT) // adds to the schedule's counter; the others are lf_op_kind
#define KERNEL_SMALL          (LF_OP_COUNT + 1u)      // whole steps of a small program: small.c
#define KERNEL_COUNT          (LF_OP_COUNT + 2)
#define KERNEL_SMALL_OPERANDS 10
#define SPEC_MAX              16              // specialization constants of a kernel
#define PUSH_MAX              21              // words of push constants; the first is the step within the submission
#define VK_CLASSES_MAX        32              // outputs of a last layer that is one dispatch with its loss
#define REGION_AHEAD          LF_REGION_COUNT // no region of the program: ahead.h
#define GATHER_PUSH_SLOTS     5 // where in gather's push constants the words between slots of x, then of y, stand
#define BINDING_MAX           (2 * LF_OPERAND_MAX) // storage buffers, then texel buffers (shaders/common.glsl)

typedef struct vk_pipeline {
    unsigned kernel;
    uint32_t spec[SPEC_MAX];
    VkPipeline handle;
} vk_pipeline;

typedef struct vk_kernel {
    VkShaderModule module;
    VkDescriptorSetLayout set_layout;
    VkPipelineLayout layout;
} vk_kernel;

// How the kernels are cut for a kind of device. Sizes are specialization constants.
typedef struct vk_tiles {
    bool texel;            // read through texel buffers
    uint32_t lanes, bands; // workgroup of work on columns; bands a power of two, 1 on a processor
    uint32_t rows;         // that an invocation owns in elementwise work on columns
    uint32_t sweep_lanes, sweep_items;
    uint32_t gather_lanes, gather_rows; // of a workgroup
    uint32_t row_lanes;                 // on a row of a loss or of a layer_norm; a power of two
} vk_tiles;

// How a product is cut: its workgroup, and what an invocation owns of the result (shaders/product.glsl); rows a
// multiple of 4.
typedef struct vk_cut {
    uint32_t lanes, bands, rows, quads;
} vk_cut;

#define VK_CUTS_MAX 8

// What is known of the products of a class of shapes.
typedef struct vk_trial {
    uint32_t kernel;               // LF_OP_LINEAR, _DX or _DW
    uint32_t shape[3];             // rows, columns, depth
    uint32_t measure[VK_CUTS_MAX]; // of each cut, against the first one's time; 0: not tried yet
} vk_trial;

// ---- the device

typedef struct vk_device {
    lf_device base;
    bool instance; // acquired
    struct VolkDeviceTable vk;
    VkPhysicalDevice physical;
    VkPhysicalDeviceProperties properties;
    VkPhysicalDeviceMemoryProperties memory;
    uint64_t max_allocation;
    VkDevice device;
    uint32_t family;
    VkQueue queue;
    VkCommandPool commands;
    VkSemaphore done;   // timeline: number of the last finished submission
    uint64_t submitted; // number of the last one
    vk_tiles tiles;
    int cut; // of all products, below 0: as trials find
    vk_trial *trials;
    size_t trial_count;
    VkBuffer staging; // mapped, made at first need
    VkDeviceMemory staging_memory;
    void *staging_mapped;
    vk_kernel kernels[KERNEL_COUNT];
    VkPipelineCache cache;
    size_t cache_size; // bytes that were loaded from disk
    char cache_name[96];
    vk_pipeline *pipelines;
    size_t pipeline_count;
} vk_device;

typedef struct vk_buffer {
    lf_buffer base;
    VkBuffer handle;
    VkDeviceMemory memory;
    VkDeviceSize capacity; // size, rounded up to whole groups of four words
    void *mapped;          // NULL: reached through staging
    bool cached;           // the host reads it fast
    uint64_t last_use;     // submission that last touched it
} vk_buffer;

void vk_tiles_choose(vk_tiles *tiles, VkPhysicalDevice physical, bool hardware, const VkPhysicalDeviceLimits *limits,
                     const VkPhysicalDeviceVulkan11Properties *subgroups);
bool vk_tiles_is_processor(const vk_tiles *tiles);
// Bytes that one operand may span, a multiple of 256.
uint64_t vk_max_operand(const VkPhysicalDeviceLimits *limits, const vk_tiles *tiles);

// ---- memory.c

lf_buffer *vk_buffer_create(lf_device *dev, size_t size, lf_error *err);
void vk_buffer_destroy(lf_device *dev, lf_buffer *buf);
bool vk_buffer_write(lf_device *dev, lf_buffer *dst, size_t offset, const void *src, size_t size, lf_error *err);
bool vk_buffer_read(lf_device *dev, void *dst, const lf_buffer *src, size_t offset, size_t size, lf_error *err);
void vk_staging_destroy(vk_device *dev);

// ---- kernels.c, kernel_cache.c

bool vk_kernels_init(vk_device *dev, lf_error *err);
void vk_kernels_finish(vk_device *dev);
void vk_kernels_digest(char hex[65]); // sha256 of all SPIR-V
// VK_NULL_HANDLE on failure. `spec` holds SPEC_MAX words.
VkPipeline vk_kernels_pipeline(vk_device *dev, unsigned kernel, const uint32_t *spec, lf_error *err);
const char *vk_kernel_name(unsigned kernel);
// Fills `bindings` and returns their number: storage buffers at the operands' positions; in a texel build, what is read
// stands LF_OPERAND_MAX further on.
uint32_t vk_kernel_bindings(unsigned kernel, bool texel, VkDescriptorSetLayoutBinding bindings[BINDING_MAX]);

// The driver's pipeline cache as kept on disk under `name`; malloc'ed, NULL where there is none or it is damaged.
void *vk_kernel_cache_load(const char *name, size_t *size);
void vk_kernel_cache_save(const char *name, const void *bytes, size_t size);

// ---- trial.c

// Reads LAVAFLOW_TILES: a number, after "cpu" or "gpu" or alone, takes that cut for all products, "cpu" and "gpu" alone
// the first one.
bool vk_trials_init(vk_device *dev, lf_error *err);
// Measures cuts that a program's products could have, those that are not known yet, for at most a moment.
void vk_trials_run(vk_device *dev, const lf_program *prog);
vk_cut vk_cut_of(const vk_device *dev, unsigned kernel, uint32_t rows, uint32_t columns, uint32_t depth);

// ---- lower.c

// How an operand's words are read: the format of its texel view.
typedef enum vk_view { VIEW_FLOAT, VIEW_FLOAT4, VIEW_WORD, VIEW_WORD4 } vk_view;

// A dispatch with all that it needs but its Vulkan objects.
typedef struct vk_call {
    unsigned kernel;
    uint32_t part; // of an operation on ranges that are longer than what can be bound
    uint32_t spec[SPEC_MAX];
    uint32_t push[PUSH_MAX];
    uint32_t groups[2];
    struct {
        unsigned region;     // lf_region, or REGION_AHEAD
        size_t offset, size; // bytes; size 0: not used
        vk_view view;
    } operands[LF_OPERAND_MAX];
} vk_call;

// Number of dispatches that an operation needs; 0 with `err` filled if it cannot be done on this device.
uint32_t vk_lower_count(const vk_device *dev, const lf_program *prog, const lf_op *op, lf_error *err);
void vk_lower(const vk_device *dev, const lf_program *prog, const lf_op *op, uint32_t part, vk_call *call);
void vk_lower_advance(const lf_program *prog, vk_call *call);
uint32_t vk_stored_kind(lf_dtype stored); // shaders/stored.glsl

// ---- exec.c

lf_exec *vk_exec_create(lf_device *dev, const lf_program *prog, const lf_bindings *regions, lf_error *err);
void vk_exec_destroy(lf_device *dev, lf_exec *exec);
bool vk_exec_run(lf_device *dev, lf_exec *exec, uint32_t first, uint32_t last, uint32_t steps, lf_error *err);
bool vk_wait(lf_device *dev, lf_error *err);

bool vk_wait_for(vk_device *dev, uint64_t submission, lf_error *err);
// Submits one recorded command buffer; its number is then dev->submitted.
bool vk_submit(vk_device *dev, VkCommandBuffer commands, lf_error *err);
VkCommandBuffer vk_commands_begin(vk_device *dev, VkCommandBufferUsageFlags usage, lf_error *err);
bool vk_commands_end(vk_device *dev, VkCommandBuffer commands, lf_error *err);
void vk_commands_free(vk_device *dev, VkCommandBuffer commands);
// Everything before it happens before everything after it, the host's reads included.
void vk_barrier(vk_device *dev, VkCommandBuffer commands);
// What dispatches before it have written is there for those after it.
void vk_compute_barrier(vk_device *dev, VkCommandBuffer commands);

#endif
