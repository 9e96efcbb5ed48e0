#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "abi.h"
#include "core/random.h"
#include "job.h"

static void require(const void *made, const lf_error *err)
{
    if (!made)
        fail_msg("%s", err->text);
}

static void write_all(job *j, lf_region region, const void *bytes, size_t size)
{
    lf_error err = { 0 };
    if (!lf_device_buffer_write(j->device, j->regions.region[region], 0, bytes, size, &err))
        fail_msg("%s", err.text);
}

// Numbers in [-1, 1), the same for every device.
static float number(uint32_t index, size_t element)
{
    return 2 * lf_uniform(7, LF_STREAM_INIT, index, element) - 1;
}

static void fill_data(job *j, const job_spec *spec)
{
    size_t count = (size_t)spec->rows * j->model->inputs, size = lf_dtype_size(spec->stored);
    char *data = malloc(count * size);
    assert_non_null(data);
    for (size_t i = 0; i < count; i++) {
        float value = number(1, i);
        int32_t whole = (int32_t)(value * (spec->stored == LF_U8 || spec->stored == LF_I8 ? 127 : 32000));
        if (spec->stored == LF_U8 || spec->stored == LF_U16 || spec->stored == LF_U32)
            whole = whole < 0 ? -whole : whole;
        if (spec->poison != 0 && i / j->model->inputs == 1)
            value = spec->poison;
        memcpy(data + i * size, spec->stored == LF_F32 ? (void *)&value : (void *)&whole, size); // little-endian
    }
    write_all(j, LF_REGION_DATA, data, count * size);
    free(data);

    float *scaling = malloc(2 * j->model->inputs * sizeof *scaling);
    assert_non_null(scaling);
    float scale = spec->stored == LF_F32 ? 1 : size == 1 ? 1.f / 128 : 1.f / 32768;
    for (uint32_t i = 0; i < j->model->inputs; i++) {
        scaling[i] = scale;
        scaling[j->model->inputs + i] = .125f * number(2, i);
    }
    write_all(j, LF_REGION_SCALING, scaling, 2 * j->model->inputs * sizeof *scaling);
    free(scaling);
}

static void fill_targets(job *j, const job_spec *spec)
{
    size_t count = (size_t)spec->rows * (spec->loss == LF_LOSS_MSE ? j->model->outputs : 1);
    uint32_t *labels = malloc(count * sizeof *labels);
    assert_non_null(labels);
    for (size_t i = 0; i < count; i++) {
        float value = number(3, i);
        if (spec->loss == LF_LOSS_MSE)
            memcpy(&labels[i], &value, sizeof value);
        else
            labels[i] = (uint32_t)((value + 1) / 2 * (float)j->model->outputs);
    }
    if (spec->loss != LF_LOSS_NONE)
        write_all(j, LF_REGION_TARGETS, labels, count * sizeof *labels);
    free(labels);
}

static void fill_order(job *j, const job_spec *spec)
{
    uint32_t *order = malloc(spec->rows * sizeof *order);
    size_t words = LF_SCHEDULE_HEADER_WORDS + spec->steps * LF_SCHEDULE_ROW_WORDS;
    uint32_t *schedule = calloc(words, sizeof *schedule);
    assert_non_null(order);
    assert_non_null(schedule);
    const struct lf_schedule_header header = { .seed_low = 0xfedcba98, .seed_high = 0x76543210 };
    memcpy(schedule, &header, sizeof header);
    for (uint32_t i = 0; i < spec->rows; i++)
        order[i] = (i * 7 + 3) % spec->rows; // a permutation unless 7 divides the rows
    for (uint32_t i = 0; i < spec->steps; i++) {
        uint32_t first = i * spec->batch % spec->rows, left = spec->rows - first;
        struct lf_schedule_row row = { .first = first, .rows = left < spec->batch ? left : spec->batch, .lr = .01f };
        row.inv_rows = row.inv_weight = 1.f / (float)row.rows;
        row.begins = row.updates = 1;
        row.step_size = .01f / (1 - powf(.9f, (float)i + 1));
        row.inv_sqrt_correct2 = 1 / sqrtf(1 - powf(.999f, (float)i + 1));
        row.step = i;
        memcpy(schedule + LF_SCHEDULE_HEADER_WORDS + i * LF_SCHEDULE_ROW_WORDS, &row, sizeof row);
    }
    write_all(j, LF_REGION_ORDER, order, spec->rows * sizeof *order);
    write_all(j, LF_REGION_SCHEDULE, schedule, words * sizeof *schedule);
    free(order);
    free(schedule);
}

// Probabilities, different for each row.
static void fill_teacher(job *j, const job_spec *spec)
{
    uint32_t outputs = j->model->outputs;
    float *teacher = malloc((size_t)spec->rows * outputs * sizeof *teacher);
    assert_non_null(teacher);
    for (uint32_t i = 0; i < spec->rows; i++) {
        float *row = teacher + (size_t)i * outputs, sum = 0;
        for (uint32_t k = 0; k < outputs; k++)
            sum += row[k] = 1.5f + number(4, (size_t)i * outputs + k);
        for (uint32_t k = 0; k < outputs; k++)
            row[k] /= sum;
    }
    if (spec->distill)
        write_all(j, LF_REGION_TEACHER, teacher, (size_t)spec->rows * outputs * sizeof *teacher);
    free(teacher);
}

