#include "fattn-mma-f16.cuh"

DECL_FATTN_MMA_F16_CASE(128, 128, 8, 1);
DECL_FATTN_MMA_F16_CASE(128, 128, 8, 4);
