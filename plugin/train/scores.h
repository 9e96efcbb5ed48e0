// What an evaluation counts, beside loss and accuracy. evaluate.c calls this.
#ifndef LF_TRAIN_SCORES_H
#define LF_TRAIN_SCORES_H

#include "train/session.h"
#include "train/train.h"

typedef struct lf_scores {
    lf_loss loss;
    lf_sums sums;
    // classes
    uint32_t classes, top_k;
    uint64_t *confusion; // (classes, classes)
    uint64_t top;        // rows whose label is among the top_k
    // values
    double squared, absolute; // of means over a row's outputs
} lf_scores;

// `outputs` of the model. False: out of memory.
bool lf_scores_init(lf_scores *scores, lf_loss loss, uint32_t outputs, uint32_t top_k, lf_error *err);
void lf_scores_add(lf_scores *scores, const lf_piece *piece);
// Into the result, which takes over what it points to.
bool lf_scores_finish(lf_scores *scores, lf_evaluation *result, lf_error *err);
void lf_scores_destroy(lf_scores *scores);

// Sum over rows and outputs of the squared distance from the output's mean, divided by the outputs.
bool lf_targets_spread(lf_dataset *data, lf_part_id part, double *spread, lf_error *err);

#endif
