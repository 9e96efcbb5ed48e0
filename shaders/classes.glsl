// What the losses over classes share: z (batch, outputs) are logits, label (batch) are class numbers.
LF_READ(0, z)
LF_READ_WORDS(1, label)
#include "loss.glsl"

// A row of logits beside its label.
struct lf_class_row {
    uint truth;     // the label
    float of_truth; // its logit
    float largest;  // logit
    float sum;      // of exp(logit - largest)
    float hit;      // 1: the label's logit is the largest and the first of its equals; 0 where a logit is NaN
};

// All invocations of the workgroup take part.
lf_class_row lf_class_row_at(uint row)
{
    uint from = row * outputs, lane = lf_lane(), truth = min(LF_LOAD(label, row), outputs - 1);
    float of_truth = LF_LOAD(z, from + truth);

    float largest = of_truth, beaten = of_truth == of_truth ? 0 : 1;
    for (uint i = lane; i < outputs; i += LANES) {
        float logit = LF_LOAD(z, from + i);
        largest = max(largest, logit);
        bool below = i < truth ? logit < of_truth : logit <= of_truth; // false if either is NaN
        beaten += below ? 0 : 1;
    }
    largest = lf_reduce_lanes(true, largest);
    beaten = lf_reduce_lanes(false, beaten);
    float sum = 0;
    for (uint i = lane; i < outputs; i += LANES)
        sum += exp(LF_LOAD(z, from + i) - largest);
    return lf_class_row(truth, of_truth, largest, lf_reduce_lanes(false, sum), beaten == 0 ? 1 : 0);
}

// logsumexp(z) - z[label]
float lf_cross_entropy(lf_class_row c)
{
    return c.largest - c.of_truth + log(c.sum);
}

// Its derivative by logit i, of value `logit`.
float lf_cross_entropy_slope(lf_class_row c, uint i, float logit)
{
    return exp(logit - c.largest) / c.sum - (i == c.truth ? 1 : 0);
}
