// Several devices, which here are the one that the argument names, opened several times: their number, the hand-out of
// shards and the loss of some change no bit.
#include <math.h>

#include "trial.h"

enum { MANY = 8 };
static const char *all[MANY];

static void use(trial *t, unsigned devices, uint32_t shards)
{
    for (unsigned i = 0; i < MANY; i++)
        all[i] = device;
    t->params.devices = all;
    t->params.device_count = devices;
    t->params.shards = shards;
}

// 12-17-3 with what crosses shards: batch norm, dropout, clipping, a moving average.
static trial *begin_crossing(unsigned devices)
{
    trial *t = begin(data_path);
    const lf_layer layers[] = {
        { .kind = LF_LAYER_LINEAR, .inputs = FEATURES, .outputs = 17 },
        { .kind = LF_LAYER_BATCH_NORM, .inputs = 17, .outputs = 17, .eps = 1e-5f, .momentum = .1f },
        { .kind = LF_LAYER_ACTIVATION, .activation = 1 },
        { .kind = LF_LAYER_DROPOUT, .rate = .25f },
        { .kind = LF_LAYER_LINEAR, .inputs = 17, .outputs = 9 },
        { .kind = LF_LAYER_BATCH_NORM, .inputs = 9, .outputs = 9, .eps = 1e-5f, .momentum = .1f },
        { .kind = LF_LAYER_LINEAR, .inputs = 9, .outputs = CLASSES }
    };
    lf_model_destroy(t->params.model);
    t->params.model = lf_model_create(layers, sizeof layers / sizeof *layers, &t->err);
    if (!t->params.model)
        fail_msg("%s", t->err.text);
    t->params.average = .9f;
    t->params.optimizer.clip_norm = 1;
    t->params.epochs = 2;
    use(t, devices, 8);
    return t;
}

static void any_number_of_devices_gives_the_bits_of_one(void **state)
{
    (void)state;
    static const unsigned numbers[] = { 2, 3, 4, 8 };
    trial *one = run_well(begin_crossing(1));
    assert_true(isfinite(one->last.loss) && one->last.loss < one->losses[0]);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        trial *several = run_well(begin_crossing(numbers[i]));
        assert_same(one, several);
        assert_int_equal(several->result.device_count, numbers[i]);
        uint32_t shards = 0;
        for (unsigned d = 0; d < numbers[i]; d++) {
            shards += several->result.devices[d].shards;
            assert_int_equal(several->result.devices[d].opened, d);
            assert_true(several->result.devices[d].busy > 0);
        }
        assert_int_equal(shards, 8);
        end(several);
    }
    end(one);
}

static void any_hand_out_of_shards_gives_equal_bits(void **state)
{
    (void)state;
    trial *one = run_well(begin_crossing(1));
    for (uint64_t seed = 1; seed <= 6; seed++) {
        char text[8];
        snprintf(text, sizeof text, "%d", (int)seed);
        setenv("LAVAFLOW_HAND_OUT", text, 1); // anew after every submission
        trial *scattered = begin_crossing(2 + (unsigned)seed % 3);
        scattered->params.digest_every = 3;
        run_well(scattered);
        unsetenv("LAVAFLOW_HAND_OUT");
        assert_same(one, scattered);
        end(scattered);
    }
    end(one);
}

// The device's opening `number` fails at a step, or with `sum` when it has given its parts of that sum of the step.
static void lose(char *faults, size_t size, unsigned number, uint64_t step, unsigned sum)
{
    size_t used = strlen(faults);
    used += (size_t)snprintf(faults + used, size - used, "%s%s#%u@step=%d", used ? "," : "", device, number, (int)step);
    if (sum)
        snprintf(faults + used, size - used, ".%u", sum);
}

static trial *begin_weighted(unsigned devices)
{
    trial *t = begin(weighted_path);
    t->params.accumulate = 3;
    t->params.batch = 30; // four shards of 8 rows, the last one of 6
    t->params.window = 32768;
    use(t, devices, 4);
    return t;
}

static void weights_accumulation_and_windows_are_no_exception(void **state)
{
    (void)state;
    trial *one = run_well(begin_weighted(1)), *three = run_well(begin_weighted(3));
    assert_same(one, three);
    end(three);
    // Shards change hands between the batches of an update, and a device is lost there.
    setenv("LAVAFLOW_HAND_OUT", "3", 1);
    three = run_well(begin_weighted(3));
    unsetenv("LAVAFLOW_HAND_OUT");
    assert_same(one, three);
    end(three);
    for (uint64_t step = 1; step <= 6; step++) {
        char faults[64] = "";
        lose(faults, sizeof faults, 2, step, 0);
        setenv("LAVAFLOW_FAULT", faults, 1);
        three = run_well(begin_weighted(3));
        unsetenv("LAVAFLOW_FAULT");
        assert_true(three->result.devices[1].lost);
        assert_same(one, three);
        end(three);
    }
    end(one);
}

static trial *begin_fast(unsigned devices)
{
    trial *t = begin_crossing(devices);
    t->params.fast = true;
    t->params.even_shards = true;
    return t;
}

