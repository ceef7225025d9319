#pragma once

// What tiles of the CPU's flash attention need beside their matrix products, for SIMD.

#include "common.h"
#include "simd-mappings.h"

#include <cstdint>

#ifdef _MSC_VER
#include <intrin.h>
#endif

static inline void attn_prefetch(const void * data) {
#ifdef _MSC_VER
    GGML_UNUSED(data);
#else
    __builtin_prefetch(data);
#endif
}

// dst[column*dst_stride + row] = src[row*n_columns + column]
static inline void attn_transpose(
    float * dst, int64_t dst_stride, const float * src, int64_t n_rows, int64_t n_columns) {
    int64_t column = 0;
#if defined(__AVX__)
    if (n_rows == 8) {
        for (; column + 8 <= n_columns; column += 8) {
            // halves of rows four apart side by side, so that lanes need no exchange
            __m256 r[8];
            for (int i = 0; i < 4; ++i) {
                const float * low  = src + i * n_columns + column;
                const float * high = low + 4 * n_columns;
                r[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high), 1);
                r[i + 4] =
                    _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low + 4)), _mm_loadu_ps(high + 4), 1);
            }
            for (int i = 0; i < 8; i += 4) {
                const __m256 a = _mm256_unpacklo_ps(r[i], r[i + 1]);
                const __m256 b = _mm256_unpackhi_ps(r[i], r[i + 1]);
                const __m256 c = _mm256_unpacklo_ps(r[i + 2], r[i + 3]);
                const __m256 d = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);

                float * to = dst + (column + i) * dst_stride;
                _mm256_storeu_ps(to, _mm256_shuffle_ps(a, c, _MM_SHUFFLE(1, 0, 1, 0)));
                _mm256_storeu_ps(to + dst_stride, _mm256_shuffle_ps(a, c, _MM_SHUFFLE(3, 2, 3, 2)));
                _mm256_storeu_ps(to + 2 * dst_stride, _mm256_shuffle_ps(b, d, _MM_SHUFFLE(1, 0, 1, 0)));
                _mm256_storeu_ps(to + 3 * dst_stride, _mm256_shuffle_ps(b, d, _MM_SHUFFLE(3, 2, 3, 2)));
            }
        }
    }
#elif defined(__ARM_NEON) && defined(__aarch64__)
    if (n_rows == 8) {
        for (; column + 4 <= n_columns; column += 4) {
            for (int row = 0; row < 8; row += 4) {
                const float *     from = src + row * n_columns + column;
                const float32x4_t r0   = vld1q_f32(from);
                const float32x4_t r1   = vld1q_f32(from + n_columns);
                const float32x4_t r2   = vld1q_f32(from + 2 * n_columns);
                const float32x4_t r3   = vld1q_f32(from + 3 * n_columns);

                const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(r0, r1));
                const float64x2_t b = vreinterpretq_f64_f32(vtrn2q_f32(r0, r1));
                const float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(r2, r3));
                const float64x2_t d = vreinterpretq_f64_f32(vtrn2q_f32(r2, r3));

                float * to = dst + column * dst_stride + row;
                vst1q_f32(to, vreinterpretq_f32_f64(vtrn1q_f64(a, c)));
                vst1q_f32(to + dst_stride, vreinterpretq_f32_f64(vtrn1q_f64(b, d)));
                vst1q_f32(to + 2 * dst_stride, vreinterpretq_f32_f64(vtrn2q_f64(a, c)));
                vst1q_f32(to + 3 * dst_stride, vreinterpretq_f32_f64(vtrn2q_f64(b, d)));
            }
        }
    }
#endif
    for (; column < n_columns; ++column) {
        for (int64_t row = 0; row < n_rows; ++row) {
            dst[column * dst_stride + row] = src[row * n_columns + column];
        }
    }
}

