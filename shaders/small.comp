#version 450
// small: training steps of x -> linear, activation -> linear -> cross_entropy with sgd or adam, one dispatch a step.
//
// A workgroup owns four hidden units: their columns of kernel_1 (inputs, hidden), their rows of kernel_2 (hidden, outputs),
// bias_1, and the moments of these; the first workgroup also owns bias_2. Only parts of logits (batch, outputs) cross. A
// dispatch finishes a step, if FINISHES: every workgroup adds up all parts in their order, and comes to the same bits of
// the loss's gradient; then follow the gradients and the update of what is its own. And it starts the next step, if
// STARTS: act(z) of its units and its part of the logits, with the updated units. So a run of N steps is N + 1 dispatches
// with a barrier between. Parts have two places by turns; act(z) and what act' needs are read by none but their writer.
// The first workgroup writes the metrics, and the logits of the last step.
//
// The floor of a step, for 784-128-10 in 8 bits, batch 64: 32 workgroups, 2 x 200,704 multiply-adds each, are 3,136 cycles
// of a unit of 128 lanes (1.8 us at 1.75 GHz), and 2 x 50,176 conversions of x with as many scalings hide behind them where
// other lanes wait. Each reads the rows twice (100 kB), 32 parts of 2.5 kB and 75 kB of units and moments, from L2, and
// writes 38 kB: some 3,500 cycles at 64 bytes a cycle, partly hidden. Nine barriers inside, some 20 ns each; four round
// trips to L2 that nothing hides (the schedule, the order, the rows and parts, the moments), about 1.2 us. And between two
// dispatches 1.5 to 4 us. In all 5 to 8 us.
#undef LF_TEXEL
#include "common.glsl"
LF_READ_WORDS(0, data)
LF_READ_WORDS(1, targets)
LF_READ(2, scaling)
LF_READ_WORDS(3, order)
#define LF_SCHEDULE_SLOT 4
#include "schedule.glsl"
LF_UPDATE(5, params)
LF_UPDATE(6, moments)
LF_UPDATE(7, metrics)
LF_WRITE(8, logits)
LF_UPDATE(9, scratch) // parts (2, groups, batch outputs), act(z) (groups, batch, 4), what act' needs (groups, batch, 4)
#include "lanes.glsl" // on a row of the loss

layout(constant_id = 2) const uint BATCH = 1;
layout(constant_id = 3) const uint SHARED = 1;   // groups of four words that a workgroup needs; see places below
layout(constant_id = 4) const uint SHARES = 1;   // of a row's inputs in the forward pass, each summed by an invocation
layout(constant_id = 5) const uint HALVES = 1;   // of the batch in the backward pass: 1 or 2
layout(constant_id = 6) const uint ACTIVATION = 0;
layout(constant_id = 7) const bool SAVES_Z = false; // act' is a function of z, not of act(z)
layout(constant_id = 8) const uint STORED = 32;     // bits of an element of x, and 256 times its kind, see stored.glsl
layout(constant_id = 9) const bool QUADS = false;   // inputs are a multiple of four
layout(constant_id = 10) const uint RULE = LF_RULE_SGD;
layout(constant_id = 11) const bool MOMENTUM = false;
layout(constant_id = 12) const uint VARIANT = 0; // adam: decoupled; sgd: nesterov
layout(push_constant) uniform Push {
    uint step, stage; // the step that is started; the one before it is finished
    uint inputs, hidden, outputs;
    uint kernel_1, bias_1, kernel_2, bias_2; // places in `params`
    uint m, v;                               // places in `moments`
    float alpha, label_smoothing, weight_decay, bias_decay, momentum, beta1, beta2, rest1, rest2, eps;
};
const uint STARTS = 1, FINISHES = 2;
const uint AHEAD = 4; // loads of x that an invocation has under way: the way to memory is long

const uint BITS = STORED % 256, KIND = STORED / 256;
const bool LIMITED = false, DECOUPLED = RULE == LF_RULE_ADAM && VARIANT != 0,
           NESTEROV = RULE == LF_RULE_SGD && VARIANT != 0;
const float clip_value = 0;
const uint batch = BATCH, start = 0;
#include "activation.glsl"
#include "metrics.glsl"
#include "optimizers.glsl"
#include "stored.glsl"

shared vec4 memory[SHARED];
shared uint resident[2 * BATCH]; // where the rows stand in the data: of the step that is finished, then of the next