static void fast_sums_change_rounding_alone_and_the_same_devices_repeat_them(void **state)
{
    (void)state;
    trial *one = run_well(begin_crossing(1)), *fast = run_well(begin_fast(1));
    assert_same(one, fast); // nothing is exchanged
    end(fast);
    trial *three = run_well(begin_fast(3)), *again = run_well(begin_fast(3));
    assert_same(three, again);
    assert_near(one, three, 1e-4);
    assert_string_not_equal(one->result.digest, three->result.digest);
    end(again);
    char faults[64] = "";
    lose(faults, sizeof faults, 2, 9, 1);
    setenv("LAVAFLOW_FAULT", faults, 1);
    again = run_well(begin_fast(3));
    unsetenv("LAVAFLOW_FAULT");
    assert_true(again->result.devices[1].lost);
    assert_near(one, again, 1e-4);
    end(again);
    end(three);
    end(one);
}

static void shards_change_rounding_alone(void **state)
{
    (void)state;
    for (int values = 0; values < 2; values++) {
        trial *whole = begin(values ? values_path : data_path), *cut = begin(values ? values_path : data_path);
        use(cut, 2, 8);
        run_well(whole);
        run_well(cut);
        assert_near(whole, cut, 1e-4);
        assert_true(whole->last.lr == cut->last.lr);
        end(whole);
        end(cut);
    }
}

// And dropout draws what it draws there: 5 rows of 17 are no whole groups of the numbers drawn.
static void batch_norm_and_dropout_are_over_the_whole_batch(void **state)
{
    (void)state;
    trial *whole = begin_crossing(1), *cut = begin_crossing(4);
    whole->params.batch = cut->params.batch = 33;
    whole->params.shards = 1;
    run_well(whole);
    run_well(cut);
    for (uint64_t i = 0; i < 40; i++)
        if (!(fabs(whole->losses[i] - cut->losses[i]) < 1e-3 * (1 + whole->losses[i])))
            fail_msg("loss of step %d: %.9g, in shards %.9g", (int)i + 1, whole->losses[i], cut->losses[i]);
    end(whole);
    end(cut);
}

// ---- lost devices

static unsigned lost;

static void on_lost(void *user, const lf_train_device *which, uint64_t step, const char *why)
{
    (void)user;
    assert_true(which->lost && step >= 1 && strstr(why, "is lost"));
    lost++;
}

static void a_lost_device_changes_no_bit(void **state)
{
    (void)state;
    trial *one = run_well(begin_crossing(1));
    for (uint64_t round = 0; round < 20; round++) {
        char faults[256] = "";
        unsigned devices = 2 + (unsigned)round % 3;
        lose(faults, sizeof faults, 1 + (unsigned)round % devices, 1 + round * 29 % 64, (unsigned)round % 8);
        if (devices > 2) // a second one; the last lives
            lose(faults, sizeof faults, 1 + (unsigned)(round + 1) % devices, 1 + round * 37 % 64,
                 (unsigned)round * 3 % 8);
        setenv("LAVAFLOW_FAULT", faults, 1);
        trial *t = begin_crossing(devices);
        t->params.events.lost = on_lost;
        lost = 0;
        run_well(t);
        unsetenv("LAVAFLOW_FAULT");
        assert_int_equal(lost, devices > 2 ? 2 : 1);
        assert_same(one, t);
        end(t);
    }
    end(one);
}

static void the_last_device_that_is_lost_ends_the_training(void **state)
{
    (void)state;
    char faults[256] = "";
    lose(faults, sizeof faults, 1, 7, 0);
    lose(faults, sizeof faults, 2, 7, 0);
    setenv("LAVAFLOW_FAULT", faults, 1);
    trial *t = run(begin_crossing(2));
    unsetenv("LAVAFLOW_FAULT");
    assert_false(t->ok);
    assert_int_equal(t->err.code, LF_EDEVICE);
    assert_non_null(strstr(t->err.text, "no device is left"));
    end(t);
}

static void the_only_device_fails_on_request_too(void **state)
{
    (void)state;
    char faults[64] = "";
    lose(faults, sizeof faults, 1, 7, 0);
    setenv("LAVAFLOW_FAULT", faults, 1);
    trial *t = run(begin(data_path));
    unsetenv("LAVAFLOW_FAULT");
    assert_false(t->ok);
    assert_int_equal(t->err.code, LF_EDEVICE);
    end(t);
}

static void what_asks_for_faults_is_checked(void **state)
{
    (void)state;
    static const char *const wrong[] = { "cpu",          "cpu@step=0",  "cpu@step=x",  "@step=3",
                                         "cpu#0@step=1", "cpu@step=1;", "cpu@step=1.", "cpu@step=-1" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        setenv("LAVAFLOW_FAULT", wrong[i], 1);
        trial *t = run(begin_crossing(2));
        unsetenv("LAVAFLOW_FAULT");
        if (t->ok || !strstr(t->err.text, "DEVICE@step=N"))
            fail_msg("%s: %s", wrong[i], t->ok ? "ran" : t->err.text);
        end(t);
    }
}

// ---- kinds

