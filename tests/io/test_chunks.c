// Chunks read by several threads: the values that HDF5 reads, or a message that names the chunk.
#include "util.h"

#include <zlib.h>

#include "io/chunks.h"

typedef struct sample {
    hid_t file, set;
    lf_chunks *chunks;
} sample;

static sample open_sample(const char *path)
{
    static char where[300];
    sample s = { .file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT) };
    snprintf(where, sizeof where, "%s:/x", path);
    s.set = H5Dopen2(s.file, "/x", H5P_DEFAULT);
    assert_true(s.set >= 0);
    s.chunks = lf_chunks_open(s.set, where);
    return s;
}

static void close_sample(sample *s)
{
    lf_chunks_close(s->chunks);
    H5Dclose(s->set);
    H5Fclose(s->file);
}

// A box of the data set as HDF5 reads it; free it.
static char *read_by_hdf5(hid_t set, hid_t type, int rank, const hsize_t *dims, const lf_box *box, size_t *size)
{
    hsize_t start[4] = { box->first, box->from }, count[4];
    memcpy(count, dims, sizeof count);
    count[0] = box->count;
    if (rank > 1)
        count[1] = box->width;
    *size = H5Tget_size(type);
    for (int i = 0; i < rank; i++)
        *size *= (size_t)count[i];
    char *values = malloc(*size);
    hid_t space = H5Dget_space(set), memory = H5Screate_simple(rank, count, NULL);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL);
    assert_true(H5Dread(set, type, memory, space, H5P_DEFAULT, values) >= 0);
    H5Sclose(memory);
    H5Sclose(space);
    return values;
}

static void check_box(const sample *s, hid_t type, int rank, const hsize_t *dims, const lf_box *box, const char *name)
{
    size_t size;
    lf_error err = { 0 };
    char *wanted = read_by_hdf5(s->set, type, rank, dims, box, &size), *got = malloc(size);
    for (int locked = 0; locked < 2; locked++) {
        lf_h5_scope scope;
        memset(got, 0x5a, size);
        if (locked)
            lf_h5_enter(&scope);
        bool good = lf_chunks_read(s->chunks, box, locked, got, &err);
        if (locked)
            lf_h5_leave(&scope);
        if (!good)
            fail_msg("%s: %s", name, err.text);
        if (memcmp(got, wanted, size) != 0)
            fail_msg("%s: rows %zu + %zu, columns %zu + %zu are others than HDF5's", name, (size_t)box->first,
                     (size_t)box->count, (size_t)box->from, (size_t)box->width);
    }
    free(got);
    free(wanted);
}

// Values that deflate, though not to nothing.
static unsigned char *make_values(size_t size)
{
    unsigned char *values = malloc(size);
    for (size_t i = 0; i < size; i++)
        values[i] = (i / 3 * 2654435761u >> 9) % 5 ? 0 : (unsigned char)(i * 7);
    return values;
}

