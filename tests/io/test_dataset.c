// Reading rows: types, layouts, orders, threads.
#include "util.h"

#include <pthread.h>

enum { ROWS = 101, A = 5, B = 6, COLUMNS = A * B };

static double value_at(size_t row, size_t column)
{
    return (double)((row * 7 + column * 3) % 120);
}

static double delivered(lf_dtype type, const void *x, size_t i)
{
    switch (type) {
    case LF_U8:
        return ((const uint8_t *)x)[i];
    case LF_I8:
        return ((const int8_t *)x)[i];
    case LF_U16:
        return ((const uint16_t *)x)[i];
    case LF_I16:
        return ((const int16_t *)x)[i];
    case LF_U32:
        return ((const uint32_t *)x)[i];
    case LF_I32:
        return ((const int32_t *)x)[i];
    default:
        return (double)((const float *)x)[i];
    }
}

// /train/x (ROWS, A, B) in the given type and layout, /train/y of row % 10 in the same.
static void write_sample(const char *path, hid_t type, const layout *shape, hsize_t userblock)
{
    static double x[ROWS][COLUMNS], y[ROWS];
    const hsize_t dims[] = { ROWS, A, B };
    for (size_t i = 0; i < ROWS; i++) {
        y[i] = (double)(i % 10);
        for (size_t j = 0; j < COLUMNS; j++)
            x[i][j] = value_at(i, j);
    }
    hid_t creation = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_userblock(creation, userblock);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, creation, H5P_DEFAULT);
    h5_put(file, "/train/x", type, H5T_NATIVE_DOUBLE, 3, dims, shape, x);
    layout flat = shape ? *shape : (layout){ 0 };
    flat.szip = false;
    h5_put(file, "/train/y", type, H5T_NATIVE_DOUBLE, 1, dims, &flat, y);
    H5Fclose(file);
    H5Pclose(creation);
}

// Rows in several orders are the rows.
static void check_rows(lf_dataset *data, const char *name)
{
    lf_error err = { 0 };
    const lf_part *part = lf_dataset_part(data, LF_PART_TRAIN, &err);
    size_t count = 3 * ROWS, element = lf_dtype_size(part->stored);
    uint64_t *rows = malloc(count * sizeof *rows);
    char *x = malloc(count * COLUMNS * element);
    uint32_t *y = malloc(count * sizeof *y);
    bool classes = part->target == LF_TARGET_CLASSES;
    for (int order = 0; order < 5; order++) {
        size_t n = order == 0 ? ROWS : order == 4 ? 1 : count;
        for (size_t i = 0; i < n; i++)
            rows[i] = order == 0   ? i
                      : order == 1 ? (i * 37 + 11) % ROWS // scattered, each three times
                      : order == 2 ? ROWS - 1 - i % ROWS  // falling
                      : order == 3 ? i / 3                // each three times in a row
                                   : ROWS - 1;
        memset(x, 0x5a, count * COLUMNS * element);
        memset(y, 0x5a, count * sizeof *y);
        bool good = order == 0 ? lf_dataset_read_span(data, LF_PART_TRAIN, 0, n, &(lf_rows_out){ .x = x, .y = y }, &err)
                               : lf_dataset_read(data, LF_PART_TRAIN, rows, n, &(lf_rows_out){ .x = x, .y = y }, &err);
        if (!good)
            fail_msg("%s: %s", name, err.text);
        for (size_t i = 0; i < n; i++) {
            double label = classes ? y[i] : (double)((float *)y)[i];
            if (label != (double)(rows[i] % 10))
                fail_msg("%s, order %d: label of row %zu is %g", name, order, (size_t)rows[i], label);
            for (size_t j = 0; j < COLUMNS; j++)
                if (delivered(part->stored, x, i * COLUMNS + j) != value_at((size_t)rows[i], j))
                    fail_msg("%s, order %d: row %zu, column %zu is %g, not %g", name, order, (size_t)rows[i], j,
                             delivered(part->stored, x, i * COLUMNS + j), value_at((size_t)rows[i], j));
        }
    }
    free(y);
    free(x);
    free(rows);
}

