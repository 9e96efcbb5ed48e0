// One of three devices fails for good, at each call to it after the training has begun: the others go on, no bit
// changes, and its loss is told once. The linker puts the functions below in front of the seam's.
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device/device.h"
#include "trial.h"

enum { DEVICES = 3, SECONDS = 200 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static lf_device *seen[DEVICES]; // in the order of their first calls
static unsigned seen_count, victim;
static long calls, begun, fails_at; // of the victim; when the first step begins; 0: never
static bool dead;
static const char *where = "";

static bool fails(lf_device *dev, const char *what, bool runs, lf_error *err)
{
    pthread_mutex_lock(&lock);
    unsigned i = 0;
    while (i < seen_count && seen[i] != dev)
        i++;
    if (i == seen_count && seen_count < DEVICES)
        seen[seen_count++] = dev;
    if (runs && !begun)
        begun = calls + 1;
    bool fail = false;
    if (i == victim) {
        if (++calls == fails_at) {
            dead = true;
            where = what;
        }
        fail = dead;
    }
    pthread_mutex_unlock(&lock);
    if (fail)
        lf_error_set(err, LF_EDEVICE, "injected in %s", what);
    return fail;
}

#define WRAP(type, name, none, runs, declared, given)                                                                  \
    type __real_##name declared;                                                                                       \
    type __wrap_##name declared;                                                                                       \
    type __wrap_##name declared                                                                                        \
    {                                                                                                                  \
        return fails(dev, #name, runs, err) ? none : __real_##name given;                                              \
    }
WRAP(bool, lf_device_buffer_write, false, false,
     (lf_device * dev, lf_buffer *dst, size_t offset, const void *src, size_t size, lf_error *err),
     (dev, dst, offset, src, size, err))
WRAP(bool, lf_device_buffer_read, false, false,
     (lf_device * dev, void *dst, const lf_buffer *src, size_t offset, size_t size, lf_error *err),
     (dev, dst, src, offset, size, err))
WRAP(bool, lf_device_exec_run, false, true,
     (lf_device * dev, lf_exec *exec, uint32_t first, uint32_t last, uint32_t steps, lf_error *err),
     (dev, exec, first, last, steps, err))
WRAP(bool, lf_device_wait, false, false, (lf_device * dev, lf_error *err), (dev, err))
WRAP(lf_exec *, lf_device_exec_create, NULL, false,
     (lf_device * dev, const lf_program *prog, const lf_bindings *regions, lf_error *err), (dev, prog, regions, err))
WRAP(lf_buffer *, lf_device_buffer_create, NULL, false, (lf_device * dev, size_t size, lf_error *err), (dev, size, err))

static trial *begin_three(void)
{
    static const char *all[DEVICES];
    static const lf_layer layers[] = {
        { .kind = LF_LAYER_LINEAR, .inputs = FEATURES, .outputs = 17 },
        { .kind = LF_LAYER_BATCH_NORM, .inputs = 17, .outputs = 17, .eps = 1e-5f, .momentum = .1f },
        { .kind = LF_LAYER_DROPOUT, .rate = .25f },
        { .kind = LF_LAYER_LINEAR, .inputs = 17, .outputs = CLASSES }
    };
    trial *t = begin(data_path);
    lf_model_destroy(t->params.model);
    t->params.model = lf_model_create(layers, sizeof layers / sizeof *layers, &t->err);
    for (unsigned i = 0; i < DEVICES; i++)
        all[i] = device;
    t->params.devices = all;
    t->params.device_count = DEVICES;
    t->params.shards = 8;
    t->params.even_shards = true; // the same calls each time
    t->params.batch = 256;
    t->params.epochs = 2;
    return t;
}

static unsigned told;

static void on_lost(void *user, const lf_train_device *lost, uint64_t step, const char *why)
{
    (void)user;
    (void)step;
    told += lost->opened == victim && strstr(why, "injected");
}

// In a process of its own, which a deadlock does not outlive.
static void expect_same(long call, const char *digest)
{
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        alarm(SECONDS);
        seen_count = 0;
        calls = 0;
        fails_at = call;
        trial *t = begin_three();
        t->params.events.lost = on_lost;
        run(t);
        bool same = t->ok && !strcmp(digest, t->result.digest);
        if (!same || told != 1)
            fprintf(stderr, "device %u, call %ld, %s: %s, told %u times\n", victim, call, where,
                    t->ok ? same ? "equal bits" : "other bits" : t->err.text, told);
        _exit(same && told == 1 ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        fail_msg("device %u, call %ld: status %d", victim, call, status);
}

static void a_device_that_fails_at_any_call_is_told_and_changes_no_bit(void **state)
{
    (void)state;
    for (victim = 0; victim < DEVICES; victim++) {
        seen_count = 0;
        calls = begun = fails_at = 0;
        trial *whole = run_well(begin_three());
        long all = calls;
        assert_true(begun > 0 && all > begun + 20);
        for (long call = begun + 1; call <= all; call++)
            expect_same(call, whole->result.digest);
        end(whole);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(a_device_that_fails_at_any_call_is_told_and_changes_no_bit) };
    return run_on_device(argc, argv, tests, 1);
}
