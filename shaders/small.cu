// small_steps: `step` whole training steps of x -> linear, act -> linear -> cross_entropy, with sgd or adam, in one launch
// whose blocks all run at once. The schedule's counter moves on by as much.
//
// A block owns UNITS hidden units: their columns of kernel_1 (inputs, hidden), their rows of kernel_2 (hidden, outputs),
// bias_1 and the moments of these stay in its shared memory from the first step to the last. Every block keeps bias_2
// too, and comes to the same bits of it. So only sums of logits cross: each step a block writes its part (batch, outputs)
// to global memory, raises its flag, waits for the flags of all, and adds up all parts in the blocks' order. The parts
// have two places by turns; a block writes to one again only when all have read it, for they have since raised a flag.
// The rows of the next step are fetched while flags are awaited. Block 0 writes the
// metrics, and the logits of the last step.
//
// The floor of a step, for 784-128-10 in 8 bits, batch 64, with 32 blocks of 4 units: 2 x 200,704 multiply-adds a block are
// 3,136 cycles of a multiprocessor (1.8 us at 1.75 GHz), 2 x 50,176 conversions of x another 1,600 at 64 a cycle, which
// other warps can hide; the 50 kB of rows and 32 parts of 2.5 kB that it reads, 130 kB from L2, some 2,000 at 64 bytes a
// cycle, of which the rows are hidden; one exchange is a write, a flag and a read through L2, about 1 us. In all 4 to 5 us.
#include "classes.cuh"
#include "small_layout.h"
#include "update.cuh"

struct lf_small_block {
    lf_small_layout at;
    float *shared;
    unsigned thread, lane, warp, blocks, first; // first: of the block's units
};

template <class T> struct alignas(4 * sizeof(T)) lf_small_quad {
    T at[4];
};

// Units of a row or of an input, which are neighbours.
template <unsigned UNITS> struct alignas(16) lf_units {
    float of[UNITS];
};

// Where number `i` of the block's share stands in the blocks of parameters. False: nowhere, it fills up a group of four.
template <unsigned UNITS>
LF_INLINE bool lf_small_place(const lf_call &call, const lf_small_block &b, unsigned i, size_t &place)
{
    if (i < b.at.kernel_2)
        place = call.kernel_1 + (size_t)(i / UNITS) * call.hidden + b.first + i % UNITS;
    else if (i < b.at.bias_1)
        place = call.kernel_2 + (size_t)b.first * call.outputs + (i - b.at.kernel_2);
    else if (i < b.at.bias_2)
        place = call.bias_1 + b.first + (i - b.at.bias_1);
    else
        place = call.bias_2 + (i - b.at.bias_2);
    return i >= b.at.kernel_2 || i / UNITS < call.inputs;
}

// Brings the share of a block of parameters into shared memory.
template <unsigned UNITS>
LF_INLINE void lf_small_fetch(const lf_call &call, const lf_small_block &b, unsigned operand, float *share)
{
    const float *from = lf_in(call, operand);
    size_t place;
    for (unsigned i = b.thread; i < b.at.bias_2 + call.outputs; i += LF_SMALL_STEPS_THREADS)
        share[i] = from && lf_small_place<UNITS>(call, b, i, place) ? from[place] : 0;
}

template <unsigned UNITS>
LF_INLINE void lf_small_return(const lf_call &call, const lf_small_block &b, unsigned operand, const float *share)
{
    float *to = lf_out(call, operand);
    unsigned count = b.at.bias_2 + (blockIdx.x == 0 ? call.outputs : 0);
    size_t place;
    for (unsigned i = b.thread; to && i < count; i += LF_SMALL_STEPS_THREADS)
        if (lf_small_place<UNITS>(call, b, i, place))
            to[place] = share[i];
}

LF_INLINE void lf_small_fetch_scaling(const lf_call &call, const lf_small_block &b)
{
    const float *scaling = lf_in(call, LF_SMALL_SCALING);
    unsigned width = 4 * b.at.quads;
    for (unsigned i = b.thread; i < 2 * width; i += LF_SMALL_STEPS_THREADS)
        b.shared[b.at.scaling + i] = i % width < call.inputs ? scaling[i / width * call.inputs + i % width] : 0;
}

