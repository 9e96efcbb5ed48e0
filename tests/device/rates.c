// Learning rates of PyTorch's schedulers, from fixtures/pytorch.h5.
#include "fixture.h"
#include "suite.h"
#include "train/schedule.h"
#include "trainer.h"

enum { UPDATES = 60 };

static double option(const char *group, const char *name, double usual)
{
    return fixture_has(group, name) ? fixture_double(group, name) : usual;
}

static void check_rates(const char *name)
{
    char group[64], kind[32];
    lf_error err;
    lf_schedule_kind number;
    snprintf(group, sizeof group, "schedules/%s", name);
    fixture_text(group, "kind", kind, sizeof kind);
    assert_true(lf_schedule_find(kind, &number));
    lf_schedule s = lf_schedule_default(number);
    s.warmup = option(group, "warmup", s.warmup);
    s.final = option(group, "final", s.final);
    s.gamma = option(group, "gamma", s.gamma);
    s.every = (uint64_t)option(group, "every", (double)s.every);
    s.rise = option(group, "rise", s.rise);
    s.div = option(group, "div", s.div);
    if (fixture_has(group, "milestones"))
        s.milestone_count = (unsigned)fixture_uints(group, "milestones", s.milestones, LF_MILESTONE_MAX);
    if (!lf_schedule_check(&s, &err))
        fail_msg("%s: %s", name, err.text);
    double lr = fixture_double(group, "lr"), *want = fixture_values(group, "rates", UPDATES);
    for (int by_epoch = 0; by_epoch < 2; by_epoch++) {
        s.per_epoch = by_epoch;
        uint64_t each = by_epoch ? 7 : 1; // updates of an epoch
        for (uint64_t update = 0; update < UPDATES * each; update++) {
            double got = lf_schedule_lr(&s, lr, &(lf_span){ UPDATES * each, each }, update);
            if (!(fabs(got - want[update / each]) <= 1e-12 * lr))
                fail_msg("%s: the rate of update %d is %.15g, PyTorch's %.15g", name, (int)update, got,
                         want[update / each]);
        }
    }
    free(want);
}

static void check_plateau(void)
{
    static const char group[] = "schedules/plateau";
    lf_schedule s = lf_schedule_default(LF_SCHEDULE_PLATEAU);
    s.factor = fixture_double(group, "factor");
    s.patience = (unsigned)fixture_double(group, "patience");
    s.threshold = fixture_double(group, "threshold");
    double lr = fixture_double(group, "lr"), *want = fixture_values(group, "rates", UPDATES),
           *losses = fixture_values(group, "losses", UPDATES);
    lf_plateau plateau = { .best = HUGE_VAL };
    for (unsigned epoch = 0; epoch < UPDATES; epoch++) {
        double got = lr * lf_plateau_scale(&plateau, &s);
        if (!(fabs(got - want[epoch]) <= 1e-12 * lr))
            fail_msg("plateau: the rate of epoch %u is %.15g, PyTorch's %.15g", epoch, got, want[epoch]);
        lf_plateau_epoch(&plateau, &s, losses[epoch]);
    }
    assert_true(plateau.reductions > 1);
    free(want);
    free(losses);
}

void schedules_give_pytorchs_rates(void **state)
{
    (void)state;
    static const char *const names[] = { "step",          "multistep", "exponential", "cosine",
                                         "cosine_warmup", "linear",    "one_cycle",   "one_cycle_late" };
    for (size_t i = 0; i < COUNT(names); i++)
        check_rates(names[i]);
    check_plateau();
}
