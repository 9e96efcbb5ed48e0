// Files of matrices written row after row: round trips and refusals.
#include "rows.h"

#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static void what_is_put_in_any_order_is_in_the_file(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("rows.h5");
    lf_rows_file *file = begin(path);
    OK(lf_rows_add(file, "/a/logits", LF_F32, ROWS, COLS, &err));
    OK(lf_rows_put(file, "a/logits", 40, 10, sample(1, 40, 10), &err));
    OK(lf_rows_add(file, "class", LF_U32, 4, 0, &err));
    OK(lf_rows_add(file, "loss", LF_F32, 4, 0, &err));
    OK(lf_rows_text(file, "@model", "größe.h5", &err));
    OK(lf_rows_text(file, "a/logits@long_name", "", &err));
    OK(lf_rows_text(file, "class@names", "none", &err));
    OK(lf_rows_text(file, "class@names", "cat, dog", &err)); // the later one counts
    const uint32_t classes[] = { 7, UINT32_MAX, 0, 3 };
    const float losses[] = { .5f, -1, INFINITY, 0 };
    OK(lf_rows_put(file, "class", 0, 4, classes, &err));
    OK(lf_rows_put(file, "/loss", 3, 1, losses + 3, &err));
    OK(lf_rows_put(file, "loss", 0, 3, losses, &err));
    OK(lf_rows_put(file, "loss", 2, 0, NULL, &err));
    assert_int_equal(access(path, F_OK), -1); // not before it is finished
    for (uint64_t row = 0; row < 40; row += 8)
        OK(lf_rows_put(file, "/a/logits", row, 8, sample(1, row, 8), &err));
    OK(lf_rows_finish(file, &err));
    assert_int_equal(entries_with(folder(), ".tmp"), 0);
    float got[ROWS * COLS], loss[4];
    OK(lf_rows_read(path, FORMAT, "/a/logits", ROWS, COLS, got, &err));
    assert_memory_equal(got, sample(1, 0, ROWS), sizeof got);
    OK(lf_rows_read(path, FORMAT, "loss", 4, 0, loss, &err));
    assert_memory_equal(loss, losses, sizeof loss);
    const struct {
        const char *attribute, *text;
    } texts[] = {
        { "@model", "größe.h5" },   { "a/logits@long_name", "" }, { "/class@names", "cat, dog" },
        { "@creator", "lavaflow" }, { "@format", FORMAT },        { "@nothing", NULL },
        { "nothing@names", NULL },  { "@complete", NULL }, // not a text
        { "class", NULL },
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char *text = lf_rows_read_text(path, texts[i].attribute);
        if (!texts[i].text)
            assert_null(text);
        else
            assert_string_equal(text, texts[i].text);
        free(text);
    }
    assert_null(lf_rows_read_text("/no/such.h5", "@model"));
    // As data sets of any HDF5 file they have a digest.
    char hex[65];
    OK(lf_h5_digest(path, "/class", hex, &err));
}

static void a_file_without_objects_is_a_file(void **state)
{
    (void)state;
    lf_error err = { 0 };
    OK(lf_rows_finish(begin(in_folder("none.h5")), &err));
    char *text = lf_rows_read_text(in_folder("none.h5"), "@format");
    assert_string_equal(text, FORMAT);
    free(text);
}

static void equal_rows_give_equal_files(void **state)
{
    (void)state;
    size_t size[2];
    char *bytes[2];
    for (int i = 0; i < 2; i++) {
        put_file(in_folder("equal.h5"), 3);
        bytes[i] = file_bytes(in_folder("equal.h5"), &size[i]);
        if (i == 0)
            nanosleep(&(struct timespec){ .tv_sec = 1, .tv_nsec = 100000000 }, NULL);
    }
    assert_int_equal(size[0], size[1]);
    assert_memory_equal(bytes[0], bytes[1], size[0]);
    free(bytes[0]);
    free(bytes[1]);
}

static void two_files_at_once_do_not_mix(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path[] = { in_folder("one.h5"), in_folder("two.h5"), in_folder("one.h5") };
    lf_rows_file *files[3]; // the third writes what the first writes, and is later
    for (int i = 0; i < 3; i++) {
        files[i] = begin(path[i]);
        OK(lf_rows_add(files[i], "logits", LF_F32, ROWS, COLS, &err));
    }
    for (uint64_t row = 0; row < ROWS; row += 10)
        for (int i = 0; i < 3; i++)
            OK(lf_rows_put(files[i], "logits", row, 10, sample((float)i, row, 10), &err));
    for (int i = 0; i < 3; i++) {
        OK(lf_rows_finish(files[i], &err));
        assert_holds(path[i], (float)i);
    }
    assert_int_equal(entries_with(folder(), ".tmp"), 0);
}

