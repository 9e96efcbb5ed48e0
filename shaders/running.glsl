// How the running statistics of batch_norm move towards those of a batch.
vec4 lf_moved(vec4 running, vec4 now, float momentum)
{
    return vec4(1 - momentum) * running + momentum * now;
}

// The unbiased variance of so many rows, from their squares about the mean; the biased one of a single row.
vec4 lf_unbiased(vec4 squares, uint rows)
{
    return squares / max(rows - 1, 1u);
}
