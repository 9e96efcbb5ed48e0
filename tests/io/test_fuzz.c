// Damaged files give an error or a result, never a crash or a hang. Deterministic: try i changes the same bytes on
// every run. Each try is a child process, so that a crash is seen and the others still run.
#include "util.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/random.h"
#include "io/rows_file.h"

// With AddressSanitizer: damage makes HDF5 1.10 itself copy a few bytes too many and ask for absurd memory. What is
// tested here is our code.
const char *__asan_default_suppressions(void);
const char *__asan_default_suppressions(void)
{
    return "interceptor_via_lib:libhdf5";
}
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

enum { SECONDS = 200 };
static int tries = 150;     // for each file; the first argument sets another number
static const char *keep_in; // the second names a folder for the files that crash

static bool visit(void *user, const lf_h5_node *node)
{
    *(size_t *)user += node->count;
    return true;
}

static void use_dataset(const char *path)
{
    lf_error err = { 0 };
    char hex[65];
    size_t seen = 0;
    lf_dataset *data = lf_dataset_open(&(lf_dataset_spec){ .file = path, .normalize = "standard" }, &err);
    const lf_part *part = data ? lf_dataset_part(data, LF_PART_TRAIN, &err) : NULL;
    if (part && part->rows < 1000000 && part->features < 1000) {
        size_t count = part->rows < 64 ? (size_t)part->rows : 64;
        void *x = malloc(count * part->features * lf_dtype_size(part->stored));
        void *y = malloc(count * (part->outputs ? part->outputs : 1) * sizeof(float));
        uint64_t rows[64];
        for (size_t i = 0; i < count; i++)
            rows[i] = (i * 37 + 5) % part->rows;
        void *targets = part->target == LF_TARGET_NONE ? NULL : y;
        float w[64];
        if (lf_dataset_read(data, LF_PART_TRAIN, rows, count, &(lf_rows_out){ .x = x, .y = targets }, &err) &&
            part->target == LF_TARGET_CLASSES)
            for (size_t i = 0; i < count; i++)
                if (((uint32_t *)y)[i] >= part->classes)
                    abort();
        if (lf_dataset_read(data, LF_PART_TRAIN, rows, count, &(lf_rows_out){ .w = w }, &err))
            for (size_t i = 0; i < count; i++)
                if (!(w[i] >= 0 && isfinite(w[i])))
                    abort();
        free(y);
        free(x);
        lf_dataset_digest(data, LF_PART_TRAIN, hex, &err);
    }
    lf_dataset_close(data);
    lf_h5_digest(path, "/", hex, &err);
    lf_h5_walk(path, "/", 1000, visit, &seen, &err);
}

static void use_model(const char *path)
{
    lf_error err = { 0 };
    lf_model_file *read = lf_model_file_read(path, &err);
    if (read) { // then nothing that matters was hit
        lf_model_file *model = sample_model(1, true);
        if (!models_equal(read, model))
            abort();
        lf_model_file_destroy(model);
    } else if (!strstr(err.text, "damaged.h5")) {
        fprintf(stderr, "a message without the file's name: %s\n", err.text);
        abort();
    }
    lf_model_file_destroy(read);
}

static void use_rows(const char *path)
{
    lf_error err = { 0 };
    float values[50 * 3];
    if (!lf_rows_read(path, "rows", "logits", 50, 3, values, &err) && !strstr(err.text, "damaged.h5")) {
        fprintf(stderr, "a message without the file's name: %s\n", err.text);
        abort();
    }
    free(lf_rows_read_text(path, "@model"));
    free(lf_rows_read_text(path, "logits@name"));
}

static void no_member(void *user, const char *name)
{
    (void)user;
    (void)name;
    abort();
}

static void use_live(const char *path)
{
    lf_error err = { 0 };
    size_t seen = 0;
    const char *out = in_folder("recovered.h5");
    lf_h5_walk(path, "/", 1000, visit, &seen, &err);
    unlink(out);
    if (lf_run_recover(path, out, "failed", 1, &err)) {
        if (!lf_run_check(out, no_member, NULL, &err))
            abort();
    } else if (!strstr(err.text, "damaged.h5") || access(out, F_OK) == 0 || entries_with(folder(), ".tmp")) {
        fprintf(stderr, "a message without the file's name, or a file left behind: %s\n", err.text);
        abort();
    }
}

