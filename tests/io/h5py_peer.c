// The other side of test_h5py.py.
//   write FOLDER   model.h5 (a checkpoint), run.h5 and rows.h5
//   model FILE     reads a model file and prints its digest
//   weights FILE   prints the weights of the training part, one a line
//   live FILE      writes a live file, 1000 values a second, until it is killed
//   recover FILE OUT   makes a run file of one
//   rows FILE      prints the training part of a data set file, a row a line: values, then the target
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "io/dataset.h"
#include "io/model_file.h"
#include "io/rows_file.h"
#include "io/run_file.h"

static int failed(const lf_error *err)
{
    printf("%s: %s\n", lf_code_name(err->code), err->text);
    return 1;
}

static int write_files(const char *folder)
{
    lf_error err = { 0 };
    char path[1024];
    float kernel[] = { 1, 2, 3, 4, 5, 6 }, bias[] = { -1, .5f, 0 }, m[] = { 0, 0, 0 };
    lf_file_tensor tensors[] = { { "linear_1/kernel", 2, 3, kernel }, { "linear_1/bias", 0, 3, bias } };
    uint64_t rows[] = { 5, 0, 9 };
    lf_file_tensor moments[] = { { "linear_1/bias/m", 0, 3, m } };
    lf_train_state state = { .optimizer = "adam",
                             .optimizer_step = 7,
                             .epoch = 1,
                             .step = 7,
                             .position = 64,
                             .seed = 18446744073709551615u,
                             .best = NAN,
                             .monitor_best = .25,
                             .monitor_epoch = 1,
                             .rows = rows,
                             .row_count = 3,
                             .options = "{}",
                             .moments = moments,
                             .moment_count = 1 };
    lf_model_file model = {
        .definition = "{\"layers\": [\"größe\"]}", .tensors = tensors, .tensor_count = 2, .state = &state
    };
    snprintf(path, sizeof path, "%s/model.h5", folder);
    if (!lf_model_file_write(path, &model, &err))
        return failed(&err);
    snprintf(path, sizeof path, "%s/run.h5", folder);
    lf_run *run = lf_run_create(&err);
    const int64_t steps[] = { 1, 2, 3 };
    const double times[] = { .1, .2, .3 }, values[] = { 3, 2, 1 };
    bool good = run && lf_run_set_text(run, "script", "return 1\n", &err) &&
                lf_run_set_f64(run, "parameters/lr", .001, &err) && lf_run_set_i64(run, "parameters/batch", 64, &err) &&
                lf_run_set_text(run, "step_1/name", "train", &err) &&
                lf_run_set_f64s(run, "step_1/ranks", 3, (uint64_t[]){ 1, 3, 1 }, values, &err) &&
                lf_run_set_i64s(run, "result/train/confusion", 2, (uint64_t[]){ 1, 3 }, steps, &err) &&
                lf_run_series(run, "train", "loss", 3, steps, times, values, &err) &&
                lf_run_digest(run, "train", 3, model.digest, &err) && lf_run_log(run, "", "info", "epoch 1 ✓", &err) &&
                lf_run_model(run, "train", "model", &model, &err) && lf_run_save(run, path, "done", 0, &err);
    lf_run_destroy(run);
    return good ? 0 : failed(&err);
}

static int write_rows(const char *folder)
{
    lf_error err = { 0 };
    char path[1024];
    snprintf(path, sizeof path, "%s/rows.h5", folder);
    const float logits[] = { 1, 2, 3, 4, 5, 6 };
    const uint32_t classes[] = { 2, 1, 4294967295u };
    lf_rows_file *file = lf_rows_create(path, "lavaflow-predictions", &err);
    bool good =
        file && lf_rows_add(file, "class", LF_U32, 3, 0, &err) &&
        lf_rows_add(file, "deep/logits", LF_F32, 3, 2, &err) && lf_rows_text(file, "@model", "größe.h5", &err) &&
        lf_rows_text(file, "deep/logits@long_name", "logits", &err) &&
        lf_rows_put(file, "class", 0, 3, classes, &err) && lf_rows_put(file, "deep/logits", 2, 1, logits + 4, &err) &&
        lf_rows_put(file, "deep/logits", 0, 2, logits, &err);
    if (good)
        return lf_rows_finish(file, &err) ? 0 : failed(&err);
    lf_rows_abandon(file);
    return failed(&err);
}

