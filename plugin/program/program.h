// The step program: a model with its training options, compiled once into a short list of operations over named regions
// of memory. Backends lower it; they know `linear_dw`, never "training". Pure data: no I/O, no device.
#ifndef LF_PROGRAM_PROGRAM_H
#define LF_PROGRAM_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/dtype.h"
#include "core/error.h"
#include "program/model.h"

// Each region is one block of memory, one buffer on a device.
typedef enum lf_region {
    LF_REGION_DATA,           // x of the resident rows, as stored (rows, features)
    LF_REGION_TARGETS,        // labels u32 (rows) or values f32 (rows, outputs)
    LF_REGION_SCALING,        // f32 (2, features): scale, then offset
    LF_REGION_ORDER,          // u32: which resident row stands at each position
    LF_REGION_SCHEDULE,       // shaders/abi.h
    LF_REGION_PARAMS,         // the model's block
    LF_REGION_GRADS,          // the same layout
    LF_REGION_MOMENTS,        // the optimizer's state, block after block of the same layout
    LF_REGION_BATCH,          // the batch's x and y
    LF_REGION_ACTS,           // activations and their gradients
    LF_REGION_METRICS,        // shaders/abi.h
    LF_REGION_STATE,          // the model's block of running statistics
    LF_REGION_TEACHER,        // teacher outputs f32 of the resident rows (rows, outputs), softened for classes
    LF_REGION_ROW_WEIGHTS,    // f32 (rows): weights of the resident rows
    LF_REGION_AVERAGE,        // moving average of params, the same layout
    LF_REGION_TEACHER_PARAMS, // blocks of teachers that run in the program, one after the other
    LF_REGION_TEACHER_STATE,  // and their running statistics
    LF_REGION_COUNT,
} lf_region;
const char *lf_region_name(lf_region region);

typedef enum lf_phase {
    LF_PHASE_LOAD,
    LF_PHASE_FORWARD,
    LF_PHASE_BACKWARD,
    LF_PHASE_REDUCE,
    LF_PHASE_UPDATE,
    LF_PHASE_COUNT
} lf_phase;
const char *lf_phase_name(lf_phase phase);

#define LF_TENSOR_NAME_MAX (LF_NAME_MAX + 48)

typedef struct lf_tensor {
    char name[LF_TENSOR_NAME_MAX];
    lf_region region;
    lf_dtype type;
    uint32_t rows, cols; // row-major; a vector has rows 1
    size_t offset;       // bytes from the start of the region, a multiple of 256
} lf_tensor;
size_t lf_tensor_bytes(const lf_tensor *tensor);
bool lf_tensors_overlap(const lf_tensor *a, const lf_tensor *b);

typedef int32_t lf_tensor_id; // index into lf_program.tensors
#define LF_NO_TENSOR (-1)

