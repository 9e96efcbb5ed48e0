// What the losses share. LANES invocations work on one row of the batch and add up along a tree of fixed shape; with one
// lane, a workgroup is WIDTH rows and no memory is shared.
#define LF_SCHEDULE_SLOT 2
#include "schedule.glsl"
LF_WRITE(3, metrics)
LF_WRITE(4, dz)

layout(constant_id = 1) const uint LANES = 1; // a power of two
layout(constant_id = 2) const bool STORE_DZ = false;
layout(push_constant) uniform Push { uint step, batch, outputs; };

shared float lf_partial[gl_WorkGroupSize.x];

uint lf_loss_row()
{
    return lf_invocation() / LANES;
}

uint lf_loss_lane()
{
    return lf_invocation() % LANES;
}

// For every lane, the sum of the row's lanes. All invocations of the workgroup take part.
float lf_sum_lanes(float value)
{
    if (LANES == 1)
        return value;
    uint at = gl_LocalInvocationID.x;
    barrier();
    lf_partial[at] = value;
    for (uint half_ = LANES / 2; half_ > 0; half_ /= 2) {
        barrier();
        if (at % LANES < half_)
            lf_partial[at] += lf_partial[at + half_];
    }
    barrier();
    return lf_partial[at - at % LANES];
}

// The same for the largest; NaN may or may not count.
float lf_max_lanes(float value)
{
    if (LANES == 1)
        return value;
    uint at = gl_LocalInvocationID.x;
    barrier();
    lf_partial[at] = value;
    for (uint half_ = LANES / 2; half_ > 0; half_ /= 2) {
        barrier();
        if (at % LANES < half_)
            lf_partial[at] = max(lf_partial[at], lf_partial[at + half_]);
    }
    barrier();
    return lf_partial[at - at % LANES];
}

// Rows of the batch past the schedule's count nothing.
void lf_store_metrics(uint position, uint row, bool counts, float loss, float hit)
{
    uint at = (position * batch + row) * LF_METRIC_COUNT;
    LF_STORE(metrics, at + LF_METRIC_LOSS, counts ? loss : 0);
    LF_STORE(metrics, at + LF_METRIC_HIT, counts ? hit : 0);
}
