// One process of several that train together; together.sh starts them and compares what they say. The environment tells
// what to do: DEVICES (openings a process), WINDOW (bytes), SAYS (a file that the first process writes digest or error
// to), CHECKPOINT, STOP_AFTER (steps), RESUME, FAST (sums of any order), DIFFERENT (a process whose seed is another), KILLED (a process that
// kills itself after STOP_AFTER steps).
#include <math.h>
#include <unistd.h>

#include "ranks/ranks.h"
#include "trial.h"

static const char *of(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static uint32_t rank, rank_count;

static bool act(void *user, const lf_step *step, lf_error *err)
{
    (void)err;
    trial *t = user;
    if (step->step != (uint64_t)atol(of("STOP_AFTER", "0")))
        return true;
    if (atol(of("KILLED", "-1")) == (long)rank)
        kill(getpid(), SIGKILL);
    if (!getenv("KILLED") && rank + 1 == rank_count) // one of them hears of the signal
        t->stop = SIGINT;
    return true;
}

static trial *begin_shared(void)
{
    static const char *devices[8];
    trial *t = begin(data_path);
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
    t->params.window = (uint64_t)atol(of("WINDOW", "0"));
    t->params.fast = getenv("FAST");
    t->params.even_shards = t->params.fast;
    t->params.checkpoint = of("CHECKPOINT", NULL);
    t->params.resume = of("RESUME", NULL);
    return t;
}

static void processes_train_together(void **state)
{
    (void)state;
    trial *t = begin_shared();
    if (!lf_ranks_open(&rank, &rank_count, &t->err))
        fail_msg("%s", t->err.text);
    if (atol(of("DIFFERENT", "-1")) == (long)rank)
        t->params.seed++;
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
    end(t);
    lf_ranks_close();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(processes_train_together) };
    return run_on_device(argc, argv, tests, 1);
}
