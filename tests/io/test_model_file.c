// Model and checkpoint files: round trips, digests, determinism.
#include "util.h"

#include <time.h>

static lf_model_file *round_trip(lf_model_file *model)
{
    lf_error err = { 0 };
    if (!lf_model_file_write(in_folder("model.h5"), model, &err))
        fail_msg("%s", err.text);
    lf_model_file *read = lf_model_file_read(in_folder("model.h5"), &err);
    if (!read)
        fail_msg("%s", err.text);
    return read;
}

static void a_model_reads_back_as_it_was_written(void **state)
{
    (void)state;
    for (int with_state = 0; with_state < 2; with_state++) {
        lf_model_file *model = sample_model(3, with_state), *read = round_trip(model);
        assert_true(models_equal(model, read));
        assert_string_equal(model->digest, read->digest);
        assert_int_equal(strlen(read->digest), 64);
        lf_model_file_destroy(read);
        lf_model_file_destroy(model);
    }
}

static void odd_values_keep_their_bits(void **state)
{
    (void)state;
    lf_model_file *model = sample_model(0, true);
    const uint32_t bits[] = { 0x7fc00001, 0xff800000, 0x80000000, 1, 0x7f7fffff, 0xffffffff };
    memcpy(model->tensors[0].values, bits, sizeof bits);
    free(model->state->schedule);
    free(model->state->options);
    model->state->schedule = model->state->options = NULL;
    model->state->best = NAN;
    lf_model_file *read = round_trip(model);
    assert_true(models_equal(model, read));
    lf_model_file_destroy(read);
    lf_model_file_destroy(model);
}

static void a_definition_longer_than_an_attribute_reads_back(void **state)
{
    (void)state;
    lf_model_file *model = sample_model(1, false);
    enum { LONG = 300000 };
    free(model->definition);
    model->definition = malloc(LONG + 1);
    for (int i = 0; i < LONG; i++)
        model->definition[i] = (char)('a' + i % 26);
    model->definition[LONG] = 0;
    lf_model_file *read = round_trip(model);
    assert_true(models_equal(model, read));
    lf_model_file_destroy(read);
    lf_model_file_destroy(model);
}

static void a_model_without_tensors_reads_back(void **state)
{
    (void)state;
    lf_model_file model = { .definition = "{}" };
    lf_model_file *read = round_trip(&model);
    assert_int_equal(read->tensor_count, 0);
    assert_string_equal(read->digest, model.digest);
    lf_model_file_destroy(read);
}

static void equal_models_give_equal_files(void **state)
{
    (void)state;
    char *bytes[2];
    size_t size[2];
    for (int i = 0; i < 2; i++) {
        lf_model_file *model = sample_model(9, true);
        lf_model_file_destroy(round_trip(model));
        lf_model_file_destroy(model);
        bytes[i] = file_bytes(in_folder("model.h5"), &size[i]);
        if (i == 0)
            nanosleep(&(struct timespec){ .tv_sec = 1, .tv_nsec = 100000000 }, NULL); // HDF5's times count seconds
    }
    assert_int_equal(size[0], size[1]);
    assert_memory_equal(bytes[0], bytes[1], size[0]);
    free(bytes[0]);
    free(bytes[1]);
}

static void the_digest_is_of_names_shapes_and_values_in_any_order(void **state)
{
    (void)state;
    // From Python: sha256(b"a\0" + pack("<QQQ", 2, 1, 2) + pack("<2f", 1, -2) + b"b\0" + pack("<QQ", 1, 1) +
    // pack("<f", 0.5))
    const char *known = "4bbd6f4dcfb84a9b2d06cd9e48739cfde59ef5beefb3790dfb71d346fba643ea";
    float a[] = { 1, -2 }, b[] = { .5f };
    lf_file_tensor tensors[] = { { "b", 0, 1, b }, { "a", 1, 2, a } };
    char hex[65], other[65];
    lf_error err = { 0 };
    assert_true(lf_tensors_digest(tensors, 2, hex, &err));
    assert_string_equal(hex, known);
    lf_file_tensor swapped[] = { tensors[1], tensors[0] };
    assert_true(lf_tensors_digest(swapped, 2, other, &err));
    assert_string_equal(other, known);
    tensors[1].rows = 0; // (2) is not (1, 2)
    assert_true(lf_tensors_digest(tensors, 2, other, &err));
    assert_string_not_equal(other, known);
    tensors[1].rows = 1;
    a[1] = nextafterf(a[1], 0);
    assert_true(lf_tensors_digest(tensors, 2, other, &err));
    assert_string_not_equal(other, known);
    a[1] = -2;
    tensors[1].name = "c";
    assert_true(lf_tensors_digest(tensors, 2, other, &err));
    assert_string_not_equal(other, known);
}

