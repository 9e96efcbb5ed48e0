#include "train/distill.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TEACHER_BATCH = 256 };

typedef struct pass {
    lf_distillation *d;
    uint32_t outputs;
    unsigned teachers;
} pass;

// Adds softmax(logits / temperature) / teachers to the rows of d->soft.
static bool add_rows(void *user, uint64_t first, uint32_t count, const float *logits, lf_error *err)
{
    pass *p = user;
    double temperature = (double)p->d->temperature;
    for (uint32_t i = 0; i < count; i++, logits += p->outputs) {
        float *soft = p->d->soft + (first + i) * p->outputs;
        double most = (double)logits[0], sum = 0;
        for (uint32_t j = 1; j < p->outputs; j++)
            most = fmax(most, (double)logits[j]);
        for (uint32_t j = 0; j < p->outputs; j++)
            sum += exp(((double)logits[j] - most) / temperature);
        for (uint32_t j = 0; j < p->outputs; j++)
            soft[j] += (float)(exp(((double)logits[j] - most) / temperature) / sum / p->teachers);
        if (!isfinite(sum)) {
            lf_error_set(err, LF_EDATA, "the teacher's logits at row %" PRIu64 " are not finite", first + i);
            return false;
        }
    }
    return true;
}

bool lf_distillation_check(const lf_train_params *p, lf_error *err)
{
    if (!p->teacher_count)
        return true;
    if (p->loss != LF_LOSS_CROSS_ENTROPY)
        lf_error_set(err, LF_EARG, "distillation needs loss \"cross_entropy\", not \"%s\"", lf_loss_name(p->loss));
    else if (!(p->temperature > 0))
        lf_error_set(err, LF_EARG, "temperature must be above 0, not %g", (double)p->temperature);
    else if (!(p->alpha >= 0 && p->alpha <= 1))
        lf_error_set(err, LF_EARG, "alpha must be in 0..1, not %g", (double)p->alpha);
    else {
        for (unsigned i = 0; i < p->teacher_count; i++)
            if (p->teachers[i]->outputs != p->model->outputs) {
                lf_error_set(err, LF_EARG, "teacher %u has %u outputs, but the student has %u", i + 1,
                             p->teachers[i]->outputs, p->model->outputs);
                return false;
            }
        return true;
    }
    return false;
}

bool lf_distillation_init(lf_distillation *d, const lf_train_params *params, lf_error *err)
{
    *d = (lf_distillation){ .alpha = params->alpha, .temperature = params->temperature };
    const lf_part *part = lf_dataset_part(params->data, params->part, err);
    pass p = { d, params->model->outputs, params->teacher_count };
    if (!part)
        return false;
    d->soft = calloc(part->rows * p.outputs, sizeof *d->soft);
    if (!d->soft) {
        lf_error_set(err, LF_ENOMEM, "the teacher's outputs on %" PRIu64 " rows: out of memory", part->rows);
        return false;
    }
    for (unsigned i = 0; i < params->teacher_count; i++) {
        const lf_model *teacher = params->teachers[i];
        if (!lf_predict(&(lf_evaluate_params){ .model = teacher,
                                               .data = params->data,
                                               .part = params->part,
                                               .batch = TEACHER_BATCH,
                                               .device = params->device,
                                               .window = params->window,
                                               .stop = params->stop },
                        add_rows, &p, err)) {
            lf_error_prefix(err, "teacher %u", i + 1);
            return false;
        }
    }
    return true;
}

void lf_distillation_finish(lf_distillation *d)
{
    free(d->soft);
    d->soft = NULL;
}