static void use_journal(const char *path)
{
    lf_error err = { 0 };
    uint64_t offset = 0;
    lf_run *run = lf_run_create(&err);
    if (!lf_run_replay(run, path, &offset, 0, "train", NULL, NULL, NULL, &err) && !strstr(err.text, "damaged.h5"))
        abort();
    lf_run *journal = lf_run_journal(path, "", 0, &err);
    if (journal && (!lf_run_note(journal, "after", &err) ||
                    !lf_run_replay(run, path, &offset, 0, "train", NULL, NULL, NULL, &err)))
        abort();
    lf_run_destroy(journal);
    lf_run_destroy(run);
}

// Where a file may be damaged.
typedef struct range {
    size_t from, to;
} range;

static void damage(char *bytes, size_t *size, range where, uint64_t index)
{
    const uint32_t key[2] = { 1, 2 };
    uint32_t words[4];
    lf_philox((const uint32_t[4]){ (uint32_t)index, 0, 0, 0 }, key, words);
    if (words[0] % 6 == 0) {
        *size = words[1] % *size;
        return;
    }
    size_t length = where.to - where.from;
    for (uint32_t i = 0, flips = 1 + words[0] / 6 % 4; i < flips; i++) {
        uint32_t place[4];
        lf_philox((const uint32_t[4]){ (uint32_t)index, i + 1, 0, 0 }, key, place);
        // Half of them in the first kilobytes, where the structure is.
        size_t at = where.from + place[1] % (place[0] % 2 && length > 4096 ? 4096 : length);
        bytes[at] = place[2] % 2 ? (char)(bytes[at] ^ 1 << place[3] % 8) : (char)place[3];
    }
}

// The heaps of variable-length texts are left as they were: HDF5 1.10 itself crashes on damage to them.
static void spare_heaps(char *copy, size_t left, const char *bytes, size_t size)
{
    for (size_t at = 0; at + 16 <= size; at++) {
        uint64_t length;
        memcpy(&length, bytes + at + 8, sizeof length);
        if (memcmp(bytes + at, "GCOL\1", 5) == 0 && length <= left && at <= left - length)
            memcpy(copy + at, bytes + at, (size_t)length);
    }
}

static void fuzz(const char *whole, range where, void (*use)(const char *path))
{
    // Each damaged live file is waited for a moment, as if its writer went on.
    const int most = use == use_live ? tries / 3 : tries;
    size_t size;
    char *bytes = file_bytes(whole, &size), *copy = malloc(size);
    const char *path = in_folder("damaged.h5");
    static const int crashes_by[] = { SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL };
    int crashes = 0;
    if (where.to == 0)
        where.to = size;
    for (int i = 0; i < most; i++) {
        size_t left = size;
        memcpy(copy, bytes, size);
        damage(copy, &left, where, (uint64_t)i);
        spare_heaps(copy, left, bytes, size);
        file_put(path, copy, left);
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            for (size_t s = 0; s < sizeof crashes_by / sizeof *crashes_by; s++)
                signal(crashes_by[s], SIG_DFL); // cmocka's handlers would go on as if this were the parent
            alarm(SECONDS);
            use(path);
            _exit(0);
        }
        int status;
        waitpid(child, &status, 0);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            print_error("try %d: %s %d\n", i, WIFSIGNALED(status) ? "signal" : "exit status",
                        WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
            if (keep_in) {
                char kept[1024];
                snprintf(kept, sizeof kept, "%s/%s-%d.h5", keep_in,
                         use == use_model  ? "model"
                         : use == use_rows ? "rows"
                         : use == use_live ? "live"
                                           : "data",
                         i);
                file_put(kept, copy, left);
            }
            crashes++;
        }
    }
    free(copy);
    free(bytes);
    assert_int_equal(crashes, 0);
}

static void damaged_data_sets_never_crash(void **state)
{
    (void)state;
    static const layout layouts[] = {
        { .chunk = { 0 } },
        { .chunk = { 16, 3 }, .deflate = true, .shuffle = true },
        { .chunk = { 16, 3 }, .checksum = true },
    };
    static float x[100][5];
    static uint8_t y[100];
    const hsize_t dims[] = { 100, 5 };
    const double scale = .5;
    const hsize_t ten = 10; // names as texts of fixed length: HDF5 1.10 itself crashes on damaged variable-length ones
    for (int i = 0; i < 100; i++) {
        y[i] = (uint8_t)(i % 10);
        for (int j = 0; j < 5; j++)
            x[i][j] = (float)(i + j);
    }
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        const char *path = in_folder("whole.h5");
        hid_t file = h5_make(path);
        h5_put(file, "/train/x", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, 2, dims, &layouts[i], x);
        h5_put(file, "/train/y", H5T_STD_U8LE, H5T_NATIVE_UINT8, 1, dims, &layouts[i], y);
        h5_put(file, "/train/w", H5T_IEEE_F32LE, H5T_NATIVE_UINT8, 1, dims, NULL, y);
        h5_attribute(file, "/train/x", "scale", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 0, NULL, &scale);
        if (i == 0)
            h5_attribute(file, "/train/y", "classes", H5T_C_S1, H5T_C_S1, 1, &ten, "0123456789");
        range where = { 0, 0 };
        if (layouts[i].chunk[0]) {
            // HDF5 1.10 itself crashes on chunk indexes and filter lists that are damaged, so only values are.
            hid_t set = H5Dopen2(file, "/train/x", H5P_DEFAULT);
            haddr_t address = 0;
            hsize_t length = 0, origin[] = { 0, 0 };
            unsigned skipped;
            assert_true(H5Dget_chunk_info_by_coord(set, origin, &skipped, &address, &length) >= 0 && length > 0);
            where = (range){ (size_t)address, (size_t)(address + length) };
            H5Dclose(set);
        }
        H5Fclose(file);
        fuzz(path, where, use_dataset);
    }
}

