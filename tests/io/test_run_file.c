// Run files: what is set, appended and saved is there; walking them.
#include "util.h"

#include <pthread.h>

static void what_is_set_is_in_the_file(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("run.h5");
    lf_run *run = lf_run_create(&err);
    assert_non_null(run);
    OK(lf_run_set_f64(run, "parameters/lr", .001, &err));
    OK(lf_run_set_i64(run, "parameters/batch", 64, &err));
    OK(lf_run_set_text(run, "parameters/name", "größe", &err));
    OK(lf_run_set_text(run, "script", "return 1\n", &err));
    OK(lf_run_set_text(run, "script@sha256", "abc", &err));
    OK(lf_run_set_text(run, "modules/a.lua", "", &err));
    OK(lf_run_set_text(run, "system/device_0/name", "llvmpipe", &err));
    OK(lf_run_set_group(run, "step_1", "NXprocess", &err));
    OK(lf_run_set_i64(run, "step_1/sequence_index", -1, &err));
    OK(lf_run_set_text(run, "step_2/name", "train", &err));
    OK(lf_run_set_text(run, "inputs/0/path@kind", "file", &err));
    OK(lf_run_set_text(run, "@title", "a run", &err));
    OK(lf_run_save(run, path, "done", 0, &err));
    static const char *const lines[] = {
        "/@NX_class text 'NXroot'",
        "/@default text 'entry'",
        "/entry group",
        "/entry@NX_class text 'NXentry'",
        "/entry@title text 'a run'",
        "/entry/program_name text 'lavaflow'",
        "/entry/status text 'done'",
        "/entry/exit_code integer 0",
        "/entry/parameters@NX_class text 'NXparameters'",
        "/entry/parameters/lr float 0.001",
        "/entry/parameters/batch integer 64",
        "/entry/parameters/name text 'größe'",
        "/entry/script text 'return 1\n'",
        "/entry/script@sha256 text 'abc'",
        "/entry/modules/a.lua text ''",
        "/entry/system/device_0/name text 'llvmpipe'",
        "/entry/step_1@NX_class text 'NXprocess'",
        "/entry/step_1/sequence_index integer -1",
        "/entry/step_2@NX_class text 'NXprocess'",
        "/entry/inputs/0/path@kind text 'file'",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        assert_lists(path, lines[i]);
    const listing *list = walk(path, "/entry", 1);
    assert_non_null(strstr(list->text, "/entry/entry_identifier_uuid text '"));
    assert_non_null(strstr(list->text, "/entry/start_time text '20"));
    assert_non_null(strstr(list->text, "/entry/end_time text '20"));
    assert_non_null(strstr(list->text, "/entry/program_name@version text '"));
    lf_run_destroy(run);
}

static void setting_again_replaces_the_value_and_keeps_the_attributes(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("again.h5");
    lf_run *run = lf_run_create(&err);
    OK(lf_run_set_text(run, "script", "one", &err));
    OK(lf_run_set_text(run, "script@sha256", "abc", &err));
    OK(lf_run_set_text(run, "script", "another text", &err));
    OK(lf_run_set_text(run, "script@sha256", "def", &err));
    OK(lf_run_set_f64(run, "parameters/p", 1.5, &err));
    OK(lf_run_set_text(run, "parameters/p", "now a text", &err));
    OK(lf_run_save(run, path, "failed", 1, &err));
    assert_lists(path, "/entry/script text 'another text'");
    assert_lists(path, "/entry/script@sha256 text 'def'");
    assert_lists(path, "/entry/parameters/p text 'now a text'");
    assert_lists(path, "/entry/exit_code integer 1");
    OK(lf_run_save(run, path, "done", 0, &err));
    assert_lists(path, "/entry/status text 'done'");
    assert_lists(path, "/entry/exit_code integer 0");
    lf_run_destroy(run);
}

static void arrays_keep_their_shape_and_values(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("arrays.h5");
    lf_run *run = lf_run_create(&err);
    const uint64_t shapes[][4] = { { 3 }, { 2, 3 }, { 1, 2, 3 }, { 2, 1, 3, 1 }, { 0, 3 } };
    const double floats[] = { .5, NAN, -1e300, 0, 1, 2 };
    const int64_t integers[] = { INT64_MIN, INT64_MAX, -1, 0, 1, 2 };
    OK(lf_run_set_f64s(run, "result/test/f1", 1, shapes[0], floats, &err));
    OK(lf_run_set_i64s(run, "result/test/confusion", 2, shapes[1], integers, &err));
    OK(lf_run_set_f64s(run, "f3", 3, shapes[2], floats, &err));
    OK(lf_run_set_i64s(run, "parameters/i4", 4, shapes[3], integers, &err));
    OK(lf_run_set_f64s(run, "parameters/none", 2, shapes[4], floats, &err));
    OK(lf_run_set_i64s(run, "parameters/i4@ids", 1, shapes[0], integers, &err));
    OK(lf_run_set_f64s(run, "step_1@range", 1, (uint64_t[]){ 2 }, floats, &err));
    OK(lf_run_save(run, path, "done", 0, &err));
    assert_lists(path, "/entry/result/test@NX_class text 'NXcollection'");
    assert_lists(path, "/entry/result/test/f1 float 3 0.5 nan -1e+300");
    assert_lists(path, "/entry/result/test/confusion integer 2x3 -9223372036854775808 9223372036854775807 -1 0 1 2");
    assert_lists(path, "/entry/f3 float 1x2x3 0.5 nan -1e+300 0 1 2");
    assert_lists(path, "/entry/parameters/i4 integer 2x1x3x1 -9223372036854775808 9223372036854775807 -1 0 1 2");
    assert_lists(path, "/entry/parameters/none float 0x3");
    assert_lists(path, "/entry/parameters/i4@ids integer 3 -9223372036854775808 9223372036854775807 -1");
    assert_lists(path, "/entry/step_1@range float 2 0.5 nan");
    assert_lists(path, "/entry/step_1@NX_class text 'NXprocess'");
    // Again: of the same shape with its attributes, of another, of another type, and as a scalar.
    OK(lf_run_set_text(run, "f3@units", "s", &err));
    OK(lf_run_set_f64s(run, "f3", 3, shapes[2], floats + 0, &err));
    OK(lf_run_set_i64s(run, "result/test/confusion", 1, shapes[0], integers + 3, &err));
    OK(lf_run_set_i64s(run, "result/test/f1", 1, shapes[0], integers + 3, &err));
    OK(lf_run_set_f64(run, "parameters/i4", 4, &err));
    OK(lf_run_set_f64s(run, "parameters/scalar", 1, (uint64_t[]){ 1 }, floats, &err));
    OK(lf_run_save(run, path, "done", 0, &err));
    assert_lists(path, "/entry/f3@units text 's'");
    assert_lists(path, "/entry/result/test/confusion integer 3 0 1 2");
    assert_lists(path, "/entry/result/test/f1 integer 3 0 1 2");
    assert_lists(path, "/entry/parameters/i4 float 4");
    assert_lists(path, "/entry/parameters/scalar float 1 0.5");
    static const size_t ranks[] = { 0, 5, SIZE_MAX };
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++) {
        assert_false(lf_run_set_f64s(run, "a/b", ranks[i], shapes[0], floats, &err));
        assert_says(err, LF_EARG, "run file: a/b: an array of rank ");
        assert_false(lf_run_set_i64s(run, "a/b", ranks[i], shapes[0], integers, &err));
        assert_says(err, LF_EARG, "; expects 1 to 4");
    }
    assert_false(lf_run_set_i64s(run, "parameters", 1, shapes[0], integers, &err));
    assert_says(err, LF_EARG, "parameters: is a group; it cannot become a value");
    assert_false(lf_run_set_f64s(run, "../x", 1, shapes[0], floats, &err));
    assert_says(err, LF_EARG, "\"../x\" is no path below /entry");
    lf_run_destroy(run);
}