// Operations, each with its formula. The enums below give their operands' positions; the op table (names.c) says which
// are read, written, or may be LF_NO_TENSOR.
typedef enum lf_op_kind {
    LF_OP_GATHER, // x[i] = data[order[first + i]] * scale + offset, y[i] = targets[…]; rows past the batch's are 0
    LF_OP_LINEAR, // z = x·kernel + bias, y = act(z)
    LF_OP_ACTIVATION, // y = act(x)
    // Losses. w: the row's weight, 1 without `weights`; dz = w · inv_weight · derivative of the row's loss by z;
    // metrics as in abi.h, the loss times w. Rows past the batch's give zeros.
    LF_OP_CROSS_ENTROPY, // logsumexp(z) - (1 - s) z[label] - s mean(z), s: label_smoothing
    LF_OP_VALUE_LOSS, // share · mean over outputs of (1 - a) l(z, t) + a (z - teacher)², a: soft_weight, 0 without a
                      // teacher; l by `value`, see abi.h. `adds`: adds to the metric `loss` and leaves the others
    LF_OP_ACTIVATION_DX, // dx = dy ⊙ act'(saved)
    LF_OP_LINEAR_DX,     // dx = (dy·kernelᵀ) ⊙ act'(saved), act of the layer before
    LF_OP_LINEAR_DW,     // dkernel = xᵀ·dy, dbias = column sums of dy
    LF_OP_LINEAR_UPDATE, // the same, and at once what `optimizer` does with them; gradients are kept nowhere. fuse.c
    LF_OP_LINEAR_LOSS,   // the last layer, its cross_entropy without weights, and linear_dx; z is kept nowhere. fuse.c
    // Optimizers, see names.c's table for operands; g = clamp(scale · grads, ±clip_value), scale 1 without operand, no
    // clamp where clip_value is 0. They do nothing at a step whose schedule row has updates 0.
    LF_OP_SGD,
    LF_OP_ADAM,    // and adamw, which decays the weights themselves
    LF_OP_RMSPROP, // g += decay w; v = beta2 v + (1 - beta2) g²; d = g / (√v + ε); m = momentum m + d, w -= lr m;
                   // without m: w -= lr d
    LF_OP_LION,    // d = sign(beta1 m + (1 - beta1) g), 0 of 0; w -= lr (d + decay w); m = beta2 m + (1 - beta2) g
    LF_OP_LAMB, // m, v as adam; grads = step_size m / (√v · inv_sqrt_correct2 + ε) + decay w; leaves w to trust and sgd
    LF_OP_DROPOUT, // y = x · keep / (1 - rate); keep is drawn by (seed, step, stream, element of the batch); its own
                   // gradient
    LF_OP_ADD,     // y = a + b
    LF_OP_LAYER_NORM,    // y = (x - mean) · rstd · gamma + beta over each row; stats: mean, rstd
    LF_OP_LAYER_NORM_DX, // gradient to x through the statistics of its row
    LF_OP_BATCH_STATS,   // stats (2, width): mean and rstd of each column over the batch's rows; running mean, variance
    LF_OP_BATCH_NORM,    // y = (x - mean) · rstd · gamma + beta; stats by column; all rows, valid or not
    LF_OP_BATCH_NORM_DX, // gradient to x through the statistics of its column; uses dgamma and dbeta
    LF_OP_NORM_DW,       // dgamma = column sums of dy · (x - mean) · rstd, dbeta = column sums of dy
    LF_OP_GATHER_ROWS,   // out[i] = source[order[first + i]], f32 rows; rows past the batch's are zero
    LF_OP_DISTILL, // see distill.comp: alpha T² KL(teacher ‖ softmax(z / T)) + (1 - alpha) cross-entropy, smoothed
    LF_OP_SOFTEN,  // out = (adds: out) + share softmax(z / temperature); temperature 0: share z
    LF_OP_ACCUMULATE,  // sum = grads where the row has begins 1, else sum + grads
    LF_OP_SUM_SQUARES, // out[i] = sum of x² over elements i CHUNK … (i + 1) CHUNK - 1, CHUNK = LF_SQUARES_CHUNK
    LF_OP_CLIP,        // scale = min(1, clip_norm / (√Σ partials + 1e-6))
    LF_OP_TRUST,       // scale = √Σ weights / √Σ direction; 1 if either sum is 0
    LF_OP_AVERAGE,     // average += share (params - average), where the row has updates 1
    // What sums over the shards of a batch. Numbers below the smallest normal one count as 0, before and after, so that
    // every device and the host, whatever they do with such numbers, come to the same bits.
    LF_OP_SUM,          // y += x
    LF_OP_COLUMN_SUMS,  // out = sum of each column's x, or with `sum` of (x - mean)², mean = sum / rows of the batch;
                        // over the valid ones of the shard's rows
    LF_OP_BATCH_TOTALS, // of those sums over the batch: stats (2, width) as batch_stats gives them; and the running
                        // ones move towards them. Either may be left out
    LF_OP_COUNT,
} lf_op_kind;

