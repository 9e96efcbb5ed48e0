// What the losses share. LANES invocations work on one row of the batch and add up along a tree of fixed shape; with one
// lane, every invocation takes a row and no memory is shared.
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

float lf_combine(bool largest, float a, float b)
{
    return largest ? max(a, b) : a + b; // max may drop NaN
}

// For every lane, the sum or the largest of the row's lanes. All invocations of the workgroup take part.
float lf_reduce_lanes(bool largest, float value)
{
    if (LANES == 1)
        return value;
    uint at = gl_LocalInvocationID.x;
    barrier();
    lf_partial[at] = value;
    for (uint reach = LANES / 2; reach > 0; reach /= 2) {
        barrier();
        if (at % LANES < reach)
            lf_partial[at] = lf_combine(largest, lf_partial[at], lf_partial[at + reach]);
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
