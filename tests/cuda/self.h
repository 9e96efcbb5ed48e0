// The kernels of self.cu.
#ifndef LF_CUDA_SELF_H
#define LF_CUDA_SELF_H

#include "call.h"

void self_index(const struct lf_call call);
void self_reverse(const struct lf_call call);
void self_shuffle(const struct lf_call call);
void self_grid_barrier(const struct lf_call call);
void self_missed_barrier(const struct lf_call call);
void self_two_barriers(const struct lf_call call);
void self_missing_lane(const struct lf_call call);
void self_divergent_shuffle(const struct lf_call call);
void self_race(const struct lf_call call);

#endif
