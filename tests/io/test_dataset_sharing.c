// Processes that settle a data set together, as threads here: each opens the file for itself.
#include <pthread.h>

#include "io/source.h"
#include "util.h"

enum { ROWS = 1000, VALID_ROWS = 300, COLUMNS = 7, MOST = 5 };

// What they exchange.
static struct {
    pthread_barrier_t barrier;
    uint32_t count;
    bool well[MOST];
    lf_error errors[MOST];
    void *told;
} hub;
static _Thread_local uint32_t rank;
static _Thread_local uint64_t x_rows, y_rows; // that this one has read

bool __real_lf_source_read_span(const lf_source *source, uint64_t first, size_t count, hid_t type, void *out,
                                lf_error *err);
bool __wrap_lf_source_read_span(const lf_source *source, uint64_t first, size_t count, hid_t type, void *out,
                                lf_error *err);
bool __wrap_lf_source_read_span(const lf_source *source, uint64_t first, size_t count, hid_t type, void *out,
                                lf_error *err)
{
    *(source->columns > 1 ? &x_rows : &y_rows) += count;
    return __real_lf_source_read_span(source, first, count, type, out, err);
}

static bool agree(bool ok, lf_error *err)
{
    hub.well[rank] = ok;
    if (!ok)
        hub.errors[rank] = *err;
    pthread_barrier_wait(&hub.barrier);
    uint32_t first = 0;
    while (first < hub.count && hub.well[first])
        first++;
    if (first < hub.count)
        *err = hub.errors[first];
    pthread_barrier_wait(&hub.barrier);
    return first == hub.count;
}

static bool tell(uint32_t from, void *bytes, size_t size, lf_error *err)
{
    (void)err;
    if (rank == from)
        hub.told = bytes;
    pthread_barrier_wait(&hub.barrier);
    if (rank != from)
        memcpy(bytes, hub.told, size);
    pthread_barrier_wait(&hub.barrier);
    return true;
}

// One process and what it has found.
typedef struct process {
    pthread_t thread;
    uint32_t rank;
    lf_dataset_spec spec;
    lf_dataset *data;
    lf_error err;
    bool ok;
    uint64_t x_rows, y_rows;
} process;

static void *settle(void *user)
{
    process *p = user;
    const lf_sharing with = { p->rank, hub.count, agree, tell };
    rank = p->rank;
    x_rows = y_rows = 0;
    p->spec.later = true;
    p->data = lf_dataset_open(&p->spec, &p->err);
    if (!p->data || lf_dataset_is_settled(p->data))
        abort(); // the others would wait
    p->ok = lf_dataset_settle(p->data, &with, &p->err);
    p->x_rows = x_rows;
    p->y_rows = y_rows;
    return NULL;
}

// `count` processes at once, all with `spec` but the last with `last`.
static process *together(uint32_t count, const lf_dataset_spec *spec, const lf_dataset_spec *last)
{
    static process list[MOST];
    hub.count = count;
    pthread_barrier_init(&hub.barrier, NULL, count);
    for (uint32_t i = 0; i < count; i++) {
        list[i] = (process){ .rank = i, .spec = i + 1 < count ? *spec : *last };
        assert_int_equal(pthread_create(&list[i].thread, NULL, settle, &list[i]), 0);
    }
    for (uint32_t i = 0; i < count; i++)
        pthread_join(list[i].thread, NULL);
    pthread_barrier_destroy(&hub.barrier);
    return list;
}

static void close_all(process *list, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        lf_dataset_close(list[i].data);
}

// Large values that cancel, with small ones between, so that the order of the sums shows in their bits. Labels are
// `wrong` at two rows of the training part and at one of the other.
static void write_file(const char *path, const layout *shape, double nan_at, bool wrong, hsize_t rows)
{
    static double x[ROWS * COLUMNS];
    static int32_t y[ROWS];
    uint32_t state = 3;
    for (size_t i = 0; i < ROWS * COLUMNS; i++) {
        state = state * 1664525u + 1013904223u;
        double large = i / COLUMNS % 3 == 1 ? 0x1p50 : i / COLUMNS % 3 == 2 ? -0x1p50 : 0;
        x[i] = large ? large : (double)(state >> 8) * 1e-7;
    }
    if (nan_at > 0)
        x[(size_t)nan_at * COLUMNS + 2] = NAN;
    for (size_t i = 0; i < ROWS; i++)
        y[i] = (int32_t)(i % 4 + (i == 990));
    const hsize_t train[] = { rows, COLUMNS }, valid[] = { VALID_ROWS, COLUMNS };
    hid_t file = h5_make(path);
    h5_put(file, "/valid/x", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 2, valid, shape, x);
    y[5] = wrong ? -7 : y[5];
    h5_put(file, "/valid/y", H5T_STD_I32LE, H5T_NATIVE_INT32, 1, valid, NULL, y);
    y[5] = 1;
    if (wrong)
        y[702] = y[998] = -3;
    h5_put(file, "/train/x", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 2, train, shape, x);
    h5_put(file, "/train/y", H5T_STD_I32LE, H5T_NATIVE_INT32, 1, train, NULL, y);
    H5Fclose(file);
}

