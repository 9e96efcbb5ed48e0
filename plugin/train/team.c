#include "train/team.h"

#include <inttypes.h>
#include <stdlib.h>

#include "abi.h"
#include "core/clock.h"
#include "train/crew.h"
#include "train/hand_out.h"
#include "train/member.h"
#include "train/shares.h"

enum { MEASURED_STEPS = 4 };

struct lf_team {
    lf_team_params p;
    lf_member *members; // [p.count]
    unsigned alive;
    uint64_t scatter;      // shards are handed out at random, by this seed; 0: not
    lf_shares shares;      // of every process
    uint32_t first, share; // this one's
    lf_exchanger *exchanger;
    uint64_t done, handed_out; // whole steps; and when the shards were handed out
    uint64_t asked;            // when the processes told each other of their speeds
    double wall, computed;
    lf_fault *faults;
    lf_member_job job;
    lf_crew *crew;
};

static bool is_alive(const lf_member *m)
{
    return !m->replica->lost;
}

// ---- handing out

// What a shard took; 0 where nothing was measured.
static double shard_seconds(const lf_member *m)
{
    uint64_t steps = m->done - m->measured_from;
    return steps > MEASURED_STEPS ? m->measured / (double)(steps - 1) / m->held_count : 0;
}

// The same on each living member; equal where nothing was measured, or nothing is to depend on it.
static void measure(const lf_team *team, double *seconds)
{
    for (unsigned i = 0, k = 0; i < team->p.count; i++) {
        const lf_member *m = &team->members[i];
        if (!is_alive(m))
            continue;
        double took = team->p.even ? 0 : shard_seconds(m);
        seconds[k++] = took > 0 ? took : 1;
    }
}

static void take_shards(lf_team *team, const unsigned *owners)
{
    unsigned k = 0;
    for (unsigned i = 0; i < team->p.count; i++) {
        lf_member *m = &team->members[i];
        m->held_count = 0;
        if (!is_alive(m))
            continue;
        for (uint32_t s = 0; s < team->share; s++)
            if (owners[s] == k)
                m->held[m->held_count++] = team->first + s;
        k++;
    }
}

// Neighbours to one device, as far as its speed allows.
static void hand_out(lf_team *team, const double *seconds)
{
    unsigned owners[LF_SHARDS_MAX];
    uint32_t counts[LF_SHARDS_MAX], at = 0;
    if (team->scatter) {
        lf_hand_out_scatter(team->share, team->alive, team->scatter + team->handed_out, owners);
    } else {
        lf_hand_out(team->share, seconds, team->alive, counts);
        for (unsigned k = 0; k < team->alive; k++)
            for (uint32_t s = 0; s < counts[k]; s++)
                owners[at++] = k;
    }
    take_shards(team, owners);
}

static int by_shard(const void *a, const void *b)
{
    const lf_member_part *left = a, *right = b;
    return left->first < right->first ? -1 : left->first > right->first;
}

static bool plan(lf_team *team, lf_error *err)
{
    lf_member_part parts[LF_SHARDS_MAX];
    size_t count = 0;
    for (unsigned i = 0; i < team->p.count; i++) {
        lf_member *m = &team->members[i];
        m->measured = 0;
        m->measured_from = team->done;
        for (uint32_t h = 0, size; h < m->held_count; h += size) {
            size = lf_shards_neighbourhood(m->held, m->held_count, h);
            parts[count++] = (lf_member_part){ m->held[h], size, i };
        }
    }
    qsort(parts, count, sizeof *parts, by_shard);
    team->handed_out = team->done;
    if (!lf_exchanger_plan(team->exchanger, team->alive, parts, count, team->done, err))
        return false;
    lf_exchanger_link(team->exchanger, team->p.replicas, team->p.count);
    return true;
}

// New programs for the living members. False with LF_EDEVICE: a device failed on the way, and is lost.
static bool change(lf_team *team, lf_error *err)
{
    for (unsigned i = 0; i < team->p.count; i++) {
        lf_member *m = &team->members[i];
        if (!is_alive(m))
            continue;
        lf_program *program = team->p.compile(team->p.user, m->held, m->held_count, err);
        if (!program)
            return false;
        if (!lf_replica_change(m->replica, program, err)) {
            m->replica->lost = err->code == LF_EDEVICE;
            m->replica->error = *err;
            return false;
        }
    }
    return plan(team, err);
}

// ---- losing a device

// It has no part in what comes from step `step` on.
static void give_up(lf_team *team, unsigned i, uint64_t step)
{
    team->members[i].held_count = 0;
    team->alive--;
    team->p.lost(team->p.user, i, step, team->members[i].replica->error.text);
}

