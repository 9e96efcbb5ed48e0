// train/ on one device, named by the argument: updates over several batches, weights of rows, averages, and what
// watches, ends, keeps and explains a training.
#include <math.h>
#include <unistd.h>

#include "train/feed.h"
#include "trial.h"

static double distance(const lf_model *a, const lf_model *b)
{
    double most = 0;
    for (size_t i = 0; i < a->block_count; i++)
        most = fmax(most, fabs((double)a->params[i] - (double)b->params[i]));
    return most;
}

static trial *accumulate(trial *t)
{
    t->params.optimizer = lf_optimizer_default(LF_OPTIMIZER_SGD);
    t->params.optimizer.lr = .05;
    t->params.optimizer.momentum = .9f;
    t->params.schedule = lf_schedule_default(LF_SCHEDULE_COSINE);
    t->params.batch = 8;
    t->params.accumulate = 4;
    return t;
}

static void batches_that_share_an_update_are_one_large_batch(void **state)
{
    (void)state;
    for (int weighted = 0; weighted < 2; weighted++) {
        trial *apart = accumulate(begin(weighted ? weighted_path : data_path)),
              *whole = accumulate(begin(weighted ? weighted_path : data_path));
        whole->params.batch = 32;
        whole->params.accumulate = 1;
        run_well(apart);
        run_well(whole);
        assert_int_equal(apart->result.steps, 3 * 126); // 1003 rows: the last update of an epoch has 11
        assert_int_equal(whole->result.steps, 3 * 32);
        assert_true(distance(apart->params.model, whole->params.model) < 1e-5);
        assert_true(fabs(apart->last.loss - whole->last.loss) < 1e-5 && apart->last.lr == whole->last.lr);
        end(apart);
        end(whole);
    }
}

// With everything that a checkpoint has to hold.
static trial *watch(trial *t)
{
    t->params.schedule = lf_schedule_default(LF_SCHEDULE_PLATEAU); // watches the training's loss: no validation
    t->params.schedule.patience = 0;
    t->params.schedule.threshold = .2;
    t->params.validation = NULL;
    t->params.average = .9f;
    t->params.monitor = LF_MONITOR_LOSS;
    t->params.patience = 3;
    t->params.restore_best = true;
    t->params.batch = 8;
    t->params.accumulate = 3;
    t->params.epochs = 4;
    return t;
}

static void all_of_it_goes_on_to_the_same_bits(void **state)
{
    (void)state;
    static const uint64_t moments[] = { 1, 50, 126, 127, 300, 420 };
    trial *whole = run_well(watch(begin(weighted_path)));
    for (size_t i = 0; i < sizeof moments / sizeof *moments; i++) {
        trial *first = watch(begin(weighted_path)), *second = watch(begin(weighted_path));
        first->params.checkpoint = checkpoint_path;
        first->stop_after = moments[i];
        first->params.digest_every = 6;
        run(first);
        assert_false(first->ok);
        assert_int_equal(first->err.code, LF_EINTERRUPTED);
        assert_true(first->result.steps % 126 % 3 == 0); // the end of an update
        second->params.resume = checkpoint_path;
        second->params.window = i % 2 ? 32768 : 0;
        second->next_step = first->result.steps + 1;
        run_well(second);
        assert_string_equal(second->result.digest, whole->result.digest);
        assert_int_equal(second->result.best_epoch, whole->result.best_epoch);
        assert_true(second->result.best_value == whole->result.best_value);
        assert_int_equal(first->loss_count + second->loss_count, whole->loss_count);
        assert_true(second->last.loss == whole->last.loss && second->last.accuracy == whole->last.accuracy);
        end(first);
        end(second);
    }
    end(whole);
}

static void weights_of_classes_are_weights_of_their_rows(void **state)
{
    (void)state;
    static const float weights[] = { 1, 2, 3 };
    trial *rows = begin(weighted_path), *classes = begin(data_path), *plain = begin(data_path);
    classes->params.class_weights = weights;
    classes->params.class_weight_count = 3;
    rows->params.window = 32768;
    run_well(rows);
    run_well(classes);
    run_well(plain);
    assert_string_equal(rows->result.digest, classes->result.digest);
    assert_string_not_equal(rows->result.digest, plain->result.digest);
    // The validation's rows have no weights in the file, but classes have them everywhere.
    assert_true(rows->last.val_loss != classes->last.val_loss);
    end(rows);
    end(classes);
    end(plain);
    trial *t = begin(data_path);
    t->params.class_weights = weights;
    t->params.class_weight_count = 2;
    assert_false(run(t)->ok);
    assert_string_equal(t->err.text, "class_weights has 2 numbers, but the model has 3 outputs");
    end(t);
}

