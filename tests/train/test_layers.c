// Dropout, norms, residuals, schedules and distillation in trainings on one device, named by the argument.
#include <math.h>

#include "trial.h"

static const lf_layer layers[] = {
    { .kind = LF_LAYER_DROPOUT, .rate = .1f },
    { .kind = LF_LAYER_LINEAR, .inputs = FEATURES, .outputs = 17 },
    { .kind = LF_LAYER_BATCH_NORM, .inputs = 17, .outputs = 17 },
    { .kind = LF_LAYER_ACTIVATION, .activation = 1 },
    { .kind = LF_LAYER_RESIDUAL, .span = 3 },
    { .kind = LF_LAYER_LINEAR, .inputs = 17, .outputs = 9 },
    { .kind = LF_LAYER_LAYER_NORM, .inputs = 9, .outputs = 9 },
    { .kind = LF_LAYER_DROPOUT, .rate = .2f },
    { .kind = LF_LAYER_LINEAR, .inputs = 9, .outputs = CLASSES },
};

static trial *begin_layers(void)
{
    trial *t = begin(data_path);
    lf_model_destroy(t->params.model);
    t->params.model = lf_model_create(layers, sizeof layers / sizeof *layers, &t->err);
    if (!t->params.model)
        fail_msg("%s", t->err.text);
    t->params.schedule = lf_schedule_default(LF_SCHEDULE_COSINE);
    t->params.schedule.warmup = 10;
    return t;
}

static void every_layer_learns(void **state)
{
    (void)state;
    trial *t = begin_layers();
    t->params.epochs = 6;
    run_well(t);
    assert_true(t->last.val_accuracy > .95);
    assert_true(t->last.val_loss < .5 * t->losses[0]);
    end(t);
}

static void dropout_and_norms_resume_exactly(void **state)
{
    (void)state;
    static const uint64_t moments[] = { 5, 32, 50 };
    trial *whole = run_well(begin_layers());
    for (size_t i = 0; i < sizeof moments / sizeof *moments; i++) {
        trial *first = begin_layers(), *second = begin_layers();
        first->params.checkpoint = checkpoint_path;
        first->params.digest_every = 4;
        first->stop_after = moments[i];
        run(first);
        assert_int_equal(first->err.code, LF_EINTERRUPTED);
        second->params.resume = checkpoint_path;
        second->params.window = 32768;
        second->next_step = first->result.steps + 1;
        run_well(second);
        assert_string_equal(second->result.digest, whole->result.digest);
        assert_memory_equal(second->losses, whole->losses + first->loss_count, second->loss_count * sizeof(double));
        end(first);
        end(second);
    }
    end(whole);
}

static void dropout_is_off_and_statistics_stay_outside_training(void **state)
{
    (void)state;
    trial *t = run_well(begin_layers());
    char before[65], after[65];
    lf_evaluation one, two;
    const lf_evaluate_params evaluate = { .model = t->params.model,
                                          .data = t->params.data,
                                          .part = LF_PART_VALID,
                                          .loss = LF_LOSS_CROSS_ENTROPY,
                                          .batch = 256,
                                          .device = device };
    lf_evaluate_params by_row = evaluate;
    by_row.batch = 1; // statistics of a batch of one would give another loss
    assert_true(lf_model_digest(t->params.model, before, NULL));
    assert_true(lf_evaluate(&evaluate, &one, &t->err) && lf_evaluate(&by_row, &two, &t->err));
    assert_true(lf_model_digest(t->params.model, after, NULL));
    assert_string_equal(before, after);
    assert_true(one.loss == t->last.val_loss);
    assert_true(fabs(one.loss - two.loss) < 1e-5 * (1 + one.loss));
    lf_evaluation_finish(&one);
    lf_evaluation_finish(&two);
    end(t);
}

static void seeds_drop_other_units(void **state)
{
    (void)state;
    trial *a = begin_layers(), *b = begin_layers();
    lf_model_init(a->params.model, 1);
    lf_model_init(b->params.model, 1);
    a->params.shuffle = b->params.shuffle = false;
    b->params.seed = a->params.seed + 1;
    run_well(a);
    run_well(b);
    assert_true(a->losses[0] != b->losses[0]);
    end(a);
    end(b);
}

static lf_model *train_teacher(uint64_t seed)
{
    trial *t = begin(data_path);
    t->params.seed = seed;
    run_well(t);
    lf_model *model = t->params.model;
    t->params.model = NULL;
    end(t);
    return model;
}

static trial *begin_student(const lf_model *const *teachers, unsigned count)
{
    trial *t = begin(data_path);
    t->params.teachers = teachers;
    t->params.teacher_count = count;
    t->params.temperature = 4;
    t->params.alpha = .9f;
    return t;
}