template <class T> LF_INLINE lf_small_quad<T> *lf_small_x(const lf_call &call, const lf_small_block &b, unsigned step)
{
    return (lf_small_quad<T> *)(b.shared + b.at.x) + (size_t)(step % 2) * call.batch * b.at.line;
}

LF_INLINE unsigned *lf_small_labels(const lf_call &call, const lf_small_block &b, unsigned step)
{
    return (unsigned *)(b.shared + b.at.labels) + step % 2 * call.batch;
}

// Brings a step's rows, as they are stored, and its labels into shared memory.
template <class T>
LF_INLINE void lf_small_fetch_rows(const lf_call &call, const lf_small_block &b, const lf_schedule_row &row, unsigned step)
{
    const unsigned *order = lf_operand<const unsigned>(call, LF_SMALL_ORDER) + row.first;
    const T *data = lf_operand<const T>(call, LF_SMALL_DATA);
    lf_small_quad<T> *x = lf_small_x<T>(call, b, step);
    for (unsigned i = b.thread; i < row.rows * b.at.quads; i += LF_SMALL_STEPS_THREADS) {
        unsigned to = i / b.at.quads, q = i % b.at.quads;
        const T *from = data + (size_t)order[to] * call.inputs + 4 * q;
        lf_small_quad<T> value = {};
        if (call.inputs % 4 == 0)
            value = *(const lf_small_quad<T> *)from;
        else
            for (unsigned k = 0; k < 4; k++)
                if (4 * q + k < call.inputs)
                    value.at[k] = from[k];
        x[to * b.at.line + q] = value;
    }
    unsigned *labels = lf_small_labels(call, b, step);
    for (unsigned i = b.thread; i < row.rows; i += LF_SMALL_STEPS_THREADS)
        labels[i] = lf_operand<const unsigned>(call, LF_SMALL_TARGETS)[order[i]];
}

// Group `q` of a row's inputs.
template <class T> LF_INLINE lf_quad lf_small_input(const lf_small_block &b, const lf_small_quad<T> *row, unsigned q)
{
    const lf_quad *scaling = (const lf_quad *)(b.shared + b.at.scaling);
    lf_small_quad<T> stored = row[q];
    lf_quad scale = scaling[q], offset = scaling[b.at.quads + q], value;
    for (unsigned k = 0; k < 4; k++)
        value.at[k] = (float)stored.at[k] * scale.at[k] + offset.at[k];
    return value;
}

// z and act(z) of the block's units: a row's inputs are shared out to groups of threads, whose sums are added in order.
// The inputs of rows past the `valid` ones are zeros.
template <class T, unsigned UNITS>
LF_INLINE void lf_small_forward(const lf_call &call, const lf_small_block &b, unsigned valid, unsigned rows,
                                unsigned step)
{
    typedef lf_units<UNITS> units;
    const units *kernel = (const units *)b.shared;
    units *parts = (units *)(b.shared + b.at.parts);
    unsigned at = b.thread % LF_SMALL_STEPS_ROWS, group = b.thread / LF_SMALL_STEPS_ROWS;
    for (unsigned first = 0; first < rows; first += LF_SMALL_STEPS_ROWS) {
        units sum = {};
        const lf_small_quad<T> *row = lf_small_x<T>(call, b, step) + (size_t)(first + at) * b.at.line;
        for (unsigned q = first + at < valid ? group : b.at.quads; q < b.at.quads; q += LF_SMALL_STEPS_GROUPS) {
            lf_quad x = lf_small_input<T>(b, row, q);
            LF_UNROLL
            for (unsigned k = 0; k < 4; k++) {
                units weights = kernel[4 * q + k];
                LF_UNROLL
                for (unsigned u = 0; u < UNITS; u++)
                    sum.of[u] += x.at[k] * weights.of[u];
            }
        }
        parts[group * LF_SMALL_STEPS_ROWS + at] = sum;
        __syncthreads();
        for (unsigned i = b.thread; i < LF_SMALL_STEPS_ROWS * UNITS; i += LF_SMALL_STEPS_THREADS) {
            unsigned unit = i % UNITS, to = first * UNITS + i;
            float z = 0;
            for (unsigned g = 0; g < LF_SMALL_STEPS_GROUPS; g++)
                z += parts[g * LF_SMALL_STEPS_ROWS + i / UNITS].of[unit];
            z += b.shared[b.at.bias_1 + unit];
            float y = lf_activate(call.activation, call.alpha, z);
            if (to < rows * UNITS) {
                b.shared[b.at.active + to] = y;
                b.shared[b.at.saved + to] = call.saves_z ? z : y;
            }
        }
        __syncthreads();
    }
}

