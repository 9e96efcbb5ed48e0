// Inside the cuda room: an open device and what its files share. Nobody outside includes this.
//
//   driver.c    the driver library, opened at run time; its errors
//   context.c   the list of devices; opening and closing one
//   memory.c    buffers, and the pinned memory through which the host reaches them
//   kernels.c   the kernels' code, built in, and its functions on a device
//   lower.c     an operation of a program becomes a launch
//   library.c   cuBLASLt, opened at run time; one product of it
//   products.c  a program's large products through cuBLASLt
//   small.c     programs that one launch runs for many steps
//   exec.c      graphs of launches: made once, launched often
//   nccl.c      NCCL, opened at run time
//   link.c      sums over several devices through NCCL, those of other processes too
#ifndef LF_CUDA_INTERNAL_H
#define LF_CUDA_INTERNAL_H

#include "cuda/driver.h"
#include "cuda/lower.h"
#include "device/backend.h"

#define STAGING_COUNT 2

typedef struct cu_staging {
    void *host;   // pinned
    CUevent done; // the transfer that last used it
} cu_staging;

typedef struct cu_library cu_library; // cuBLASLt on a device

typedef struct cu_device {
    lf_device base;
    CUdevice device;
    CUcontext context; // the device's primary one; NULL: not retained
    CUstream compute, copy;
    CUevent computed, copied; // for one stream to wait for the other
    cu_staging staging[STAGING_COUNT];
    unsigned next_staging;
    CUmodule module;
    CUfunction functions[CU_KERNEL_COUNT];
    cu_library *library; // NULL: not needed so far, or not there
    bool library_tried;
    lf_error failure; // what the driver first failed with; code LF_OK: it has not
} cu_device;

typedef struct cu_buffer {
    lf_buffer base;
    CUdeviceptr memory;
} cu_buffer;

// ---- context.c

// At every entry, since threads take turns on a device. False once the driver has failed, with what it failed with.
bool cu_enter(cu_device *dev, lf_error *err);
// As cu_error, with the device's name in front. The device keeps any failure but too little memory, for most of them
// end its context: every later call then fails with the first one.
#if defined(__GNUC__)
__attribute__((format(printf, 4, 5)))
#endif
bool cu_fail(cu_device *dev, lf_error *err, CUresult result, const char *format, ...);

// ---- kernels.c

bool cu_kernels_init(cu_device *dev, lf_error *err);
void cu_kernels_digest(char hex[65]); // sha256 of the code for all architectures
// Why the kernels cannot run on a device of that compute capability (90: 9.0) with a driver of that version
// (12040: CUDA 12.4). Empty: they can.
void cu_kernels_check(int capability, int version, char *why, size_t size);

// ---- memory.c

lf_buffer *cu_buffer_create(lf_device *dev, size_t size, lf_error *err);
void cu_buffer_destroy(lf_device *dev, lf_buffer *buf);
bool cu_buffer_write(lf_device *dev, lf_buffer *dst, size_t offset, const void *src, size_t size, lf_error *err);
bool cu_buffer_read(lf_device *dev, void *dst, const lf_buffer *src, size_t offset, size_t size, lf_error *err);
void cu_staging_destroy(cu_device *dev);

// ---- products.c

// What the library makes of an operation: a graph to put into others in place of its launch, and where it leaves
// something over, a launch that must follow. No two such graphs of a device may run at the same time.
typedef struct cu_fused {
    CUgraph graph;
    bool has_rest;
    cu_launch rest;
} cu_fused;

typedef struct cu_products cu_products; // of a program

// *products NULL: all of them stay launches. False: something failed.
bool cu_products_create(cu_device *dev, const lf_program *prog, const uint64_t address[LF_REGION_COUNT],
                        cu_products **products, lf_error *err);
const cu_fused *cu_products_find(const cu_products *products, size_t op); // NULL: its launch is to be used
void cu_products_destroy(cu_products *products);

// ---- exec.c

lf_exec *cu_exec_create(lf_device *dev, const lf_program *prog, const lf_bindings *regions, lf_error *err);
void cu_exec_destroy(lf_device *dev, lf_exec *exec);
bool cu_exec_run(lf_device *dev, lf_exec *exec, uint32_t first, uint32_t last, uint32_t steps, lf_error *err);
bool cu_wait(lf_device *dev, lf_error *err);

// ---- nccl.c

void cu_link_find(lf_link_info *info);

// ---- link.c

bool cu_link_offer(lf_device *const devs[], unsigned count, lf_link_id *id, lf_error *err);
lf_link *cu_link_create(lf_device *const devs[], unsigned count, const lf_link_group *group, lf_error *err);
void cu_link_destroy(lf_link *link);
bool cu_link_sum(lf_link *link, const lf_link_part *parts, size_t part_count, size_t n, bool fast, lf_error *err);

#endif
