// The tables that give every number of program/ its name, and every operation its operands.
#include "program/program.h"

#include <string.h>

#include "abi.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const struct {
    const char *name;
    float alpha;
    bool needs_input;
} activations[] = {
    [LF_ACT_NONE] = { "none", 0, false },
    [LF_ACT_RELU] = { "relu", 0, false },
    [LF_ACT_LEAKY_RELU] = { "leaky_relu", 0.01f, false },
    [LF_ACT_ELU] = { "elu", 1, false },
    [LF_ACT_GELU] = { "gelu", 0, true },
    [LF_ACT_SILU] = { "silu", 0, true },
    [LF_ACT_TANH] = { "tanh", 0, false },
    [LF_ACT_SIGMOID] = { "sigmoid", 0, false },
    [LF_ACT_SOFTPLUS] = { "softplus", 0, false },
};
_Static_assert(COUNT(activations) == LF_ACT_COUNT, "a row for each activation");

static const char *const inits[] = {
    [LF_INIT_UNIFORM] = "uniform",
    [LF_INIT_HE_NORMAL] = "he_normal",
    [LF_INIT_HE_UNIFORM] = "he_uniform",
    [LF_INIT_GLOROT_NORMAL] = "glorot_normal",
    [LF_INIT_GLOROT_UNIFORM] = "glorot_uniform",
    [LF_INIT_LECUN_NORMAL] = "lecun_normal",
    [LF_INIT_LECUN_UNIFORM] = "lecun_uniform",
    [LF_INIT_ZEROS] = "zeros",
    [LF_INIT_NORMAL] = "normal",
    [LF_INIT_CONSTANT] = "constant",
};
_Static_assert(COUNT(inits) == LF_INIT_COUNT, "a name for each initialiser");

static const char *const regions[] = {
    [LF_REGION_DATA] = "data",
    [LF_REGION_TARGETS] = "targets",
    [LF_REGION_SCALING] = "scaling",
    [LF_REGION_ORDER] = "order",
    [LF_REGION_SCHEDULE] = "schedule",
    [LF_REGION_PARAMS] = "params",
    [LF_REGION_GRADS] = "grads",
    [LF_REGION_MOMENTS] = "moments",
    [LF_REGION_BATCH] = "batch",
    [LF_REGION_ACTS] = "acts",
    [LF_REGION_METRICS] = "metrics",
    [LF_REGION_STATE] = "state",
    [LF_REGION_TEACHER] = "teacher",
    [LF_REGION_ROW_WEIGHTS] = "row_weights",
    [LF_REGION_AVERAGE] = "average",
    [LF_REGION_TEACHER_PARAMS] = "teacher_params",
    [LF_REGION_TEACHER_STATE] = "teacher_state",
};
_Static_assert(COUNT(regions) == LF_REGION_COUNT, "a name for each region");

static const char *const phases[] = {
    [LF_PHASE_LOAD] = "load",     [LF_PHASE_FORWARD] = "forward", [LF_PHASE_BACKWARD] = "backward",
    [LF_PHASE_REDUCE] = "reduce", [LF_PHASE_UPDATE] = "update",
};
_Static_assert(COUNT(phases) == LF_PHASE_COUNT, "a name for each phase");

static const char *const losses[] = {
    [LF_LOSS_NONE] = "none",
    [LF_LOSS_CROSS_ENTROPY] = "cross_entropy",
    [LF_LOSS_BINARY_CROSS_ENTROPY] = "binary_cross_entropy",
    [LF_LOSS_MSE] = "mse",
    [LF_LOSS_MAE] = "mae",
    [LF_LOSS_HUBER] = "huber",
};
_Static_assert(COUNT(losses) == LF_LOSS_COUNT, "a name for each loss");

// The op table. R reads, W writes; optional operands end in OPT.
#define R(role)                                                                                                        \
    {                                                                                                                  \
        role, true, false, false                                                                                       \
    }
#define W(role)                                                                                                        \
    {                                                                                                                  \
        role, false, true, false                                                                                       \
    }
#define RW(role)                                                                                                       \
    {                                                                                                                  \
        role, true, true, false                                                                                        \
    }
#define R_OPT(role)                                                                                                    \
    {                                                                                                                  \
        role, true, false, true                                                                                        \
    }
#define W_OPT(role)                                                                                                    \
    {                                                                                                                  \
        role, false, true, true                                                                                        \
    }
#define RW_OPT(role)                                                                                                   \
    {                                                                                                                  \
        role, true, true, true                                                                                         \
    }

