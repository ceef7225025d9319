#include "llama-attn-capture-rows.h"

#include "ggml.h"

#include <algorithm>
#include <cmath>
#include <cstring>

// The loops are written so that compilers vectorise them. libllama is built for any x86-64, so there are two of each.
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define HAVE_AVX2   1
#define TARGET_AVX2 __attribute__((target("avx2,fma,f16c")))
#define INLINE      inline __attribute__((always_inline))
static const bool has_avx2 =
    __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#else
#define INLINE inline
#endif

static const int32_t LANES = 16;

static INLINE float sum_of(const float * values) {
    float sum = 0.0f;
    for (int32_t i = 0; i < LANES; ++i) {
        sum += values[i];
    }
    return sum;
}

static INLINE void dot_rows(
    const float * q, int32_t n_q, const float * k, int32_t n_k, int32_t n_embd, float * scores, int64_t stride) {
    for (int32_t j = 0; j < n_k; ++j) {
        const float * kj = k + (int64_t) j * n_embd;
        for (int32_t i = 0; i < n_q; ++i) {
            const float * qi = q + (int64_t) i * n_embd;

            float   lanes[LANES] = {};
            int32_t d            = 0;
            for (; d + LANES <= n_embd; d += LANES) {
                for (int32_t l = 0; l < LANES; ++l) {
                    lanes[l] += qi[d + l] * kj[d + l];
                }
            }
            float sum = sum_of(lanes);
            for (; d < n_embd; ++d) {
                sum += qi[d] * kj[d];
            }
            scores[i * stride + j] = sum;
        }
    }
}

// exp(x) for x <= 0, with a relative error of 2e-7
static INLINE float exp_below_0(float x) {
    const float n = x * 1.44269504f;

    // round to the nearest whole number: what is left has no other bits
    const float magic = 12582912.0f; // 1.5 * 2^23
    const float whole = (n + magic) - magic;

    float r = x - whole * 0.693359375f;
    r       = r + whole * 2.12194440e-4f;

    float p = 1.9875691500e-4f;
    p       = p * r + 1.3981999507e-3f;
    p       = p * r + 8.3334519073e-3f;
    p       = p * r + 4.1665795894e-2f;
    p       = p * r + 1.6666665459e-1f;
    p       = p * r + 5.0000001201e-1f;
    p       = p * r * r + r + 1.0f;

    const int32_t bits = ((int32_t) whole + 127) << 23;
    float         scale;
    std::memcpy(&scale, &bits, sizeof(scale));
    return p * scale;
}

static INLINE std::pair<double, double> exp_row(float * scores, int32_t n, float max) {
    float   sum[LANES]      = {};
    float   weighted[LANES] = {};
    int32_t j               = 0;
    for (; j + LANES <= n; j += LANES) {
        for (int32_t l = 0; l < LANES; ++l) {
            // below that it is 0 next to a sum of at least 1
            const float s = std::max(scores[j + l] - max, -87.0f);
            const float e = exp_below_0(s);
            scores[j + l] = e;
            sum[l] += e;
            weighted[l] += e * s;
        }
    }
    double total          = sum_of(sum);
    double total_weighted = sum_of(weighted);
    for (; j < n; ++j) {
        const float s = std::max(scores[j] - max, -87.0f);
        const float e = exp_below_0(s);
        scores[j]     = e;
        total += e;
        total_weighted += e * s;
    }
    return { total, total_weighted };
}

static INLINE void add_row(float * scores, int32_t n, float factor, float threshold, float * sum, uint32_t * above) {
    for (int32_t j = 0; j < n; ++j) {
        const float p = scores[j] * factor;
        scores[j]     = p;
        sum[j] += p;
        above[j] += p > threshold ? 1 : 0;
    }
}

static INLINE float max_row(const float * scores, int32_t n) {
    float lanes[LANES];
    std::fill(lanes, lanes + LANES, -INFINITY);
    int32_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        for (int32_t l = 0; l < LANES; ++l) {
            lanes[l] = scores[j + l] > lanes[l] ? scores[j + l] : lanes[l];
        }
    }
    float max = *std::max_element(lanes, lanes + LANES);
    for (; j < n; ++j) {
        max = std::max(max, scores[j]);
    }
    return max;
}

#ifdef HAVE_AVX2
// sums of four registers, in the order of these
TARGET_AVX2 static inline __m128 sums_of(__m256 a, __m256 b, __m256 c, __m256 d) {
    const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
}