static const layout chunked = { .chunk = { 90, 3 }, .deflate = true };

static void assert_as_alone(const lf_dataset *data, const lf_dataset *one)
{
    for (int id = 0; id < LF_PART_COUNT; id++) {
        const lf_part *a = lf_dataset_part(data, (lf_part_id)id, NULL), *b = lf_dataset_part(one, (lf_part_id)id, NULL);
        assert_int_equal(a != NULL, b != NULL);
        if (!a)
            continue;
        assert_int_equal(a->classes, b->classes);
        assert_memory_equal(a->scale, b->scale, COLUMNS * sizeof *a->scale);
        assert_memory_equal(a->offset, b->offset, COLUMNS * sizeof *a->offset);
    }
}

static void any_number_of_processes_finds_what_one_does_and_reads_each_row_once(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++) {
        lf_error err;
        const char *path = in_folder("shared.h5");
        write_file(path, i & 1 ? &chunked : NULL, 0, false, ROWS);
        lf_dataset_spec spec = { .file = path, .normalize = i & 2 ? "standard" : "minmax" };
        if (i & 4) {
            spec.x = "/train/x";
            spec.y = "/train/y";
            spec.split[LF_PART_TRAIN] = .7;
            spec.split[LF_PART_TEST] = .3;
        }
        lf_dataset *one = lf_dataset_open(&spec, &err);
        if (!one)
            fail_msg("%s", err.text);
        assert_int_equal(lf_dataset_part(one, LF_PART_TRAIN, &err)->classes, 4);
        for (uint32_t count = 2; count <= MOST; count++) {
            process *list = together(count, &spec, &spec);
            uint64_t x = 0, y = 0;
            for (uint32_t r = 0; r < count; r++) {
                if (!list[r].ok)
                    fail_msg("%s", list[r].err.text);
                assert_as_alone(list[r].data, one);
                assert_true(list[r].x_rows <= ROWS / count + 1 + (i & 1 ? 90 : 0));
                assert_true(list[r].y_rows <= (ROWS + VALID_ROWS) / count + 2);
                x += list[r].x_rows;
                y += list[r].y_rows;
            }
            assert_int_equal(x, ROWS);
            assert_int_equal(y, i & 4 ? ROWS : ROWS + VALID_ROWS);
            close_all(list, count);
        }
        lf_dataset_close(one);
    }
}

static void assert_all_say(uint32_t count, const lf_dataset_spec *spec, const lf_dataset_spec *last, lf_code code,
                           const char *text)
{
    process *list = together(count, spec, last);
    for (uint32_t r = 0; r < count; r++) {
        assert_false(list[r].ok);
        assert_says(list[r].err, code, text);
    }
    close_all(list, count);
}

static void the_first_row_that_is_wrong_is_told_by_all(void **state)
{
    (void)state;
    const lf_dataset_spec labels = { .file = in_folder("labels.h5") },
                          nan = { .file = in_folder("nan.h5"), .normalize = "standard" };
    write_file(labels.file, NULL, 0, true, ROWS);
    write_file(nan.file, NULL, 811, false, ROWS);
    refused(&labels, LF_EDATA, "/train/y: label -3 at row 702 is outside");
    refused(&nan, LF_EDATA, "/train/x: value nan at row 811, column 2");
    for (uint32_t count = 1; count <= MOST; count++) {
        assert_all_say(count, &labels, &labels, LF_EDATA, "/train/y: label -3 at row 702 is outside");
        assert_all_say(count, &nan, &nan, LF_EDATA, "/train/x: value nan at row 811, column 2");
    }
}

static void data_sets_that_differ_are_not_normalized_together(void **state)
{
    (void)state;
    const lf_dataset_spec spec = { .file = in_folder("spec.h5"), .normalize = "minmax" },
                          shorter = { .file = in_folder("shorter.h5"), .normalize = "minmax" },
                          standard = { .file = spec.file, .normalize = "standard" };
    write_file(spec.file, NULL, 0, false, ROWS);
    write_file(shorter.file, NULL, 0, false, ROWS - 8);
    assert_all_say(3, &spec, &shorter, LF_EARG,
                   "shorter.h5: has normalize \"minmax\" for 992 rows of 7 features, but process 0 has \"minmax\" for "
                   "1000 of 7");
    assert_all_say(3, &spec, &standard, LF_EARG, "has normalize \"standard\" for 1000 rows of 7 features");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_processes_finds_what_one_does_and_reads_each_row_once),
        cmocka_unit_test(the_first_row_that_is_wrong_is_told_by_all),
        cmocka_unit_test(data_sets_that_differ_are_not_normalized_together),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