const uint THREADS = gl_WorkGroupSize.x;
uint thread = gl_LocalInvocationID.x, group = gl_WorkGroupID.x, groups = gl_NumWorkGroups.x;
uint quads = (inputs + 3) / 4;                  // groups of four inputs
uint class_quads = (BATCH * outputs + 3) / 4;   // of logits
uint items = outputs + 1 + (outputs + 3) / 4;   // gradients beside kernel_1's: of kernel_2's columns, bias_1, bias_2
// Places in `memory`.
uint at_first = 0;                              // (4, quads): kernel_1, a vector the units
uint at_second = 4 * quads;                     // (items): the others
uint at_active = at_second + items;             // (batch)
uint at_saved = at_active + BATCH;              // (batch); then the gradient to z
uint at_logits = at_saved + BATCH;              // (batch outputs)
uint at_dz = at_logits + class_quads;           // (batch outputs)
uint at_area = at_dz + class_quads;             // (max(threads, items)): sums that invocations exchange
#define LF_WORD(at, i) memory[(at) + (i) / 4][(i) % 4]

float lf_logit(uint row, uint number)
{
    return LF_WORD(at_logits, row * outputs + number);
}

uint lf_label(uint row)
{
    return LF_LOAD(targets, resident[row]);
}
#include "class_row.glsl"

// ---- parameters

struct lf_units {
    vec4 param, m, v;
};

// Four words of a block, `stride` apart.
#define LF_LOAD_APART(name, at, stride)                                                                            \
    ((stride) == 1 ? LF_LOAD4(name, (at) / 4)                                                                      \
                   : vec4(LF_LOAD(name, at), LF_LOAD(name, (at) + (stride)), LF_LOAD(name, (at) + 2 * (stride)),   \
                          LF_LOAD(name, (at) + 3 * (stride))))
#define LF_STORE_APART(name, at, stride, value)                                                                    \
    if ((stride) == 1)                                                                                             \
        LF_REPLACE4(name, (at) / 4, value);                                                                        \
    else                                                                                                           \
        for (uint word_ = 0; word_ < 4; word_++)                                                                   \
            LF_REPLACE(name, (at) + word_ * (stride), (value)[word_]);

lf_units fetch(uint at, uint stride)
{
    lf_units u = lf_units(LF_LOAD_APART(params, at, stride), vec4(0), vec4(0));
    if (MOMENTUM || RULE == LF_RULE_ADAM)
        u.m = LF_LOAD_APART(moments, m + at, stride);
    if (RULE == LF_RULE_ADAM)
        u.v = LF_LOAD_APART(moments, v + at, stride);
    return u;
}

// Stores and returns the new parameters.
vec4 update(lf_schedule_row now, float decay, vec4 gradient, lf_units u, uint at, uint stride)
{
    if (now.updates == 0)
        return u.param;
    if (RULE == LF_RULE_ADAM)
        lf_adam(now, decay, gradient, u.param, u.m, u.v);
    else
        lf_sgd(now, decay, gradient, u.param, u.m);
    LF_STORE_APART(params, at, stride, u.param)
    if (MOMENTUM || RULE == LF_RULE_ADAM)
        LF_STORE_APART(moments, m + at, stride, u.m)
    if (RULE == LF_RULE_ADAM)
        LF_STORE_APART(moments, v + at, stride, u.v)
    return u.param;
}

uint place_of_input(uint k)
{
    return kernel_1 + k * hidden + 4 * group;
}

// The items: columns of kernel_2, then bias_1, then groups of four of bias_2, whose block is filled up with zeros.
uint place_of_item(uint item)
{
    return item < outputs    ? kernel_2 + 4 * group * outputs + item
           : item == outputs ? bias_1 + 4 * group
                             : bias_2 + 4 * (item - outputs - 1);
}

uint stride_of_item(uint item)
{
    return item < outputs ? outputs : 1;
}

void fetch_items()
{
    for (uint i = thread; i < items; i += THREADS)
        memory[at_second + i] = LF_LOAD_APART(params, place_of_item(i), stride_of_item(i));
}

void fetch_kernel()
{
    for (uint i = thread; i < 4 * quads; i += THREADS) {
        uint q = i % quads, k = 4 * q + i / quads;
        memory[at_first + i] = k < inputs ? LF_LOAD4(params, place_of_input(k) / 4) : vec4(0);
    }
}

// ---- finishing a step

uint place_of_part(uint of_step, uint of_group)
{
    return (of_step % 2 * groups + of_group) * class_quads;
}

uint place_of_active()
{
    return 2 * groups * class_quads + group * BATCH;
}

void find_rows(lf_schedule_row row, uint to)
{
    for (uint i = thread; i < BATCH; i += THREADS)
        resident[to + i] = i < row.rows ? LF_LOAD(order, row.first + i) : 0;
}

void fetch_active()
{
    for (uint i = thread; i < BATCH; i += THREADS) {
        memory[at_active + i] = LF_LOAD4(scratch, place_of_active() + i);
        memory[at_saved + i] = LF_LOAD4(scratch, place_of_active() + (SAVES_Z ? groups * BATCH : 0) + i);
    }
}

