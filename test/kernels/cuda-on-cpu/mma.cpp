#include "families.h"

#include "fattn-mma-f16.cuh"

template <int d_k, int d_v, int ncols1, int ncols2>
static kernel_instance instance() {
    return {
        "mma " + std::to_string(d_k) + ", " + std::to_string(ncols1) + " queries, " + std::to_string(ncols2) + " heads",
        [](const attention_case & c) {
            const bool padded = c.mask && c.max_bias == 0.0f && c.n_kv % FATTN_KQ_STRIDE == 0;
            return c.d_k == d_k && c.d_v == d_v && (ncols2 == 1 || padded) && (d_k != 576 || c.mla) &&
                (c.logit_softcap == 0.0f || d_k >= 128);
        },
        ggml_cuda_flash_attn_ext_mma_f16_case<d_k, d_v, ncols1, ncols2>,
    };
}

std::vector<kernel_instance> mma_kernels() {
    return {
        instance<64, 64, 8, 1>(),
        instance<64, 64, 64, 1>(),
        instance<64, 64, 2, 4>(),
        instance<64, 64, 4, 8>(),
        instance<80, 80, 16, 1>(),
        instance<128, 128, 1, 8>(),
        instance<128, 128, 16, 2>(),
        instance<256, 256, 8, 2>(),
        instance<576, 512, 1, 16>(),
        instance<576, 512, 4, 4>(),
    };
}

DECL_FATTN_MMA_F16_CASE(64, 64, 8, 1);
DECL_FATTN_MMA_F16_CASE(64, 64, 64, 1);
DECL_FATTN_MMA_F16_CASE(64, 64, 2, 4);
DECL_FATTN_MMA_F16_CASE(64, 64, 4, 8);
DECL_FATTN_MMA_F16_CASE(80, 80, 16, 1);
DECL_FATTN_MMA_F16_CASE(128, 128, 1, 8);
DECL_FATTN_MMA_F16_CASE(128, 128, 16, 2);
DECL_FATTN_MMA_F16_CASE(256, 256, 8, 2);
DECL_FATTN_MMA_F16_CASE(576, 512, 1, 16);
DECL_FATTN_MMA_F16_CASE(576, 512, 4, 4);
