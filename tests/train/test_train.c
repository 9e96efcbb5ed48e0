// train/ on one device, named by the argument: what does not change the result, and what ends a training.
#include <math.h>

#include "trial.h"

static void it_learns_and_tells_every_step_once(void **state)
{
    (void)state;
    trial *t = run_well(begin(data_path));
    assert_int_equal(t->result.steps, 3 * 32); // 1003 rows in batches of 32: 31 whole ones and one of 11
    assert_int_equal(t->loss_count, 3 * 32);
    assert_int_equal(t->epochs, 3);
    assert_int_equal(t->last.step, 96);
    assert_true(t->last.val_accuracy > .95);
    assert_true(t->last.loss < .5 * t->losses[0]);
    assert_true(t->last.lr == 1e-2);
    assert_string_equal(t->last.digest, t->result.digest);
    lf_evaluation scores = score(t, LF_PART_VALID, 256);
    assert_int_equal(scores.rows, VALID_ROWS);
    assert_true(scores.loss == t->last.val_loss && scores.accuracy == t->last.val_accuracy);
    lf_evaluation_finish(&scores);
    end(t);
}

static void values_are_learnt_too(void **state)
{
    (void)state;
    trial *t = begin(values_path);
    t->params.epochs = 20;
    run_well(t);
    assert_true(t->last.loss < .2 * t->losses[0]);
    assert_true(isnan(t->last.accuracy) && isnan(t->last.val_loss));
    end(t);
}

static void two_runs_give_equal_bits(void **state)
{
    (void)state;
    trial *a = run_well(begin(data_path)), *b = run_well(begin(data_path)), *c = begin(data_path);
    c->params.seed = 6;
    run_well(c);
    assert_same(a, b);
    assert_string_not_equal(a->result.digest, c->result.digest);
    end(a);
    end(b);
    end(c);
}

// Half of 32 kB for the training, half of that on the device: 292 rows of 28 bytes, so that a stretch is 9 steps.
static void a_window_gives_the_bits_of_resident_data(void **state)
{
    (void)state;
    for (int shuffle = 0; shuffle < 2; shuffle++) {
        trial *resident = begin(data_path), *window = begin(data_path);
        resident->params.shuffle = window->params.shuffle = shuffle;
        window->params.window = 32768; // shared with the validation's rows
        run_well(resident);
        run_well(window);
        assert_same(resident, window);
        end(resident);
        end(window);
    }
}

static void set_threads(const char *threads)
{
    if (threads)
        setenv("LAVAFLOW_THREADS", threads, 1);
    else
        unsetenv("LAVAFLOW_THREADS");
}

// With one thread a core is left for the reader on machines of several; with all, those that train read between.
static void a_window_is_read_beside_the_training_or_between_with_the_same_bits(void **state)
{
    (void)state;
    char *found = getenv("LAVAFLOW_THREADS") ? strdup(getenv("LAVAFLOW_THREADS")) : NULL;
    const char *const paths[] = { data_path, weighted_path, values_path };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        trial *resident = run_well(begin(paths[i]));
        for (int beside = 0; beside < 2; beside++) {
            trial *window = begin(paths[i]);
            set_threads(beside ? "1" : NULL);
            window->params.window = 32768;
            run_well(window);
            set_threads(found);
            assert_same(resident, window);
            end(window);
        }
        end(resident);
    }
    free(found);
}

static void a_stopped_training_goes_on_to_the_same_bits(void **state)
{
    (void)state;
    static const uint64_t moments[] = { 1, 8, 20, 32, 33, 57, 64, 80 };
    trial *whole = run_well(begin(data_path));
    for (size_t i = 0; i < sizeof moments / sizeof *moments; i++) {
        trial *first = begin(data_path), *second = begin(data_path);
        first->params.checkpoint = checkpoint_path;
        first->stop_after = moments[i];
        first->params.digest_every = 4; // so that a submission has at most 4 steps
        run(first);
        assert_false(first->ok);
        assert_int_equal(first->err.code, LF_EINTERRUPTED);
        assert_true(first->result.checkpointed && first->result.steps >= moments[i] && first->result.steps < 96);
        second->params.resume = checkpoint_path;
        second->params.window = i % 2 ? 32768 : 0; // the memory may change on the way
        second->next_step = first->result.steps + 1;
        run_well(second);
        assert_string_equal(second->result.digest, whole->result.digest);
        assert_int_equal(first->loss_count + second->loss_count, whole->loss_count);
        assert_memory_equal(second->losses, whole->losses + first->loss_count, second->loss_count * sizeof(double));
        end(first);
        end(second);
    }
    end(whole);
}

static void a_checkpoint_of_another_training_is_refused(void **state)
{
    (void)state;
    trial *t = begin(data_path);
    t->params.checkpoint = checkpoint_path;
    end(run_well(t));
    t = begin(data_path);
    t->params.resume = checkpoint_path;
    t->params.batch = 16;
    assert_false(run(t)->ok);
    assert_non_null(strstr(t->err.text, "belongs to another training"));
    end(t);
    t = begin(data_path);
    t->params.resume = checkpoint_path;
    t->params.optimizer = lf_optimizer_default(LF_OPTIMIZER_SGD);
    assert_false(run(t)->ok);
    assert_non_null(strstr(t->err.text, "optimizer adam, but this training uses sgd"));
    end(t);
    lf_error err;
    t = begin(data_path);
    lf_model_init(t->params.model, 1);
    assert_true(lf_model_save(t->params.model, checkpoint_path, &err));
    t->params.resume = checkpoint_path;
    assert_false(run(t)->ok);
    assert_non_null(strstr(t->err.text, "is a model, not a checkpoint"));
    end(t);
}