// The cpu beside the device under test: no bits are promised, but a bound.
static void devices_of_two_kinds_train_together(void **state)
{
    (void)state;
    if (!strcmp(device, "cpu"))
        skip();
    trial *one = run_well(begin_crossing(1)), *mixed = begin_crossing(2);
    all[1] = "cpu";
    run_well(mixed);
    for (uint64_t i = 0; i < one->loss_count; i++)
        if (!(fabs(one->losses[i] - mixed->losses[i]) < 1e-2 * (1 + one->losses[i])))
            fail_msg("loss of step %d: %.9g, beside the cpu %.9g", (int)i + 1, one->losses[i], mixed->losses[i]);
    assert_true(fabs(one->last.val_accuracy - mixed->last.val_accuracy) < .02);
    assert_string_equal(mixed->result.devices[1].info.id, "cpu");
    end(one);
    end(mixed);
}

// ---- going on

static void a_training_goes_on_with_other_devices(void **state)
{
    (void)state;
    static const unsigned numbers[] = { 1, 8, 3 };
    trial *whole = run_well(begin_crossing(2));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        trial *first = begin_crossing(4), *second = begin_crossing(numbers[i]);
        first->params.checkpoint = checkpoint_path;
        first->stop_after = 11 + 20 * i;
        first->params.digest_every = 4;
        run(first);
        assert_int_equal(first->err.code, LF_EINTERRUPTED);
        second->params.resume = checkpoint_path;
        second->params.shards = 0; // the checkpoint's
        second->next_step = first->result.steps + 1;
        run_well(second);
        assert_int_equal(second->result.shards, 8);
        assert_string_equal(whole->result.digest, second->result.digest);
        end(first);
        end(second);
    }
    end(whole);
}

static void a_loss_that_is_not_finite_is_replayed(void **state)
{
    (void)state;
    trial *t = begin(data_path);
    use(t, 3, 4);
    t->params.optimizer = lf_optimizer_default(LF_OPTIMIZER_SGD);
    t->params.optimizer.lr = 1e30;
    t->params.replay = other_path;
    run(t);
    assert_false(t->ok);
    assert_int_equal(t->err.code, LF_EDATA);
    assert_non_null(strstr(t->err.text, "holds the training before that step"));
    end(t);
}

// ---- options

static void shards_are_chosen_by_the_number_of_devices(void **state)
{
    (void)state;
    static const uint32_t expected[] = { 1, 2, 4, 4, 8 };
    for (unsigned devices = 1; devices <= 5; devices++) {
        trial *t = begin(data_path);
        use(t, devices, 0);
        t->params.epochs = 1;
        run_well(t);
        assert_int_equal(t->result.shards, expected[devices - 1]);
        end(t);
    }
}

static void refuses(unsigned devices, uint32_t shards, const char *text)
{
    trial *t = begin(data_path);
    use(t, devices, shards);
    run(t);
    if (t->ok || !strstr(t->err.text, text))
        fail_msg("%u devices, %u shards: %s", devices, shards, t->ok ? "ran" : t->err.text);
    end(t);
}

static void shards_must_fit_batch_and_devices(void **state)
{
    (void)state;
    refuses(1, 3, "power of two");
    refuses(2, 512, "at most 256");
    refuses(1, 64, "a batch of 32 rows cannot be cut into 64 shards");
    trial *t = begin(data_path); // more devices than shards: the last ones are not used
    use(t, 4, 2);
    t->params.epochs = 1;
    run_well(t);
    assert_int_equal(t->result.device_count, 2);
    end(t);
}

static void a_device_that_is_not_there_is_named(void **state)
{
    (void)state;
    trial *t = begin(data_path);
    t->params.devices = (const char *const[]){ device, "vulkan:97" };
    t->params.device_count = 2;
    run(t);
    assert_false(t->ok);
    assert_non_null(strstr(t->err.text, "vulkan:97"));
    end(t);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_devices_gives_the_bits_of_one),
        cmocka_unit_test(any_hand_out_of_shards_gives_equal_bits),
        cmocka_unit_test(weights_accumulation_and_windows_are_no_exception),
        cmocka_unit_test(fast_sums_change_rounding_alone_and_the_same_devices_repeat_them),
        cmocka_unit_test(shards_change_rounding_alone),
        cmocka_unit_test(batch_norm_and_dropout_are_over_the_whole_batch),
        cmocka_unit_test(a_lost_device_changes_no_bit),
        cmocka_unit_test(the_last_device_that_is_lost_ends_the_training),
        cmocka_unit_test(the_only_device_fails_on_request_too),
        cmocka_unit_test(what_asks_for_faults_is_checked),
        cmocka_unit_test(devices_of_two_kinds_train_together),
        cmocka_unit_test(a_training_goes_on_with_other_devices),
        cmocka_unit_test(a_loss_that_is_not_finite_is_replayed),
        cmocka_unit_test(shards_are_chosen_by_the_number_of_devices),
        cmocka_unit_test(shards_must_fit_batch_and_devices),
        cmocka_unit_test(a_device_that_is_not_there_is_named),
    };
    return run_on_device(argc, argv, tests, sizeof tests / sizeof *tests);
}