static void every_number_type_and_byte_order_reads_as_its_values(void **state)
{
    (void)state;
    hid_t half = h5_half(), half_big = H5Tcopy(half);
    H5Tset_order(half_big, H5T_ORDER_BE);
    const struct {
        const char *name;
        hid_t type;
        lf_dtype stored;
        bool floats;
    } cases[] = {
        { "u8", H5T_STD_U8LE, LF_U8, false },      { "i8", H5T_STD_I8BE, LF_I8, false },
        { "u16le", H5T_STD_U16LE, LF_U16, false }, { "u16be", H5T_STD_U16BE, LF_U16, false },
        { "i16le", H5T_STD_I16LE, LF_I16, false }, { "i16be", H5T_STD_I16BE, LF_I16, false },
        { "u32le", H5T_STD_U32LE, LF_U32, false }, { "u32be", H5T_STD_U32BE, LF_U32, false },
        { "i32le", H5T_STD_I32LE, LF_I32, false }, { "i32be", H5T_STD_I32BE, LF_I32, false },
        { "u64le", H5T_STD_U64LE, LF_F32, false }, { "u64be", H5T_STD_U64BE, LF_F32, false },
        { "i64le", H5T_STD_I64LE, LF_F32, false }, { "i64be", H5T_STD_I64BE, LF_F32, false },
        { "f16le", half, LF_F32, true },           { "f16be", half_big, LF_F32, true },
        { "f32le", H5T_IEEE_F32LE, LF_F32, true }, { "f32be", H5T_IEEE_F32BE, LF_F32, true },
        { "f64le", H5T_IEEE_F64LE, LF_F32, true }, { "f64be", H5T_IEEE_F64BE, LF_F32, true },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = in_folder(cases[i].name);
        write_sample(path, cases[i].type, NULL, 0);
        lf_dataset *data = open_file(path);
        const lf_part *part = lf_dataset_part(data, LF_PART_TRAIN, NULL);
        assert_int_equal(part->stored, cases[i].stored);
        assert_int_equal(part->target, cases[i].floats ? LF_TARGET_VALUES : LF_TARGET_CLASSES);
        assert_int_equal(part->rows, ROWS);
        assert_int_equal(part->features, COLUMNS);
        assert_int_equal(part->outputs, 1);
        assert_int_equal(part->classes, cases[i].floats ? 0 : 10);
        check_rows(data, cases[i].name);
        lf_dataset_close(data);
    }
    H5Tclose(half_big);
    H5Tclose(half);
}

// h5py stores booleans as an enumeration.
static void booleans_of_h5py_are_classes_0_and_1(void **state)
{
    (void)state;
    const hsize_t dims[] = { 4 };
    const int8_t values[] = { 0, 1, 1, 0 };
    hid_t boolean = H5Tenum_create(H5T_STD_I8LE);
    H5Tenum_insert(boolean, "FALSE", &values[0]);
    H5Tenum_insert(boolean, "TRUE", &values[1]);
    hid_t file = h5_make(in_folder("bool.h5"));
    h5_put(file, "/train/x", boolean, boolean, 1, dims, NULL, values);
    h5_put(file, "/train/y", boolean, boolean, 1, dims, NULL, values);
    H5Fclose(file);
    H5Tclose(boolean);
    lf_dataset *data = open_file(in_folder("bool.h5"));
    const lf_part *part = lf_dataset_part(data, LF_PART_TRAIN, NULL);
    int8_t x[4];
    uint32_t y[4];
    lf_error err = { 0 };
    assert_int_equal(part->stored, LF_I8);
    assert_int_equal(part->classes, 2);
    assert_true(lf_dataset_read_span(data, LF_PART_TRAIN, 0, 4, &(lf_rows_out){ .x = x, .y = y }, &err));
    assert_memory_equal(x, values, sizeof x);
    for (int i = 0; i < 4; i++)
        assert_int_equal(y[i], values[i]);
    lf_dataset_close(data);
}

static void every_layout_and_filter_reads_the_same_rows(void **state)
{
    (void)state;
    static const layout layouts[] = {
        { .name = "contiguous" },
        { .name = "compact", .compact = true },
        { .name = "one row a chunk", .chunk = { 1, A, B } },
        { .name = "ragged chunks", .chunk = { 7, 2, 4 } },
        { .name = "one chunk", .chunk = { ROWS, A, B } },
        { .name = "gzip", .chunk = { 16, A, B }, .deflate = true },
        { .name = "shuffle gzip", .chunk = { 16, 3, 2 }, .shuffle = true, .deflate = true },
        { .name = "fletcher32", .chunk = { 10, A, B }, .checksum = true },
        { .name = "all", .chunk = { 9, A, 1 }, .shuffle = true, .deflate = true, .checksum = true },
        { .name = "szip", .chunk = { 16, A, B }, .szip = true },
    };
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        unsigned config = 0;
        if (layouts[i].szip &&
            (H5Zfilter_avail(H5Z_FILTER_SZIP) <= 0 || H5Zget_filter_info(H5Z_FILTER_SZIP, &config) < 0 ||
             !(config & H5Z_FILTER_CONFIG_ENCODE_ENABLED))) {
            print_message("szip: this HDF5 cannot write it\n");
            continue;
        }
        const char *path = in_folder("layout.h5");
        write_sample(path, layouts[i].compact ? H5T_STD_U8LE : H5T_STD_U16LE, &layouts[i], 0);
        lf_dataset *data = open_file(path);
        check_rows(data, layouts[i].name);
        lf_dataset_close(data);
    }
}