// A block's part of the logits of a step.
LF_INLINE float *lf_small_part(const lf_call &call, const lf_small_block &b, unsigned block, unsigned step)
{
    float *parts = lf_out(call, LF_SMALL_SCRATCH) + LF_SMALL_FLAGS_BYTES / sizeof(float);
    return parts + ((size_t)(step % 2) * b.blocks + block) * b.at.classes;
}

// Writes the block's part of the logits, and says so.
template <unsigned UNITS>
LF_INLINE void lf_small_send(const lf_call &call, const lf_small_block &b, unsigned rows, unsigned step)
{
    float *part = lf_small_part(call, b, blockIdx.x, step);
    const float *kernel = b.shared + b.at.kernel_2, *active = b.shared + b.at.active;
    for (unsigned i = b.thread; i < rows * call.outputs; i += LF_SMALL_STEPS_THREADS) {
        unsigned row = i / call.outputs, column = i % call.outputs;
        float sum = 0;
        for (unsigned u = 0; u < UNITS; u++)
            sum += active[row * UNITS + u] * kernel[u * call.outputs + column];
        __stcg(part + i, sum);
    }
    __threadfence();
    __syncthreads();
    if (b.thread == 0)
        lf_operand<volatile unsigned>(call, LF_SMALL_SCRATCH)[blockIdx.x] = step + 1;
}

// Waits for the parts of all blocks, and adds them up: a thread reads four logits of PARTS parts at once, for the way to L2
// is long, and then the sums of these are added in order.
LF_INLINE void lf_small_receive(const lf_call &call, const lf_small_block &b, unsigned rows, unsigned step)
{
    const volatile unsigned *flags = lf_operand<const volatile unsigned>(call, LF_SMALL_SCRATCH);
    if (b.thread < b.blocks)
        while (flags[b.thread] < step + 1)
            __nanosleep(20);
    __threadfence();
    __syncthreads();
    const unsigned PARTS = LF_SMALL_STEPS_PARTS;
    unsigned count = rows * call.outputs, quads = (count + 3) / 4, groups = (b.blocks + PARTS - 1) / PARTS;
    for (unsigned i = b.thread; i < quads * groups; i += LF_SMALL_STEPS_THREADS) {
        unsigned q = i % quads, group = i / quads;
        float4 part[PARTS], sum = {};
        LF_UNROLL
        for (unsigned k = 0; k < PARTS; k++) { // past the last block, its part once more: no branch parts the loads
            unsigned block = group * PARTS + k < b.blocks ? group * PARTS + k : b.blocks - 1;
            part[k] = __ldcg((const float4 *)lf_small_part(call, b, block, step) + q);
        }
        LF_UNROLL
        for (unsigned k = 0; k < PARTS; k++)
            if (group * PARTS + k < b.blocks)
                sum = { sum.x + part[k].x, sum.y + part[k].y, sum.z + part[k].z, sum.w + part[k].w };
        ((float4 *)(b.shared + b.at.sums + group * b.at.classes))[q] = sum;
    }
    __syncthreads();
    for (unsigned i = b.thread; i < count; i += LF_SMALL_STEPS_THREADS) {
        float sum = 0;
        for (unsigned group = 0; group < groups; group++)
            sum += b.shared[b.at.sums + group * b.at.classes + i];
        b.shared[b.at.logits + i] = sum + b.shared[b.at.bias_2 + i % call.outputs];
    }
    __syncthreads();
}

