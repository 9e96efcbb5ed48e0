// Trainings repeated from fixtures/pytorch.h5, which PyTorch wrote in float64 (make_pytorch.py says what it holds): the
// losses of their steps, the weights, their average and running statistics after them, and then the loss of each row.
// test_parity DEVICE.
#include "fixture.h"
#include "suite.h"
#include "trainer.h"

enum { SKIPPED = 77, FORMULA_STRIDE = 97 };

typedef struct parity_case {
    const char *name;
    uint32_t formula;
    char text[256]; // the last text attribute that was read
    test_training training;
} parity_case;

static const char *read_text(parity_case *c, const char *name)
{
    fixture_text(c->name, name, c->text, sizeof c->text);
    return c->text;
}

static uint32_t read_uint(const parity_case *c, const char *name)
{
    return fixture_uint(c->name, name);
}

static double read_double(const parity_case *c, const char *name)
{
    return fixture_double(c->name, name);
}

static void read_optimizer(parity_case *c)
{
    lf_optimizer *optimizer = &c->training.optimizer;
    const char *kind = read_text(c, "optimizer");
    for (optimizer->kind = LF_OPTIMIZER_SGD; strcmp(lf_optimizer_name(optimizer->kind), kind) != 0; optimizer->kind++)
        assert_true(optimizer->kind + 1 < LF_OPTIMIZER_COUNT);
    optimizer->lr = read_double(c, "lr");
    optimizer->momentum = (float)read_double(c, "momentum");
    optimizer->nesterov = read_uint(c, "nesterov");
    optimizer->beta1 = (float)read_double(c, "beta1");
    optimizer->beta2 = (float)read_double(c, "beta2");
    optimizer->eps = (float)read_double(c, "eps");
    optimizer->weight_decay = (float)read_double(c, "weight_decay");
    optimizer->decay_bias = read_uint(c, "decay_bias");
    optimizer->clip_norm = (float)read_double(c, "clip_norm");
    optimizer->clip_value = (float)read_double(c, "clip_value");
}

// "linear 20 16", "layer_norm 16", "residual 2", "relu".
static lf_layer read_layer(const char *text)
{
    char kind[32];
    uint32_t first = 0, second = 0;
    lf_activation activation;
    assert_true(sscanf(text, "%31s %u %u", kind, &first, &second) >= 1);
    if (!strcmp(kind, "linear"))
        return (lf_layer)LINEAR(first, second);
    if (!strcmp(kind, "layer_norm"))
        return (lf_layer)LAYER_NORM(first);
    if (!strcmp(kind, "batch_norm"))
        return (lf_layer)BATCH_NORM(first);
    if (!strcmp(kind, "residual"))
        return (lf_layer)RESIDUAL(first);
    if (!lf_activation_find(kind, &activation))
        fail_msg("layer \"%s\" is none that this test knows", text);
    return (lf_layer){ .kind = LF_LAYER_ACTIVATION,
                       .activation = activation,
                       .alpha = lf_activation_default_alpha(activation) };
}

static void read_case(parity_case *c)
{
    test_training *training = &c->training;
    char *rest = NULL;
    training->what = c->name;
    read_text(c, "layers");
    for (const char *text = strtok_r(c->text, "|", &rest); text; text = strtok_r(NULL, "|", &rest)) {
        assert_true(training->layer_count < TRAINER_LAYERS);
        training->layers[training->layer_count++] = read_layer(text);
    }
    assert_true(lf_loss_find(read_text(c, "loss"), &training->loss));
    read_optimizer(c);
    training->rows = read_uint(c, "rows");
    training->batch = read_uint(c, "batch");
    training->steps = read_uint(c, "steps");
    training->batches = read_uint(c, "batches");
    training->weighted = read_uint(c, "weighted");
    training->average = (float)read_double(c, "average");
    training->loss_options.label_smoothing = (float)read_double(c, "label_smoothing");
    training->loss_options.delta = (float)read_double(c, "delta");
    training->soft_weight = (float)read_double(c, "soft_weight");
    training->temperature = (float)read_double(c, "temperature");
    c->formula = read_uint(c, "formula");
    training->stored = c->formula ? LF_U8 : LF_F32;
}