static void a_student_learns_from_its_teachers(void **state)
{
    (void)state;
    lf_model *one = train_teacher(1), *two = train_teacher(2);
    const lf_model *const both[] = { one, two };
    trial *t = begin_student(both, 2), *again = begin_student(both, 2), *window = begin_student(both, 2);
    trial *other = begin_student(both, 1), *labels = begin_student(both, 1), *plain = begin(data_path);
    window->params.window = 32768;
    labels->params.alpha = 0; // only the labels: as without a teacher
    run_well(t);
    assert_true(t->last.val_accuracy > .95);
    assert_same(t, run_well(again));
    assert_same(t, run_well(window));
    assert_string_not_equal(t->result.digest, run_well(other)->result.digest);
    run_well(labels);
    run_well(plain);
    for (size_t i = 0; i < plain->loss_count; i++)
        assert_true(fabs(labels->losses[i] - plain->losses[i]) < 1e-4 * (1 + plain->losses[i]));
    trial *const all[] = { t, again, window, other, labels, plain };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        end(all[i]);
    lf_model_destroy(one);
    lf_model_destroy(two);
}

static void what_cannot_be_distilled_is_named(void **state)
{
    (void)state;
    lf_model *teacher = train_teacher(1);
    const lf_layer two = { .kind = LF_LAYER_LINEAR, .inputs = FEATURES, .outputs = 2 };
    lf_model *narrow = lf_model_create(&two, 1, NULL);
    const lf_model *const wrong[] = { narrow }, *const right[] = { teacher };
    trial *t = begin_student(wrong, 1);
    lf_model_init(narrow, 1);
    assert_false(run(t)->ok);
    assert_non_null(strstr(t->err.text, "teacher 1 has 2 outputs, but the student has 3"));
    end(t);
    t = begin_student(right, 1);
    t->params.temperature = 0;
    assert_false(run(t)->ok);
    assert_non_null(strstr(t->err.text, "temperature must be above 0, not 0"));
    t->params.temperature = 1;
    t->params.alpha = 1.5f;
    assert_false(run(t)->ok);
    assert_non_null(strstr(t->err.text, "alpha must be in 0..1, not 1.5"));
    end(t);
    lf_model_destroy(teacher);
    lf_model_destroy(narrow);
}

static double rate(lf_schedule_kind kind, double warmup, bool per_epoch, uint64_t step)
{
    lf_schedule s = lf_schedule_default(kind);
    s.warmup = warmup;
    s.per_epoch = per_epoch;
    s.every = 10;
    if (kind == LF_SCHEDULE_EXPONENTIAL)
        s.gamma = .9;
    s.milestones[0] = 5;
    s.milestones[1] = 20;
    s.milestone_count = 2;
    return lf_schedule_lr(&s, .1, &(lf_span){ 100, 10 }, step);
}

