// What a run file says of its own content, and models taken out of it.
#include "util.h"

static void make_run(const char *path, unsigned seed)
{
    lf_error err = { 0 };
    char hex[65];
    memset(hex, 'a', 64);
    hex[64] = 0;
    lf_run *run = lf_run_create(&err);
    assert_non_null(run);
    OK(lf_run_set_f64(run, "parameters/lr", .001, &err));
    OK(lf_run_set_text(run, "parameters/name", "größe", &err));
    OK(lf_run_set_text(run, "script", "return 1\n", &err));
    OK(lf_run_set_text(run, "script@sha256", "abc", &err));
    OK(lf_run_set_text(run, "step_1/name", "train", &err));
    OK(lf_run_set_i64s(run, "step_1/ranks", 2, (uint64_t[]){ 1, 2 }, (int64_t[]){ 1, 2 }, &err));
    OK(lf_run_series(run, "train", "loss", 2, (int64_t[]){ 1, 2 }, (double[]){ 1, 2 }, (double[]){ .5, NAN }, &err));
    OK(lf_run_digest(run, "train", 2, hex, &err));
    OK(lf_run_log(run, "", "info", "a line", &err));
    lf_model_file *model = sample_model(seed, true);
    OK(lf_run_model(run, "train", "model", model, &err));
    lf_model_file_destroy(model);
    OK(lf_run_save(run, path, "done", 0, &err));
    lf_run_destroy(run);
}

static void add_name(void *user, const char *name)
{
    char *names = user;
    strcat(strcat(names, name), " ");
}

// The names of all members that differ, each with a space behind it.
static const char *differing(const char *path)
{
    static char names[1024];
    lf_error err = { 0 };
    *names = 0;
    OK(lf_run_check(path, add_name, names, &err));
    return names;
}

static hid_t open_to_change(const char *path)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(file >= 0);
    return file;
}

static void an_unchanged_file_matches_its_digests(void **state)
{
    (void)state;
    const char *path = in_folder("same.h5");
    make_run(path, 1);
    assert_string_equal(differing(path), "");
    static const char *const members[] = { "digests",    "end_time",     "entry_identifier_uuid",
                                           "exit_code",  "log",          "metrics",
                                           "parameters", "program_name", "result",
                                           "script",     "start_time",   "status",
                                           "step_1" };
    const char *text = walk(path, "/digest", 100)->text;
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        char line[64];
        snprintf(line, sizeof line, "/digest@%s text '", members[i]);
        if (!strstr(text, line))
            fail_msg("no %s in\n%s", line, text);
    }
}

static void a_second_save_writes_its_own_digests(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("twice.h5");
    lf_run *run = lf_run_create(&err);
    OK(lf_run_set_i64(run, "parameters/p", 1, &err));
    OK(lf_run_save(run, path, "interrupted", 75, &err));
    OK(lf_run_set_i64(run, "parameters/p", 2, &err));
    OK(lf_run_log(run, "", "info", "a line", &err));
    OK(lf_run_save(run, path, "done", 0, &err));
    assert_string_equal(differing(path), "");
    lf_run_destroy(run);
}

// The values of a data set, each byte changed.
static void change_values(hid_t file, const char *path)
{
    unsigned char bytes[4096];
    hid_t set = H5Dopen2(file, path, H5P_DEFAULT), type = H5Dget_type(set), space = H5Dget_space(set);
    size_t size = (size_t)H5Sget_simple_extent_npoints(space) * H5Tget_size(type);
    assert_true(set >= 0 && size <= sizeof bytes);
    if (H5Tis_variable_str(type) > 0) {
        const char *texts[] = { "another text", "and one more" };
        assert_true(H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, texts) >= 0);
    } else {
        assert_true(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes) >= 0);
        bytes[size - 1] ^= 1;
        assert_true(H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes) >= 0);
    }
    H5Sclose(space);
    H5Tclose(type);
    H5Dclose(set);
}

