#include "attn-work.h"

#include "attn-rows.h"
#include "attn-variants.h"
#include "ggml-cpu-impl.h"

static constexpr size_t ALIGNMENT = 64;

static size_t align(size_t size) {
    return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static size_t variant_size(const ggml_tensor * fa, int n_threads) {
    return align(attn_variant_work_size(fa, n_threads));
}

static size_t rows_size(const ggml_tensor * fa) {
    return align(attn_rows_work_size(fa));
}

size_t ggml_cpu_attn_work_size(const ggml_tensor * fa, int n_threads) {
    return variant_size(fa, n_threads) + n_threads * rows_size(fa) + ALIGNMENT;
}

char * ggml_cpu_attn_variant_work(const ggml_compute_params * params, const ggml_tensor * fa) {
    const size_t begin = (size_t) params->wdata + params->wsize - ggml_cpu_attn_work_size(fa, params->nth);
    return (char *) align(begin);
}

char * ggml_cpu_attn_rows_work(const ggml_compute_params * params, const ggml_tensor * fa) {
    return ggml_cpu_attn_variant_work(params, fa) + variant_size(fa, params->nth) + params->ith * rows_size(fa);
}