// A block of the model: weights or running statistics.
static void fill_block(job *j, lf_region region, const float *values, size_t count)
{
    double *wide = malloc((count + 1) * sizeof *wide);
    assert_non_null(wide);
    for (size_t i = 0; i < count; i++)
        wide[i] = values[i];
    if (count && j->program->real == LF_F64)
        write_all(j, region, wide, count * sizeof *wide);
    else if (count)
        write_all(j, region, values, count * sizeof *values);
    free(wide);
}

job job_create(const char *device, const job_spec *spec, bool oracle)
{
    lf_error err = { 0 };
    job j = { 0 };
    j.device = lf_device_open(device, &err);
    require(j.device, &err);
    j.model = lf_model_create(spec->layers, spec->layer_count, &err);
    require(j.model, &err);
    lf_model_init(j.model, 5);
    j.program = lf_program_compile(&(lf_compile_params){ .model = j.model,
                                                         .loss = spec->loss,
                                                         .distill = { spec->distill, .75f, 3 },
                                                         .optimizer = spec->optimizer,
                                                         .fuses = spec->fuses,
                                                         .batch = spec->batch,
                                                         .stored = spec->stored,
                                                         .rows = spec->rows,
                                                         .positions = spec->rows,
                                                         .steps = spec->steps,
                                                         .oracle = oracle },
                                   &err);
    require(j.program, &err);
    for (unsigned i = 0; i < LF_REGION_COUNT; i++)
        if (j.program->region_size[i]) {
            j.regions.region[i] = lf_device_buffer_create(j.device, j.program->region_size[i], &err);
            require(j.regions.region[i], &err);
        }
    fill_data(&j, spec);
    fill_targets(&j, spec);
    fill_order(&j, spec);
    fill_teacher(&j, spec);
    fill_block(&j, LF_REGION_PARAMS, j.model->params, j.model->block_count);
    fill_block(&j, LF_REGION_STATE, j.model->state, j.model->state_count);
    j.exec = lf_device_exec_create(j.device, j.program, &j.regions, &err);
    require(j.exec, &err);
    return j;
}

void job_destroy(job *j)
{
    lf_device_exec_destroy(j->device, j->exec);
    for (unsigned i = 0; i < LF_REGION_COUNT; i++)
        lf_device_buffer_destroy(j->device, j->regions.region[i]);
    lf_program_destroy(j->program);
    lf_model_destroy(j->model);
    lf_device_close(j->device);
}

void job_run(job *j, lf_phase first, lf_phase last, uint32_t steps)
{
    lf_error err = { 0 };
    uint32_t from = 0, to = 0;
    assert_true(lf_program_segments(j->program, first, last, &from, &to));
    if (!lf_device_exec_run(j->device, j->exec, from, to, steps, &err) || !lf_device_wait(j->device, &err))
        fail_msg("%s", err.text);
}

double *job_read(job *j, lf_tensor_id id, size_t *count)
{
    const lf_tensor *tensor = &j->program->tensors[id];
    size_t size = lf_tensor_bytes(tensor);
    lf_error err = { 0 };
    void *bytes = malloc(size);
    *count = size / lf_dtype_size(tensor->type);
    double *values = malloc(*count * sizeof *values);
    assert_non_null(bytes);
    assert_non_null(values);
    if (!lf_device_buffer_read(j->device, bytes, j->regions.region[tensor->region], tensor->offset, size, &err))
        fail_msg("%s", err.text);
    for (size_t i = 0; i < *count; i++)
        values[i] = tensor->type == LF_F64   ? ((double *)bytes)[i]
                    : tensor->type == LF_F32 ? ((float *)bytes)[i]
                                             : ((uint32_t *)bytes)[i];
    free(bytes);
    return values;
}

void job_expect_close(job *a, job *b, lf_tensor_id id, double bound)
{
    size_t count;
    double *got = job_read(a, id, &count), *want = job_read(b, id, &count);
    const lf_tensor *tensor = &a->program->tensors[id];
    for (size_t i = 0; i < count; i++) {
        bool close = fabs(got[i] - want[i]) <= bound * (1 + fabs(want[i])) || (isnan(got[i]) && isnan(want[i]));
        if (!close)
            fail_msg("%s (%u, %u): element %zu is %.9g, expected %.9g within %g", tensor->name, tensor->rows,
                     tensor->cols, i, got[i], want[i], bound);
    }
    free(got);
    free(want);
}

void job_expect_equal(job *a, job *b, lf_tensor_id id)
{
    size_t count;
    double *got = job_read(a, id, &count), *want = job_read(b, id, &count);
    const lf_tensor *tensor = &a->program->tensors[id];
    for (size_t i = 0; i < count; i++)
        if (memcmp(&got[i], &want[i], sizeof *got) != 0)
            fail_msg("%s (%u, %u): element %zu is %.9g, and %.9g in the other run", tensor->name, tensor->rows,
                     tensor->cols, i, got[i], want[i]);
    free(got);
    free(want);
}
