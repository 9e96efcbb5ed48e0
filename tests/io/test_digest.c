// Digests of HDF5 objects: of what is in them, not of how it is stored.
#include "util.h"

enum { ROWS = 100, COLUMNS = 6 };

static void digest_of(const char *path, const char *object, char hex[65])
{
    lf_error err = { 0 };
    if (!lf_h5_digest(path, object, hex, &err))
        fail_msg("%s", err.text);
}

static void put_values(const char *path, const char *object, hid_t type, const layout *shape, double first)
{
    static double x[ROWS][COLUMNS];
    const hsize_t dims[] = { ROWS, COLUMNS };
    const double scale = .5;
    for (int i = 0; i < ROWS * COLUMNS; i++)
        x[i / COLUMNS][i % COLUMNS] = i % 100;
    x[0][0] = first;
    hid_t file = h5_make(path);
    h5_put(file, object, type, H5T_NATIVE_DOUBLE, 2, dims, shape, x);
    h5_attribute(file, object, "scale", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 0, NULL, &scale);
    H5Fclose(file);
}

static void storage_and_place_do_not_count(void **state)
{
    (void)state;
    static const layout layouts[] = {
        { .chunk = { 0 } },
        { .compact = true },
        { .chunk = { 7, 4 }, .deflate = true, .shuffle = true, .checksum = true },
        { .chunk = { ROWS, 1 } },
    };
    char first[65], other[65];
    put_values(in_folder("a.h5"), "/train/x", H5T_STD_I16LE, NULL, 5);
    digest_of(in_folder("a.h5"), "/train/x", first);
    for (size_t i = 0; i < 8; i++) {
        put_values(in_folder("b.h5"), "/elsewhere", i < 4 ? H5T_STD_I16LE : H5T_STD_I16BE, &layouts[i % 4], 5);
        digest_of(in_folder("b.h5"), "/elsewhere", other);
        assert_string_equal(first, other);
    }
}

static void siblings_do_not_count_but_members_do(void **state)
{
    (void)state;
    char before[2][65], after[2][65];
    const hsize_t one = 1;
    const uint8_t value = 3;
    put_values(in_folder("a.h5"), "/train/x", H5T_STD_I16LE, NULL, 5);
    digest_of(in_folder("a.h5"), "/train", before[0]);
    digest_of(in_folder("a.h5"), "/", before[1]);
    hid_t file = H5Fopen(in_folder("a.h5"), H5F_ACC_RDWR, H5P_DEFAULT);
    h5_put(file, "/test/x", H5T_STD_U8LE, H5T_NATIVE_UINT8, 1, &one, NULL, &value);
    H5Fclose(file);
    digest_of(in_folder("a.h5"), "/train", after[0]);
    digest_of(in_folder("a.h5"), "/", after[1]);
    assert_string_equal(before[0], after[0]);
    assert_string_not_equal(before[1], after[1]);
    digest_of(in_folder("a.h5"), "/train/", after[0]);
    assert_string_equal(before[0], after[0]);
}

