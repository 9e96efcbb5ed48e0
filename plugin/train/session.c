#include "train/session.h"

#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "core/clock.h"
#include "ranks/ranks.h"
#include "train/fault.h"
#include "train/replica.h"
#include "train/session_program.h"
#include "train/team.h"

// Desktop drivers stop a device whose submission runs for seconds, and a person who presses Ctrl-C waits for its end.
static const double PIECE_SECONDS = 0.4;
enum { PROBE_STEPS = 8 };

struct lf_session {
    lf_session_params p;
    const lf_part *part;
    uint32_t window;      // rows that are trained on without others being read
    bool divides;         // those of the shards of this process alone
    lf_replica *replicas; // [p.device_count]
    unsigned made;        // of them
    lf_team *team;        // NULL: one device does all by itself
    lf_fault *faults;     // of that one
    lf_feed *feed;
    lf_stretch stretch;    // on the device
    uint32_t stretch_done; // rows of it that ran
    uint64_t step;         // training steps done
    uint32_t stride;       // rows of metrics a step
    float *metrics;        // [steps of a stretch * stride * LF_METRIC_COUNT]
    uint32_t *schedule;    // as the region: a header, then rows
    double lr_scale;
    double step_seconds; // measured; 0: not yet
    unsigned probes;
};

static size_t block_bytes(const lf_session *s)
{
    return s->p.model->block_count * sizeof(float);
}

static bool write_all(lf_session *s, lf_region region, size_t offset, const void *bytes, size_t size, lf_error *err)
{
    return lf_replicas_write(s->replicas, s->p.device_count, region, offset, bytes, size, err);
}

unsigned lf_session_primary(const lf_session *s)
{
    unsigned i = 0;
    while (i + 1 < s->p.device_count && s->replicas[i].lost)
        i++;
    return i;
}

static lf_replica *primary(const lf_session *s)
{
    return &s->replicas[lf_session_primary(s)];
}

bool lf_session_lose_primary(lf_session *s, const lf_error *err)
{
    return lf_replicas_lose(s->replicas, s->p.device_count, lf_session_primary(s), err);
}

// From the first that is not lost, or is lost on that.
static bool read_one(lf_session *s, lf_region region, size_t offset, void *bytes, size_t size, lf_error *err)
{
    while (!lf_replica_read(primary(s), region, offset, bytes, size, err))
        if (!lf_session_lose_primary(s, err))
            return false;
    return true;
}

static bool write_weights(lf_session *s, lf_error *err)
{
    const lf_model *model = s->p.model;
    const lf_program *program = primary(s)->program;
    return write_all(s, LF_REGION_PARAMS, 0, model->params, block_bytes(s), err) &&
           (program->average == LF_NO_TENSOR || lf_session_write_block(s, program->average, model->params, err)) &&
           (!model->state_count ||
            write_all(s, LF_REGION_STATE, 0, model->state, model->state_count * sizeof(float), err));
}

static bool write_teachers(lf_session *s, lf_error *err)
{
    const lf_compile_params *compiled = &primary(s)->program->params;
    size_t params = 0, state = 0;
    for (unsigned i = 0; i < compiled->distill.teacher_count; i++) {
        const lf_model *teacher = compiled->distill.teachers[i];
        size_t block = teacher->block_count * sizeof(float), running = teacher->state_count * sizeof(float);
        if (!write_all(s, LF_REGION_TEACHER_PARAMS, params, teacher->params, block, err) ||
            (running && !write_all(s, LF_REGION_TEACHER_STATE, state, teacher->state, running, err)))
            return false;
        params += block;
        state += running;
    }
    return true;
}

static bool is_alone(const lf_session_params *p)
{
    return p->device_count == 1 && p->rank_count <= 1;
}

static uint32_t region_rows(const lf_session *s)
{
    return lf_feed_region(s->part->rows, s->window, s->p.devices[0], s->p.device_count);
}

static lf_program *compile_held(void *user, const uint32_t *held, uint32_t count, lf_error *err)
{
    const lf_session *s = user;
    return lf_session_compile_held(&s->p, region_rows(s), held, count, err);
}

static void lose(void *user, unsigned device, uint64_t step, const char *why)
{
    lf_session *s = user;
    if (s->p.lost)
        s->p.lost(s->p.user, device, step, why);
}

