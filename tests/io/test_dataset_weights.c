// Weights of rows, and the digest of a part's inputs.
#include "util.h"

enum { ROWS = 20, COLUMNS = 3 };

static const char *file_name;
static hid_t file;

static void start(void)
{
    file_name = in_folder("weighted.h5");
    small_dataset(file_name, ROWS, COLUMNS);
    file = H5Fopen(file_name, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(file >= 0);
}

static void put_weights(hid_t type, int rank, const hsize_t *dims, const layout *shape, const double *values)
{
    h5_put(file, "/train/w", type, H5T_NATIVE_DOUBLE, rank, dims, shape, values);
}

static void finish(lf_code code, const char *text)
{
    H5Fclose(file);
    refused(&(lf_dataset_spec){ .file = file_name }, code, text);
}

static void weights_of_every_number_type_and_layout_come_with_their_rows(void **state)
{
    (void)state;
    hid_t half = h5_half();
    const hid_t types[] = { H5T_STD_U8LE, H5T_STD_I16BE, H5T_STD_I64LE, H5T_IEEE_F32LE, H5T_IEEE_F64BE, half };
    const hsize_t flat[] = { ROWS }, column[] = { ROWS, 1 };
    static const layout layouts[] = { { .chunk = { 0 } }, { .chunk = { 7, 1 }, .deflate = true } };
    double weights[ROWS];
    for (int i = 0; i < ROWS; i++)
        weights[i] = i % 5; // also 0
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        for (int shape = 0; shape < 4; shape++) {
            start();
            put_weights(types[t], shape % 2 ? 2 : 1, shape % 2 ? column : flat, &layouts[shape / 2], weights);
            H5Fclose(file);
            lf_dataset *data = open_file(file_name);
            const lf_part *part = lf_dataset_part(data, LF_PART_TRAIN, NULL);
            assert_true(part->w_path && strstr(part->w_path, "weighted.h5:/train/w"));
            lf_error err = { 0 };
            uint8_t x[ROWS][COLUMNS];
            uint32_t y[ROWS];
            float w[ROWS];
            uint64_t rows[ROWS];
            for (uint64_t i = 0; i < ROWS; i++)
                rows[i] = (i * 7 + 3) % 11;
            assert_true(lf_dataset_read_span(data, LF_PART_TRAIN, 0, ROWS, &(lf_rows_out){ .w = w }, &err));
            for (int i = 0; i < ROWS; i++)
                assert_true(w[i] == (float)weights[i]);
            assert_true(lf_dataset_read(data, LF_PART_TRAIN, rows, ROWS, &(lf_rows_out){ x, y, w }, &err));
            for (int i = 0; i < ROWS; i++) {
                assert_true(w[i] == (float)weights[rows[i]]);
                assert_int_equal(y[i], rows[i] % 10);
                assert_int_equal(x[i][1], (uint8_t)(7 * rows[i] + 3));
            }
            lf_dataset_close(data);
        }
    }
    H5Tclose(half);
}

static void rows_without_weights_weigh_1(void **state)
{
    (void)state;
    start();
    const hsize_t dims[] = { 4, COLUMNS }, four = 4;
    const double w[] = { 2, 0, .5, 1 }, x[4 * COLUMNS] = { 0 };
    h5_put(file, "/valid/x", H5T_STD_U8LE, H5T_NATIVE_DOUBLE, 2, dims, NULL, x);
    h5_put(file, "/valid/w", H5T_IEEE_F32LE, H5T_NATIVE_DOUBLE, 1, &four, NULL, w);
    H5Fclose(file);
    lf_dataset *data = open_file(file_name); // weights in one part only
    assert_null(lf_dataset_part(data, LF_PART_TRAIN, NULL)->w_path);
    float got[ROWS] = { 0 };
    lf_error err = { 0 };
    assert_true(lf_dataset_read_span(data, LF_PART_TRAIN, 0, ROWS, &(lf_rows_out){ .w = got }, &err));
    for (int i = 0; i < ROWS; i++)
        assert_true(got[i] == 1);
    assert_true(lf_dataset_read_span(data, LF_PART_VALID, 1, 3, &(lf_rows_out){ .w = got }, &err));
    assert_true(got[0] == 0 && got[1] == .5f && got[2] == 1);
    lf_dataset_close(data);
    const float rows[] = { 1, 2 };
    data = lf_dataset_from_rows("rows", rows, 2, 1, &err);
    got[0] = got[1] = 7;
    assert_true(lf_dataset_read_span(data, LF_PART_TEST, 0, 2, &(lf_rows_out){ .w = got }, &err));
    assert_true(got[0] == 1 && got[1] == 1);
    lf_dataset_close(data);
}