// Leaves out those that failed. False: what failed is no device, or the last one did.
static bool leave_out(lf_team *team, lf_error *err)
{
    bool left = false;
    for (unsigned i = 0; i < team->p.count; i++)
        if (is_alive(&team->members[i])) {
            team->done = team->members[i].done; // all that live have done the same steps
            left = true;
        }
    for (unsigned i = 0; i < team->p.count; i++) {
        lf_member *m = &team->members[i];
        if (is_alive(m) || !m->held_count)
            continue;
        *err = m->replica->error;
        if (!left)
            lf_error_prefix(err, "training step %" PRIu64 ": no device is left",
                            team->job.step + (m->done - team->job.base) + 1);
        if (err->code != LF_EDEVICE || !left)
            return false;
        give_up(team, i, team->job.step + (team->done - team->job.base) + 1);
    }
    return true;
}

void lf_team_end(lf_team *team)
{
    for (unsigned i = 0; i < team->p.count; i++)
        if (!is_alive(&team->members[i]) && team->members[i].held_count)
            give_up(team, i, team->job.step + (team->done - team->job.base));
}

// Without those that failed. Others may fail on the way.
static bool go_on(lf_team *team, lf_error *err)
{
    double seconds[LF_SHARDS_MAX];
    bool changed = false;
    if (!lf_exchanger_settle(team->exchanger, err) || !leave_out(team, err) ||
        !lf_exchanger_keep(team->exchanger, team->p.replicas, team->p.count, team->done, err))
        return false;
    while (!changed) {
        measure(team, seconds);
        hand_out(team, seconds);
        changed = change(team, err);
        if (!changed && (err->code != LF_EDEVICE || !leave_out(team, err)))
            return false;
    }
    return true;
}

static bool hand_out_again(lf_team *team, lf_error *err)
{
    double seconds[LF_SHARDS_MAX];
    measure(team, seconds);
    hand_out(team, seconds);
    return change(team, err) || (err->code == LF_EDEVICE && go_on(team, err));
}

// Among the devices of this process.
static bool is_worth(const lf_team *team)
{
    double seconds[LF_SHARDS_MAX];
    uint32_t now[LF_SHARDS_MAX], best[LF_SHARDS_MAX];
    unsigned k = 0;
    if (team->p.even || team->done - team->handed_out <= MEASURED_STEPS)
        return false;
    measure(team, seconds);
    for (unsigned i = 0; i < team->p.count; i++)
        if (is_alive(&team->members[i]))
            now[k++] = team->members[i].held_count;
    lf_hand_out(team->share, seconds, team->alive, best);
    return lf_hand_out_is_worth(seconds, team->alive, now, best);
}

// At steps that are the same in all processes, whatever any of them measured or lost.
static bool ask(lf_team *team, lf_error *err)
{
    bool due = team->scatter || team->done - team->asked > MEASURED_STEPS;
    if (team->p.rank_count < 2 || team->shares.fixed || !due)
        return true;
    lf_speed speeds[LF_SHARDS_MAX] = { { 0 } };
    for (unsigned i = 0; i < team->p.count; i++)
        if (is_alive(&team->members[i]))
            speeds[i] = (lf_speed){ shard_seconds(&team->members[i]), team->members[i].held_count };
    team->asked = team->done;
    return lf_shares_decide(&team->shares, speeds, team->p.count, team->scatter ? team->scatter + team->done : 0, err);
}

// The shares of now, which differ from those before.
static bool take_share(lf_team *team, lf_error *err)
{
    team->asked = team->done;
    lf_team_rank_shards(team, team->p.rank, &team->first, &team->share);
    return lf_exchanger_share(team->exchanger, team->shares.now, err) && hand_out_again(team, err);
}

bool lf_team_balance(lf_team *team, lf_error *err)
{
    if (!ask(team, err))
        return false;
    if (!team->p.reads_ahead && lf_shares_turn(&team->shares, false))
        return take_share(team, err);
    return team->alive < 2 || (!team->scatter && !is_worth(team)) || hand_out_again(team, err);
}

void lf_team_coming_shards(const lf_team *team, uint32_t *first, uint32_t *count)
{
    lf_shares_of(team->shares.wanted, team->p.rank, first, count);
}

bool lf_team_turn(lf_team *team, lf_error *err)
{
    return !lf_shares_turn(&team->shares, true) || take_share(team, err);
}

// What the busiest has computed, in seconds.
static double most_busy(const lf_team *team)
{
    double most = 0;
    for (unsigned i = 0; i < team->p.count; i++)
        most = team->members[i].busy > most ? team->members[i].busy : most;
    return most;
}

// Some devices may have failed since the last run, while something was written to them.
static bool has_lost(const lf_team *team)
{
    bool lost = false;
    for (unsigned i = 0; i < team->p.count; i++)
        lost |= !is_alive(&team->members[i]) && team->members[i].held_count;
    return lost;
}

