// Work on rows of the batch: LANES invocations take one row and add up along a tree of fixed shape; with one lane, every
// invocation takes a row and no memory is shared.
layout(constant_id = 1) const uint LANES = 1; // a power of two

shared float lf_partial[gl_WorkGroupSize.x];

// May lie past the batch.
uint lf_row()
{
    return lf_invocation() / LANES;
}

uint lf_lane()
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