static void the_average_is_what_validation_sees(void **state)
{
    (void)state;
    trial *t = begin(data_path), *plain = begin(data_path);
    t->params.average = .95f;
    run_well(t);
    run_well(plain);
    lf_evaluation scores = score(t, LF_PART_VALID, 256);
    assert_true(scores.loss == t->last.val_loss);
    assert_string_equal(t->last.digest, t->result.digest);
    assert_true(t->last.loss == plain->last.loss); // the training itself is as without it
    assert_string_not_equal(t->result.digest, plain->result.digest);
    lf_evaluation_finish(&scores);
    end(t);
    end(plain);
}

static void it_ends_when_nothing_becomes_better(void **state)
{
    (void)state;
    trial *t = begin(data_path);
    t->params.optimizer.lr = 0;
    t->params.epochs = 9;
    t->params.monitor = LF_MONITOR_VAL_LOSS;
    t->params.patience = 2;
    run_well(t);
    assert_int_equal(t->result.epochs, 3); // the first is the best
    assert_int_equal(t->result.best_epoch, 1);
    assert_int_equal(t->result.stopped, LF_TRAIN_PATIENCE);
    end(t);

    t = begin(data_path); // too large a rate: it becomes worse after a while
    t->params.optimizer.lr = .3;
    t->params.epochs = 6;
    t->params.monitor = LF_MONITOR_VAL_LOSS;
    t->params.restore_best = true;
    t->params.best = other_path;
    run_well(t);
    assert_int_equal(t->result.stopped, LF_TRAIN_DONE);
    lf_evaluation scores = score(t, LF_PART_VALID, 256);
    assert_true(scores.loss == t->result.best_value);
    lf_evaluation_finish(&scores);
    lf_model_file *best = lf_model_file_read(other_path, &t->err);
    assert_non_null(best);
    assert_string_equal(best->digest, t->result.digest);
    assert_null(best->state);
    lf_model_file_destroy(best);
    end(t);
}

static void the_last_checkpoints_are_kept(void **state)
{
    (void)state;
    trial *t = begin(data_path);
    t->params.checkpoint = checkpoint_path;
    t->params.checkpoint_every = 20;
    t->params.keep = 2;
    run_well(t);
    static const int steps[] = { 20, 32, 40, 60, 64, 80, 96 };
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        char path[128];
        snprintf(path, sizeof path, "%.*s-%d.h5", (int)strlen(checkpoint_path) - 3, checkpoint_path, steps[i]);
        assert_int_equal(access(path, F_OK) == 0, i >= 5);
        if (i == 5) { // goes on from there
            trial *again = begin(data_path);
            again->params.resume = path;
            again->next_step = 81;
            run_well(again);
            assert_string_equal(again->result.digest, t->result.digest);
            end(again);
        }
        unlink(path);
    }
    end(t);
}

static void a_step_is_told_and_may_be_the_last(void **state)
{
    (void)state;
    trial *t = begin(data_path);
    t->params.events.step = on_step;
    t->params.step_every = 10;
    run_well(t);
    assert_int_equal(t->told_steps, 9);
    assert_int_equal(t->last_step, 90);
    end(t);
    t = begin(data_path);
    t->params.events.step = on_step;
    t->params.step_every = 7;
    t->stop_at = 42;
    run_well(t);
    assert_int_equal(t->result.steps, 42);
    assert_int_equal(t->result.stopped, LF_TRAIN_STEP_EVENT);
    assert_int_equal(t->epochs, 2); // the second one up to there
    end(t);
}

static trial *diverge(trial *t)
{
    t->params.optimizer = lf_optimizer_default(LF_OPTIMIZER_SGD);
    t->params.optimizer.lr = 1e-3;
    t->params.loss = LF_LOSS_MSE;
    t->params.schedule = lf_schedule_default(LF_SCHEDULE_EXPONENTIAL);
    t->params.schedule.gamma = 1.5;
    return t;
}

