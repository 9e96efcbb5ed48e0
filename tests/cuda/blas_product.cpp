// One product of the stand-in for cuBLASLt, on the host. LAVAFLOW_STAND_IN_RELU_DROPS_NAN=1: its relu makes 0 of NaN,
// which the documentation allows.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>

#include "blas.h"

static uint64_t extent(uint64_t rows, uint64_t columns, uint64_t stride)
{
    return ((columns - 1) * stride + rows) * sizeof(float);
}

bool host_has(cublasLtEpilogue_t epilogue, cublasLtEpilogue_t part)
{
    return (epilogue & part) == part;
}

bool host_sums(cublasLtEpilogue_t epilogue)
{
    return epilogue == CUBLASLT_EPILOGUE_BGRADA || epilogue == CUBLASLT_EPILOGUE_BGRADB ||
           epilogue == CUBLASLT_EPILOGUE_DRELU_BGRAD;
}

// Eleven bits of significand, to nearest.
static float round_operand(float value, bool tf32)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (!tf32 || (bits & 0x7f800000) == 0x7f800000)
        return value;
    bits = (bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Packed, columns first, as it enters the product.
static std::vector<float> pack(const host_factor &factor, bool tf32)
{
    uint64_t rows = factor.turned ? factor.columns : factor.rows,
             columns = factor.turned ? factor.rows : factor.columns;
    std::vector<float> packed(rows * columns);
    for (uint64_t j = 0; j < columns; j++)
        for (uint64_t i = 0; i < rows; i++)
            packed[j * rows + i] =
                round_operand(factor.at[factor.turned ? i * factor.stride + j : j * factor.stride + i], tf32);
    return packed;
}

// Two halves of k, each in order, and then their sum.
static void multiply(const host_product &p, const std::vector<float> &a, const std::vector<float> &b)
{
    std::vector<float> halves(2 * p.m);
    for (uint64_t j = 0; j < p.n; j++) {
        std::fill(halves.begin(), halves.end(), 0.f);
        for (uint64_t l = 0; l < p.k; l++) {
            float *sum = halves.data() + (l < p.k / 2 ? 0 : p.m);
            const float *column = a.data() + l * p.m, factor = b[j * p.k + l];
            for (uint64_t i = 0; i < p.m; i++)
                sum[i] += column[i] * factor;
        }
        for (uint64_t i = 0; i < p.m; i++)
            p.d[j * p.d_stride + i] = halves[i] + halves[p.m + i];
    }
}

static void finish(const host_product &p)
{
    const cublasLtEpilogue_t e = p.how.epilogue;
    float *bias = (float *)p.how.bias;
    unsigned char *mask = (unsigned char *)p.how.mask;
    const bool keeps_nan = !getenv("LAVAFLOW_STAND_IN_RELU_DROPS_NAN");
    if (e == CUBLASLT_EPILOGUE_DRELU_BGRAD)
        std::fill(bias, bias + p.m, 0.f);
    for (uint64_t j = 0; j < p.n; j++)
        for (uint64_t i = 0; i < p.m; i++) {
            float *d = &p.d[j * p.d_stride + i];
            uint64_t bit = j * (uint64_t)p.how.mask_stride + i;
            unsigned char set = (unsigned char)(1u << bit % 8);
            if (host_has(e, CUBLASLT_EPILOGUE_BIAS))
                *d += bias[i];
            if (host_has(e, CUBLASLT_EPILOGUE_RELU_AUX))
                mask[bit / 8] = *d > 0 ? mask[bit / 8] | set : mask[bit / 8] & ~set;
            if (host_has(e, CUBLASLT_EPILOGUE_RELU))
                *d = *d > 0 || (keeps_nan && *d != *d) ? *d : 0;
            if (host_has(e, CUBLASLT_EPILOGUE_DRELU))
                *d = mask[bit / 8] & set ? *d : 0;
            if (e == CUBLASLT_EPILOGUE_DRELU_BGRAD)
                bias[i] += *d;
        }
}

// Sums of a factor over k.
static void sum_factor(const host_product &p, const std::vector<float> &packed, bool is_a)
{
    float *out = (float *)p.how.bias;
    uint64_t count = is_a ? p.m : p.n;
    for (uint64_t i = 0; i < count; i++) {
        float sum = 0;
        for (uint64_t l = 0; l < p.k; l++)
            sum += packed[is_a ? l * p.m + i : i * p.k + l];
        out[i] = sum;
    }
}

static bool is_there(const host_product &p, const void *at, uint64_t size)
{
    const host_memory *memory = host_find_memory((uint64_t)at, size);
    return memory && !memory->pinned && memory->context == p.context;
}

static bool is_all_there(const host_product &p)
{
    const cublasLtEpilogue_t e = p.how.epilogue;
    uint64_t bias = (e == CUBLASLT_EPILOGUE_BGRADB ? p.n : p.m) * sizeof(float);
    return is_there(p, p.a.at, extent(p.a.rows, p.a.columns, p.a.stride)) &&
           is_there(p, p.b.at, extent(p.b.rows, p.b.columns, p.b.stride)) &&
           is_there(p, p.d, extent(p.m, p.n, p.d_stride)) &&
           (!(host_has(e, CUBLASLT_EPILOGUE_BIAS) || host_sums(e)) || is_there(p, p.how.bias, bias)) &&
           (!(e & 128) || is_there(p, p.how.mask, (uint64_t)p.how.mask_stride * p.n / 8)) &&
           (!p.workspace || is_there(p, p.workspace, HOST_BLAS_WORKSPACE));
}

CUresult host_product_run(const host_product &p)
{
    if (!is_all_there(p)) {
        fprintf(stderr, "stand-in: cublasLtMatmul: an operand is no memory of its context\n");
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    }
    if (p.workspace)
        memset(p.workspace, 0xff, HOST_BLAS_WORKSPACE); // it is the product's alone
    bool tf32 = p.how.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    multiply(p, pack(p.a, tf32), pack(p.b, tf32));
    finish(p);
    if (p.how.epilogue == CUBLASLT_EPILOGUE_BGRADA)
        sum_factor(p, pack(p.a, false), true);
    if (p.how.epilogue == CUBLASLT_EPILOGUE_BGRADB)
        sum_factor(p, pack(p.b, false), false);
    return CUDA_SUCCESS;
}
