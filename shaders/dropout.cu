// dropout: y = x / (1 - rate) where the element is kept, else 0. Its own gradient, with dy for x. x and y (rows, outputs).
// Element e is kept where the upper 24 bits of word e % 4 of the numbers drawn for (e / 4, training step, layer), read as
// a fraction, are at least `rate`: the same pattern, to the bit, on all devices.
// One thread computes a group of four.
#include "philox.cuh"
#include "sweep.cuh"

LF_KERNEL(dropout, LF_SWEEP_THREADS)
{
    size_t at = lf_sweep_at();
    if (lf_sweep_ends(call, at))
        return;
    const lf_schedule_header *header = lf_operand<const lf_schedule_header>(call, 1);
    uint32_t step = lf_schedule_now(call, 1).row.step;
    // Elements count from the batch's first one: the group may begin inside a group of the numbers drawn.
    size_t first = (size_t)call.row * call.outputs + 4 * at;
    uint32_t quad = (uint32_t)(first / 4), shift = (uint32_t)(first % 4);
    lf_words words = lf_philox({ { quad, step, call.layer, call.stream } }, header->seed_low, header->seed_high), next = words;
    if (shift > 0)
        next = lf_philox({ { quad + 1, step, call.layer, call.stream } }, header->seed_low, header->seed_high);
    lf_quad value = lf_sweep_load(call, 0, at);
    float scale = 1 / (1 - call.rate);
    for (unsigned i = 0; i < 4; i++) {
        uint32_t word = shift + i < 4 ? words.at[shift + i] : next.at[shift + i - 4];
        bool kept = (float)(word >> 8) * 5.9604644775390625e-8f >= call.rate; // 2^-24
        value.at[i] = kept ? value.at[i] * scale : 0;
    }
    lf_sweep_store(call, 2, at, value);
}
