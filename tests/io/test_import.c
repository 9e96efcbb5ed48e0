// Import of MNIST's IDX files: small ones made here, and the real ones where they are present.
#include "util.h"

#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "io/import.h"

enum { IMAGES = 12, SIDE = 4 };

static uint8_t pixel(size_t image, size_t i)
{
    return (uint8_t)(image * 17 + i * 5);
}

static const char *const image_names[] = { "train-images-idx3-ubyte", "t10k-images-idx3-ubyte" };
static const char *const label_names[] = { "train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte" };

static void put_u32(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> (24 - 8 * i));
}

// Writes a file of the source folder, deflated or plain, cut to `size` bytes if that is not 0.
static void put_source(const char *name, bool deflated, const uint8_t *bytes, size_t size)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/source/%s", folder(), name);
    unlink(path);
    strcat(path, ".gz");
    unlink(path);
    if (!deflated) {
        path[strlen(path) - 3] = 0;
        file_put(path, bytes, size);
        return;
    }
    gzFile file = gzopen(path, "wb");
    assert_int_equal(gzwrite(file, bytes, (unsigned)size), size);
    gzclose(file);
}

enum { IMAGE_BYTES = 16 + IMAGES * SIDE * SIDE, LABEL_BYTES = 8 + IMAGES };
static uint8_t images[IMAGE_BYTES + 1], labels[LABEL_BYTES + 1];

static void put_sources(bool deflated)
{
    put_u32(images, 0x803);
    put_u32(images + 4, IMAGES);
    put_u32(images + 8, SIDE);
    put_u32(images + 12, SIDE);
    put_u32(labels, 0x801);
    put_u32(labels + 4, IMAGES);
    for (size_t i = 0; i < IMAGES; i++) {
        labels[8 + i] = (uint8_t)(i % 10);
        for (size_t j = 0; j < SIDE * SIDE; j++)
            images[16 + i * SIDE * SIDE + j] = pixel(i, j);
    }
    mkdir(in_folder("source"), 0777);
    for (int i = 0; i < 2; i++) {
        put_source(image_names[i], deflated, images, IMAGE_BYTES);
        put_source(label_names[i], deflated, labels, LABEL_BYTES);
    }
}

static void plain_and_deflated_files_become_the_same_data_set(void **state)
{
    (void)state;
    char digests[2][65];
    for (int deflated = 0; deflated < 2; deflated++) {
        put_sources(deflated);
        lf_error err = { 0 };
        if (!lf_import_mnist(in_folder("source"), in_folder("out.h5"), &err))
            fail_msg("%s", err.text);
        lf_dataset *data = open_file(in_folder("out.h5"));
        for (int id = 0; id < LF_PART_COUNT; id++) {
            const lf_part *part = lf_dataset_part(data, (lf_part_id)id, &err);
            if (id == LF_PART_VALID) {
                assert_null(part);
                continue;
            }
            assert_int_equal(part->rows, IMAGES);
            assert_int_equal(part->features, SIDE * SIDE);
            assert_int_equal(part->stored, LF_U8);
            assert_int_equal(part->classes, 10);
            assert_true(part->scale[0] == (float)(1.0 / 255) && part->offset[0] == 0);
            uint8_t x[IMAGES][SIDE * SIDE];
            uint32_t y[IMAGES];
            assert_true(lf_dataset_read_span(data, (lf_part_id)id, 0, IMAGES, &(lf_rows_out){ .x = x, .y = y }, &err));
            for (size_t i = 0; i < IMAGES; i++) {
                assert_int_equal(y[i], i % 10);
                for (size_t j = 0; j < SIDE * SIDE; j++)
                    assert_int_equal(x[i][j], pixel(i, j));
            }
        }
        lf_dataset_close(data);
        assert_true(lf_h5_digest(in_folder("out.h5"), "/", digests[deflated], &err));
    }
    assert_string_equal(digests[0], digests[1]);
}

// Imports and expects a refusal; nothing is written.
static void refused_import(lf_code code, const char *text)
{
    lf_error err = { 0 };
    unlink(in_folder("none.h5"));
    if (lf_import_mnist(in_folder("source"), in_folder("none.h5"), &err))
        fail_msg("imported, but should say: %s", text);
    assert_says(err, code, text);
    assert_int_equal(access(in_folder("none.h5"), F_OK), -1);
}