// The loss of every row and its gradient to the logits.
LF_INLINE void lf_small_loss(const lf_call &call, const lf_small_block &b, const lf_now &now, unsigned step)
{
    unsigned rows = now.row.rows, count = blockIdx.x == 0 ? call.batch : rows;
    const unsigned *labels = lf_small_labels(call, b, step);
    for (unsigned first = 0; first < count; first += blockDim.y) {
        unsigned at = first + threadIdx.y, inside = at < rows ? at : rows - 1;
        lf_loss_row row = {};
        row.z = b.shared + b.at.logits + inside * call.outputs;
        row.metrics = lf_out(call, LF_SMALL_METRICS) + ((size_t)now.position * call.batch + at) * LF_METRIC_COUNT;
        row.weight = 1;
        row.counts = at < rows;
        lf_class_row c = lf_class_row_at(call, row, labels[inside]);
        if (blockIdx.x == 0 && threadIdx.x == 0 && at < call.batch)
            lf_store_class_metrics(row, c, lf_cross_entropy(c, call.label_smoothing));
        for (unsigned i = threadIdx.x; row.counts && i < call.outputs; i += blockDim.x)
            b.shared[b.at.dz + at * call.outputs + i] =
                lf_cross_entropy_slope(call, c, i, row.z[i]) * now.row.inv_weight;
    }
    __syncthreads();
}

// The gradient to the block's z.
template <unsigned UNITS> LF_INLINE void lf_small_slopes(const lf_call &call, const lf_small_block &b, unsigned rows)
{
    const float *kernel = b.shared + b.at.kernel_2, *dz = b.shared + b.at.dz;
    for (unsigned i = b.thread; i < rows * UNITS; i += LF_SMALL_STEPS_THREADS) {
        float sum = 0;
        for (unsigned column = 0; column < call.outputs; column++)
            sum += dz[i / UNITS * call.outputs + column] * kernel[i % UNITS * call.outputs + column];
        b.shared[b.at.slope + i] = sum * lf_slope(call.activation, call.alpha, b.shared[b.at.saved + i]);
    }
    __syncthreads();
}

// The gradients of kernel_2 and the biases: a warp for each, whose lanes share the rows.
template <unsigned UNITS>
LF_INLINE void lf_small_sum_others(const lf_call &call, const lf_small_block &b, unsigned rows)
{
    const float *dz = b.shared + b.at.dz, *slope = b.shared + b.at.slope, *active = b.shared + b.at.active;
    for (unsigned i = b.at.kernel_2 + b.warp; i < b.at.bias_2 + call.outputs; i += LF_SMALL_STEPS_THREADS / 32) {
        unsigned k = i - b.at.kernel_2, column = i < b.at.bias_1 ? k % call.outputs : i - b.at.bias_2;
        float sum = 0;
        for (unsigned row = b.lane; row < rows; row += 32)
            if (i < b.at.bias_1)
                sum += active[row * UNITS + k / call.outputs] * dz[row * call.outputs + column];
            else if (i < b.at.bias_2)
                sum += slope[row * UNITS + i - b.at.bias_1];
            else
                sum += dz[row * call.outputs + column];
        for (unsigned reach = 16; reach > 0; reach /= 2)
            sum += __shfl_xor_sync(0xffffffffu, sum, reach);
        if (b.lane == 0)
            b.shared[b.at.grads + i] = sum;
    }
}

// The gradient of kernel_1: two neighbouring threads share the rows of four inputs.
template <class T, unsigned UNITS>
LF_INLINE void lf_small_sum_kernel(const lf_call &call, const lf_small_block &b, unsigned rows, unsigned step)
{
    typedef lf_units<UNITS> units;
    const units *slope = (const units *)(b.shared + b.at.slope);
    units *grads = (units *)(b.shared + b.at.grads);
    const lf_small_quad<T> *x = lf_small_x<T>(call, b, step);
    unsigned half = b.thread % 2;
    for (unsigned first = 0; first < b.at.quads; first += LF_SMALL_STEPS_THREADS / 2) {
        unsigned q = first + b.thread / 2;
        units sum[4] = {};
        for (unsigned row = q < b.at.quads ? half : rows; row < rows; row += 2) {
            lf_quad value = lf_small_input<T>(b, x + row * b.at.line, q);
            units from = slope[row];
            LF_UNROLL
            for (unsigned k = 0; k < 4; k++)
                LF_UNROLL
                for (unsigned u = 0; u < UNITS; u++)
                    sum[k].of[u] += value.at[k] * from.of[u];
        }
        LF_UNROLL
        for (unsigned k = 0; k < 4; k++) {
            LF_UNROLL
            for (unsigned u = 0; u < UNITS; u++)
                sum[k].of[u] += __shfl_xor_sync(0xffffffffu, sum[k].of[u], 1);
            if (half == k % 2 && q < b.at.quads)
                grads[4 * q + k] = sum[k];
        }
    }
    __syncthreads();
}

