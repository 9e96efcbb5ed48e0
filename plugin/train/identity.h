// What makes a training the one that a checkpoint belongs to. train.c calls this.
#ifndef LF_TRAIN_IDENTITY_H
#define LF_TRAIN_IDENTITY_H

#include "io/dataset.h"
#include "train/train.h"

// Writes the data (by a digest of rows spread over the part), and every option that changes the weights, as text.
bool lf_train_identity(const lf_train_params *params, const lf_part *part, const lf_span *span, uint32_t shards,
                       char *text, size_t size, lf_error *err);

// Where the first option that differs begins in two such texts.
size_t lf_train_options_difference(const char *a, const char *b);

#endif