static void a_split_takes_the_weights_along(void **state)
{
    (void)state;
    start();
    enum { MANY = 500 };
    const hsize_t many = MANY;
    double values[MANY];
    for (int i = 0; i < MANY; i++)
        values[i] = i;
    h5_put(file, "/raw/x", H5T_STD_I32LE, H5T_NATIVE_DOUBLE, 1, &many, NULL, values);
    h5_put(file, "/raw/importance", H5T_STD_U16LE, H5T_NATIVE_DOUBLE, 1, &many, NULL, values);
    H5Fclose(file);
    lf_error err = { 0 };
    lf_dataset *data = lf_dataset_open(
        &(lf_dataset_spec){ .file = file_name, .x = "/raw/x", .w = "/raw/importance", .split = { .6, 0, .4 } }, &err);
    if (!data)
        fail_msg("%s", err.text);
    for (int id = 0; id < LF_PART_COUNT; id += 2) {
        int32_t x[MANY];
        float w[MANY];
        const lf_part *part = lf_dataset_part(data, (lf_part_id)id, &err);
        assert_non_null(strstr(part->w_path, ":/raw/importance"));
        assert_true(lf_dataset_read_span(data, (lf_part_id)id, 0, part->rows, &(lf_rows_out){ .x = x, .w = w }, &err));
        for (uint64_t i = 0; i < part->rows; i++)
            assert_true(w[i] == (float)x[i]);
    }
    lf_dataset_close(data);
    refused(&(lf_dataset_spec){ .file = file_name, .w = "/raw/importance" }, LF_EARG,
            "weighted.h5: w names /raw/importance, but x names no object");
    refused(&(lf_dataset_spec){ .file = file_name, .x = "/raw/x", .w = "/raw/none" }, LF_ENOTFOUND,
            ":/raw/none: no such object");
}

