// The metrics of a row of the batch, for includers that declare before: the operand `metrics`, `batch`, the rows of a step
// that it holds, and `start`, which of them is the first of those that are numbered here.
uint lf_metrics_at(uint position, uint row)
{
    return (position * batch + start + row) * LF_METRIC_COUNT;
}

// The row's metrics; `others` are those that classes and values have by turns. Rows past the batch's count nothing.
void lf_store_metrics(uint position, uint row, bool counts, float loss, float weight, vec3 others)
{
    uint at = lf_metrics_at(position, row);
    LF_REPLACE(metrics, at + LF_METRIC_LOSS, counts ? weight * loss : 0);
    LF_REPLACE(metrics, at + LF_METRIC_WEIGHT, counts ? weight : 0);
    LF_REPLACE(metrics, at + 2, counts ? others.x : 0);
    LF_REPLACE(metrics, at + 3, counts ? others.y : 0);
    LF_REPLACE(metrics, at + 4, counts ? others.z : 0);
}