static void damaged_sources_are_refused(void **state)
{
    (void)state;
    lf_error err = { 0 };
    assert_false(lf_import_mnist("/no/such", in_folder("none.h5"), &err));
    assert_says(err, LF_ENOTFOUND, "/no/such: has no file train-images-idx3-ubyte or train-images-idx3-ubyte.gz");
    for (int deflated = 0; deflated < 2; deflated++) {
        put_sources(deflated);
        put_source(image_names[1], deflated, images, IMAGE_BYTES - 1);
        refused_import(LF_EFORMAT, "is cut short: it ends after 207 of 208 bytes");
        put_sources(deflated);
        put_source(image_names[0], deflated, images, 10);
        refused_import(LF_EFORMAT, "is cut short: it ends after 10 of 16 bytes");
        put_sources(deflated);
        put_source(label_names[0], deflated, labels, LABEL_BYTES + 1);
        refused_import(LF_EFORMAT, "goes on after the 12 values that its header counts");
        put_sources(deflated);
        put_source(label_names[0], deflated, images, IMAGE_BYTES);
        refused_import(LF_EFORMAT, "is not an IDX file of bytes in 1 dimensions: it starts with 0x00000803");
        put_sources(deflated);
        put_u32(labels + 4, IMAGES - 1);
        put_source(label_names[0], deflated, labels, LABEL_BYTES - 1);
        refused_import(LF_EFORMAT, "has 11 labels, but ");
        put_sources(deflated);
        labels[8 + 7] = 10;
        put_source(label_names[0], deflated, labels, LABEL_BYTES);
        refused_import(LF_EDATA, "train-labels-idx1-ubyte");
        put_sources(deflated);
        put_u32(images + 4, UINT32_MAX);
        put_u32(images + 8, UINT32_MAX);
        put_source(image_names[0], deflated, images, IMAGE_BYTES);
        refused_import(LF_EFORMAT, "is cut short: it ends after 208 of ");
        put_sources(deflated);
        put_u32(images + 4, 0);
        put_source(image_names[0], deflated, images, 16);
        refused_import(LF_EDATA, "is empty");
    }
    put_sources(true);
    char path[1024];
    snprintf(path, sizeof path, "%s/source/%s.gz", folder(), image_names[0]);
    size_t size;
    char *bytes = file_bytes(path, &size);
    file_put(path, bytes, size - 12); // deflate's end and gzip's checksum are missing
    refused_import(LF_EFORMAT, image_names[0]);
    bytes[size / 2] ^= 0x40;
    file_put(path, bytes, size);
    refused_import(LF_EFORMAT, image_names[0]);
    free(bytes);
}

static void the_real_files_have_their_known_counts(void **state)
{
    (void)state;
    const char *data_folder = getenv("LAVAFLOW_TEST_DATA");
    char source[1024];
    snprintf(source, sizeof source, "%s/mnist", data_folder ? data_folder : "");
    if (!data_folder || access(source, F_OK) != 0) {
        print_message("skipped: no MNIST at LAVAFLOW_TEST_DATA/mnist\n");
        skip();
    }
    lf_error err = { 0 };
    if (!lf_import_mnist(source, in_folder("mnist.h5"), &err))
        fail_msg("%s", err.text);
    lf_dataset *data = open_file(in_folder("mnist.h5"));
    const lf_part *test = lf_dataset_part(data, LF_PART_TEST, &err);
    assert_int_equal(test->rows, 10000);
    assert_int_equal(test->features, 784);
    // The test labels' counts are published with the data.
    static const int counts[] = { 980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009 };
    uint8_t *x = malloc(10000 * 784);
    uint32_t *y = malloc(10000 * sizeof *y);
    assert_true(lf_dataset_read_span(data, LF_PART_TEST, 0, 10000, &(lf_rows_out){ .x = x, .y = y }, &err));
    int seen[10] = { 0 };
    for (int i = 0; i < 10000; i++)
        seen[y[i]]++;
    assert_memory_equal(seen, counts, sizeof seen);
    free(y);
    free(x);
    lf_dataset_close(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_and_deflated_files_become_the_same_data_set),
        cmocka_unit_test(damaged_sources_are_refused),
        cmocka_unit_test(the_real_files_have_their_known_counts),
    };
    return cmocka_run_group_tests_name("io: import", tests, folder_make, folder_remove);
}