// 32 bits from 32 bits (Murmur3's finalizer), twin of mix() in make_pytorch.py.
static uint32_t mix(uint32_t h)
{
    h = (h ^ h >> 16) * 0x85EBCA6Bu;
    h = (h ^ h >> 13) * 0xC2B2AE35u;
    return h ^ h >> 16;
}

static double *digits(uint32_t rows, uint32_t inputs, double *labels)
{
    double *x = calloc((size_t)rows * inputs, sizeof *x);
    assert_non_null(x);
    for (uint32_t i = 0; i < rows; i++) {
        labels[i] = i * 7 % 10;
        for (uint32_t j = 0; j < inputs; j++) {
            uint32_t noise = mix((1u << 24) | (i * 1000 + j));
            bool ink = (mix((uint32_t)labels[i] * 1000 + j) & 7) < 2 && (noise & 3) != 0;
            x[(size_t)i * inputs + j] = ink ? noise >> 24 : 0;
        }
    }
    return x;
}

// And the schedule, which depends on the rows' weights.
static void put_rows(const parity_case *c, test_trainer *t, const test_training *training)
{
    uint32_t rows = c->training.rows, inputs = t->model->inputs;
    size_t target_count = rig_elements(t->program, t->program->targets);
    double *x, *y, *weights = NULL, *scaling = calloc(2 * inputs, sizeof *scaling),
                   *order = calloc(rows, sizeof *order);
    assert_true(scaling && order);
    if (c->formula) {
        y = calloc(target_count, sizeof *y);
        assert_non_null(y);
        x = digits(rows, inputs, y);
    } else {
        x = fixture_values(c->name, "x", (size_t)rows * inputs);
        y = fixture_values(c->name, "y", target_count);
    }
    for (uint32_t j = 0; j < inputs; j++)
        scaling[j] = c->formula ? 1. / 256 : 1;
    for (uint32_t i = 0; i < rows; i++)
        order[i] = i;
    rig_put(&t->rig, t->program->data, x);
    rig_put(&t->rig, t->program->targets, y);
    rig_put(&t->rig, t->program->scaling, scaling);
    rig_put(&t->rig, t->program->order, order);
    if (t->program->teacher != LF_NO_TENSOR) {
        double *teacher = fixture_values(c->name, "teacher", rig_elements(t->program, t->program->teacher));
        rig_put(&t->rig, t->program->teacher, teacher);
        free(teacher);
    }
    if (training->weighted) {
        weights = fixture_values(c->name, "weights", rows);
        rig_put(&t->rig, t->program->row_weights, weights);
    }
    trainer_put_schedule(t, training, order, weights);
    free(weights);
    free(x);
    free(y);
    free(scaling);
    free(order);
}

static void put_weights(const parity_case *c, test_trainer *t)
{
    lf_model *model = t->model;
    lf_model_init(model, 1); // running statistics as they are at first; the weights follow
    for (uint32_t p = 0; p < model->tensor_count; p++) {
        const lf_param *param = &model->tensors[p];
        float *at = lf_param_values(model, param);
        uint32_t count = (uint32_t)lf_param_size(param);
        double inputs = model->layers[param->layer].inputs;
        for (uint32_t i = 0; c->formula && i < count; i++)
            at[i] = (float)((mix(i + ((16 + p) << 20)) / 2147483648. - 1) / sqrt(inputs));
        if (c->formula || param->state)
            continue;
        char path[LF_NAME_MAX + 16];
        snprintf(path, sizeof path, "initial/%s", param->name);
        double *values = fixture_values(c->name, path, count);
        for (uint32_t i = 0; i < count; i++)
            at[i] = (float)values[i];
        free(values);
    }
    rig_put_model(&t->rig, model);
}

