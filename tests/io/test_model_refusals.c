// Model files that are not what they say: a message, never a crash.
#include "util.h"

#include <sys/stat.h>

static const char *path;

static hid_t start(void)
{
    lf_model_file *model = sample_model(1, true);
    lf_error err = { 0 };
    path = in_folder("model.h5");
    model->state->monitor_best = .5;
    model->state->monitor_epoch = 3;
    model->state->row_count = 3;
    model->state->rows = calloc(3, sizeof *model->state->rows);
    assert_true(lf_model_file_write(path, model, &err));
    lf_model_file_destroy(model);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(file >= 0);
    return file;
}

static void finish(hid_t file, lf_code code, const char *text)
{
    if (file >= 0)
        H5Fclose(file);
    lf_error err = { 0 };
    lf_model_file *model = lf_model_file_read(path, &err);
    if (model)
        fail_msg("the file is read, but should say: %s", text);
    assert_says(err, code, text);
}

static void set_text(hid_t file, const char *object, const char *name, const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    H5Adelete_by_name(file, object, name, H5P_DEFAULT);
    h5_attribute(file, object, name, type, type, 0, NULL, &text);
    H5Tclose(type);
}

static void set_int(hid_t file, const char *object, const char *name, int rank, const int *values)
{
    const hsize_t two = 2;
    H5Adelete_by_name(file, object, name, H5P_DEFAULT);
    h5_attribute(file, object, name, H5T_STD_I32LE, H5T_NATIVE_INT, rank, &two, values);
}

static void headers_that_say_something_else(void **state)
{
    (void)state;
    hid_t file = start();
    H5Adelete_by_name(file, "/", "format", H5P_DEFAULT);
    finish(file, LF_EFORMAT, "model.h5: is not a lavaflow model file: ");
    file = start();
    set_text(file, "/", "format", "keras");
    finish(file, LF_EFORMAT, "@format: is \"keras\"; expects \"lavaflow-model\"");
    file = start();
    set_int(file, "/", "format", 0, (int[]){ 3 });
    finish(file, LF_EFORMAT, "@format: is 1 value(s) of type integer; expects one text");
    file = start();
    set_int(file, "/", "format_version", 1, (int[]){ 2, 0 });
    finish(file, LF_EUNSUPPORTED, "model.h5: has format version 2.0; this lavaflow reads 1.x");
    file = start();
    set_int(file, "/", "format_version", 0, (int[]){ 1 });
    finish(file, LF_EFORMAT, "@format_version: is missing or not two integers");
    file = start();
    set_int(file, "/", "complete", 0, (int[]){ 0 });
    finish(file, LF_EFORMAT, "@complete: is 0, not 1: the file was not finished");
    file = start();
    H5Adelete_by_name(file, "/", "complete", H5P_DEFAULT);
    finish(file, LF_EFORMAT, "@complete: is missing");
}

static void a_later_minor_version_is_read(void **state)
{
    (void)state;
    hid_t file = start();
    set_int(file, "/", "format_version", 1, (int[]){ 1, 7 });
    H5Fclose(file);
    lf_error err = { 0 };
    lf_model_file *model = lf_model_file_read(path, &err);
    assert_non_null(model);
    lf_model_file_destroy(model);
}

static void parts_that_are_missing(void **state)
{
    (void)state;
    hid_t file = start();
    H5Ldelete(file, "/model", H5P_DEFAULT);
    finish(file, LF_ENOTFOUND, "model.h5:/model: no such object");
    file = start();
    H5Adelete_by_name(file, "/model", "definition", H5P_DEFAULT);
    finish(file, LF_EFORMAT, "/model@definition: is missing");
    file = start();
    H5Ldelete(file, "/model/linear_2/bias", H5P_DEFAULT);
    finish(file, LF_EDATA, "the weights are damaged: their sha256 is ");
    file = start();
    H5Ldelete(file, "/digest", H5P_DEFAULT);
    finish(file, LF_ENOTFOUND, "/digest: no such object");
    file = start();
    H5Ldelete(file, "/train_state", H5P_DEFAULT);
    finish(file, LF_ENOTFOUND, "/train_state: no such object");
    file = start();
    H5Ldelete(file, "/optimizer", H5P_DEFAULT);
    finish(file, LF_ENOTFOUND, "/optimizer: no such object");
    file = start();
    H5Adelete_by_name(file, "/train_state", "epoch", H5P_DEFAULT);
    finish(file, LF_EFORMAT, "/train_state@epoch: is missing");
    file = start();
    H5Ldelete(file, "/optimizer/linear_1/kernel/v", H5P_DEFAULT);
    finish(file, LF_EDATA, "is damaged: the sha256 of definition and state is ");
}