static void what_was_changed_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *set, *member;
    } changes[] = {
        { "parameters/lr", "parameters " },
        { "parameters/name", "parameters " },
        { "script", "script " },
        { "step_1/ranks", "step_1 " },
        { "metrics/train/loss/step", "metrics " },
        { "metrics/train/loss/time", "metrics " },
        { "metrics/train/loss/value", "metrics " },
        { "digests/train/sha256", "digests " },
        { "log/text", "log " },
        { "log/time", "log " },
        { "result/train/model/model/linear_1/kernel", "result " },
        { "status", "status " },
        { "exit_code", "exit_code " },
        { "end_time", "end_time " },
        { "entry_identifier_uuid", "entry_identifier_uuid " },
    };
    const char *path = in_folder("changed.h5");
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        char full[128];
        snprintf(full, sizeof full, "/entry/%s", changes[i].set);
        make_run(path, 1);
        hid_t file = open_to_change(path);
        change_values(file, full);
        H5Fclose(file);
        assert_string_equal(differing(path), changes[i].member);
    }
}

static void attributes_objects_and_members_that_come_or_go_are_named(void **state)
{
    (void)state;
    const char *path = in_folder("members.h5");
    const double one = 1;
    make_run(path, 1);
    hid_t file = open_to_change(path);
    h5_attribute(file, "/entry/script", "more", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 0, NULL, &one);
    H5Adelete_by_name(file, "/entry/step_1", "NX_class", H5P_DEFAULT);
    H5Ldelete(file, "/entry/parameters/lr", H5P_DEFAULT);
    h5_put(file, "/entry/result/train/more", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 0, NULL, NULL, &one);
    H5Fclose(file);
    assert_string_equal(differing(path), "parameters result script step_1 ");
    make_run(path, 1);
    file = open_to_change(path);
    h5_put(file, "/entry/added", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 0, NULL, NULL, &one);
    H5Ldelete(file, "/entry/log", H5P_DEFAULT);
    H5Lmove(file, "/entry/script", file, "/entry/skript", H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file);
    const char *names = differing(path);
    static const char *const expected[] = { "added ", "log ", "script ", "skript " };
    size_t length = 0;
    for (size_t i = 0; i < 4; i++) {
        if (!strstr(names, expected[i]))
            fail_msg("%snot in \"%s\"", expected[i], names);
        length += strlen(expected[i]);
    }
    assert_int_equal(strlen(names), length);
}

static void a_member_that_cannot_be_read_any_more_is_named(void **state)
{
    (void)state;
    const char *path = in_folder("damaged.h5");
    make_run(path, 1);
    hid_t file = open_to_change(path), set = H5Dopen2(file, "/entry/metrics/train/loss/value", H5P_DEFAULT);
    haddr_t address = 0;
    hsize_t length = 0, origin = 0;
    unsigned skipped;
    assert_true(H5Dget_chunk_info_by_coord(set, &origin, &skipped, &address, &length) >= 0 && length > 4);
    H5Dclose(set);
    H5Fclose(file);
    size_t size;
    char *bytes = file_bytes(path, &size);
    bytes[address + length - 1] ^= 1; // of deflate's checksum
    file_put(path, bytes, size);
    free(bytes);
    assert_string_equal(differing(path), "metrics ");
}

static void values_stored_otherwise_are_the_same(void **state)
{
    (void)state;
    const char *path = in_folder("otherwise.h5");
    const hsize_t dims[] = { 1, 2 };
    const int64_t ranks[] = { 1, 2 };
    const double lr = .001;
    make_run(path, 1);
    hid_t file = open_to_change(path);
    H5Ldelete(file, "/entry/step_1/ranks", H5P_DEFAULT);
    h5_put(file, "/entry/step_1/ranks", H5T_STD_I64BE, H5T_NATIVE_INT64, 2, dims,
           &(layout){ .chunk = { 1, 1 }, .deflate = true }, ranks);
    H5Ldelete(file, "/entry/parameters/lr", H5P_DEFAULT);
    h5_put(file, "/entry/parameters/lr", H5T_IEEE_F64BE, H5T_NATIVE_DOUBLE, 0, NULL, NULL, &lr);
    H5Fclose(file);
    assert_string_equal(differing(path), "");
}