static const lf_op_info ops[] = {
    [LF_OP_GATHER] = { "gather",
                       { R("data"), R_OPT("targets"), R("scaling"), R("order"), R("schedule"), W("x"), W_OPT("y") } },
    [LF_OP_LINEAR] = { "linear", { R("x"), R("kernel"), R("bias"), W("y"), W_OPT("z") } },
    [LF_OP_ACTIVATION] = { "activation", { R("x"), W("y") } },
    [LF_OP_CROSS_ENTROPY] = { "cross_entropy",
                              { R("z"), R("label"), R("schedule"), W("metrics"), W_OPT("dz"), R_OPT("teacher"),
                                R_OPT("weights") } },
    [LF_OP_VALUE_LOSS] = { "value_loss",
                           { R("z"), R("target"), R("schedule"), RW("metrics"), W_OPT("dz"), R_OPT("teacher"),
                             R_OPT("weights") } },
    [LF_OP_ACTIVATION_DX] = { "activation_dx", { R("dy"), R("saved"), W("dx") } },
    [LF_OP_LINEAR_DX] = { "linear_dx", { R("dy"), R("kernel"), R_OPT("saved"), W("dx") } },
    [LF_OP_LINEAR_DW] = { "linear_dw", { R("x"), R("dy"), W("dkernel"), W("dbias") } },
    [LF_OP_LINEAR_UPDATE] = { "linear_update",
                              { R("x"), R("dy"), R("schedule"), RW("kernel"), RW_OPT("kernel_m"), RW_OPT("kernel_v"),
                                RW("bias"), RW_OPT("bias_m"), RW_OPT("bias_v") } },
    [LF_OP_LINEAR_LOSS] = { "linear_loss",
                            { R("x"), R("label"), R("schedule"), W("metrics"), W("dz"), R("kernel"), R("bias"),
                              R_OPT("saved"), W_OPT("dx") } },
    [LF_OP_SGD] = { "sgd", { R("schedule"), R("grads"), RW("params"), RW_OPT("m"), RW_OPT("v"), R_OPT("scale") } },
    [LF_OP_ADAM] = { "adam", { R("schedule"), R("grads"), RW("params"), RW("m"), RW("v"), R_OPT("scale") } },
    [LF_OP_RMSPROP] = { "rmsprop", { R("schedule"), R("grads"), RW("params"), RW_OPT("m"), RW("v"), R_OPT("scale") } },
    [LF_OP_LION] = { "lion", { R("schedule"), R("grads"), RW("params"), RW("m"), RW_OPT("v"), R_OPT("scale") } },
    [LF_OP_LAMB] = { "lamb", { R("schedule"), RW("grads"), R("params"), RW("m"), RW("v"), R_OPT("scale") } },
    [LF_OP_DROPOUT] = { "dropout", { R("x"), R("schedule"), W("y") } },
    [LF_OP_ADD] = { "add", { R("a"), R("b"), W("y") } },
    [LF_OP_LAYER_NORM] = { "layer_norm", { R("x"), R("gamma"), R("beta"), W("stats"), W("y") } },
    [LF_OP_LAYER_NORM_DX] = { "layer_norm_dx", { R("x"), R("dy"), R("gamma"), R("stats"), W("dx") } },
    [LF_OP_BATCH_STATS] = { "batch_stats", { R("x"), R("schedule"), RW("mean"), RW("variance"), W("stats") } },
    [LF_OP_BATCH_NORM] = { "batch_norm", { R("x"), R("gamma"), R("beta"), R("stats"), W("y") } },
    [LF_OP_BATCH_NORM_DX] = { "batch_norm_dx",
                              { R("x"), R("dy"), R("gamma"), R("stats"), R("dgamma"), R("dbeta"), R("schedule"),
                                W("dx") } },
    [LF_OP_NORM_DW] = { "norm_dw", { R("x"), R("dy"), R("stats"), W("dgamma"), W("dbeta") } },
    [LF_OP_GATHER_ROWS] = { "gather_rows", { R("source"), R("order"), R("schedule"), W("out") } },
    [LF_OP_DISTILL] = { "distill",
                        { R("z"), R("label"), R("schedule"), W("metrics"), W_OPT("dz"), R("teacher"),
                          R_OPT("weights") } },
    [LF_OP_SOFTEN] = { "soften", { R("z"), RW("out") } },
    [LF_OP_ACCUMULATE] = { "accumulate", { R("schedule"), R("grads"), RW("sum") } },
    [LF_OP_SUM_SQUARES] = { "sum_squares", { R("x"), W("out") } },
    [LF_OP_CLIP] = { "clip", { R("partials"), W("scale") } },
    [LF_OP_TRUST] = { "trust", { R("weights"), R("direction"), W("scale") } },
    [LF_OP_AVERAGE] = { "average", { R("schedule"), R("params"), RW("average") } },
    [LF_OP_SUM] = { "sum", { R("x"), RW("y") } },
    [LF_OP_COLUMN_SUMS] = { "column_sums", { R("x"), R("schedule"), R_OPT("sum"), W("out") } },
    [LF_OP_BATCH_TOTALS] = { "batch_totals",
                             { R("sum"), R("squares"), R("schedule"), W_OPT("stats"), RW_OPT("mean"),
                               RW_OPT("variance") } },
};
_Static_assert(COUNT(ops) == LF_OP_COUNT, "a row for each operation");