static void wrong_paths_are_refused(void **state)
{
    (void)state;
    lf_error err = { 0 };
    lf_run *run = lf_run_create(&err);
    static const char *const paths[] = { "", "/a", "a/", "a//b", "../a", "a/../b", "./a", "a/." };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        if (lf_run_set_text(run, paths[i], "x", &err))
            fail_msg("\"%s\" is set", paths[i]);
        assert_says(err, LF_EARG, "is no path below /entry");
    }
    OK(lf_run_set_text(run, "parameters/a", "x", &err));
    assert_false(lf_run_set_text(run, "parameters", "x", &err));
    assert_says(err, LF_EARG, "parameters: is a group; it cannot become a value");
    assert_false(lf_run_set_text(run, "parameters/a/b", "x", &err));
    assert_says(err, LF_EARG, "parameters/a: is not a group");
    assert_false(lf_run_series(run, "a/b", "loss", 1, (int64_t[]){ 1 }, (double[]){ 0 }, (double[]){ 0 }, &err));
    assert_false(lf_run_digest(run, "t", 1, (const char[65]){ "short" }, &err));
    assert_says(err, LF_EARG, "has 5 digits; expects 64");
    assert_false(lf_run_save(run, "/no/such/run.h5", "done", 0, &err));
    assert_says(err, LF_ENOTFOUND, "/no/such/run.h5: ");
    lf_run_destroy(run);
}

