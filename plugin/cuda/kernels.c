// The kernels' code, built in as nvcc wrote it for all architectures, and its functions on a device.
#include <stdio.h>

#include "core/hash.h"
#include "cuda/internal.h"

// The driver takes the part for its device. Made by shaders/CMakeLists.txt.
__asm__(".pushsection .rodata\n"
        ".balign 16\n"
        "cu_image:\n"
        ".incbin \"" LF_CUDA_IMAGE "\"\n"
        "cu_image_end:\n"
        ".popsection\n");
extern const unsigned char cu_image[] __attribute__((visibility("hidden")));
extern const unsigned char cu_image_end[] __attribute__((visibility("hidden")));

// Compute capabilities (90: 9.0), ascending. Code for one runs on those of the same first figure from it on; what
// stands for the last is compiled by the driver for everything newer.
static const int architectures[] = { LF_CUDA_ARCHITECTURES };
enum { ARCHITECTURE_COUNT = sizeof architectures / sizeof *architectures };

void cu_kernels_digest(char hex[65])
{
    hex[0] = 0;
    lf_hash *hash = lf_hash_create(NULL);
    if (!hash)
        return;
    lf_hash_update(hash, cu_image, (size_t)(cu_image_end - cu_image));
    lf_hash_finish(hash, hex);
    lf_hash_destroy(hash);
}

static bool has_code(int capability)
{
    bool has = false;
    for (unsigned i = 0; i < ARCHITECTURE_COUNT; i++)
        has = has || (capability / 10 == architectures[i] / 10 && capability >= architectures[i]);
    return has;
}

void cu_kernels_check(int capability, int version, char *why, size_t size)
{
    const bool native = has_code(capability);
    // Code runs with every release of CUDA's first figure; only a driver that is as new compiles what stands for
    // others.
    const int needed = native ? CUDA_VERSION / 1000 * 1000 : CUDA_VERSION;
    *why = 0;
    if (!native && capability < architectures[ARCHITECTURE_COUNT - 1]) {
        int used = snprintf(why, size, "its compute capability is %d.%d, and the kernels were built for",
                            capability / 10, capability % 10);
        for (unsigned i = 0; i < ARCHITECTURE_COUNT && used > 0 && (size_t)used < size; i++)
            used += snprintf(why + used, size - (size_t)used, " %d.%d", architectures[i] / 10, architectures[i] % 10);
    } else if (version < needed) {
        snprintf(why, size, "the driver is too old: it has CUDA %d.%d, and the kernels need %d.%d", version / 1000,
                 version % 1000 / 10, needed / 1000, needed % 1000 / 10);
    }
}

bool cu_kernels_init(cu_device *dev, lf_error *err)
{
    CUresult result = cu.ModuleLoadData(&dev->module, cu_image);
    if (result != CUDA_SUCCESS)
        return cu_fail(dev, err, result, "cannot load the kernels");
    for (unsigned i = 0; i < CU_KERNEL_COUNT; i++) {
        if (!*cu_kernel_name(i))
            continue; // no program has that operation here
        result = cu.ModuleGetFunction(&dev->functions[i], dev->module, cu_kernel_name(i));
        if (result != CUDA_SUCCESS)
            return cu_fail(dev, err, result, "kernel %s", cu_kernel_name(i));
    }
    return true;
}
