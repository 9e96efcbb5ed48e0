// Rows of a file that several threads read together.
#include <unistd.h>

#include "util.h"

enum { ROWS = 40000, COLUMNS = 120, PICKS = 20000 };

static uint64_t picks[PICKS];

// Half of the rows, in no order.
static void pick_rows(void)
{
    for (uint64_t i = 0; i < PICKS; i++)
        picks[i] = i * 7919 % ROWS;
}

static lf_dataset *open_sample(void)
{
    small_dataset(in_folder("shared.h5"), ROWS, COLUMNS);
    setenv("LAVAFLOW_THREADS", "4", 1);
    return open_file(in_folder("shared.h5"));
}

static void scattered_rows_stand_where_they_were_asked_for(void **state)
{
    (void)state;
    static uint8_t x[PICKS][COLUMNS];
    static uint32_t y[PICKS];
    lf_error err;
    lf_dataset *data = open_sample();
    pick_rows();
    OK(lf_dataset_read(data, LF_PART_TRAIN, picks, PICKS, &(lf_rows_out){ .x = x, .y = y }, &err));
    for (uint64_t i = 0; i < PICKS; i++) {
        assert_int_equal(y[i], picks[i] % 10);
        for (uint64_t c = 0; c < COLUMNS; c++)
            if (x[i][c] != (uint8_t)(7 * picks[i] + 3 * c))
                fail_msg("row %d, column %d: %d", (int)picks[i], (int)c, x[i][c]);
    }
    lf_dataset_close(data);
}

static void a_long_run_of_rows_is_whole(void **state)
{
    (void)state;
    static uint8_t x[ROWS][COLUMNS];
    lf_error err;
    lf_dataset *data = open_sample();
    OK(lf_dataset_read_span(data, LF_PART_TRAIN, 0, ROWS, &(lf_rows_out){ .x = x }, &err));
    for (uint64_t i = 0; i < ROWS; i++)
        for (uint64_t c = 0; c < COLUMNS; c++)
            if (x[i][c] != (uint8_t)(7 * i + 3 * c))
                fail_msg("row %d, column %d: %d", (int)i, (int)c, x[i][c]);
    lf_dataset_close(data);
}

static uint64_t first_missing; // row

static void cut_file(const char *path)
{
    size_t size;
    char *bytes = file_bytes(path, &size), values[COLUMNS];
    assert_non_null(bytes);
    first_missing = ROWS / 2;
    for (size_t c = 0; c < COLUMNS; c++)
        values[c] = (char)(uint8_t)(3 * c);
    const char *x = memmem(bytes, size, values, sizeof values); // row 0
    assert_non_null(x);
    assert_int_equal(truncate(path, (off_t)(x - bytes) + (off_t)first_missing * COLUMNS), 0);
    free(bytes);
}

// Whichever thread meets the end first, the lowest of the rows that are missing are named.
static void a_file_cut_short_while_it_is_open_names_the_first_rows_that_are_missing(void **state)
{
    (void)state;
    static uint8_t x[ROWS][COLUMNS];
    for (int i = 0; i < 20; i++) {
        lf_error err;
        lf_dataset *data = open_sample();
        cut_file(in_folder("shared.h5"));
        pick_rows();
        unsigned long long from, to;
        assert_false(lf_dataset_read(data, LF_PART_TRAIN, picks, PICKS, &(lf_rows_out){ .x = x }, &err));
        assert_says(err, LF_EFORMAT, ": the file is cut short");
        assert_int_equal(sscanf(strstr(err.text, "rows "), "rows %llu..%llu", &from, &to), 2);
        if (from > first_missing || to < first_missing || to > first_missing + (256 << 10) / COLUMNS)
            fail_msg("%s: expects those around row %d", err.text, (int)first_missing);
        lf_dataset_close(data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scattered_rows_stand_where_they_were_asked_for),
        cmocka_unit_test(a_long_run_of_rows_is_whole),
        cmocka_unit_test(a_file_cut_short_while_it_is_open_names_the_first_rows_that_are_missing),
    };
    return cmocka_run_group_tests_name("rows_shared", tests, folder_make, folder_remove);
}
