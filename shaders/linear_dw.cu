// linear_dw: dkernel = xᵀ·dy, dbias = column sums of dy   x (rows, inputs), dy (rows, outputs), dkernel (inputs, outputs),
// dbias (outputs).
// One thread sums a square of elements of dkernel over the rows in order; see product.cuh. The blocks of the first inputs,
// which read all of dy on the way, also store its column sums.
#include "product.cuh"

struct lf_linear_dw_finish {
    static constexpr bool COLUMNS = true;

    LF_INLINE void store(const lf_call &call, unsigned row, unsigned column, float sum)
    {
        lf_out(call, 2)[(size_t)row * call.outputs + column] = sum;
    }

    LF_INLINE void store_column(const lf_call &call, unsigned column, float sum)
    {
        lf_out(call, 3)[column] = sum;
    }
};

template <class S> LF_INLINE void lf_linear_dw_cut(const lf_call &call)
{
    lf_factor x = { lf_in(call, 0), call.rows, call.inputs }, dy = { lf_in(call, 1), call.rows, call.outputs };
    lf_product<S, LF_LEFT_TURNED, lf_linear_dw_finish>(call, x, dy, call.inputs, call.outputs, call.rows);
}

LF_PRODUCT_KERNELS(linear_dw)
