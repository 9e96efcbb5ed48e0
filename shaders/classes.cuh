// What the losses over classes share: z (rows, outputs) are logits, target (rows) are class numbers.
#ifndef LF_CLASSES_CUH
#define LF_CLASSES_CUH

#include "loss.cuh"

// A row of logits beside its label.
struct lf_class_row {
    unsigned truth; // the label
    float of_truth; // its logit
    float largest;  // logit, NaNs passed over
    float sum;      // of exp(logit - largest)
    float mean;     // of the logits, where labels are smoothed
    unsigned given; // number of the largest logit, the first of equals
    float rank;     // logits that beat the label's: larger, or equal and before it, or either is NaN
};

// All threads of the warp take part.
LF_INLINE lf_class_row lf_class_row_at(const lf_call &call, const lf_loss_row &row, unsigned label)
{
    unsigned last = call.outputs - 1, lane = threadIdx.x, lanes = blockDim.x, first = lane;
    lf_class_row c = {};
    c.truth = label < last ? label : last;
    c.of_truth = row.z[c.truth];
    c.largest = -3.402823466e38f; // below every logit
    for (unsigned i = lane; i <= last; i += lanes) {
        float logit = row.z[i];
        bool above = logit > c.largest; // false if it is NaN
        first = above ? i : first;
        c.largest = above ? logit : c.largest;
        bool below = i < c.truth ? logit < c.of_truth : logit <= c.of_truth; // false if either is NaN
        c.rank += below ? 0 : 1; // the label itself too, if it is NaN
        c.mean += logit;
    }
    float largest = lf_max_lanes(c.largest);
    c.given = lf_min_lanes(c.largest == largest && first < last ? first : last);
    c.largest = largest;
    c.rank = lf_sum_lanes(c.rank);
    for (unsigned i = lane; i <= last; i += lanes)
        c.sum += expf(row.z[i] - largest);
    c.sum = lf_sum_lanes(c.sum);
    c.mean = lf_sum_lanes(c.mean) / call.outputs;
    return c;
}

LF_INLINE void lf_store_class_metrics(const lf_loss_row &row, const lf_class_row &c, float loss)
{
    lf_store_metrics(row, loss, (float)c.truth, (float)c.given, c.rank);
}

// logsumexp(z) - (1 - s) z[label] - s mean(z), s: label_smoothing
LF_INLINE float lf_cross_entropy(const lf_class_row &c, float smoothing)
{
    float to_truth = c.largest - c.of_truth;
    if (smoothing > 0)
        to_truth = (1 - smoothing) * to_truth + smoothing * (c.largest - c.mean);
    return to_truth + logf(c.sum);
}

// Its derivative by logit i, of value `logit`.
LF_INLINE float lf_cross_entropy_slope(const lf_call &call, const lf_class_row &c, unsigned i, float logit)
{
    float smoothing = call.label_smoothing;
    float target = (i == c.truth ? 1 - smoothing : 0) + smoothing / call.outputs;
    return expf(logit - c.largest) / c.sum - target;
}

#endif
