// Work on columns of a matrix (batch, width): a workgroup is LANES x BANDS invocations, lanes along the columns. An
// invocation owns four neighbouring columns and some of the rows. Columns past the edge repeat the last one, and what
// comes of them is not stored.
layout(local_size_y_id = 1) in;
layout(constant_id = 2) const bool QUADS = false; // the width is a multiple of four

// The first of this invocation's columns; may lie past the edge.
uint lf_column()
{
    return (gl_WorkGroupID.x * gl_WorkGroupSize.x + gl_LocalInvocationID.x) * 4;
}

// The same, inside a matrix of that width.
uint lf_column_inside(uint width)
{
    return min(lf_column(), QUADS ? width - 4 : width - 1);
}

#define LF_LOAD_COLUMNS(name, row, column, width) LF_LOAD_QUAD(QUADS, name, (row) * (width) + (column), column, width)
#define LF_STORE_COLUMNS(name, row, column, width, value) \
    LF_STORE_QUAD(QUADS, name, (row) * (width) + (column), column, width, value)

#ifdef LF_COLUMN_SUMS
// Sums: band b takes the rows b, b + BANDS, …, and the bands add up along a tree of fixed shape; with one band, no memory
// is shared.
shared vec4 lf_partial[gl_WorkGroupSize.x * gl_WorkGroupSize.y];

// For every band, the sum of all bands. All invocations of the workgroup take part.
vec4 lf_sum_bands(vec4 value)
{
    const uint LANES = gl_WorkGroupSize.x, BANDS = gl_WorkGroupSize.y; // bands: a power of two
    if (BANDS == 1)
        return value;
    uint lane = gl_LocalInvocationID.x, band = gl_LocalInvocationID.y, at = band * LANES + lane;
    barrier();
    lf_partial[at] = value;
    for (uint reach = BANDS / 2; reach > 0; reach /= 2) {
        barrier();
        if (band < reach)
            lf_partial[at] += lf_partial[at + reach * LANES];
    }
    barrier();
    return lf_partial[lane];
}
#else
// Elementwise work: an invocation takes ROWS neighbouring rows, from this one on.
layout(constant_id = 3) const uint ROWS = 4;

uint lf_first_row()
{
    return (gl_WorkGroupID.y * gl_WorkGroupSize.y + gl_LocalInvocationID.y) * ROWS;
}
#endif
