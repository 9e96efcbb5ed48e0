// What the losses share: operands z (0), target (1), schedule (2), metrics (3), dz (4), teacher (5), weights (6); dz,
// teacher and weights may be none. z, dz and teacher (rows, outputs), weights (rows), metrics (steps, batch, 5).
#ifndef LF_LOSS_CUH
#define LF_LOSS_CUH

#include "lanes.cuh"

enum { LF_Z, LF_TARGET, LF_LOSS_SCHEDULE, LF_METRICS, LF_DZ, LF_TEACHER, LF_WEIGHTS };

// A row of a loss's operands.
struct lf_loss_row {
    const float *z, *teacher; // teacher: NULL without one
    float *dz, *metrics;      // dz: NULL where no gradient is asked for
    float weight, scale;      // scale: of the row's gradient
    bool counts;              // it is one of the schedule's
};

LF_INLINE lf_loss_row lf_loss_row_at(const lf_call &call, unsigned row)
{
    lf_now now = lf_schedule_now(call, LF_LOSS_SCHEDULE);
    size_t from = (size_t)row * call.outputs, at = (size_t)now.position * call.batch + call.row + row;
    lf_loss_row result;
    result.z = lf_in(call, LF_Z) + from;
    result.teacher = call.operand[LF_TEACHER] ? lf_in(call, LF_TEACHER) + from : NULL;
    result.dz = call.operand[LF_DZ] ? lf_out(call, LF_DZ) + from : NULL;
    result.metrics = lf_out(call, LF_METRICS) + at * LF_METRIC_COUNT;
    result.weight = call.operand[LF_WEIGHTS] ? lf_in(call, LF_WEIGHTS)[row] : 1;
    result.scale = result.weight * now.row.inv_weight;
    result.counts = row < lf_valid_rows(call, now.row.rows);
    return result;
}

// The row's metrics; the last three are those that classes and values have by turns. Rows past the schedule's count
// nothing.
LF_INLINE void lf_store_metrics(const lf_loss_row &row, float loss, float third, float fourth, float fifth)
{
    const float values[LF_METRIC_COUNT] = { row.weight * loss, row.weight, third, fourth, fifth };
    for (unsigned i = 0; i < LF_METRIC_COUNT; i++)
        row.metrics[i] = row.counts ? values[i] : 0;
}

#endif