static void values_types_shapes_names_and_attributes_count(void **state)
{
    (void)state;
    enum { CASES = 7 };
    char digests[CASES][65];
    const double half = .25;
    const hsize_t flat = ROWS * COLUMNS;
    static double x[ROWS * COLUMNS];
    put_values(in_folder("a.h5"), "/g/x", H5T_STD_I16LE, NULL, 5);
    digest_of(in_folder("a.h5"), "/g", digests[0]);
    put_values(in_folder("a.h5"), "/g/x", H5T_STD_I16LE, NULL, 6);
    digest_of(in_folder("a.h5"), "/g", digests[1]);
    put_values(in_folder("a.h5"), "/g/x", H5T_STD_U16LE, NULL, 5);
    digest_of(in_folder("a.h5"), "/g", digests[2]);
    put_values(in_folder("a.h5"), "/g/z", H5T_STD_I16LE, NULL, 5);
    digest_of(in_folder("a.h5"), "/g", digests[3]);
    put_values(in_folder("a.h5"), "/g/x", H5T_STD_I16LE, NULL, 5);
    hid_t file = H5Fopen(in_folder("a.h5"), H5F_ACC_RDWR, H5P_DEFAULT);
    H5Adelete_by_name(file, "/g/x", "scale", H5P_DEFAULT);
    H5Fclose(file);
    digest_of(in_folder("a.h5"), "/g", digests[4]);
    file = H5Fopen(in_folder("a.h5"), H5F_ACC_RDWR, H5P_DEFAULT);
    h5_attribute(file, "/g/x", "scale", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 0, NULL, &half);
    H5Fclose(file);
    digest_of(in_folder("a.h5"), "/g", digests[5]);
    for (int i = 0; i < ROWS * COLUMNS; i++)
        x[i] = i ? i % 100 : 5;
    file = h5_make(in_folder("a.h5"));
    h5_put(file, "/g/x", H5T_STD_I16LE, H5T_NATIVE_DOUBLE, 1, &flat, NULL, x);
    h5_attribute(file, "/g/x", "scale", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 0, NULL, (double[]){ .5 });
    H5Fclose(file);
    digest_of(in_folder("a.h5"), "/g", digests[6]);
    for (int i = 0; i < CASES; i++)
        for (int j = 0; j < i; j++)
            assert_string_not_equal(digests[i], digests[j]);
}