static void what_is_too_large_for_memory_streams(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("large.h5");
    enum { LARGE = 40000, WIDE = 1000, PIECE = 500 }; // 160 MB
    static float values[PIECE][WIDE];
    lf_rows_file *file = begin(path);
    OK(lf_rows_add(file, "x", LF_F32, LARGE, WIDE, &err));
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    for (uint64_t row = 0; row < LARGE; row += PIECE) {
        values[7][3] = (float)row;
        OK(lf_rows_put(file, "x", row, PIECE, values, &err));
    }
    OK(lf_rows_finish(file, &err));
    getrusage(RUSAGE_SELF, &after);
    assert_in_range(after.ru_maxrss - before.ru_maxrss, 0, 20000); // KB
    lf_dataset *data = lf_dataset_open(&(lf_dataset_spec){ .file = path, .x = "x" }, &err);
    if (!data)
        fail_msg("%s", err.text);
    const uint64_t row = 30007;
    float got[WIDE];
    OK(lf_dataset_read(data, LF_PART_TRAIN, &row, 1, &(lf_rows_out){ .x = got }, &err));
    assert_true(got[3] == 30000 && got[4] == 0);
    lf_dataset_close(data);
    unlink(path);
}

static void wrong_calls_name_object_and_both_values(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("wrong.h5");
    lf_rows_file *file = begin(path);
    const float *values = sample(1, 0, ROWS);
    assert_false(lf_rows_put(file, "logits", 0, 1, values, &err));
    assert_says(err, LF_ENOTFOUND, "wrong.h5:logits: no such object: the file has none");
    OK(lf_rows_add(file, "logits", LF_F32, ROWS, COLS, &err));
    OK(lf_rows_add(file, "b", LF_U32, 1, 1, &err));
    assert_false(lf_rows_put(file, "logit", 0, 1, values, &err));
    assert_says(err, LF_ENOTFOUND, "wrong.h5:logit: no such object: the file has logits, b");
    const struct {
        uint64_t first;
        size_t count;
        const char *text;
    } outside[] = {
        { 50, 1, "wrong.h5:logits: 1 rows from row 50 are outside 0..49" },
        { 49, 2, "2 rows from row 49 are outside 0..49" },
        { UINT64_MAX, 2, "2 rows from row 18446744073709551615 are outside 0..49" },
        { 1, SIZE_MAX, "18446744073709551615 rows from row 1 are outside 0..49" },
    };
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        assert_false(lf_rows_put(file, "logits", outside[i].first, outside[i].count, values, &err));
        assert_says(err, LF_EARG, outside[i].text);
    }
    assert_false(lf_rows_add(file, "/logits", LF_F32, ROWS, COLS, &err));
    assert_says(err, LF_EARG, "wrong.h5:/logits: is there already");
    assert_false(lf_rows_add(file, "c", LF_U8, ROWS, COLS, &err));
    assert_says(err, LF_EARG, "wrong.h5:c: has type u8; expects f32 or u32");
    assert_false(lf_rows_add(file, "c", LF_F32, 0, COLS, &err));
    assert_says(err, LF_EARG, "wrong.h5:c: has 0 rows of 12 bytes; expects 1 to ");
    assert_false(lf_rows_add(file, "c", LF_F32, UINT64_MAX / 2, COLS, &err));
    assert_says(err, LF_EARG, "has 9223372036854775807 rows of 12 bytes");
    assert_false(lf_rows_add(file, "logits/deeper", LF_F32, ROWS, COLS, &err));
    assert_says(err, LF_EARG, "wrong.h5: logits: is not a group");
    static const char *const names[] = { "", "/", "//a", "a//b", "a/", "../a", "a/./b", "a@b" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_false(lf_rows_add(file, names[i], LF_F32, ROWS, COLS, &err));
        assert_says(err, LF_EARG, "is no name for an object");
    }
    assert_false(lf_rows_text(file, "logits", "text", &err));
    assert_says(err, LF_EARG, "wrong.h5: \"logits\" names no attribute; expects object@name or @name");
    assert_false(lf_rows_text(file, "nothing@name", "text", &err));
    assert_says(err, LF_ENOTFOUND, "wrong.h5:nothing: no such object: the file has /b, /logits");
    char *text = malloc(70000);
    memset(text, 'a', 69999);
    text[69999] = 0;
    assert_false(lf_rows_text(file, "@long", text, &err));
    assert_says(err, LF_EARG, "wrong.h5:@long: has 69999 bytes; expects at most 60000");
    text[60000] = 0;
    OK(lf_rows_text(file, "@long", text, &err));
    free(text);
    lf_rows_abandon(file);
    assert_null(lf_rows_create(in_folder("nowhere/rows.h5"), FORMAT, &err));
    assert_says(err, LF_ENOTFOUND, "nowhere: No such file or directory");
    assert_null(lf_rows_create("", FORMAT, &err));
    assert_says(err, LF_EARG, "names no file");
    assert_null(lf_rows_create(folder(), FORMAT, &err));
    assert_says(err, LF_EIO, ": cannot write: is a folder");
    assert_null(lf_rows_create("/proc/rows.h5", FORMAT, &err));
    assert_says(err, LF_EIO, "/proc/rows.h5: cannot create a file beside it: ");
}

