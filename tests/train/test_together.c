// One process of several that train together; together.sh starts them and compares what they say. The environment tells
// what to do: DEVICES (openings a process), WINDOW (bytes), SAYS (a file that the first process writes digest or error
// to), NUMBERS (one for the shards that each process ends with, and the rows that it has read), CHECKPOINT, STOP_AFTER
// (steps), RESUME, FAST (sums of any order), EVEN (shards for all alike), TEACHER (distils), WEIGHTED (rows have
// weights; 2: classes too), and processes that are not as the others: DIFFERENT (its seed is another), KILLED (it kills
// itself after STOP_AFTER steps), SLOW (its devices take longer), CUT (it can read no more after READS times), NARROW
// (it has a device more, and none that can bind the rows at once), LACKS (it is denied each allocation of a start in
// turn).
#include <math.h>
#include <stdatomic.h>
#include <unistd.h>

#include "ranks/ranks.h"
#include "train/feed.h"
#include "train/team.h"
#include "trial.h"

static const char *of(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static uint32_t rank, rank_count;

static bool is_me(const char *name)
{
    return atol(of(name, "-1")) == (long)rank;
}

// The linker puts these in front of the functions of their names.
static uint64_t reads, rows_read; // of the training part; the first one is the sample that the data is known by

static bool can_read(lf_part_id id, size_t count, lf_error *err)
{
    if (id != LF_PART_TRAIN || !reads++)
        return true;
    rows_read += count;
    if (!is_me("CUT") || reads <= (uint64_t)atol(of("READS", "1")))
        return true;
    lf_error_set(err, LF_EFORMAT, "%s: the file is cut short", data_path);
    return false;
}

uint32_t __real_lf_feed_window(uint64_t rows, lf_row_bytes row, uint32_t unit, uint64_t budget, uint64_t max_tensor);
uint32_t __wrap_lf_feed_window(uint64_t rows, lf_row_bytes row, uint32_t unit, uint64_t budget, uint64_t max_tensor);
uint32_t __wrap_lf_feed_window(uint64_t rows, lf_row_bytes row, uint32_t unit, uint64_t budget, uint64_t max_tensor)
{
    return __real_lf_feed_window(rows, row, unit, budget, is_me("NARROW") ? row.x * (rows - 1) : max_tensor);
}

bool __real_lf_device_wait(lf_device *dev, lf_error *err);
bool __wrap_lf_device_wait(lf_device *dev, lf_error *err);
bool __wrap_lf_device_wait(lf_device *dev, lf_error *err)
{
    if (is_me("SLOW"))
        usleep(2000);
    return __real_lf_device_wait(dev, err);
}

bool __real_lf_dataset_read(lf_dataset *data, lf_part_id id, const uint64_t *rows, size_t count, const lf_rows_out *out,
                            lf_error *err);
bool __wrap_lf_dataset_read(lf_dataset *data, lf_part_id id, const uint64_t *rows, size_t count, const lf_rows_out *out,
                            lf_error *err);
bool __wrap_lf_dataset_read(lf_dataset *data, lf_part_id id, const uint64_t *rows, size_t count, const lf_rows_out *out,
                            lf_error *err)
{
    return can_read(id, count, err) && __real_lf_dataset_read(data, id, rows, count, out, err);
}

bool __real_lf_dataset_read_span(lf_dataset *data, lf_part_id id, uint64_t first, size_t count, const lf_rows_out *out,
                                 lf_error *err);
bool __wrap_lf_dataset_read_span(lf_dataset *data, lf_part_id id, uint64_t first, size_t count, const lf_rows_out *out,
                                 lf_error *err);
bool __wrap_lf_dataset_read_span(lf_dataset *data, lf_part_id id, uint64_t first, size_t count, const lf_rows_out *out,
                                 lf_error *err)
{
    return can_read(id, count, err) && __real_lf_dataset_read_span(data, id, first, count, out, err);
}

// An allocation that fails, of those before the first step.
static atomic_long allowed = -1; // before it; below 0: all
static bool started;             // with some to spare

static bool is_denied(void)
{
    return allowed >= 0 && atomic_fetch_sub(&allowed, 1) == 0;
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
    return is_denied() ? NULL : __real_malloc(size);
}

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size)
{
    return is_denied() ? NULL : __real_calloc(count, size);
}

bool __real_lf_team_run(lf_team *team, uint64_t step, uint32_t row, uint32_t steps, float *metrics, lf_error *err);
bool __wrap_lf_team_run(lf_team *team, uint64_t step, uint32_t row, uint32_t steps, float *metrics, lf_error *err);
bool __wrap_lf_team_run(lf_team *team, uint64_t step, uint32_t row, uint32_t steps, float *metrics, lf_error *err)
{
    started |= allowed >= 0;
    allowed = -1;
    return __real_lf_team_run(team, step, row, steps, metrics, err);
}

static bool act(void *user, const lf_step *step, lf_error *err)
{
    (void)err;
    trial *t = user;
    if (step->step != (uint64_t)atol(of("STOP_AFTER", "0")))
        return true;
    if (is_me("KILLED"))
        kill(getpid(), SIGKILL);
    if (!getenv("KILLED") && rank + 1 == rank_count) // one of them hears of the signal
        t->stop = SIGINT;
    return true;
}

// A teacher that has learnt nothing, whose outputs are computed once.
static void distil(trial *t)
{
    static const lf_layer layer = { .kind = LF_LAYER_LINEAR, .inputs = FEATURES, .outputs = CLASSES };
    static lf_model *teacher;
    teacher = lf_model_create(&layer, 1, NULL);
    lf_model_init(teacher, 9);
    t->params.teachers = (const lf_model *const *)&teacher;
    t->params.teacher_count = 1;
    t->params.alpha = .5f;
    t->params.temperature = 2;
}

