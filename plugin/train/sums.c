// What a piece's rows come to.
#include <math.h>

#include "abi.h"
#include "train/session.h"

lf_sums lf_piece_step_sums(const lf_piece *piece, uint32_t step)
{
    uint32_t left = piece->rows - step * piece->batch;
    lf_sums sums = { .rows = left < piece->batch ? left : piece->batch };
    bool classes = lf_loss_of_classes(piece->loss);
    const float *row = piece->metrics + (size_t)step * piece->stride * LF_METRIC_COUNT;
    for (uint64_t i = 0; i < sums.rows; i++, row += LF_METRIC_COUNT) {
        sums.loss += (double)row[LF_METRIC_LOSS];
        sums.weight += (double)row[LF_METRIC_WEIGHT];
        sums.right += classes ? row[LF_METRIC_RANK] == 0 : 1 - (double)row[LF_METRIC_WRONG];
    }
    return sums;
}

void lf_sums_add(lf_sums *sums, const lf_sums *more)
{
    sums->loss += more->loss;
    sums->weight += more->weight;
    sums->right += more->right;
    sums->rows += more->rows;
}

void lf_piece_add(const lf_piece *piece, lf_sums *sums)
{
    for (uint32_t i = 0; i < piece->steps; i++) {
        lf_sums step = lf_piece_step_sums(piece, i);
        lf_sums_add(sums, &step);
    }
}

double lf_sums_loss(const lf_sums *sums)
{
    return sums->weight == 0 && sums->loss == 0 ? 0 : sums->loss / sums->weight;
}

double lf_sums_accuracy(const lf_sums *sums, lf_loss loss)
{
    return lf_loss_has_accuracy(loss) ? sums->right / (double)sums->rows : (double)NAN;
}
