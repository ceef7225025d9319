#include "attn-work.h"

#include "attn-rows.h"
#include "attn-variants.h"
#include "ggml-cpu-impl.h"

static constexpr size_t ALIGNMENT = 64;

static size_t align(size_t size) {
    return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static size_t pattern_size(const ggml_tensor * fa, int n_threads) {
    if (ggml_flash_attn_ext_get_emulation(fa) != GGML_ATTN_EMULATION_RECORD) {
        return 0;
    }
    return align(attn_pattern_n_slots(fa, n_threads) * attn_pattern_candidates::size(fa->src[5]));
}

static size_t rows_size(const ggml_tensor * fa) {
    return align(attn_rows_scratch::size(fa));
}

size_t ggml_cpu_attn_work_size(const ggml_tensor * fa, int n_threads) {
    return pattern_size(fa, n_threads) + n_threads * rows_size(fa) + ALIGNMENT;
}

char * ggml_cpu_attn_pattern_work(const ggml_compute_params * params, const ggml_tensor * fa) {
    const size_t begin = (size_t) params->wdata + params->wsize - ggml_cpu_attn_work_size(fa, params->nth);
    return (char *) align(begin);
}

char * ggml_cpu_attn_rows_work(const ggml_compute_params * params, const ggml_tensor * fa) {
    return ggml_cpu_attn_pattern_work(params, fa) + pattern_size(fa, params->nth) + params->ith * rows_size(fa);
}
