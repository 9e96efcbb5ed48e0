// soften: out = share softmax(z / temperature), or share z where temperature is 0; added to what stands there if `adds`.
// z and out (rows, outputs). The lanes of a row take every lanes-th column each; see lanes.cuh.
#include "lanes.cuh"

LF_KERNEL(soften, LF_LANES_THREADS)
{
    size_t from = (size_t)lf_row_inside(call) * call.outputs;
    const float *z = lf_in(call, 0) + from;
    float *out = lf_out(call, 1) + from, largest = 0, scale = call.share, temperature = call.temperature;
    if (temperature > 0) {
        float sum = 0;
        largest = -3.402823466e38f; // below every logit
        for (unsigned i = threadIdx.x; i < call.outputs; i += blockDim.x)
            largest = z[i] > largest ? z[i] : largest;
        largest = lf_max_lanes(largest);
        for (unsigned i = threadIdx.x; i < call.outputs; i += blockDim.x)
            sum += expf((z[i] - largest) / temperature);
        scale = call.share / lf_sum_lanes(sum);
    }
    if (lf_row() >= call.rows)
        return;
    for (unsigned i = threadIdx.x; i < call.outputs; i += blockDim.x) {
        float value = scale * (temperature > 0 ? expf((z[i] - largest) / temperature) : z[i]);
        out[i] = call.adds ? out[i] + value : value;
    }
}
