// The seam: what a device can do. train/ calls the lf_device_* functions, which check arguments; a backend implements
// lf_device_impl and trusts them.
//
// A device is used by one thread at a time. Destroy execs and buffers before the device.
#ifndef LF_DEVICE_DEVICE_H
#define LF_DEVICE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "program/program.h"

typedef struct lf_device lf_device;
typedef struct lf_buffer lf_buffer; // memory of a device, zero at first
typedef struct lf_exec lf_exec;     // a program lowered for a device
typedef struct lf_link lf_link;     // devices of one backend that add up blocks of memory without the host

typedef struct lf_bindings {
    lf_buffer *region[LF_REGION_COUNT]; // borrowed; NULL where the program's region_size is 0
} lf_bindings;

typedef struct lf_device_info {
    char id[32];      // "cpu", "vulkan:0"
    char backend[16]; // "cpu", "vulkan", "cuda"
    char name[256];   // "llvmpipe (LLVM 15.0.6, 256 bits)"
    char uuid[37];    // as Vulkan and CUDA report it; empty for cpu
    char driver_name[64];
    char driver_version[256];
    char api_version[32];
    char kernels[65];      // sha256 of the kernels' code
    bool hardware_gpu;     // `auto` prefers it
    bool discrete;         // a card of its own, which `auto` takes for faster than a part of the processor
    uint32_t units;        // threads of cpu; 0: unknown
    uint64_t memory;       // bytes
    uint64_t max_tensor;   // bytes that one operand of an operation may span
    bool host_memory;      // its buffers are memory of this process: lf_buffer.host
    char unavailable[256]; // why it cannot be used; empty: it can
} lf_device_info;

// A block of f32 on a device of a link: the sum over shards first … first + count - 1, as in core/tree.h.
typedef struct lf_link_part {
    unsigned device; // its place in the link
    uint32_t first, count;
    lf_buffer *buffer; // NULL: the device is another process's
    size_t offset;     // bytes, a multiple of 16; what lies behind the block is filled up to such a multiple
} lf_link_part;

// What links devices of a backend.
typedef struct lf_link_info {
    char library[32];  // "NCCL 2.21.5"
    char file[256];    // where it was found
    char missing[256]; // why it is not there; empty: it is
} lf_link_info;

// What processes link their devices by: one of them makes it and gives it to the others.
typedef struct lf_link_id {
    char bytes[128];
} lf_link_id;

// A link between the devices of several processes.
typedef struct lf_link_group {
    lf_link_id id;
    unsigned first, count; // this process's first device among all of them, and how many they are
    // Asked again and again by what waits for the other processes; false: one of them has failed.
    bool (*goes_on)(void *user);
    void *user;
} lf_link_group;

typedef struct lf_device_impl {
    void (*destroy)(lf_device *dev);
    lf_buffer *(*buffer_create)(lf_device *dev, size_t size, lf_error *err);
    void (*buffer_destroy)(lf_device *dev, lf_buffer *buf);
    bool (*buffer_write)(lf_device *dev, lf_buffer *dst, size_t offset, const void *src, size_t size, lf_error *err);
    bool (*buffer_read)(lf_device *dev, void *dst, const lf_buffer *src, size_t offset, size_t size, lf_error *err);
    // `prog` is borrowed and must outlive the exec.
    lf_exec *(*exec_create)(lf_device *dev, const lf_program *prog, const lf_bindings *regions, lf_error *err);
    void (*exec_destroy)(lf_device *dev, lf_exec *exec);
    // Queues `steps` consecutive steps of segments first..last as one submission and may return before they are done.
    // Adds `steps` to the schedule's counter where the program's last segment is among them. LF_LAST_SEGMENT: to the
    // end.
    bool (*exec_run)(lf_device *dev, lf_exec *exec, uint32_t first, uint32_t last, uint32_t steps, lf_error *err);
    bool (*wait)(lf_device *dev, lf_error *err); // until all that was queued is done
    // A fast path that a backend need not have: all four, or none.
    bool (*link_offer)(lf_device *const devs[], unsigned count, lf_link_id *id, lf_error *err);
    lf_link *(*link_create)(lf_device *const devs[], unsigned count, const lf_link_group *group, lf_error *err);
    void (*link_destroy)(lf_link *link);
    bool (*link_sum)(lf_link *link, const lf_link_part *parts, size_t part_count, size_t n, bool fast, lf_error *err);
} lf_device_impl;

