#include "train/identity.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/hash.h"

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

bool lf_train_identity(const lf_train_params *p, const lf_part *part, const lf_span *span, char *text, size_t size,
                       lf_error *err)
{
    char data[65];
    if (!sample_rows(p, part, data, err))
        return false;
    data[16] = 0; // enough to tell data sets apart in a message
    const lf_optimizer *o = &p->optimizer;
    const lf_schedule *s = &p->schedule;
    // Other rates than a constant one depend on the training's length.
    uint64_t length = s->kind == LF_SCHEDULE_CONSTANT ? 0 : span->steps;
    snprintf(text, size,
             "data %s, loss %s, batch %u, seed %" PRIu64 ", shuffle %d, rows %" PRIu64 ", lr %.9g, momentum %.9g, "
             "nesterov %d, beta1 %.9g, beta2 %.9g, eps %.9g, weight_decay %.9g, schedule %s over %" PRIu64
             " steps (per_epoch %d, warmup %.9g, final %.9g, gamma %.9g, every %" PRIu64
             "), teachers %u, alpha %.9g, temperature %.9g",
             data, lf_loss_name(p->loss), p->batch, p->seed, p->shuffle, part->rows, o->lr, (double)o->momentum,
             o->nesterov, (double)o->beta1, (double)o->beta2, (double)o->eps, (double)o->weight_decay,
             lf_schedule_name(s->kind), length, s->per_epoch, s->warmup, s->final, s->gamma, s->every, p->teacher_count,
             (double)p->alpha, (double)p->temperature);
    return true;
}
