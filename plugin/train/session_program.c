#include "train/session_program.h"

#include <stdlib.h>
#include <string.h>

#include "ranks/ranks.h"

// A stretch's schedule, order and metrics take about 30 bytes a row on the device.
enum { STRETCH_ROWS = 1 << 20 };
// Gradients leave for the other devices in pieces of at least so many bytes, while the backward pass goes on.
enum { BUCKET_BYTES = 4 << 20 };

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
    if (!part || !lf_dataset_settle(p->data, NULL, err))
        return false;
    if (part->features != p->model->inputs) {
        lf_error_set(err, LF_EARG, "the model expects %u inputs, but a row of %s has %u features", p->model->inputs,
                     part->x_path, part->features);
        return false;
    }
    return check_targets(p, part, err) && check_class_weights(p, err);
}

bool lf_session_weighted(const lf_session_params *p, const lf_part *part)
{
    return p->loss != LF_LOSS_NONE && (part->w_path || p->class_weights);
}

bool lf_session_given_teacher(const lf_session_params *p)
{
    return p->distillation && p->distillation->outputs;
}

uint32_t lf_session_together(const lf_session_params *p, const lf_part *part)
{
    uint64_t all = (part->rows + p->batch - 1) / p->batch;
    return p->accumulate <= 1 ? 1 : p->accumulate < all ? p->accumulate : (uint32_t)all;
}

uint32_t lf_session_unit(const lf_session_params *p, const lf_part *part)
{
    return p->batch * lf_session_together(p, part);
}

lf_row_bytes lf_session_row_bytes(const lf_session_params *p, const lf_part *part)
{
    return (lf_row_bytes){ .x = lf_dtype_size(part->stored) * part->features,
                           .y = p->loss == LF_LOSS_NONE ? 0 : sizeof(float) * part->outputs,
                           .w = lf_session_weighted(p, part) ? sizeof(float) : 0,
                           .teacher = lf_session_given_teacher(p) ? sizeof(float) * p->model->outputs : 0 };
}

// Of this process's devices.
static uint32_t own_window(const lf_session_params *p, const lf_part *part, lf_error *err)
{
    uint64_t budget = p->budget, most = UINT64_MAX;
    for (unsigned i = 0; i < p->device_count; i++) {
        const lf_device_info *info = &p->devices[i]->info;
        most = info->max_tensor < most ? info->max_tensor : most;
        budget = !budget || (!p->budget && info->memory / 2 < budget) ? info->memory / 2 : budget;
    }
    lf_row_bytes row = lf_session_row_bytes(p, part);
    uint32_t unit = lf_session_unit(p, part), window = lf_feed_window(part->rows, row, unit, budget, most);
    if (!window)
        lf_error_set(err, LF_EARG, "%s: %.4g MiB for its rows do not hold two batches of %u rows, which take %.4g MiB",
                     part->x_path, (double)budget / 0x1p20, unit, 2.0 * (double)lf_row_bytes_sum(row) * unit / 0x1p20);
    return window;
}

uint32_t lf_session_window(const lf_session_params *p, const lf_part *part, lf_error *err)
{
    uint32_t window = own_window(p, part, err);
    if (p->rank_count <= 1)
        return window;
    bool ok = lf_ranks_agree(window > 0, err);
    uint32_t own = window;
    for (uint32_t r = 0; ok && r < p->rank_count; r++) {
        uint32_t told = own;
        ok = lf_ranks_broadcast_from(r, &told, sizeof told, err);
        window = told < window ? told : window;
    }
    return ok ? window : 0;
}

lf_program *lf_session_compile_held(const lf_session_params *p, uint32_t rows, const uint32_t *held,
                                    uint32_t held_count, lf_error *err)
{
    const lf_part *part = lf_dataset_part(p->data, p->part, err);
    if (!part)
        return NULL;
    uint64_t whole = lf_session_unit(p, part), most = STRETCH_ROWS / whole * whole,
             all = (part->rows + whole - 1) / whole * whole;
    uint32_t positions = (uint32_t)(all < most ? all : most < whole ? whole : most);
    const char *fuse = getenv("LAVAFLOW_FUSE");
    lf_compile_params compile = { .model = p->model,
                                  .loss = p->loss,
                                  .loss_options = p->loss_options,
                                  .weighted = lf_session_weighted(p, part),
                                  .optimizer = p->optimizer,
                                  .accumulates = lf_session_together(p, part) > 1,
                                  .average = p->average,
                                  .fuses = p->shards <= 1 && (!fuse || strcmp(fuse, "0") != 0),
                                  .tf32 = p->tf32,
                                  .batch = p->batch,
                                  .stored = part->stored,
                                  .rows = rows,
                                  .positions = positions,
                                  .steps = positions / p->batch,
                                  .shards = p->shards,
                                  .held = held,
                                  .held_count = held_count,
                                  .bucket = BUCKET_BYTES,
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

lf_program *lf_session_compile(const lf_session_params *p, uint32_t rows, lf_error *err)
{
    return lf_session_compile_held(p, rows, NULL, 0, err);
}
