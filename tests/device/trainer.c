#include "trainer.h"

static void put_rows(test_trainer *t, const test_training *training)
{
    const lf_program *program = t->program;
    uint32_t inputs = t->model->inputs, rows = training->rows;
    size_t count = (size_t)rows * inputs, outputs = (size_t)rows * t->model->outputs;
    double *values = calloc(count + outputs + 2 * inputs + rows, sizeof *values);
    assert_non_null(values);
    bool real = training->stored == LF_F32;
    for (size_t i = 0; i < count; i++) {
        double u = (double)lf_uniform(41, LF_STREAM_INIT, 0, i);
        values[i] = real ? (float)(2 * u - 1) : floor(u * 128);
    }
    rig_put(&t->rig, program->data, values);
    for (uint32_t j = 0; j < inputs; j++) {
        values[j] = real ? 1 : 1. / 64;
        values[inputs + j] = real ? 0 : -1;
    }
    rig_put(&t->rig, program->scaling, values);
    for (uint32_t i = 0; i < rows; i++)
        values[i] = (i * 17 + 5) % rows;
    rig_put(&t->rig, program->order, values);
    if (program->targets != LF_NO_TENSOR) {
        for (size_t i = 0; i < rig_elements(program, program->targets); i++)
            values[i] = training->loss == LF_LOSS_CROSS_ENTROPY ? (double)(i * 5 % t->model->outputs)
                                                                : (float)(double)lf_normal(42, LF_STREAM_INIT, 0, i);
        rig_put(&t->rig, program->targets, values);
    }
    free(values);
    if (program->teacher != LF_NO_TENSOR)
        rig_put_teacher(&t->rig, program->teacher);
}

static void put_schedule(test_trainer *t, const test_training *training)
{
    struct lf_schedule_row *rows = calloc(training->steps, sizeof *rows);
    assert_non_null(rows);
    uint32_t first = 0;
    for (uint32_t i = 0; i < training->steps; i++) {
        uint32_t left = training->rows - first;
        rows[i] = schedule_row(&training->optimizer, first, left < training->batch ? left : training->batch, i);
        first = (first + rows[i].rows) % training->rows;
    }
    rig_put_schedule(&t->rig, 0, rows, training->steps);
    free(rows);
}

// A step leans on nothing that stood in these before.
static void spoil(test_trainer *t)
{
    static const lf_region regions[] = { LF_REGION_BATCH, LF_REGION_ACTS, LF_REGION_METRICS };
    lf_error err;
    for (size_t i = 0; i < COUNT(regions); i++) {
        size_t size = t->program->region_size[regions[i]];
        unsigned char *ones = malloc(size + 1);
        assert_non_null(ones);
        memset(ones, 0xff, size); // NaN in every precision
        if (size && !lf_device_buffer_write(t->rig.dev, t->rig.regions.region[regions[i]], 0, ones, size, &err))
            fail_msg("%s", err.text);
        free(ones);
    }
}

// Norms start as 1 and 0, which would hide a factor or a term left out.
static void vary_norms(lf_model *model)
{
    for (uint32_t p = 0; p < model->tensor_count; p++) {
        const lf_param *param = &model->tensors[p];
        lf_layer_kind kind = model->layers[param->layer].kind;
        float *values = lf_param_values(model, param);
        for (size_t i = 0; i < lf_param_size(param) && (kind == LF_LAYER_LAYER_NORM || kind == LF_LAYER_BATCH_NORM);
             i++)
            values[i] += .5f * lf_uniform(43, LF_STREAM_INIT, p, i);
    }
}

void trainer_init(test_trainer *t, lf_device *dev, const test_training *training, bool in_float64)
{
    lf_error err;
    t->model = lf_model_create(training->layers, training->layer_count, &err);
    if (!t->model)
        fail_msg("%s: %s", training->what, err.text);
    lf_model_init(t->model, 3);
    vary_norms(t->model);
    t->program = lf_program_compile(
        &(lf_compile_params){ .model = t->model,
                              .loss = training->loss,
                              .optimizer = training->optimizer,
                              .batch = training->batch,
                              .stored = training->stored,
                              .rows = training->rows,
                              .positions = training->rows,
                              .steps = training->steps,
                              .distill = { training->temperature > 0, training->soft_weight, training->temperature },
                              .oracle = in_float64 },
        &err);
    if (!t->program)
        fail_msg("%s: %s", training->what, err.text);
    rig_init(&t->rig, dev, t->program);
    spoil(t);
    rig_put_model(&t->rig, t->model);
    put_rows(t, training);
    put_schedule(t, training);
}

void trainer_finish(test_trainer *t)
{
    rig_finish(&t->rig);
    lf_program_destroy(t->program);
    lf_model_destroy(t->model);
}

void trainer_run(test_trainer *t)
{
    rig_run(&t->rig, LF_PHASE_LOAD, LF_PHASE_UPDATE, t->program->params.steps);
}

unsigned char *trainer_bits(const test_trainer *t, size_t *size)
{
    static const lf_region regions[] = { LF_REGION_PARAMS, LF_REGION_STATE, LF_REGION_MOMENTS, LF_REGION_METRICS };
    lf_error err;
    *size = 0;
    for (size_t i = 0; i < COUNT(regions); i++)
        *size += t->program->region_size[regions[i]];
    unsigned char *bits = malloc(*size);
    assert_non_null(bits);
    size_t at = 0;
    for (size_t i = 0; i < COUNT(regions); at += t->program->region_size[regions[i++]])
        if (t->program->region_size[regions[i]] &&
            !lf_device_buffer_read(t->rig.dev, bits + at, t->rig.regions.region[regions[i]], 0,
                                   t->program->region_size[regions[i]], &err))
            fail_msg("%s", err.text);
    return bits;
}