// Values of PyTorch's schedulers at lr 0.1 and 100 steps: StepLR(10), MultiStepLR([5, 20]), ExponentialLR(0.9),
// CosineAnnealingLR(100), LinearLR(1, 0, 100), OneCycleLR(0.1, 100).
static void schedules_give_pytorchs_rates(void **state)
{
    (void)state;
    static const struct {
        lf_schedule_kind kind;
        uint64_t step;
        double lr;
    } cases[] = {
        { LF_SCHEDULE_CONSTANT, 99, .1 },
        { LF_SCHEDULE_STEP, 9, .1 },
        { LF_SCHEDULE_STEP, 10, .01 },
        { LF_SCHEDULE_STEP, 99, 1e-10 },
        { LF_SCHEDULE_MULTISTEP, 4, .1 },
        { LF_SCHEDULE_MULTISTEP, 5, .01 },
        { LF_SCHEDULE_MULTISTEP, 20, .001 },
        { LF_SCHEDULE_EXPONENTIAL, 10, .034867844010 },
        { LF_SCHEDULE_COSINE, 0, .1 },
        { LF_SCHEDULE_COSINE, 25, .085355339059 },
        { LF_SCHEDULE_COSINE, 99, 2.4671981713e-05 },
        { LF_SCHEDULE_LINEAR, 25, .075 },
        { LF_SCHEDULE_ONE_CYCLE, 0, .004 },
        { LF_SCHEDULE_ONE_CYCLE, 29, .1 },
        { LF_SCHEDULE_ONE_CYCLE, 99, 4e-7 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double lr = rate(cases[i].kind, 0, false, cases[i].step);
        if (fabs(lr - cases[i].lr) > 1e-9 * cases[i].lr + 1e-15)
            fail_msg("%s at step %d: %.12g, not %.12g", lf_schedule_name(cases[i].kind), (int)cases[i].step, lr,
                     cases[i].lr);
    }
    assert_true(fabs(rate(LF_SCHEDULE_CONSTANT, 4, false, 0) - .025) < 1e-12); // a warm-up's first step is not zero
    assert_true(fabs(rate(LF_SCHEDULE_COSINE, 20, false, 20) - .1) < 1e-12);
    assert_true(fabs(rate(LF_SCHEDULE_COSINE, 20, false, 60) - .05) < 1e-12);
    assert_true(rate(LF_SCHEDULE_EXPONENTIAL, 0, true, 9) == .1);
    assert_true(fabs(rate(LF_SCHEDULE_EXPONENTIAL, 0, true, 10) - .09) < 1e-12);
}

static void a_cycle_whose_top_is_its_first_step_has_rates(void **state)
{
    (void)state;
    lf_schedule s = lf_schedule_default(LF_SCHEDULE_ONE_CYCLE);
    s.rise = .25;
    for (uint64_t step = 0; step < 4; step++) {
        double lr = lf_schedule_lr(&s, .1, &(lf_span){ 4, 4 }, step);
        assert_true(lr > 0 && lr <= .1);
    }
}

static trial *begin_plateau(void)
{
    trial *t = begin(data_path);
    t->params.schedule = lf_schedule_default(LF_SCHEDULE_PLATEAU);
    t->params.schedule.patience = 0;
    t->params.schedule.threshold = .5; // so that some epochs are better and some are not
    t->params.epochs = 6;
    return t;
}

static void a_plateau_resumes_exactly(void **state)
{
    (void)state;
    trial *whole = run_well(begin_plateau());
    assert_true(whole->last.lr < 1e-2);
    static const uint64_t moments[] = { 40, 96, 150 };
    for (size_t i = 0; i < sizeof moments / sizeof *moments; i++) {
        trial *first = begin_plateau(), *second = begin_plateau();
        first->params.checkpoint = checkpoint_path;
        first->params.digest_every = 4;
        first->stop_after = moments[i];
        run(first);
        assert_int_equal(first->err.code, LF_EINTERRUPTED);
        second->params.resume = checkpoint_path;
        second->next_step = first->result.steps + 1;
        run_well(second);
        assert_string_equal(second->result.digest, whole->result.digest);
        assert_true(second->last.lr == whole->last.lr);
        end(first);
        end(second);
    }
    end(whole);
}

static void a_resume_knows_its_teachers_and_schedule(void **state)
{
    (void)state;
    lf_model *one = train_teacher(1), *two = train_teacher(2);
    const lf_model *const first[] = { one }, *const other[] = { two };
    trial *t = begin_student(first, 1);
    t->params.checkpoint = checkpoint_path;
    t->params.schedule = lf_schedule_default(LF_SCHEDULE_MULTISTEP);
    t->params.schedule.milestones[0] = 5;
    t->params.schedule.milestone_count = 1;
    const lf_schedule schedule = t->params.schedule;
    end(run_well(t));
    for (int changed = 0; changed < 3; changed++) {
        t = begin_student(changed == 1 ? other : first, 1);
        t->params.resume = checkpoint_path;
        t->params.schedule = schedule;
        t->params.schedule.milestones[0] += changed == 2;
        run(t);
        assert_int_equal(t->ok, !changed);
        if (changed)
            assert_non_null(
                strstr(t->err.text, changed == 1 ? "written with 1 teachers " : "milestones 5, but this one has "));
        end(t);
    }
    lf_model_destroy(one);
    lf_model_destroy(two);
}

static void a_plateau_lowers_the_rate(void **state)
{
    (void)state;
    trial *t = begin(data_path);
    t->params.schedule = lf_schedule_default(LF_SCHEDULE_PLATEAU);
    t->params.schedule.patience = 1;
    t->params.schedule.threshold = 1; // no loss is ever better
    t->params.epochs = 5;
    run_well(t);
    // The first epoch is worse than none at all, too: rates fall after epochs 2 and 4.
    assert_true(fabs(t->last.lr - 1e-4) < 1e-12);
    end(t);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layer_learns),
        cmocka_unit_test(dropout_and_norms_resume_exactly),
        cmocka_unit_test(dropout_is_off_and_statistics_stay_outside_training),
        cmocka_unit_test(seeds_drop_other_units),
        cmocka_unit_test(a_student_learns_from_its_teachers),
        cmocka_unit_test(what_cannot_be_distilled_is_named),
        cmocka_unit_test(schedules_give_pytorchs_rates),
        cmocka_unit_test(a_plateau_lowers_the_rate),
        cmocka_unit_test(a_plateau_resumes_exactly),
        cmocka_unit_test(a_cycle_whose_top_is_its_first_step_has_rates),
        cmocka_unit_test(a_resume_knows_its_teachers_and_schedule),
    };
    return run_on_device(argc, argv, tests, sizeof tests / sizeof *tests);
}