static bool create_team(lf_session *s, lf_error *err)
{
    const lf_session_params *p = &s->p;
    if (is_alone(p)) // what validates or predicts does not fail on request
        return p->optimizer.kind == LF_OPTIMIZER_NONE || lf_faults_read(&s->faults, err);
    s->team = lf_team_create(&(lf_team_params){ .replicas = s->replicas,
                                                .count = p->device_count,
                                                .shards = p->shards,
                                                .even = p->even_shards,
                                                .fast = p->fast,
                                                .rank = p->rank,
                                                .rank_count = p->rank_count,
                                                .rank_devices = p->rank_devices,
                                                .reads_ahead = s->divides,
                                                .compile = compile_held,
                                                .lost = lose,
                                                .user = s },
                             err);
    return s->team != NULL;
}

static bool create_replicas(lf_session *s, lf_error *err)
{
    const lf_session_params *p = &s->p;
    for (unsigned i = 0; i < p->device_count; i++) {
        uint32_t count = 0;
        const uint32_t *held = s->team ? lf_team_held(s->team, i, &count) : NULL;
        lf_program *program = lf_session_compile_held(p, region_rows(s), held, count, err);
        if (!program)
            return false;
        s->made++; // what there is of it is destroyed
        if (!lf_replica_init(&s->replicas[i], p->devices[i], program, p->weights ? primary(p->weights) : NULL, err)) {
            lf_error_prefix(err, "%s", s->part->x_path);
            return false;
        }
    }
    return !s->team || lf_team_start(s->team, err);
}

static bool fill(lf_session *s, lf_error *err)
{
    const lf_program *program = primary(s)->program;
    size_t steps = program->params.steps, row = s->part->features * sizeof(float);
    s->stride = program->params.batch;
    s->schedule = calloc(1, sizeof(struct lf_schedule_header) + steps * sizeof(struct lf_schedule_row));
    s->metrics = calloc(steps * s->stride * LF_METRIC_COUNT, sizeof *s->metrics);
    if (!s->schedule || !s->metrics) {
        lf_error_set(err, LF_ENOMEM, "schedule of %zu steps: out of memory", steps);
        return false;
    }
    return write_all(s, LF_REGION_SCALING, 0, s->part->scale, row, err) &&
           write_all(s, LF_REGION_SCALING, row, s->part->offset, row, err) && (s->p.weights || write_weights(s, err)) &&
           write_teachers(s, err);
}

// The rows of a batch that this process is to read, first … end - 1; end 0: all.
static void own_rows(const lf_session *s, uint32_t *first, uint32_t *end)
{
    *first = *end = 0;
    if (!s->divides)
        return;
    uint32_t count, rows = primary(s)->program->shard_rows;
    lf_team_coming_shards(s->team, first, &count);
    *end = (*first + count) * rows;
    *first *= rows;
}

// Several processes create a session together: one that fails tells the others, which ask.
static bool agree(const lf_session_params *p, bool ok, lf_error *err)
{
    return p->rank_count > 1 ? lf_ranks_agree(ok, err) : ok;
}

static lf_session *allocate(const lf_session_params *params, lf_error *err)
{
    lf_session *s = calloc(1, sizeof *s);
    if (s)
        s->replicas = calloc(params->device_count, sizeof *s->replicas);
    if (!s || !s->replicas) {
        lf_error_set(err, LF_ENOMEM, "session: out of memory");
        free(s);
        return NULL;
    }
    return s;
}

lf_session *lf_session_create(const lf_session_params *params, lf_error *err)
{
    lf_session *s = lf_session_check(params, err) ? allocate(params, err) : NULL;
    if (!agree(params, s != NULL, err))
        goto error;
    s->p = *params;
    s->part = lf_dataset_part(params->data, params->part, err);
    s->step = params->step;
    s->lr_scale = 1;
    s->window = lf_session_window(params, s->part, err);
    if (!s->window)
        goto error;
    s->divides = params->rank_count > 1 && s->window < s->part->rows; // else each row is needed in some epoch
    bool ok = create_team(s, err) && create_replicas(s, err) && fill(s, err);
    if (!agree(params, ok, err))
        goto error;
    uint32_t first, end;
    own_rows(s, &first, &end);
    s->feed = lf_feed_create(
        &(lf_feed_params){ .data = params->data,
                           .part = params->part,
                           .row = lf_session_row_bytes(params, s->part),
                           .numbers = !lf_loss_of_classes(params->loss) && s->part->target == LF_TARGET_CLASSES,
                           .unit_targets = params->loss == LF_LOSS_BINARY_CROSS_ENTROPY,
                           .class_weights = params->class_weights,
                           .unit = lf_session_unit(params, s->part),
                           .window = s->window,
                           .program = primary(s)->program,
                           .replicas = s->replicas,
                           .replica_count = params->device_count,
                           .batch = params->batch,
                           .first = first,
                           .end = end,
                           .rank = params->rank,
                           .rank_count = params->rank_count,
                           .shuffle = params->shuffle,
                           .seed = params->seed,
                           .pass = params->pass,
                           .position = params->position,
                           .passes = params->passes,
                           .teacher = lf_session_given_teacher(params) ? params->distillation->outputs : NULL },
        err);
    if (!s->feed)
        goto error;
    return s;
error:
    lf_session_destroy(s);
    return NULL;
}