static void a_loss_that_is_not_finite_leaves_the_step_before(void **state)
{
    (void)state;
    trial *t = diverge(begin(values_path));
    t->params.replay = other_path;
    assert_false(run(t)->ok);
    assert_int_equal(t->err.code, LF_EDATA);
    assert_non_null(strstr(t->err.text, other_path));
    uint64_t done = t->loss_count; // steps that are told
    lf_model_file *file = lf_model_file_read(other_path, &t->err);
    if (!file)
        fail_msg("%s", t->err.text);
    uint64_t step = file->state->step, rows[32];
    assert_true(step == done && step > 3);
    uint32_t count = (step + 1) % 32 == 0 ? 11 : 32;
    assert_int_equal(file->state->row_count, count);
    lf_feed_rows(lf_dataset_part(t->params.data, LF_PART_TRAIN, NULL), true, 5, step / 32, step % 32 * 32, count, rows);
    assert_memory_equal(rows, file->state->rows, count * sizeof *rows);
    lf_model_file_destroy(file);

    trial *again = diverge(begin(values_path)); // fails at once
    again->params.resume = other_path;
    again->params.max_steps = step + 1;
    again->next_step = step + 1;
    assert_false(run(again)->ok);
    char place[64];
    snprintf(place, sizeof place, "at step %d ", (int)step + 1);
    assert_non_null(strstr(again->err.text, place));
    assert_int_equal(again->loss_count, 0);
    end(again);

    trial *shorter = diverge(begin(values_path)); // the step before it is good
    shorter->params.max_steps = step;
    run_well(shorter);
    assert_true(distance(shorter->params.model, t->params.model) == 0);
    end(shorter);
    end(t);
}

// Plateaus, a watched value and many short epochs: the file is the checkpoint of that step.
static void the_step_before_is_as_a_checkpoint_of_it(void **state)
{
    (void)state;
    trial *t[2];
    lf_model_file *files[2];
    for (int i = 0; i < 2; i++) {
        t[i] = begin(values_path);
        t[i]->params.optimizer = lf_optimizer_default(LF_OPTIMIZER_SGD);
        t[i]->params.optimizer.lr = 4;
        t[i]->params.optimizer.momentum = .5f;
        t[i]->params.schedule = lf_schedule_default(LF_SCHEDULE_PLATEAU);
        t[i]->params.schedule.patience = 0;
        t[i]->params.schedule.factor = .999;
        t[i]->params.monitor = LF_MONITOR_LOSS;
        t[i]->params.restore_best = true;
        t[i]->params.batch = 400;
        t[i]->params.epochs = 400;
        t[i]->params.average = .9f;
    }
    t[0]->params.replay = other_path;
    assert_false(run(t[0])->ok);
    assert_non_null(files[0] = lf_model_file_read(other_path, &t[0]->err));
    uint64_t step = files[0]->state->step;
    assert_true(step > 6); // some epochs of 3 steps
    t[1]->params.checkpoint = checkpoint_path;
    t[1]->params.max_steps = step;
    run_well(t[1]);
    assert_non_null(files[1] = lf_model_file_read(checkpoint_path, &t[1]->err));
    const lf_train_state *a = files[0]->state, *b = files[1]->state;
    assert_string_equal(files[0]->digest, files[1]->digest);
    assert_int_equal(a->moment_count, b->moment_count);
    char digests[2][65];
    assert_true(lf_tensors_digest(a->moments, a->moment_count, digests[0], NULL));
    assert_true(lf_tensors_digest(b->moments, b->moment_count, digests[1], NULL));
    assert_string_equal(digests[0], digests[1]);
    assert_true(a->reductions > 0 && a->reductions == b->reductions && a->waited == b->waited && a->best == b->best);
    assert_true(a->monitor_epoch == b->monitor_epoch && a->monitor_best == b->monitor_best);
    assert_true(a->epoch == b->epoch && a->position == b->position);
    assert_true(a->epoch_rows == b->epoch_rows && a->epoch_loss == b->epoch_loss && a->epoch_weight == b->epoch_weight);
    for (int i = 0; i < 2; i++) {
        lf_model_file_destroy(files[i]);
        end(t[i]);
    }
}

static void an_update_may_be_a_whole_pass(void **state)
{
    (void)state;
    trial *pass = accumulate(begin(data_path)), *more = accumulate(begin(data_path));
    pass->params.accumulate = 126;
    more->params.accumulate = 1 << 24;
    run_well(pass);
    run_well(more);
    assert_same(pass, more);
    end(pass);
    end(more);
}

