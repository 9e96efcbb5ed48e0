#include "train/session.h"

#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "core/clock.h"

// A stretch's schedule, order and metrics take about 30 bytes a row on the device.
enum { STRETCH_ROWS = 1 << 20 };
// Desktop drivers stop a device whose submission runs for seconds, and a person who presses Ctrl-C waits for its end.
static const double PIECE_SECONDS = 0.4;
enum { PROBE_STEPS = 8 };

struct lf_session {
    lf_session_params p;
    const lf_part *part;
    lf_program *program;
    lf_bindings regions;
    bool owned[LF_REGION_COUNT];
    lf_exec *exec;
    lf_feed *feed;
    lf_stretch stretch;    // on the device
    uint32_t stretch_done; // rows of it that ran
    uint64_t step;         // training steps done
    float *metrics;        // [steps of a stretch * batch * LF_METRIC_COUNT]
    uint32_t *schedule;    // as the region: a header, then rows
    double lr_scale;
    double step_seconds; // measured; 0: not yet
    unsigned probes;
};

static size_t block_bytes(const lf_session *s)
{
    return s->p.model->block_count * sizeof(float);
}

static bool check_targets(const lf_session_params *p, const lf_part *part, lf_error *err)
{
    uint32_t outputs = p->model->outputs;
    const char *y = part->y_path ? part->y_path : part->x_path, *loss = lf_loss_name(p->loss);
    bool classes = lf_loss_of_classes(p->loss);
    if (p->loss == LF_LOSS_NONE)
        return true;
    if (part->target == LF_TARGET_NONE)
        lf_error_set(err, LF_EARG, "%s has no targets y, which loss \"%s\" needs", y, loss);
    else if (classes && part->target != LF_TARGET_CLASSES)
        lf_error_set(err, LF_EARG, "%s holds values, not class numbers, which loss \"%s\" needs", y, loss);
    else if (classes && part->classes > outputs)
        lf_error_set(err, LF_EARG, "%s has %u classes, but the model has %u outputs", y, part->classes, outputs);
    else if (!classes && part->outputs != outputs)
        lf_error_set(err, LF_EARG,
                     "%s has %u value%s a row, but the model has %u outputs, all of which loss \"%s\" needs", y,
                     part->outputs, part->outputs == 1 ? "" : "s", outputs, loss);
    else if (p->loss == LF_LOSS_BINARY_CROSS_ENTROPY && part->target == LF_TARGET_CLASSES && part->classes > 2)
        lf_error_set(err, LF_EARG, "%s has %u classes, but loss \"%s\" takes 0 and 1", y, part->classes, loss);
    else
        return true;
    return false;
}

static bool check_class_weights(const lf_session_params *p, lf_error *err)
{
    if (!p->class_weights)
        return true;
    if (!lf_loss_of_classes(p->loss))
        lf_error_set(err, LF_EARG, "class_weights belong to loss \"cross_entropy\", not to \"%s\"",
                     lf_loss_name(p->loss));
    else if (p->class_weight_count != p->model->outputs)
        lf_error_set(err, LF_EARG, "class_weights has %u numbers, but the model has %u outputs", p->class_weight_count,
                     p->model->outputs);
    else
        return true;
    return false;
}

bool lf_session_check(const lf_session_params *p, lf_error *err)
{
    const lf_part *part = lf_dataset_part(p->data, p->part, err);
    if (!part)
        return false;
    if (part->features != p->model->inputs) {
        lf_error_set(err, LF_EARG, "the model expects %u inputs, but a row of %s has %u features", p->model->inputs,
                     part->x_path, part->features);
        return false;
    }
    return check_targets(p, part, err) && check_class_weights(p, err);
}

static bool weighted(const lf_session_params *p, const lf_part *part)
{
    return p->loss != LF_LOSS_NONE && (part->w_path || p->class_weights);
}

// Whether the teachers' outputs come from outside the program.
static bool given_teacher(const lf_session_params *p)
{
    return p->distillation && p->distillation->outputs;
}

