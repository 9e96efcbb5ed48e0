// train/ on one device, named by the argument: what a training tells and when its checkpoints are written, so that all
// that was told up to a checkpoint's step, and nothing more, is what a training that goes on from it does not tell.
#include <time.h>
#include <unistd.h>

#include "trial.h"

enum { SAID_MAX = 1024, EPOCH_STEPS = 32 };

// One letter and a step for each event: started, digest, values of an epoch, checkpoint, on_epoch, on_step.
typedef struct story {
    trial *t;
    struct {
        char what;
        uint64_t step;
        double value; // of an epoch
        char digest[65];
    } said[SAID_MAX];
    size_t count;
    bool refuses; // to save
    bool slow;    // more than a second
} story;

static void say(story *s, char what, uint64_t step)
{
    assert_true(s->count < SAID_MAX);
    s->said[s->count].what = what;
    s->said[s->count++].step = step;
}

static void on_started(void *user, const lf_train_device *devices, unsigned count, uint64_t step)
{
    assert_true(count == 1 && devices->info.id[0]);
    say(user, 's', step);
}

static void on_steps(void *user, uint64_t first, uint32_t count, const double *losses)
{
    story *s = user;
    (void)losses;
    assert_int_equal(first, s->t->next_step);
    s->t->next_step += count;
    if (s->t->stop_after && s->t->next_step > s->t->stop_after)
        s->t->stop = SIGINT;
    if (s->slow)
        nanosleep(&(struct timespec){ 1, 10000000 }, NULL);
    s->slow = false;
}

static void on_digest(void *user, uint64_t step, const char hex[65])
{
    story *s = user;
    say(s, 'd', step);
    memcpy(s->said[s->count - 1].digest, hex, 65);
}

static void on_ended(void *user, const lf_epoch *epoch)
{
    story *s = user;
    say(s, 'v', epoch->step);
    s->said[s->count - 1].value = epoch->loss;
    memcpy(s->said[s->count - 1].digest, epoch->digest, 65);
}

static bool on_saving(void *user, uint64_t step, lf_error *err)
{
    (void)step;
    story *s = user;
    say(s, 'c', s->t->next_step - 1);
    if (s->refuses)
        lf_error_set(err, LF_EIO, "no");
    return !s->refuses;
}

static bool on_epoch(void *user, const lf_epoch *epoch, lf_error *err)
{
    story *s = user;
    (void)err;
    say(s, 'E', epoch->step);
    s->t->epochs++;
    return s->t->epochs != s->t->end_after;
}

static bool on_step_of(void *user, const lf_step *step, lf_error *err)
{
    story *s = user;
    (void)err;
    say(s, 'S', step->step);
    return step->step != s->t->stop_at;
}

static story *tell(void)
{
    story *s = calloc(1, sizeof *s);
    s->t = begin(data_path);
    s->t->params.checkpoint = checkpoint_path;
    s->t->params.events = (lf_train_events){ .user = s,
                                             .started = on_started,
                                             .steps = on_steps,
                                             .digest = on_digest,
                                             .ended = on_ended,
                                             .saving = on_saving,
                                             .epoch = on_epoch };
    unlink(checkpoint_path);
    return s;
}

static story *go_on(uint64_t step)
{
    char kept[128];
    snprintf(kept, sizeof kept, "%s.kept", checkpoint_path);
    rename(checkpoint_path, kept);
    story *s = tell();
    rename(kept, checkpoint_path);
    s->t->params.resume = checkpoint_path;
    s->t->next_step = step + 1;
    return s;
}

static void finish(story *s)
{
    end(s->t);
    free(s);
}

// "s0 v32 E32 c32"
static void assert_story(const story *s, const char *expected)
{
    char text[SAID_MAX * 8] = "";
    for (size_t i = 0; i < s->count; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%c%d", i ? " " : "", s->said[i].what,
                 (int)s->said[i].step);
    assert_string_equal(text, expected);
}

static void values_come_before_their_checkpoint(void **state)
{
    (void)state;
    story *s = tell();
    s->t->params.max_steps = 40;
    s->t->params.digest_every = 20;
    s->t->params.checkpoint_every = 10;
    s->t->params.step_every = 20;
    s->t->params.events.step = on_step_of;
    run_well(s->t);
    assert_true(s->t->result.checkpointed);
    assert_story(s, "s0 c10 d20 S20 c20 c30 v32 E32 c32 S40 v40 E40 c40");
    finish(s);
}