void lf_session_destroy(lf_session *s)
{
    if (!s)
        return;
    lf_feed_destroy(s->feed);
    lf_team_destroy(s->team);
    lf_faults_free(s->faults);
    for (unsigned i = 0; i < s->made; i++)
        lf_replica_finish(&s->replicas[i]);
    free(s->replicas);
    free(s->schedule);
    free(s->metrics);
    free(s);
}

// The next stretch. Rows are read for those shards that are this process's when they come, which is decided now.
static bool take_stretch(lf_session *s, lf_error *err)
{
    uint32_t first, end;
    own_rows(s, &first, &end);
    lf_feed_own(s->feed, first, end);
    bool ok = lf_feed_next(s->feed, &s->stretch, err);
    ok = agree(&s->p, ok, err); // one alone may have met what it cannot read
    return ok && (!s->divides || lf_team_turn(s->team, err));
}

// The next stretch with its schedule; the device's step counter starts at 0 again.
static bool load_stretch(lf_session *s, lf_error *err)
{
    if (!take_stretch(s, err))
        return false;
    bool processes = s->p.rank_count > 1, differ = lf_replicas_differ(s->replicas, s->p.device_count);
    if (s->stretch.position == 0 && (processes || differ) &&
        !lf_replicas_equalise(s->replicas, s->p.device_count, lf_session_primary(s), processes, err))
        return false;
    s->stretch_done = 0;
    size_t size = lf_session_schedule(&s->p, s->part, &s->stretch, s->step, s->lr_scale, s->schedule);
    return write_all(s, LF_REGION_SCHEDULE, 0, s->schedule, size, err);
}

// Equal pieces, so that few different ones are recorded. The first piece of a session records, so only the second one's
// time counts.
static uint32_t piece_size(const lf_session *s, uint32_t steps_left)
{
    if (s->probes < 2)
        return steps_left < PROBE_STEPS ? steps_left : PROBE_STEPS;
    uint32_t all = lf_session_steps(&s->p, s->stretch.rows);
    double most = PIECE_SECONDS / s->step_seconds;
    uint32_t fit = most < 1 ? 1 : most > all ? all : (uint32_t)most;
    uint32_t pieces = (all + fit - 1) / fit, size = (all + pieces - 1) / pieces;
    return size < steps_left ? size : steps_left;
}

static void note_time(lf_session *s, uint32_t steps, double seconds)
{
    double each = seconds / steps;
    s->probes += s->probes < 2;
    // A piece size is kept until the device is clearly slower or faster than it was, so that it is recorded once.
    if (s->probes < 2 || s->step_seconds == 0 || each > 1.25 * s->step_seconds || (each < .5 * s->step_seconds))
        s->step_seconds = each;
}

// One device does all by itself: one submission, no matter how many steps.
static bool run_alone(lf_session *s, uint32_t first_step, uint32_t steps, lf_error *err)
{
    lf_replica *r = primary(s);
    for (uint32_t i = 0; s->faults && i < steps; i++)
        if (lf_fault_is_due(s->faults, r->device, s->step + i + 1, 0, err))
            return false;
    size_t step_bytes = (size_t)s->stride * LF_METRIC_COUNT * sizeof(float);
    return lf_device_exec_run(r->device, r->exec, 0, LF_LAST_SEGMENT, steps, err) && lf_device_wait(r->device, err) &&
           (s->p.loss == LF_LOSS_NONE ||
            lf_replica_read(r, LF_REGION_METRICS, first_step * step_bytes, s->metrics, steps * step_bytes, err));
}

static bool run_steps(lf_session *s, uint32_t first_step, uint32_t steps, lf_error *err)
{
    bool together = s->team && (lf_team_alive(s->team) > 1 || s->p.rank_count > 1);
    if (!together)
        return run_alone(s, first_step, steps, err);
    return lf_team_run(s->team, s->step, first_step, steps, s->metrics, err) &&
           lf_team_gather(s->team, s->metrics, steps, s->stride, err) && lf_team_balance(s->team, err);
}

