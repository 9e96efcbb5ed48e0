// What the losses share: the schedule, the results, the weights of rows, the options. LANES invocations work on one row
// of the batch.
#define LF_SCHEDULE_SLOT 2
#include "schedule.glsl"
LF_UPDATE(3, metrics)
LF_WRITE(4, dz)
LF_READ(5, teacher)
LF_READ(6, weights)
#include "lanes.glsl"

layout(constant_id = 2) const bool STORE_DZ = false;
layout(constant_id = 3) const bool WEIGHTED = false; // else every row weighs 1
layout(push_constant) uniform Push {
    uint step, rows, outputs;
    float soft_weight, temperature; // distill; value_loss with a teacher: soft_weight
    float label_smoothing;          // cross_entropy, distill
    float share, delta;             // value_loss
    uint start, batch;              // the batch's row that is the first of `rows`; all that its metrics have
};

float lf_weight(uint row)
{
    return WEIGHTED ? LF_LOAD(weights, row) : 1;
}

#include "metrics.glsl"
