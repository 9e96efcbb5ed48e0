// A sweep over a flat block: a workgroup of LANES invocations takes LANES x ITEMS neighbouring groups of four floats.
layout(constant_id = 1) const uint ITEMS = 1;

// Which group of four is this invocation's item.
uint lf_sweep_at(uint item)
{
    uint group = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
    return (group * ITEMS + item) * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
}
