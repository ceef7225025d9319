#pragma once

// Softmax weights of attention and their reduction, a few rows at a time

#include <cstdint>
#include <utility>
#include <vector>

// [begin, end) of cells
using llama_attn_capture_runs = std::vector<std::pair<int32_t, int32_t>>;

// the cells that a row of a mask, F16 or F32, does not exclude
void llama_attn_capture_find_runs(const void * mask, bool is_f16, int32_t n_kv, llama_attn_capture_runs & runs);

// scores[i][j] = q[i] . k[j]
void llama_attn_capture_dot(
    const float * q, int32_t n_q, const float * k, int32_t n_k, int32_t n_embd, float * scores, int64_t stride);

// F16 -> F32
void llama_attn_capture_from_f16(const uint16_t * src, float * dst, int64_t n);

// the largest score
float llama_attn_capture_max(const float * scores, int32_t n);

// scores become exp(score - max); returned: their sum, and the sum of each times (score - max)
std::pair<double, double> llama_attn_capture_exp(float * scores, int32_t n, float max);

// scores are multiplied by `factor`, added to `sum` and counted where above `threshold`
void llama_attn_capture_add(float * scores, int32_t n, float factor, float threshold, float * sum, uint32_t * above);
