// The library, opened once a process, and what it says of itself.
#include "cuda/nccl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/internal.h"

cu_nccl_table cu_nccl;

static bool find_functions(void *library, lf_error *err)
{
    const char *missing = NULL;
#define FIND(field, symbol, result, arguments)                                                                         \
    {                                                                                                                  \
        void *address = dlsym(library, #symbol);                                                                       \
        memcpy(&cu_nccl.field, &address, sizeof address);                                                              \
        missing = address ? missing : #symbol;                                                                         \
    }
    CU_NCCL_FUNCTIONS(FIND)
#undef FIND
    if (missing)
        lf_error_set(err, LF_EUNSUPPORTED, "not NCCL 2.14 or later: it has no %s", missing);
    return !missing;
}

bool cu_nccl_load(lf_error *err)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static bool found;
    const char *asked = getenv("LAVAFLOW_LIBNCCL");
    pthread_mutex_lock(&lock);
    if (!found) {
        void *library = dlopen(asked && *asked ? asked : "libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
        if (!library)
            lf_error_set(err, LF_EUNSUPPORTED, "%s", dlerror());
        found = library && find_functions(library, err);
        if (library && !found)
            dlclose(library);
    }
    bool loaded = found;
    pthread_mutex_unlock(&lock);
    return loaded;
}

bool cu_nccl_succeeds(cu_nccl_result result, const char *call, lf_error *err)
{
    if (result == CU_NCCL_SUCCESS || result == CU_NCCL_IN_PROGRESS)
        return true;
    lf_error_set(err, LF_EDEVICE, "NCCL: %s: %s (%d)", call, cu_nccl.GetErrorString(result), (int)result);
    return false;
}

void cu_link_find(lf_link_info *info)
{
    lf_error err;
    int version = 0; // 21403: 2.14.3
    Dl_info file;
    void *address;
    snprintf(info->library, sizeof info->library, "NCCL");
    if (!cu_nccl_load(&err) || !cu_nccl_succeeds(cu_nccl.GetVersion(&version), "ncclGetVersion", &err)) {
        snprintf(info->missing, sizeof info->missing, "%.*s", (int)sizeof info->missing - 1, err.text);
        return;
    }
    snprintf(info->library, sizeof info->library, "NCCL %d.%d.%d", version / 10000, version / 100 % 100, version % 100);
    memcpy(&address, &cu_nccl.GetVersion, sizeof address);
    if (dladdr(address, &file))
        snprintf(info->file, sizeof info->file, "%.*s", (int)sizeof info->file - 1, file.dli_fname);
}