static void check_losses(const parity_case *c, const test_trainer *t, double bound)
{
    uint32_t batch = t->program->params.batch, steps = c->training.steps;
    double *metrics = calloc(rig_elements(t->program, t->program->metrics), sizeof *metrics);
    double *want = fixture_values(c->name, "losses", steps);
    assert_non_null(metrics);
    rig_get(&t->rig, t->program->metrics, metrics);
    for (uint32_t step = 0; step < steps; step++) {
        double loss = 0, mass = 0;
        for (uint32_t i = 0; i < batch; i++) {
            const double *row = metrics + ((size_t)step * batch + i) * LF_METRIC_COUNT;
            loss += row[LF_METRIC_LOSS];
            mass += row[LF_METRIC_WEIGHT];
        }
        loss /= mass;
        if (!(fabs(loss - want[step]) <= bound * want[step]))
            fail_msg("%s on %s: loss of step %u is %.9g, PyTorch's %.9g, bound %g", c->name, t->rig.dev->info.id, step,
                     loss, want[step], bound);
    }
    free(metrics);
    free(want);
}

static void check_tensor(const parity_case *c, const lf_param *param, const char *group, const double *got,
                         double bound)
{
    char path[LF_NAME_MAX + 16];
    size_t stride = c->formula && param->rows ? FORMULA_STRIDE : 1;
    size_t count = (lf_param_size(param) + stride - 1) / stride;
    snprintf(path, sizeof path, "%s/%s", group, param->name);
    double *want = fixture_values(c->name, path, count), most = 0;
    for (size_t i = 0; i < count; i++)
        most = fmax(most, fabs(want[i]));
    for (size_t i = 0; i < count; i++)
        if (!(fabs(got[i * stride] - want[i]) <= bound * most))
            fail_msg("%s on %s: %s[%zu] is %.9g, PyTorch's %.9g, bound %g of %g", c->name, device->info.id, path, i,
                     got[i * stride], want[i], bound, most);
    free(want);
}

// The trained weights, their average and running statistics, relative to the largest of the tensor.
static void check_weights(const parity_case *c, const test_trainer *t, double bound)
{
    const lf_model *model = t->model;
    const lf_program *program = t->program;
    double *weights = calloc(2 * model->block_count + model->state_count, sizeof *weights),
           *average = weights + model->block_count, *running = average + model->block_count;
    assert_non_null(weights);
    rig_get(&t->rig, program->weights, weights);
    if (program->average != LF_NO_TENSOR)
        rig_get(&t->rig, program->average, average);
    if (model->state_count)
        rig_get(&t->rig, program->state, running);
    for (size_t p = 0; p < model->tensor_count; p++) {
        const lf_param *param = &model->tensors[p];
        check_tensor(c, param, "final", (param->state ? running : weights) + param->offset, bound);
        if (program->average != LF_NO_TENSOR && !param->state)
            check_tensor(c, param, "average", average + param->offset, bound);
    }
    free(weights);
}

static void copy_values(const test_rig *from, lf_tensor_id source, test_rig *to, lf_tensor_id target)
{
    if (source == LF_NO_TENSOR)
        return;
    double *values = calloc(rig_elements(from->program, source), sizeof *values);
    assert_non_null(values);
    rig_get(from, source, values);
    rig_put(to, target, values);
    free(values);
}

