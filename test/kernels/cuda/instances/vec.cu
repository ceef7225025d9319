#include "fattn-vec.cuh"

DECL_FATTN_VEC_CASE(128, GGML_TYPE_F16, GGML_TYPE_F16);