static bool run_piece(lf_session *s, uint32_t steps, lf_piece *piece, lf_error *err)
{
    uint32_t first_step = s->stretch_done / s->p.batch, left = s->stretch.rows - s->stretch_done;
    uint32_t rows = steps * s->p.batch < left ? steps * s->p.batch : left;
    double start = lf_clock();
    if (!run_steps(s, first_step, steps, err))
        return false;
    *piece = (lf_piece){ .pass = s->stretch.pass,
                         .position = s->stretch.position + s->stretch_done,
                         .step = s->step,
                         .steps = steps,
                         .rows = rows,
                         .batch = s->p.batch,
                         .stride = s->stride,
                         .loss = s->p.loss,
                         .metrics = s->p.loss == LF_LOSS_NONE ? NULL : s->metrics,
                         .seconds = lf_clock() - start };
    note_time(s, steps, piece->seconds);
    s->stretch_done += rows;
    s->step += steps;
    return true;
}

void lf_session_scale_lr(lf_session *s, double scale)
{
    s->lr_scale = scale;
}

bool lf_session_pass_done(const lf_session *s)
{
    return s->stretch_done == s->stretch.rows && s->stretch.position + s->stretch.rows == s->part->rows;
}

bool lf_session_run(lf_session *s, uint64_t limit, uint32_t piece_steps, lf_piece_fn *done, void *user, lf_error *err)
{
    do {
        if (!limit)
            return true;
        if (s->stretch_done == s->stretch.rows && !load_stretch(s, err))
            return false;
        uint32_t left = lf_session_steps(&s->p, s->stretch.rows - s->stretch_done);
        uint32_t steps = piece_steps ? (piece_steps < left ? piece_steps : left) : piece_size(s, left);
        if (steps > limit)
            steps = (uint32_t)limit;
        if (s->p.rank_count > 1 && !lf_ranks_broadcast(&steps, sizeof steps, err)) // it comes from a clock
            return false;
        lf_piece piece;
        if (!run_piece(s, steps, &piece, err) || !done(user, &piece, err))
            return false;
        limit -= steps;
    } while (!lf_session_pass_done(s));
    return true;
}

bool lf_session_read_weights(lf_session *s, lf_model *model, lf_error *err)
{
    return read_one(s, LF_REGION_PARAMS, 0, model->params, block_bytes(s), err) &&
           (!model->state_count ||
            read_one(s, LF_REGION_STATE, 0, model->state, model->state_count * sizeof(float), err));
}

bool lf_session_read_result(lf_session *s, lf_model *model, lf_error *err)
{
    lf_tensor_id average = primary(s)->program->average;
    return lf_session_read_weights(s, model, err) &&
           (average == LF_NO_TENSOR || lf_session_read_block(s, average, model->params, err));
}

bool lf_session_read_block(lf_session *s, lf_tensor_id id, float *values, lf_error *err)
{
    const lf_tensor *block = &primary(s)->program->tensors[id];
    return read_one(s, block->region, block->offset, values, block_bytes(s), err);
}

bool lf_session_write_block(lf_session *s, lf_tensor_id id, const float *values, lf_error *err)
{
    const lf_tensor *block = &primary(s)->program->tensors[id];
    return write_all(s, block->region, block->offset, values, block_bytes(s), err);
}

bool lf_session_read_output(lf_session *s, float *rows, uint32_t count, lf_error *err)
{
    const lf_program *program = primary(s)->program;
    const lf_tensor *output = &program->tensors[program->output];
    return lf_replica_read(primary(s), LF_REGION_ACTS, output->offset, rows,
                           (size_t)count * output->cols * sizeof(float), err);
}

const lf_program *lf_session_program(const lf_session *s)
{
    return primary(s)->program;
}

void lf_session_end(lf_session *s)
{
    if (s->team)
        lf_team_end(s->team);
}

uint32_t lf_session_shards(const lf_session *s, unsigned device)
{
    uint32_t count = s->p.shards > 1 ? s->p.shards : 0;
    if (s->team)
        lf_team_held(s->team, device, &count);
    return count;
}

double lf_session_busy(const lf_session *s, unsigned device)
{
    return s->team ? lf_team_busy(s->team, device) : 0;
}

double lf_session_exchange_seconds(const lf_session *s)
{
    return s->team ? lf_team_waited(s->team) : 0;
}
