#pragma once

// What the CPU's flash attention needs of the work buffer beside llama.cpp's own scratch, which is at its start: this is at its end.

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ggml_compute_params;

// bytes
size_t ggml_cpu_attn_work_size(const struct ggml_tensor * fa, int n_threads);

// slots for all threads to record a pattern, see attn-variants.cpp
char * ggml_cpu_attn_variant_work(const struct ggml_compute_params * params, const struct ggml_tensor * fa);

// for the rows of this thread, see attn-rows.h
char * ggml_cpu_attn_rows_work(const struct ggml_compute_params * params, const struct ggml_tensor * fa);

#ifdef __cplusplus
}
#endif