static void files_that_are_something_else_are_not_read(void **state)
{
    (void)state;
    lf_error err = { 0 };
    float got[ROWS * COLS];
    const char *path = in_folder("else.h5");
    const struct {
        const char *format, *object;
        uint64_t rows;
        uint32_t cols;
        lf_code code;
        const char *text;
    } cases[] = {
        { "lavaflow-teacher", "logits", ROWS, COLS, LF_EFORMAT,
          "@format: is \"lavaflow-predictions\"; expects \"lavaflow-teacher\"" },
        { FORMAT, "logit", ROWS, COLS, LF_ENOTFOUND, "else.h5:logit: no such object: the file has /logits" },
        { FORMAT, "logits", 49, COLS, LF_EFORMAT,
          "else.h5:logits: has rank 2, shape (50, 3); expects rank 2, shape (49, 3)" },
        { FORMAT, "logits", ROWS, 4, LF_EFORMAT, "has rank 2, shape (50, 3); expects rank 2, shape (50, 4)" },
        { FORMAT, "logits", ROWS, 0, LF_EFORMAT, "has rank 2, shape (50, 3); expects rank 1, shape (50, 0)" },
    };
    put_file(path, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_false(lf_rows_read(path, cases[i].format, cases[i].object, cases[i].rows, cases[i].cols, got, &err));
        assert_says(err, cases[i].code, cases[i].text);
    }
    const int version[] = { 2, 0 };
    const hsize_t two = 2, dims[] = { ROWS, COLS };
    for (int i = 0; i < 4; i++) {
        put_file(path, 1);
        hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
        if (i == 0)
            H5Adelete(file, "complete");
        if (i == 1) {
            H5Adelete(file, "format_version");
            h5_attribute(file, "/", "format_version", H5T_STD_I32LE, H5T_NATIVE_INT, 1, &two, version);
        }
        if (i == 2)
            H5Adelete(file, "format");
        if (i == 3) {
            H5Ldelete(file, "logits", H5P_DEFAULT);
            h5_put(file, "logits", H5T_STD_U32LE, H5T_NATIVE_FLOAT, 2, dims, NULL, got);
        }
        H5Fclose(file);
        static const char *const texts[] = { "@complete: is missing",
                                             "else.h5: has format version 2.0; this lavaflow reads 1.x",
                                             "else.h5: is not a lavaflow lavaflow-predictions: ",
                                             "logits: holds values of type integer, 4 bytes each; expects floats" };
        assert_false(lf_rows_read(path, FORMAT, "logits", ROWS, COLS, got, &err));
        assert_says(err, i == 1 ? LF_EUNSUPPORTED : LF_EFORMAT, texts[i]);
    }
    assert_false(lf_rows_read(in_folder("absent.h5"), FORMAT, "logits", ROWS, COLS, got, &err));
    assert_says(err, LF_ENOTFOUND, "absent.h5: cannot open");
    size_t size;
    put_file(path, 1);
    char *bytes = file_bytes(path, &size);
    for (size_t cut = 0; cut < size; cut += size / 23) {
        file_put(path, bytes, cut);
        assert_false(lf_rows_read(path, FORMAT, "logits", ROWS, COLS, got, &err));
        assert_says(err, LF_EFORMAT, "else.h5: ");
    }
    free(bytes);
}

int main(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_put_in_any_order_is_in_the_file),
        cmocka_unit_test(a_file_without_objects_is_a_file),
        cmocka_unit_test(equal_rows_give_equal_files),
        cmocka_unit_test(two_files_at_once_do_not_mix),
        cmocka_unit_test(what_is_too_large_for_memory_streams),
        cmocka_unit_test(wrong_calls_name_object_and_both_values),
        cmocka_unit_test(files_that_are_something_else_are_not_read),
    };
    return cmocka_run_group_tests_name("io: files of rows", tests, folder_make, folder_remove);
}
