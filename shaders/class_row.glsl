// A row of logits against its label, for includers that declare before: `outputs`, `label_smoothing`, lanes.glsl, and where
// the numbers stand: lf_logit(row, number of the class) and lf_label(row).
struct lf_class_row {
    uint truth;     // the label
    float of_truth; // its logit
    float largest;  // logit, NaNs passed over
    float sum;      // of exp(logit - largest)
    float mean;     // of the logits, where labels are smoothed
    float given;    // number of the largest logit, the first of equals
    float rank;     // logits that beat the label's: larger, or equal and before it, or either is NaN
};

// All invocations of the workgroup take part.
lf_class_row lf_class_row_at(uint row)
{
    const float NONE = -3.402823466e38; // below every logit
    uint lane = lf_lane(), truth = min(lf_label(row), outputs - 1), first = lane;
    float of_truth = lf_logit(row, truth);

    float largest = NONE, beaten = 0, mean = 0;
    for (uint i = lane; i < outputs; i += LANES) {
        float logit = lf_logit(row, i);
        bool above = logit > largest; // false if it is NaN
        first = above ? i : first;
        largest = above ? logit : largest;
        bool below = i < truth ? logit < of_truth : logit <= of_truth; // false if either is NaN
        beaten += below ? 0 : 1; // the label itself too, if it is NaN
        mean += logit;
    }
    if (LANES > 1) {
        float top = lf_reduce_lanes(true, largest);
        first = uint(-lf_reduce_lanes(true, largest == top && first < outputs ? -float(first) : -float(outputs - 1)));
        largest = top;
    }
    beaten = lf_reduce_lanes(false, beaten);
    float sum = 0;
    for (uint i = lane; i < outputs; i += LANES)
        sum += exp(lf_logit(row, i) - largest);
    sum = lf_reduce_lanes(false, sum);
    if (label_smoothing > 0)
        mean = lf_reduce_lanes(false, mean) / outputs;
    return lf_class_row(truth, of_truth, largest, sum, mean, float(min(first, outputs - 1)), beaten);
}

// logsumexp(z) - (1 - s) z[label] - s mean(z), s: label_smoothing
float lf_cross_entropy(lf_class_row c)
{
    float to_truth = c.largest - c.of_truth;
    if (label_smoothing > 0)
        to_truth = (1 - label_smoothing) * to_truth + label_smoothing * (c.largest - c.mean);
    return to_truth + log(c.sum);
}

// Its derivative by logit i, of value `logit`.
float lf_cross_entropy_slope(lf_class_row c, uint i, float logit)
{
    float target = (i == c.truth ? 1 - label_smoothing : 0) + label_smoothing / outputs;
    return exp(logit - c.largest) / c.sum - target;
}