static void a_user_block_in_front_changes_nothing(void **state)
{
    (void)state;
    write_sample(in_folder("block.h5"), H5T_STD_U8LE, NULL, 1024);
    lf_dataset *data = open_file(in_folder("block.h5"));
    check_rows(data, "user block");
    lf_dataset_close(data);
}

// Chunks so long that a block of rows exceeds the scratch memory: read in strips.
static void chunks_larger_than_the_scratch_memory_read_the_same_rows(void **state)
{
    (void)state;
    enum { LONG = 70000, WIDE = 1030 };
    const hsize_t dims[] = { LONG, WIDE }, labels = LONG;
    const layout shape = { .chunk = { LONG, 300 }, .deflate = true };
    uint8_t *x = malloc((size_t)LONG * WIDE);
    for (size_t i = 0; i < LONG; i++)
        for (size_t j = 0; j < WIDE; j++)
            x[i * WIDE + j] = (uint8_t)(i / 100 + j);
    hid_t file = h5_make(in_folder("long.h5"));
    h5_put(file, "/train/x", H5T_STD_U8LE, H5T_NATIVE_UINT8, 2, dims, &shape, x);
    h5_put(file, "/train/y", H5T_STD_U8LE, H5T_NATIVE_UINT8, 1, &labels, NULL, x);
    H5Fclose(file);
    lf_dataset *data = open_file(in_folder("long.h5"));
    const uint64_t rows[] = { 69999, 0, 35000, 35001, 1, 12345 };
    enum { N = sizeof rows / sizeof *rows };
    uint8_t *got = malloc(N * WIDE);
    lf_error err = { 0 };
    assert_true(lf_dataset_read(data, LF_PART_TRAIN, rows, N, &(lf_rows_out){ .x = got }, &err));
    for (size_t i = 0; i < N; i++)
        assert_memory_equal(got + i * WIDE, x + rows[i] * WIDE, WIDE);
    lf_dataset_close(data);
    free(got);
    free(x);
}

// A filter that keeps the bytes and counts the chunks that are read.
enum { COUNTING_FILTER = 31998 }; // of the range for private use
static int chunks_read;

static size_t count_chunks(unsigned flags, size_t count, const unsigned values[], size_t bytes, size_t *size,
                           void **buffer)
{
    (void)count;
    (void)values;
    (void)size;
    (void)buffer;
    chunks_read += (flags & H5Z_FLAG_REVERSE) != 0;
    return bytes;
}

enum { LONG = 9000, WIDE = 128 };
static uint16_t long_rows[LONG][WIDE];

