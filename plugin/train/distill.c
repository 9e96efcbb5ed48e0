#include "train/distill.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/hash.h"
#include "core/log.h"
#include "io/rows_file.h"
#include "train/checkpoint.h"

enum { TEACHER_BATCH = 256 };
static const char *const cache_format = "lavaflow-teacher";

// What one teacher says of every row: (rows, outputs).
typedef struct sayings {
    uint64_t rows;
    uint32_t outputs;
    float *values;
} sayings;

static bool take_rows(void *user, uint64_t first, uint32_t count, const float *outputs, lf_error *err)
{
    sayings *s = user;
    size_t size = (size_t)count * s->outputs;
    for (size_t i = 0; i < size; i++)
        if (!isfinite(outputs[i])) {
            lf_error_set(err, LF_EDATA, "the teacher's outputs at row %" PRIu64 " are not finite",
                         first + i / s->outputs);
            return false;
        }
    memcpy(s->values + first * s->outputs, outputs, size * sizeof *outputs);
    return true;
}

static bool run_teacher(const lf_train_params *params, const char *device, unsigned index, sayings *s, lf_error *err)
{
    const lf_evaluate_params evaluate = { .model = params->teachers[index],
                                          .data = params->data,
                                          .part = params->part,
                                          .batch = TEACHER_BATCH,
                                          .device = device,
                                          .window = params->window,
                                          .stop = params->stop };
    if (lf_predict(&evaluate, take_rows, s, err))
        return true;
    lf_error_prefix(err, "teacher %u", index + 1);
    return false;
}

// mean[j] += softmax(z / temperature)[j] / teachers; temperature 0: z[j] / teachers.
static void add_row(uint32_t outputs, const float *z, double temperature, double teachers, float *mean)
{
    if (temperature == 0) {
        for (uint32_t j = 0; j < outputs; j++)
            mean[j] += (float)((double)z[j] / teachers);
        return;
    }
    double most, sum = lf_softmax_sum(z, outputs, temperature, &most);
    for (uint32_t j = 0; j < outputs; j++)
        mean[j] += (float)(exp(((double)z[j] - most) / temperature) / sum / teachers);
}

static void add_teacher(lf_distillation *d, const lf_train_params *params, const sayings *s)
{
    double temperature = lf_loss_of_classes(params->loss) ? (double)params->temperature : 0;
    for (uint64_t i = 0; i < s->rows; i++)
        add_row(s->outputs, s->values + i * s->outputs, temperature, params->teacher_count,
                d->outputs + i * s->outputs);
}

// Objects of the cache are named by what their values follow from: the teacher and the rows.
static bool name_object(const lf_model *teacher, const char *data, char hex[65], lf_error *err)
{
    char weights[65];
    char *definition = lf_model_definition(teacher);
    if (!definition)
        lf_error_set(err, LF_ENOMEM, "the teacher's definition: out of memory");
    lf_hash *hash = definition && lf_model_digest(teacher, weights, err) ? lf_hash_create(err) : NULL;
    bool ok = hash != NULL;
    if (ok) {
        lf_hash_text(hash, data);
        lf_hash_text(hash, definition);
        lf_hash_text(hash, weights);
        lf_hash_finish(hash, hex);
    }
    free(definition);
    lf_hash_destroy(hash);
    return ok;
}

// What stands at the path of a cache must be one, since it is replaced.
static bool check_cache(const char *path, lf_error *err)
{
    if (access(path, F_OK) != 0)
        return true;
    char *format = lf_rows_read_text(path, "@format");
    bool ok = format && !strcmp(format, cache_format);
    if (!ok)
        lf_error_set(err, LF_EFORMAT, "%s: is no cache of a teacher's outputs, and is not replaced by one", path);
    free(format);
    return ok;
}

static bool digest_values(const sayings *s, char hex[65], lf_error *err)
{
    lf_hash *hash = lf_hash_create(err);
    if (!hash)
        return false;
    lf_hash_update(hash, s->values, s->rows * s->outputs * sizeof *s->values);
    lf_hash_finish(hash, hex);
    lf_hash_destroy(hash);
    return true;
}

enum { ATTRIBUTE = 96 };

static void name_digest(const char *object, char attribute[ATTRIBUTE])
{
    snprintf(attribute, ATTRIBUTE, "%.64s@sha256", object);
}

// What the file holds under a name, if it is as it was written.
static bool read_cached(const char *path, const char *name, const sayings *s)
{
    lf_error ignored;
    char attribute[ATTRIBUTE], digest[65];
    if (!lf_rows_read(path, cache_format, name, s->rows, s->outputs, s->values, &ignored) ||
        !digest_values(s, digest, &ignored))
        return false;
    name_digest(name, attribute);
    char *written = lf_rows_read_text(path, attribute);
    bool same = written && !strcmp(written, digest);
    if (!same)
        lf_log(LF_LOG_WARN, "%s: the teacher's outputs in it are damaged, and computed anew", path);
    free(written);
    return same;
}

static bool add_object(lf_rows_file *file, const char *name, const sayings *s, lf_error *err)
{
    char attribute[ATTRIBUTE], digest[65];
    name_digest(name, attribute);
    return digest_values(s, digest, err) && lf_rows_add(file, name, LF_F32, s->rows, s->outputs, err) &&
           lf_rows_put(file, name, 0, s->rows, s->values, err) && lf_rows_text(file, attribute, digest, err);
}

