// What ggml-cuda's common.cuh names of cuBLAS, so that flash attention can be compiled where there is none. Nothing is linked.
#pragma once

typedef struct cublasContext * cublasHandle_t;

enum cublasStatus_t { CUBLAS_STATUS_SUCCESS };

enum cublasMath_t { CUBLAS_TF32_TENSOR_OP_MATH };

cublasStatus_t cublasCreate(cublasHandle_t *);
cublasStatus_t cublasDestroy(cublasHandle_t);
cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t);
cublasStatus_t cublasSetStream(cublasHandle_t, cudaStream_t);
const char *   cublasGetStatusString(cublasStatus_t);
