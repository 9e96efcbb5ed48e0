// The matrix product that linear, linear_dx and linear_dw share:
//   sum (rows, columns) = left (rows, depth) · right (depth, columns)
// LAYOUT says how the factors lie in memory:
//   LF_PLAIN        left (rows, depth), right (depth, columns)
//   LF_RIGHT_TURNED left (rows, depth), right (columns, depth)
//   LF_LEFT_TURNED  left (depth, rows), right (depth, columns)
// A block owns TILE x TILE of the result. Its threads are SPLIT groups; a group takes every SPLIT-th slice of SLICE of the
// depth through shared memory, and a thread of it sums SIDE x SIDE elements in registers, over the depth in order. At the
// end the groups' sums are added in the groups' order. The next slices are loaded into registers while the present ones
// are multiplied. What lies past an edge is zero.
#ifndef LF_PRODUCT_CUH
#define LF_PRODUCT_CUH

#include "activation.cuh"

enum lf_layout { LF_PLAIN, LF_RIGHT_TURNED, LF_LEFT_TURNED };

struct lf_small_cut { // few rows or columns: fills the device with blocks, and these with threads
    static constexpr unsigned TILE = LF_SMALL_TILE, SIDE = 2, SLICE = 16, SPLIT = 8;
    static constexpr unsigned THREADS = LF_SMALL_THREADS, SHARED = LF_SMALL_SHARED;
};
struct lf_middle_cut {
    static constexpr unsigned TILE = LF_MIDDLE_TILE, SIDE = 4, SLICE = 16, SPLIT = 1;
    static constexpr unsigned THREADS = LF_MIDDLE_THREADS, SHARED = LF_MIDDLE_SHARED;
};
struct lf_wide_cut {
    static constexpr unsigned TILE = LF_WIDE_TILE, SIDE = 8, SLICE = 8, SPLIT = 1;
    static constexpr unsigned THREADS = LF_WIDE_THREADS, SHARED = LF_WIDE_SHARED;
};

template <class S> struct lf_tile {
    static constexpr unsigned ACROSS = S::TILE / S::SIDE; // threads of a group along a side of the tile
    static constexpr unsigned GROUP = ACROSS * ACROSS;
    static constexpr unsigned NEXT = S::SIDE < 4 ? S::SIDE : 4; // neighbours among a thread's rows, and its columns
    static constexpr unsigned LINE = S::TILE + 4; // of a slice in shared memory; the gap is for turned factors' stores
    static constexpr unsigned SLICE_WORDS = S::SLICE * LINE;
    static_assert(GROUP * 4 == S::TILE * S::SLICE, "a thread loads four elements of a slice of a factor");
    static_assert(GROUP * S::SPLIT == S::THREADS && 8 * S::SPLIT * SLICE_WORDS == S::SHARED, "as it is launched");
    static_assert((S::SPLIT - 1) * S::TILE * S::TILE * 4 <= S::SHARED, "the groups' sums fit");
};

// A factor: a matrix (lines, width) in memory.
struct lf_factor {
    const float *data;
    unsigned lines, width;
};

// Elements at … at + 3 of a line.
LF_INLINE lf_quad lf_load_four(const lf_factor &f, unsigned line, unsigned at)
{
    lf_quad value = {};
    const float *from = f.data + (size_t)line * f.width + at;
    if (line < f.lines && f.width % 4 == 0) {
        if (at < f.width)
            value = *(const lf_quad *)from;
    } else if (line < f.lines) {
        for (unsigned i = 0; i < 4; i++)
            if (at + i < f.width)
                value.at[i] = from[i];
    }
    return value;
}

// Where the thread's part of a slice stands `along` the depth and `across` it. ALONG: the factor's lines run along the
// depth, so that it is turned on its way into shared memory.
template <class S, bool ALONG> struct lf_part {
    unsigned along, across;
    lf_quad value;

    LF_METHOD lf_part(unsigned member)
    {
        const unsigned LINE = (ALONG ? S::SLICE : S::TILE) / 4; // parts of a line of memory
        along = ALONG ? member % LINE * 4 : member / LINE;
        across = ALONG ? member / LINE : member % LINE * 4;
    }

    LF_METHOD void load(const lf_factor &f, unsigned deep, unsigned first)
    {
        value = ALONG ? lf_load_four(f, first + across, deep + along) : lf_load_four(f, deep + along, first + across);
    }

    LF_METHOD void keep(float *slice) const
    {
        const unsigned LINE = lf_tile<S>::LINE;
        if (ALONG)
            for (unsigned k = 0; k < 4; k++)
                slice[(along + k) * LINE + across] = value.at[k];
        else
            *(lf_quad *)(slice + along * LINE + across) = value;
    }
};

// Which row or column of the tile is number `i` of the thread's, where the thread is number `place` along that side.
template <class S> LF_INLINE unsigned lf_side(unsigned place, unsigned i)
{
    const unsigned NEXT = lf_tile<S>::NEXT;
    return i / NEXT * (lf_tile<S>::ACROSS * NEXT) + place * NEXT + i % NEXT;
}

