#include "train/identity.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/hash.h"
#include "train/checkpoint.h"

// A digest of some rows, spread over the part: a resume on other data is found out without reading all of it.
static bool sample_rows(lf_dataset *data, lf_part_id id, char hex[65], lf_error *err)
{
    const lf_part *part = lf_dataset_part(data, id, err);
    if (!part)
        return false;
    enum { SAMPLES = 64 };
    uint64_t rows[SAMPLES];
    size_t count = part->rows < SAMPLES ? (size_t)part->rows : SAMPLES;
    size_t x_size = count * part->features * lf_dtype_size(part->stored), y_size = count * part->outputs * 4;
    for (size_t i = 0; i < count; i++)
        rows[i] = i * (part->rows - 1) / (count > 1 ? count - 1 : 1);
    void *x = malloc(x_size), *y = malloc(y_size + 1);
    float *w = calloc(count, sizeof *w);
    lf_hash *hash = lf_hash_create(err);
    bool ok =
        x && y && w && hash && lf_dataset_read(data, id, rows, count, &(lf_rows_out){ x, y_size ? y : NULL, w }, err);
    if (!x || !y || !w)
        lf_error_set(err, LF_ENOMEM, "%s: out of memory for %zu rows", part->x_path, count);
    if (ok) {
        lf_hash_update(hash, x, x_size);
        lf_hash_update(hash, y, y_size);
        lf_hash_update(hash, w, count * sizeof *w);
        lf_hash_update(hash, part->scale, part->features * sizeof *part->scale);
        lf_hash_update(hash, part->offset, part->features * sizeof *part->offset);
        lf_hash_finish(hash, hex);
    }
    lf_hash_destroy(hash);
    free(x);
    free(y);
    free(w);
    return ok;
}

static void hash_class_weights(lf_hash *hash, const lf_train_params *p)
{
    lf_hash_update(hash, p->class_weights, p->class_weight_count * sizeof *p->class_weights);
}

static void hash_hints(lf_hash *hash, const lf_train_params *p)
{
    for (size_t i = 0; i < p->hint_count; i++) {
        lf_hash_text(hash, p->hints[i].student);
        lf_hash_text(hash, p->hints[i].teacher);
        lf_hash_update(hash, &p->hints[i].weight, sizeof p->hints[i].weight);
    }
}

static bool hash_definition(lf_hash *hash, const lf_model *model, lf_error *err)
{
    char *text = lf_model_definition(model);
    if (text)
        lf_hash_text(hash, text);
    else
        lf_error_set(err, LF_ENOMEM, "the model's definition: out of memory");
    free(text);
    return text != NULL;
}

// One digest of the model's layers, its classes' weights and its hints: what no short text tells.
static bool digest_model(const lf_train_params *p, char hex[65], lf_error *err)
{
    lf_hash *hash = lf_hash_create(err);
    bool ok = hash && hash_definition(hash, p->model, err);
    if (ok) {
        hash_class_weights(hash, p);
        hash_hints(hash, p);
        lf_hash_finish(hash, hex);
    }
    lf_hash_destroy(hash);
    return ok;
}

// One digest for all teachers, in order.
static bool digest_teachers(const lf_train_params *p, char hex[65], lf_error *err)
{
    lf_hash *hash = lf_hash_create(err);
    bool ok = hash != NULL;
    for (unsigned i = 0; ok && i < p->teacher_count; i++) {
        char one[65];
        ok = lf_model_digest(p->teachers[i], one, err) && hash_definition(hash, p->teachers[i], err);
        lf_hash_text(hash, one);
    }
    if (ok)
        lf_hash_finish(hash, hex);
    lf_hash_destroy(hash);
    return ok;
}

size_t lf_train_options_difference(const char *a, const char *b)
{
    size_t same = 0;
    while (a[same] && a[same] == b[same])
        same++;
    while (same && !(same > 1 && a[same - 1] == ' ' && a[same - 2] == ','))
        same--;
    return same;
}

bool lf_train_identity(const lf_train_params *p, const lf_part *part, const lf_span *span, uint32_t shards, char *text,
                       size_t size, lf_error *err)
{
    char data[65], validation[65] = "none", model[65], teachers[65] = "none", schedule[LF_SCHEDULE_TEXT];
    if (!sample_rows(p->data, p->part, data, err) ||
        (p->validation && !sample_rows(p->validation, p->validation_part, validation, err)) ||
        !digest_model(p, model, err) || (p->teacher_count && !digest_teachers(p, teachers, err)))
        return false;
    data[16] = validation[16] = model[16] = teachers[16] = 0; // enough to tell them apart in a message
    lf_schedule_text(&p->schedule, span, schedule, sizeof schedule);
    const lf_optimizer *o = &p->optimizer;
    int length = snprintf(
        text, size,
        "data %s, validation %s, model %s, monitor %s, min_delta %.9g, restore_best %d"
        ", loss %s, batch %u, shards %u, seed %" PRIu64 ", shuffle %d, rows %" PRIu64
        ", lr %.9g, momentum %.9g, nesterov %d, beta1 %.9g, beta2 %.9g, eps %.9g, weight_decay %.9g"
        ", decay_bias %d, clip_norm %.9g, clip_value %.9g, label_smoothing %.9g, delta %.9g"
        ", accumulate %u, ema %.9g, schedule %s, %u teachers %s, alpha %.9g, temperature %.9g, live %d, tf32 %d"
        ", reduce %s",
        data, validation, model, lf_monitor_name(p->monitor), p->min_delta, p->restore_best, lf_loss_name(p->loss),
        p->batch, shards, p->seed, p->shuffle, part->rows, o->lr, (double)o->momentum, o->nesterov, (double)o->beta1,
        (double)o->beta2, (double)o->eps, (double)o->weight_decay, o->decay_bias, (double)o->clip_norm,
        (double)o->clip_value, (double)p->loss_options.label_smoothing, (double)p->loss_options.delta, p->accumulate,
        (double)p->average, schedule, p->teacher_count, teachers, (double)p->alpha, (double)p->temperature, p->live,
        p->tf32, p->fast ? "fast" : "exact");
    if (length >= 0 && (size_t)length < size)
        return true;
    lf_error_set(err, LF_EARG, "the training's options take %d characters in its checkpoint; at most %zu fit", length,
                 size - 1);
    return false;
}
