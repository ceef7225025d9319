#include "attn-quantised.h"

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"
#include "ggml-cpu.h"

#include <algorithm>
#include <cstring>

#ifdef ATTN_QUANTISED_KEYS

#include <immintrin.h>

static_assert(QK8_0 == 32 && QK4_0 == 32, "a block of keys goes with a block of the query");
static constexpr int ATTN_QUANTS = 32; // in a block

// ggml's table of all F16 values is a cache miss for many a block
static inline float attn_scale(ggml_half scale) {
    return _cvtsh_ss(scale);
}

// the quants of a block, as bytes
static inline __m256i attn_load_quants(const block_q8_0 & block) {
    return _mm256_loadu_si256((const __m256i *) block.qs);
}

static inline __m256i attn_load_quants(const block_q4_0 & block) {
    const __m128i low  = _mm_loadu_si128((const __m128i *) block.qs);
    const __m256i both = _mm256_set_m128i(_mm_srli_epi16(low, 4), low);
    return _mm256_sub_epi8(_mm256_and_si256(both, _mm256_set1_epi8(0xf)), _mm256_set1_epi8(8));
}

template <class block_type>
static void attn_dequantise(const void * blocks, float * values, int64_t n) {
    for (int64_t i = 0; i < n / ATTN_QUANTS; ++i) {
        const block_type & block = ((const block_type *) blocks)[i];
        const __m256       scale = _mm256_set1_ps(attn_scale(block.d));

        alignas(32) int8_t quants[ATTN_QUANTS];
        _mm256_store_si256((__m256i *) quants, attn_load_quants(block));
        for (int j = 0; j < ATTN_QUANTS; j += 8) {
            const __m256i eight = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *) (quants + j)));
            _mm256_storeu_ps(values + i * ATTN_QUANTS + j, _mm256_mul_ps(_mm256_cvtepi32_ps(eight), scale));
        }
    }
}

// of a query: all quants, then the scale of each block
static const float * attn_scales(const char * query, int64_t d) {
    return (const float *) (query + d);
}

void attn_load_quantised_query(const attn_keys & keys, const float * q, char * query) {
    auto * scales = (float *) (query + keys.d);
    auto * blocks = (block_q8_0 *) (query + 2 * keys.d); // behind what is made of them
    ggml_get_type_traits_cpu(GGML_TYPE_Q8_0)->from_float(q, blocks, keys.d);
    for (int64_t i = 0; i < keys.d / ATTN_QUANTS; ++i) {
        memcpy(query + i * ATTN_QUANTS, blocks[i].qs, ATTN_QUANTS);
        scales[i] = attn_scale(blocks[i].d);
    }
}

// the products with y, of four neighbours each, of the bytes whose magnitudes and signs these are
static inline __m256i attn_multiply_quants(__m256i magnitudes, __m256i signs, __m256i y) {
    const __m256i signed_y = _mm256_sign_epi8(y, signs);
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return _mm256_dpbusd_epi32(_mm256_setzero_si256(), magnitudes, signed_y);
#else
    return _mm256_madd_epi16(_mm256_maddubs_epi16(magnitudes, signed_y), _mm256_set1_epi16(1));
#endif
}

// the sum of each one's lanes, added in the order in which ggml_vec_dot_q8_0_q8_0 adds them
static inline __m128 attn_sum_lanes(const __m256 * x) {
    __m128 half[4];
    for (int c = 0; c < 4; ++c) {
        half[c] = _mm_add_ps(_mm256_extractf128_ps(x[c], 1), _mm256_castps256_ps128(x[c]));
    }
    const __m128 ab = _mm_add_ps(_mm_unpacklo_ps(half[0], half[1]), _mm_unpackhi_ps(half[0], half[1]));
    const __m128 cd = _mm_add_ps(_mm_unpacklo_ps(half[2], half[3]), _mm_unpackhi_ps(half[2], half[3]));
    return _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
}

// a key is unpacked once for all rows
template <class block_type, int n_rows>
static void attn_multiply_blocks(int64_t d, const char * const * queries, const char * k, size_t k_stride,
    const uint8_t * cells, int n_cells, float * const * scores) {
    constexpr int N_AT_ONCE = 4;
    for (int first = 0; first < n_cells; first += N_AT_ONCE) {
        __m256 products[n_rows][N_AT_ONCE];
        for (int c = 0; c < N_AT_ONCE; ++c) {
            const auto * key = (const block_type *) (k + cells[std::min(first + c, n_cells - 1)] * k_stride);
            attn_prefetch((const char *) key, k_stride, d / ATTN_QUANTS * sizeof(block_type));

            __m256 sum[n_rows];
            for (int r = 0; r < n_rows; ++r) {
                sum[r] = _mm256_setzero_ps();
            }
            for (int64_t i = 0; i < d / ATTN_QUANTS; ++i) {
                const __m256i quants     = attn_load_quants(key[i]);
                const __m256i magnitudes = _mm256_sign_epi8(quants, quants);
                const float   scale      = attn_scale(key[i].d);
                for (int r = 0; r < n_rows; ++r) {
                    const __m256i q       = _mm256_load_si256((const __m256i *) queries[r] + i);
                    const __m256  product = _mm256_cvtepi32_ps(attn_multiply_quants(magnitudes, quants, q));
                    const float   both    = scale * attn_scales(queries[r], d)[i];
                    sum[r]                = _mm256_fmadd_ps(_mm256_set1_ps(both), product, sum[r]);
                }
            }
            for (int r = 0; r < n_rows; ++r) {
                products[r][c] = sum[r];
            }
        }
        for (int r = 0; r < n_rows; ++r) {
            float sums[N_AT_ONCE];
            _mm_storeu_ps(sums, attn_sum_lanes(products[r]));
            for (int c = 0; c < std::min(N_AT_ONCE, n_cells - first); ++c) {
                scores[r][cells[first + c]] = sums[c];
            }
        }
    }
}

void attn_multiply_quantised_keys(const attn_keys & keys, int n_rows, const char * const * queries, const char * k,
    const uint8_t * cells, int n_cells, float * const * scores) {
    attn_with_n_rows(n_rows, [&](auto n) {
        const auto multiply = keys.type == GGML_TYPE_Q8_0 ? attn_multiply_blocks<block_q8_0, decltype(n)::value> :
                                                            attn_multiply_blocks<block_q4_0, decltype(n)::value>;
        multiply(keys.d, queries, k, keys.stride, cells, n_cells, scores);
    });
}

#endif

ggml_to_float_t attn_to_float(ggml_type type) {
    if (type == GGML_TYPE_F16) {
        // ggml's own goes value by value
        return [](const void * x, float * y, int64_t n) {
            ggml_cpu_fp16_to_fp32((const ggml_fp16_t *) x, y, n);
        };
    }
#ifdef ATTN_QUANTISED_KEYS
    if (type == GGML_TYPE_Q8_0) {
        return attn_dequantise<block_q8_0>;
    }
    if (type == GGML_TYPE_Q4_0) {
        return attn_dequantise<block_q4_0>;
    }
#endif
    return ggml_get_type_traits(type)->to_float;
}
