#include "families.h"

#include "fattn-vec.cuh"

template <int d, ggml_type type_k, ggml_type type_v>
static kernel_instance instance() {
    return {
        "vec " + std::to_string(d) + " " + ggml_type_name(type_k) + " " + ggml_type_name(type_v),
        [](const attention_case & c) {
            return c.d_k == d && c.d_v == d && c.type_k == type_k && c.type_v == type_v &&
                c.n_kv % FATTN_KQ_STRIDE == 0 && !c.mla && (c.logit_softcap == 0.0f || d > 64);
        },
        ggml_cuda_flash_attn_ext_vec_case<d, type_k, type_v>,
    };
}

// with quantised keys of head size 64 the kernel counts on the lanes of a warp being in step, which fibers are not
std::vector<kernel_instance> vec_kernels() {
    return {
        instance<64, GGML_TYPE_F16, GGML_TYPE_F16>(),
        instance<128, GGML_TYPE_F16, GGML_TYPE_F16>(),
        instance<256, GGML_TYPE_F16, GGML_TYPE_F16>(),
        instance<64, GGML_TYPE_BF16, GGML_TYPE_BF16>(),
        instance<128, GGML_TYPE_Q8_0, GGML_TYPE_Q8_0>(),
        instance<128, GGML_TYPE_Q8_0, GGML_TYPE_F16>(),
        instance<128, GGML_TYPE_Q4_0, GGML_TYPE_Q4_0>(),
    };
}

DECL_FATTN_VEC_CASE(64, GGML_TYPE_F16, GGML_TYPE_F16);
DECL_FATTN_VEC_CASE(128, GGML_TYPE_F16, GGML_TYPE_F16);
DECL_FATTN_VEC_CASE(256, GGML_TYPE_F16, GGML_TYPE_F16);
DECL_FATTN_VEC_CASE(64, GGML_TYPE_BF16, GGML_TYPE_BF16);
DECL_FATTN_VEC_CASE(128, GGML_TYPE_Q8_0, GGML_TYPE_Q8_0);
DECL_FATTN_VEC_CASE(128, GGML_TYPE_Q8_0, GGML_TYPE_F16);
DECL_FATTN_VEC_CASE(128, GGML_TYPE_Q4_0, GGML_TYPE_Q4_0);
