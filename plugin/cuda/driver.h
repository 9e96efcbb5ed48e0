// The CUDA driver, opened at run time: every function of it that this room calls stands once in the table below, under
// the name that the driver exports. Nothing links against it, so that one binary runs with and without NVIDIA.
#ifndef LF_CUDA_DRIVER_H
#define LF_CUDA_DRIVER_H

#include <cuda.h>
#include <stdbool.h>

#include "core/error.h"

// X(field of cu_driver, exported name, arguments). All return CUresult.
#define CU_DRIVER_FUNCTIONS(X)                                                                                         \
    X(GetErrorName, cuGetErrorName, (CUresult result, const char **name))                                              \
    X(GetErrorString, cuGetErrorString, (CUresult result, const char **text))                                          \
    X(Init, cuInit, (unsigned flags))                                                                                  \
    X(DriverGetVersion, cuDriverGetVersion, (int *version))                                                            \
    X(DeviceGetCount, cuDeviceGetCount, (int *count))                                                                  \
    X(DeviceGet, cuDeviceGet, (CUdevice * device, int ordinal))                                                        \
    X(DeviceGetName, cuDeviceGetName, (char *name, int size, CUdevice device))                                         \
    X(DeviceGetUuid, cuDeviceGetUuid_v2, (CUuuid * uuid, CUdevice device))                                             \
    X(DeviceTotalMem, cuDeviceTotalMem_v2, (size_t * bytes, CUdevice device))                                          \
    X(DeviceGetAttribute, cuDeviceGetAttribute, (int *value, CUdevice_attribute attribute, CUdevice device))           \
    X(DevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, (CUcontext * context, CUdevice device))                        \
    X(DevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2, (CUdevice device))                                        \
    X(CtxSetCurrent, cuCtxSetCurrent, (CUcontext context))                                                             \
    X(ModuleLoadData, cuModuleLoadData, (CUmodule * module, const void *image))                                        \
    X(ModuleUnload, cuModuleUnload, (CUmodule module))                                                                 \
    X(ModuleGetFunction, cuModuleGetFunction, (CUfunction * function, CUmodule module, const char *name))              \
    X(FuncSetAttribute, cuFuncSetAttribute, (CUfunction function, CUfunction_attribute attribute, int value))          \
    X(OccupancyMaxActiveBlocksPerMultiprocessor, cuOccupancyMaxActiveBlocksPerMultiprocessor,                          \
      (int *blocks, CUfunction function, int threads, size_t shared))                                                  \
    X(MemGetInfo, cuMemGetInfo_v2, (size_t * unused, size_t * total))                                                  \
    X(MemAlloc, cuMemAlloc_v2, (CUdeviceptr * memory, size_t size))                                                    \
    X(MemFree, cuMemFree_v2, (CUdeviceptr memory))                                                                     \
    X(MemHostAlloc, cuMemHostAlloc, (void **memory, size_t size, unsigned flags))                                      \
    X(MemFreeHost, cuMemFreeHost, (void *memory))                                                                      \
    X(MemsetD8Async, cuMemsetD8Async, (CUdeviceptr to, unsigned char value, size_t size, CUstream stream))             \
    X(MemcpyHtoDAsync, cuMemcpyHtoDAsync_v2, (CUdeviceptr to, const void *from, size_t size, CUstream stream))         \
    X(MemcpyDtoHAsync, cuMemcpyDtoHAsync_v2, (void *to, CUdeviceptr from, size_t size, CUstream stream))               \
    X(MemcpyDtoDAsync, cuMemcpyDtoDAsync_v2, (CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream))         \
    X(StreamCreate, cuStreamCreate, (CUstream * stream, unsigned flags))                                               \
    X(StreamDestroy, cuStreamDestroy_v2, (CUstream stream))                                                            \
    X(StreamSynchronize, cuStreamSynchronize, (CUstream stream))                                                       \
    X(StreamQuery, cuStreamQuery, (CUstream stream))                                                                   \
    X(StreamWaitEvent, cuStreamWaitEvent, (CUstream stream, CUevent event, unsigned flags))                            \
    X(StreamBeginCapture, cuStreamBeginCapture_v2, (CUstream stream, CUstreamCaptureMode mode))                        \
    X(StreamEndCapture, cuStreamEndCapture, (CUstream stream, CUgraph * graph))                                        \
    X(EventCreate, cuEventCreate, (CUevent * event, unsigned flags))                                                   \
    X(EventDestroy, cuEventDestroy_v2, (CUevent event))                                                                \
    X(EventRecord, cuEventRecord, (CUevent event, CUstream stream))                                                    \
    X(EventSynchronize, cuEventSynchronize, (CUevent event))                                                           \
    X(LaunchKernel, cuLaunchKernel,                                                                                    \
      (CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,     \
       unsigned block_z, unsigned shared, CUstream stream, void **params, void **extra))                               \
    X(LaunchCooperativeKernel, cuLaunchCooperativeKernel,                                                              \
      (CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,     \
       unsigned block_z, unsigned shared, CUstream stream, void **params))                                             \
    X(GraphCreate, cuGraphCreate, (CUgraph * graph, unsigned flags))                                                   \
    X(GraphDestroy, cuGraphDestroy, (CUgraph graph))                                                                   \
    X(GraphAddKernelNode, cuGraphAddKernelNode_v2,                                                                     \
      (CUgraphNode * node, CUgraph graph, const CUgraphNode *after, size_t after_count,                                \
       const CUDA_KERNEL_NODE_PARAMS_v2 *params))                                                                      \
    X(GraphAddEmptyNode, cuGraphAddEmptyNode,                                                                          \
      (CUgraphNode * node, CUgraph graph, const CUgraphNode *after, size_t after_count))                               \
    X(GraphAddChildGraphNode, cuGraphAddChildGraphNode,                                                                \
      (CUgraphNode * node, CUgraph graph, const CUgraphNode *after, size_t after_count, CUgraph child))                \
    X(GraphInstantiate, cuGraphInstantiateWithFlags, (CUgraphExec * exec, CUgraph graph, unsigned long long flags))    \
    X(GraphExecDestroy, cuGraphExecDestroy, (CUgraphExec exec))                                                        \
    X(GraphLaunch, cuGraphLaunch, (CUgraphExec exec, CUstream stream))

typedef struct cu_driver {
#define FIELD(field, symbol, arguments) CUresult(CUDAAPI *field) arguments;
    CU_DRIVER_FUNCTIONS(FIELD)
#undef FIELD
} cu_driver;

extern cu_driver cu; // valid once cu_driver_load has returned true

// Opens the driver once a process and keeps it: "libcuda.so.1", or what the environment variable LAVAFLOW_LIBCUDA
// names, a means for tests. Any thread. False with the reason: no such library, too old a driver, no device that
// answers.
bool cu_driver_load(lf_error *err);

// Fills `err` with "message: CUDA_ERROR_… (the driver's own text)", as LF_ENOMEM or LF_EDEVICE; returns false.
#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
bool cu_error(lf_error *err, CUresult result, const char *format, ...);

#endif
