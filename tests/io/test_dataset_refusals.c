// What a data set file must not be: each is refused with a message that names the thing and both values.
#include <sys/stat.h>

#include "util.h"

static const char *file_name;
static hid_t file;

static void start(void)
{
    file_name = in_folder("bad.h5");
    small_dataset(file_name, 20, 3);
    file = H5Fopen(file_name, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(file >= 0);
}

static void replace(const char *path, hid_t type, hid_t memory_type, int rank, const hsize_t *dims, const void *values)
{
    if (H5Lexists(file, path, H5P_DEFAULT) > 0)
        H5Ldelete(file, path, H5P_DEFAULT);
    h5_put(file, path, type, memory_type, rank, dims, NULL, values);
}

// Closes the file under construction and opens it as a data set: it must be refused.
static void finish(lf_code code, const char *text)
{
    H5Fclose(file);
    refused(&(lf_dataset_spec){ .file = file_name }, code, text);
}

static void files_that_are_missing_or_something_else(void **state)
{
    (void)state;
    refused(&(lf_dataset_spec){ .file = "" }, LF_EARG, "no file is named");
    refused(&(lf_dataset_spec){ .file = "/no/such.h5" }, LF_ENOTFOUND, "/no/such.h5: cannot open: No such file");
    refused(&(lf_dataset_spec){ .file = folder() }, LF_EFORMAT, "is a folder, not an HDF5 file");
    refused(&(lf_dataset_spec){ .file = "/dev/null" }, LF_EFORMAT, "is not a plain file");
    assert_int_equal(mkfifo(in_folder("pipe.h5"), 0600), 0); // nobody writes: opening it must not wait
    refused(&(lf_dataset_spec){ .file = in_folder("pipe.h5") }, LF_EFORMAT, "is not a plain file");
    file_put(in_folder("text.h5"), "hello", 5);
    refused(&(lf_dataset_spec){ .file = in_folder("text.h5") }, LF_EFORMAT, "is not an HDF5 file (5 bytes");
    small_dataset(in_folder("whole.h5"), 2000, 10);
    size_t size;
    char *bytes = file_bytes(in_folder("whole.h5"), &size);
    file_put(in_folder("cut.h5"), bytes, size / 2);
    free(bytes);
    refused(&(lf_dataset_spec){ .file = in_folder("cut.h5") }, LF_EFORMAT, "truncated file");
}

static void objects_that_are_missing_list_what_is_there(void **state)
{
    (void)state;
    const hsize_t one = 1;
    const uint8_t value = 0;
    const char *path = in_folder("other.h5");
    hid_t other = h5_make(path);
    h5_put(other, "/entry/data/x", H5T_STD_U8LE, H5T_NATIVE_UINT8, 1, &one, NULL, &value);
    h5_put(other, "/labels", H5T_STD_U8LE, H5T_NATIVE_UINT8, 1, &one, NULL, &value);
    H5Fclose(other);
    refused(&(lf_dataset_spec){ .file = path }, LF_ENOTFOUND,
            "other.h5:/train/x: no such object: the file has /entry/data/x, /labels");
    refused(&(lf_dataset_spec){ .file = path, .x = "/entry/data/z" }, LF_ENOTFOUND, ":/entry/data/z: no such object");
    refused(&(lf_dataset_spec){ .file = path, .x = "/labels", .y = "/labels/deeper" }, LF_ENOTFOUND, "no such object");
    refused(&(lf_dataset_spec){ .file = path, .x = "" }, LF_ENOTFOUND, "no such object");
    refused(&(lf_dataset_spec){ .file = path, .x = "/entry/data" }, LF_EFORMAT,
            "/entry/data: is a group, not a data set");
    other = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    for (int i = 0; i < 20; i++) {
        char name[16];
        snprintf(name, sizeof name, "/many/%02d", i);
        h5_put(other, name, H5T_STD_U8LE, H5T_NATIVE_UINT8, 1, &one, NULL, &value);
    }
    H5Fclose(other);
    refused(&(lf_dataset_spec){ .file = path }, LF_ENOTFOUND, "/many/09 and 10 more");
    other = h5_make(path);
    H5Fclose(other);
    refused(&(lf_dataset_spec){ .file = path }, LF_ENOTFOUND, "the file has no data sets");
}

static void types_that_are_no_numbers_are_named(void **state)
{
    (void)state;
    const hsize_t dims[] = { 20 };
    hid_t text = H5Tcopy(H5T_C_S1), pair = H5Tcreate(H5T_COMPOUND, 2);
    H5Tset_size(text, 8);
    H5Tinsert(pair, "a", 0, H5T_NATIVE_INT8);
    H5Tinsert(pair, "b", 1, H5T_NATIVE_INT8);
    const hsize_t two = 2;
    hid_t array = H5Tarray_create2(H5T_NATIVE_INT8, 1, &two);
    hid_t list = H5Tvlen_create(H5T_NATIVE_INT8);
    const struct {
        hid_t type;
        const char *name;
    } cases[] = {
        { text, "string" },          { pair, "compound" },
        { array, "array" },          { H5T_STD_REF_OBJ, "reference" },
        { list, "variable-length" }, { H5T_STD_B8LE, "bit field" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char message[128];
        start();
        replace("/train/x", cases[i].type, cases[i].type, 1, dims, NULL);
        snprintf(message, sizeof message, "/train/x: holds values of type %s; expects integers or floats",
                 cases[i].name);
        finish(LF_EFORMAT, message);
    }
    start();
    replace("/train/y", text, text, 1, dims, NULL);
    finish(LF_EFORMAT, "/train/y: holds values of type string");
    H5Tclose(list);
    H5Tclose(array);
    H5Tclose(pair);
    H5Tclose(text);
}

static void shapes_that_hold_no_rows_or_disagree(void **state)
{
    (void)state;
    const hsize_t none[] = { 0, 3 }, thin[] = { 20, 0 }, nineteen = 19, four[] = { 20, 4 };
    const uint8_t values[80] = { 0 };
    start();
    replace("/train/x", H5T_STD_U8LE, H5T_NATIVE_UINT8, 2, none, NULL);
    finish(LF_EDATA, "/train/x: is empty: 0 rows of 3 values");
    start();
    replace("/train/x", H5T_STD_U8LE, H5T_NATIVE_UINT8, 2, thin, NULL);
    finish(LF_EDATA, "/train/x: is empty: 20 rows of 0 values");
    start();
    replace("/train/x", H5T_STD_U8LE, H5T_NATIVE_UINT8, 0, NULL, values);
    finish(LF_EFORMAT, "/train/x: is a single value");
    start();
    replace("/train/y", H5T_STD_U8LE, H5T_NATIVE_UINT8, 1, &nineteen, values);
    finish(LF_EFORMAT, "/train/y: has 19 rows, but ");
    start();
    replace("/test/x", H5T_STD_U8LE, H5T_NATIVE_UINT8, 2, four, values);
    finish(LF_EFORMAT, "/test/x: has 4 features a row, but ");
    start();
    replace("/test/x", H5T_STD_U8LE, H5T_NATIVE_UINT8, 2, (hsize_t[]){ 20, 3 }, values);
    replace("/test/y", H5T_STD_U8LE, H5T_NATIVE_UINT8, 2, four, values);
    finish(LF_EFORMAT, "/test/y: holds values, 4 a row, but ");
    start();
    H5Ldelete(file, "/train/x", H5P_DEFAULT);
    finish(LF_ENOTFOUND, "/train/x: no such object: the file has /train/y");
}

static void labels_out_of_range(void **state)
{
    (void)state;
    enum { N = 500 };
    const hsize_t dims[] = { N };
    const char *const names[] = { "0", "1", "2", "3", "4", "5", "6", "7", "8", "9" };
    const struct {
        double label;
        hid_t type;
        bool named;
        const char *message;
    } cases[] = {
        { 11, H5T_STD_U8LE, true, "/train/y: label 11 at row 403 is outside 0..9" },
        { 10, H5T_IEEE_F32LE, true, "/train/y: label 10 at row 403 is outside 0..9" },
        { -1, H5T_STD_I16BE, true, "/train/y: label -1 at row 403 is outside 0..9" },
        { -3, H5T_STD_I64LE, false, "/train/y: label -3 at row 403 is outside 0.." },
        { 1e15, H5T_STD_U64LE, false, "/train/y: label 1000000000000000 at row 403 is outside 0..2147483646" },
        { 1.5, H5T_IEEE_F64LE, true, "/train/y: label 1.5 at row 403 is not a whole number" },
        { NAN, H5T_IEEE_F64LE, true, "/train/y: label nan at row 403" },
        { INFINITY, H5T_IEEE_F64LE, true, "/train/y: label inf at row 403" },
    };
    static double y[N];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        start();
        y[403] = cases[i].label;
        replace("/train/x", H5T_IEEE_F32LE, H5T_NATIVE_DOUBLE, 1, dims, y);
        replace("/train/y", cases[i].type, H5T_NATIVE_DOUBLE, 1, dims, y);
        if (cases[i].named)
            h5_attribute_texts(file, "/train/y", "classes", 10, names);
        finish(LF_EDATA, cases[i].message);
    }
    start();
    h5_attribute_texts(file, "/train/y", "classes", 10, names);
    replace("/test/x", H5T_STD_U8LE, H5T_NATIVE_DOUBLE, 2, (hsize_t[]){ 20, 3 }, y);
    replace("/test/y", H5T_STD_U8LE, H5T_NATIVE_DOUBLE, 1, (hsize_t[]){ 20 }, y);
    h5_attribute_texts(file, "/test/y", "classes", 9, names);
    finish(LF_EFORMAT, "/test/y@classes: has 9 names, but ");
}

static void labels_that_change_after_opening_are_caught_on_reading(void **state)
{
    (void)state;
    start();
    H5Fclose(file);
    lf_dataset *data = open_file(file_name);
    size_t size;
    char *bytes = file_bytes(file_name, &size);
    static const uint8_t labels[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 };
    char *at = memmem(bytes, size, labels, sizeof labels);
    assert_non_null(at);
    FILE *out = fopen(file_name, "r+b");
    fseek(out, at - bytes + 4, SEEK_SET);
    fputc(99, out);
    fclose(out);
    uint8_t x[60];
    uint32_t y[20];
    lf_error err = { 0 };
    // HDF5 may or may not still hold the old values in memory; a label out of range never comes out.
    if (lf_dataset_read_span(data, LF_PART_TRAIN, 0, 20, &(lf_rows_out){ .x = x, .y = y }, &err))
        assert_int_equal(y[4], 4);
    else
        assert_says(err, LF_EDATA, "/train/y: label 99 at row 4 is outside 0..9");
    lf_dataset_close(data);
    free(bytes);
}

static void values_that_are_not_finite_are_named_when_read(void **state)
{
    (void)state;
    const hid_t types[] = { H5T_IEEE_F32LE, H5T_IEEE_F64BE };
    const float bad[] = { NAN, INFINITY, -INFINITY };
    const char *const text[] = { "nan", "inf", "-inf" };
    for (int i = 0; i < 6; i++) {
        float values[20][6] = { { 0 } };
        values[17][4] = bad[i % 3];
        start();
        replace("/train/x", types[i / 3], H5T_NATIVE_FLOAT, 3, (hsize_t[]){ 20, 2, 3 }, values);
        H5Fclose(file);
        lf_dataset *data = open_file(file_name);
        float x[20][6];
        lf_error err = { 0 };
        char message[64];
        snprintf(message, sizeof message, "/train/x: value %s at row 17, column 4", text[i % 3]);
        assert_true(lf_dataset_read_span(data, LF_PART_TRAIN, 0, 17, &(lf_rows_out){ .x = x }, &err));
        assert_false(lf_dataset_read_span(data, LF_PART_TRAIN, 10, 10, &(lf_rows_out){ .x = x }, &err));
        if (!strstr(err.text, message) && !strstr(err.text, "value -nan at row 17, column 4"))
            assert_says(err, LF_EDATA, message);
        const uint64_t rows[] = { 3, 17, 0 };
        assert_false(lf_dataset_read(data, LF_PART_TRAIN, rows, 3, &(lf_rows_out){ .x = x }, &err));
        assert_int_equal(err.code, LF_EDATA);
        lf_dataset_close(data);
        assert_null(lf_dataset_open(&(lf_dataset_spec){ .file = file_name, .normalize = "standard" }, &err));
        assert_int_equal(err.code, LF_EDATA);
    }
    float targets[20][2] = { { 0 } };
    targets[5][1] = INFINITY;
    start();
    replace("/train/y", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, 2, (hsize_t[]){ 20, 2 }, targets);
    H5Fclose(file);
    lf_dataset *data = open_file(file_name);
    uint8_t x[60];
    float y[40];
    lf_error err = { 0 };
    assert_false(lf_dataset_read_span(data, LF_PART_TRAIN, 0, 20, &(lf_rows_out){ .x = x, .y = y }, &err));
    assert_says(err, LF_EDATA, "/train/y: value inf at row 5, column 1");
    lf_dataset_close(data);
}

static void rows_outside_the_part(void **state)
{
    (void)state;
    start();
    H5Fclose(file);
    lf_dataset *data = open_file(file_name);
    uint8_t x[60];
    lf_error err = { 0 };
    const uint64_t rows[] = { 0, 20 };
    assert_false(lf_dataset_read(data, LF_PART_TRAIN, rows, 2, &(lf_rows_out){ .x = x }, &err));
    assert_says(err, LF_EARG, "/train/x: row 20 of part \"train\" is outside 0..19");
    assert_false(lf_dataset_read_span(data, LF_PART_TRAIN, 15, 6, &(lf_rows_out){ .x = x }, &err));
    assert_says(err, LF_EARG, "row 20 of part");
    assert_false(lf_dataset_read_span(data, LF_PART_TRAIN, UINT64_MAX, 2, &(lf_rows_out){ .x = x }, &err));
    assert_false(lf_dataset_read_span(data, LF_PART_TEST, 0, 1, &(lf_rows_out){ .x = x }, &err));
    assert_says(err, LF_ENOTFOUND, "has no part \"test\"; it has train");
    assert_true(lf_dataset_read(data, LF_PART_TRAIN, NULL, 0, &(lf_rows_out){ 0 }, &err));
    lf_dataset_close(data);
}

static void scales_that_do_not_fit(void **state)
{
    (void)state;
    const double values[] = { 1, 2, NAN, 4 };
    const hsize_t four = 4, three = 3;
    const char *const text[] = { "big" };
    start();
    h5_attribute(file, "/train/x", "scale", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 1, &four, values);
    finish(LF_EFORMAT, "/train/x@scale: has 4 values, but a row of x has 3 features");
    start();
    h5_attribute(file, "/train/x", "offset", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 1, &three, values);
    finish(LF_EDATA, "/train/x@offset: is nan at feature 2");
    start();
    h5_attribute_texts(file, "/train/x", "scale", 1, text);
    finish(LF_EFORMAT, "/train/x@scale: holds values of type string; expects numbers");
    start();
    h5_attribute(file, "/train/y", "classes", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 0, NULL, values);
    finish(LF_EFORMAT, "/train/y@classes: has rank 0 and 1 values; expects a list of names");
}

static void specs_that_contradict_themselves(void **state)
{
    (void)state;
    start();
    H5Fclose(file);
    const char *f = file_name, *x = "/train/x", *y = "/train/y";
    refused(&(lf_dataset_spec){ .file = f, .x = x, .split = { .8, .3, 0 } }, LF_EARG, "the fractions sum to 1.1");
    refused(&(lf_dataset_spec){ .file = f, .x = x, .split = { 1.5, 0, 0 } }, LF_EARG, "train is 1.5");
    refused(&(lf_dataset_spec){ .file = f, .x = x, .split = { .5, -.1, 0 } }, LF_EARG, "valid is -0.1");
    refused(&(lf_dataset_spec){ .file = f, .x = x, .split = { .5, 0, NAN } }, LF_EARG, "test is nan");
    refused(&(lf_dataset_spec){ .file = f, .split = { .5, .5, 0 } }, LF_EARG,
            "split divides the rows that x and y name");
    refused(&(lf_dataset_spec){ .file = f, .x = x, .split = { .99, .01, 0 } }, LF_EARG, "valid is 0.01 of 20 rows");
    refused(&(lf_dataset_spec){ .file = f, .y = y }, LF_EARG, "y names /train/y, but x names no object");
    refused(&(lf_dataset_spec){ .file = f, .normalize = "weird" }, LF_EARG, "normalize is \"weird\"");
    refused(&(lf_dataset_spec){ .file = f, .x = x, .y = y, .split = { 0, 0, .5 }, .normalize = "standard" },
            LF_ENOTFOUND, "has no part \"train\"");
}

static void values_in_other_files_are_refused(void **state)
{
    (void)state;
    small_dataset(in_folder("elsewhere.h5"), 20, 3);
    start();
    H5Ldelete(file, "/train/x", H5P_DEFAULT);
    H5Lcreate_external("elsewhere.h5", "/train/x", file, "/train/x", H5P_DEFAULT, H5P_DEFAULT);
    finish(LF_EUNSUPPORTED, "/train/x: is an external link to elsewhere.h5:/train/x");
    start();
    H5Ldelete(file, "/train", H5P_DEFAULT);
    H5Lcreate_external("elsewhere.h5", "/train", file, "/outside", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_soft("/outside", file, "/train", H5P_DEFAULT, H5P_DEFAULT);
    finish(LF_EUNSUPPORTED, "is an external link to elsewhere.h5:/train");
    const hsize_t dims[] = { 20, 3 };
    hid_t space = H5Screate_simple(2, dims, NULL);
    for (int i = 0; i < 3; i++) {
        hid_t list = H5Pcreate(H5P_DATASET_CREATE);
        start();
        H5Ldelete(file, "/train/x", H5P_DEFAULT);
        if (i == 0)
            H5Pset_external(list, in_folder("raw.bin"), 0, 60);
        else
            H5Pset_virtual(list, space, "elsewhere.h5", "/train/x", space);
        H5Dclose(
            H5Dcreate2(file, i == 2 ? "/hidden" : "/train/x", H5T_STD_U8LE, space, H5P_DEFAULT, list, H5P_DEFAULT));
        H5Pclose(list);
        if (i == 2) { // a virtual data set of a virtual data set of another file
            list = H5Pcreate(H5P_DATASET_CREATE);
            H5Pset_virtual(list, space, ".", "/hidden", space);
            H5Dclose(H5Dcreate2(file, "/train/x", H5T_STD_U8LE, space, H5P_DEFAULT, list, H5P_DEFAULT));
            H5Pclose(list);
        }
        finish(LF_EUNSUPPORTED,
               i == 0 ? "has its values outside, in " : "is a virtual data set with values in elsewhere.h5");
    }
    H5Sclose(space);
}

static size_t keep(unsigned flags, size_t count, const unsigned values[], size_t bytes, size_t *size, void **buffer)
{
    (void)flags;
    (void)count;
    (void)values;
    (void)size;
    (void)buffer;
    return bytes;
}

static void filters_that_are_not_installed_are_named(void **state)
{
    (void)state;
    enum { FILTER = 31999 }; // of the range for private use
    const H5Z_class2_t filter = { H5Z_CLASS_T_VERS, FILTER, 1, 1, "mystery", NULL, NULL, keep };
    H5Zregister(&filter);
    start();
    H5Ldelete(file, "/train/x", H5P_DEFAULT);
    const hsize_t dims[] = { 20, 3 };
    const uint8_t values[60] = { 0 };
    hid_t space = H5Screate_simple(2, dims, NULL), list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(list, 2, dims);
    H5Pset_filter(list, FILTER, H5Z_FLAG_MANDATORY, 0, NULL);
    hid_t set = H5Dcreate2(file, "/train/x", H5T_STD_U8LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(H5Dwrite(set, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Dclose(set);
    H5Pclose(list);
    H5Sclose(space);
    H5Fclose(file);
    H5Zunregister(FILTER);
    refused(&(lf_dataset_spec){ .file = file_name }, LF_EUNSUPPORTED,
            "/train/x: needs HDF5 filter 31999 (mystery), which is not installed");
}

static void values_that_were_never_written(void **state)
{
    (void)state;
    const hsize_t dims[] = { (hsize_t)1 << 40 }, plain[] = { 20, 3 };
    const layout shape = { .chunk = { 1024 } };
    start();
    H5Ldelete(file, "/train/x", H5P_DEFAULT);
    H5Ldelete(file, "/train/y", H5P_DEFAULT);
    h5_put(file, "/train/x", H5T_STD_U8LE, H5T_NATIVE_UINT8, 1, dims, &shape, NULL);
    h5_put(file, "/train/y", H5T_STD_U8LE, H5T_NATIVE_UINT8, 1, dims, &shape, NULL);
    finish(LF_EDATA,
           "/train/x: was not written whole: its values take at least 1073741824 bytes, but the file holds 0");
    start();
    replace("/train/x", H5T_STD_I16LE, H5T_NATIVE_INT16, 2, plain, NULL);
    finish(LF_EDATA, "/train/x: was not written whole: its values take at least 120 bytes, but the file holds 0");
}

int main(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_that_are_missing_or_something_else),
        cmocka_unit_test(objects_that_are_missing_list_what_is_there),
        cmocka_unit_test(types_that_are_no_numbers_are_named),
        cmocka_unit_test(shapes_that_hold_no_rows_or_disagree),
        cmocka_unit_test(labels_out_of_range),
        cmocka_unit_test(labels_that_change_after_opening_are_caught_on_reading),
        cmocka_unit_test(values_that_are_not_finite_are_named_when_read),
        cmocka_unit_test(rows_outside_the_part),
        cmocka_unit_test(scales_that_do_not_fit),
        cmocka_unit_test(specs_that_contradict_themselves),
        cmocka_unit_test(values_in_other_files_are_refused),
        cmocka_unit_test(filters_that_are_not_installed_are_named),
        cmocka_unit_test(values_that_were_never_written),
    };
    return cmocka_run_group_tests_name("io: refusals", tests, folder_make, folder_remove);
}
