// Passes that change nothing.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/scores.h"

typedef struct pass {
    const lf_evaluate_params *params;
    lf_session *session;
    lf_scores scores;
    double seconds;
    // prediction
    lf_predict_fn *rows;
    void *user;
    float *outputs; // (batch, outputs)
} pass;

static bool stopped(const lf_evaluate_params *params, lf_error *err)
{
    if (!params->stop || !*params->stop)
        return false;
    lf_error_set(err, LF_EINTERRUPTED, "interrupted");
    return true;
}

static bool add_piece(void *user, const lf_piece *piece, lf_error *err)
{
    pass *p = user;
    lf_scores_add(&p->scores, piece);
    p->seconds += piece->seconds;
    return !stopped(p->params, err);
}

static bool give_rows(void *user, const lf_piece *piece, lf_error *err)
{
    pass *p = user;
    return lf_session_read_output(p->session, p->outputs, piece->rows, err) &&
           p->rows(p->user, piece->position, piece->rows, p->outputs, err) && !stopped(p->params, err);
}

static bool run(const lf_evaluate_params *params, pass *p, lf_device_info *info, lf_error *err)
{
    bool predicts = p->rows != NULL, ok = false;
    lf_device *device = lf_device_open(params->device, err);
    if (!device)
        return false;
    *info = device->info;
    p->session = lf_session_create(&(lf_session_params){ .devices = &device,
                                                         .device_count = 1,
                                                         .model = params->model,
                                                         .data = params->data,
                                                         .part = params->part,
                                                         .loss = params->loss,
                                                         .loss_options = params->loss_options,
                                                         .class_weights = params->class_weights,
                                                         .class_weight_count = params->class_weight_count,
                                                         .batch = params->batch,
                                                         .passes = 1,
                                                         .budget = params->window },
                                   err);
    if (!p->session)
        goto done;
    if (predicts) {
        p->outputs = calloc((size_t)params->batch * params->model->outputs, sizeof *p->outputs);
        if (!p->outputs) {
            lf_error_set(err, LF_ENOMEM, "predict: out of memory for %u rows", params->batch);
            goto done;
        }
    }
    // A prediction reads the outputs of one step, the only ones that stay on the device.
    ok = lf_session_run(p->session, UINT64_MAX, predicts ? 1 : 0, predicts ? give_rows : add_piece, p, err);
done:
    free(p->outputs);
    lf_session_destroy(p->session);
    lf_device_close(device);
    return ok;
}

bool lf_evaluate(const lf_evaluate_params *params, lf_evaluation *result, lf_error *err)
{
    pass p = { .params = params };
    memset(result, 0, sizeof *result);
    bool ok = lf_scores_init(&p.scores, params->loss, params->model->outputs, params->top_k, err) &&
              run(params, &p, &result->device, err) && lf_scores_finish(&p.scores, result, err);
    lf_scores_destroy(&p.scores);
    if (ok && !lf_loss_has_accuracy(params->loss)) {
        double spread;
        ok = lf_targets_spread(params->data, params->part, &spread, err);
        result->r2 = 1 - result->mse * (double)result->rows / spread;
        if (!isfinite(result->r2)) // every target is the same
            result->r2 = (double)NAN;
    }
    result->seconds = p.seconds;
    return ok;
}

bool lf_predict(const lf_evaluate_params *params, lf_predict_fn *rows, void *user, lf_error *err)
{
    pass p = { .params = params, .rows = rows, .user = user };
    lf_device_info info;
    return run(params, &p, &info, err);
}

double lf_softmax_sum(const float *z, uint32_t count, double temperature, double *largest)
{
    double sum = 0;
    *largest = (double)z[0];
    for (uint32_t j = 1; j < count; j++)
        *largest = fmax(*largest, (double)z[j]);
    for (uint32_t j = 0; j < count; j++)
        sum += exp(((double)z[j] - *largest) / temperature);
    return sum;
}
