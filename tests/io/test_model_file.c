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
    };
    return cmocka_run_group_tests_name("io: model files", tests, folder_make, folder_remove);
}