// The thread's elements along a side, of one line of a slice.
template <class S> struct lf_edge {
    struct alignas(4 * lf_tile<S>::NEXT) run {
        float at[lf_tile<S>::NEXT];
    } runs[S::SIDE / lf_tile<S>::NEXT];

    LF_METHOD lf_edge(const float *line, unsigned place)
    {
LF_UNROLL
        for (unsigned i = 0; i < S::SIDE; i += lf_tile<S>::NEXT)
            runs[i / lf_tile<S>::NEXT] = *(const run *)(line + lf_side<S>(place, i));
    }

    LF_METHOD float at(unsigned i) const { return runs[i / lf_tile<S>::NEXT].at[i % lf_tile<S>::NEXT]; }
};

// What a thread has summed: elements of the tile, and columns of `right`.
template <class S> struct lf_sums {
    float of[S::SIDE * S::SIDE], column[S::SIDE];
};

template <class S, bool COLUMNS>
LF_INLINE void lf_multiply_slices(const float *left, const float *right, unsigned down, unsigned across, lf_sums<S> &sum)
{
LF_UNROLL
    for (unsigned k = 0; k < S::SLICE; k++) {
        lf_edge<S> a(left + k * lf_tile<S>::LINE, down), b(right + k * lf_tile<S>::LINE, across);
LF_UNROLL
        for (unsigned j = 0; j < S::SIDE; j++) {
LF_UNROLL
            for (unsigned i = 0; i < S::SIDE; i++)
                sum.of[i * S::SIDE + j] += a.at(i) * b.at(j);
            if (COLUMNS)
                sum.column[j] += b.at(j);
        }
    }
}

// Adds up the groups' numbers for the threads of the first. All threads of the block take part.
template <class S, unsigned COUNT> LF_INLINE void lf_add_groups(unsigned group, unsigned member, float *values)
{
    const unsigned GROUP = lf_tile<S>::GROUP;
    float *partial = lf_shared();
    __syncthreads();
    if (group > 0)
LF_UNROLL
        for (unsigned i = 0; i < COUNT; i++)
            partial[((group - 1) * COUNT + i) * GROUP + member] = values[i];
    __syncthreads();
    if (group == 0)
        for (unsigned g = 0; g + 1 < S::SPLIT; g++)
LF_UNROLL
            for (unsigned i = 0; i < COUNT; i++)
                values[i] += partial[(g * COUNT + i) * GROUP + member];
}

// The product. FINISH says what becomes of the sums: store(call, row, column, sum), and where COLUMNS is true
// store_column(call, column, sum of that column of `right`).
template <class S, lf_layout LAYOUT, class FINISH>
LF_INLINE void lf_product(const lf_call &call, const lf_factor &left, const lf_factor &right, unsigned rows,
                          unsigned columns, unsigned depth)
{
    typedef lf_tile<S> T;
    unsigned group = threadIdx.x / T::GROUP, member = threadIdx.x % T::GROUP;
    unsigned down = member / T::ACROSS, across = member % T::ACROSS;
    unsigned first_row = blockIdx.x * S::TILE, first_column = blockIdx.y * S::TILE;
    float *left_slice = lf_shared() + group * 2 * T::SLICE_WORDS, *right_slice = left_slice + T::SLICE_WORDS;
    lf_part<S, LAYOUT != LF_LEFT_TURNED> left_part(member);
    lf_part<S, LAYOUT == LF_RIGHT_TURNED> right_part(member);
    lf_sums<S> sum = {};

    left_part.load(left, group * S::SLICE, first_row);
    right_part.load(right, group * S::SLICE, first_column);
    for (unsigned k = 0; k < depth; k += S::SPLIT * S::SLICE) {
        __syncthreads();
        left_part.keep(left_slice);
        right_part.keep(right_slice);
        __syncthreads();
        unsigned next = k + (S::SPLIT + group) * S::SLICE;
        left_part.load(left, next, first_row);
        right_part.load(right, next, first_column);
        lf_multiply_slices<S, FINISH::COLUMNS>(left_slice, right_slice, down, across, sum);
    }
    if (S::SPLIT > 1)
        lf_add_groups<S, S::SIDE * S::SIDE>(group, member, sum.of);
    if (S::SPLIT > 1 && FINISH::COLUMNS)
        lf_add_groups<S, S::SIDE>(group, member, sum.column);
    if (group > 0)
        return;

LF_UNROLL
    for (unsigned j = 0; j < S::SIDE; j++) {
        unsigned column = first_column + lf_side<S>(across, j);
        if (column >= columns)
            continue;
LF_UNROLL
        for (unsigned i = 0; i < S::SIDE; i++) {
            unsigned row = first_row + lf_side<S>(down, i);
            if (row < rows)
                FINISH::store(call, row, column, sum.of[i * S::SIDE + j]);
        }
        if constexpr (FINISH::COLUMNS)
            if (first_row == 0 && down == 0)
                FINISH::store_column(call, column, sum.column[j]);
    }
}

// The three kernels of an operation, from a template over the way it is cut.
#define LF_PRODUCT_KERNELS(name)                                                         \
    LF_KERNEL(name, LF_SMALL_THREADS) { lf_##name##_cut<lf_small_cut>(call); }               \
    LF_KERNEL(name##_middle, LF_MIDDLE_THREADS) { lf_##name##_cut<lf_middle_cut>(call); }    \
    LF_KERNEL(name##_wide, LF_WIDE_THREADS) { lf_##name##_cut<lf_wide_cut>(call); }

#endif
