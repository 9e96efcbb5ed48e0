// cuBLASLt, opened at run time where it is found: one product at a time becomes a graph. products.c says which.
//
// cuBLASLt counts columns first: a row-major matrix is its own transpose there.
#ifndef LF_CUDA_LIBRARY_H
#define LF_CUDA_LIBRARY_H

#include "cuda/internal.h"

// What is done to a product on its way to memory.
typedef enum cu_epilogue {
    CU_EPILOGUE_NONE,
    CU_EPILOGUE_BIAS,        // + bias
    CU_EPILOGUE_RELU,        // max(… + bias, 0)
    CU_EPILOGUE_RELU_MASK,   // the same; and writes the mask of what is above 0
    CU_EPILOGUE_MASKED,      // 0 where the mask, which it reads, says so
    CU_EPILOGUE_MASKED_SUMS, // the same; and writes bias = sums of D along n
    CU_EPILOGUE_A_SUMS,      // D as it is; and writes bias = sums of A along k
    CU_EPILOGUE_COUNT
} cu_epilogue;

// D (m, n) = A (m, k) · B (k, n), columns first.
typedef struct cu_product {
    uint64_t a, b, d;    // addresses, multiples of 256
    uint64_t bias, mask; // likewise; not looked at where the epilogue has no use for them
    uint32_t m, n, k;
    bool a_turned, b_turned; // lies in memory as its transpose
    bool tf32;               // operands may be rounded to 11 bits
    cu_epilogue epilogue;
} cu_product;

// Bytes of the mask of D (m, n), a multiple of 256.
size_t cu_mask_bytes(uint32_t m, uint32_t n);

// "cuBLASLt 13.1.0", or "no cuBLASLt". Opens it, once a process. Any thread.
const char *cu_library_version(void);

// Gives the device its handle and its workspace, once. False: the device has no memory for them, or has failed. True
// without dev->library: there is no cuBLASLt, or it does not start; the log says why.
bool cu_library_open(cu_device *dev, lf_error *err);
void cu_library_destroy(cu_library *library);

// Whether the epilogues with a relu do as our kernels do.
bool cu_library_has_relu(const cu_library *library);

// The product as a graph to put into others, which the caller destroys; `name` is for the log, which gets the
// algorithm. All of a device share one workspace, so no two may run at the same time. *graph NULL: the library refuses.
// False: the device has failed.
bool cu_library_capture(cu_device *dev, const char *name, const cu_product *what, CUgraph *graph, lf_error *err);

#endif
