// Numbers below 2^-126 are treated as zero while kernels run: the moments of a weight that gets no gradient decay into
// them, and arithmetic on them is many times slower. Measured: adam on 101,770 weights, 78 µs with, 30 µs without.
#ifndef LF_CPU_DENORMAL_H
#define LF_CPU_DENORMAL_H

#include <stdint.h>

// Sets the calling thread's mode and returns what it was, for cpu_denormals_restore.
static inline uint64_t cpu_denormals_flush(void)
{
#if defined(__x86_64__)
    uint32_t before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(before | 0x8040); // flush to zero, denormals are zero
    return before;
#elif defined(__aarch64__)
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(before | UINT64_C(1) << 24));
    return before;
#else
    return 0;
#endif
}

static inline void cpu_denormals_restore(uint64_t before)
{
#if defined(__x86_64__)
    __builtin_ia32_ldmxcsr((uint32_t)before);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(before));
#else
    (void)before;
#endif
}

#endif