static void a_training_goes_on_behind_its_checkpoint(void **state)
{
    (void)state;
    story *s = tell();
    s->t->stop_after = 40;
    s->t->params.checkpoint_every = 8;
    s->t->params.digest_every = 8;
    assert_false(run(s->t)->ok);
    assert_int_equal(s->t->err.code, LF_EINTERRUPTED);
    assert_true(s->t->result.checkpointed);
    assert_story(s, "s0 d8 c8 d16 c16 d24 c24 v32 E32 c32 d40 c40"); // not written again because of the signal
    finish(s);
    s = go_on(40);
    run_well(s->t);
    assert_story(s, "s40 v64 E64 c64 v96 E96 c96");
    finish(s);
}

// Whether it ended with its last epoch, inside of one, or for lack of patience.
static void a_training_that_was_at_its_end_tells_no_values_again(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        uint64_t last = 0;
        for (int again = 0; again < 2; again++) {
            story *s = again ? go_on(last) : tell();
            if (i == 1)
                s->t->params.max_steps = 40;
            if (i == 2) {
                s->t->params.monitor = LF_MONITOR_LOSS;
                s->t->params.min_delta = 1e9;
                s->t->params.patience = 1;
            }
            run_well(s->t);
            assert_true(s->t->result.checkpointed);
            last = s->t->result.steps;
            assert_int_equal(last, i == 0 ? 96 : i == 1 ? 40 : 64);
            char told[32];
            snprintf(told, sizeof told, "s%d E%d", (int)last, (int)last);
            if (again)
                assert_story(s, told);
            finish(s);
        }
    }
}

// What both parts of a training told together, up to the checkpoint's step for the first.
static void assert_told_once(const story *whole, const story *first, const story *second, char what)
{
    size_t count = 0;
    for (size_t i = 0; i < whole->count; i++) {
        if (whole->said[i].what != what)
            continue;
        const story *of = whole->said[i].step <= second->said[0].step ? first : second;
        size_t found = 0;
        for (size_t j = 0; j < of->count; j++)
            if (of->said[j].what == what && of->said[j].step == whole->said[i].step) {
                found++;
                assert_string_equal(of->said[j].digest, whole->said[i].digest);
                assert_true(of->said[j].value == whole->said[i].value);
            }
        assert_int_equal(found, 1);
        count++;
    }
    size_t told = 0;
    for (size_t j = 0; j < first->count; j++)
        told += first->said[j].what == what;
    for (size_t j = 0; j < second->count; j++)
        told += second->said[j].what == what;
    assert_int_equal(told, count);
}

static story *short_training(story *s)
{
    s->t->params.max_steps = 50; // inside of an epoch
    s->t->params.digest_every = 5;
    s->t->params.validation = NULL;
    return s;
}

static void an_interruption_leaves_no_gap_and_no_duplicate(void **state)
{
    (void)state;
    story *whole = short_training(tell());
    run_well(whole->t);
    for (uint64_t stop = 1; stop <= 50; stop++) {
        story *first = short_training(tell());
        first->t->stop_after = stop;
        run(first->t);
        assert_true(first->t->ok == (first->t->result.steps == 50));
        story *second = short_training(go_on(first->t->result.steps));
        run_well(second->t);
        assert_int_equal(second->said[0].step, first->t->result.steps);
        assert_told_once(whole, first, second, 'd');
        assert_told_once(whole, first, second, 'v');
        assert_string_equal(second->t->result.digest, whole->t->result.digest);
        finish(first);
        finish(second);
    }
    finish(whole);
}

static void checkpoints_by_time_change_nothing_and_are_written_once(void **state)
{
    (void)state;
    story *plain = tell(), *timed = tell();
    plain->t->params.accumulate = timed->t->params.accumulate = 3;
    plain->t->params.digest_every = timed->t->params.digest_every = 12;
    timed->t->params.checkpoint_seconds = 1e-9;
    timed->t->params.checkpoint_every = 24;
    run_well(plain->t);
    run_well(timed->t);
    assert_string_equal(plain->t->result.digest, timed->t->result.digest);
    assert_told_once(plain, timed, &(story){ .said = { { .step = 96 } } }, 'd');
    uint64_t before = 0;
    size_t inside = 0;
    for (size_t i = 0; i < timed->count; i++) {
        uint64_t step = timed->said[i].step;
        if (timed->said[i].what == 'd') // comes before the checkpoint of its step
            assert_true(before < step);
        if (timed->said[i].what != 'c')
            continue;
        assert_true(step > before);
        assert_true(step % EPOCH_STEPS % 3 == 0); // the end of an update
        inside += step % EPOCH_STEPS != 0;
        before = step;
    }
    assert_true(inside >= 6 && before == 96);
    finish(plain);
    finish(timed);

    timed = tell(); // none is due before its time
    timed->t->params.checkpoint_seconds = 1e9;
    run_well(timed->t);
    assert_story(timed, "s0 v32 E32 c32 v64 E64 c64 v96 E96 c96");
    finish(timed);
}