// Another program with the trained weights: batch norms take their running statistics, and the loss is that of the
// labels.
static void check_evaluation(const parity_case *c, const test_trainer *trained, bool in_float64, double bound)
{
    test_training evaluation = c->training;
    uint32_t rows = evaluation.rows;
    evaluation.optimizer = (lf_optimizer){ .kind = LF_OPTIMIZER_NONE };
    evaluation.temperature = evaluation.average = 0;
    evaluation.shards = 0;
    evaluation.batches = 1;
    evaluation.weighted = false;
    evaluation.steps = (rows + evaluation.batch - 1) / evaluation.batch;
    test_trainer t;
    trainer_init(&t, trained->rig.dev, &evaluation, in_float64);
    put_rows(c, &t, &evaluation);
    copy_values(&trained->rig, trained->program->weights, &t.rig, t.program->weights);
    copy_values(&trained->rig, trained->program->state, &t.rig, t.program->state);
    trainer_run(&t);
    double *metrics = calloc(rig_elements(t.program, t.program->metrics), sizeof *metrics);
    double *want = fixture_values(c->name, "evaluation", rows);
    assert_non_null(metrics);
    rig_get(&t.rig, t.program->metrics, metrics);
    for (uint32_t i = 0; i < rows; i++) { // batches are whole but the last, so row i stands at i
        double got = metrics[(size_t)i * LF_METRIC_COUNT + LF_METRIC_LOSS];
        if (!(fabs(got - want[i]) <= bound * fmax(1, want[i])))
            fail_msg("%s on %s, evaluated: loss of row %u is %.9g, PyTorch's %.9g, bound %g", c->name,
                     t.rig.dev->info.id, i, got, want[i], bound);
    }
    free(metrics);
    free(want);
    trainer_finish(&t);
}

static void check_case(const char *name, lf_device *dev, uint32_t shards, bool in_float64, double bound)
{
    parity_case c = { .name = name };
    test_trainer t;
    read_case(&c);
    c.training.shards = shards;
    trainer_init(&t, dev, &c.training, in_float64);
    put_rows(&c, &t, &c.training);
    put_weights(&c, &t);
    trainer_run(&t);
    check_losses(&c, &t, bound);
    check_weights(&c, &t, bound);
    check_evaluation(&c, &t, in_float64, bound);
    trainer_finish(&t);
}

static const char *const cases[] = {
    "adam",
    "adam_decay",
    "adamw",
    "sgd",
    "momentum",
    "nesterov",
    "digits",
    "layer_norm",
    "batch_norm",
    "residual",
    "distill",
    "binary",
    "mae",
    "huber",
    "huber_wide",
    "smoothing",
    "class_weights",
    "row_weights",
    "binary_row_weights",
    "distill_smoothing",
    "rmsprop",
    "rmsprop_momentum",
    "sgd_decay",
    "adamw_kernels",
    "lion",
    "lamb",
    "clip_norm",
    "clip_value",
    "accumulation",
    "accumulation_weights",
    "average",
};

static void the_oracle_trains_as_pytorch_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        check_case(cases[i], oracle, 0, true, 2e-6); // the schedule's rates are floats
}

static void the_device_trains_as_pytorch_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        check_case(cases[i], device, 0, false, 1e-4);
}

static void a_batch_in_shards_trains_as_pytorch_does_on_the_whole(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        check_case(cases[i], oracle, 4, true, 2e-6);
        check_case(cases[i], device, 4, false, 1e-4);
    }
}

int main(int argc, char **argv)
{
    lf_error err;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_oracle_trains_as_pytorch_does),
        cmocka_unit_test(the_device_trains_as_pytorch_does),
        cmocka_unit_test(a_batch_in_shards_trains_as_pytorch_does_on_the_whole),
        cmocka_unit_test(schedules_give_pytorchs_rates),
    };
    if (argc != 2) {
        fprintf(stderr, "usage: %s DEVICE\n", argv[0]);
        return 2;
    }
    device = lf_device_open(argv[1], &err);
    if (!device) {
        bool absent = err.code == LF_ENOTFOUND || err.code == LF_EUNSUPPORTED;
        printf("%s: %s\n", absent ? "skipped" : "failed", err.text);
        return absent ? SKIPPED : 1;
    }
    oracle = lf_device_open("cpu", &err);
    if (!oracle || !fixture_open()) {
        printf("failed: %s\n", oracle ? LF_FIXTURES "/pytorch.h5 cannot be opened" : err.text);
        return 1;
    }
    int failures = cmocka_run_group_tests_name("parity", tests, NULL, NULL);
    fixture_close();
    if (failures)
        return 1;
    lf_device_close(oracle);
    lf_device_close(device);
    return 0;
}