enum {
    LF_GATHER_DATA,
    LF_GATHER_TARGETS,
    LF_GATHER_SCALING,
    LF_GATHER_ORDER,
    LF_GATHER_SCHEDULE,
    LF_GATHER_X,
    LF_GATHER_Y
};
enum { LF_LINEAR_X, LF_LINEAR_KERNEL, LF_LINEAR_BIAS, LF_LINEAR_Y, LF_LINEAR_Z };
enum { LF_ACTIVATION_X, LF_ACTIVATION_Y };
enum {
    LF_LOSS_Z,
    LF_LOSS_TARGET, // label u32 (batch) or values (batch, outputs)
    LF_LOSS_SCHEDULE,
    LF_LOSS_METRICS,
    LF_LOSS_DZ,
    LF_LOSS_TEACHER, // (batch, outputs): distill needs it, value_loss may have it, cross_entropy has none
    LF_LOSS_WEIGHTS, // (batch, 1)
};
enum { LF_ACTIVATION_DX_DY, LF_ACTIVATION_DX_SAVED, LF_ACTIVATION_DX_DX };
enum { LF_LINEAR_DX_DY, LF_LINEAR_DX_KERNEL, LF_LINEAR_DX_SAVED, LF_LINEAR_DX_DX };
enum { LF_LINEAR_DW_X, LF_LINEAR_DW_DY, LF_LINEAR_DW_DKERNEL, LF_LINEAR_DW_DBIAS };
enum {
    LF_LINEAR_UPDATE_X,
    LF_LINEAR_UPDATE_DY,
    LF_LINEAR_UPDATE_SCHEDULE,
    LF_LINEAR_UPDATE_KERNEL,
    LF_LINEAR_UPDATE_KERNEL_M,
    LF_LINEAR_UPDATE_KERNEL_V,
    LF_LINEAR_UPDATE_BIAS,
    LF_LINEAR_UPDATE_BIAS_M,
    LF_LINEAR_UPDATE_BIAS_V,
};
enum { // where losses have them: label, schedule, metrics, dz; `saved` and `dx` as linear_dx has them
    LF_LINEAR_LOSS_X,
    LF_LINEAR_LOSS_LABEL,
    LF_LINEAR_LOSS_SCHEDULE,
    LF_LINEAR_LOSS_METRICS,
    LF_LINEAR_LOSS_DZ,
    LF_LINEAR_LOSS_KERNEL,
    LF_LINEAR_LOSS_BIAS,
    LF_LINEAR_LOSS_SAVED,
    LF_LINEAR_LOSS_DX,
};
enum { // the optimizers; views of one range of the blocks; `scale` is one number
    LF_UPDATE_SCHEDULE,
    LF_UPDATE_GRADS,
    LF_UPDATE_PARAMS,
    LF_UPDATE_M,
    LF_UPDATE_V,
    LF_UPDATE_SCALE
};

enum { LF_DROPOUT_X, LF_DROPOUT_SCHEDULE, LF_DROPOUT_Y };
enum { LF_ADD_A, LF_ADD_B, LF_ADD_Y };
enum { LF_NORM_X, LF_NORM_GAMMA, LF_NORM_BETA, LF_NORM_STATS, LF_NORM_Y }; // both norms; layer_norm writes its stats
enum { LF_LAYER_NORM_DX_X, LF_LAYER_NORM_DX_DY, LF_LAYER_NORM_DX_GAMMA, LF_LAYER_NORM_DX_STATS, LF_LAYER_NORM_DX_DX };
enum { LF_BATCH_STATS_X, LF_BATCH_STATS_SCHEDULE, LF_BATCH_STATS_MEAN, LF_BATCH_STATS_VARIANCE, LF_BATCH_STATS_STATS };
enum {
    LF_BATCH_NORM_DX_X,
    LF_BATCH_NORM_DX_DY,
    LF_BATCH_NORM_DX_GAMMA,
    LF_BATCH_NORM_DX_STATS,
    LF_BATCH_NORM_DX_DGAMMA,
    LF_BATCH_NORM_DX_DBETA,
    LF_BATCH_NORM_DX_SCHEDULE,
    LF_BATCH_NORM_DX_DX,
};
enum { LF_NORM_DW_X, LF_NORM_DW_DY, LF_NORM_DW_STATS, LF_NORM_DW_DGAMMA, LF_NORM_DW_DBETA };

