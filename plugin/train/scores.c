#include "train/scores.h"

#include <math.h>
#include <stdlib.h>

#include "abi.h"

enum { CLASSES_MAX = 8192 }; // of a confusion matrix: 512 MiB

bool lf_scores_init(lf_scores *scores, lf_loss loss, uint32_t outputs, uint32_t top_k, lf_error *err)
{
    *scores = (lf_scores){ .loss = loss };
    if (!lf_loss_of_classes(loss))
        return true;
    scores->classes = outputs;
    scores->top_k = top_k < outputs ? top_k : outputs;
    if (outputs > CLASSES_MAX) {
        lf_error_set(err, LF_EUNSUPPORTED, "a confusion matrix of %u classes is too large: at most %d", outputs,
                     CLASSES_MAX);
        return false;
    }
    scores->confusion = calloc((size_t)outputs * outputs, sizeof *scores->confusion);
    if (!scores->confusion)
        lf_error_set(err, LF_ENOMEM, "a confusion matrix of %u classes: out of memory", outputs);
    return scores->confusion != NULL;
}

static void add_row(lf_scores *scores, const float *row)
{
    if (!scores->confusion) {
        scores->squared += (double)row[LF_METRIC_SQUARED];
        scores->absolute += (double)row[LF_METRIC_ABSOLUTE];
        return;
    }
    uint32_t label = (uint32_t)row[LF_METRIC_LABEL], given = (uint32_t)row[LF_METRIC_CLASS];
    if (label < scores->classes && given < scores->classes)
        scores->confusion[(size_t)label * scores->classes + given]++;
    scores->top += row[LF_METRIC_RANK] < (float)scores->top_k;
}

void lf_scores_add(lf_scores *scores, const lf_piece *piece)
{
    lf_piece_add(piece, &scores->sums);
    for (uint32_t i = 0; i < piece->rows; i++) // only the last step of a piece is short
        add_row(scores, piece->metrics + (size_t)i * LF_METRIC_COUNT);
}

static double ratio(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

// Precision, recall and F1 of each class against the rest.
static bool rate_classes(const lf_scores *scores, lf_evaluation *result)
{
    uint32_t n = scores->classes;
    result->precision = calloc(n, sizeof(double));
    result->recall = calloc(n, sizeof(double));
    result->f1 = calloc(n, sizeof(double));
    if (!result->precision || !result->recall || !result->f1)
        return false;
    double sum = 0;
    for (uint32_t c = 0; c < n; c++) {
        uint64_t given = 0, is = 0, right = scores->confusion[(size_t)c * n + c];
        for (uint32_t i = 0; i < n; i++) {
            given += scores->confusion[(size_t)i * n + c];
            is += scores->confusion[(size_t)c * n + i];
        }
        result->precision[c] = ratio((double)right, (double)given);
        result->recall[c] = ratio((double)right, (double)is);
        result->f1[c] = ratio(2 * (double)right, (double)(given + is));
        sum += result->f1[c];
    }
    result->macro_f1 = sum / n;
    return true;
}

bool lf_scores_finish(lf_scores *scores, lf_evaluation *result, lf_error *err)
{
    const lf_sums *sums = &scores->sums;
    double rows = (double)sums->rows;
    result->rows = sums->rows;
    result->loss = lf_sums_loss(sums);
    result->accuracy = lf_sums_accuracy(sums, scores->loss);
    result->mse = result->mae = result->r2 = result->top_k_accuracy = result->macro_f1 = (double)NAN;
    if (!scores->confusion) {
        result->mse = scores->squared / rows;
        result->mae = scores->absolute / rows;
        return true;
    }
    result->classes = scores->classes;
    result->top_k = scores->top_k;
    result->top_k_accuracy = (double)scores->top / rows;
    bool ok = rate_classes(scores, result);
    if (!ok)
        lf_error_set(err, LF_ENOMEM, "scores of %u classes: out of memory", scores->classes);
    result->confusion = scores->confusion;
    scores->confusion = NULL;
    return ok;
}

void lf_scores_destroy(lf_scores *scores)
{
    free(scores->confusion);
}

void lf_evaluation_finish(lf_evaluation *result)
{
    free(result->confusion);
    free(result->precision);
    free(result->recall);
    free(result->f1);
    result->confusion = NULL;
    result->precision = result->recall = result->f1 = NULL;
}

enum { SPREAD_ROWS = 4096 };

typedef struct spread {
    double *mean, *square; // [outputs]: of the rows so far, and their squared distances from it
    uint64_t rows;
} spread;

// Welford 1962: stable whatever the mean.
static void add_target(spread *s, uint32_t outputs, bool numbers, const void *targets, size_t row)
{
    s->rows++;
    for (uint32_t j = 0; j < outputs; j++) {
        size_t at = row * outputs + j;
        double value = numbers ? (double)((const uint32_t *)targets)[at] : (double)((const float *)targets)[at];
        double before = value - s->mean[j];
        s->mean[j] += before / (double)s->rows;
        s->square[j] += before * (value - s->mean[j]);
    }
}

bool lf_targets_spread(lf_dataset *data, lf_part_id id, double *result, lf_error *err)
{
    const lf_part *part = lf_dataset_part(data, id, err);
    uint32_t outputs = part->outputs;
    spread s = { calloc(outputs, sizeof(double)), calloc(outputs, sizeof(double)), 0 };
    void *targets = calloc((size_t)SPREAD_ROWS * outputs, sizeof(float));
    bool ok = s.mean && s.square && targets;
    if (!ok)
        lf_error_set(err, LF_ENOMEM, "%s: out of memory for %d rows", part->y_path, SPREAD_ROWS);
    for (uint64_t first = 0; ok && first < part->rows; first += SPREAD_ROWS) {
        size_t count = part->rows - first < SPREAD_ROWS ? part->rows - first : SPREAD_ROWS;
        ok = lf_dataset_read_span(data, id, first, count, &(lf_rows_out){ .y = targets }, err);
        for (size_t i = 0; ok && i < count; i++)
            add_target(&s, outputs, part->target == LF_TARGET_CLASSES, targets, i);
    }
    *result = 0;
    for (uint32_t j = 0; ok && j < outputs; j++)
        *result += s.square[j] / outputs;
    free(s.mean);
    free(s.square);
    free(targets);
    return ok;
}