static int print_weights(const char *path)
{
    lf_error err = { 0 };
    lf_dataset *data = lf_dataset_open(&(lf_dataset_spec){ .file = path }, &err);
    const lf_part *part = data ? lf_dataset_part(data, LF_PART_TRAIN, &err) : NULL;
    float *w = part ? malloc(part->rows * sizeof *w) : NULL;
    bool good = w && lf_dataset_read_span(data, LF_PART_TRAIN, 0, part->rows, &(lf_rows_out){ .w = w }, &err);
    for (uint64_t i = 0; good && i < part->rows; i++)
        printf("%.9g\n", (double)w[i]);
    free(w);
    lf_dataset_close(data);
    return good ? 0 : failed(&err);
}

static int write_live(const char *path)
{
    lf_error err = { 0 };
    lf_run *run = lf_run_create(&err);
    const struct timespec pause = { .tv_nsec = 1000000 };
    bool good = run && lf_run_set_text(run, "script", "return 1\n", &err);
    for (int64_t step = 1; good; step++) {
        const double time = lf_run_time(run), value = 1. / (double)step;
        good = lf_run_series(run, "train", "loss", 1, &step, &time, &value, &err) &&
               (step % 10 || lf_run_log(run, "train", "info", "✓ 10 more", &err)) &&
               lf_run_live(run, path, (const char *const[]){ "lock", "/locks/1", NULL }, &err);
        nanosleep(&pause, NULL);
    }
    lf_run_destroy(run);
    return failed(&err);
}

static int recover(const char *live, const char *path)
{
    lf_error err = { 0 };
    return lf_run_recover(live, path, "failed", 1, &err) ? 0 : failed(&err);
}

static int print_digest(const char *path)
{
    lf_error err = { 0 };
    lf_model_file *model = lf_model_file_read(path, &err);
    if (!model)
        return failed(&err);
    printf("%s\n", model->digest);
    lf_model_file_destroy(model);
    return 0;
}

static int print_rows(const char *path)
{
    lf_error err = { 0 };
    lf_dataset *data = lf_dataset_open(&(lf_dataset_spec){ .file = path }, &err);
    const lf_part *part = data ? lf_dataset_part(data, LF_PART_TRAIN, &err) : NULL;
    if (!part) {
        lf_dataset_close(data);
        return failed(&err);
    }
    size_t element = lf_dtype_size(part->stored);
    unsigned char *x = malloc(part->rows * part->features * element);
    uint32_t *y = malloc(part->rows * sizeof *y);
    bool good = lf_dataset_read_span(data, LF_PART_TRAIN, 0, part->rows,
                                     &(lf_rows_out){ .x = x, .y = part->y_path ? y : NULL }, &err);
    for (uint64_t i = 0; good && i < part->rows; i++) {
        for (uint32_t j = 0; j < part->features; j++) {
            float value = 0;
            memcpy(&value, x + (i * part->features + j) * element, element);
            if (part->stored != LF_F32)
                value = x[i * part->features + j]; // the peer stores u8 or floats
            printf("%.9g ", (double)(value * part->scale[j] + part->offset[j]));
        }
        printf("%u\n", part->y_path ? y[i] : 0);
    }
    free(y);
    free(x);
    lf_dataset_close(data);
    return good ? 0 : failed(&err);
}

int main(int count, char **arguments)
{
    if (count == 3 && strcmp(arguments[1], "write") == 0)
        return write_files(arguments[2]) || write_rows(arguments[2]);
    if (count == 3 && strcmp(arguments[1], "model") == 0)
        return print_digest(arguments[2]);
    if (count == 3 && strcmp(arguments[1], "live") == 0)
        return write_live(arguments[2]);
    if (count == 4 && strcmp(arguments[1], "recover") == 0)
        return recover(arguments[2], arguments[3]);
    if (count == 3 && strcmp(arguments[1], "weights") == 0)
        return print_weights(arguments[2]);
    if (count == 3 && strcmp(arguments[1], "rows") == 0)
        return print_rows(arguments[2]);
    fprintf(stderr,
            "usage: h5py_peer write FOLDER | model FILE | weights FILE | rows FILE | live FILE | recover FILE OUT\n");
    return 2;
}