static void damaged_models_never_crash(void **state)
{
    (void)state;
    lf_model_file *model = sample_model(1, true);
    lf_error err = { 0 };
    assert_true(lf_model_file_write(in_folder("whole.h5"), model, &err));
    lf_model_file_destroy(model);
    fuzz(in_folder("whole.h5"), (range){ 0, 0 }, use_model);
}

static void damaged_files_of_rows_never_crash(void **state)
{
    (void)state;
    lf_error err = { 0 };
    static const float values[50 * 3];
    lf_rows_file *file = lf_rows_create(in_folder("whole.h5"), "rows", &err);
    assert_non_null(file);
    assert_true(lf_rows_add(file, "logits", LF_F32, 50, 3, &err) && lf_rows_text(file, "@model", "m.h5", &err) &&
                lf_rows_text(file, "logits@name", "l", &err) && lf_rows_put(file, "logits", 0, 50, values, &err) &&
                lf_rows_finish(file, &err));
    fuzz(in_folder("whole.h5"), (range){ 0, 0 }, use_rows);
}

static lf_run *fill_run(lf_run *run)
{
    lf_error err = { 0 };
    char hex[65];
    memset(hex, 'a', 64);
    hex[64] = 0;
    assert_non_null(run);
    bool good = lf_run_set_text(run, "script", "return 1\n", &err) &&
                lf_run_set_text(run, "script@sha256", "abc", &err) && lf_run_set_f64(run, "parameters/lr", .5, &err) &&
                lf_run_set_i64s(run, "result/train/confusion", 2, (uint64_t[]){ 1, 2 }, (int64_t[]){ 3, 4 }, &err) &&
                lf_run_set_text(run, "metrics/train@monitor", "loss", &err) &&
                lf_run_digest(run, "train", 1, hex, &err) && lf_run_log(run, "train", "info", "a line", &err);
    for (int64_t i = 1; good && i <= 1500; i++)
        good = lf_run_series(run, "train", "loss", 1, &i, (double[]){ 1 }, (double[]){ 2 }, &err);
    if (!good)
        fail_msg("%s", err.text);
    return run;
}

static void damaged_live_files_never_crash(void **state)
{
    (void)state;
    lf_error err = { 0 };
    lf_run *run = fill_run(lf_run_create(&err));
    assert_true(lf_run_live(run, in_folder("whole.h5"), NULL, &err));
    size_t size; // as a kill leaves it
    char *bytes = file_bytes(in_folder("whole.h5"), &size);
    lf_run_destroy(run);
    file_put(in_folder("whole.h5"), bytes, size);
    free(bytes);
    fuzz(in_folder("whole.h5"), (range){ 0, 0 }, use_live);
}

static void damaged_journals_never_crash(void **state)
{
    (void)state;
    lf_error err = { 0 };
    lf_run_destroy(fill_run(lf_run_journal(in_folder("whole.journal"), "", 0, &err)));
    fuzz(in_folder("whole.journal"), (range){ 0, 0 }, use_journal);
}

int main(int count, char **arguments)
{
    if (count > 1)
        tries = atoi(arguments[1]);
    if (count > 2)
        keep_in = arguments[2];
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_data_sets_never_crash),     cmocka_unit_test(damaged_models_never_crash),
        cmocka_unit_test(damaged_files_of_rows_never_crash), cmocka_unit_test(damaged_live_files_never_crash),
        cmocka_unit_test(damaged_journals_never_crash),
    };
    return cmocka_run_group_tests_name("io: damaged files", tests, folder_make, folder_remove);
}