// Batches that share an update: at most those of a pass, whose end updates anyway.
static uint32_t together(const lf_session_params *p, const lf_part *part)
{
    uint64_t all = (part->rows + p->batch - 1) / p->batch;
    return p->accumulate <= 1 ? 1 : p->accumulate < all ? p->accumulate : (uint32_t)all;
}

// Rows that an update averages over.
static uint32_t unit(const lf_session_params *p, const lf_part *part)
{
    return p->batch * together(p, part);
}

lf_row_bytes lf_session_row_bytes(const lf_session_params *p, const lf_part *part)
{
    return (lf_row_bytes){ .x = lf_dtype_size(part->stored) * part->features,
                           .y = p->loss == LF_LOSS_NONE ? 0 : sizeof(float) * part->outputs,
                           .w = weighted(p, part) ? sizeof(float) : 0,
                           .teacher = given_teacher(p) ? sizeof(float) * p->model->outputs : 0 };
}

lf_program *lf_session_compile(const lf_session_params *p, uint32_t rows, lf_error *err)
{
    const lf_part *part = lf_dataset_part(p->data, p->part, err);
    if (!part)
        return NULL;
    uint64_t whole = unit(p, part), most = STRETCH_ROWS / whole * whole, all = (part->rows + whole - 1) / whole * whole;
    uint32_t positions = (uint32_t)(all < most ? all : most < whole ? whole : most);
    lf_compile_params compile = { .model = p->model,
                                  .loss = p->loss,
                                  .loss_options = p->loss_options,
                                  .weighted = weighted(p, part),
                                  .optimizer = p->optimizer,
                                  .accumulates = together(p, part) > 1,
                                  .average = p->average,
                                  .batch = p->batch,
                                  .stored = part->stored,
                                  .rows = rows,
                                  .positions = positions,
                                  .steps = positions / p->batch,
                                  .distill.on = p->distillation != NULL };
    if (p->distillation) {
        compile.distill.alpha = p->distillation->alpha;
        compile.distill.temperature = p->distillation->temperature;
        if (!p->distillation->outputs) {
            compile.distill.teachers = p->distillation->teachers;
            compile.distill.teacher_count = p->distillation->teacher_count;
        }
    }
    return lf_program_compile(&compile, err);
}

// As many rows as the memory for them holds.
static bool compile(lf_session *s, lf_error *err)
{
    const lf_session_params *p = &s->p;
    const lf_device_info *info = &p->device->info;
    uint64_t budget = p->budget ? p->budget : info->memory / 2;
    lf_row_bytes row = lf_session_row_bytes(p, s->part);
    uint32_t window = lf_feed_window(s->part->rows, row, unit(p, s->part), budget, info->max_tensor);
    if (window)
        s->program = lf_session_compile(p, window, err);
    else
        lf_error_set(err, LF_EARG, "%s: %.4g MiB for its rows do not hold two batches of %u rows, which take %.4g MiB",
                     s->part->x_path, (double)budget / 0x1p20, unit(p, s->part),
                     2.0 * (double)lf_row_bytes_sum(row) * unit(p, s->part) / 0x1p20);
    return s->program != NULL;
}

static bool write_weights(lf_session *s, lf_error *err)
{
    const lf_model *model = s->p.model;
    return lf_device_buffer_write(s->p.device, s->regions.region[LF_REGION_PARAMS], 0, model->params, block_bytes(s),
                                  err) &&
           (s->program->average == LF_NO_TENSOR ||
            lf_session_write_block(s, s->program->average, model->params, err)) &&
           (!model->state_count || lf_device_buffer_write(s->p.device, s->regions.region[LF_REGION_STATE], 0,
                                                          model->state, model->state_count * sizeof(float), err));
}

