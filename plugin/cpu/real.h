// The number type and the names of a variant; only the kernels' sources include it. The build defines LF_VARIANT
// ("f32", "f32_avx2", …) and, for the oracle, LF_REAL_IS_DOUBLE.
#ifndef LF_CPU_REAL_H
#define LF_CPU_REAL_H

#include <math.h>

#include "cpu/kernels.h"

#ifndef LF_VARIANT
#define LF_VARIANT f32
#endif
#define CPU_PASTE_(a, b) a##_##b
#define CPU_PASTE(a, b)  CPU_PASTE_(a, b)
#define CPU_TEXT_(a)     #a
#define CPU_TEXT(a)      CPU_TEXT_(a)
#define CPU_NAME(name)   CPU_PASTE(CPU_PASTE(cpu, name), LF_VARIANT)

#ifdef LF_REAL_IS_DOUBLE
typedef double real;
#define R(function) function
#else
typedef float real;
#define R(function) function##f // R(exp) is expf
#endif

cpu_kernel CPU_NAME(gather), CPU_NAME(gather_rows), CPU_NAME(add), CPU_NAME(dropout);
cpu_kernel CPU_NAME(cross_entropy), CPU_NAME(value_loss), CPU_NAME(distill), CPU_NAME(soften);
cpu_kernel CPU_NAME(layer_norm), CPU_NAME(layer_norm_dx), CPU_NAME(norm_dw);
cpu_kernel CPU_NAME(batch_stats), CPU_NAME(batch_norm), CPU_NAME(batch_norm_dx);
cpu_kernel CPU_NAME(column_sums), CPU_NAME(batch_totals);
cpu_kernel CPU_NAME(activation), CPU_NAME(activation_dx);
cpu_kernel CPU_NAME(linear), CPU_NAME(linear_dx), CPU_NAME(linear_dw), CPU_NAME(linear_update);
cpu_kernel CPU_NAME(sweep), CPU_NAME(lamb);
cpu_kernel CPU_NAME(accumulate), CPU_NAME(sum), CPU_NAME(sum_squares), CPU_NAME(clip), CPU_NAME(trust),
    CPU_NAME(average);

#endif
