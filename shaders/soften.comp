#version 450
// soften: result = share softmax(z / temperature), or share z where temperature is 0; added to what stands there if ADDS.
// z and result (batch, width). LANES invocations take one row, each every LANES-th column.
#include "common.glsl"
LF_READ(0, z)
LF_UPDATE(1, result)
#include "lanes.glsl"
layout(constant_id = 2) const bool ADDS = false;
layout(push_constant) uniform Push { uint step, batch, width; float temperature, share; };

void main()
{
    uint row = min(lf_row(), batch - 1), from = row * width, lane = lf_lane();
    float largest = 0, scale = share;
    if (temperature > 0) {
        float sum = 0;
        largest = LF_LOAD(z, from);
        for (uint i = lane; i < width; i += LANES)
            largest = max(largest, LF_LOAD(z, from + i));
        largest = lf_reduce_lanes(true, largest);
        for (uint i = lane; i < width; i += LANES)
            sum += exp((LF_LOAD(z, from + i) - largest) / temperature);
        scale = share / lf_reduce_lanes(false, sum);
    }
    if (lf_row() >= batch)
        return;
    for (uint i = lane; i < width; i += LANES) {
        float value = LF_LOAD(z, from + i);
        value = scale * (temperature > 0 ? exp((value - largest) / temperature) : value);
        LF_REPLACE(result, from + i, ADDS ? LF_LOAD(result, from + i) + value : value);
    }
}