static bool write_teachers(lf_session *s, lf_error *err)
{
    size_t params = 0, state = 0;
    for (unsigned i = 0; i < s->program->params.distill.teacher_count; i++) {
        const lf_model *teacher = s->program->params.distill.teachers[i];
        size_t block = teacher->block_count * sizeof(float), running = teacher->state_count * sizeof(float);
        if (!lf_device_buffer_write(s->p.device, s->regions.region[LF_REGION_TEACHER_PARAMS], params, teacher->params,
                                    block, err) ||
            (running && !lf_device_buffer_write(s->p.device, s->regions.region[LF_REGION_TEACHER_STATE], state,
                                                teacher->state, running, err)))
            return false;
        params += block;
        state += running;
    }
    return true;
}

// Memory that the system grants and then does not have would end the process, or another one.
static bool check_memory(const lf_session *s, lf_error *err)
{
    const lf_device_info *info = &s->p.device->info;
    double need = 0;
    for (unsigned i = 0; i < LF_REGION_COUNT; i++)
        need += (double)s->program->region_size[i];
    if (need <= (double)info->memory)
        return true;
    lf_error_set(err, LF_ENOMEM, "%s: the model with %zu parameters and its data take %.3g GiB, but %s has %.3g GiB",
                 s->part->x_path, s->p.model->param_count, need / 0x1p30, info->id, (double)info->memory / 0x1p30);
    return false;
}

static bool create_regions(lf_session *s, lf_error *err)
{
    for (unsigned i = 0; i < LF_REGION_COUNT; i++) {
        size_t size = s->program->region_size[i];
        if (!size)
            continue;
        if ((i == LF_REGION_PARAMS || i == LF_REGION_STATE) && s->p.weights) {
            bool averaged = i == LF_REGION_PARAMS && s->p.weights->program->average != LF_NO_TENSOR;
            s->regions.region[i] = s->p.weights->regions.region[averaged ? LF_REGION_AVERAGE : i];
            continue;
        }
        s->regions.region[i] = lf_device_buffer_create(s->p.device, size, err);
        s->owned[i] = true;
        if (!s->regions.region[i]) {
            lf_error_prefix(err, "region %s of %zu bytes on %s", lf_region_name((lf_region)i), size,
                            s->p.device->info.id);
            return false;
        }
    }
    size_t steps = s->program->params.steps, features = s->part->features;
    s->schedule = calloc(1, sizeof(struct lf_schedule_header) + steps * sizeof(struct lf_schedule_row));
    s->metrics = calloc(steps * s->p.batch * LF_METRIC_COUNT, sizeof *s->metrics);
    if (!s->schedule || !s->metrics) {
        lf_error_set(err, LF_ENOMEM, "schedule of %zu steps: out of memory", steps);
        return false;
    }
    lf_buffer *scaling = s->regions.region[LF_REGION_SCALING];
    size_t row = features * sizeof(float);
    return lf_device_buffer_write(s->p.device, scaling, 0, s->part->scale, row, err) &&
           lf_device_buffer_write(s->p.device, scaling, row, s->part->offset, row, err) &&
           (s->p.weights || write_weights(s, err)) && write_teachers(s, err);
}