static void the_values_are_those_that_hdf5_reads(void **state)
{
    (void)state;
    static const struct {
        int rank;
        hsize_t dims[4], chunk[4];
    } shapes[] = {
        { 1, { 300001 }, { 4096 } },                  // a short last chunk
        { 2, { 1003, 700 }, { 64, 700 } },            // whole rows
        { 2, { 1003, 700 }, { 100, 33 } },            // cut in both directions
        { 2, { 700, 1003 }, { 700, 1 } },             // columns
        { 3, { 900, 28, 28 }, { 50, 28, 28 } },       // images
        { 3, { 901, 28, 28 }, { 64, 5, 28 } },        // strips of images
        { 3, { 901, 28, 28 }, { 64, 28, 5 } },        // upright strips
        { 4, { 401, 3, 20, 24 }, { 32, 2, 20, 24 } }, // some planes
        { 4, { 401, 3, 20, 24 }, { 32, 3, 7, 24 } },  // parts of planes
        { 4, { 401, 3, 20, 24 }, { 64, 2, 9, 11 } },  // everything cut
    };
    const hid_t types[] = { H5T_NATIVE_UINT8, H5T_NATIVE_INT16, H5T_NATIVE_FLOAT, H5T_NATIVE_DOUBLE };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes * 4; i++) {
        const hsize_t *dims = shapes[i / 4].dims, *chunk = shapes[i / 4].chunk;
        const int rank = shapes[i / 4].rank;
        layout plan = { .deflate = i % 3 != 1, .shuffle = i % 3 != 0 };
        memcpy(plan.chunk, chunk, sizeof plan.chunk);
        size_t size = H5Tget_size(types[i % 4]);
        for (int d = 0; d < rank; d++)
            size *= (size_t)dims[d];
        unsigned char *values = make_values(size);
        const char *path = in_folder("values.h5");
        hid_t file = h5_make(path);
        h5_put(file, "/x", types[i % 4], types[i % 4], rank, dims, &plan, values);
        H5Fclose(file);
        free(values);
        sample s = open_sample(path);
        assert_non_null(s.chunks);
        char name[40];
        snprintf(name, sizeof name, "shape %zu, type %zu", i / 4, i % 4);
        uint64_t wide = rank > 1 ? dims[1] : 1;
        const lf_box boxes[] = {
            { 0, dims[0], 0, wide },
            { chunk[0] / 2, dims[0] / 2 - 1, 0, wide },
            { dims[0] - 1, 1, 0, wide },
            { 1, dims[0] - 2, wide / 3, wide - wide / 3 },
            { chunk[0], chunk[0] < dims[0] ? dims[0] - chunk[0] : 0, wide / 2, 1 },
        };
        for (size_t b = 0; b < sizeof boxes / sizeof *boxes; b++)
            if (boxes[b].count)
                check_box(&s, types[i % 4], rank, dims, &boxes[b], name);
        close_sample(&s);
    }
}

// A data set of u16 (ROWS, WIDE) of which chunks are written one by one, as they will lie in the file.
enum { ROWS = 1000, WIDE = 600, CHUNK_ROWS = 100, CHUNKS = ROWS / CHUNK_ROWS };
static uint16_t part[CHUNK_ROWS][WIDE];

static hid_t make_by_chunk(const char *path, const uint16_t *fill, hid_t *file)
{
    const hsize_t dims[] = { ROWS, WIDE }, chunk[] = { CHUNK_ROWS, WIDE };
    *file = h5_make(path);
    hid_t space = H5Screate_simple(2, dims, NULL), list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(list, 2, chunk);
    H5Pset_shuffle(list);
    H5Pset_deflate(list, 3);
    if (fill)
        H5Pset_fill_value(list, H5T_NATIVE_UINT16, fill);
    hid_t set = H5Dcreate2(*file, "/x", H5T_NATIVE_UINT16, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(set >= 0);
    H5Pclose(list);
    H5Sclose(space);
    return set;
}

static void put_plain(hid_t set, int number, uint16_t value)
{
    const hsize_t start[] = { (hsize_t)number * CHUNK_ROWS, 0 }, size[] = { CHUNK_ROWS, WIDE };
    hid_t space = H5Dget_space(set), memory = H5Screate_simple(2, size, NULL);
    for (int i = 0; i < CHUNK_ROWS; i++)
        for (int j = 0; j < WIDE; j++)
            part[i][j] = (uint16_t)(value + i * 3 + j);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, size, NULL);
    assert_true(H5Dwrite(set, H5T_NATIVE_UINT16, memory, space, H5P_DEFAULT, part) >= 0);
    H5Sclose(memory);
    H5Sclose(space);
}

static void put_bytes(hid_t set, int number, uint32_t mask, const void *bytes, size_t size)
{
    const hsize_t start[] = { (hsize_t)number * CHUNK_ROWS, 0 };
    assert_true(H5Dwrite_chunk(set, H5P_DEFAULT, mask, start, size, bytes) >= 0);
}

static const lf_box all = { 0, ROWS, 0, WIDE };

