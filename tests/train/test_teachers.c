// Distillation on one device, named by the argument: what teachers say is computed once, kept in a file, or computed at
// every step, to the same effect.
#include <math.h>
#include <unistd.h>

#include "trial.h"

typedef struct lesson {
    const lf_model *teachers[2];
    lf_hint hint;
} lesson;

static lf_model *make_teacher(const char *path)
{
    trial *t = begin(path);
    t->params.epochs = 5;
    run_well(t);
    lf_model *model = t->params.model;
    t->params.model = NULL;
    end(t);
    return model;
}

static trial *teach(trial *t, const lesson *l, unsigned count, float alpha)
{
    t->params.teachers = l->teachers;
    t->params.teacher_count = count;
    t->params.temperature = 3;
    t->params.alpha = alpha;
    t->params.optimizer.lr = 1e-3;
    return t;
}

static void teachers_at_every_step_say_what_they_said_once(void **state)
{
    (void)state;
    const char *const paths[] = { data_path, values_path };
    for (size_t i = 0; i < 2; i++) {
        lf_model *one = make_teacher(paths[i]), *two = make_teacher(paths[i]);
        two->params[0] += .5f;
        const lesson l = { .teachers = { one, two } };
        for (unsigned count = 1; count <= 2; count++) {
            trial *once = run_well(teach(begin(paths[i]), &l, count, .7f)),
                  *live = teach(begin(paths[i]), &l, count, .7f);
            live->params.live = true;
            run_well(live);
            assert_near(once, live, 5e-6);
            end(live);
            live = teach(begin(paths[i]), &l, count, 0); // teachers without a voice
            trial *alone = begin(paths[i]);
            alone->params.optimizer.lr = 1e-3;
            run_well(live);
            run_well(alone);
            assert_near(live, alone, 5e-6);
            assert_true(fabs(once->losses[20] - alone->losses[20]) > 1e-3);
            end(once);
            end(live);
            end(alone);
        }
        lf_model_destroy(one);
        lf_model_destroy(two);
    }
}

static void a_file_keeps_what_they_said(void **state)
{
    (void)state;
    lf_model *one = make_teacher(data_path), *two = make_teacher(data_path);
    two->params[0] += .5f;
    const lesson l = { .teachers = { one, two } };
    trial *memory = run_well(teach(begin(data_path), &l, 2, .7f));
    unlink(other_path);
    for (int i = 0; i < 2; i++) { // the second finds the file
        trial *t = teach(begin(data_path), &l, 2, .7f);
        t->params.teacher_cache = other_path;
        run_well(t);
        assert_same(memory, t);
        end(t);
    }
    assert_int_equal(access(other_path, F_OK), 0);
    two->params[0] += .5f; // another teacher: the file is replaced
    trial *changed = teach(begin(data_path), &l, 2, .7f), *fresh = run_well(teach(begin(data_path), &l, 2, .7f));
    changed->params.teacher_cache = other_path;
    run_well(changed);
    assert_same(fresh, changed);
    end(changed);
    end(fresh);
    end(memory);

    lf_error err;
    assert_true(lf_model_save(one, other_path, &err));
    trial *t = teach(begin(data_path), &l, 1, .7f);
    t->params.teacher_cache = other_path;
    assert_false(run(t)->ok);
    assert_non_null(strstr(t->err.text, "is no cache of a teacher's outputs"));
    end(t);
    lf_model_destroy(one);
    lf_model_destroy(two);
}

static void a_hint_is_learnt_and_resumed_and_forgotten(void **state)
{
    (void)state;
    lf_model *one = make_teacher(data_path);
    lesson l = { .teachers = { one }, .hint = { "relu_1", "relu_1", 1 } };
    trial *whole = teach(begin(data_path), &l, 1, .5f), *first = teach(begin(data_path), &l, 1, .5f),
          *second = teach(begin(data_path), &l, 1, .5f);
    trial *const all[] = { whole, first, second };
    for (size_t i = 0; i < 3; i++) {
        all[i]->params.live = true;
        all[i]->params.hints = &l.hint;
        all[i]->params.hint_count = 1;
        all[i]->params.digest_every = 5;
    }
    run_well(whole);
    assert_true(whole->last.loss < .8 * whole->losses[0]);
    for (size_t i = 0; i < whole->params.model->tensor_count; i++)
        assert_null(strstr(whole->params.model->tensors[i].name, "hint"));
    first->params.checkpoint = checkpoint_path;
    first->stop_after = 40;
    assert_false(run(first)->ok);
    second->params.resume = checkpoint_path;
    second->next_step = first->result.steps + 1;
    run_well(second);
    assert_string_equal(second->result.digest, whole->result.digest);
    for (size_t i = 0; i < 3; i++)
        end(all[i]);

    trial *t = teach(begin(data_path), &l, 1, .5f);
    t->params.hints = &l.hint;
    t->params.hint_count = 1;
    assert_false(run(t)->ok);
    assert_string_equal(
        t->err.text,
        "hints need one teacher that runs at every step, but there are 1, whose outputs are computed once");
    t->params.live = true;
    l.hint.teacher = "relu_7";
    assert_false(run(t)->ok);
    assert_string_equal(t->err.text, "hint 1: the teacher has no layer relu_7");
    end(t);
    lf_model_destroy(one);
}

static void teachers_that_do_not_fit_are_named(void **state)
{
    (void)state;
    const lf_layer wide[] = { { .kind = LF_LAYER_LINEAR, .inputs = FEATURES, .outputs = 4 } };
    const lf_layer narrow[] = { { .kind = LF_LAYER_LINEAR, .inputs = 5, .outputs = CLASSES } };
    lf_model *outputs = lf_model_create(wide, 1, NULL), *inputs = lf_model_create(narrow, 1, NULL);
    lf_model_init(outputs, 1);
    lf_model_init(inputs, 1);
    static const struct {
        float temperature, alpha;
        const char *message;
    } wrong[] = { { 0, .5f, "temperature must be above 0, not 0" }, { 1, 1.5f, "alpha must be in 0..1, not 1.5" } };
    for (size_t i = 0; i < 4; i++) {
        const lesson l = { .teachers = { i == 2 ? outputs : inputs } };
        trial *t = teach(begin(data_path), &l, 1, .5f);
        if (i < 2) {
            t->params.temperature = wrong[i].temperature;
            t->params.alpha = wrong[i].alpha;
        }
        assert_false(run(t)->ok);
        assert_string_equal(t->err.text, i < 2    ? wrong[i].message
                                         : i == 2 ? "teacher 1 has 4 outputs, but the student has 3"
                                                  : "teacher 1 has 5 inputs, but the student has 12");
        end(t);
    }
    trial *own = begin(data_path);
    lf_model_init(own->params.model, 1);
    const lesson l = { .teachers = { own->params.model } };
    teach(own, &l, 1, .5f);
    assert_false(run(own)->ok);
    assert_string_equal(own->err.text, "teacher 1 is the student itself, whose weights change: load a copy of it");
    end(own);
    lf_model_destroy(outputs);
    lf_model_destroy(inputs);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(teachers_at_every_step_say_what_they_said_once),
        cmocka_unit_test(a_file_keeps_what_they_said),
        cmocka_unit_test(a_hint_is_learnt_and_resumed_and_forgotten),
        cmocka_unit_test(teachers_that_do_not_fit_are_named),
    };
    return run_on_device(argc, argv, tests, sizeof tests / sizeof *tests);
}