// two rows of q and four of k at a time share what is loaded
TARGET_AVX2 static void dot_rows_avx2(
    const float * q, int32_t n_q, const float * k, int32_t n_k, int32_t n_embd, float * scores, int64_t stride) {
    const int32_t whole_q = n_embd % 8 == 0 ? n_q / 2 * 2 : 0;
    const int32_t whole_k = n_k / 4 * 4;
    for (int32_t j = 0; j < whole_k; j += 4) {
        const float * kj = k + (int64_t) j * n_embd;
        for (int32_t i = 0; i < whole_q; i += 2) {
            const float * qi = q + (int64_t) i * n_embd;
            __m256        a0 = _mm256_setzero_ps(), a1 = a0, a2 = a0, a3 = a0;
            __m256        b0 = a0, b1 = a0, b2 = a0, b3 = a0;
            for (int32_t d = 0; d < n_embd; d += 8) {
                const __m256 qa = _mm256_loadu_ps(qi + d);
                const __m256 qb = _mm256_loadu_ps(qi + n_embd + d);
                const __m256 k0 = _mm256_loadu_ps(kj + d);
                const __m256 k1 = _mm256_loadu_ps(kj + n_embd + d);
                const __m256 k2 = _mm256_loadu_ps(kj + 2 * n_embd + d);
                const __m256 k3 = _mm256_loadu_ps(kj + 3 * n_embd + d);
                a0              = _mm256_fmadd_ps(qa, k0, a0);
                a1              = _mm256_fmadd_ps(qa, k1, a1);
                a2              = _mm256_fmadd_ps(qa, k2, a2);
                a3              = _mm256_fmadd_ps(qa, k3, a3);
                b0              = _mm256_fmadd_ps(qb, k0, b0);
                b1              = _mm256_fmadd_ps(qb, k1, b1);
                b2              = _mm256_fmadd_ps(qb, k2, b2);
                b3              = _mm256_fmadd_ps(qb, k3, b3);
            }
            _mm_storeu_ps(scores + i * stride + j, sums_of(a0, a1, a2, a3));
            _mm_storeu_ps(scores + (i + 1) * stride + j, sums_of(b0, b1, b2, b3));
        }
    }
    // what is left over: a row of q, which is all there is of it while text is generated, and rows of k
    if (n_embd % 8 == 0 && whole_q < n_q) {
        const float * qi = q + (int64_t) whole_q * n_embd;
        for (int32_t j = 0; j < whole_k; j += 4) {
            const float * kj = k + (int64_t) j * n_embd;
            __m256        a0 = _mm256_setzero_ps(), a1 = a0, a2 = a0, a3 = a0;
            for (int32_t d = 0; d < n_embd; d += 8) {
                const __m256 qa = _mm256_loadu_ps(qi + d);
                a0              = _mm256_fmadd_ps(qa, _mm256_loadu_ps(kj + d), a0);
                a1              = _mm256_fmadd_ps(qa, _mm256_loadu_ps(kj + n_embd + d), a1);
                a2              = _mm256_fmadd_ps(qa, _mm256_loadu_ps(kj + 2 * n_embd + d), a2);
                a3              = _mm256_fmadd_ps(qa, _mm256_loadu_ps(kj + 3 * n_embd + d), a3);
            }
            _mm_storeu_ps(scores + whole_q * stride + j, sums_of(a0, a1, a2, a3));
        }
    }
    const int32_t from_k = n_embd % 8 == 0 ? whole_k : 0;
    dot_rows(q, n_q, k + (int64_t) from_k * n_embd, n_k - from_k, n_embd, scores + from_k, stride);
}

TARGET_AVX2 static std::pair<double, double> exp_row_avx2(float * scores, int32_t n, float max) {
    return exp_row(scores, n, max);
}

TARGET_AVX2 static void add_row_avx2(
    float * scores, int32_t n, float factor, float threshold, float * sum, uint32_t * above) {
    add_row(scores, n, factor, threshold, sum, above);
}

TARGET_AVX2 static float max_row_avx2(const float * scores, int32_t n) {
    return max_row(scores, n);
}

TARGET_AVX2 static void from_f16_avx2(const uint16_t * src, float * dst, int64_t n) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) (src + i))));
    }
    ggml_fp16_to_fp32_row(src + i, dst + i, n - i);
}

#define DISPATCH(name, ...) (has_avx2 ? name##_avx2(__VA_ARGS__) : name(__VA_ARGS__))
#else
#define DISPATCH(name, ...) name(__VA_ARGS__)
#endif

static void from_f16(const uint16_t * src, float * dst, int64_t n) {
    ggml_fp16_to_fp32_row(src, dst, n);
}

template <class type>
static void find_runs(const type * mask, type excluded, int32_t n_kv, llama_attn_capture_runs & runs) {
    runs.clear();
    for (int32_t j = 0; j < n_kv;) {
        while (j < n_kv && mask[j] == excluded) {
            ++j;
        }
        const int32_t begin = j;
        while (j < n_kv && mask[j] != excluded) {
            ++j;
        }
        if (begin < j) {
            runs.push_back({ begin, j });
        }
    }
}

void llama_attn_capture_find_runs(const void * mask, bool is_f16, int32_t n_kv, llama_attn_capture_runs & runs) {
    if (!mask) {
        runs.assign(1, { 0, n_kv });
    } else if (is_f16) {
        find_runs((const uint16_t *) mask, (uint16_t) 0xfc00, n_kv, runs);
    } else {
        find_runs((const float *) mask, -INFINITY, n_kv, runs);
    }
}

void llama_attn_capture_dot(
    const float * q, int32_t n_q, const float * k, int32_t n_k, int32_t n_embd, float * scores, int64_t stride) {
    DISPATCH(dot_rows, q, n_q, k, n_k, n_embd, scores, stride);
}

void llama_attn_capture_from_f16(const uint16_t * src, float * dst, int64_t n) {
    DISPATCH(from_f16, src, dst, n);
}

float llama_attn_capture_max(const float * scores, int32_t n) {
    return DISPATCH(max_row, scores, n);
}

std::pair<double, double> llama_attn_capture_exp(float * scores, int32_t n, float max) {
    return DISPATCH(exp_row, scores, n, max);
}

void llama_attn_capture_add(float * scores, int32_t n, float factor, float threshold, float * sum, uint32_t * above) {
    DISPATCH(add_row, scores, n, factor, threshold, sum, above);
}
