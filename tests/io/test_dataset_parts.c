// Parts: the standard layout, splits, scale and offset, normalization, classes.
#include "util.h"

static void three_parts_share_one_number_of_classes(void **state)
{
    (void)state;
    const char *path = in_folder("parts.h5");
    const hsize_t dims[] = { 4, 2 };
    const uint8_t x[8] = { 0 };
    static const int16_t labels[3][4] = { { 0, 1, 1, 0 }, { 2, 0, 1, 0 }, { 5, 0, 0, 0 } };
    static const char *const names[] = { "train", "valid", "test" };
    hid_t file = h5_make(path);
    for (int i = 0; i < 3; i++) {
        char object[16];
        snprintf(object, sizeof object, "/%s/x", names[i]);
        h5_put(file, object, H5T_STD_U8LE, H5T_NATIVE_UINT8, 2, dims, NULL, x);
        snprintf(object, sizeof object, "/%s/y", names[i]);
        h5_put(file, object, H5T_STD_I16LE, H5T_NATIVE_INT16, 1, dims, NULL, labels[i]);
    }
    H5Fclose(file);
    lf_dataset *data = open_file(path);
    for (int i = 0; i < 3; i++) {
        const lf_part *part = lf_dataset_part(data, (lf_part_id)i, NULL);
        assert_string_equal(part->name, names[i]);
        assert_int_equal(part->classes, 6);
        char where[1100];
        snprintf(where, sizeof where, "%s:/%s/y", path, names[i]);
        assert_string_equal(part->y_path, where);
    }
    lf_dataset_close(data);
}

static void names_of_classes_give_their_number_and_make_whole_floats_labels(void **state)
{
    (void)state;
    const char *path = in_folder("names.h5");
    const char *const names[] = { "no", "yes", "maybe" };
    const hsize_t dims[] = { 4 };
    const float y[] = { 0, 1, 1, 0 };
    hid_t file = h5_make(path);
    h5_put(file, "/train/x", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, 1, dims, NULL, y);
    h5_put(file, "/train/y", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, 1, dims, NULL, y);
    H5Fclose(file);
    lf_dataset *data = open_file(path);
    assert_int_equal(lf_dataset_part(data, LF_PART_TRAIN, NULL)->target, LF_TARGET_VALUES);
    lf_dataset_close(data);
    file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    h5_attribute_texts(file, "/train/y", "classes", 3, names);
    H5Fclose(file);
    data = open_file(path);
    uint32_t labels[4];
    lf_error err = { 0 };
    assert_int_equal(lf_dataset_part(data, LF_PART_TRAIN, NULL)->target, LF_TARGET_CLASSES);
    assert_int_equal(lf_dataset_part(data, LF_PART_TRAIN, NULL)->classes, 3);
    assert_true(
        lf_dataset_read_span(data, LF_PART_TRAIN, 0, 4, &(lf_rows_out){ .x = (float[4]){ 0 }, .y = labels }, &err));
    for (int i = 0; i < 4; i++)
        assert_int_equal(labels[i], (uint32_t)y[i]);
    lf_dataset_close(data);
}

static void a_matrix_of_targets_is_values(void **state)
{
    (void)state;
    const char *path = in_folder("matrix.h5");
    const hsize_t dims[] = { 3, 2 }, column[] = { 3, 1 };
    const int32_t y[] = { -1, 5, 70000, 2, 0, 0 };
    hid_t file = h5_make(path);
    h5_put(file, "/train/x", H5T_STD_I32LE, H5T_NATIVE_INT32, 2, dims, NULL, y);
    h5_put(file, "/train/y", H5T_STD_I32BE, H5T_NATIVE_INT32, 2, dims, NULL, y);
    h5_put(file, "/column", H5T_STD_I32BE, H5T_NATIVE_INT32, 2, column, NULL, (int32_t[]){ 2, 0, 1 });
    H5Fclose(file);
    lf_dataset *data = open_file(path);
    const lf_part *part = lf_dataset_part(data, LF_PART_TRAIN, NULL);
    assert_int_equal(part->target, LF_TARGET_VALUES);
    assert_int_equal(part->outputs, 2);
    assert_int_equal(part->classes, 0);
    float got[6];
    int32_t x[6];
    lf_error err = { 0 };
    const uint64_t rows[] = { 2, 0, 1 };
    assert_true(lf_dataset_read(data, LF_PART_TRAIN, rows, 3, &(lf_rows_out){ .x = x, .y = got }, &err));
    for (int i = 0; i < 6; i++) {
        assert_true(got[i] == (float)y[rows[i / 2] * 2 + (uint64_t)i % 2]);
        assert_int_equal(x[i], y[rows[i / 2] * 2 + (uint64_t)i % 2]);
    }
    lf_dataset_close(data);
    data = lf_dataset_open(&(lf_dataset_spec){ .file = path, .x = "/train/x", .y = "/column" }, &err);
    assert_non_null(data);
    assert_int_equal(lf_dataset_part(data, LF_PART_TRAIN, NULL)->target, LF_TARGET_CLASSES);
    assert_int_equal(lf_dataset_part(data, LF_PART_TRAIN, NULL)->classes, 3);
    lf_dataset_close(data);
}