LF_INLINE void lf_small_update(const lf_call &call, const lf_small_block &b, const lf_schedule_row &now)
{
    for (unsigned i = b.thread; i < b.at.bias_2 + call.outputs; i += LF_SMALL_STEPS_THREADS) {
        float decay = i < b.at.bias_1 ? call.weight_decay : call.bias_decay, gradient = b.shared[b.at.grads + i];
        float *param = b.shared + i, *m = b.shared + b.at.m + i, *v = b.shared + b.at.v + i;
        if (call.adam)
            lf_adam_one(call, now, decay, gradient, *param, *m, *v);
        else
            lf_sgd_one(call, now, decay, call.operand[LF_SMALL_M] != 0, gradient, *param, *m);
    }
    __syncthreads();
}

template <class T, unsigned UNITS> LF_INLINE void lf_small_run(const lf_call &call)
{
    unsigned thread = threadIdx.y * blockDim.x + threadIdx.x;
    lf_small_block b = { lf_small_layout_of(call.batch, call.inputs, UNITS, call.outputs, sizeof(T)),
                         lf_shared(),
                         thread,
                         thread % 32,
                         thread / 32,
                         gridDim.x,
                         blockIdx.x * UNITS };
    lf_schedule_header *header = lf_operand<lf_schedule_header>(call, LF_SMALL_SCHEDULE);
    unsigned start = header->counter;
    const lf_schedule_row *row = (const lf_schedule_row *)(header + 1) + start;
    lf_small_fetch<UNITS>(call, b, LF_SMALL_PARAMS, b.shared);
    lf_small_fetch<UNITS>(call, b, LF_SMALL_M, b.shared + b.at.m);
    lf_small_fetch<UNITS>(call, b, LF_SMALL_V, b.shared + b.at.v);
    lf_small_fetch_scaling(call, b);
    lf_small_fetch_rows<T>(call, b, row[0], 0);
    __syncthreads();
    for (unsigned step = 0; step < call.step; step++) {
        lf_now now = { start + step, row[step] };
        bool last = step + 1 == call.step;
        unsigned rows = last ? call.batch : now.row.rows; // at the end all, for the output
        lf_small_forward<T, UNITS>(call, b, now.row.rows, rows, step);
        lf_small_send<UNITS>(call, b, rows, step);
        if (!last)
            lf_small_fetch_rows<T>(call, b, row[step + 1], step + 1);
        lf_small_receive(call, b, rows, step);
        for (unsigned i = thread; last && blockIdx.x == 0 && i < rows * call.outputs; i += LF_SMALL_STEPS_THREADS)
            lf_out(call, LF_SMALL_OUTPUT)[i] = b.shared[b.at.logits + i];
        lf_small_loss(call, b, now, step);
        lf_small_slopes<UNITS>(call, b, now.row.rows);
        lf_small_sum_others<UNITS>(call, b, now.row.rows);
        lf_small_sum_kernel<T, UNITS>(call, b, now.row.rows, step);
        lf_small_update(call, b, now.row);
    }
    lf_small_return<UNITS>(call, b, LF_SMALL_PARAMS, b.shared);
    lf_small_return<UNITS>(call, b, LF_SMALL_M, b.shared + b.at.m);
    lf_small_return<UNITS>(call, b, LF_SMALL_V, b.shared + b.at.v);
    if (blockIdx.x == 0 && thread == 0)
        header->counter = start + call.step; // all blocks have read it, for they have sent their parts
}

LF_KERNEL(small_steps, LF_SMALL_STEPS_THREADS)
{
    bool wide = call.hidden / gridDim.x == 8;
    if (call.stored == LF_STORED_U8 && wide)
        lf_small_run<uint8_t, 8>(call);
    else if (call.stored == LF_STORED_U8)
        lf_small_run<uint8_t, 4>(call);
    else if (wide)
        lf_small_run<float, 8>(call);
    else
        lf_small_run<float, 4>(call);
}
