// Products of the stand-in for cuBLASLt.
#ifndef LF_CUDA_BLAS_H
#define LF_CUDA_BLAS_H

#include <cublasLt.h>

#include "stand_in.h"

enum { HOST_BLAS_WORKSPACE = 1 << 20 };

struct host_description {
    cublasComputeType_t compute;
    cudaDataType_t scale;
    cublasOperation_t turn_a, turn_b;
    cublasLtEpilogue_t epilogue;
    void *bias, *mask;
    int64_t mask_stride;
};

// D (m, n) = op(A) (m, k) · op(B) (k, n), columns first.
struct host_factor {
    const float *at;
    uint64_t rows, columns, stride; // as they lie in memory
    bool turned;
};

struct host_product {
    uint64_t m, n, k;
    host_factor a, b;
    float *d;
    uint64_t d_stride;
    host_description how;
    unsigned char *workspace;
    uint64_t context;
};

// Whether an epilogue has all that another one has.
bool host_has(cublasLtEpilogue_t epilogue, cublasLtEpilogue_t part);
// Whether it writes sums where a bias would be.
bool host_sums(cublasLtEpilogue_t epilogue);

CUresult host_product_run(const host_product &product);

#endif