static bool write_cache(const char *path, unsigned count, char (*names)[65], const sayings *all, const char *data,
                        lf_error *err)
{
    lf_rows_file *file = lf_rows_create(path, cache_format, err);
    bool ok = file && lf_rows_text(file, "@data", data, err);
    for (unsigned i = 0; ok && i < count; i++) {
        bool repeated = false; // one teacher twice
        for (unsigned j = 0; j < i; j++)
            repeated |= !strcmp(names[i], names[j]);
        ok = repeated || add_object(file, names[i], &all[i], err);
    }
    if (ok)
        return lf_rows_finish(file, err);
    lf_rows_abandon(file);
    return false;
}

// All teachers' outputs out of the cache, or computed and put there.
static bool use_cache(const lf_train_params *params, const char *device, sayings *all, lf_error *err)
{
    char data[65], names[LF_TEACHER_MAX][65];
    const char *path = params->teacher_cache;
    if (!check_cache(path, err) || !lf_dataset_digest(params->data, params->part, data, err))
        return false;
    bool known = true;
    for (unsigned i = 0; i < params->teacher_count; i++) {
        if (!name_object(params->teachers[i], data, names[i], err))
            return false;
        known = known && read_cached(path, names[i], &all[i]);
    }
    if (known) {
        lf_log(LF_LOG_INFO, "the teachers' outputs are read from %s", path);
        return true;
    }
    for (unsigned i = 0; i < params->teacher_count; i++)
        if (!run_teacher(params, device, i, &all[i], err))
            return false;
    lf_log(LF_LOG_INFO, "the teachers' outputs are computed; %s keeps them", path);
    return write_cache(path, params->teacher_count, names, all, data, err);
}

static bool check_hints(const lf_train_params *p, lf_error *err)
{
    if (!p->hint_count)
        return true;
    if (p->teacher_count != 1 || !p->live) {
        lf_error_set(err, LF_EARG, "hints need one teacher that runs at every step, but there are %u%s",
                     p->teacher_count, p->live ? "" : ", whose outputs are computed once");
        return false;
    }
    lf_model *hinted = lf_model_with_hints(p->model, p->teachers[0], p->hints, p->hint_count, 0, err);
    lf_model_destroy(hinted);
    return hinted != NULL;
}

bool lf_distillation_check(const lf_train_params *p, lf_error *err)
{
    if (!p->teacher_count)
        return check_hints(p, err);
    if (p->teacher_count > LF_TEACHER_MAX)
        lf_error_set(err, LF_EARG, "%u teachers; at most %d fit", p->teacher_count, LF_TEACHER_MAX);
    else if (lf_loss_of_classes(p->loss) && !(p->temperature > 0))
        lf_error_set(err, LF_EARG, "temperature must be above 0, not %g", (double)p->temperature);
    else if (!(p->alpha >= 0 && p->alpha <= 1))
        lf_error_set(err, LF_EARG, "alpha must be in 0..1, not %g", (double)p->alpha);
    else {
        for (unsigned i = 0; i < p->teacher_count; i++) {
            const lf_model *teacher = p->teachers[i];
            if (teacher == p->model) {
                lf_error_set(err, LF_EARG, "teacher %u is the student itself, whose weights change: load a copy of it",
                             i + 1);
                return false;
            }
            if (teacher->outputs != p->model->outputs) {
                lf_error_set(err, LF_EARG, "teacher %u has %u outputs, but the student has %u", i + 1, teacher->outputs,
                             p->model->outputs);
                return false;
            }
            if (teacher->inputs != p->model->inputs) {
                lf_error_set(err, LF_EARG, "teacher %u has %u inputs, but the student has %u", i + 1, teacher->inputs,
                             p->model->inputs);
                return false;
            }
        }
        return check_hints(p, err);
    }
    return false;
}

static bool make_sayings(sayings *all, unsigned count, uint64_t rows, uint32_t outputs)
{
    bool ok = true;
    for (unsigned i = 0; i < count; i++) {
        all[i] = (sayings){ rows, outputs, calloc(rows * outputs, sizeof(float)) };
        ok &= all[i].values != NULL;
    }
    return ok;
}

bool lf_distillation_init(lf_distillation *d, const lf_train_params *params, const char *device, lf_error *err)
{
    *d = (lf_distillation){ .alpha = params->alpha,
                            .temperature = params->temperature,
                            .teachers = params->teachers,
                            .teacher_count = params->teacher_count };
    if (params->live || !params->teacher_count)
        return true;
    const lf_part *part = lf_dataset_part(params->data, params->part, err);
    // A cache keeps the teachers apart; without one they are added up one after the other.
    sayings all[LF_TEACHER_MAX] = { { 0 } };
    unsigned apart = !device ? 0 : params->teacher_cache ? params->teacher_count : 1;
    d->outputs = calloc(part->rows * params->model->outputs, sizeof *d->outputs);
    bool ok = make_sayings(all, apart, part->rows, params->model->outputs) && d->outputs;
    if (!ok)
        lf_error_set(err, LF_ENOMEM, "the teachers' outputs on %" PRIu64 " rows: out of memory", part->rows);
    if (ok && device && params->teacher_cache)
        ok = use_cache(params, device, all, err);
    for (unsigned i = 0; ok && device && i < params->teacher_count; i++) {
        sayings *s = &all[params->teacher_cache ? i : 0];
        ok = params->teacher_cache || run_teacher(params, device, i, s, err);
        if (ok)
            add_teacher(d, params, s);
    }
    for (unsigned i = 0; i < apart; i++)
        free(all[i].values);
    return ok;
}

void lf_distillation_finish(lf_distillation *d)
{
    free(d->outputs);
    d->outputs = NULL;
}
