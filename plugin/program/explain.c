// The step program in words.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "program/program.h"

static void write_shape(FILE *out, const lf_tensor *tensor)
{
    fprintf(out, "%s ", tensor->name);
    if (tensor->rows == 1)
        fprintf(out, "(%u)", tensor->cols);
    else
        fprintf(out, "(%u, %u)", tensor->rows, tensor->cols);
}

static void write_operands(FILE *out, const lf_program *program, const lf_op *op, bool written)
{
    const lf_op_info *info = lf_op_info_of(op->kind);
    bool first = true;
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++) {
        const lf_tensor *tensor = lf_op_tensor(program, op, i);
        // What is read and written stands on the right alone; the schedule is in every list, so it is in none.
        if (!tensor || info->operands[i].written != written || tensor->region == LF_REGION_SCHEDULE)
            continue;
        if (!first)
            fputs(", ", out);
        write_shape(out, tensor);
        first = false;
    }
}

static const char *const value_names[] = {
    [LF_VALUE_BINARY] = "binary_cross_entropy",
    [LF_VALUE_MSE] = "mse",
    [LF_VALUE_MAE] = "mae",
    [LF_VALUE_HUBER] = "huber",
};
_Static_assert(sizeof value_names / sizeof *value_names == LF_VALUE_COUNT, "a name for each loss of values");

static void write_number(FILE *out, const char *name, float value)
{
    if (value != 0)
        fprintf(out, " %s=%g", name, (double)value);
}

static void write_options(FILE *out, const lf_op *op)
{
    if (op->kind == LF_OP_LINEAR_UPDATE)
        fprintf(out, " %s", lf_op_info_of(op->optimizer)->name);
    if (op->activation)
        fprintf(out, " %s", lf_activation_name(op->activation));
    write_number(out, "alpha", op->alpha);
    write_number(out, "beta1", op->beta1);
    write_number(out, "beta2", op->beta2);
    if (op->beta2 != 0)
        write_number(out, "eps", op->eps);
    if (op->momentum != 0)
        fprintf(out, " momentum=%g%s", (double)op->momentum, op->nesterov ? " nesterov" : "");
    if (op->weight_decay != 0)
        fprintf(out, " weight_decay=%g%s", (double)op->weight_decay, op->decoupled ? " decoupled" : "");
    write_number(out, "bias_decay", op->bias_decay);
    if (op->kind == LF_OP_DROPOUT)
        fprintf(out, " rate=%g layer=%u", (double)op->rate, op->stream);
    if (op->kind == LF_OP_LAYER_NORM || op->kind == LF_OP_BATCH_STATS || op->kind == LF_OP_BATCH_TOTALS)
        fprintf(out, " eps=%g", (double)op->eps);
    if (op->kind == LF_OP_BATCH_STATS)
        fputs(op->training ? " training" : " running", out);
    if (op->kind == LF_OP_NORM_DW)
        fputs(op->by_row ? " by_row" : " by_column", out);
    if (op->kind == LF_OP_VALUE_LOSS)
        fprintf(out, " %s", value_names[op->value]);
    write_number(out, "delta", op->delta);
    write_number(out, "alpha", op->soft_weight);
    write_number(out, "temperature", op->temperature);
    write_number(out, "label_smoothing", op->label_smoothing);
    write_number(out, "clip_value", op->clip_value);
    write_number(out, "clip_norm", op->clip_norm);
    if (op->share != 1)
        write_number(out, "share", op->share);
    if (op->adds)
        fputs(" adds", out);
}

// What comes in front of an operation: totals that devices exchange.
static void write_exchanges(FILE *out, const lf_program *program, uint32_t segment)
{
    for (size_t i = 0; i < program->exchange_count; i++) {
        const lf_exchange *e = &program->exchanges[i];
        if (e->before != segment)
            continue;
        fprintf(out, "=     exchange: %s, sum over all shards; here", program->tensors[e->total].name);
        for (size_t j = 0; j < e->part_count; j++) {
            const lf_exchange_part *part = &e->parts[j];
            fprintf(out, "%s %u", j ? "," : "", part->first);
            if (part->count > 1)
                fprintf(out, "-%u", part->first + part->count - 1);
        }
        fputc('\n', out);
    }
}

char *lf_program_explain(const lf_program *program)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    const lf_compile_params *p = &program->params;
    fprintf(out, "step program: batch %u, loss %s, optimizer %s, %zu parameters\n", p->batch, lf_loss_name(p->loss),
            lf_optimizer_name(p->optimizer.kind), p->model->param_count);
    if (p->tf32)
        fputs("large products in tf32\n", out);
    if (p->shards > 1)
        fprintf(out, "%u shards of %u rows\n", p->shards, program->shard_rows);
    fputs("regions:", out);
    for (unsigned i = 0; i < LF_REGION_COUNT; i++)
        if (program->region_size[i])
            fprintf(out, " %s %zu", lf_region_name((lf_region)i), program->region_size[i]);
    fputs(" bytes\n", out);
    for (size_t i = 0; i < program->op_count; i++) {
        const lf_op *op = &program->ops[i];
        if (!i || op->phase != program->ops[i - 1].phase)
            fprintf(out, "%s\n", lf_phase_name(op->phase));
        if (i && op->segment != program->ops[i - 1].segment)
            write_exchanges(out, program, op->segment);
        fprintf(out, "%c %2zu  %s", op->barrier ? '|' : ' ', i + 1, lf_op_info_of(op->kind)->name);
        write_options(out, op);
        fputs(": ", out);
        if (op->kind == LF_OP_GATHER)
            fprintf(out, "%s ", lf_dtype_name(program->tensors[op->operands[LF_GATHER_DATA]].type));
        write_operands(out, program, op, false);
        fputs(" -> ", out);
        write_operands(out, program, op, true);
        fputc('\n', out);
    }
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