static const struct {
    const char *name;
    lf_optimizer defaults;
} optimizers[] = {
    [LF_OPTIMIZER_NONE] = { "none", { .kind = LF_OPTIMIZER_NONE } },
    [LF_OPTIMIZER_SGD] = { "sgd", { .kind = LF_OPTIMIZER_SGD, .lr = 1e-3, .decay_bias = true } },
    [LF_OPTIMIZER_ADAM] = { "adam",
                            { .kind = LF_OPTIMIZER_ADAM,
                              .lr = 1e-3,
                              .beta1 = .9f,
                              .beta2 = .999f,
                              .eps = 1e-8f,
                              .decay_bias = true } },
    [LF_OPTIMIZER_ADAMW] = { "adamw",
                             { .kind = LF_OPTIMIZER_ADAMW,
                               .lr = 1e-3,
                               .beta1 = .9f,
                               .beta2 = .999f,
                               .eps = 1e-8f,
                               .weight_decay = 1e-2f } },
    [LF_OPTIMIZER_RMSPROP] = { "rmsprop",
                               { .kind = LF_OPTIMIZER_RMSPROP,
                                 .lr = 1e-2,
                                 .beta2 = .99f,
                                 .eps = 1e-8f,
                                 .decay_bias = true } },
    [LF_OPTIMIZER_LION] = { "lion", { .kind = LF_OPTIMIZER_LION, .lr = 1e-4, .beta1 = .9f, .beta2 = .99f } },
    [LF_OPTIMIZER_LAMB] = { "lamb",
                            { .kind = LF_OPTIMIZER_LAMB, .lr = 1e-3, .beta1 = .9f, .beta2 = .999f, .eps = 1e-6f } },
};
_Static_assert(COUNT(optimizers) == LF_OPTIMIZER_COUNT, "a row for each optimizer");

const char *lf_activation_name(lf_activation activation)
{
    return activations[activation].name;
}

bool lf_activation_find(const char *name, lf_activation *out)
{
    for (lf_activation i = LF_ACT_RELU; i < LF_ACT_COUNT; i++)
        if (!strcmp(activations[i].name, name)) {
            *out = i;
            return true;
        }
    return false;
}

float lf_activation_default_alpha(lf_activation activation)
{
    return activations[activation].alpha;
}

bool lf_activation_needs_input(lf_activation activation)
{
    return activations[activation].needs_input;
}

const char *lf_init_name(lf_init init)
{
    return inits[init];
}

bool lf_init_find(const char *name, lf_init *out)
{
    for (unsigned i = 0; i < LF_INIT_COUNT; i++)
        if (!strcmp(inits[i], name)) {
            *out = (lf_init)i;
            return true;
        }
    return false;
}

const char *lf_region_name(lf_region region)
{
    return regions[region];
}

const char *lf_phase_name(lf_phase phase)
{
    return phases[phase];
}

const lf_op_info *lf_op_info_of(lf_op_kind kind)
{
    return &ops[kind];
}

const char *lf_loss_name(lf_loss loss)
{
    return losses[loss];
}

bool lf_loss_of_classes(lf_loss loss)
{
    return loss == LF_LOSS_CROSS_ENTROPY;
}

bool lf_loss_has_accuracy(lf_loss loss)
{
    return loss == LF_LOSS_CROSS_ENTROPY || loss == LF_LOSS_BINARY_CROSS_ENTROPY;
}

bool lf_loss_find(const char *name, lf_loss *out)
{
    for (unsigned i = LF_LOSS_NONE + 1; i < LF_LOSS_COUNT; i++)
        if (!strcmp(losses[i], name)) {
            *out = (lf_loss)i;
            return true;
        }
    return false;
}

const char *lf_optimizer_name(lf_optimizer_kind kind)
{
    return optimizers[kind].name;
}

lf_optimizer lf_optimizer_default(lf_optimizer_kind kind)
{
    return optimizers[kind].defaults;
}

const char *lf_moment_name(lf_moment moment)
{
    return moment == LF_MOMENT_M ? "m" : "v";
}

bool lf_optimizer_keeps(const lf_optimizer *optimizer, lf_moment moment)
{
    switch (optimizer->kind) {
    case LF_OPTIMIZER_ADAM:
    case LF_OPTIMIZER_ADAMW:
    case LF_OPTIMIZER_LAMB:
        return true;
    case LF_OPTIMIZER_LION:
        return moment == LF_MOMENT_M;
    case LF_OPTIMIZER_SGD:
        return moment == LF_MOMENT_M && optimizer->momentum != 0;
    case LF_OPTIMIZER_RMSPROP:
        return moment == LF_MOMENT_V || optimizer->momentum != 0;
    default:
        return false;
    }
}
