// Where barriers must stand, computed once for every backend: an operation needs one when, since the last barrier, an
// earlier operation wrote memory that it touches, or read memory that it writes. Steps repeat, so two rounds are
// walked and a barrier of either round is kept: the one on the first operations covers the wrap from step to step.
#include "program/hazards.h"

// Shards write to rows of their own in the one tensor of metrics. Who reads there too has the whole of it bound to read
// from, and of that nobody can tell that it stays with its rows.
static bool lie_apart(const lf_op *a, const lf_operand_info *of_a, const lf_op *b, const lf_operand_info *of_b,
                      const lf_tensor *tensor)
{
    return tensor->region == LF_REGION_METRICS && a->row != b->row && !of_a->read && !of_b->read;
}

static bool conflict(const lf_program *program, const lf_op *earlier, const lf_op *later)
{
    const lf_op_info *first = lf_op_info_of(earlier->kind), *second = lf_op_info_of(later->kind);
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++)
        for (unsigned j = 0; j < LF_OPERAND_MAX; j++) {
            const lf_tensor *a = lf_op_tensor(program, earlier, i), *b = lf_op_tensor(program, later, j);
            const lf_operand_info *of_a = &first->operands[i], *of_b = &second->operands[j];
            if (a && b && (of_a->written || of_b->written) && lf_tensors_overlap(a, b) &&
                !lie_apart(earlier, of_a, later, of_b, a))
                return true;
        }
    return false;
}

void lf_segments_number(lf_program *program)
{
    for (size_t i = 1; i < program->op_count; i++) {
        lf_op *op = &program->ops[i], *before = op - 1;
        op->segment = before->segment + (op->cut || op->phase != before->phase);
    }
    for (size_t i = 0; i < program->exchange_count; i++) {
        lf_exchange *exchange = &program->exchanges[i];
        exchange->after = program->ops[exchange->after].segment;
        exchange->before = program->ops[exchange->before].segment;
    }
}

void lf_hazards_mark(lf_program *program)
{
    size_t since = 0; // the first operation after the last barrier, counted over both rounds
    for (size_t i = 0; i < 2 * program->op_count; i++) {
        lf_op *op = &program->ops[i % program->op_count];
        for (size_t j = since; j < i; j++)
            if (conflict(program, &program->ops[j % program->op_count], op)) {
                op->barrier = true;
                break;
            }
        if (op->barrier)
            since = i;
    }
}