// The rows in chunks of `chunk_rows` and half the columns, opened anew.
static lf_dataset *open_counted(hsize_t chunk_rows)
{
    const hsize_t dims[] = { LONG, WIDE }, chunk[] = { chunk_rows, WIDE / 2 };
    for (int i = 0; i < LONG; i++)
        for (int j = 0; j < WIDE; j++)
            long_rows[i][j] = (uint16_t)(i * 7 + j);
    hid_t file = h5_make(in_folder("counted.h5"));
    hid_t space = H5Screate_simple(2, dims, NULL), list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(list, 2, chunk);
    H5Pset_filter(list, COUNTING_FILTER, H5Z_FLAG_MANDATORY, 0, NULL);
    hid_t set = H5Dcreate2(file, "/x", H5T_STD_U16LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(H5Dwrite(set, H5T_NATIVE_UINT16, H5S_ALL, H5S_ALL, H5P_DEFAULT, long_rows) >= 0);
    H5Dclose(set);
    H5Pclose(list);
    H5Sclose(space);
    H5Fclose(file);
    lf_error err = { 0 };
    lf_dataset *data = lf_dataset_open(&(lf_dataset_spec){ .file = in_folder("counted.h5"), .x = "/x" }, &err);
    assert_non_null(data);
    chunks_read = 0;
    return data;
}

static void each_chunk_is_inflated_once(void **state)
{
    (void)state;
    const H5Z_class2_t filter = { H5Z_CLASS_T_VERS, COUNTING_FILTER, 1, 1, "count", NULL, NULL, count_chunks };
    assert_true(H5Zregister(&filter) >= 0);
    static uint64_t rows[LONG];
    static uint16_t got[LONG][WIDE];
    lf_error err = { 0 };
    for (int i = 0; i < LONG; i++)
        rows[i] = (uint64_t)(i * 4999 + 17) % LONG;
    lf_dataset *data = open_counted(1500); // all rows, scattered, in one call
    assert_true(lf_dataset_read(data, LF_PART_TRAIN, rows, LONG, &(lf_rows_out){ .x = got }, &err));
    for (int i = 0; i < LONG; i++)
        assert_memory_equal(got[i], long_rows[rows[i]], sizeof got[0]);
    assert_int_equal(chunks_read, LONG / 1500 * 2);
    lf_dataset_close(data);
    data = open_counted(LONG / 2); // batch by batch in order; a row of chunks exceeds HDF5's own cache
    for (int i = 0; i < LONG; i += 10)
        assert_true(lf_dataset_read_span(data, LF_PART_TRAIN, (uint64_t)i, 10, &(lf_rows_out){ .x = got[i] }, &err));
    assert_memory_equal(got, long_rows, sizeof got);
    assert_int_equal(chunks_read, 4);
    lf_dataset_close(data);
    H5Zunregister(COUNTING_FILTER);
}

static void a_list_of_numbers_is_one_feature_a_row(void **state)
{
    (void)state;
    const hsize_t dims[] = { 3 };
    const float x[] = { 1.5f, -2, 0 };
    hid_t file = h5_make(in_folder("flat.h5"));
    h5_put(file, "/train/x", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, 1, dims, NULL, x);
    H5Fclose(file);
    lf_dataset *data = open_file(in_folder("flat.h5"));
    const lf_part *part = lf_dataset_part(data, LF_PART_TRAIN, NULL);
    assert_int_equal(part->rows, 3);
    assert_int_equal(part->features, 1);
    assert_int_equal(part->target, LF_TARGET_NONE);
    assert_null(part->y_path);
    float got[3];
    lf_error err = { 0 };
    assert_true(lf_dataset_read_span(data, LF_PART_TRAIN, 0, 3, &(lf_rows_out){ .x = got }, &err));
    assert_memory_equal(got, x, sizeof x);
    assert_false(lf_dataset_read_span(data, LF_PART_TRAIN, 0, 3, &(lf_rows_out){ .x = got, .y = got }, &err));
    assert_says(err, LF_EARG, "/train/x: has no targets");
    lf_dataset_close(data);
}

static void virtual_data_sets_within_the_file_are_read(void **state)
{
    (void)state;
    const char *path = in_folder("virtual.h5");
    small_dataset(path, 20, 4);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    const hsize_t dims[] = { 20, 4 };
    hid_t space = H5Screate_simple(2, dims, NULL), list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_virtual(list, space, ".", "/train/x", space);
    H5Dclose(H5Dcreate2(file, "/v", H5T_STD_U8LE, space, H5P_DEFAULT, list, H5P_DEFAULT));
    H5Pclose(list);
    H5Sclose(space);
    H5Fclose(file);
    lf_error err = { 0 };
    lf_dataset *data = lf_dataset_open(&(lf_dataset_spec){ .file = path, .x = "/v", .y = "/train/y" }, &err);
    assert_non_null(data);
    const uint64_t rows[] = { 19, 3 };
    uint8_t x[2][4];
    assert_true(lf_dataset_read(data, LF_PART_TRAIN, rows, 2, &(lf_rows_out){ .x = x }, &err));
    assert_int_equal(x[0][1], (uint8_t)(7 * 19 + 3));
    assert_int_equal(x[1][0], 21);
    lf_dataset_close(data);
}

typedef struct reader {
    lf_dataset *data;
    unsigned seed;
    bool good;
} reader;

static void *read_many(void *user)
{
    reader *r = user;
    r->good = true;
    uint16_t x[64][COLUMNS];
    uint32_t y[64];
    uint64_t rows[64];
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < 64; i++)
            rows[i] = rand_r(&r->seed) % ROWS;
        lf_error err = { 0 };
        if (!lf_dataset_read(r->data, LF_PART_TRAIN, rows, 64, &(lf_rows_out){ .x = x, .y = y }, &err))
            r->good = false;
        for (int i = 0; i < 64; i++)
            r->good &= y[i] == rows[i] % 10 && x[i][COLUMNS - 1] == value_at((size_t)rows[i], COLUMNS - 1);
    }
    return NULL;
}

