#include "rig.h"

lf_device *device, *oracle;

#define CHECK(condition, err)                                                                                          \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            fail_msg("%s", (err).text);                                                                                \
    } while (0)

static void *must(void *memory)
{
    assert_non_null(memory);
    return memory;
}

void rig_init(test_rig *rig, lf_device *dev, const lf_program *program)
{
    lf_error err;
    *rig = (test_rig){ .dev = dev, .program = program };
    for (unsigned i = 0; i < LF_REGION_COUNT; i++)
        if (program->region_size[i]) {
            rig->regions.region[i] = lf_device_buffer_create(dev, program->region_size[i], &err);
            CHECK(rig->regions.region[i], err);
        }
    rig->exec = lf_device_exec_create(dev, program, &rig->regions, &err);
    CHECK(rig->exec, err);
}

void rig_finish(test_rig *rig)
{
    lf_device_exec_destroy(rig->dev, rig->exec);
    for (unsigned i = 0; i < LF_REGION_COUNT; i++)
        lf_device_buffer_destroy(rig->dev, rig->regions.region[i]);
}

size_t rig_elements(const lf_program *program, lf_tensor_id tensor)
{
    return (size_t)program->tensors[tensor].rows * program->tensors[tensor].cols;
}

static void write_bytes(test_rig *rig, lf_tensor_id id, const void *bytes)
{
    lf_error err;
    const lf_tensor *tensor = &rig->program->tensors[id];
    CHECK(lf_device_buffer_write(rig->dev, rig->regions.region[tensor->region], tensor->offset, bytes,
                                 lf_tensor_bytes(tensor), &err),
          err);
}

static void read_bytes(const test_rig *rig, lf_tensor_id id, void *bytes)
{
    lf_error err;
    const lf_tensor *tensor = &rig->program->tensors[id];
    CHECK(lf_device_buffer_read(rig->dev, bytes, rig->regions.region[tensor->region], tensor->offset,
                                lf_tensor_bytes(tensor), &err),
          err);
}

// memory[i] becomes value, or value becomes memory[i].
#define EACH_TYPE(statement)                                                                                           \
    case LF_U8: {                                                                                                      \
        typedef uint8_t type;                                                                                          \
        statement;                                                                                                     \
        break;                                                                                                         \
    }                                                                                                                  \
    case LF_I8: {                                                                                                      \
        typedef int8_t type;                                                                                           \
        statement;                                                                                                     \
        break;                                                                                                         \
    }                                                                                                                  \
    case LF_U16: {                                                                                                     \
        typedef uint16_t type;                                                                                         \
        statement;                                                                                                     \
        break;                                                                                                         \
    }                                                                                                                  \
    case LF_I16: {                                                                                                     \
        typedef int16_t type;                                                                                          \
        statement;                                                                                                     \
        break;                                                                                                         \
    }                                                                                                                  \
    case LF_U32: {                                                                                                     \
        typedef uint32_t type;                                                                                         \
        statement;                                                                                                     \
        break;                                                                                                         \
    }                                                                                                                  \
    case LF_I32: {                                                                                                     \
        typedef int32_t type;                                                                                          \
        statement;                                                                                                     \
        break;                                                                                                         \
    }                                                                                                                  \
    case LF_F32: {                                                                                                     \
        typedef float type;                                                                                            \
        statement;                                                                                                     \
        break;                                                                                                         \
    }                                                                                                                  \
    case LF_F64: {                                                                                                     \
        typedef double type;                                                                                           \
        statement;                                                                                                     \
        break;                                                                                                         \
    }                                                                                                                  \
    case LF_DTYPE_COUNT:                                                                                               \
        break;

void rig_put(test_rig *rig, lf_tensor_id id, const double *values)
{
    const lf_tensor *tensor = &rig->program->tensors[id];
    size_t count = rig_elements(rig->program, id);
    void *bytes = must(malloc(lf_tensor_bytes(tensor)));
    for (size_t i = 0; i < count; i++)
        switch (tensor->type) {
            EACH_TYPE(((type *)bytes)[i] = (type)values[i])
        }
    write_bytes(rig, id, bytes);
    free(bytes);
}

void rig_get(const test_rig *rig, lf_tensor_id id, double *values)
{
    const lf_tensor *tensor = &rig->program->tensors[id];
    size_t count = rig_elements(rig->program, id);
    void *bytes = must(malloc(lf_tensor_bytes(tensor)));
    read_bytes(rig, id, bytes);
    for (size_t i = 0; i < count; i++)
        switch (tensor->type) {
            EACH_TYPE(values[i] = (double)((type *)bytes)[i])
        }
    free(bytes);
}