bool lf_team_run(lf_team *team, uint64_t step, uint32_t row, uint32_t steps, float *metrics, lf_error *err)
{
    double start = lf_clock(), before = most_busy(team);
    uint64_t target = team->done + steps;
    team->job = (lf_member_job){ .base = team->done, .step = step, .row = row, .metrics = metrics };
    if ((has_lost(team) && !go_on(team, err)) ||
        !lf_exchanger_meet(team->exchanger, team->p.replicas, team->p.count, err))
        return false;
    for (;;) {
        unsigned complete = 0;
        lf_crew_run(team->crew, target);
        for (unsigned i = 0; i < team->p.count; i++)
            complete += is_alive(&team->members[i]) && team->members[i].done == target;
        if (complete == team->alive)
            break;
        if (!go_on(team, err))
            return false;
    }
    team->done = target;
    team->wall += lf_clock() - start;
    team->computed += most_busy(team) - before;
    return true;
}

// ---- life

void lf_team_rank_shards(const lf_team *team, uint32_t rank, uint32_t *first, uint32_t *count)
{
    lf_shares_of(team->shares.now, rank, first, count);
}

lf_team *lf_team_create(const lf_team_params *params, lf_error *err)
{
    lf_team *team = calloc(1, sizeof *team);
    if (team) {
        team->p = *params;
        team->alive = params->count;
        team->members = calloc(params->count, sizeof *team->members);
    }
    if (!team || !team->members) {
        lf_error_set(err, LF_ENOMEM, "%u devices together: out of memory", params->count);
        lf_team_destroy(team);
        return NULL;
    }
    for (unsigned i = 0; i < params->count; i++)
        team->members[i] = (lf_member){ .number = i, .replica = &params->replicas[i], .job = &team->job };
    team->scatter = lf_hand_out_seed(); // that it does not matter is what tests show
    if (!lf_shares_init(&team->shares, params->rank, params->rank_count, params->shards, params->rank_devices,
                        params->even, err)) {
        lf_team_destroy(team);
        return NULL;
    }
    lf_team_rank_shards(team, params->rank, &team->first, &team->share);
    double seconds[LF_SHARDS_MAX];
    measure(team, seconds);
    hand_out(team, seconds);
    return team;
}

const uint32_t *lf_team_held(const lf_team *team, unsigned replica, uint32_t *count)
{
    *count = team->members[replica].held_count;
    return team->members[replica].held;
}

static lf_exchanger *make_exchanger(lf_team *team, lf_error *err)
{
    const lf_program *program = team->p.replicas[0].program;
    size_t *sizes = calloc(program->exchange_count + 1, sizeof *sizes);
    lf_exchanger *made = NULL;
    for (size_t i = 0; sizes && i < program->exchange_count; i++) {
        const lf_tensor *total = &program->tensors[program->exchanges[i].total];
        sizes[i] = (size_t)total->rows * total->cols;
    }
    if (sizes)
        made = lf_exchanger_create(&(lf_exchanger_params){ .sum_count = program->exchange_count,
                                                           .sizes = sizes,
                                                           .shares = team->shares.now,
                                                           .process_count = team->p.rank_count,
                                                           .process = team->p.rank,
                                                           .fast = team->p.fast },
                                   err);
    else
        lf_error_set(err, LF_ENOMEM, "exchange: out of memory");
    free(sizes);
    return made;
}

bool lf_team_start(lf_team *team, lf_error *err)
{
    team->exchanger = make_exchanger(team, err);
    if (!team->exchanger || !plan(team, err) || !lf_faults_read(&team->faults, err))
        return false;
    for (unsigned i = 0; i < team->p.count; i++) {
        lf_member *m = &team->members[i];
        const lf_program *program = m->replica->program;
        m->exchanger = team->exchanger;
        m->faults = team->faults;
        m->metrics = calloc((size_t)program->params.batch * LF_METRIC_COUNT, sizeof *m->metrics);
        if (!m->metrics) {
            lf_error_set(err, LF_ENOMEM, "%s: no memory for its metrics", m->replica->device->info.id);
            return false;
        }
    }
    team->crew = lf_crew_create(team->members, team->p.count, team->exchanger, err);
    return team->crew != NULL;
}

void lf_team_destroy(lf_team *team)
{
    if (!team)
        return;
    lf_crew_destroy(team->crew);
    for (unsigned i = 0; team->members && i < team->p.count; i++)
        free(team->members[i].metrics);
    lf_exchanger_destroy(team->exchanger);
    lf_faults_free(team->faults);
    free(team->members);
    lf_shares_finish(&team->shares);
    free(team);
}

void lf_team_place(const lf_team *team, uint32_t *rank, uint32_t *rank_count, uint32_t *shards)
{
    *rank = team->p.rank;
    *rank_count = team->p.rank_count;
    *shards = team->p.shards;
}

unsigned lf_team_alive(const lf_team *team)
{
    return team->alive;
}

double lf_team_busy(const lf_team *team, unsigned replica)
{
    return team->members[replica].busy;
}

double lf_team_waited(const lf_team *team)
{
    return team->wall - team->computed;
}
