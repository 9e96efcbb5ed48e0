// What optimizers.c does for products.c: an optimizer's update of a matrix's tile. Only the kernels' sources include
// it.
#ifndef LF_CPU_UPDATE_H
#define LF_CPU_UPDATE_H

#include "cpu/real.h"

// A matrix's tile: `rows` rows of `count` neighbours, each array's rows its own stride apart.
typedef struct cpu_range {
    uint32_t rows, count;
    size_t g_stride, w_stride, m_stride, v_stride;
    const real *g;
    real *direction, *w, *m, *v; // direction: lamb, where g stands; m and v: NULL where the optimizer has none
    real scale, limit;           // what becomes of g first: clamp(scale · g, ±limit); limit 0: no clamp
    real decay;
} cpu_range;

// sgd, adam, rmsprop or lion, with the rates of `op` and of the schedule's row.
void CPU_NAME(update)(lf_op_kind optimizer, const lf_op *op, const struct lf_schedule_row *row, const cpu_range *range);

#endif