static void scale_and_offset_are_one_value_or_one_a_feature_of_any_number_type(void **state)
{
    (void)state;
    const char *path = in_folder("scale.h5");
    small_dataset(path, 5, 3);
    const hsize_t three = 3;
    const int16_t offsets[] = { -1, 0, 7 };
    const double scale = 1.0 / 255;
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    h5_attribute(file, "/train/x", "scale", H5T_IEEE_F64BE, H5T_NATIVE_DOUBLE, 0, NULL, &scale);
    h5_attribute(file, "/train/x", "offset", H5T_STD_I16BE, H5T_NATIVE_INT16, 1, &three, offsets);
    H5Fclose(file);
    lf_dataset *data = open_file(path);
    const lf_part *part = lf_dataset_part(data, LF_PART_TRAIN, NULL);
    for (int i = 0; i < 3; i++) {
        assert_true(part->scale[i] == (float)scale);
        assert_true(part->offset[i] == (float)offsets[i]);
    }
    lf_dataset_close(data);
}

static void without_scale_and_offset_values_are_the_stored_ones(void **state)
{
    (void)state;
    small_dataset(in_folder("plain.h5"), 5, 3);
    lf_dataset *data = open_file(in_folder("plain.h5"));
    const lf_part *part = lf_dataset_part(data, LF_PART_TRAIN, NULL);
    for (int i = 0; i < 3; i++)
        assert_true(part->scale[i] == 1 && part->offset[i] == 0);
    lf_dataset_close(data);
}

enum { SPLIT_ROWS = 1003 };

// x holds its row number, y row % 7.
static void numbered(const char *path, const layout *shape)
{
    const hsize_t dims[] = { SPLIT_ROWS, 2 };
    static int32_t x[SPLIT_ROWS][2], y[SPLIT_ROWS];
    for (int i = 0; i < SPLIT_ROWS; i++) {
        x[i][0] = i;
        x[i][1] = -i;
        y[i] = i % 7;
    }
    hid_t file = h5_make(path);
    h5_put(file, "/raw/x", H5T_STD_I32LE, H5T_NATIVE_INT32, 2, dims, shape, x);
    h5_put(file, "/raw/y", H5T_STD_I32LE, H5T_NATIVE_INT32, 1, dims, NULL, y);
    H5Fclose(file);
}

static lf_dataset *open_split(const char *path, double train, double valid, double test, uint64_t seed)
{
    lf_error err = { 0 };
    lf_dataset *data = lf_dataset_open(
        &(lf_dataset_spec){
            .file = path, .x = "/raw/x", .y = "/raw/y", .split = { train, valid, test }, .split_seed = seed },
        &err);
    if (!data)
        fail_msg("%s", err.text);
    return data;
}

// Reads a whole part and counts its rows in `seen`; the rows in order go to `order`.
static uint64_t take_part(lf_dataset *data, lf_part_id id, int *seen, int32_t *order)
{
    lf_error err = { 0 };
    const lf_part *part = lf_dataset_part(data, id, &err);
    if (!part)
        return 0;
    int32_t(*x)[2] = malloc(part->rows * sizeof *x);
    uint32_t *y = malloc(part->rows * sizeof *y);
    assert_true(lf_dataset_read_span(data, id, 0, part->rows, &(lf_rows_out){ .x = x, .y = y }, &err));
    for (uint64_t i = 0; i < part->rows; i++) {
        assert_in_range(x[i][0], 0, SPLIT_ROWS - 1);
        assert_int_equal(x[i][1], -x[i][0]);
        assert_int_equal(y[i], x[i][0] % 7);
        seen[x[i][0]]++;
        if (order)
            order[i] = x[i][0];
    }
    uint64_t rows = part->rows;
    free(y);
    free(x);
    return rows;
}