static void the_state_does_not_change_the_digest_of_the_weights(void **state)
{
    (void)state;
    lf_model_file *plain = sample_model(2, false), *checkpoint = sample_model(2, true);
    lf_model_file_destroy(round_trip(plain));
    lf_model_file_destroy(round_trip(checkpoint));
    assert_string_equal(plain->digest, checkpoint->digest);
    lf_model_file_destroy(plain);
    lf_model_file_destroy(checkpoint);
}

static void set_rows(lf_train_state *state, size_t count)
{
    state->row_count = count;
    state->rows = malloc(count * sizeof *state->rows);
    for (size_t i = 0; i < count; i++)
        state->rows[i] = UINT64_MAX - 3 * i;
}

static void what_a_training_watches_reads_back(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        lf_model_file *model = sample_model(4, true);
        if (i % 2) {
            model->state->monitor_best = -.75;
            model->state->monitor_epoch = 12;
        }
        if (i / 2)
            set_rows(model->state, 100);
        lf_model_file *read = round_trip(model);
        assert_true(models_equal(model, read));
        if (i == 0) {
            assert_true(isnan(read->state->monitor_best));
            assert_null(read->state->rows);
        }
        lf_model_file_destroy(read);
        lf_model_file_destroy(model);
    }
}

static void state_of_any_name_behind_a_tensors_name_reads_back(void **state)
{
    (void)state;
    static const char *const names[] = { "linear_1/kernel/average", "linear_1/kernel/best", "batch_norm_1/mean/best",
                                         "batch_norm_1/variance/average" };
    enum { COUNT = sizeof names / sizeof *names };
    lf_model_file *model = sample_model(5, true);
    lf_train_state *s = model->state;
    s->moments = realloc(s->moments, (s->moment_count + COUNT) * sizeof *s->moments);
    for (size_t i = 0; i < COUNT; i++) {
        lf_file_tensor *tensor = &s->moments[s->moment_count++];
        *tensor = (lf_file_tensor){ strdup(names[i]), 0, 3, malloc(3 * sizeof(float)) };
        for (int j = 0; j < 3; j++)
            tensor->values[j] = (float)((int)i - j);
    }
    lf_model_file *read = round_trip(model);
    assert_int_equal(read->state->moment_count, 2 + COUNT);
    assert_true(models_equal(model, read));
    lf_model_file_destroy(read);
    lf_model_file_destroy(model);
}

static void a_checkpoint_of_an_earlier_version_still_loads(void **state)
{
    (void)state;
    lf_error err = { 0 };
    lf_model_file *model = sample_model(1, true), *read = round_trip(model);
    lf_model_file_destroy(read);
    hid_t file = H5Fopen(in_folder("model.h5"), H5F_ACC_RDWR, H5P_DEFAULT);
    H5Adelete_by_name(file, "/train_state", "monitor_best", H5P_DEFAULT);
    H5Adelete_by_name(file, "/train_state", "monitor_epoch", H5P_DEFAULT);
    // What the version before these fields wrote for this model.
    static const char known[] = "a0ef0d46ca69c8b76614e99719ebb31fb239760415e00d704c46a083dc795a91";
    char hex[65] = "";
    hid_t attribute = H5Aopen_by_name(file, "/digest", "content_sha256", H5P_DEFAULT, H5P_DEFAULT);
    hid_t type = H5Aget_type(attribute);
    assert_int_equal(H5Tget_size(type), 64);
    assert_true(H5Aread(attribute, type, hex) >= 0);
    assert_string_equal(hex, known);
    H5Tclose(type);
    H5Aclose(attribute);
    H5Fclose(file);
    read = lf_model_file_read(in_folder("model.h5"), &err);
    if (!read)
        fail_msg("%s", err.text);
    assert_true(models_equal(model, read));
    assert_true(isnan(read->state->monitor_best));
    assert_int_equal(read->state->monitor_epoch, 0);
    assert_int_equal(read->state->row_count, 0);
    assert_null(read->state->rows);
    lf_model_file_destroy(read);
    lf_model_file_destroy(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_reads_back_as_it_was_written),
        cmocka_unit_test(odd_values_keep_their_bits),
        cmocka_unit_test(a_definition_longer_than_an_attribute_reads_back),
        cmocka_unit_test(a_model_without_tensors_reads_back),
        cmocka_unit_test(equal_models_give_equal_files),
        cmocka_unit_test(the_digest_is_of_names_shapes_and_values_in_any_order),
        cmocka_unit_test(the_state_does_not_change_the_digest_of_the_weights),
        cmocka_unit_test(what_a_training_watches_reads_back),
        cmocka_unit_test(state_of_any_name_behind_a_tensors_name_reads_back),
        cmocka_unit_test(a_checkpoint_of_an_earlier_version_still_loads),
    };
    return cmocka_run_group_tests_name("io: model files", tests, folder_make, folder_remove);
}