enum { LF_GATHER_ROWS_SOURCE, LF_GATHER_ROWS_ORDER, LF_GATHER_ROWS_SCHEDULE, LF_GATHER_ROWS_OUT };
enum { LF_SOFTEN_Z, LF_SOFTEN_OUT };
enum { LF_ACCUMULATE_SCHEDULE, LF_ACCUMULATE_GRADS, LF_ACCUMULATE_SUM };
enum { LF_SUM_SQUARES_X, LF_SUM_SQUARES_OUT }; // (1, n) -> (1, partials)
enum { LF_CLIP_PARTIALS, LF_CLIP_SCALE };      // (1, partials) -> (1, 1)
enum { LF_TRUST_WEIGHTS, LF_TRUST_DIRECTION, LF_TRUST_SCALE };
enum { LF_AVERAGE_SCHEDULE, LF_AVERAGE_PARAMS, LF_AVERAGE_AVERAGE };
enum { LF_SUM_X, LF_SUM_Y };
enum { LF_COLUMN_SUMS_X, LF_COLUMN_SUMS_SCHEDULE, LF_COLUMN_SUMS_SUM, LF_COLUMN_SUMS_OUT };
enum {
    LF_BATCH_TOTALS_SUM,
    LF_BATCH_TOTALS_SQUARES,
    LF_BATCH_TOTALS_SCHEDULE,
    LF_BATCH_TOTALS_STATS,
    LF_BATCH_TOTALS_MEAN,
    LF_BATCH_TOTALS_VARIANCE,
};

#define LF_OPERAND_MAX 9

typedef struct lf_operand_info {
    const char *role;
    bool read, written, optional; // optional: may be LF_NO_TENSOR
} lf_operand_info;

typedef struct lf_op_info {
    const char *name;
    lf_operand_info operands[LF_OPERAND_MAX]; // ends at the first without a role
} lf_op_info;
const lf_op_info *lf_op_info_of(lf_op_kind kind);

typedef struct lf_op {
    lf_op_kind kind;
    lf_phase phase;
    uint32_t segment; // operations that are run together: ascends with the phases, and where devices exchange
    lf_tensor_id operands[LF_OPERAND_MAX];
    uint32_t rows;            // of a batch, or of the shard of it that the operation works on; 1 for the optimizers
    uint32_t row;             // of the batch, which is the shard's first; 0 without shards
    uint32_t batch;           // rows of all shards together: what `metrics` holds for a step
    uint32_t inputs, outputs; // widths of the layer; gather, losses and activations: both are the row's width;
                              // sweeps and sum_squares: outputs is the number of elements, rows 1; clip and trust: of
                              // the partial sums
    lf_activation activation; // linear, activation, activation_dx, linear_dx
    float alpha;              // of the activation
    float beta1, beta2, eps;  // adam, lion, lamb; rmsprop: beta2, eps
    float momentum;           // sgd, rmsprop
    float weight_decay;
    lf_op_kind optimizer;           // linear_update: sgd, adam, rmsprop or lion
    float bias_decay;               // linear_update: weight_decay of the bias
    float clip_value;               // optimizers; 0: none
    float clip_norm;                // clip
    float share;                    // soften, average, value_loss
    bool adds;                      // soften, value_loss
    uint32_t value;                 // value_loss: LF_VALUE_*
    float delta;                    // value_loss: huber
    float label_smoothing;          // cross_entropy, distill
    float rate;                     // dropout
    uint32_t stream;                // dropout: the layer's index in the model
    bool training;                  // batch_stats: of the batch, and the running ones move; else the running ones
    bool by_row;                    // norm_dw: stats by row (layer_norm), not by column
    float soft_weight, temperature; // distill: alpha and T; value_loss: soft_weight; soften: temperature
    bool decoupled;                 // adamw: the decay does not pass through the moments
    bool nesterov;                  // sgd
    bool cut;                       // devices exchange something before it
    bool barrier; // an earlier operation since the last barrier touches the same memory (see hazards.c)
} lf_op;