static void a_split_gives_every_row_to_one_part(void **state)
{
    (void)state;
    static const double splits[][3] = {
        { .8, .1, .1 }, { .5, 0, .5 }, { .333, .333, .334 }, { .7, .3, 0 }, { 0, .9, .1 }
    };
    static const layout layouts[] = { { .chunk = { 0 } }, { .chunk = { 64, 2 }, .deflate = true } };
    for (size_t l = 0; l < 2; l++) {
        numbered(in_folder("numbered.h5"), &layouts[l]);
        for (size_t i = 0; i < sizeof splits / sizeof *splits; i++) {
            lf_dataset *data = open_split(in_folder("numbered.h5"), splits[i][0], splits[i][1], splits[i][2], 1);
            int seen[SPLIT_ROWS] = { 0 };
            uint64_t sum = 0;
            for (int id = 0; id < 3; id++) {
                uint64_t rows = take_part(data, (lf_part_id)id, seen, NULL);
                assert_true(fabs((double)rows - splits[i][id] * SPLIT_ROWS) <= 1);
                sum += rows;
            }
            assert_int_equal(sum, SPLIT_ROWS);
            for (int row = 0; row < SPLIT_ROWS; row++)
                assert_int_equal(seen[row], 1);
            lf_dataset_close(data);
        }
    }
}

static void a_split_below_one_leaves_rows_out(void **state)
{
    (void)state;
    numbered(in_folder("numbered.h5"), NULL);
    lf_dataset *data = open_split(in_folder("numbered.h5"), .1, 0, .1, 3);
    int seen[SPLIT_ROWS] = { 0 }, most = 0;
    assert_int_equal(take_part(data, LF_PART_TRAIN, seen, NULL), 100);
    assert_int_equal(take_part(data, LF_PART_TEST, seen, NULL), 101);
    for (int row = 0; row < SPLIT_ROWS; row++)
        most = seen[row] > most ? seen[row] : most;
    assert_int_equal(most, 1);
    lf_dataset_close(data);
}

static void a_split_is_a_function_of_its_seed_and_mixes_rows(void **state)
{
    (void)state;
    numbered(in_folder("numbered.h5"), NULL);
    static int32_t orders[3][SPLIT_ROWS];
    int seen[SPLIT_ROWS] = { 0 };
    for (int i = 0; i < 3; i++) {
        lf_dataset *data = open_split(in_folder("numbered.h5"), .8, 0, .2, i == 2 ? 6 : 5);
        take_part(data, LF_PART_TRAIN, seen, orders[i]);
        lf_dataset_close(data);
    }
    assert_memory_equal(orders[0], orders[1], 802 * sizeof(int32_t));
    assert_memory_not_equal(orders[0], orders[2], 802 * sizeof(int32_t));
    int ascending = 0;
    for (int i = 1; i < 802; i++)
        ascending += orders[0][i] > orders[0][i - 1];
    assert_in_range(ascending, 300, 500);
}

static void paths_without_a_split_are_the_training_part_in_file_order(void **state)
{
    (void)state;
    numbered(in_folder("numbered.h5"), NULL);
    for (int i = 0; i < 2; i++) {
        lf_dataset *data = open_split(in_folder("numbered.h5"), i, 0, 0, 9);
        static int32_t order[SPLIT_ROWS];
        int seen[SPLIT_ROWS] = { 0 };
        assert_int_equal(take_part(data, LF_PART_TRAIN, seen, order), SPLIT_ROWS);
        for (int row = 0; row < SPLIT_ROWS; row++)
            assert_int_equal(order[row], row);
        lf_error err = { 0 };
        assert_null(lf_dataset_part(data, LF_PART_TEST, &err));
        assert_says(err, LF_ENOTFOUND, "has no part \"test\"; it has train");
        lf_dataset_close(data);
    }
}

enum { NORM_ROWS = 997, NORM_FEATURES = 4 };

// Feature 1 never changes, feature 2 has a mean far larger than its deviation.
static void write_norm(const char *path, hid_t type, const layout *shape)
{
    static double x[NORM_ROWS][NORM_FEATURES];
    const hsize_t dims[] = { NORM_ROWS, NORM_FEATURES }, two[] = { 2, NORM_FEATURES };
    const double scales[] = { .5, 2, 1, -1 }, offset = 3;
    const hsize_t four = 4;
    for (int i = 0; i < NORM_ROWS; i++) {
        x[i][0] = i % 200;
        x[i][1] = 77;
        x[i][2] = 30000 + i % 3;
        x[i][3] = (i * 31) % 101;
    }
    hid_t file = h5_make(path);
    h5_put(file, "/train/x", type, H5T_NATIVE_DOUBLE, 2, dims, shape, x);
    h5_attribute(file, "/train/x", "scale", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 1, &four, scales);
    h5_attribute(file, "/train/x", "offset", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 0, NULL, &offset);
    h5_put(file, "/test/x", H5T_IEEE_F32LE, H5T_NATIVE_DOUBLE, 2, two, NULL, x); // without scale and offset
    H5Fclose(file);
}

