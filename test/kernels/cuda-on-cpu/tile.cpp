#include "families.h"

#include "fattn-tile.cuh"

// the kernel's own choice of tile goes by the numbers of queries and of heads to a key head
template <int d_k, int d_v>
static kernel_instance instance() {
    return {
        "tile " + std::to_string(d_k),
        [](const attention_case & c) {
            const bool padded = c.mask && c.max_bias == 0.0f && c.n_kv % FATTN_KQ_STRIDE == 0;
            return c.d_k == d_k && c.d_v == d_v && (d_k == d_v || (padded && c.n_head / c.n_head_kv % 4 == 0)) &&
                (c.logit_softcap == 0.0f || d_v >= 128);
        },
        ggml_cuda_flash_attn_ext_tile_case<d_k, d_v>,
    };
}

std::vector<kernel_instance> tile_kernels() {
    return { instance<40, 40>(), instance<64, 64>(), instance<128, 128>(), instance<576, 512>() };
}

DECL_FATTN_TILE_CASE(40, 40);
DECL_FATTN_TILE_CASE(64, 64);
DECL_FATTN_TILE_CASE(128, 128);
DECL_FATTN_TILE_CASE(576, 512);
