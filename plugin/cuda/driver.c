// The driver library, opened once a process, and what its error numbers mean.
#include "cuda/driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

cu_driver cu;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool found, ready; // all functions are known; the driver answers

bool cu_error(lf_error *err, CUresult result, const char *format, ...)
{
    char text[800];
    const char *name = "CUresult", *meaning = "";
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (cu.GetErrorName(result, &name) != CUDA_SUCCESS || cu.GetErrorString(result, &meaning) != CUDA_SUCCESS)
        meaning = "a number that this driver does not know";
    lf_error_set(err, result == CUDA_ERROR_OUT_OF_MEMORY ? LF_ENOMEM : LF_EDEVICE, "%s: %s (%d, %s)", text, name,
                 (int)result, meaning);
    return false;
}

static bool find_functions(void *library, const char *path, lf_error *err)
{
    static const struct {
        const char *name;
        void *slot; // a function pointer
    } functions[] = {
#define ROW(field, symbol, arguments) { #symbol, &cu.field },
        CU_DRIVER_FUNCTIONS(ROW)
#undef ROW
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *address = dlsym(library, functions[i].name);
        if (!address) {
            lf_error_set(err, LF_EUNSUPPORTED, "%s: not a driver of CUDA 12 or later: it has no %s", path,
                         functions[i].name);
            return false;
        }
        memcpy(functions[i].slot, &address, sizeof address);
    }
    return true;
}

static bool find_driver(lf_error *err)
{
    const char *asked = getenv("LAVAFLOW_LIBCUDA"), *path = asked && *asked ? asked : "libcuda.so.1";
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        lf_error_set(err, LF_ENOTFOUND, "%s", dlerror());
        return false;
    }
    if (find_functions(library, path, err))
        return true;
    dlclose(library);
    return false;
}

bool cu_driver_load(lf_error *err)
{
    pthread_mutex_lock(&lock);
    found = found || find_driver(err);
    if (found && !ready) {
        CUresult result = cu.Init(0);
        ready = result == CUDA_SUCCESS;
        if (result == CUDA_ERROR_NO_DEVICE)
            lf_error_set(err, LF_ENOTFOUND, "the driver finds no CUDA device");
        else if (!ready)
            cu_error(err, result, "the driver does not start");
    }
    bool loaded = ready;
    pthread_mutex_unlock(&lock);
    return loaded;
}
