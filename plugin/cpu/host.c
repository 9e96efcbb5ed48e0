#include "cpu/host.h"

#include <ctype.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cblas.h>

#include "core/hash.h"

// Only OpenBLAS has these; with another CBLAS library they are NULL.
#pragma weak openblas_set_num_threads
#pragma weak openblas_get_config
void openblas_set_num_threads(int threads);
char *openblas_get_config(void);

static unsigned affinity_cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return (unsigned)CPU_COUNT(&set);
    long online = sysconf(_SC_NPROCESSORS_ONLN); // more CPUs than a cpu_set_t holds
    return online > 0 ? (unsigned)online : 1;
}

// CPUs' worth of time that the control group grants, rounded up; UINT32_MAX: as much as there is.
static unsigned quota_cpus(void)
{
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "re");
    unsigned long long quota, period;
    unsigned cpus = UINT32_MAX;
    if (!file)
        return cpus;
    if (fscanf(file, "%llu %llu", &quota, &period) == 2 && quota && period && quota / period < UINT32_MAX - 1)
        cpus = (unsigned)((quota + period - 1) / period);
    fclose(file);
    return cpus;
}

unsigned cpu_host_threads(lf_error *err)
{
    const char *text = getenv("LAVAFLOW_THREADS");
    if (text && *text) {
        char *end;
        errno = 0;
        long threads = strtol(text, &end, 10);
        if (!isdigit((unsigned char)*text) || *end || errno || threads < 1 || threads > CPU_THREADS_MAX) {
            lf_error_set(err, LF_EARG, "LAVAFLOW_THREADS: expects a whole number from 1 to %d, got \"%s\"",
                         CPU_THREADS_MAX, text);
            return 0;
        }
        return (unsigned)threads;
    }
    unsigned cpus = affinity_cpus(), quota = quota_cpus();
    cpus = quota < cpus ? quota : cpus;
    return cpus < 1 ? 1 : cpus > CPU_THREADS_MAX ? CPU_THREADS_MAX : cpus;
}

void cpu_host_name(char *name, size_t size)
{
    struct utsname system;
    char line[512];
    snprintf(name, size, "%s", uname(&system) == 0 ? system.machine : "CPU");
    FILE *file = fopen("/proc/cpuinfo", "re");
    while (file && fgets(line, sizeof line, file)) {
        char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !value)
            continue;
        value += 1 + strspn(value + 1, " \t");
        value[strcspn(value, "\n")] = 0;
        snprintf(name, size, "%s", value);
        break;
    }
    if (file)
        fclose(file);
}

uint64_t cpu_host_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : 0;
}

size_t cpu_host_variants(const cpu_kernels *variants[CPU_VARIANTS_MAX])
{
    size_t count = 0;
    variants[count++] = &cpu_kernels_f32;
#ifdef LF_CPU_X86_VARIANTS
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        variants[count++] = &cpu_kernels_f32_avx2;
    if (__builtin_cpu_supports("fma") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
        variants[count++] = &cpu_kernels_f32_avx512;
#endif
    return count;
}

const cpu_kernels *cpu_host_kernels(void)
{
    const cpu_kernels *variants[CPU_VARIANTS_MAX];
    return variants[cpu_host_variants(variants) - 1];
}

const char *cpu_host_blas(void)
{
    return openblas_get_config ? openblas_get_config() : "";
}

void cpu_host_blas_single(void)
{
    if (openblas_set_num_threads)
        openblas_set_num_threads(1);
}

void cpu_host_digest(char hex[65])
{
    hex[0] = 0;
    lf_hash *hash = lf_hash_create(NULL);
    if (!hash)
        return;
    lf_hash_text(hash, LF_CPU_BUILD);
    lf_hash_text(hash, cpu_host_kernels()->variant);
    lf_hash_text(hash, cpu_host_blas());
    lf_hash_finish(hash, hex);
    lf_hash_destroy(hash);
}