void rig_put_normal(test_rig *rig, lf_tensor_id id, uint32_t seed, double scale)
{
    size_t count = rig_elements(rig->program, id);
    double *values = must(malloc(count * sizeof *values));
    for (size_t i = 0; i < count; i++) // rounded to f32, so that both precisions start from one value
        values[i] = (float)(scale * (double)lf_normal(seed, LF_STREAM_INIT, (uint32_t)id, i));
    rig_put(rig, id, values);
    free(values);
}

static void put_block(test_rig *rig, lf_tensor_id id, const float *block, size_t count)
{
    double *values = must(malloc(count * sizeof *values));
    for (size_t i = 0; i < count; i++)
        values[i] = (double)block[i];
    rig_put(rig, id, values);
    free(values);
}

void rig_put_model(test_rig *rig, const lf_model *model)
{
    put_block(rig, rig->program->weights, model->params, model->block_count);
    if (rig->program->average != LF_NO_TENSOR)
        put_block(rig, rig->program->average, model->params, model->block_count);
    if (model->state_count)
        put_block(rig, rig->program->state, model->state, model->state_count);
}

void rig_put_teacher(test_rig *rig, lf_tensor_id id)
{
    const double unit = 65536;
    const lf_tensor *tensor = &rig->program->tensors[id];
    double *values = must(malloc(rig_elements(rig->program, id) * sizeof *values));
    for (size_t i = 0; i < tensor->rows; i++) {
        double *row = values + i * tensor->cols, sum = 0, rest = unit;
        for (size_t j = 0; j < tensor->cols; j++)
            sum += row[j] = pow((double)lf_uniform(91, LF_STREAM_INIT, 0, i * tensor->cols + j), 4);
        for (size_t j = 0; j < tensor->cols; j++) {
            row[j] = j == i % 3 ? 0 : floor(unit * row[j] / sum);
            rest -= row[j];
            row[j] /= unit;
        }
        row[(i + 1) % tensor->cols] += rest / unit;
    }
    rig_put(rig, id, values);
    free(values);
}

void rig_put_schedule(test_rig *rig, uint32_t counter, const struct lf_schedule_row *rows, uint32_t count)
{
    lf_error err;
    struct lf_schedule_header header = { .counter = counter, .seed_low = RIG_SEED_LOW, .seed_high = RIG_SEED_HIGH };
    lf_buffer *schedule = rig->regions.region[LF_REGION_SCHEDULE];
    CHECK(lf_device_buffer_write(rig->dev, schedule, 0, &header, sizeof header, &err), err);
    CHECK(lf_device_buffer_write(rig->dev, schedule, sizeof header, rows, count * sizeof *rows, &err), err);
}

uint32_t rig_counter(const test_rig *rig)
{
    lf_error err;
    uint32_t counter;
    CHECK(lf_device_buffer_read(rig->dev, &counter, rig->regions.region[LF_REGION_SCHEDULE], 0, sizeof counter, &err),
          err);
    return counter;
}

void rig_run(test_rig *rig, lf_phase first, lf_phase last, uint32_t steps)
{
    lf_error err;
    uint32_t from, to;
    if (!lf_program_segments(rig->program, first, last, &from, &to))
        return;
    CHECK(lf_device_exec_run(rig->dev, rig->exec, from, to, steps, &err) && lf_device_wait(rig->dev, &err), err);
}

lf_tensor_id find_tensor(const lf_program *program, const char *name)
{
    for (size_t i = 0; i < program->tensor_count; i++)
        if (!strcmp(program->tensors[i].name, name))
            return (lf_tensor_id)i;
    fail_msg("the program has no tensor \"%s\"", name);
    return LF_NO_TENSOR;
}

void assert_near(const char *what, const lf_program *program, lf_tensor_id id, const double *got, const double *want,
                 double bound, double floor)
{
    const lf_tensor *tensor = &program->tensors[id];
    size_t count = rig_elements(program, id), worst = 0, misses = 0;
    double worst_ratio = 0;
    for (size_t i = 0; i < count; i++) {
        double allowed = bound * fmax(floor, fabs(want[i])), error = fabs(got[i] - want[i]);
        bool same = got[i] == want[i] || (isnan(got[i]) && isnan(want[i]));
        if (same || error <= allowed)
            continue;
        double ratio = isnan(error) ? INFINITY : error / allowed;
        if (misses++ == 0 || ratio > worst_ratio) {
            worst_ratio = ratio;
            worst = i;
        }
    }
    if (misses)
        fail_msg(
            "%s: %s (%u, %u) on %s: %zu of %zu elements off, the worst at [%zu][%zu]: %.9g instead of %.9g, bound %g "
            "of max(%g, |value|)",
            what, tensor->name, tensor->rows, tensor->cols, device->info.id, misses, count, worst / tensor->cols,
            worst % tensor->cols, got[worst], want[worst], bound, floor);
}

