// Rows gathered for several steps at once, against a gather a step. The environment says with which tiles, and whether
// the validation layer watches.
#include "trainer.h"

// Rows end within a batch, so that batches are short.
static const struct {
    test_training training;
    uint32_t slots; // steps that one gather serves
} cases[] = {
    { { .what = "784-128-10, batch 64, bytes",
        .layers = { LINEAR(784, 128), ACTIVATION(LF_ACT_RELU), LINEAR(128, 10) },
        .layer_count = 3,
        .loss = LF_LOSS_CROSS_ENTROPY,
        .optimizer = { .kind = LF_OPTIMIZER_ADAM, .lr = .01, .beta1 = .9f, .beta2 = .99f, .eps = 1e-8f },
        .rows = 150,
        .batch = 64,
        .steps = 19,
        .stored = LF_U8 },
      4 },
    { { .what = "33-65-5, batch 7, values, dropout, weights of rows",
        .layers = { LINEAR(33, 65), DROPOUT(.5f), LINEAR(65, 5) },
        .layer_count = 3,
        .loss = LF_LOSS_MSE,
        .optimizer = { .kind = LF_OPTIMIZER_SGD, .lr = .01 },
        .rows = 25,
        .batch = 7,
        .steps = 19,
        .stored = LF_I16,
        .weighted = true },
      8 },
    { { .what = "20-40-6, batch 9, distillation, batches that share an update",
        .layers = { LINEAR(20, 40), ACTIVATION(LF_ACT_GELU), LINEAR(40, 6) },
        .layer_count = 3,
        .loss = LF_LOSS_CROSS_ENTROPY,
        .optimizer = { .kind = LF_OPTIMIZER_SGD, .lr = .05, .momentum = .9f },
        .rows = 40,
        .batch = 9,
        .steps = 19,
        .stored = LF_F32,
        .soft_weight = .5f,
        .temperature = 2,
        .batches = 3 },
      8 },
    { { .what = "2000-16-3, batch 100, too large for two slots",
        .layers = { LINEAR(2000, 16), LINEAR(16, 3) },
        .layer_count = 2,
        .loss = LF_LOSS_CROSS_ENTROPY,
        .optimizer = { .kind = LF_OPTIMIZER_SGD, .lr = .01 },
        .rows = 150,
        .batch = 100,
        .steps = 19,
        .stored = LF_F32 },
      1 },
};

static uint64_t dispatches_of(test_trainer *t, uint32_t steps)
{
    uint64_t before = device->dispatches;
    rig_run(&t->rig, LF_PHASE_LOAD, LF_PHASE_UPDATE, steps);
    return device->dispatches - before;
}

// In submissions of `cut` steps, of which 0 ends the list. A submission has a gather for every `slots` steps begun, and
// one dispatch that moves the counter.
static unsigned char *bits_ahead(const test_training *training, uint32_t slots, const uint32_t *cut, size_t *size)
{
    test_trainer t;
    uint64_t step = 0;
    trainer_init(&t, device, training, false);
    for (; *cut; cut++) {
        uint64_t dispatches = dispatches_of(&t, *cut), gathers = (*cut + slots - 1) / slots;
        if (!step && *cut == 1)
            step = dispatches - 2; // but for its gather
        if (step && dispatches != *cut * step + gathers + 1)
            fail_msg("%s: %u steps take %llu dispatches", training->what, *cut, (unsigned long long)dispatches);
    }
    unsigned char *bits = trainer_bits(&t, size);
    trainer_finish(&t);
    return bits;
}

static void rows_gathered_ahead_give_the_bits_of_a_gather_a_step(void **state)
{
    (void)state;
    static const uint32_t cuts[][8] = { { 1, 2, 8, 7, 1 }, { 1, 18 }, { 19 }, { 1, 9, 4, 5 }, { 3, 4, 12 } };
    for (size_t i = 0; i < COUNT(cases); i++) {
        test_training plain = cases[i].training, ahead = plain;
        ahead.fuses = true;
        test_trainer t;
        size_t size, other;
        trainer_init(&t, device, &plain, false);
        trainer_run(&t);
        unsigned char *want = trainer_bits(&t, &size);
        trainer_finish(&t);
        for (size_t c = 0; c < COUNT(cuts); c++) {
            unsigned char *got = bits_ahead(&ahead, cases[i].slots, cuts[c], &other);
            assert_int_equal(size, other);
            if (memcmp(want, got, size))
                fail_msg("%s: weights, moments or metrics differ in cut %zu", plain.what, c);
            free(got);
        }
        free(want);
    }
}

int main(void)
{
    setenv("LAVAFLOW_FUSE", "0", 1); // no step in one dispatch, which has no gather
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_gathered_ahead_give_the_bits_of_a_gather_a_step),
    };
    lf_error err;
    device = lf_device_open("vulkan:0", &err);
    if (!device) {
        printf("skipped: %s\n", err.text);
        return 77;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lf_device_close(device);
    return failed;
}
