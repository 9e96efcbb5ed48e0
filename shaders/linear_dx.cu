// linear_dx: dx = (dy·kernelᵀ) ⊙ act'(saved)   dy (rows, outputs), kernel (inputs, outputs), saved and dx (rows, inputs);
// act is the activation of the layer before, and nothing is saved where there is none.
// One thread sums a square of elements of dx; see product.cuh.
#include "product.cuh"

struct lf_linear_dx_finish {
    static constexpr bool COLUMNS = false;

    LF_INLINE void store(const lf_call &call, unsigned row, unsigned column, float sum)
    {
        size_t at = (size_t)row * call.inputs + column;
        if (call.activation != LF_ACT_NONE)
            sum *= lf_slope(call.activation, call.alpha, lf_in(call, 2)[at]);
        lf_out(call, 3)[at] = sum;
    }
};

template <class S> LF_INLINE void lf_linear_dx_cut(const lf_call &call)
{
    lf_factor dy = { lf_in(call, 0), call.rows, call.outputs }, kernel = { lf_in(call, 1), call.inputs, call.outputs };
    lf_product<S, LF_RIGHT_TURNED, lf_linear_dx_finish>(call, dy, kernel, call.rows, call.inputs, call.outputs);
}

LF_PRODUCT_KERNELS(linear_dx)
