#include "slots.h"

double *doubles(size_t count)
{
    double *values = calloc(count, sizeof *values);
    assert_non_null(values);
    return values;
}

void run_slots_at(bool in_float64, lf_op op, const slot *slots, size_t count, const struct lf_schedule_row *row)
{
    operand operands[LF_OPERAND_MAX];
    one_op one;
    test_rig rig;
    for (size_t i = 0; i < count; i++)
        operands[i] = slots[i].operand;
    op.phase = LF_PHASE_FORWARD;
    one_op_make(&one, op, operands, count, in_float64);
    rig_init(&rig, in_float64 ? oracle : device, &one.program);
    for (size_t i = 0; i < count; i++)
        if (slots[i].before)
            rig_put(&rig, one.op.operands[slots[i].operand.number], slots[i].before);
    one_op_put_row(&rig, row);
    rig_run(&rig, LF_PHASE_FORWARD, LF_PHASE_FORWARD, 1);
    for (size_t i = 0; i < count; i++)
        if (slots[i].after)
            rig_get(&rig, one.op.operands[slots[i].operand.number], slots[i].after);
    rig_finish(&rig);
}

void run_slots(bool in_float64, lf_op op, const slot *slots, size_t count, uint32_t valid)
{
    const lf_optimizer none = { .kind = LF_OPTIMIZER_NONE };
    struct lf_schedule_row row = schedule_row(&none, ONE_OP_FIRST, valid, ONE_OP_TRAINING_STEP);
    run_slots_at(in_float64, op, slots, count, &row);
}