static void *save_many(void *user)
{
    bool *good = user;
    lf_model_file *model = sample_model(1, true);
    *good = true;
    for (int round = 0; round < 20; round++) {
        lf_error err = { 0 };
        *good &= lf_model_file_write(in_folder("beside.h5"), model, &err);
    }
    lf_model_file_destroy(model);
    return NULL;
}

static void threads_read_while_another_saves(void **state)
{
    (void)state;
    const layout shape = { .chunk = { 16, A, B }, .deflate = true };
    write_sample(in_folder("threads.h5"), H5T_STD_U16LE, &shape, 0);
    lf_dataset *data = open_file(in_folder("threads.h5"));
    reader readers[2] = { { .data = data, .seed = 1 }, { .data = data, .seed = 2 } };
    bool saved;
    pthread_t threads[3];
    pthread_create(&threads[0], NULL, read_many, &readers[0]);
    pthread_create(&threads[1], NULL, read_many, &readers[1]);
    pthread_create(&threads[2], NULL, save_many, &saved);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_true(readers[0].good && readers[1].good && saved);
    lf_dataset_close(data);
}

static void rows_in_memory_are_the_test_part(void **state)
{
    (void)state;
    const float x[] = { 1, 2, 3, 4, 5, 6 };
    float got[4];
    lf_error err = { 0 };
    // Two at once, and a model beside them: each is a file in memory of its own.
    lf_dataset *data = lf_dataset_from_rows("rows", x, 3, 2, &err),
               *other = lf_dataset_from_rows("other", x, 2, 3, &err);
    assert_non_null(data);
    assert_non_null(other);
    lf_model_file *model = sample_model(1, false);
    assert_true(lf_model_file_write(in_folder("beside.h5"), model, &err));
    lf_model_file_destroy(model);
    assert_int_equal(lf_dataset_part(data, LF_PART_TEST, &err)->rows, 3);
    assert_int_equal(lf_dataset_part(other, LF_PART_TEST, &err)->features, 3);
    const uint64_t rows[] = { 2, 0 };
    assert_true(lf_dataset_read(data, LF_PART_TEST, rows, 2, &(lf_rows_out){ .x = got }, &err));
    assert_memory_equal(got, ((const float[]){ 5, 6, 1, 2 }), sizeof got);
    lf_dataset_close(other);
    lf_dataset_close(data);
    assert_null(lf_dataset_from_rows("rows", (const float[]){ 0 }, 0, 2, &err));
    assert_says(err, LF_EDATA, "rows:/test/x: is empty");
}

static herr_t host_report(hid_t stack, void *user)
{
    (void)stack;
    ++*(int *)user;
    return 0;
}

static void the_host_keeps_its_own_hdf5_error_report(void **state)
{
    (void)state;
    int reports = 0;
    H5E_auto2_t before;
    void *before_user;
    H5Eget_auto2(H5E_DEFAULT, &before, &before_user);
    H5Eset_auto2(H5E_DEFAULT, host_report, &reports);
    lf_error err = { 0 };
    file_put(in_folder("junk.h5"), "\211HDF\r\n\032\n and then nothing more", 30);
    assert_null(lf_dataset_open(&(lf_dataset_spec){ .file = in_folder("junk.h5") }, &err));
    assert_int_equal(reports, 0);
    H5Fopen("/no/such/file", H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_int_equal(reports, 1);
    H5Eset_auto2(H5E_DEFAULT, before, before_user);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_number_type_and_byte_order_reads_as_its_values),
        cmocka_unit_test(booleans_of_h5py_are_classes_0_and_1),
        cmocka_unit_test(every_layout_and_filter_reads_the_same_rows),
        cmocka_unit_test(a_user_block_in_front_changes_nothing),
        cmocka_unit_test(chunks_larger_than_the_scratch_memory_read_the_same_rows),
        cmocka_unit_test(each_chunk_is_inflated_once),
        cmocka_unit_test(a_list_of_numbers_is_one_feature_a_row),
        cmocka_unit_test(virtual_data_sets_within_the_file_are_read),
        cmocka_unit_test(threads_read_while_another_saves),
        cmocka_unit_test(rows_in_memory_are_the_test_part),
        cmocka_unit_test(the_host_keeps_its_own_hdf5_error_report),
    };
    return cmocka_run_group_tests_name("io: rows", tests, folder_make, folder_remove);
}