typedef enum lf_loss {
    LF_LOSS_NONE,
    LF_LOSS_CROSS_ENTROPY,
    LF_LOSS_BINARY_CROSS_ENTROPY, // of logits
    LF_LOSS_MSE,
    LF_LOSS_MAE,
    LF_LOSS_HUBER,
    LF_LOSS_COUNT
} lf_loss;
const char *lf_loss_name(lf_loss loss);
bool lf_loss_find(const char *name, lf_loss *out);
bool lf_loss_of_classes(lf_loss loss);   // targets are class numbers; else values
bool lf_loss_has_accuracy(lf_loss loss); // outputs are right or wrong

typedef struct lf_loss_options {
    float label_smoothing; // cross_entropy, at least 0, below 1: that part of the target is spread over all classes
                           // evenly
    float delta;           // huber: where the parabola ends; above 0
} lf_loss_options;

typedef enum lf_optimizer_kind {
    LF_OPTIMIZER_NONE,
    LF_OPTIMIZER_SGD,
    LF_OPTIMIZER_ADAM,
    LF_OPTIMIZER_ADAMW,
    LF_OPTIMIZER_RMSPROP, // Tieleman, Hinton 2012
    LF_OPTIMIZER_LION,    // Chen et al. 2023
    LF_OPTIMIZER_LAMB,    // You et al. 2020
    LF_OPTIMIZER_COUNT
} lf_optimizer_kind;
const char *lf_optimizer_name(lf_optimizer_kind kind);

typedef struct lf_optimizer {
    lf_optimizer_kind kind;
    double lr; // not used by compile: it stands in the schedule
    float momentum;
    bool nesterov;
    float beta1, beta2, eps; // rmsprop: beta2 is PyTorch's alpha
    float weight_decay;
    bool decay_bias;  // biases and the norms' parameters decay too; lamb: and are scaled by their norms too
    float clip_norm;  // of the whole gradient; 0: none. At most one of clip_norm and clip_value
    float clip_value; // of each of its numbers; 0: none
} lf_optimizer;
lf_optimizer lf_optimizer_default(lf_optimizer_kind kind); // PyTorch's defaults; lion and lamb: their papers'

// Blocks of state.
typedef enum lf_moment { LF_MOMENT_M, LF_MOMENT_V, LF_MOMENT_COUNT } lf_moment;
const char *lf_moment_name(lf_moment moment); // "m", "v"
bool lf_optimizer_keeps(const lf_optimizer *optimizer, lf_moment moment);

#define LF_SHARDS_MAX 256

typedef struct lf_compile_params {
    const lf_model *model;
    struct {
        bool on;
        float alpha, temperature;
        const lf_model *const *teachers; // run in the program, at every step; hints of the model look at the first
        unsigned teacher_count;          // 0: their outputs stand in the region `teacher`
    } distill;                           // the teachers' outputs stand beside the targets
    lf_loss loss;                        // LF_LOSS_NONE: forward only (predict)
    lf_loss_options loss_options;
    bool fuses;             // steps run whole; nobody else reads gradients, batch or output: a backend may do without
    bool tf32;              // large products may round their operands to 11 bits, where a device gains by it
    bool weighted;          // rows have weights
    bool accumulates;       // several batches share an update: see `begins` and `updates` of the schedule
    float average;          // decay of the moving average of the weights; 0: none
    lf_optimizer optimizer; // kind LF_OPTIMIZER_NONE: load and forward only (evaluate, predict)
    uint32_t batch;         // rows a step
    lf_dtype stored;        // type of the data region
    uint32_t rows;          // rows that the data region holds
    uint32_t positions;     // entries of the order region
    uint32_t steps;         // rows of the schedule, steps of metrics: a stretch
    // A batch in shards of equal size, the last ones shorter or empty; gradients are summed over them along one binary
    // tree, so that it does not matter which device works on which. A program is for those that its device holds.
    uint32_t shards;      // a power of two, at most LF_SHARDS_MAX; 0 or 1: none
    const uint32_t *held; // [held_count], ascending; NULL: all. Borrowed while compiling
    uint32_t held_count;
    uint32_t bucket; // bytes of gradients that are exchanged before the backward pass goes on; 0: all at its end
    bool oracle;     // float64 instead of f32 wherever numbers are computed; only the cpu backend runs it
} lf_compile_params;

