// Gathers, one operation at a time, against float64.
#include "rig.h"
#include "suite.h"

typedef struct batch_case {
    uint32_t rows;   // of the batch, 1 … op.rows
    lf_dtype stored; // gather
} batch_case;

static double *doubles(size_t count)
{
    double *values = calloc(count, sizeof *values);
    assert_non_null(values);
    return values;
}

// Numbers over the whole range of the stored type.
static double stored_value(lf_dtype type, size_t i)
{
    double u = (double)lf_uniform(11, LF_STREAM_INIT, 0, i);
    switch (type) {
    case LF_U8:
        return floor(u * 256);
    case LF_I8:
        return floor(u * 256) - 128;
    case LF_U16:
        return floor(u * 65536);
    case LF_I16:
        return floor(u * 65536) - 32768;
    case LF_U32:
        return floor(u * 4294967296.0);
    case LF_I32:
        return floor(u * 4294967296.0) - 2147483648.0;
    default:
        return (float)(4 * u - 2);
    }
}

static double stored_range(lf_dtype type)
{
    static const double ranges[] = {
        [LF_U8] = 256,           [LF_I8] = 128,           [LF_U16] = 65536, [LF_I16] = 32768,
        [LF_U32] = 4294967296.0, [LF_I32] = 2147483648.0, [LF_F32] = 2
    };
    return ranges[type];
}

enum { DATA_ROWS = 50 };

static void fill_gather(test_rig *rig, const void *context)
{
    const batch_case *batch = context;
    const lf_program *program = rig->program;
    const lf_op *op = &program->ops[0];
    size_t count = (size_t)DATA_ROWS * op->inputs;
    double *values = doubles(count > 3000 ? count : 3000);
    for (size_t i = 0; i < count; i++)
        values[i] = stored_value(batch->stored, i);
    rig_put(rig, op->operands[LF_GATHER_DATA], values);
    for (uint32_t j = 0; j < op->inputs; j++) {
        values[j] = (float)((1 + .5 * (j % 3)) / stored_range(batch->stored));
        values[op->inputs + j] = (float)(.25 * (j % 5) - .5);
    }
    rig_put(rig, op->operands[LF_GATHER_SCALING], values);
    for (uint32_t i = 0; i < ONE_OP_POSITIONS(op->rows); i++)
        values[i] = (i * 7 + 3) % DATA_ROWS;
    rig_put(rig, op->operands[LF_GATHER_ORDER], values);
    lf_tensor_id targets = op->operands[LF_GATHER_TARGETS];
    if (targets != LF_NO_TENSOR) {
        for (size_t i = 0; i < rig_elements(program, targets); i++)
            values[i] = program->tensors[targets].type == LF_U32 ? (double)(i * 5 % 11) : (float)(.1 * (double)i - 3);
        rig_put(rig, targets, values);
    }
    free(values);
    one_op_put_schedule(rig, NULL, batch->rows);
}

// `target_cols` 0: no targets; else classes (u32, one column) or values.
static void check_gather(uint32_t rows, uint32_t width, uint32_t batch_rows, lf_dtype stored, bool classes,
                         uint32_t target_cols)
{
    batch_case batch = { .rows = batch_rows, .stored = stored };
    char what[128];
    snprintf(what, sizeof what, "%u of %u rows of %u %s, %u %s", batch_rows, rows, width, lf_dtype_name(stored),
             target_cols, classes ? "classes" : "values");
    op_case c = {
        .op = { .kind = LF_OP_GATHER, .phase = LF_PHASE_LOAD, .rows = rows, .inputs = width, .outputs = width },
        .operands = { { .number = LF_GATHER_DATA,
                        .region = LF_REGION_DATA,
                        .rows = DATA_ROWS,
                        .cols = width,
                        .type = stored,
                        .typed = true },
                      { .number = LF_GATHER_SCALING,
                        .region = LF_REGION_SCALING,
                        .rows = 2,
                        .cols = width,
                        .type = LF_F32,
                        .typed = true },
                      { .number = LF_GATHER_ORDER,
                        .region = LF_REGION_ORDER,
                        .rows = 1,
                        .cols = ONE_OP_POSITIONS(rows),
                        .type = LF_U32,
                        .typed = true },
                      { .number = LF_GATHER_X, .region = LF_REGION_BATCH, .rows = rows, .cols = width },
                      { .number = LF_GATHER_TARGETS,
                        .region = LF_REGION_TARGETS,
                        .rows = DATA_ROWS,
                        .cols = target_cols,
                        .type = classes ? LF_U32 : LF_F32,
                        .typed = true },
                      { .number = LF_GATHER_Y,
                        .region = LF_REGION_BATCH,
                        .rows = rows,
                        .cols = target_cols,
                        .type = LF_U32,
                        .typed = classes } },
        .operand_count = target_cols ? 6 : 4,
        .fill = fill_gather,
        .context = &batch,
        .what = what,
        .bound = 1e-6,
        .floor = 1,
    };
    check_op(&c);
}