lf_session *lf_session_create(const lf_session_params *params, lf_error *err)
{
    if (!lf_session_check(params, err))
        return NULL;
    lf_session *s = calloc(1, sizeof *s);
    if (!s) {
        lf_error_set(err, LF_ENOMEM, "session: out of memory");
        return NULL;
    }
    s->p = *params;
    s->part = lf_dataset_part(params->data, params->part, err);
    s->step = params->step;
    s->lr_scale = 1;
    if (!compile(s, err) || !check_memory(s, err) || !create_regions(s, err))
        goto error;
    s->exec = lf_device_exec_create(params->device, s->program, &s->regions, err);
    if (!s->exec)
        goto error;
    s->feed = lf_feed_create(
        &(lf_feed_params){ .data = params->data,
                           .part = params->part,
                           .row = lf_session_row_bytes(params, s->part),
                           .numbers = !lf_loss_of_classes(params->loss) && s->part->target == LF_TARGET_CLASSES,
                           .unit_targets = params->loss == LF_LOSS_BINARY_CROSS_ENTROPY,
                           .class_weights = params->class_weights,
                           .unit = unit(params, s->part),
                           .program = s->program,
                           .device = params->device,
                           .regions = &s->regions,
                           .shuffle = params->shuffle,
                           .seed = params->seed,
                           .pass = params->pass,
                           .position = params->position,
                           .passes = params->passes,
                           .teacher = given_teacher(params) ? params->distillation->outputs : NULL },
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
    lf_device_exec_destroy(s->p.device, s->exec);
    for (unsigned i = 0; i < LF_REGION_COUNT; i++)
        if (s->owned[i])
            lf_device_buffer_destroy(s->p.device, s->regions.region[i]);
    lf_program_destroy(s->program);
    free(s->schedule);
    free(s->metrics);
    free(s);
}

static struct lf_schedule_row *schedule_rows(const lf_session *s)
{
    return (struct lf_schedule_row *)(s->schedule + LF_SCHEDULE_HEADER_WORDS);
}

static uint32_t steps_of(const lf_session *s, uint32_t rows)
{
    return (rows + s->p.batch - 1) / s->p.batch;
}

// 1 / sum of the weights of the rows of the update that begins at position `first` of the stretch.
static float inv_weight(const lf_session *s, uint32_t first)
{
    uint32_t whole = unit(&s->p, s->part), left = s->stretch.rows - first, rows = left < whole ? left : whole;
    double sum = rows;
    if (s->stretch.weights) {
        sum = 0;
        for (uint32_t i = 0; i < rows; i++)
            sum += (double)s->stretch.weights[first + i];
    }
    return sum > 0 ? (float)(1 / sum) : 0;
}

// What is the same for all steps of one update: rates, and what the gradient is divided by, which is handed from row to
// row.
static void fill_row(lf_session *s, uint32_t step, struct lf_schedule_row *row)
{
    const lf_session_params *p = &s->p;
    uint32_t first = step * p->batch, left = s->stretch.rows - first, share = together(p, s->part);
    uint64_t pass_steps = (s->part->rows + p->batch - 1) / p->batch, in_pass = s->stretch.position / p->batch + step;
    uint64_t update = s->stretch.pass * ((pass_steps + share - 1) / share) + in_pass / share;
    bool begins = in_pass % share == 0;
    *row = (struct lf_schedule_row){ .first = first, .rows = left < p->batch ? left : p->batch };
    row->inv_rows = 1 / (float)row->rows;
    row->inv_weight = begins ? inv_weight(s, first) : row[-1].inv_weight;
    row->begins = begins;
    row->updates = in_pass % share == share - 1 || in_pass == pass_steps - 1;
    row->step = (uint32_t)(s->step + step);
    double lr = p->optimizer.lr;
    if (p->schedule)
        lr = lf_schedule_lr(p->schedule, lr, &p->span, update);
    lf_schedule_rates(&p->optimizer, lr * s->lr_scale, update, row);
}

// The next stretch with its schedule; the device's step counter starts at 0 again.
static bool load_stretch(lf_session *s, lf_error *err)
{
    if (!lf_feed_next(s->feed, &s->stretch, err))
        return false;
    s->stretch_done = 0;
    uint32_t steps = steps_of(s, s->stretch.rows);
    struct lf_schedule_row *rows = schedule_rows(s);
    for (uint32_t i = 0; i < steps; i++)
        fill_row(s, i, &rows[i]);
    *(struct lf_schedule_header *)s->schedule =
        (struct lf_schedule_header){ .seed_low = (uint32_t)s->p.seed, .seed_high = (uint32_t)(s->p.seed >> 32) };
    return lf_device_buffer_write(s->p.device, s->regions.region[LF_REGION_SCHEDULE], 0, s->schedule,
                                  sizeof(struct lf_schedule_header) + steps * sizeof *rows, err);
}

// Equal pieces, so that few different ones are recorded. The first piece of a session records, so only the second one's
// time counts.
static uint32_t piece_size(const lf_session *s, uint32_t steps_left)
{
    if (s->probes < 2)
        return steps_left < PROBE_STEPS ? steps_left : PROBE_STEPS;
    uint32_t all = steps_of(s, s->stretch.rows);
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

static bool run_piece(lf_session *s, uint32_t steps, lf_piece *piece, lf_error *err)
{
    lf_device *dev = s->p.device;
    uint32_t first_step = s->stretch_done / s->p.batch, left = s->stretch.rows - s->stretch_done;
    uint32_t rows = steps * s->p.batch < left ? steps * s->p.batch : left;
    lf_phase last = s->p.optimizer.kind == LF_OPTIMIZER_NONE ? LF_PHASE_FORWARD : LF_PHASE_UPDATE;
    double start = lf_clock();
    if (!lf_device_exec_run(dev, s->exec, LF_PHASE_LOAD, last, steps, err) || !lf_device_wait(dev, err))
        return false;
    *piece = (lf_piece){ .pass = s->stretch.pass,
                         .position = s->stretch.position + s->stretch_done,
                         .step = s->step,
                         .steps = steps,
                         .rows = rows,
                         .batch = s->p.batch,
                         .loss = s->p.loss,
                         .seconds = lf_clock() - start };
    note_time(s, steps, piece->seconds);
    if (s->p.loss != LF_LOSS_NONE) {
        size_t step_floats = (size_t)s->p.batch * LF_METRIC_COUNT;
        if (!lf_device_buffer_read(dev, s->metrics, s->regions.region[LF_REGION_METRICS],
                                   first_step * step_floats * sizeof(float), steps * step_floats * sizeof(float), err))
            return false;
        piece->metrics = s->metrics;
    }
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
        uint32_t left = steps_of(s, s->stretch.rows - s->stretch_done);
        uint32_t steps = piece_steps ? (piece_steps < left ? piece_steps : left) : piece_size(s, left);
        if (steps > limit)
            steps = (uint32_t)limit;
        lf_piece piece;
        if (!run_piece(s, steps, &piece, err) || !done(user, &piece, err))
            return false;
        limit -= steps;
    } while (!lf_session_pass_done(s));
    return true;
}

bool lf_session_read_weights(lf_session *s, lf_model *model, lf_error *err)
{
    return lf_device_buffer_read(s->p.device, model->params, s->regions.region[LF_REGION_PARAMS], 0, block_bytes(s),
                                 err) &&
           (!model->state_count || lf_device_buffer_read(s->p.device, model->state, s->regions.region[LF_REGION_STATE],
                                                         0, model->state_count * sizeof(float), err));
}

bool lf_session_read_result(lf_session *s, lf_model *model, lf_error *err)
{
    return lf_session_read_weights(s, model, err) &&
           (s->program->average == LF_NO_TENSOR || lf_session_read_block(s, s->program->average, model->params, err));
}

bool lf_session_read_block(lf_session *s, lf_tensor_id id, float *values, lf_error *err)
{
    const lf_tensor *block = &s->program->tensors[id];
    return lf_device_buffer_read(s->p.device, values, s->regions.region[block->region], block->offset, block_bytes(s),
                                 err);
}

bool lf_session_write_block(lf_session *s, lf_tensor_id id, const float *values, lf_error *err)
{
    const lf_tensor *block = &s->program->tensors[id];
    return lf_device_buffer_write(s->p.device, s->regions.region[block->region], block->offset, values, block_bytes(s),
                                  err);
}

bool lf_session_read_output(lf_session *s, float *rows, uint32_t count, lf_error *err)
{
    const lf_tensor *output = &s->program->tensors[s->program->output];
    return lf_device_buffer_read(s->p.device, rows, s->regions.region[LF_REGION_ACTS], output->offset,
                                 (size_t)count * output->cols * sizeof(float), err);
}

const lf_program *lf_session_program(const lf_session *s)
{
    return s->program;
}