// The head of every backend's device and buffer.
struct lf_device {
    const lf_device_impl *impl;
    lf_device_info info;              // filled by lf_device_open, as list() gave it
    unsigned opened;                  // how many before it in its list are the same device
    uint64_t submissions, dispatches; // counted by the backend since the device was opened
    size_t live_buffers, live_execs;  // counted by the seam; zero before destroy
};
struct lf_buffer {
    size_t size;
    void *host; // the same bytes for the host, at any time; NULL: they are written and read by calls
};
struct lf_link {
    const lf_device_impl *impl;
};

// The variable LAVAFLOW_DEVICES says which devices this process may see: ids, UUIDs and "backend:UUID", separated by
// commas; unset or empty, all. The others are as if absent, and backends that none of it can belong to are not loaded.
//
// Finds a device and opens it. `spec`: "auto" (the first discrete GPU, else any GPU, else cpu, else any), "cpu",
// "vulkan:0", "vulkan:NAME-PART", "vulkan:UUID", or a UUID. A prefix loads no other backend than its own. NULL on
// failure, with a message that lists the devices there are.
lf_device *lf_device_open(const char *spec, lf_error *err);
#define LF_DEVICE_LIST_MAX 64

// Opens each of the list, one that stands several times as often, into `devices` [capacity]. "all" stands for every
// GPU, each once, or for "auto" where there is none. Returns their number; 0 on failure.
size_t lf_device_open_list(const char *const *specs, size_t count, lf_device **devices, size_t capacity, lf_error *err);
// Finds what it would open. Returns their number; 0 on failure.
size_t lf_device_find_list(const char *const *specs, size_t count, lf_device_info *infos, size_t capacity,
                           lf_error *err);
void lf_device_close(lf_device *dev);

// Finds it without opening it.
bool lf_device_find(const char *spec, lf_device_info *info, lf_error *err);

// Every device of every backend that may be seen, with a row for each backend that has none and says why. Returns how
// many rows were written (at most `capacity`).
size_t lf_device_list(lf_device_info *infos, size_t capacity);

lf_buffer *lf_device_buffer_create(lf_device *dev, size_t size, lf_error *err);
void lf_device_buffer_destroy(lf_device *dev, lf_buffer *buf);
bool lf_device_buffer_write(lf_device *dev, lf_buffer *dst, size_t offset, const void *src, size_t size, lf_error *err);
bool lf_device_buffer_read(lf_device *dev, void *dst, const lf_buffer *src, size_t offset, size_t size, lf_error *err);
// `prog` is borrowed, as the regions are; both must outlive the exec.
lf_exec *lf_device_exec_create(lf_device *dev, const lf_program *prog, const lf_bindings *regions, lf_error *err);
void lf_device_exec_destroy(lf_device *dev, lf_exec *exec);
bool lf_device_exec_run(lf_device *dev, lf_exec *exec, uint32_t first, uint32_t last, uint32_t steps, lf_error *err);
bool lf_device_wait(lf_device *dev, lf_error *err);

// What links a backend's devices, or why nothing does. May load a library. False: there is nothing of that kind.
bool lf_link_find(const char *backend, lf_link_info *info);

// Whether these devices can be linked with those of other processes; `id`, if not NULL, is then what by. False:
// LF_EUNSUPPORTED, with the reason.
bool lf_link_offer(lf_device *const devs[], unsigned count, lf_link_id *id, lf_error *err);
// Links several devices, which are borrowed. `group` NULL: these alone; else it is copied, and the other processes call
// this too. NULL, with the reason: LF_EUNSUPPORTED where they are not of the kind; LF_EDEVICE, LF_ENOMEM.
lf_link *lf_link_create(lf_device *const devs[], unsigned count, const lf_link_group *group, lf_error *err);
// Waits for no other process.
void lf_link_destroy(lf_link *link);
// Adds up blocks of n numbers, ascending by `first`, at least one on each device; the total then stands in the place of
// each device's first one, and the others' contents are lost. Along the tree, to the bits of lf_tree_sum, or if `fast`
// in the backend's own order. What wrote the blocks is done (lf_device_wait), as the sum is on return. May run beside
// other threads' calls for these devices, if those leave the blocks alone. All processes of a link pass the same list
// but for the buffers. False: the link is of no more use, and the blocks hold nothing that counts.
bool lf_link_sum(lf_link *link, const lf_link_part *parts, size_t part_count, size_t n, bool fast, lf_error *err);

#endif