static void series_digests_and_log_keep_their_order_over_many_appends_and_saves(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("series.h5");
    lf_run *run = lf_run_create(&err);
    enum { N = 3000 };
    char hex[65];
    memset(hex, 'a', 64);
    hex[64] = 0;
    for (int64_t i = 1; i <= N; i++) {
        const double time = (double)i / 10, value = 1 / (double)i;
        OK(lf_run_series(run, "train", "step_loss", 1, &i, &time, &value, &err));
        if (i == N / 2)
            OK(lf_run_save(run, path, "running", 0, &err));
    }
    OK(lf_run_series(run, "train", "loss", 2, (int64_t[]){ 1500, 3000 }, (double[]){ 1, 2 }, (double[]){ .5, .25 },
                     &err));
    OK(lf_run_series(run, "t.2", "lr", 1, (int64_t[]){ 7 }, (double[]){ 3 }, (double[]){ NAN }, &err));
    OK(lf_run_digest(run, "train", 10, hex, &err));
    hex[0] = 'b';
    OK(lf_run_digest(run, "train", 20, hex, &err));
    OK(lf_run_log(run, "", "info", "epoch 1: loss 0.5", &err));
    OK(lf_run_log(run, "train", "warn", "", &err));
    OK(lf_run_save(run, path, "done", 0, &err));
    OK(lf_run_save(run, path, "done", 0, &err));
    static const char *const lines[] = {
        "/entry@default text 'metrics'",
        "/entry/metrics@default text 'train'",
        "/entry/metrics/train@default text 'loss'",
        "/entry/metrics/t.2@default text 'lr'",
        "/entry/metrics/train/loss@NX_class text 'NXdata'",
        "/entry/metrics/train/loss@signal text 'value'",
        "/entry/metrics/train/loss@axes text 'step'",
        "/entry/metrics/train/loss/step integer 2 1500 3000",
        "/entry/metrics/train/loss/time float 2 1 2",
        "/entry/metrics/train/loss/time@units text 's'",
        "/entry/metrics/train/loss/value float 2 0.5 0.25",
        "/entry/metrics/train/step_loss/value float 3000", // longer than the limit: no values
        "/entry/metrics/t.2/lr/value float 1 nan",
        "/entry/digests/train/step integer 2 10 20",
        "/entry/log/level text 2 'info' 'warn'",
        "/entry/log/text text 2 'epoch 1: loss 0.5' ''",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        assert_lists(path, lines[i]);
    const listing *list = walk(path, "/entry/digests", 100);
    assert_non_null(strstr(list->text, "sha256 text 2 'aaaaaaa"));
    assert_non_null(strstr(list->text, "aaa' 'baaaaaaa"));
    list = walk(path, "/entry/metrics/train/step_loss/step", N);
    assert_non_null(strstr(list->text, "step_loss/step integer 3000 1 2 3 4 5 "));
    assert_non_null(strstr(list->text, " 2998 2999 3000\n"));
    list = walk(path, "/entry/metrics/train/step_loss/value", N);
    assert_non_null(strstr(list->text, "step_loss/value float 3000 1 0.5 0.333333 0.25 0.2 "));
    list = walk(path, "/entry/metrics/train/step_loss/time", N);
    assert_non_null(strstr(list->text, "step_loss/time float 3000 0.1 0.2 0.3 "));
    lf_run_destroy(run);
}

static void a_result_holds_the_model_and_replaces_the_older(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("result.h5");
    lf_run *run = lf_run_create(&err);
    for (unsigned seed = 1; seed < 3; seed++) {
        lf_model_file *model = sample_model(seed, seed == 1);
        OK(lf_run_model(run, "train", "model", model, &err));
        assert_int_equal(strlen(model->digest), 64);
        lf_model_file_destroy(model);
    }
    OK(lf_run_save(run, path, "done", 0, &err));
    assert_lists(path, "/entry/result/train/model@format text 'lavaflow-model'");
    assert_lists(path, "/entry/result/train/model/model/linear_2/bias float 1 5");
    assert_null(strstr(walk(path, "/entry/result", 100)->text, "optimizer"));
    lf_run_destroy(run);
}

static void a_walk_stops_when_told_and_starts_where_told(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("walk.h5");
    const hsize_t dims[] = { 2, 1, 3 }, many[] = { 1, 1, 1, 1, 1, 1, 1, 1, 1 }, none = 0;
    const uint64_t big[6] = { 1, 2, 3, 4, 5, UINT64_MAX };
    hid_t file = h5_make(path);
    h5_put(file, "/b/z", H5T_STD_U64BE, H5T_NATIVE_UINT64, 3, dims, NULL, big);
    h5_put(file, "/b/a", H5T_IEEE_F64BE, H5T_NATIVE_UINT64, 0, NULL, NULL, big);
    h5_put(file, "/c", H5T_STD_U64BE, H5T_NATIVE_UINT64, 9, many, NULL, big);
    h5_put(file, "/d", H5T_STD_REF_OBJ, H5T_STD_REF_OBJ, 0, NULL, NULL, NULL);
    h5_put(file, "/e", H5T_STD_U8LE, H5T_NATIVE_UINT8, 1, &none, NULL, NULL);
    H5Lcreate_soft("/b/a", file, "/soft", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_hard(file, "/b", file, "/b/loop", H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file);
    assert_string_equal(walk(path, "/", 6)->text,
                        "/ group\n/b group\n/b/a float 1\n"
                        "/b/z integer 2x1x3 1 2 3 4 5 9223372036854775807\n/c other\n/d other\n/e integer 0\n");
    assert_string_equal(walk(path, "/b/z", 5)->text, "/b/z integer 2x1x3\n");
    static listing list = { .stop_after = 2 };
    OK(lf_h5_walk(path, "/", 6, list_node, &list, &err));
    assert_int_equal(list.nodes, 2);
    assert_false(lf_h5_walk(path, "/nothing", 6, list_node, &list, &err));
    assert_says(err, LF_ENOTFOUND, "walk.h5:/nothing: no such object: the file has /b/a, /b/z");
    assert_false(lf_h5_walk("/no/such", "/", 6, list_node, &list, &err));
    assert_int_equal(err.code, LF_ENOTFOUND);
}

// The lock is not held while a visitor runs.
static bool open_inside(void *user, const lf_h5_node *node)
{
    (void)node;
    char hex[65];
    return lf_h5_digest(user, "/entry/status", hex, NULL);
}

static void a_visitor_may_call_io(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("inside.h5");
    lf_run *run = lf_run_create(&err);
    OK(lf_run_save(run, path, "done", 0, &err));
    OK(lf_h5_walk(path, "/", 6, open_inside, (void *)path, &err));
    lf_run_destroy(run);
}

typedef struct appender {
    lf_run *run;
    const char *name;
} appender;

static void *append_many(void *user)
{
    appender *a = user;
    for (int64_t i = 1; i <= 1000; i++) {
        const double value = (double)i;
        lf_run_series(a->run, "s", a->name, 1, &i, &value, &value, NULL);
        lf_run_log(a->run, "", "debug", a->name, NULL);
        lf_run_set_i64(a->run, "parameters/p", i, NULL);
    }
    return NULL;
}

static void threads_append_without_losing_a_value(void **state)
{
    (void)state;
    lf_error err = { 0 };
    lf_run *run = lf_run_create(&err);
    appender appenders[] = { { run, "a" }, { run, "b" } };
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, append_many, &appenders[i]);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    OK(lf_run_save(run, in_folder("threads.h5"), "done", 0, &err));
    assert_lists(in_folder("threads.h5"), "/entry/metrics/s/a/value float 1000");
    assert_lists(in_folder("threads.h5"), "/entry/metrics/s/b/value float 1000");
    assert_lists(in_folder("threads.h5"), "/entry/log/text text 2000");
    lf_run_destroy(run);
}

int main(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_set_is_in_the_file),
        cmocka_unit_test(setting_again_replaces_the_value_and_keeps_the_attributes),
        cmocka_unit_test(arrays_keep_their_shape_and_values),
        cmocka_unit_test(wrong_paths_are_refused),
        cmocka_unit_test(series_digests_and_log_keep_their_order_over_many_appends_and_saves),
        cmocka_unit_test(a_result_holds_the_model_and_replaces_the_older),
        cmocka_unit_test(a_walk_stops_when_told_and_starts_where_told),
        cmocka_unit_test(a_visitor_may_call_io),
        cmocka_unit_test(threads_append_without_losing_a_value),
    };
    return cmocka_run_group_tests_name("io: run files", tests, folder_make, folder_remove);
}
