// clip: scale = min(1, clip_norm / (sqrt(sum of partials) + 1e-6))   partials (outputs), scale one number. One block.
#include "scale.cuh"

LF_KERNEL(clip, LF_LANES_THREADS)
{
    float factor = call.clip_norm / (sqrtf(lf_sum_block(lf_in(call, 0), call.outputs)) + 1e-6f);
    if (lf_first_thread())
        *lf_out(call, 1) = factor > 1 ? 1 : factor; // NaN goes through
}
