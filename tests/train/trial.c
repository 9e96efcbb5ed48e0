#include "trial.h"

#include <math.h>
#include <unistd.h>

#include <hdf5.h>

const char *device;
static char folder[] = "/tmp/lavaflow-train-XXXXXX";
char data_path[64], values_path[64], weighted_path[64], checkpoint_path[64], other_path[64];

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
    snprintf(weighted_path, sizeof weighted_path, "%s/weighted.h5", folder);
    snprintf(checkpoint_path, sizeof checkpoint_path, "%s/checkpoint.h5", folder);
    snprintf(other_path, sizeof other_path, "%s/other.h5", folder);
    static int16_t x[ROWS * FEATURES];
    static uint8_t y[ROWS];
    static float targets[ROWS * 2], weights[ROWS];
    const hsize_t rows[2] = { ROWS, FEATURES }, valid[2] = { VALID_ROWS, FEATURES }, two[2] = { ROWS, 2 };

    hid_t file = H5Fcreate(data_path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    make_rows(x, y, ROWS, 1);
    write_set(file, "/train/x", H5T_NATIVE_INT16, 2, rows, x);
    write_set(file, "/train/y", H5T_NATIVE_UINT8, 1, rows, y);
    for (size_t i = 0; i < ROWS; i++) {
        targets[2 * i] = 1e-3f * x[i * FEATURES];
        targets[2 * i + 1] = y[i];
    }
    hid_t weighted = H5Fcreate(weighted_path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    for (size_t i = 0; i < ROWS; i++)
        weights[i] = 1.f + y[i];
    write_set(weighted, "/train/x", H5T_NATIVE_INT16, 2, rows, x);
    write_set(weighted, "/train/y", H5T_NATIVE_UINT8, 1, rows, y);
    write_set(weighted, "/train/w", H5T_NATIVE_FLOAT, 1, rows, weights);
    make_rows(x, y, VALID_ROWS, 2);
    write_set(weighted, "/valid/x", H5T_NATIVE_INT16, 2, valid, x);
    write_set(weighted, "/valid/y", H5T_NATIVE_UINT8, 1, valid, y);
    H5Fclose(weighted);
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
    unlink(weighted_path);
    unlink(checkpoint_path);
    unlink(other_path);
    return rmdir(folder); // fails if a training left anything else behind
}

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

bool on_step(void *user, const lf_step *step, lf_error *err)
{
    (void)err;
    trial *t = user;
    t->told_steps++;
    t->last_step = step->step;
    assert_true(step->loss == t->losses[t->loss_count - 1]);
    return step->step != t->stop_at;
}

static lf_model *make_model(uint32_t outputs)
{
    const lf_layer layers[] = { { .kind = LF_LAYER_LINEAR, .inputs = FEATURES, .outputs = 17 },
                                { .kind = LF_LAYER_ACTIVATION, .activation = 1 },
                                { .kind = LF_LAYER_LINEAR, .inputs = 17, .outputs = outputs } };
    return lf_model_create(layers, 3, NULL);
}

trial *begin(const char *path)
{
    trial *t = calloc(1, sizeof *t);
    bool classes = path != values_path;
    t->params = (lf_train_params){
        .model = make_model(classes ? CLASSES : 2),
        .data = lf_dataset_open(&(lf_dataset_spec){ .file = path }, &t->err),
        .loss = classes ? LF_LOSS_CROSS_ENTROPY : LF_LOSS_MSE,
        .optimizer = lf_optimizer_default(LF_OPTIMIZER_ADAM),
        .loss_options = { .delta = 1 },
        .batch = 32,
        .accumulate = 1,
        .step_every = 1,
        .epochs = 3,
        .seed = 5,
        .shuffle = true,
        .devices = &device,
        .device_count = 1,
        .stop = &t->stop,
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

trial *run(trial *t)
{
    lf_train_result_finish(&t->result);
    t->ok = lf_train(&t->params, &t->result, &t->err);
    return t;
}

trial *run_well(trial *t)
{
    if (!run(t)->ok)
        fail_msg("%s", t->err.text);
    return t;
}

lf_evaluation score(const trial *t, lf_part_id part, uint32_t batch)
{
    lf_evaluation scores;
    lf_error err;
    if (!lf_evaluate(&(lf_evaluate_params){ .model = t->params.model,
                                            .data = t->params.data,
                                            .part = part,
                                            .loss = t->params.loss,
                                            .loss_options = t->params.loss_options,
                                            .top_k = 2,
                                            .batch = batch,
                                            .device = device },
                     &scores, &err))
        fail_msg("%s", err.text);
    return scores;
}

void end(trial *t)
{
    lf_model_destroy(t->params.model);
    lf_dataset_close(t->params.data);
    lf_train_result_finish(&t->result);
    free(t);
}

void assert_same(const trial *a, const trial *b)
{
    assert_string_equal(a->result.digest, b->result.digest);
    assert_int_equal(a->loss_count, b->loss_count);
    assert_memory_equal(a->losses, b->losses, a->loss_count * sizeof *a->losses);
    assert_memory_equal(&a->last.val_loss, &b->last.val_loss, sizeof a->last.val_loss);
}

void assert_near(const trial *a, const trial *b, double bound)
{
    assert_int_equal(a->loss_count, b->loss_count);
    for (uint64_t i = 0; i < a->loss_count; i++)
        if (!(fabs(a->losses[i] - b->losses[i]) < bound * (1 + fabs(a->losses[i]))))
            fail_msg("loss of step %d: %.9g, and %.9g", (int)i + 1, a->losses[i], b->losses[i]);
}

int run_on_device(int argc, char **argv, const struct CMUnitTest *tests, size_t count)
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
    return _cmocka_run_group_tests(argv[0], tests, count, make_files, remove_files);
}
