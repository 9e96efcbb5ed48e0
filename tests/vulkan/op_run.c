#include "op_run.h"

const uint32_t run_shapes[SHAPES][2] = { { 1, 1 },    { 7, 31 },    { 33, 33 },  { 64, 10 }, { 65, 128 },
                                         { 128, 65 }, { 31, 1000 }, { 1000, 7 }, { 5, 64 } };
const uint32_t run_seed[2] = { 0x9e3779b9, 0xfffffff1 };

double *run_numbers(op_run *run, size_t count)
{
    double *values = calloc(count, sizeof *values);
    assert_non_null(values);
    assert_true(run->kept_count < COUNT(run->kept));
    run->kept[run->kept_count++] = values;
    return values;
}

lf_op run_op(lf_op_kind kind, uint32_t rows, uint32_t width)
{
    return (lf_op){ .kind = kind, .phase = LF_PHASE_FORWARD, .rows = rows, .inputs = width, .outputs = width };
}

operand run_acts(unsigned number, uint32_t rows, uint32_t cols)
{
    return (operand){ .number = number, .region = LF_REGION_ACTS, .rows = rows, .cols = cols };
}

operand run_words(unsigned number, uint32_t count)
{
    return (operand){
        .number = number, .region = LF_REGION_ORDER, .rows = 1, .cols = count, .type = LF_U32, .typed = true
    };
}

void run_start(op_run *run, lf_op op, bool short_batch, const operand *operands, size_t count)
{
    lf_error err;
    const lf_optimizer sgd = { .kind = LF_OPTIMIZER_SGD, .lr = 1 };
    *run = (op_run){ .rows = short_batch ? op.rows - op.rows / 3 : op.rows };
    run_note(run, "%s, %u of %u rows of %u", lf_op_info_of(op.kind)->name, run->rows, op.rows, op.outputs);
    one_op_make(&run->one, op, operands, count, false);
    struct lf_schedule_row row = schedule_row(&sgd, FIRST, run->rows, STEP);
    rig_init(&run->rig, device, &run->one.program);
    one_op_put_row(&run->rig, &row);
    if (!lf_device_buffer_write(device, run->rig.regions.region[LF_REGION_SCHEDULE], sizeof *run_seed, run_seed,
                                sizeof run_seed, &err))
        fail_msg("%s", err.text);
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++) {
        const lf_operand_info *info = &lf_op_info_of(run->one.op.kind)->operands[i];
        if (run->one.op.operands[i] == LF_NO_TENSOR || !info->written || info->read)
            continue;
        size_t elements = rig_elements(&run->one.program, run->one.op.operands[i]);
        double *values = run_numbers(run, elements);
        for (size_t e = 0; e < elements; e++)
            values[e] = (double)NAN;
        rig_put(&run->rig, run->one.op.operands[i], values);
    }
}

void run_finish(op_run *run)
{
    rig_finish(&run->rig);
    for (size_t i = 0; i < run->kept_count; i++)
        free(run->kept[i]);
}

void run_note(op_run *run, const char *format, ...)
{
    size_t length = strlen(run->what);
    va_list list;
    va_start(list, format);
    vsnprintf(run->what + length, sizeof run->what - length, format, list);
    va_end(list);
}

void run_put(op_run *run, unsigned number, const double *values)
{
    rig_put(&run->rig, run->one.op.operands[number], values);
}

double *run_put_normal(op_run *run, unsigned number, double middle, double scale)
{
    size_t count = rig_elements(&run->one.program, run->one.op.operands[number]);
    double *values = run_numbers(run, count);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)(middle + scale * (double)lf_normal(17, LF_STREAM_INIT, number, i));
    run_put(run, number, values);
    return values;
}

double *run_get(op_run *run, unsigned number)
{
    lf_tensor_id id = run->one.op.operands[number];
    double *values = run_numbers(run, rig_elements(&run->one.program, id));
    rig_get(&run->rig, id, values);
    return values;
}

void run_once(op_run *run)
{
    rig_run(&run->rig, LF_PHASE_FORWARD, LF_PHASE_FORWARD, 1);
}

void run_expect(op_run *run, unsigned number, const double *want, double bound, double floor)
{
    assert_near(run->what, &run->one.program, run->one.op.operands[number], run_get(run, number), want, bound, floor);
}
