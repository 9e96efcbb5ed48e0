// The step program in words.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static void write_options(FILE *out, const lf_op *op)
{
    if (op->activation)
        fprintf(out, " %s", lf_activation_name(op->activation));
    if (op->alpha != 0)
        fprintf(out, " alpha=%g", (double)op->alpha);
    if (op->kind == LF_OP_ADAM)
        fprintf(out, " beta1=%g beta2=%g eps=%g", (double)op->beta1, (double)op->beta2, (double)op->eps);
    if (op->momentum != 0)
        fprintf(out, " momentum=%g%s", (double)op->momentum, op->nesterov ? " nesterov" : "");
    if (op->weight_decay != 0)
        fprintf(out, " weight_decay=%g%s", (double)op->weight_decay, op->decoupled ? " decoupled" : "");
    if (op->kind == LF_OP_DROPOUT)
        fprintf(out, " rate=%g layer=%u", (double)op->rate, op->stream);
    if (op->kind == LF_OP_LAYER_NORM || op->kind == LF_OP_BATCH_STATS)
        fprintf(out, " eps=%g", (double)op->eps);
    if (op->kind == LF_OP_BATCH_STATS)
        fputs(op->training ? " training" : " running", out);
    if (op->kind == LF_OP_NORM_DW)
        fputs(op->by_row ? " by_row" : " by_column", out);
    if (op->kind == LF_OP_DISTILL)
        fprintf(out, " alpha=%g temperature=%g", (double)op->soft_weight, (double)op->temperature);
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
    fputs("regions:", out);
    for (unsigned i = 0; i < LF_REGION_COUNT; i++)
        if (program->region_size[i])
            fprintf(out, " %s %zu", lf_region_name((lf_region)i), program->region_size[i]);
    fputs(" bytes\n", out);
    for (size_t i = 0; i < program->op_count; i++) {
        const lf_op *op = &program->ops[i];
        if (!i || op->phase != program->ops[i - 1].phase)
            fprintf(out, "%s\n", lf_phase_name(op->phase));
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
