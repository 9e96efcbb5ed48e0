// What the losses share: the schedule, the results, the options. LANES invocations work on one row of the batch.
#define LF_SCHEDULE_SLOT 2
#include "schedule.glsl"
LF_WRITE(3, metrics)
LF_WRITE(4, dz)
#include "lanes.glsl"

layout(constant_id = 2) const bool STORE_DZ = false;
layout(push_constant) uniform Push {
    uint step, batch, outputs;
    float soft_weight, temperature; // distill
};

// Rows of the batch past the schedule's count nothing.
void lf_store_metrics(uint position, uint row, bool counts, float loss, float hit)
{
    uint at = (position * batch + row) * LF_METRIC_COUNT;
    LF_STORE(metrics, at + LF_METRIC_LOSS, counts ? loss : 0);
    LF_STORE(metrics, at + LF_METRIC_HIT, counts ? hit : 0);
}