static void gather_converts_every_stored_type_at_every_width(void **state)
{
    (void)state;
    static const uint32_t widths[] = { 1, 7, 31, 33, 64, 65, 128, 1000 };
    for (lf_dtype type = LF_U8; type <= LF_F32; type++)
        for (size_t w = 0; w < COUNT(widths); w++)
            check_gather(w % 2 ? 33 : 8, widths[w], w % 2 ? 33 : 5, type, w % 3, 1 + (w % 3 ? 0 : (uint32_t)w));
}

static void gather_clears_the_rows_past_the_batch(void **state)
{
    (void)state;
    check_gather(65, 31, 1, LF_U8, true, 1);
    check_gather(65, 31, 64, LF_F32, false, 7);
    check_gather(1, 1, 1, LF_I16, true, 1);
    check_gather(128, 65, 127, LF_U16, false, 33);
    check_gather(31, 7, 30, LF_U8, true, 0);
}

static void fill_gather_rows(test_rig *rig, const void *context)
{
    const batch_case *batch = context;
    const lf_op *op = &rig->program->ops[0];
    double *values = doubles(ONE_OP_POSITIONS(op->rows));
    for (uint32_t i = 0; i < ONE_OP_POSITIONS(op->rows); i++)
        values[i] = (i * 7 + 3) % DATA_ROWS;
    rig_put(rig, op->operands[LF_GATHER_ROWS_ORDER], values);
    free(values);
    rig_put_normal(rig, op->operands[LF_GATHER_ROWS_SOURCE], 51, 1);
    one_op_put_schedule(rig, NULL, batch->rows);
}

// Exact, and against the source itself: a copy has no other oracle.
static void check_copied_rows(const op_case *c, uint32_t batch_rows)
{
    uint32_t rows = c->op.rows, width = c->op.outputs;
    double *source = doubles((size_t)DATA_ROWS * width), *out = doubles((size_t)rows * width);
    one_op one;
    test_rig rig;
    one_op_make(&one, c->op, c->operands, c->operand_count, false);
    rig_init(&rig, device, &one.program);
    rig_put_normal(&rig, one.op.operands[LF_GATHER_ROWS_OUT], 52, 1);
    c->fill(&rig, c->context);
    rig_run(&rig, LF_PHASE_LOAD, LF_PHASE_LOAD, 1);
    rig_get(&rig, one.op.operands[LF_GATHER_ROWS_SOURCE], source);
    rig_get(&rig, one.op.operands[LF_GATHER_ROWS_OUT], out);
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < width; j++) {
            uint32_t from = ((ONE_OP_FIRST + i) * 7 + 3) % DATA_ROWS;
            double want = i < batch_rows ? source[(size_t)from * width + j] : 0;
            if (out[(size_t)i * width + j] != want)
                fail_msg("gather_rows %s on %s: [%u][%u] is %.9g instead of %.9g", c->what, device->info.id, i, j,
                         out[(size_t)i * width + j], want);
        }
    rig_finish(&rig);
    free(source);
    free(out);
}

static void check_gather_rows(uint32_t rows, uint32_t width, uint32_t batch_rows)
{
    batch_case batch = { .rows = batch_rows };
    char what[128];
    snprintf(what, sizeof what, "%u of %u rows of %u", batch_rows, rows, width);
    op_case c = {
        .op = { .kind = LF_OP_GATHER_ROWS, .phase = LF_PHASE_LOAD, .rows = rows, .inputs = width, .outputs = width },
        .operands = { { .number = LF_GATHER_ROWS_SOURCE,
                        .region = LF_REGION_TEACHER,
                        .rows = DATA_ROWS,
                        .cols = width,
                        .type = LF_F32,
                        .typed = true },
                      { .number = LF_GATHER_ROWS_ORDER,
                        .region = LF_REGION_ORDER,
                        .rows = 1,
                        .cols = ONE_OP_POSITIONS(rows),
                        .type = LF_U32,
                        .typed = true },
                      { .number = LF_GATHER_ROWS_OUT, .region = LF_REGION_BATCH, .rows = rows, .cols = width } },
        .operand_count = 3,
        .fill = fill_gather_rows,
        .context = &batch,
        .what = what,
        .bound = 0,
        .floor = 1,
    };
    check_op(&c);
    check_copied_rows(&c, batch_rows);
}

static void gather_rows_copies_the_rows_of_the_batch(void **state)
{
    (void)state;
    static const uint32_t cases[][3] = { { 1, 1, 1 },   { 7, 31, 7 },      { 33, 33, 20 },   { 65, 64, 64 },
                                         { 64, 65, 1 }, { 128, 128, 128 }, { 31, 1000, 30 }, { 1000, 7, 999 } };
    for (size_t i = 0; i < COUNT(cases); i++)
        check_gather_rows(cases[i][0], cases[i][1], cases[i][2]);
}

int run_gather_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gather_converts_every_stored_type_at_every_width),
        cmocka_unit_test(gather_clears_the_rows_past_the_batch),
        cmocka_unit_test(gather_rows_copies_the_rows_of_the_batch),
    };
    return cmocka_run_group_tests_name("gathers", tests, NULL, NULL);
}
