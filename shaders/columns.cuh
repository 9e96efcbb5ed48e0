// Work on columns of a matrix (rows, outputs): a block is (LF_COLUMN_LANES, bands) threads, bands a power of two. A thread
// has one column and some of the rows.
#ifndef LF_COLUMNS_CUH
#define LF_COLUMNS_CUH

#include "common.cuh"

// The thread's column; may lie past the edge.
LF_INLINE unsigned lf_column()
{
    return blockIdx.y * LF_COLUMN_LANES + threadIdx.x;
}

// The same, inside: threads past the edge repeat the last column, for all threads of a block take part in its sums.
LF_INLINE unsigned lf_column_inside(const lf_call &call)
{
    return lf_column() < call.outputs ? lf_column() : call.outputs - 1;
}

// Whether the thread stores what its column's bands have summed.
LF_INLINE bool lf_stores_column(const lf_call &call)
{
    return threadIdx.y == 0 && lf_column() < call.outputs;
}

// Sums: band b takes the rows b, b + bands, …, and this adds up the bands along a tree of fixed shape. The sum is given
// to every band. All threads of the block take part.
LF_INLINE float lf_sum_bands(float value)
{
    float *partial = lf_shared();
    unsigned band = threadIdx.y, at = band * LF_COLUMN_LANES + threadIdx.x;
    __syncthreads();
    partial[at] = value;
    for (unsigned reach = blockDim.y / 2; reach > 0; reach /= 2) {
        __syncthreads();
        if (band < reach)
            partial[at] += partial[at + reach * LF_COLUMN_LANES];
    }
    __syncthreads();
    return partial[threadIdx.x];
}

// Elementwise work: the thread's first row. The next ones follow blockDim.y apart, LF_COLUMN_ROWS in all.
LF_INLINE unsigned lf_first_row()
{
    return blockIdx.x * blockDim.y * LF_COLUMN_ROWS + threadIdx.y;
}

LF_INLINE unsigned lf_rows_end(const lf_call &call)
{
    unsigned end = (blockIdx.x + 1) * blockDim.y * LF_COLUMN_ROWS;
    return end < call.rows ? end : call.rows;
}

#endif