// Mean, deviation, least and most of the part's values as the map gives them.
static void measure(lf_dataset *data, const lf_part *part, uint32_t feature, double out[4])
{
    size_t element = lf_dtype_size(part->stored);
    char *x = malloc(part->rows * part->features * element);
    lf_error err = { 0 };
    assert_true(lf_dataset_read_span(data, LF_PART_TRAIN, 0, part->rows, &(lf_rows_out){ .x = x }, &err));
    double sum = 0, squares = 0;
    out[2] = INFINITY;
    out[3] = -INFINITY;
    for (uint64_t i = 0; i < part->rows; i++) {
        size_t at = i * part->features + feature;
        double stored = part->stored == LF_F32 ? (double)((float *)x)[at] : (double)((uint16_t *)x)[at];
        double value = stored * (double)part->scale[feature] + (double)part->offset[feature];
        sum += value;
        squares += value * value;
        out[2] = fmin(out[2], value);
        out[3] = fmax(out[3], value);
    }
    out[0] = sum / (double)part->rows;
    out[1] = sqrt(fmax(0, squares / (double)part->rows - out[0] * out[0]));
    free(x);
}

static void normalized_training_values_have_the_promised_range(void **state)
{
    (void)state;
    static const layout shape = { .chunk = { 100, 3 }, .deflate = true };
    for (int i = 0; i < 8; i++) {
        bool standard = i % 2, split = i / 2 % 2;
        write_norm(in_folder("norm.h5"), i < 4 ? H5T_STD_U16LE : H5T_IEEE_F64BE, i < 4 ? NULL : &shape);
        lf_dataset_spec spec = { .file = in_folder("norm.h5"), .normalize = standard ? "standard" : "minmax" };
        if (split) {
            spec.x = "/train/x";
            spec.split[LF_PART_TRAIN] = .5;
            spec.split[LF_PART_TEST] = .5;
        }
        lf_error err = { 0 };
        lf_dataset *data = lf_dataset_open(&spec, &err);
        if (!data)
            fail_msg("%s", err.text);
        const lf_part *part = lf_dataset_part(data, LF_PART_TRAIN, &err);
        for (uint32_t feature = 0; feature < NORM_FEATURES; feature++) {
            double got[4], bound = feature == 2 ? 4e-3 : 1e-5; // the f32 offset of feature 2 is some 30,000 deviations
            measure(data, part, feature, got);
            double want[4] = { 0, 0, 0, 0 }; // of the constant feature
            if (feature != 1) {
                memcpy(want, got, sizeof want);
                want[standard ? 0 : 2] = 0;
                want[standard ? 1 : 3] = 1;
            }
            for (int k = 0; k < 4; k++)
                if (fabs(got[k] - want[k]) > bound)
                    fail_msg("case %d, feature %u, figure %d: %.9g, not %.9g within %g", i, (unsigned)feature, k,
                             got[k], want[k], bound);
        }
        lf_dataset_close(data);
    }
}

static void the_test_part_is_normalized_by_the_training_part(void **state)
{
    (void)state;
    write_norm(in_folder("norm.h5"), H5T_STD_U16LE, NULL);
    lf_error err = { 0 };
    lf_dataset *data = lf_dataset_open(&(lf_dataset_spec){ .file = in_folder("norm.h5"), .normalize = "minmax" }, &err);
    assert_non_null(data);
    const lf_part *test = lf_dataset_part(data, LF_PART_TEST, &err);
    // Feature 0 of train runs over 0·.5+3 … 199·.5+3; a stored 0 of test, which has no scale, is the value 0.
    double value = (double)test->offset[0];
    assert_true(fabs(value - (0 - 3) / 99.5) < 1e-6);
    assert_true(fabs((double)test->scale[0] - 1 / 99.5) < 1e-8);
    lf_dataset_close(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_parts_share_one_number_of_classes),
        cmocka_unit_test(names_of_classes_give_their_number_and_make_whole_floats_labels),
        cmocka_unit_test(a_matrix_of_targets_is_values),
        cmocka_unit_test(scale_and_offset_are_one_value_or_one_a_feature_of_any_number_type),
        cmocka_unit_test(without_scale_and_offset_values_are_the_stored_ones),
        cmocka_unit_test(a_split_gives_every_row_to_one_part),
        cmocka_unit_test(a_split_below_one_leaves_rows_out),
        cmocka_unit_test(a_split_is_a_function_of_its_seed_and_mixes_rows),
        cmocka_unit_test(paths_without_a_split_are_the_training_part_in_file_order),
        cmocka_unit_test(normalized_training_values_have_the_promised_range),
        cmocka_unit_test(the_test_part_is_normalized_by_the_training_part),
    };
    return cmocka_run_group_tests_name("io: parts", tests, folder_make, folder_remove);
}