static void texts_of_fixed_and_variable_length_are_equal(void **state)
{
    (void)state;
    const hsize_t two = 2;
    char first[65], other[65];
    const char *const words[] = { "one", "" };
    hid_t fixed = H5Tcopy(H5T_C_S1), variable = H5Tcopy(H5T_C_S1);
    H5Tset_size(fixed, 9);
    H5Tset_size(variable, H5T_VARIABLE);
    hid_t file = h5_make(in_folder("texts.h5"));
    h5_put(file, "/fixed", fixed, fixed, 1, &two, NULL, "one\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    h5_put(file, "/variable", variable, variable, 1, &two, NULL, words);
    H5Fclose(file);
    digest_of(in_folder("texts.h5"), "/fixed", first);
    digest_of(in_folder("texts.h5"), "/variable", other);
    assert_string_equal(first, other);
    H5Tclose(variable);
    H5Tclose(fixed);
}

static void compounds_and_arrays_have_digests_of_their_members(void **state)
{
    (void)state;
    typedef struct pair {
        char letter;
        int32_t number;
    } pair;
    const pair pairs[] = { { 'a', 1 }, { 'b', 2 } };
    const hsize_t two = 2;
    hid_t memory = H5Tcreate(H5T_COMPOUND, sizeof(pair)), packed = H5Tcreate(H5T_COMPOUND, 5);
    H5Tinsert(memory, "letter", offsetof(pair, letter), H5T_NATIVE_INT8);
    H5Tinsert(memory, "number", offsetof(pair, number), H5T_NATIVE_INT32);
    H5Tinsert(packed, "letter", 0, H5T_STD_I8LE);
    H5Tinsert(packed, "number", 1, H5T_STD_I32BE);
    hid_t array = H5Tarray_create2(H5T_NATIVE_INT32, 1, &two);
    char hex[4][65];
    hid_t file = h5_make(in_folder("pairs.h5"));
    h5_put(file, "/memory", memory, memory, 1, &two, NULL, pairs);
    h5_put(file, "/packed", packed, memory, 1, &two, NULL, pairs);
    h5_put(file, "/array", array, array, 1, &two, NULL, (int32_t[]){ 1, 2, 3, 4 });
    h5_put(file, "/matrix", H5T_NATIVE_INT32, H5T_NATIVE_INT32, 2, (hsize_t[]){ 2, 2 }, NULL,
           (int32_t[]){ 1, 2, 3, 4 });
    h5_put(file, "/reference", H5T_STD_REF_OBJ, H5T_STD_REF_OBJ, 1, &two, NULL, NULL);
    H5Fclose(file);
    static const char *const names[] = { "/memory", "/packed", "/array", "/matrix" };
    for (int i = 0; i < 4; i++)
        digest_of(in_folder("pairs.h5"), names[i], hex[i]);
    assert_string_equal(hex[0], hex[1]);
    assert_string_not_equal(hex[2], hex[3]);
    lf_error err = { 0 };
    assert_false(lf_h5_digest(in_folder("pairs.h5"), "/reference", hex[0], &err));
    assert_says(err, LF_EUNSUPPORTED, "/reference: holds values of type reference, which have no digest");
    assert_false(lf_h5_digest(in_folder("pairs.h5"), "/nothing", hex[0], &err));
    assert_says(err, LF_ENOTFOUND, "/nothing: no such object: the file has /array");
    H5Tclose(array);
    H5Tclose(packed);
    H5Tclose(memory);
}

static void values_never_written_have_the_digest_of_their_shape_and_fill_value(void **state)
{
    (void)state;
    const hsize_t many = (hsize_t)1 << 50, fewer = many - 1;
    const layout shape = { .chunk = { 1024 } };
    char hex[4][65];
    hid_t file = h5_make(in_folder("unwritten.h5"));
    h5_put(file, "/many", H5T_STD_I32LE, H5T_NATIVE_INT32, 1, &many, &shape, NULL);
    h5_put(file, "/again", H5T_STD_I32BE, H5T_NATIVE_INT32, 1, &many, &shape, NULL);
    h5_put(file, "/fewer", H5T_STD_I32LE, H5T_NATIVE_INT32, 1, &fewer, &shape, NULL);
    hid_t space = H5Screate_simple(1, &many, NULL), list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(list, 1, shape.chunk);
    H5Pset_fill_value(list, H5T_NATIVE_INT32, &(int32_t){ 7 });
    H5Dclose(H5Dcreate2(file, "/sevens", H5T_STD_I32LE, space, H5P_DEFAULT, list, H5P_DEFAULT));
    H5Pclose(list);
    H5Sclose(space);
    H5Fclose(file);
    static const char *const names[] = { "/many", "/again", "/fewer", "/sevens" };
    for (int i = 0; i < 4; i++)
        digest_of(in_folder("unwritten.h5"), names[i], hex[i]);
    assert_string_equal(hex[0], hex[1]);
    assert_string_not_equal(hex[0], hex[2]);
    assert_string_not_equal(hex[0], hex[3]);
}

// 12 MB: more than one piece.
static void pieces_do_not_count(void **state)
{
    (void)state;
    enum { LONG = 3000000 };
    const hsize_t dims = LONG;
    const layout chunked = { .chunk = { 999983 }, .deflate = true };
    int32_t *x = malloc(LONG * sizeof *x);
    for (int i = 0; i < LONG; i++)
        x[i] = i / 1000;
    char hex[3][65];
    for (int i = 0; i < 3; i++) {
        x[LONG - 1] = i == 2;
        hid_t file = h5_make(in_folder("long.h5"));
        h5_put(file, "/x", H5T_STD_I32LE, H5T_NATIVE_INT32, 1, &dims, i == 1 ? &chunked : NULL, x);
        H5Fclose(file);
        digest_of(in_folder("long.h5"), "/x", hex[i]);
    }
    free(x);
    assert_string_equal(hex[0], hex[1]);
    assert_string_not_equal(hex[0], hex[2]);
}

int main(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(storage_and_place_do_not_count),
        cmocka_unit_test(siblings_do_not_count_but_members_do),
        cmocka_unit_test(values_types_shapes_names_and_attributes_count),
        cmocka_unit_test(texts_of_fixed_and_variable_length_are_equal),
        cmocka_unit_test(compounds_and_arrays_have_digests_of_their_members),
        cmocka_unit_test(values_never_written_have_the_digest_of_their_shape_and_fill_value),
        cmocka_unit_test(pieces_do_not_count),
    };
    return cmocka_run_group_tests_name("io: digests", tests, folder_make, folder_remove);
}