struct lf_schedule_row schedule_row(const lf_optimizer *optimizer, uint32_t first, uint32_t rows, uint32_t step)
{
    double lr = optimizer->lr, update = step + 1.0, correct = 1 - pow((double)optimizer->beta1, update);
    return (struct lf_schedule_row){ .first = first,
                                     .rows = rows,
                                     .inv_rows = 1 / (float)rows,
                                     .inv_weight = 1 / (float)rows,
                                     .lr = (float)lr,
                                     .step_size = (float)((optimizer->kind == LF_OPTIMIZER_LAMB ? 1 : lr) / correct),
                                     .inv_sqrt_correct2 = (float)(1 / sqrt(1 - pow((double)optimizer->beta2, update))),
                                     .step = step,
                                     .begins = 1,
                                     .updates = 1 };
}

static size_t align(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

static lf_tensor_id add_tensor(one_op *one, const char *name, lf_region region, lf_dtype type, uint32_t rows,
                               uint32_t cols)
{
    lf_program *program = &one->program;
    lf_tensor *tensor = &one->tensors[program->tensor_count];
    *tensor = (lf_tensor){
        .region = region, .type = type, .rows = rows, .cols = cols, .offset = program->region_size[region]
    };
    snprintf(tensor->name, sizeof tensor->name, "%s", name);
    program->region_size[region] += align(lf_tensor_bytes(tensor)) + 256;
    return (lf_tensor_id)program->tensor_count++;
}

void one_op_make(one_op *one, lf_op op, const operand *operands, size_t count, bool in_float64)
{
    const lf_op_info *info = lf_op_info_of(op.kind);
    *one = (one_op){ .op = op };
    if (!one->op.batch)
        one->op.batch = op.rows;
    lf_program *program = &one->program;
    *program = (lf_program){ .tensors = one->tensors,
                             .ops = &one->op,
                             .op_count = 1,
                             .real = in_float64 ? LF_F64 : LF_F32,
                             .params = { .batch = one->op.batch,
                                         .rows = 1,
                                         .positions = ONE_OP_POSITIONS(one->op.batch),
                                         .steps = ONE_OP_STEPS,
                                         .oracle = in_float64 } };
    program->output = program->data = program->targets = program->scaling = program->order = program->weights =
        program->grads = program->metrics = program->state = program->teacher = program->row_weights =
            program->average = program->teacher_params = program->teacher_state = LF_NO_TENSOR;
    for (unsigned i = 0; i < LF_MOMENT_COUNT; i++)
        program->moment[i] = LF_NO_TENSOR;
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++)
        one->op.operands[i] = LF_NO_TENSOR;
    program->schedule =
        add_tensor(one, "schedule", LF_REGION_SCHEDULE, LF_U32, ONE_OP_STEPS + 1, LF_SCHEDULE_ROW_WORDS);
    for (size_t i = 0; i < count; i++)
        one->op.operands[operands[i].number] =
            add_tensor(one, info->operands[operands[i].number].role, operands[i].region,
                       operands[i].typed ? operands[i].type : program->real, operands[i].rows, operands[i].cols);
    for (unsigned i = 0; i < LF_OPERAND_MAX && info->operands[i].role; i++)
        if (!strcmp(info->operands[i].role, "schedule"))
            one->op.operands[i] = program->schedule;
}

void one_op_put_schedule(test_rig *rig, const lf_optimizer *optimizer, uint32_t rows)
{
    static const lf_optimizer none = { .kind = LF_OPTIMIZER_NONE };
    struct lf_schedule_row row = schedule_row(optimizer ? optimizer : &none, ONE_OP_FIRST, rows, ONE_OP_TRAINING_STEP);
    one_op_put_row(rig, &row);
}

void one_op_put_row(test_rig *rig, const struct lf_schedule_row *row)
{
    struct lf_schedule_row wrong = *row;
    wrong.first = 0;
    wrong.rows = 1;
    wrong.inv_weight = wrong.inv_rows = 1.5f;
    wrong.lr *= 1.5f;
    wrong.step_size *= 1.5f;
    wrong.inv_sqrt_correct2 *= 1.5f;
    wrong.step = row->step + 5;
    wrong.begins = !row->begins;
    wrong.updates = !row->updates;
    struct lf_schedule_row table[ONE_OP_STEPS] = { wrong, wrong, wrong };
    table[ONE_OP_COUNTER] = *row;
    rig_put_schedule(rig, ONE_OP_COUNTER, table, ONE_OP_STEPS);
}

void fill_scaled(test_rig *rig, const void *context)
{
    const op_scales *scales = context;
    const lf_op *op = &rig->program->ops[0];
    const lf_op_info *info = lf_op_info_of(op->kind);
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++)
        if (op->operands[i] != LF_NO_TENSOR && info->operands[i].read && op->operands[i] != rig->program->schedule)
            rig_put_normal(rig, op->operands[i], i + 1, scales->scale[i]);
    one_op_put_schedule(rig, NULL, scales->rows ? scales->rows : op->rows);
}

