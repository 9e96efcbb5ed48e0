// train/ on one device, named by the argument: what does not change the result, and what ends a training.
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <hdf5.h>

#include "train/checkpoint.h"
#include "train/train.h"

enum { ROWS = 1003, FEATURES = 12, CLASSES = 3, VALID_ROWS = 301 };

static const char *device;
static char folder[] = "/tmp/lavaflow-train-XXXXXX";
static char data_path[64], values_path[64], checkpoint_path[64];

// Three clouds of points, as i16, chunked: class k has its mean at 1000 (k + 1) in every third feature.
static void make_rows(int16_t *x, uint8_t *y, size_t rows, uint32_t state)
{
    for (size_t i = 0; i < rows; i++) {
        y[i] = (uint8_t)(i % CLASSES);
        for (size_t j = 0; j < FEATURES; j++) {
            state = state * 1664525u + 1013904223u;
            x[i * FEATURES + j] = (int16_t)((j % CLASSES == y[i] ? 1000 : 0) + (int)(state >> 16) % 1500);
        }
    }
}

static void write_set(hid_t file, const char *path, hid_t type, int rank, const hsize_t *dims, const void *values)
{
    hid_t links = H5Pcreate(H5P_LINK_CREATE), creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    hsize_t chunk[2] = { 50, dims[rank - 1] }; // of a vector only the first counts
    H5Pset_chunk(creation, rank, chunk);
    hid_t space = H5Screate_simple(rank, dims, NULL);
    hid_t set = H5Dcreate2(file, path, type, space, links, creation, H5P_DEFAULT);
    assert_true(set >= 0 && H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    if (rank == 2 && H5Tequal(type, H5T_NATIVE_INT16) > 0) {
        hid_t scalar = H5Screate(H5S_SCALAR);
        hid_t scale = H5Acreate2(set, "scale", H5T_NATIVE_DOUBLE, scalar, H5P_DEFAULT, H5P_DEFAULT);
        double value = 1e-3;
        H5Awrite(scale, H5T_NATIVE_DOUBLE, &value);
        H5Aclose(scale);
        H5Sclose(scalar);
    }
    H5Dclose(set);
    H5Sclose(space);
    H5Pclose(creation);
    H5Pclose(links);
}

static int make_files(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(data_path, sizeof data_path, "%s/data.h5", folder);
    snprintf(values_path, sizeof values_path, "%s/values.h5", folder);
    snprintf(checkpoint_path, sizeof checkpoint_path, "%s/checkpoint.h5", folder);
    static int16_t x[ROWS * FEATURES];
    static uint8_t y[ROWS];
    static float targets[ROWS * 2];
    const hsize_t rows[2] = { ROWS, FEATURES }, valid[2] = { VALID_ROWS, FEATURES }, two[2] = { ROWS, 2 };

    hid_t file = H5Fcreate(data_path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    make_rows(x, y, ROWS, 1);
    write_set(file, "/train/x", H5T_NATIVE_INT16, 2, rows, x);
    write_set(file, "/train/y", H5T_NATIVE_UINT8, 1, rows, y);
    for (size_t i = 0; i < ROWS; i++) {
        targets[2 * i] = 1e-3f * x[i * FEATURES];
        targets[2 * i + 1] = y[i];
    }
    make_rows(x, y, VALID_ROWS, 2);
    write_set(file, "/valid/x", H5T_NATIVE_INT16, 2, valid, x);
    write_set(file, "/valid/y", H5T_NATIVE_UINT8, 1, valid, y);
    H5Fclose(file);

    file = H5Fcreate(values_path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    make_rows(x, y, ROWS, 1);
    write_set(file, "/train/x", H5T_NATIVE_INT16, 2, rows, x);
    write_set(file, "/train/y", H5T_NATIVE_FLOAT, 2, two, targets);
    H5Fclose(file);
    return 0;
}

static int remove_files(void **state)
{
    (void)state;
    unlink(data_path);
    unlink(values_path);
    unlink(checkpoint_path);
    return rmdir(folder); // fails if a training left anything else behind
}

// A training with what it told.
typedef struct trial {
    lf_train_params params;
    lf_train_result result;
    lf_error err;
    bool ok;
    double losses[4096];
    uint64_t loss_count, next_step, epochs, digests;
    lf_epoch last;
    volatile sig_atomic_t stop;
    uint64_t stop_after; // steps
    uint64_t end_after;  // epochs
} trial;

static void on_steps(void *user, uint64_t first, uint32_t count, const double *losses)
{
    trial *t = user;
    assert_int_equal(first, t->next_step); // no gap, no duplicate
    t->next_step += count;
    for (uint32_t i = 0; i < count; i++)
        t->losses[t->loss_count++] = losses[i];
    if (t->stop_after && t->next_step > t->stop_after)
        t->stop = SIGINT;
}

static bool on_epoch(void *user, const lf_epoch *epoch, lf_error *err)
{
    (void)err;
    trial *t = user;
    t->epochs++;
    t->last = *epoch;
    return t->epochs != t->end_after;
}

static void on_digest(void *user, uint64_t step, const char hex[65])
{
    trial *t = user;
    assert_int_equal(step % t->params.digest_every, 0);
    assert_int_equal(strlen(hex), 64);
    t->digests++;
}

static lf_model *make_model(uint32_t outputs)
{
    const lf_layer layers[] = { { .kind = LF_LAYER_LINEAR, .inputs = FEATURES, .outputs = 17 },
                                { .kind = LF_LAYER_ACTIVATION, .activation = 1 },
                                { .kind = LF_LAYER_LINEAR, .inputs = 17, .outputs = outputs } };
    return lf_model_create(layers, 3, NULL);
}

static trial *begin(const char *path)
{
    trial *t = calloc(1, sizeof *t);
    bool classes = path == data_path;
    t->params = (lf_train_params){
        .model = make_model(classes ? CLASSES : 2), .data = lf_dataset_open(&(lf_dataset_spec){ .file = path }, &t->err),
        .loss = classes ? LF_LOSS_CROSS_ENTROPY : LF_LOSS_MSE, .optimizer = lf_optimizer_default(LF_OPTIMIZER_ADAM),
        .batch = 32, .epochs = 3, .seed = 5, .shuffle = true, .device = device, .stop = &t->stop,
        .events = { .user = t, .steps = on_steps, .epoch = on_epoch, .digest = on_digest },
    };
    if (!t->params.data)
        fail_msg("%s", t->err.text);
    if (classes) {
        t->params.validation = t->params.data;
        t->params.validation_part = LF_PART_VALID;
    }
    t->params.optimizer.lr = 1e-2;
    t->next_step = 1;
    return t;
}

static trial *run(trial *t)
{
    t->ok = lf_train(&t->params, &t->result, &t->err);
    return t;
}

static trial *run_well(trial *t)
{
    if (!run(t)->ok)
        fail_msg("%s", t->err.text);
    return t;
}

static void end(trial *t)
{
    lf_model_destroy(t->params.model);
    lf_dataset_close(t->params.data);
    free(t);
}

static void assert_same(const trial *a, const trial *b)
{
    assert_string_equal(a->result.digest, b->result.digest);
    assert_int_equal(a->loss_count, b->loss_count);
    assert_memory_equal(a->losses, b->losses, a->loss_count * sizeof *a->losses);
    assert_memory_equal(&a->last.val_loss, &b->last.val_loss, sizeof a->last.val_loss);
}

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
    lf_evaluation scores;
    assert_true(lf_evaluate(&(lf_evaluate_params){ .model = t->params.model, .data = t->params.data,
                                                   .part = LF_PART_VALID, .loss = LF_LOSS_CROSS_ENTROPY, .batch = 256,
                                                   .device = device },
                            &scores, &t->err));
    assert_int_equal(scores.rows, VALID_ROWS);
    assert_true(scores.loss == t->last.val_loss && scores.accuracy == t->last.val_accuracy);
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

// 8 kB hold 341 rows of 24 bytes, so half of it 160 rows in whole batches: a stretch is 5 steps.
static void a_window_gives_the_bits_of_resident_data(void **state)
{
    (void)state;
    for (int shuffle = 0; shuffle < 2; shuffle++) {
        trial *resident = begin(data_path), *window = begin(data_path);
        resident->params.shuffle = window->params.shuffle = shuffle;
        window->params.window = 16384; // shared with the validation's rows
        run_well(resident);
        run_well(window);
        assert_same(resident, window);
        end(resident);
        end(window);
    }
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
        second->params.window = i % 2 ? 16384 : 0; // the memory may change on the way
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
    lf_evaluation scores;
    assert_true(lf_evaluate(&(lf_evaluate_params){ .model = t->params.model, .data = t->params.data, .batch = 32,
                                                   .loss = LF_LOSS_CROSS_ENTROPY, .device = device },
                            &scores, &t->err));
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
    assert_non_null(strstr(t->err.text, "/train/y holds class numbers, not values, which loss \"mse\" needs"));
    t->params.loss = LF_LOSS_CROSS_ENTROPY;
    t->params.window = 100;
    assert_false(run(t)->ok);
    assert_non_null(strstr(t->err.text, "do not hold two batches of 32 rows, which take "));
    t->params.window = 0;
    t->params.part = LF_PART_TEST;
    assert_false(run(t)->ok);
    assert_non_null(strstr(t->err.text, "\"test\""));
    t->params.part = LF_PART_TRAIN;
    t->params.device = "gpu:7";
    assert_false(run(t)->ok);
    assert_non_null(strstr(t->err.text, "device \"gpu:7\": there is none; this machine has "));
    end(t);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s DEVICE\n", argv[0]);
        return 2;
    }
    device = argv[1];
    lf_error err;
    lf_device *dev = lf_device_open(device, &err);
    if (!dev) {
        printf("skipped: %s\n", err.text);
        return err.code == LF_ENOTFOUND || err.code == LF_EUNSUPPORTED ? 77 : 1;
    }
    lf_device_close(dev);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_learns_and_tells_every_step_once),
        cmocka_unit_test(values_are_learnt_too),
        cmocka_unit_test(two_runs_give_equal_bits),
        cmocka_unit_test(a_window_gives_the_bits_of_resident_data),
        cmocka_unit_test(a_stopped_training_goes_on_to_the_same_bits),
        cmocka_unit_test(a_checkpoint_of_another_training_is_refused),
        cmocka_unit_test(max_steps_and_events_end_a_training),
        cmocka_unit_test(without_shuffle_rows_come_in_order),
        cmocka_unit_test(a_diverging_training_stops_and_names_the_step),
        cmocka_unit_test(what_does_not_fit_is_named),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