// Adds up the parts: an invocation reads four logits of PARTS parts at once, for the way to memory is long, and then the
// sums of these are added in order.
void sum_logits()
{
    const uint PARTS = 16;
    uint teams = (groups + PARTS - 1) / PARTS, width = THREADS / teams;
    uint team = thread / width, lane = thread % width;
    for (uint first = 0; first < class_quads; first += width) {
        uint q = first + lane;
        vec4 part[PARTS], sum = vec4(0);
        if (team < teams && q < class_quads) {
            for (uint i = 0; i < PARTS; i++) // past the last, its part once more: no branch parts the loads
                part[i] = LF_LOAD4(scratch, place_of_part(step - 1, min(team * PARTS + i, groups - 1)) + q);
            for (uint i = 0; i < PARTS; i++)
                sum += team * PARTS + i < groups ? part[i] : vec4(0);
        }
        memory[at_area + thread] = sum;
        barrier();
        if (team == 0 && q < class_quads) {
            for (uint i = 1; i < teams; i++)
                sum += memory[at_area + i * width + lane];
            memory[at_logits + q] = sum;
            if (group == 0 && (stage & STARTS) == 0)
                LF_STORE4(logits, q, sum);
        }
        barrier();
    }
}

void find_dz(uint position, lf_schedule_row now)
{
    for (uint first = 0; first < BATCH; first += THREADS / LANES) {
        uint row = first + thread / LANES, inside = min(row, BATCH - 1);
        bool counts = row < now.rows;
        lf_class_row c = lf_class_row_at(inside);
        if (group == 0 && thread % LANES == 0 && row < BATCH)
            lf_store_metrics(position, row, counts, lf_cross_entropy(c), 1, vec3(float(c.truth), c.given, c.rank));
        for (uint i = thread % LANES; counts && i < outputs; i += LANES)
            LF_WORD(at_dz, row * outputs + i) =
                lf_cross_entropy_slope(c, i, lf_logit(row, i)) * now.inv_weight;
    }
    barrier();
}

// The gradient to z of the units, in the place of what act' needs.
void find_slopes(uint rows)
{
    for (uint row = thread; row < rows; row += THREADS) {
        vec4 sum = vec4(0);
        for (uint i = 0; i < outputs; i++)
            sum += LF_WORD(at_dz, row * outputs + i) * memory[at_second + i];
        memory[at_saved + row] = sum * lf_slope4(memory[at_saved + row], alpha);
    }
    barrier();
}

vec4 term_of_item(uint item, uint row)
{
    if (item < outputs)
        return LF_WORD(at_dz, row * outputs + item) * memory[at_active + row];
    if (item == outputs)
        return memory[at_saved + row];
    vec4 term = vec4(0);
    for (uint i = 0; i < 4; i++) {
        uint column = 4 * (item - outputs - 1) + i;
        if (column < outputs)
            term[i] = LF_WORD(at_dz, row * outputs + column);
    }
    return term;
}

// Gradients and update of all but kernel_1: several invocations share the rows of an item. The last ones add up, since
// they are the least busy with what follows.
void update_items(lf_schedule_row now)
{
    uint count = group == 0 ? items : outputs + 1, teams = max(THREADS / items, 1);
    for (uint i = thread; i < count * teams; i += THREADS) {
        vec4 sum = vec4(0);
        for (uint row = i / count; row < now.rows; row += teams)
            sum += term_of_item(i % count, row);
        memory[at_area + i] = sum;
    }
    barrier();
    for (uint i = THREADS - 1 - thread; i < count; i += THREADS) {
        uint at = place_of_item(i), stride = stride_of_item(i);
        lf_units u = fetch(at, stride);
        vec4 sum = vec4(0);
        for (uint team = 0; team < teams; team++)
            sum += memory[at_area + team * count + i];
        memory[at_second + i] = update(now, i < outputs ? weight_decay : bias_decay, sum, u, at, stride);
    }
}

vec4 scale_of(uint q)
{
    return LF_LOAD_QUAD(QUADS, scaling, 4 * q, 4 * q, inputs);
}

vec4 offset_of(uint q)
{
    return LF_LOAD_QUAD(QUADS, scaling, inputs + 4 * q, 4 * q, inputs);
}

