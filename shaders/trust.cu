// trust: scale = sqrt(sum of weights) / sqrt(sum of direction), 1 if either sum is 0   both (outputs) partial sums of
// squares, scale one number. One block.
#include "scale.cuh"

LF_KERNEL(trust, LF_LANES_THREADS)
{
    float weights = lf_sum_block(lf_in(call, 0), call.outputs), direction = lf_sum_block(lf_in(call, 1), call.outputs);
    if (lf_first_thread())
        *lf_out(call, 2) = weights == 0 || direction == 0 ? 1 : sqrtf(weights) / sqrtf(direction);
}