static void max_steps_and_events_end_a_training(void **state)
{
    (void)state;
    trial *t = begin(data_path), *whole = run_well(begin(data_path));
    t->params.max_steps = 41;
    run_well(t);
    assert_int_equal(t->result.steps, 41);
    assert_int_equal(t->epochs, 2); // the second one is cut short, and told
    assert_int_equal(t->result.stopped, LF_TRAIN_MAX_STEPS);
    assert_memory_equal(t->losses, whole->losses, 41 * sizeof(double));
    end(t);
    t = begin(data_path);
    t->end_after = 1;
    run_well(t);
    assert_int_equal(t->result.steps, 32);
    assert_int_equal(t->result.stopped, LF_TRAIN_EPOCH_EVENT);
    end(t);
    t = begin(data_path);
    t->params.digest_every = 10;
    run_well(t);
    assert_int_equal(t->digests, 9);
    assert_same(t, whole);
    end(t);
    end(whole);
}

static void without_shuffle_rows_come_in_order(void **state)
{
    (void)state;
    trial *t = begin(data_path);
    t->params.shuffle = false;
    t->params.optimizer.lr = 0;
    run_well(t);
    // With weights that do not change, the loss of each step is that of the same rows in every epoch …
    assert_memory_equal(t->losses, t->losses + 32, 32 * sizeof(double));
    lf_evaluation scores = score(t, LF_PART_TRAIN, 32);
    lf_evaluation_finish(&scores);
    assert_true(fabs(scores.loss - t->last.loss) < 1e-12); // … and an epoch is every row once, the short batch included
    end(t);
    t = begin(data_path);
    t->params.optimizer.lr = 0;
    run_well(t);
    assert_true(fabs(t->last.loss - scores.loss) < 1e-6);
    assert_memory_not_equal(t->losses, t->losses + 32, 32 * sizeof(double));
    end(t);
}

static void a_diverging_training_stops_and_names_the_step(void **state)
{
    (void)state;
    trial *t = begin(values_path);
    t->params.optimizer = lf_optimizer_default(LF_OPTIMIZER_SGD);
    t->params.optimizer.lr = 1e6;
    assert_false(run(t)->ok);
    if (t->err.code != LF_EDATA)
        fail_msg("%s", t->err.text);
    assert_non_null(strstr(t->err.text, "the loss is "));
    assert_non_null(strstr(t->err.text, "(epoch 1)"));
    end(t);
}

static void what_does_not_fit_is_named(void **state)
{
    (void)state;
    trial *t = begin(data_path);
    const lf_layer narrow = { .kind = LF_LAYER_LINEAR, .inputs = 11, .outputs = 3 };
    const lf_layer few = { .kind = LF_LAYER_LINEAR, .inputs = FEATURES, .outputs = 2 };
    lf_model *model = t->params.model;
    t->params.model = lf_model_create(&narrow, 1, NULL);
    assert_false(run(t)->ok);
    assert_non_null(strstr(t->err.text, "the model expects 11 inputs, but a row of "));
    lf_model_destroy(t->params.model);
    t->params.model = lf_model_create(&few, 1, NULL);
    assert_false(run(t)->ok);
    assert_non_null(strstr(t->err.text, "/train/y has 3 classes, but the model has 2 outputs"));
    lf_model_destroy(t->params.model);
    t->params.model = model;
    t->params.loss = LF_LOSS_MSE;
    assert_false(run(t)->ok);
    assert_non_null(strstr(t->err.text,
                           "/train/y has 1 value a row, but the model has 3 outputs, all of which loss \"mse\" needs"));
    t->params.loss = LF_LOSS_CROSS_ENTROPY;
    t->params.window = 100;
    assert_false(run(t)->ok);
    assert_non_null(strstr(t->err.text, "do not hold two batches of 32 rows, which take "));
    t->params.window = 0;
    t->params.part = LF_PART_TEST;
    assert_false(run(t)->ok);
    assert_non_null(strstr(t->err.text, "\"test\""));
    t->params.part = LF_PART_TRAIN;
    t->params.devices = (const char *const[]){ "gpu:7" };
    assert_false(run(t)->ok);
    assert_non_null(strstr(t->err.text, "device \"gpu:7\": there is none; this machine has "));
    end(t);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_learns_and_tells_every_step_once),
        cmocka_unit_test(values_are_learnt_too),
        cmocka_unit_test(two_runs_give_equal_bits),
        cmocka_unit_test(a_window_gives_the_bits_of_resident_data),
        cmocka_unit_test(a_window_is_read_beside_the_training_or_between_with_the_same_bits),
        cmocka_unit_test(a_stopped_training_goes_on_to_the_same_bits),
        cmocka_unit_test(a_checkpoint_of_another_training_is_refused),
        cmocka_unit_test(max_steps_and_events_end_a_training),
        cmocka_unit_test(without_shuffle_rows_come_in_order),
        cmocka_unit_test(a_diverging_training_stops_and_names_the_step),
        cmocka_unit_test(what_does_not_fit_is_named),
    };
    return run_on_device(argc, argv, tests, sizeof tests / sizeof *tests);
}