static trial *begin_shared(void)
{
    static const char *devices[8];
    static const float class_weights[CLASSES] = { .5f, 1.7f, .3f };
    trial *t = begin(getenv("WEIGHTED") ? weighted_path : data_path);
    t->params.class_weights = atoi(of("WEIGHTED", "0")) > 1 ? class_weights : NULL;
    t->params.class_weight_count = t->params.class_weights ? CLASSES : 0;
    const lf_layer layers[] = {
        { .kind = LF_LAYER_LINEAR, .inputs = FEATURES, .outputs = 17 },
        { .kind = LF_LAYER_BATCH_NORM, .inputs = 17, .outputs = 17, .eps = 1e-5f, .momentum = .1f },
        { .kind = LF_LAYER_ACTIVATION, .activation = 1 },
        { .kind = LF_LAYER_DROPOUT, .rate = .25f },
        { .kind = LF_LAYER_LINEAR, .inputs = 17, .outputs = CLASSES }
    };
    lf_model_destroy(t->params.model);
    t->params.model = lf_model_create(layers, sizeof layers / sizeof *layers, &t->err);
    for (unsigned i = 0; i < 8; i++)
        devices[i] = device;
    t->params.devices = devices;
    t->params.device_count = (unsigned)atoi(of("DEVICES", "1"));
    t->params.shards = 8;
    if (getenv("TEACHER"))
        distil(t);
    t->params.window = (uint64_t)atol(of("WINDOW", "0"));
    t->params.fast = getenv("FAST");
    t->params.even_shards = t->params.fast || getenv("EVEN");
    t->params.checkpoint = of("CHECKPOINT", NULL);
    t->params.resume = of("RESUME", NULL);
    return t;
}

// A line of the shards that each process holds, and one of the rows that each has read.
static void tell_numbers(const trial *t)
{
    enum { RANKS_MAX = 16 };
    uint64_t own[2] = { 0, rows_read }, all[RANKS_MAX][2];
    lf_error err;
    for (unsigned i = 0; i < t->result.device_count; i++)
        own[0] += t->result.devices[i].shards;
    if (!lf_ranks_gather(own, sizeof own, all, &err))
        fail_msg("%s", err.text);
    FILE *numbers = rank ? NULL : fopen(of("NUMBERS", "/dev/null"), "w");
    for (int line = 0; numbers && line < 2; line++)
        for (uint32_t r = 0; r < rank_count; r++)
            fprintf(numbers, "%d%c", (int)all[r][line], r + 1 < rank_count ? ' ' : '\n');
    if (numbers)
        fclose(numbers);
}

static void processes_train_together(void **state)
{
    (void)state;
    trial *t = begin_shared();
    if (!lf_ranks_open(&rank, &rank_count, &t->err))
        fail_msg("%s", t->err.text);
    if (is_me("DIFFERENT"))
        t->params.seed++;
    t->params.device_count += is_me("NARROW");
    t->params.events.step = act;
    t->params.events.steps = NULL; // a training that goes on begins late
    run(t);
    if (rank == 0) {
        FILE *says = fopen(of("SAYS", "/dev/stdout"), "w");
        assert_non_null(says);
        fprintf(says, "%s\n", t->ok ? t->result.digest : t->err.text);
        fclose(says);
    }
    if (!t->ok && t->err.code == LF_EDEVICE) // the others wait for this one
        lf_ranks_abort(1);
    if (t->ok)
        tell_numbers(t);
    if (t->params.teacher_count)
        lf_model_destroy((lf_model *)t->params.teachers[0]);
    end(t);
    lf_ranks_close();
}

// Starts once for each allocation that one process makes before the first step, which is denied it.
static void what_one_process_has_no_memory_for_is_told_by_all(void **state)
{
    (void)state;
    lf_error err;
    long lacks = atol(of("LACKS", "0")), denied = 0, failures = 0;
    if (!lf_ranks_open(&rank, &rank_count, &err))
        fail_msg("%s", err.text);
    char process[32] = "";
    if (lacks)
        snprintf(process, sizeof process, "process %ld: ", lacks);
    for (bool over = false; !over; denied++) {
        trial *t = begin_shared();
        t->params.max_steps = 1;
        allowed = is_me("LACKS") ? denied : -1;
        run(t);
        allowed = -1;
        over = started;
        lf_error first = t->ok ? (lf_error){ LF_OK, "" } : t->err;
        if (!lf_ranks_broadcast(&first, sizeof first, &err) ||
            !lf_ranks_broadcast_from((uint32_t)lacks, &over, sizeof over, &err))
            fail_msg("%s", err.text);
        if (t->ok != !first.code || (!t->ok && strcmp(t->err.text, first.text)))
            fail_msg("allocation %ld: %s, and %s", denied, first.text, t->ok ? "no failure" : t->err.text);
        if (!t->ok && strncmp(t->err.text, process, strlen(process)))
            fail_msg("allocation %ld: %s", denied, t->err.text);
        failures += !t->ok;
        end(t);
    }
    FILE *says = rank ? NULL : fopen(of("SAYS", "/dev/stdout"), "w");
    if (says) {
        fprintf(says, "%s\n", failures > 50 && failures <= denied ? "told" : "too few");
        fclose(says);
    }
    lf_ranks_close();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest together[] = { cmocka_unit_test(processes_train_together) },
                            lacking[] = { cmocka_unit_test(what_one_process_has_no_memory_for_is_told_by_all) };
    return run_on_device(argc, argv, getenv("LACKS") ? lacking : together, 1);
}