static void what_is_no_run_file_with_digests_is_an_error(void **state)
{
    (void)state;
    lf_error err = { 0 };
    char names[1024] = "";
    assert_false(lf_run_check(in_folder("absent.h5"), add_name, names, &err));
    assert_says(err, LF_ENOTFOUND, "absent.h5: cannot open: ");
    file_put(in_folder("text.h5"), "text", 4);
    assert_false(lf_run_check(in_folder("text.h5"), add_name, names, &err));
    assert_says(err, LF_EFORMAT, "text.h5: is not an HDF5 file");
    small_dataset(in_folder("data.h5"), 3, 2);
    assert_false(lf_run_check(in_folder("data.h5"), add_name, names, &err));
    assert_says(err, LF_ENOTFOUND, "data.h5:/entry: no such object");
    make_run(in_folder("old.h5"), 1);
    hid_t file = open_to_change(in_folder("old.h5"));
    H5Ldelete(file, "/digest", H5P_DEFAULT);
    H5Fclose(file);
    assert_false(lf_run_check(in_folder("old.h5"), add_name, names, &err));
    assert_says(err, LF_ENOTFOUND, "old.h5:/digest: no such object");
    assert_string_equal(names, "");
}

static void a_model_taken_out_of_a_run_file_is_the_model(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("models.h5"), *out = in_folder("model.h5");
    for (unsigned seed = 1; seed < 3; seed++) {
        make_run(path, seed);
        OK(lf_run_extract(path, "/entry/result/train/model", out, &err));
        lf_model_file *read = lf_model_file_read(out, &err), *model = sample_model(seed, true);
        if (!read)
            fail_msg("%s", err.text);
        assert_true(models_equal(read, model));
        char digest[65];
        OK(lf_tensors_digest(model->tensors, model->tensor_count, digest, &err));
        assert_string_equal(read->digest, digest);
        OK(lf_model_file_write(in_folder("written.h5"), model, &err)); // the same content as a model file has
        char left[65], right[65];
        OK(lf_h5_digest(out, "/model", left, &err));
        OK(lf_h5_digest(in_folder("written.h5"), "/model", right, &err));
        assert_string_equal(left, right);
        lf_model_file_destroy(read);
        lf_model_file_destroy(model);
    }
}

static void what_cannot_be_taken_out_leaves_the_old_file(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("kept_run.h5"), *out = in_folder("kept.h5");
    make_run(path, 1);
    file_put(out, "old", 3);
    assert_false(lf_run_extract(path, "/entry/result/train/none", out, &err));
    assert_says(err, LF_ENOTFOUND, "kept_run.h5:/entry/result/train/none: no such object");
    assert_false(lf_run_extract(in_folder("absent.h5"), "/entry", out, &err));
    assert_says(err, LF_ENOTFOUND, "absent.h5: cannot open: ");
    assert_false(lf_run_extract(path, "/entry/result/train/model", in_folder("no/such.h5"), &err));
    assert_says(err, LF_ENOTFOUND, "no/such.h5: ");
    size_t size;
    char *bytes = file_bytes(out, &size);
    assert_int_equal(size, 3);
    assert_memory_equal(bytes, "old", 3);
    free(bytes);
    assert_int_equal(entries_with(folder(), ".tmp"), 0);
}

int main(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unchanged_file_matches_its_digests),
        cmocka_unit_test(a_second_save_writes_its_own_digests),
        cmocka_unit_test(what_was_changed_is_named),
        cmocka_unit_test(attributes_objects_and_members_that_come_or_go_are_named),
        cmocka_unit_test(a_member_that_cannot_be_read_any_more_is_named),
        cmocka_unit_test(values_stored_otherwise_are_the_same),
        cmocka_unit_test(what_is_no_run_file_with_digests_is_an_error),
        cmocka_unit_test(a_model_taken_out_of_a_run_file_is_the_model),
        cmocka_unit_test(what_cannot_be_taken_out_leaves_the_old_file),
    };
    return cmocka_run_group_tests_name("io: digests of a run file", tests, folder_make, folder_remove);
}