static void every_checkpoint_by_time_goes_on_to_the_same_bits(void **state)
{
    (void)state;
    story *s = tell();
    s->t->params.checkpoint_seconds = 1e-9;
    s->t->params.keep = 100;
    run_well(s->t);
    size_t kept = 0;
    for (int step = 1; step <= 96; step++) {
        char path[128];
        snprintf(path, sizeof path, "%.*s-%d.h5", (int)strlen(checkpoint_path) - 3, checkpoint_path, step);
        if (access(path, F_OK) != 0)
            continue;
        story *again = tell();
        again->t->params.resume = path;
        again->t->next_step = (uint64_t)step + 1;
        run_well(again->t);
        assert_int_equal(again->said[0].step, step);
        assert_string_equal(again->t->result.digest, s->t->result.digest);
        finish(again);
        unlink(path);
        kept++;
    }
    assert_true(kept > 3);
    finish(s);
}

static void rare_checkpoints_are_for_what_takes_long_and_what_is_asked_for(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        story *s = tell();
        s->t->params.checkpoint_rarely = true;
        s->slow = i == 1 || i == 2;
        if (i == 2)
            s->t->end_after = 2;
        if (i == 3)
            s->t->params.checkpoint_every = EPOCH_STEPS * 3 / 2;
        if (i == 4)
            s->t->stop_after = 60;
        run(s->t);
        static const char *const stories[] = { "s0 v32 E32 v64 E64 v96 E96", "s0 v32 E32 v64 E64 v96 E96 c96",
                                               "s0 v32 E32 v64 E64", "s0 v32 E32 c48 v64 E64 v96 E96 c96",
                                               "s0 v32 E32 v64 E64 c64" };
        assert_story(s, stories[i]);
        assert_true(s->t->ok == (i != 4));
        bool saved = i > 0 && i != 2; // one that on_epoch ended would go on past its end
        assert_true(s->t->result.checkpointed == saved);
        assert_true((access(checkpoint_path, F_OK) == 0) == saved);
        finish(s);
    }
}

static void nothing_is_saved_where_what_was_told_does_not_last(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        story *s = tell();
        s->refuses = true;
        s->t->stop_after = i ? 4 : 0;
        assert_false(run(s->t)->ok);
        assert_int_equal(s->t->err.code, i ? LF_EINTERRUPTED : LF_EIO);
        assert_non_null(strstr(s->t->err.text, i ? "the checkpoint could not be written (no)" : "no"));
        assert_false(s->t->result.checkpointed);
        assert_true(access(checkpoint_path, F_OK) != 0);
        finish(s);
    }
}

static void a_step_that_ends_a_training_is_saved_once(void **state)
{
    (void)state;
    story *s = tell();
    s->t->params.events.step = on_step_of;
    s->t->params.step_every = s->t->params.checkpoint_every = 10;
    s->t->stop_at = 40;
    run_well(s->t);
    assert_story(s, "s0 S10 c10 S20 c20 S30 c30 v32 E32 c32 S40 c40 v40 E40");
    finish(s);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_come_before_their_checkpoint),
        cmocka_unit_test(a_training_goes_on_behind_its_checkpoint),
        cmocka_unit_test(a_training_that_was_at_its_end_tells_no_values_again),
        cmocka_unit_test(an_interruption_leaves_no_gap_and_no_duplicate),
        cmocka_unit_test(checkpoints_by_time_change_nothing_and_are_written_once),
        cmocka_unit_test(every_checkpoint_by_time_goes_on_to_the_same_bits),
        cmocka_unit_test(rare_checkpoints_are_for_what_takes_long_and_what_is_asked_for),
        cmocka_unit_test(nothing_is_saved_where_what_was_told_does_not_last),
        cmocka_unit_test(a_step_that_ends_a_training_is_saved_once),
    };
    return run_on_device(argc, argv, tests, sizeof tests / sizeof *tests);
}
