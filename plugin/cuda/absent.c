// The backend of a build without CUDA: it says why there is none.
#include <stdio.h>

#include "device/backend.h"

static size_t list(lf_device_info *infos, size_t capacity)
{
    if (!capacity)
        return 0;
    infos[0] = (lf_device_info){ .id = "cuda", .backend = "cuda" };
    snprintf(infos[0].unavailable, sizeof infos[0].unavailable, "built without CUDA: %s", LF_CUDA_ABSENT);
    return 1;
}

static lf_device *open_device(uint32_t index, unsigned share, lf_error *err)
{
    (void)share;
    lf_error_set(err, LF_EUNSUPPORTED, "cuda:%u: built without CUDA: %s", index, LF_CUDA_ABSENT);
    return NULL;
}

const lf_backend lf_backend_cuda = { .name = "cuda", .list = list, .open = open_device };