// Marks the bytes of a region that the operation may write: its tensors up to the next multiple of 256; where it is to
// be idle, none.
static void mark_written(const one_op *one, bool idle, lf_region region, unsigned char *may_change)
{
    const lf_op_info *info = lf_op_info_of(one->op.kind);
    for (unsigned i = 0; i < LF_OPERAND_MAX && !idle; i++) {
        const lf_tensor *tensor = lf_op_tensor(&one->program, &one->op, i);
        if (tensor && info->operands[i].written && tensor->region == region)
            memset(may_change + tensor->offset, 1, align(lf_tensor_bytes(tensor)));
    }
    if (region == LF_REGION_SCHEDULE)
        memset(may_change, 1, sizeof(uint32_t)); // the counter
}

// The bytes of every region, one after the other.
static unsigned char *snapshot(const test_rig *rig)
{
    lf_error err;
    size_t size = 0, at = 0;
    for (unsigned i = 0; i < LF_REGION_COUNT; i++)
        size += rig->program->region_size[i];
    unsigned char *bytes = must(malloc(size));
    for (unsigned i = 0; i < LF_REGION_COUNT; at += rig->program->region_size[i++])
        if (rig->program->region_size[i])
            CHECK(lf_device_buffer_read(rig->dev, bytes + at, rig->regions.region[i], 0, rig->program->region_size[i],
                                        &err),
                  err);
    return bytes;
}

static void check_untouched(const op_case *op, const one_op *one, const unsigned char *before,
                            const unsigned char *after)
{
    const size_t *sizes = one->program.region_size;
    size_t at = 0;
    for (unsigned i = 0; i < LF_REGION_COUNT; at += sizes[i++]) {
        if (!sizes[i])
            continue;
        unsigned char *may_change = must(calloc(1, sizes[i]));
        mark_written(one, op->idle, (lf_region)i, may_change);
        for (size_t b = 0; b < sizes[i]; b++)
            if (!may_change[b] && before[at + b] != after[at + b])
                fail_msg("%s %s on %s: changed byte %zu of region %s, where it must not write",
                         lf_op_info_of(op->op.kind)->name, op->what, device->info.id, b, lf_region_name((lf_region)i));
        free(may_change);
    }
}

// What is to be written starts as NaN, so that an operation that leaves an element out, or adds to it, is found out.
static void spoil(test_rig *rig, const one_op *one)
{
    const lf_op_info *info = lf_op_info_of(one->op.kind);
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++) {
        lf_tensor_id id = one->op.operands[i];
        if (id == LF_NO_TENSOR || !info->operands[i].written || info->operands[i].read)
            continue;
        size_t count = rig_elements(&one->program, id);
        double *values = must(malloc(count * sizeof *values));
        for (size_t e = 0; e < count; e++)
            values[e] = one->tensors[id].type == LF_U32 ? 1e9 : (double)NAN;
        rig_put(rig, id, values);
        free(values);
    }
}

static void start_op(const op_case *op, one_op *one, test_rig *rig, lf_device *dev, bool in_float64)
{
    one_op_make(one, op->op, op->operands, op->operand_count, in_float64);
    rig_init(rig, dev, &one->program);
    spoil(rig, one);
    op->fill(rig, op->context);
}

void check_op(const op_case *op)
{
    const lf_op_info *info = lf_op_info_of(op->op.kind);
    one_op tested, exact;
    test_rig rig, truth;
    start_op(op, &tested, &rig, device, false);
    start_op(op, &exact, &truth, oracle, true);
    unsigned char *before = snapshot(&rig);
    rig_run(&rig, op->op.phase, op->op.phase, 1);
    rig_run(&truth, op->op.phase, op->op.phase, 1);
    unsigned char *after = snapshot(&rig);
    check_untouched(op, &tested, before, after);
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++) {
        lf_tensor_id id = tested.op.operands[i];
        if (id == LF_NO_TENSOR || !info->operands[i].written)
            continue;
        size_t count = rig_elements(&tested.program, id);
        double *got = must(malloc(count * sizeof *got)), *want = must(malloc(count * sizeof *want));
        rig_get(&rig, id, got);
        rig_get(&truth, id, want);
        char what[160];
        snprintf(what, sizeof what, "%s %s", info->name, op->what);
        double floor = tested.tensors[id].region == LF_REGION_METRICS ? 1 : op->floor;
        assert_near(what, &tested.program, id, got, want, op->bound, floor);
        free(got);
        free(want);
    }
    free(before);
    free(after);
    rig_finish(&truth);
    rig_finish(&rig);
}
