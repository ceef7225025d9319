#include "attn-variants.h"

size_t ggml_cpu_attn_pattern_work_size(const ggml_tensor * fa, int n_threads) {
    if (ggml_flash_attn_ext_get_emulation(fa) != GGML_ATTN_EMULATION_RECORD) {
        return 0;
    }
    return attn_pattern_n_slots(fa, n_threads) * attn_pattern_candidates::size(fa->src[5]) +
        alignof(attn_pattern_candidates);
}