static void a_resume_names_what_differs(void **state)
{
    (void)state;
    trial *t = begin(data_path);
    t->params.checkpoint = checkpoint_path;
    t->params.monitor = LF_MONITOR_VAL_LOSS;
    end(run_well(t));
    static const char *const names[] = { "monitor val_loss, but this one has monitor val_accuracy", "validation ",
                                         "model ", "restore_best 0, but" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        t = begin(data_path);
        t->params.resume = checkpoint_path;
        t->params.monitor = i == 0 ? LF_MONITOR_VAL_ACCURACY : LF_MONITOR_VAL_LOSS;
        if (i == 1)
            t->params.validation_part = LF_PART_TRAIN;
        if (i == 2)
            t->params.model->layers[1].activation++;
        t->params.restore_best = i == 3;
        assert_false(run(t)->ok);
        if (!strstr(t->err.text, names[i]))
            fail_msg("%s", t->err.text);
        end(t);
    }
}

static void every_loss_of_values_is_learnt(void **state)
{
    (void)state;
    static const lf_loss losses[] = { LF_LOSS_MAE, LF_LOSS_HUBER };
    for (size_t i = 0; i < sizeof losses / sizeof *losses; i++) {
        trial *t = begin(values_path);
        t->params.loss = losses[i];
        t->params.epochs = 20;
        run_well(t);
        assert_true(t->last.loss < .3 * t->losses[0]);
        lf_evaluation scores = score(t, LF_PART_TRAIN, 100);
        assert_true(scores.r2 > .8 && scores.r2 < 1 && isnan(scores.accuracy) && !scores.confusion);
        if (losses[i] == LF_LOSS_MAE)
            assert_true(fabs(scores.loss - scores.mae) < 1e-6);
        lf_evaluation_finish(&scores);
        end(t);
    }
}

static void targets_of_binary_cross_entropy_are_probabilities(void **state)
{
    (void)state;
    trial *t = begin(values_path); // the second output is a class number
    t->params.loss = LF_LOSS_BINARY_CROSS_ENTROPY;
    for (int i = 0; i < 2; i++) {
        t->params.window = i ? 32768 : 0;
        assert_false(run(t)->ok);
        assert_int_equal(t->err.code, LF_EDATA);
        assert_non_null(strstr(t->err.text, "/train/y: value "));
        assert_non_null(strstr(t->err.text, " is outside 0..1, which the loss needs"));
    }
    end(t);
}

static void scores_of_classes_agree_with_each_other(void **state)
{
    (void)state;
    trial *t = begin(data_path);
    t->params.max_steps = 9;
    run_well(t);
    lf_evaluation scores = score(t, LF_PART_VALID, 64);
    uint64_t all = 0, right = 0;
    for (uint32_t i = 0; i < CLASSES; i++) {
        uint64_t row = 0, column = 0, hit = scores.confusion[i * CLASSES + i];
        for (uint32_t j = 0; j < CLASSES; j++) {
            row += scores.confusion[i * CLASSES + j];
            column += scores.confusion[j * CLASSES + i];
        }
        assert_int_equal(row, i == 0 ? 101 : 100); // 301 rows, one class after the other
        assert_true(scores.recall[i] == (double)hit / (double)row);
        assert_true(scores.precision[i] == (double)hit / (double)column);
        assert_true(fabs(scores.f1[i] - 2 / (1 / scores.recall[i] + 1 / scores.precision[i])) < 1e-12);
        all += row;
        right += hit;
    }
    assert_int_equal(all, VALID_ROWS);
    assert_true(scores.accuracy == (double)right / VALID_ROWS && scores.accuracy < 1);
    assert_true(scores.top_k == 2 && scores.top_k_accuracy > scores.accuracy);
    assert_true(isnan(scores.mse) && isnan(scores.r2));
    lf_evaluation_finish(&scores);
    end(t);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_that_share_an_update_are_one_large_batch),
        cmocka_unit_test(all_of_it_goes_on_to_the_same_bits),
        cmocka_unit_test(weights_of_classes_are_weights_of_their_rows),
        cmocka_unit_test(the_average_is_what_validation_sees),
        cmocka_unit_test(it_ends_when_nothing_becomes_better),
        cmocka_unit_test(the_last_checkpoints_are_kept),
        cmocka_unit_test(a_step_is_told_and_may_be_the_last),
        cmocka_unit_test(a_loss_that_is_not_finite_leaves_the_step_before),
        cmocka_unit_test(the_step_before_is_as_a_checkpoint_of_it),
        cmocka_unit_test(an_update_may_be_a_whole_pass),
        cmocka_unit_test(a_resume_names_what_differs),
        cmocka_unit_test(every_loss_of_values_is_learnt),
        cmocka_unit_test(targets_of_binary_cross_entropy_are_probabilities),
        cmocka_unit_test(scores_of_classes_agree_with_each_other),
    };
    return run_on_device(argc, argv, tests, sizeof tests / sizeof *tests);
}