// whether a tile of the mask changes nothing; row_size in bytes
static inline bool attn_mask_is_zero(const char * mask, size_t row_size, int n_rows, int n_cells) {
    static_assert(GGML_FA_TILE_KV == 64, "128 bytes of a row");
    if (n_cells != GGML_FA_TILE_KV) {
        return false;
    }
    for (int row = 0; row < n_rows; ++row, mask += row_size) {
        // of the next tile: rows are too far apart for the hardware to see it coming
        attn_prefetch(mask + 128);
        attn_prefetch(mask + 192);
#if defined(__AVX512F__)
        const __m512i bits = _mm512_or_si512(_mm512_loadu_si512(mask), _mm512_loadu_si512(mask + 64));
        const bool    zero = _mm512_test_epi64_mask(bits, bits) == 0;
#elif defined(__AVX2__)
        const __m256i * values = (const __m256i *) mask;
        const __m256i   bits =
            _mm256_or_si256(_mm256_or_si256(_mm256_loadu_si256(values), _mm256_loadu_si256(values + 1)),
                _mm256_or_si256(_mm256_loadu_si256(values + 2), _mm256_loadu_si256(values + 3)));
        const bool zero = _mm256_testz_si256(bits, bits);
#elif defined(__ARM_NEON) && defined(__aarch64__)
        uint32x4_t bits = vdupq_n_u32(0);
        for (int i = 0; i < 128; i += 16) {
            bits = vorrq_u32(bits, vld1q_u32((const uint32_t *) (mask + i)));
        }
        const bool zero = vmaxvq_u32(bits) == 0;
#else
        ggml_fp16_t bits = 0;
        for (int i = 0; i < GGML_FA_TILE_KV; ++i) {
            bits |= ((const ggml_fp16_t *) mask)[i];
        }
        const bool zero = bits == 0;
#endif
        if (!zero) {
            return false;
        }
    }
    return true;
}

// the maximum of a row of a tile
static inline float attn_row_max(const float * x) {
#if defined(__AVX512F__)
    __m512 max = _mm512_loadu_ps(x);
    for (int i = 16; i < GGML_FA_TILE_KV; i += 16) {
        max = _mm512_max_ps(max, _mm512_loadu_ps(x + i));
    }
    return _mm512_reduce_max_ps(max);
#elif defined(__AVX__)
    __m256 max = _mm256_loadu_ps(x);
    for (int i = 8; i < GGML_FA_TILE_KV; i += 8) {
        max = _mm256_max_ps(max, _mm256_loadu_ps(x + i));
    }
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(max), _mm256_extractf128_ps(max, 1));
    half        = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
#elif defined(__ARM_NEON) && defined(__aarch64__)
    float32x4_t max = vld1q_f32(x);
    for (int i = 4; i < GGML_FA_TILE_KV; i += 4) {
        max = vmaxq_f32(max, vld1q_f32(x + i));
    }
    return vmaxvq_f32(max);
#else
    float max = x[0];
    for (int i = 1; i < GGML_FA_TILE_KV; ++i) {
        max = x[i] > max ? x[i] : max;
    }
    return max;
#endif
}

// a bit for each of a tile's cells: whether its weight is above the bound
static inline uint64_t attn_find_above(const float * weights, float bound) {
    static_assert(GGML_FA_TILE_KV == 64, "as many cells as bits");
    uint64_t found = 0;
#if defined(__AVX512F__)
    for (int i = 0; i < 64; i += 16) {
        const __mmask16 above = _mm512_cmp_ps_mask(_mm512_loadu_ps(weights + i), _mm512_set1_ps(bound), _CMP_GT_OQ);
        found |= (uint64_t) above << i;
    }
#elif defined(__AVX__)
    for (int i = 0; i < 64; i += 8) {
        const __m256 above = _mm256_cmp_ps(_mm256_loadu_ps(weights + i), _mm256_set1_ps(bound), _CMP_GT_OQ);
        found |= (uint64_t) _mm256_movemask_ps(above) << i;
    }
#elif defined(__ARM_NEON) && defined(__aarch64__)
    static const uint32_t BITS[4] = { 1, 2, 4, 8 };
    for (int i = 0; i < 64; i += 16) {
        uint32x4_t bits = vdupq_n_u32(0);
        for (int j = 0; j < 16; j += 4) {
            const uint32x4_t above = vcgtq_f32(vld1q_f32(weights + i + j), vdupq_n_f32(bound));
            bits = vorrq_u32(bits, vshlq_u32(vandq_u32(above, vld1q_u32(BITS)), vdupq_n_s32(j)));
        }
        found |= (uint64_t) vaddvq_u32(bits) << i;
    }
#else
    for (int i = 0; i < 64; ++i) {
        found |= (uint64_t) (weights[i] > bound) << i;
    }
#endif
    return found;
}

// of a number that is not 0
static inline int attn_lowest_bit(uint64_t bits) {
#ifdef _MSC_VER
    unsigned long index;
    _BitScanForward64(&index, bits);
    return (int) index;
#else
    return __builtin_ctzll(bits);
#endif
}