// Gradient and update of kernel_1: an invocation takes four inputs, and with HALVES 2 every other row of the batch; the two
// then exchange sums, and each updates two of the inputs.
void update_kernel(lf_schedule_row now)
{
    const uint MINE = 4 / HALVES, WIDTH = THREADS / HALVES;
    uint half_ = thread / WIDTH, mine = half_ * MINE;
    for (uint first = 0; first < quads; first += WIDTH) {
        uint q = first + thread % WIDTH;
        lf_units before[MINE];
        vec4 sum[4] = vec4[4](vec4(0), vec4(0), vec4(0), vec4(0));
        for (uint k = 0; k < MINE; k++)
            if (4 * q + mine + k < inputs)
                before[k] = fetch(place_of_input(4 * q + mine + k), 1);
        uint inside = min(q, quads - 1);
        vec4 scale = scale_of(inside), offset = offset_of(inside);
        for (uint row = half_; q < quads && row < now.rows; row += AHEAD * HALVES) {
            vec4 x[AHEAD];
            for (uint i = 0; i < AHEAD; i++)
                x[i] = lf_stored4(resident[min(row + i * HALVES, now.rows - 1)], 4 * q, inputs);
            for (uint i = 0; i < AHEAD; i++) {
                uint at = row + i * HALVES;
                vec4 slope = memory[at_saved + min(at, now.rows - 1)];
                x[i] = at < now.rows ? x[i] * scale + offset : vec4(0);
                for (uint k = 0; k < 4; k++)
                    sum[k] += x[i][k] * slope;
            }
        }
        if (HALVES == 2) {
            uint others = 2 - mine;
            for (uint k = 0; q < quads && k < 2; k++)
                memory[at_first + (others + k) * quads + q] = mine == 0 ? sum[2 + k] : sum[k];
            barrier();
            for (uint k = 0; q < quads && k < 2; k++)
                sum[k] = (mine == 0 ? sum[k] : sum[2 + k]) + memory[at_first + (mine + k) * quads + q];
        }
        for (uint k = 0; q < quads && k < MINE; k++) {
            uint input_ = 4 * q + mine + k;
            memory[at_first + (mine + k) * quads + q] =
                input_ < inputs ? update(now, weight_decay, sum[k], before[k], place_of_input(input_), 1) : vec4(0);
        }
    }
    barrier();
}

// ---- starting the next

// act(z), and what act' needs. Rows past the batch's have inputs of 0.
void activate(uint rows)
{
    const uint AT_ONCE = THREADS / SHARES;
    for (uint first = 0; first < BATCH; first += AT_ONCE) {
        uint row = first + thread / SHARES;
        vec4 z = vec4(0);
        for (uint q = row < rows ? thread % SHARES : quads; q < quads; q += AHEAD * SHARES) {
            vec4 x[AHEAD];
            for (uint i = 0; i < AHEAD; i++)
                x[i] = lf_stored4(resident[BATCH + row], 4 * min(q + i * SHARES, quads - 1), inputs);
            for (uint i = 0; i < AHEAD; i++) {
                uint at = min(q + i * SHARES, quads - 1);
                x[i] = q + i * SHARES < quads ? x[i] * scale_of(at) + offset_of(at) : vec4(0);
                for (uint k = 0; k < 4; k++)
                    z += x[i][k] * memory[at_first + k * quads + at];
            }
        }
        if (SHARES > 1) {
            memory[at_area + thread] = z;
            barrier();
            row = first + thread;
            z = vec4(0);
            for (uint i = 0; thread < AT_ONCE && i < SHARES; i++)
                z += memory[at_area + thread * SHARES + i];
        }
        if (thread < AT_ONCE && row < BATCH) {
            z += memory[at_second + outputs];
            vec4 y = lf_activate4(z, alpha);
            memory[at_active + row] = y;
            LF_REPLACE4(scratch, place_of_active() + row, y);
            if (SAVES_Z)
                LF_REPLACE4(scratch, place_of_active() + groups * BATCH + row, z);
        }
        barrier();
    }
}

// The workgroup's part of the logits; the first one's has the bias.
void store_part()
{
    for (uint i = thread; i < BATCH * outputs; i += THREADS) {
        uint row = i / outputs, column = i % outputs;
        vec4 y = memory[at_active + row], weights = memory[at_second + column];
        float sum = y.x * weights.x + y.y * weights.y + y.z * weights.z + y.w * weights.w;
        if (group == 0)
            sum += LF_WORD(at_second + outputs + 1, column);
        LF_REPLACE(scratch, 4 * place_of_part(step, group) + i, sum);
    }
}

void main()
{
    uint position = lf_schedule_position(step);
    lf_schedule_row next = lf_schedule_at((stage & STARTS) != 0 ? position : position - 1);
    fetch_items();
    find_rows(next, BATCH);
    if ((stage & FINISHES) != 0) {
        lf_schedule_row now = lf_schedule_at(position - 1);
        find_rows(now, 0);
        fetch_active();
        sum_logits();
        find_dz(position - 1, now);
        find_slopes(now.rows);
        update_items(now);
        update_kernel(now);
    } else {
        fetch_kernel();
        barrier();
    }
    if ((stage & STARTS) != 0) {
        activate(next.rows);
        store_part();
    }
}
