#include "train/identity.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/hash.h"
#include "train/checkpoint.h"

// A digest of some rows, spread over the part: a resume on other data is found out without reading all of it.
static bool sample_rows(const lf_train_params *p, const lf_part *part, char hex[65], lf_error *err)
{
    enum { SAMPLES = 64 };
    uint64_t rows[SAMPLES];
    size_t count = part->rows < SAMPLES ? (size_t)part->rows : SAMPLES;
    size_t x_size = count * part->features * lf_dtype_size(part->stored), y_size = count * part->outputs * 4;
    for (size_t i = 0; i < count; i++)
        rows[i] = i * (part->rows - 1) / (count > 1 ? count - 1 : 1);
    void *x = malloc(x_size), *y = malloc(y_size + 1);
    lf_hash *hash = lf_hash_create(err);
    bool ok = x && y && hash && lf_dataset_read(p->data, p->part, rows, count, x, y_size ? y : NULL, err);
    if (!x || !y)
        lf_error_set(err, LF_ENOMEM, "%s: out of memory for %zu rows", part->x_path, count);
    if (ok) {
        lf_hash_update(hash, x, x_size);
        lf_hash_update(hash, y, y_size);
        lf_hash_update(hash, part->scale, part->features * sizeof *part->scale);
        lf_hash_update(hash, part->offset, part->features * sizeof *part->offset);
        lf_hash_finish(hash, hex);
    }
    lf_hash_destroy(hash);
    free(x);
    free(y);
    return ok;
}

// One digest for all teachers, in order.
static bool digest_teachers(const lf_train_params *p, char hex[65], lf_error *err)
{
    lf_hash *hash = lf_hash_create(err);
    bool ok = hash != NULL;
    for (unsigned i = 0; ok && i < p->teacher_count; i++) {
        char one[65];
        ok = lf_model_digest(p->teachers[i], one, err);
        lf_hash_text(hash, one);
    }
    if (ok)
        lf_hash_finish(hash, hex);
    lf_hash_destroy(hash);
    return ok;
}

bool lf_train_identity(const lf_train_params *p, const lf_part *part, const lf_span *span, char *text, size_t size,
                       lf_error *err)
{
    char data[65], teachers[65], schedule[LF_SCHEDULE_TEXT];
    if (!sample_rows(p, part, data, err) || !digest_teachers(p, teachers, err))
        return false;
    data[16] = teachers[16] = 0; // enough to tell them apart in a message
    lf_schedule_text(&p->schedule, span, schedule, sizeof schedule);
    const lf_optimizer *o = &p->optimizer;
    int length =
        snprintf(text, size,
                 "data %s, loss %s, batch %u, seed %" PRIu64 ", shuffle %d, rows %" PRIu64
                 ", lr %.9g, momentum %.9g, nesterov %d, beta1 %.9g, beta2 %.9g, eps %.9g, weight_decay %.9g"
                 ", schedule %s, %u teachers %s, alpha %.9g, temperature %.9g",
                 data, lf_loss_name(p->loss), p->batch, p->seed, p->shuffle, part->rows, o->lr, (double)o->momentum,
                 o->nesterov, (double)o->beta1, (double)o->beta2, (double)o->eps, (double)o->weight_decay, schedule,
                 p->teacher_count, p->teacher_count ? teachers : "none", (double)p->alpha, (double)p->temperature);
    if (length >= 0 && (size_t)length < size)
        return true;
    lf_error_set(err, LF_EARG, "the training's options take %d characters in its checkpoint; at most %zu fit", length,
                 size - 1);
    return false;
}