static void weights_that_cannot_be_are_refused_when_opened(void **state)
{
    (void)state;
    const hsize_t short_one[] = { 19 }, long_one[] = { 21 }, wide[] = { ROWS, 2 }, deep[] = { ROWS, 1, 1 };
    const double w[ROWS * 2] = { 0 };
    start();
    put_weights(H5T_IEEE_F32LE, 1, short_one, NULL, w);
    finish(LF_EFORMAT, "weighted.h5:/train/w: has 19 rows, but ");
    start();
    put_weights(H5T_IEEE_F32LE, 1, long_one, NULL, w);
    finish(LF_EFORMAT, "/train/w: has 21 rows, but ");
    start();
    put_weights(H5T_IEEE_F32LE, 2, wide, NULL, w);
    finish(LF_EFORMAT, "/train/w: has rank 2 and 2 values a row; expects weights as (rows) or (rows, 1)");
    start();
    put_weights(H5T_IEEE_F32LE, 3, deep, NULL, w);
    finish(LF_EFORMAT, "/train/w: has rank 3 and 1 values a row");
    start();
    put_weights(H5T_IEEE_F32LE, 0, NULL, NULL, w);
    finish(LF_EFORMAT, "/train/w: is a single value");
    start();
    hid_t text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, 4);
    h5_put(file, "/train/w", text, text, 1, (hsize_t[]){ ROWS }, NULL, NULL);
    H5Tclose(text);
    finish(LF_EFORMAT, "/train/w: holds values of type string; expects integers or floats");
    start();
    H5Gclose(H5Gcreate2(file, "/train/w", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    finish(LF_EFORMAT, "/train/w: is a group, not a data set");
    start();
    h5_put(file, "/test/w", H5T_STD_U8LE, H5T_NATIVE_DOUBLE, 1, (hsize_t[]){ ROWS }, NULL, w);
    finish(LF_ENOTFOUND, "/test/x: no such object");
}

static void weights_below_zero_or_not_finite_are_named_when_read(void **state)
{
    (void)state;
    const struct {
        hid_t type;
        double weight;
        const char *text;
    } cases[] = {
        { H5T_IEEE_F32LE, -1.5, "weighted.h5:/train/w: weight -1.5 at row 17; expects finite numbers from 0" },
        { H5T_STD_I8LE, -3, "/train/w: weight -3 at row 17" },
        { H5T_IEEE_F64BE, NAN, "nan at row 17" },
        { H5T_IEEE_F32LE, INFINITY, "/train/w: weight inf at row 17" },
        { H5T_IEEE_F64LE, -INFINITY, "/train/w: weight -inf at row 17" },
        { H5T_IEEE_F64LE, 1e300, "/train/w: weight inf at row 17" }, // beyond what is computed with
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double w[ROWS] = { 0 };
        w[17] = cases[i].weight;
        start();
        put_weights(cases[i].type, 1, (hsize_t[]){ ROWS }, NULL, w);
        H5Fclose(file);
        lf_dataset *data = open_file(file_name);
        lf_error err = { 0 };
        float got[ROWS];
        uint8_t x[ROWS * COLUMNS];
        const lf_rows_out out = { .x = x, .w = got };
        assert_true(lf_dataset_read_span(data, LF_PART_TRAIN, 0, 17, &out, &err));
        assert_true(lf_dataset_read_span(data, LF_PART_TRAIN, 0, ROWS, &(lf_rows_out){ .x = x }, &err)); // not read
        assert_false(lf_dataset_read_span(data, LF_PART_TRAIN, 10, 10, &out, &err));
        assert_says(err, LF_EDATA, cases[i].text);
        const uint64_t rows[] = { 3, 17, 0 };
        assert_false(lf_dataset_read(data, LF_PART_TRAIN, rows, 3, &out, &err));
        assert_says(err, LF_EDATA, cases[i].text);
        lf_dataset_close(data);
    }
}

// The digest of a part, opened so; one of a few buffers that are used in turn.
static const char *digest(const lf_dataset_spec *spec, lf_part_id id)
{
    static char hex[8][65];
    static unsigned next;
    char *to = hex[next++ % 8];
    lf_error err = { 0 };
    lf_dataset *data = lf_dataset_open(spec, &err);
    if (!data || !lf_dataset_digest(data, id, to, &err))
        fail_msg("%s", err.text);
    lf_dataset_close(data);
    return to;
}

// x as floats, in a file named `name`.
static const char *write_x(const char *name, const char *object, const layout *shape, float change, double scale)
{
    const char *path = in_folder(name);
    float x[ROWS][COLUMNS];
    const hsize_t dims[] = { ROWS, COLUMNS };
    for (int i = 0; i < ROWS * COLUMNS; i++)
        x[i / COLUMNS][i % COLUMNS] = (float)i;
    x[ROWS - 1][1] += change;
    file = h5_make(path);
    h5_put(file, object, H5T_IEEE_F32BE, H5T_NATIVE_FLOAT, 2, dims, shape, x);
    if (scale != 1)
        h5_attribute(file, object, "scale", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 0, NULL, &scale);
    H5Fclose(file);
    return path;
}

static void equal_inputs_have_one_digest_wherever_they_stand(void **state)
{
    (void)state;
    const layout shape = { .chunk = { 7, 2 }, .deflate = true };
    char first[65];
    strcpy(first, digest(&(lf_dataset_spec){ .file = write_x("a.h5", "/train/x", NULL, 0, 1) }, LF_PART_TRAIN));
    assert_int_equal(strlen(first), 64);
    assert_string_equal(first,
                        digest(&(lf_dataset_spec){ .file = write_x("b.h5", "/test/x", &shape, 0, 1) }, LF_PART_TEST));
    const char *raw = write_x("c.h5", "/deep/raw", NULL, 0, 1);
    assert_string_equal(first, digest(&(lf_dataset_spec){ .file = raw, .x = "/deep/raw" }, LF_PART_TRAIN));
    assert_string_equal(first, digest(&(lf_dataset_spec){ .file = raw, .x = "deep/raw", .split = { 1, 0, 0 } },
                                      LF_PART_TRAIN)); // all rows in order
    float x[ROWS * COLUMNS];
    char hex[65];
    lf_error err = { 0 };
    for (int i = 0; i < ROWS * COLUMNS; i++)
        x[i] = (float)i;
    lf_dataset *data = lf_dataset_from_rows("rows", x, ROWS, COLUMNS, &err);
    assert_true(lf_dataset_digest(data, LF_PART_TEST, hex, &err));
    assert_string_equal(first, hex);
    assert_false(lf_dataset_digest(data, LF_PART_TRAIN, hex, &err));
    assert_says(err, LF_ENOTFOUND, "rows: has no part \"train\"; it has test");
    lf_dataset_close(data);
    x[5] = 99;
    data = lf_dataset_from_rows("rows", x, ROWS, COLUMNS, &err);
    assert_true(lf_dataset_digest(data, LF_PART_TEST, hex, &err));
    assert_string_not_equal(first, hex);
    lf_dataset_close(data);
}

static void targets_and_weights_do_not_count_in_the_digest(void **state)
{
    (void)state;
    const double w[ROWS] = { 0 };
    start();
    H5Fclose(file);
    const char *without = digest(&(lf_dataset_spec){ .file = file_name }, LF_PART_TRAIN);
    start();
    put_weights(H5T_IEEE_F32LE, 1, (hsize_t[]){ ROWS }, NULL, w);
    H5Ldelete(file, "/train/y", H5P_DEFAULT);
    H5Fclose(file);
    assert_string_equal(without, digest(&(lf_dataset_spec){ .file = file_name }, LF_PART_TRAIN));
}

static void other_values_scales_and_rows_have_other_digests(void **state)
{
    (void)state;
    const char *raw = write_x("raw.h5", "/x", NULL, 0, 1);
    const lf_dataset_spec specs[] = {
        { .file = raw, .x = "/x" },
        { .file = write_x("value.h5", "/x", NULL, 1, 1), .x = "/x" },
        { .file = write_x("scale.h5", "/x", NULL, 0, 2), .x = "/x" },
        { .file = raw, .x = "/x", .normalize = "standard" },
        { .file = raw, .x = "/x", .normalize = "minmax" },
        { .file = raw, .x = "/x", .split = { .5, .5, 0 } },
        { .file = raw, .x = "/x", .split = { .5, .5, 0 }, .split_seed = 1 },
        { .file = raw, .x = "/x", .split = { .6, .4, 0 } },
    };
    enum { COUNT = sizeof specs / sizeof *specs };
    char hex[COUNT + 1][65];
    for (size_t i = 0; i < COUNT; i++)
        strcpy(hex[i], digest(&specs[i], LF_PART_TRAIN));
    strcpy(hex[COUNT], digest(&specs[5], LF_PART_VALID));
    for (size_t i = 0; i <= COUNT; i++)
        for (size_t j = 0; j < i; j++)
            if (strcmp(hex[i], hex[j]) == 0)
                fail_msg("cases %zu and %zu have one digest", i, j);
    // The same rows, however the others are divided.
    assert_string_equal(hex[5],
                        digest(&(lf_dataset_spec){ .file = raw, .x = "/x", .split = { .5, .2, .3 } }, LF_PART_TRAIN));
}

static void the_digest_is_of_the_file_that_was_opened(void **state)
{
    (void)state;
    const char *path = write_x("opened.h5", "/train/x", NULL, 0, 1);
    const char *before = digest(&(lf_dataset_spec){ .file = path }, LF_PART_TRAIN);
    lf_dataset *data = open_file(path);
    rename(write_x("later.h5", "/train/x", NULL, 5, 1), path);
    char hex[65];
    lf_error err = { 0 };
    assert_true(lf_dataset_digest(data, LF_PART_TRAIN, hex, &err));
    assert_string_equal(before, hex);
    lf_dataset_close(data);
    assert_string_not_equal(before, digest(&(lf_dataset_spec){ .file = path }, LF_PART_TRAIN));
}

int main(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_of_every_number_type_and_layout_come_with_their_rows),
        cmocka_unit_test(rows_without_weights_weigh_1),
        cmocka_unit_test(a_split_takes_the_weights_along),
        cmocka_unit_test(weights_that_cannot_be_are_refused_when_opened),
        cmocka_unit_test(weights_below_zero_or_not_finite_are_named_when_read),
        cmocka_unit_test(equal_inputs_have_one_digest_wherever_they_stand),
        cmocka_unit_test(targets_and_weights_do_not_count_in_the_digest),
        cmocka_unit_test(other_values_scales_and_rows_have_other_digests),
        cmocka_unit_test(the_digest_is_of_the_file_that_was_opened),
    };
    return cmocka_run_group_tests_name("io: weights and digests of parts", tests, folder_make, folder_remove);
}