static void chunks_that_nobody_wrote_hold_the_fill_value(void **state)
{
    (void)state;
    const hsize_t dims[4] = { ROWS, WIDE };
    static uint16_t got[ROWS][WIDE];
    for (int filled = 0; filled < 2; filled++) {
        hid_t file, set = make_by_chunk(in_folder("fill.h5"), filled ? &(uint16_t){ 0xbeef } : NULL, &file);
        for (int i = 0; i < CHUNKS; i++)
            if (i != 3)
                put_plain(set, i, (uint16_t)i);
        size_t size;
        char *wanted = read_by_hdf5(set, H5T_NATIVE_UINT16, 2, dims, &all, &size);
        H5Dclose(set);
        H5Fclose(file);
        lf_error err = { 0 };
        lf_dataset *data = lf_dataset_open(&(lf_dataset_spec){ .file = in_folder("fill.h5"), .x = "/x" }, &err);
        assert_non_null(data);
        OK(lf_dataset_read_span(data, LF_PART_TRAIN, 0, ROWS, &(lf_rows_out){ .x = got }, &err));
        assert_int_equal(got[3 * CHUNK_ROWS + 1][7], filled ? 0xbeef : 0);
        assert_memory_equal(got, wanted, size);
        lf_dataset_close(data);
        free(wanted);
    }
}

// The mask of a chunk says which filters it went without.
static void a_chunk_without_its_filters_is_read(void **state)
{
    (void)state;
    const hsize_t dims[4] = { ROWS, WIDE };
    static Bytef deflated[2 * sizeof part];
    hid_t file, set = make_by_chunk(in_folder("mask.h5"), NULL, &file);
    for (int i = 0; i < CHUNKS; i++)
        put_plain(set, i, (uint16_t)(i * 100));
    uLongf size = sizeof deflated;
    assert_int_equal(compress2(deflated, &size, (const Bytef *)part, sizeof part, 1), Z_OK);
    put_bytes(set, 2, 1, deflated, size);     // not shuffled
    put_bytes(set, 4, 3, part, sizeof part);  // neither
    put_bytes(set, 5, 2, part, sizeof part);  // shuffled alone
    put_bytes(set, 6, 1, deflated, size + 9); // bytes behind the end do not count
    H5Dclose(set);
    H5Fclose(file);
    sample s = open_sample(in_folder("mask.h5"));
    check_box(&s, H5T_NATIVE_UINT16, 2, dims, &all, "all");
    close_sample(&s);
}

static void a_damaged_chunk_is_named_the_first_of_several(void **state)
{
    (void)state;
    static Bytef deflated[2 * sizeof part];
    static uint16_t got[ROWS][WIDE];
    static const struct {
        const char *name, *message;
        size_t values; // deflated; of them `bytes` are written, or all
        uint32_t mask;
        size_t cut;
        bool spoil;
    } cases[] = {
        { "spoilt", "the chunk of row 400: inflate() failed", sizeof part, 0, 0, true },
        { "cut", "the chunk of row 400: it ends too early", sizeof part, 0, 20, false },
        { "short", "the chunk of row 400: it inflates to less than a chunk", sizeof part - 2, 0, 0, false },
        { "long", "the chunk of row 400: it inflates to more than a chunk", sizeof part + 2, 0, 0, false },
        { "bare", "the chunk of row 400: takes", sizeof part, 2, 0, false },
    };
    static unsigned char values[sizeof part + 2];
    for (size_t i = 0; i < sizeof values; i++)
        values[i] = (unsigned char)(i * i >> 3);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char file_name[40], message[200];
        snprintf(file_name, sizeof file_name, "%s.h5", cases[i].name);
        hid_t file, set = make_by_chunk(in_folder(file_name), NULL, &file);
        for (int c = 0; c < CHUNKS; c++)
            put_plain(set, c, 1);
        uLongf size = sizeof deflated;
        assert_int_equal(compress2(deflated, &size, values, cases[i].values, 1), Z_OK);
        if (cases[i].spoil)
            memset(deflated + size / 2, 0xff, 40);
        for (int c = 4; c < CHUNKS; c++)
            put_bytes(set, c, cases[i].mask, deflated, size - cases[i].cut);
        H5Dclose(set);
        H5Fclose(file);
        sample s = open_sample(in_folder(file_name));
        lf_error err = { 0 };
        assert_true(lf_chunks_read(s.chunks, &(lf_box){ 0, 400, 0, WIDE }, false, got, &err));
        assert_false(lf_chunks_read(s.chunks, &all, false, got, &err));
        snprintf(message, sizeof message, "%s:/x: cannot read rows 0..999: %s", in_folder(file_name), cases[i].message);
        assert_says(err, LF_EFORMAT, message);
        close_sample(&s);
        lf_dataset *data = lf_dataset_open(&(lf_dataset_spec){ .file = in_folder(file_name), .x = "/x" }, &err);
        assert_non_null(data); // and so with the data set and the digest
        assert_false(lf_dataset_read_span(data, LF_PART_TRAIN, 0, ROWS, &(lf_rows_out){ .x = got }, &err));
        assert_says(err, LF_EFORMAT, message);
        lf_dataset_close(data);
        char hex[65];
        assert_false(lf_h5_digest(in_folder(file_name), "/x", hex, &err));
        assert_says(err, LF_EFORMAT, message);
    }
}

