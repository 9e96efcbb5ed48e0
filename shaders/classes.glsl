// What the losses over classes share: z (batch, outputs) are logits, label (batch) are class numbers.
LF_READ(0, z)
LF_READ_WORDS(1, label)
#include "loss.glsl"

float lf_logit(uint row, uint number)
{
    return LF_LOAD(z, row * outputs + number);
}

uint lf_label(uint row)
{
    return LF_LOAD(label, row);
}

#include "class_row.glsl"

void lf_store_class_metrics(uint position, uint row, bool counts, float loss, lf_class_row c)
{
    lf_store_metrics(position, row, counts, loss, lf_weight(row), vec3(float(c.truth), c.given, c.rank));
}