// A sum over the shards of a neighbourhood of the tree: shards first … first + count - 1, count a power of two and
// first a multiple of it.
typedef struct lf_exchange_part {
    lf_tensor_id tensor;
    uint32_t first, count;
} lf_exchange_part;

// A tensor that needs the sum over all shards where this program holds some of them. The parts stand when segment
// `after` has run; the total, which takes the place of the first part, must be written before segment `before` runs.
typedef struct lf_exchange {
    lf_tensor_id total;
    uint32_t after, before; // after < before
    lf_exchange_part *parts;
    size_t part_count;
} lf_exchange;

typedef struct lf_program {
    lf_compile_params params; // `model` is borrowed and must outlive the program
    lf_dtype real;            // LF_F32, or LF_F64 for the oracle
    lf_tensor *tensors;
    size_t tensor_count;
    lf_op *ops; // in order of execution; phases ascend
    size_t op_count;
    size_t region_size[LF_REGION_COUNT]; // bytes, a multiple of 256; 0: not used
    lf_tensor_id output;                 // the model's output (batch, outputs), in acts
    // Whole-region tensors that train/ fills and reads; LF_NO_TENSOR where the program has none.
    lf_tensor_id data, targets, scaling, order, schedule, weights, grads, metrics, state, teacher;
    lf_tensor_id moment[LF_MOMENT_COUNT];
    lf_tensor_id row_weights, average;
    lf_tensor_id teacher_params, teacher_state; // (1, floats): block after block in the order of the teachers
    lf_exchange *exchanges; // ascending by `after`; none where all shards are held, or there are none. Programs that
                            // differ in `held` alone have the same ones, but for their parts
    size_t exchange_count;
    uint32_t shard_rows; // rows of a shard; of the batch without shards. params.batch is rounded up to whole shards
} lf_program;

// Compiles. NULL on failure, with a message that names the option.
lf_program *lf_program_compile(const lf_compile_params *params, lf_error *err);
void lf_program_destroy(lf_program *program);

// The same program over the same regions, where `fuses` allows it, with the optimizer inside the products that make its
// gradients (linear_update), where nothing else reads them, and with the last layer and its loss as one operation
// (linear_loss), where it has at most `classes` outputs (0: never); a plain copy where there is nothing to fuse. Equal
// bits, as far as a backend computes both alike. For who runs it: segments keep their numbers, but exchanges are not
// copied. Borrows what `program` does. NULL: out of memory.
lf_program *lf_program_fuse(const lf_program *program, uint32_t classes, lf_error *err);

// Whether a batch of so many rows can be cut into so many shards.
bool lf_shards_check(uint32_t shards, uint32_t batch, lf_error *err);

// Of shards held (ascending), how many from the i-th on are a whole neighbourhood of the tree, which begins with it: a
// power of two.
uint32_t lf_shards_neighbourhood(const uint32_t *held, uint32_t held_count, uint32_t i);

// The tensor that an operation uses in a role, or NULL.
const lf_tensor *lf_op_tensor(const lf_program *program, const lf_op *op, unsigned operand);

#define LF_LAST_SEGMENT UINT32_MAX // to the end of a program

// The segments of phases first..last, those without operations left out. False: there is none.
bool lf_program_segments(const lf_program *program, lf_phase first, lf_phase last, uint32_t *from, uint32_t *to);

// The program in words: regions, then an operation a line with shapes; `|` stands where a barrier is needed.
// malloc'ed; NULL when out of memory.
char *lf_program_explain(const lf_program *program);

#endif
