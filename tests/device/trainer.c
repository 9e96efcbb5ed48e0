#include "trainer.h"

static double target_of(lf_loss loss, uint32_t outputs, size_t i)
{
    if (lf_loss_of_classes(loss))
        return (double)(i * 5 % outputs);
    if (loss == LF_LOSS_BINARY_CROSS_ENTROPY)
        return i % 3 == 2 ? (double)lf_uniform(42, LF_STREAM_INIT, 0, i) : (double)(i % 3);
    return (float)(double)lf_normal(42, LF_STREAM_INIT, 0, i);
}

static double row_weight(uint32_t row)
{
    return row % 7 == 3 ? 0 : .25 + row % 5 * .5;
}

static void put_rows(test_trainer *t, const test_training *training)
{
    const lf_program *program = t->program;
    uint32_t inputs = t->model->inputs, rows = training->rows;
    size_t count = (size_t)rows * inputs, outputs = (size_t)rows * t->model->outputs;
    double *values = calloc(count + outputs + 2 * inputs + rows, sizeof *values), *order = calloc(rows, sizeof *order);
    assert_true(values && order);
    bool real = training->stored == LF_F32;
    for (size_t i = 0; i < count; i++) {
        double u = (double)lf_uniform(41, LF_STREAM_INIT, 0, i);
        bool zero = (double)lf_uniform(44, LF_STREAM_INIT, 0, i) < training->zeros;
        values[i] = zero ? 0 : real ? (float)(2 * u - 1) : floor(u * 128);
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
            values[i] = target_of(training->loss, t->model->outputs, i);
        rig_put(&t->rig, program->targets, values);
    }
    if (program->teacher != LF_NO_TENSOR)
        rig_put_teacher(&t->rig, program->teacher);
    for (uint32_t i = 0; i < rows; i++)
        values[i] = row_weight(i);
    if (program->row_weights != LF_NO_TENSOR)
        rig_put(&t->rig, program->row_weights, values);
    for (uint32_t i = 0; i < rows; i++)
        order[i] = (i * 17 + 5) % rows;
    trainer_put_schedule(t, training, order, training->weighted ? values : NULL);
    free(values);
    free(order);
}

void trainer_put_schedule(test_trainer *t, const test_training *training, const double *order, const double *weights)
{
    struct lf_schedule_row *rows = calloc(training->steps, sizeof *rows);
    assert_non_null(rows);
    uint32_t first = 0, batches = training->batches ? training->batches : 1;
    for (uint32_t begin = 0; begin < training->steps; begin += batches) {
        uint32_t end = training->steps - begin < batches ? training->steps : begin + batches;
        double sum = 0;
        for (uint32_t i = begin; i < end; i++) {
            uint32_t left = training->rows - first, count = left < training->batch ? left : training->batch;
            rows[i] = schedule_row(&training->optimizer, first, count, begin / batches);
            rows[i].step = i;
            rows[i].begins = i == begin;
            rows[i].updates = i + 1 == end;
            for (uint32_t position = first; position < first + count; position++)
                sum += weights ? weights[(uint32_t)order[position]] : 1;
            first = (first + count) % training->rows;
        }
        for (uint32_t i = begin; i < end; i++)
            rows[i].inv_weight = sum > 0 ? (float)(1 / sum) : 0;
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

static lf_model *make_model(const test_training *training, uint64_t seed)
{
    lf_error err;
    lf_model *model = lf_model_create(training->layers, training->layer_count, &err);
    if (!model)
        fail_msg("%s: %s", training->what, err.text);
    lf_model_init(model, seed);
    vary_norms(model);
    return model;
}

static void make_models(test_trainer *t, const test_training *training)
{
    lf_error err;
    t->model = make_model(training, 3);
    for (unsigned i = 0; i < training->teachers; i++)
        t->teachers[i] = make_model(training, 11 + i);
    if (!training->hint_count)
        return;
    lf_model *hinted = lf_model_with_hints(t->model, t->teachers[0], training->hints, training->hint_count, 5, &err);
    if (!hinted)
        fail_msg("%s: %s", training->what, err.text);
    lf_model_destroy(t->model);
    t->model = hinted;
}

static void put_teachers(test_trainer *t, unsigned count)
{
    size_t params = 0, state = 0;
    for (unsigned i = 0; i < count; i++) {
        params += t->teachers[i]->block_count;
        state += t->teachers[i]->state_count;
    }
    double *values = calloc(params + state + 1, sizeof *values), *param = values, *statistic = values + params;
    assert_non_null(values);
    for (unsigned i = 0; i < count; i++) {
        for (size_t j = 0; j < t->teachers[i]->block_count; j++)
            *param++ = (double)t->teachers[i]->params[j];
        for (size_t j = 0; j < t->teachers[i]->state_count; j++)
            *statistic++ = (double)t->teachers[i]->state[j];
    }
    if (params)
        rig_put(&t->rig, t->program->teacher_params, values);
    if (state)
        rig_put(&t->rig, t->program->teacher_state, values + params);
    free(values);
}

void trainer_init(test_trainer *t, lf_device *dev, const test_training *training, bool in_float64)
{
    lf_error err;
    *t = (test_trainer){ 0 };
    make_models(t, training);
    t->program = lf_program_compile(&(lf_compile_params){ .model = t->model,
                                                          .loss = training->loss,
                                                          .loss_options = training->loss_options,
                                                          .fuses = training->fuses,
                                                          .weighted = training->weighted,
                                                          .accumulates = training->batches > 1,
                                                          .average = training->average,
                                                          .optimizer = training->optimizer,
                                                          .batch = training->batch,
                                                          .stored = training->stored,
                                                          .rows = training->rows,
                                                          .positions = training->rows,
                                                          .steps = training->steps,
                                                          .shards = training->shards,
                                                          .distill = { .on = training->temperature > 0,
                                                                       .alpha = training->soft_weight,
                                                                       .temperature = training->temperature,
                                                                       .teachers = (const lf_model *const *)t->teachers,
                                                                       .teacher_count = training->teachers },
                                                          .oracle = in_float64 },
                                    &err);
    if (!t->program)
        fail_msg("%s: %s", training->what, err.text);
    rig_init(&t->rig, dev, t->program);
    spoil(t);
    rig_put_model(&t->rig, t->model);
    put_teachers(t, training->teachers);
    put_rows(t, training);
}

void trainer_finish(test_trainer *t)
{
    rig_finish(&t->rig);
    lf_program_destroy(t->program);
    lf_model_destroy(t->model);
    for (unsigned i = 0; i < TRAINER_TEACHERS; i++)
        lf_model_destroy(t->teachers[i]);
}

void trainer_run(test_trainer *t)
{
    rig_run(&t->rig, LF_PHASE_LOAD, LF_PHASE_UPDATE, t->program->params.steps);
}

unsigned char *trainer_bits(const test_trainer *t, size_t *size)
{
    static const lf_region regions[] = { LF_REGION_PARAMS, LF_REGION_STATE, LF_REGION_MOMENTS, LF_REGION_AVERAGE,
                                         LF_REGION_METRICS };
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
