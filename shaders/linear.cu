// linear: z = x·kernel + bias, y = act(z)   x (rows, inputs), kernel (inputs, outputs), bias (outputs), y and z (rows,
// outputs); z is stored where the activation's derivative needs it.
// One thread sums a square of elements of y; see product.cuh.
#include "product.cuh"

struct lf_linear_finish {
    static constexpr bool COLUMNS = false;

    LF_INLINE void store(const lf_call &call, unsigned row, unsigned column, float sum)
    {
        size_t at = (size_t)row * call.outputs + column;
        float z = sum + lf_in(call, 2)[column];
        if (call.operand[4])
            lf_out(call, 4)[at] = z;
        lf_out(call, 3)[at] = lf_activate(call.activation, call.alpha, z);
    }
};

template <class S> LF_INLINE void lf_linear_cut(const lf_call &call)
{
    lf_factor x = { lf_in(call, 0), call.rows, call.inputs }, kernel = { lf_in(call, 1), call.inputs, call.outputs };
    lf_product<S, LF_PLAIN, lf_linear_finish>(call, x, kernel, call.rows, call.outputs, call.inputs);
}

LF_PRODUCT_KERNELS(linear)