static void small_pieces_and_other_filters_are_left_to_hdf5(void **state)
{
    (void)state;
    const hsize_t dims[] = { ROWS, WIDE };
    static uint16_t values[ROWS][WIDE];
    const layout plans[] = {
        { .chunk = { 100, WIDE } },
        { .chunk = { 100, WIDE }, .deflate = true, .checksum = true },
        { .chunk = { 100, WIDE }, .szip = true },
        { .deflate = false },
        { .chunk = { 100, WIDE }, .deflate = true },
    };
    const size_t count = sizeof plans / sizeof *plans;
    for (size_t i = 0; i < count; i++) {
        hid_t file = h5_make(in_folder("left.h5"));
        h5_put(file, "/x", H5T_NATIVE_UINT16, H5T_NATIVE_UINT16, 2, dims, &plans[i], values);
        H5Fclose(file);
        sample s = open_sample(in_folder("left.h5"));
        if (i + 1 < count) {
            assert_null(s.chunks);
        } else {
            assert_true(lf_chunks_fill(s.chunks, &all));
            assert_true(lf_chunks_fill(s.chunks, &(lf_box){ 30, 60, 0, WIDE }));
            assert_false(lf_chunks_fill(s.chunks, &(lf_box){ 30, 40, 0, WIDE }));
            assert_false(lf_chunks_fill(s.chunks, &(lf_box){ 99, 2, 0, WIDE }));
        }
        close_sample(&s);
    }
}

static void a_piece_is_whole_chunks_and_a_split_part_takes_more(void **state)
{
    (void)state;
    const hsize_t dims[] = { ROWS, WIDE };
    static uint16_t values[ROWS][WIDE];
    hid_t file = h5_make(in_folder("piece.h5"));
    h5_put(file, "/x", H5T_NATIVE_UINT16, H5T_NATIVE_UINT16, 2, dims,
           &(layout){ .chunk = { 300, WIDE }, .deflate = true }, values);
    h5_put(file, "/plain", H5T_NATIVE_UINT16, H5T_NATIVE_UINT16, 2, dims, NULL, values);
    H5Fclose(file);
    static const struct {
        const char *x;
        double train;
        size_t bytes, rows;
    } cases[] = {
        { "/x", 0, 1, 300 },       { "/x", 0, 360000, 600 }, { "/x", 0, 1 << 30, ROWS },
        { "/x", .5, 1, ROWS / 2 }, { "/plain", 0, 2399, 2 }, { "/plain", .5, 2399, 2 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lf_error err = { 0 };
        lf_dataset_spec spec = { .file = in_folder("piece.h5"), .x = cases[i].x };
        spec.split[LF_PART_TRAIN] = cases[i].train;
        lf_dataset *data = lf_dataset_open(&spec, &err);
        assert_non_null(data);
        assert_int_equal(lf_dataset_piece(data, LF_PART_TRAIN, cases[i].bytes), cases[i].rows);
        lf_dataset_close(data);
    }
}

int main(void)
{
    setenv("LAVAFLOW_THREADS", "4", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_values_are_those_that_hdf5_reads),
        cmocka_unit_test(chunks_that_nobody_wrote_hold_the_fill_value),
        cmocka_unit_test(a_chunk_without_its_filters_is_read),
        cmocka_unit_test(a_damaged_chunk_is_named_the_first_of_several),
        cmocka_unit_test(small_pieces_and_other_filters_are_left_to_hdf5),
        cmocka_unit_test(a_piece_is_whole_chunks_and_a_split_part_takes_more),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
