// gather: x[i] = data[order[first + row + i]] * scale + offset, y[i] = targets[the same], for the operation's row i
// data (resident rows, inputs) as stored, targets (resident rows, target_width), scaling (2, inputs), order (positions),
// x (rows, inputs), y (rows, target_width). Rows past the schedule's are zero.
// The lanes of a row convert four neighbouring features at a time, and copy words of y. `lanes` may exceed a warp here.
#include "lanes.cuh"

enum { LF_DATA, LF_TARGETS, LF_SCALING, LF_ORDER, LF_GATHER_SCHEDULE, LF_X, LF_Y };

// Four neighbours as stored, read at once.
template <class T> struct alignas(4 * sizeof(T)) lf_stored_quad {
    T at[4];
};

template <class T> LF_INLINE void lf_convert_row(const lf_call &call, size_t resident, float *x)
{
    unsigned inputs = call.inputs;
    const T *data = lf_operand<const T>(call, LF_DATA) + resident * inputs;
    const float *scale = lf_in(call, LF_SCALING), *offset = scale + inputs;
    if (inputs % 4 == 0) {
        for (unsigned i = threadIdx.x; i < inputs / 4; i += blockDim.x) {
            lf_stored_quad<T> stored = ((const lf_stored_quad<T> *)data)[i];
            lf_quad times = ((const lf_quad *)scale)[i], plus = ((const lf_quad *)offset)[i], value;
            for (unsigned k = 0; k < 4; k++)
                value.at[k] = (float)stored.at[k] * times.at[k] + plus.at[k];
            ((lf_quad *)x)[i] = value;
        }
        return;
    }
    for (unsigned i = threadIdx.x; i < inputs; i += blockDim.x)
        x[i] = (float)data[i] * scale[i] + offset[i];
}

LF_INLINE void lf_convert(const lf_call &call, size_t resident, float *x)
{
    switch (call.stored) {
    case LF_STORED_U8: lf_convert_row<uint8_t>(call, resident, x); break;
    case LF_STORED_I8: lf_convert_row<int8_t>(call, resident, x); break;
    case LF_STORED_U16: lf_convert_row<uint16_t>(call, resident, x); break;
    case LF_STORED_I16: lf_convert_row<int16_t>(call, resident, x); break;
    case LF_STORED_U32: lf_convert_row<uint32_t>(call, resident, x); break;
    case LF_STORED_I32: lf_convert_row<int32_t>(call, resident, x); break;
    case LF_STORED_F32: lf_convert_row<float>(call, resident, x); break;
    }
}

LF_KERNEL(gather, LF_LANES_THREADS)
{
    unsigned row = lf_row(), width = call.target_width;
    if (row >= call.rows)
        return;
    lf_schedule_row now = lf_schedule_now(call, LF_GATHER_SCHEDULE).row;
    bool counts = row < lf_valid_rows(call, now.rows);
    size_t resident = counts ? lf_operand<const unsigned>(call, LF_ORDER)[now.first + call.row + row] : 0;
    float *x = lf_out(call, LF_X) + (size_t)row * call.inputs;
    if (counts)
        lf_convert(call, resident, x);
    else
        for (unsigned i = threadIdx.x; i < call.inputs; i += blockDim.x)
            x[i] = 0;
    const unsigned *targets = lf_operand<const unsigned>(call, LF_TARGETS) + resident * width;
    unsigned *y = lf_operand<unsigned>(call, LF_Y) + (size_t)row * width;
    for (unsigned i = threadIdx.x; i < width; i += blockDim.x)
        y[i] = counts ? targets[i] : 0;
}