static void values_that_changed(void **state)
{
    (void)state;
    hid_t file = start();
    hid_t set = H5Dopen2(file, "/model/linear_2/bias", H5P_DEFAULT);
    const float value = 77;
    H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, &value);
    H5Dclose(set);
    finish(file, LF_EDATA, "the weights are damaged");
    file = start();
    set_text(file, "/model", "definition", "{}");
    finish(file, LF_EDATA, "is damaged: the sha256 of definition and state");
    file = start();
    set_int(file, "/train_state", "step", 0, (int[]){ 12 });
    finish(file, LF_EDATA, "is damaged: the sha256 of definition and state");
    file = start();
    set_text(file, "/optimizer", "kind", "a name of an optimizer that is much too long");
    finish(file, LF_EFORMAT, "/optimizer@kind: has 44 characters; expects fewer than 32");
}

static void what_a_training_watches_is_checked(void **state)
{
    (void)state;
    const double number = .25;
    const hsize_t dims[] = { 3, 1 }, huge = (hsize_t)1 << 40, none = 0;
    const uint64_t rows[] = { 0, 1, 0 };
    hid_t file = start();
    H5Adelete_by_name(file, "/train_state", "monitor_best", H5P_DEFAULT);
    h5_attribute(file, "/train_state", "monitor_best", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 0, NULL, &number);
    finish(file, LF_EDATA, "is damaged: the sha256 of definition and state");
    file = start();
    H5Adelete_by_name(file, "/train_state", "monitor_best", H5P_DEFAULT);
    set_text(file, "/train_state", "monitor_best", "low");
    finish(file, LF_EFORMAT, "/train_state@monitor_best: is missing or not a number");
    file = start();
    set_text(file, "/train_state", "monitor_epoch", "3");
    finish(file, LF_EFORMAT, "/train_state@monitor_epoch: is 1 value(s) of type string; expects one integer");
    file = start();
    H5Ldelete(file, "/train_state/rows", H5P_DEFAULT);
    finish(file, LF_EDATA, "is damaged: the sha256 of definition and state");
    const struct {
        hid_t type;
        int rank;
        const hsize_t *dims;
        const void *values;
        lf_code code;
        const char *text;
    } cases[] = {
        { H5T_STD_U64LE, 1, dims, rows, LF_EDATA, "is damaged: the sha256 of definition and state" },
        { H5T_IEEE_F64LE, 1, dims, rows, LF_EFORMAT,
          "/train_state/rows: has rank 1 and 3 values of type float; expects a list of row numbers" },
        { H5T_STD_U64LE, 2, dims, rows, LF_EFORMAT, "/train_state/rows: has rank 2 and 3 values of type integer" },
        { H5T_STD_U64LE, 1, &huge, NULL, LF_EFORMAT, "/train_state/rows: has rank 1 and 1099511627776 values" },
        { H5T_STD_U64LE, 1, &none, NULL, LF_EFORMAT, "/train_state/rows: has rank 1 and 0 values" },
        { H5T_STD_U64LE, 1, dims, NULL, LF_EDATA, "/train_state/rows: was not written whole" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        file = start();
        H5Ldelete(file, "/train_state/rows", H5P_DEFAULT);
        h5_put(file, "/train_state/rows", cases[i].type, H5T_NATIVE_UINT64, cases[i].rank, cases[i].dims, NULL,
               cases[i].values);
        finish(file, cases[i].code, cases[i].text);
    }
}

static void tensors_of_other_types_and_shapes(void **state)
{
    (void)state;
    const hsize_t dims[] = { 1, 1, 1 }, none = 0, huge[] = { 1 << 20, 1 << 20 };
    const int value = 1;
    hid_t file = start();
    H5Ldelete(file, "/model/linear_2/bias", H5P_DEFAULT);
    h5_put(file, "/model/linear_2/bias", H5T_STD_I32LE, H5T_NATIVE_INT, 1, dims, NULL, &value);
    finish(file, LF_EFORMAT, "/model/linear_2/bias: holds values of type integer; expects floats");
    file = start();
    h5_put(file, "/model/extra", H5T_IEEE_F32LE, H5T_NATIVE_INT, 3, dims, NULL, &value);
    finish(file, LF_EFORMAT, "/model/extra: has rank 3");
    file = start();
    h5_put(file, "/model/extra", H5T_IEEE_F32LE, H5T_NATIVE_INT, 1, &none, NULL, NULL);
    finish(file, LF_EFORMAT, "/model/extra: has rank 1, shape (1, 0)");
    file = start();
    h5_put(file, "/model/extra", H5T_IEEE_F32LE, H5T_NATIVE_INT, 2, huge, NULL, NULL);
    finish(file, LF_EFORMAT, "/model/extra: has rank 2, shape (1048576, 1048576)");
    file = start();
    H5Lcreate_external("other.h5", "/x", file, "/model/extra", H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file); // links that lead elsewhere are not tensors
    lf_error err = { 0 };
    lf_model_file *model = lf_model_file_read(path, &err);
    assert_non_null(model);
    lf_model_file_destroy(model);
}

static void files_that_are_no_hdf5_or_cut_short(void **state)
{
    (void)state;
    path = in_folder("absent.h5");
    finish(-1, LF_ENOTFOUND, "absent.h5: cannot open: No such file");
    path = in_folder("text.h5");
    file_put(path, "not a model", 11);
    finish(-1, LF_EFORMAT, "is not an HDF5 file");
    H5Fclose(start());
    size_t size;
    char *bytes = file_bytes(path, &size);
    path = in_folder("cut.h5");
    for (size_t cut = 0; cut < size; cut += size / 37) {
        file_put(path, bytes, cut);
        finish(-1, LF_EFORMAT, cut < 8 ? "is not an HDF5 file" : "cut.h5: ");
    }
    free(bytes);
}

static void models_that_cannot_be_written(void **state)
{
    (void)state;
    static const char *const names[] = { "", "/linear_1/kernel", "../kernel", "a//b", "./a", "linear_1/kernel" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        lf_model_file *model = sample_model(1, false);
        free(model->tensors[1].name);
        model->tensors[1].name = strdup(names[i]);
        lf_error err = { 0 };
        assert_false(lf_model_file_write(in_folder("new.h5"), model, &err));
        assert_says(err, LF_EARG, "new.h5: tensor 1 (\"");
        lf_model_file_destroy(model);
    }
    lf_model_file none = { 0 };
    lf_error err = { 0 };
    assert_false(lf_model_file_write(in_folder("new.h5"), &none, &err));
    assert_says(err, LF_EARG, "has no definition");
    struct stat info;
    assert_int_equal(stat(in_folder("new.h5"), &info), -1);
}

int main(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_that_say_something_else),
        cmocka_unit_test(a_later_minor_version_is_read),
        cmocka_unit_test(parts_that_are_missing),
        cmocka_unit_test(values_that_changed),
        cmocka_unit_test(what_a_training_watches_is_checked),
        cmocka_unit_test(tensors_of_other_types_and_shapes),
        cmocka_unit_test(files_that_are_no_hdf5_or_cut_short),
        cmocka_unit_test(models_that_cannot_be_written),
    };
    return cmocka_run_group_tests_name("io: bad model files", tests, folder_make, folder_remove);
}
