// What a backend gives to the list of backends in find.c. Backends include this; nobody else does.
#ifndef LF_DEVICE_BACKEND_H
#define LF_DEVICE_BACKEND_H

#include "device/device.h"

typedef struct lf_backend {
    const char *name; // "vulkan": the part of a device's id in front of the colon
    // Fills up to `capacity` rows and returns their number; with no device at all, returns 1 row whose `unavailable`
    // says why. Cheap enough to call at every start; leaves nothing loaded that it did not find loaded, or keeps it
    // cached.
    size_t (*list)(lf_device_info *infos, size_t capacity);
    // Opens the device of that index in list(); lf_device_open fills its info. `share`: so many times it is opened in
    // this process, which is to be divided among them where that makes sense: the threads of a processor.
    lf_device *(*open)(uint32_t index, unsigned share, lf_error *err);
    // NULL: nothing links its devices.
    void (*link_find)(lf_link_info *info);
} lf_backend;

extern const lf_backend lf_backend_cpu;    // plugin/cpu
extern const lf_backend lf_backend_vulkan; // plugin/vulkan
extern const lf_backend lf_backend_cuda;   // plugin/cuda

#endif
