#include "attn-block.h"

#include "attn-exp.h"
#include "attn-quantised.h"
#include "attn-tile.h"
#include "attn-variants.h"
#include "ggml-cpu.h"
#include "simd-mappings.h"
#include "vec.h"

#include <algorithm>
#include <cmath>

#if defined(__AVX512F__) || (defined(__AVX__) && defined(__F16C__)) || \
    (defined(GGML_SIMD) && defined(__aarch64__) && !defined(__ARM_FEATURE_SVE))
#define ATTN_ROWS_SIMD
#endif

#ifdef ATTN_ROWS_SIMD

static bool attn_in_vectors(const attn_keys & keys) {
    return keys.type == GGML_TYPE_F16 && keys.d % GGML_F16_STEP == 0;
}

// sums of F16 values are rounded to F16 after each cell
struct attn_f16_sums {
    typedef ggml_fp16_t  value;
    typedef GGML_F16_VEC vec;

    static constexpr int N_VECS = 4;
    static constexpr int N      = GGML_F16_EPR;

    static vec load(const value * x) { return GGML_F16_VEC_LOAD(x, 0); }

    static void store(value * x, vec v) {
        vec r[1] = { v };
        GGML_F16_VEC_STORE(x, r, 0);
    }

    static vec set(float x) { return GGML_F16_VEC_SET1(x); }

    static vec add(vec sum, vec x, vec weight) {
        sum = GGML_F16_VEC_FMA(sum, x, weight);
#if defined(__AVX512F__) && !defined(__AVX512FP16__)
        sum = _mm512_cvtph_ps(_mm512_cvtps_ph(sum, 0));
#elif defined(__AVX__) && !defined(__AVX512F__)
        sum = _mm256_cvtph_ps(_mm256_cvtps_ph(sum, 0));
#elif defined(__ARM_NEON) && !defined(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC)
        sum = vcvt_f32_f16(vcvt_f16_f32(sum));
#endif
        return sum;
    }
};

struct attn_f32_sums {
    typedef float        value;
    typedef GGML_F32_VEC vec;

    static constexpr int N_VECS = 4;
    static constexpr int N      = GGML_F32_EPR;

    static vec load(const value * x) { return GGML_F32_VEC_LOAD(x); }

    static void store(value * x, vec v) { GGML_F32_VEC_STORE(x, v); }

    static vec set(float x) { return GGML_F32_VEC_SET1(x); }

    static vec add(vec sum, vec x, vec weight) { return GGML_F32_VEC_FMA(sum, x, weight); }
};

// the sums of the lanes of some cells' products, added as GGML_F16_VEC_REDUCE adds them
#if defined(__AVX512F__) && !defined(__AVX512FP16__)
static constexpr int ATTN_CELLS_AT_ONCE = 4;

static inline void attn_sum_lanes(const __m512 * x, float * sums) {
    const __m512 ab   = _mm512_add_ps(_mm512_shuffle_f32x4(x[0], x[1], 0x44), _mm512_shuffle_f32x4(x[0], x[1], 0xee));
    const __m512 cd   = _mm512_add_ps(_mm512_shuffle_f32x4(x[2], x[3], 0x44), _mm512_shuffle_f32x4(x[2], x[3], 0xee));
    __m512       abcd = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    abcd              = _mm512_add_ps(abcd, _mm512_permute_ps(abcd, 0x4e));
    abcd              = _mm512_add_ps(abcd, _mm512_permute_ps(abcd, 0xb1));
    _mm_storeu_ps(sums, _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, abcd)));
}
#else
static constexpr int ATTN_CELLS_AT_ONCE = 1;

static inline void attn_sum_lanes(const GGML_F16_VEC * x, float * sums) {
    GGML_F16_VEC vecs[GGML_F16_ARR] = { x[0] };
    for (int i = 1; i < GGML_F16_ARR; ++i) {
        vecs[i] = GGML_F16_VEC_ZERO;
    }
    ggml_float sum;
    GGML_F16_VEC_REDUCE(sum, vecs);
    sums[0] = sum;
}
#endif

// scores[row][cell] = query of the row * key of the cell, as ggml_vec_dot_f16 computes it; d_k is a multiple of GGML_F16_STEP
template <int n_rows>
static void attn_multiply_vectors(int64_t d_k, const GGML_F16_VEC * const * queries, const char * k, size_t k_stride,
    const uint8_t * cells, int n_cells, float * const * scores) {
    for (int first = 0; first < n_cells; first += ATTN_CELLS_AT_ONCE) {
        GGML_F16_VEC products[n_rows][ATTN_CELLS_AT_ONCE];
        for (int c = 0; c < ATTN_CELLS_AT_ONCE; ++c) {
            const auto * key = (const ggml_fp16_t *) (k + cells[std::min(first + c, n_cells - 1)] * k_stride);

            GGML_F16_VEC sum[n_rows][GGML_F16_ARR];
            for (int r = 0; r < n_rows; ++r) {
                for (int i = 0; i < GGML_F16_ARR; ++i) {
                    sum[r][i] = GGML_F16_VEC_ZERO;
                }
            }
            for (int64_t i = 0; i < d_k / GGML_F16_EPR; i += GGML_F16_ARR) {
                for (int j = 0; j < GGML_F16_ARR; ++j) {
                    const GGML_F16_VEC x = GGML_F16_VEC_LOAD(key + (i + j) * GGML_F16_EPR, j);
                    for (int r = 0; r < n_rows; ++r) {
                        sum[r][j] = GGML_F16_VEC_FMA(sum[r][j], x, queries[r][i + j]);
                    }
                }
            }
            for (int r = 0; r < n_rows; ++r) {
                products[r][c] =
                    GGML_F16_VEC_ADD(GGML_F16_VEC_ADD(sum[r][0], sum[r][2]), GGML_F16_VEC_ADD(sum[r][1], sum[r][3]));
            }
        }
        for (int r = 0; r < n_rows; ++r) {
            float sums[ATTN_CELLS_AT_ONCE];
            attn_sum_lanes(products[r], sums);
            for (int c = 0; c < std::min(ATTN_CELLS_AT_ONCE, n_cells - first); ++c) {
                scores[r][cells[first + c]] = sums[c];
            }
        }
    }
}

static void attn_multiply_vectors(int n_rows, int64_t d_k, const GGML_F16_VEC * const * queries, const char * k,
    size_t k_stride, const uint8_t * cells, int n_cells, float * const * scores) {
    attn_with_n_rows(n_rows,
        [&](auto n) { attn_multiply_vectors<decltype(n)::value>(d_k, queries, k, k_stride, cells, n_cells, scores); });
}

// adds the first values of each cell, as many as fill vectors, and returns how many these are
template <class attn_sums, int n_rows>
static int64_t attn_add_vectors(int64_t d_v, typename attn_sums::value * const * sums, const char * v, size_t v_stride,
    const uint8_t * cells, int n_cells, const float * const * weights) {
    constexpr int N_VECS = attn_sums::N_VECS;
    constexpr int STEP   = N_VECS * attn_sums::N;

    int64_t d = 0;
    for (; d + STEP <= d_v; d += STEP) {
        typename attn_sums::vec sum[n_rows][N_VECS];
        for (int r = 0; r < n_rows; ++r) {
            for (int i = 0; i < N_VECS; ++i) {
                sum[r][i] = attn_sums::load(sums[r] + d + i * attn_sums::N);
            }
        }
        for (int c = 0; c < n_cells; ++c) {
            const auto * x = (const typename attn_sums::value *) (v + cells[c] * v_stride) + d;

            typename attn_sums::vec value[N_VECS];
            for (int i = 0; i < N_VECS; ++i) {
                value[i] = attn_sums::load(x + i * attn_sums::N);
            }
            for (int r = 0; r < n_rows; ++r) {
                const auto weight = attn_sums::set(weights[r][cells[c]]);
                for (int i = 0; i < N_VECS; ++i) {
                    sum[r][i] = attn_sums::add(sum[r][i], value[i], weight);
                }
            }
        }
        for (int r = 0; r < n_rows; ++r) {
            for (int i = 0; i < N_VECS; ++i) {
                attn_sums::store(sums[r] + d + i * attn_sums::N, sum[r][i]);
            }
        }
    }
    return d;
}

template <class attn_sums>
static int64_t attn_add_vectors(int n_rows, int64_t d_v, typename attn_sums::value * const * sums, const char * v,
    size_t v_stride, const uint8_t * cells, int n_cells, const float * const * weights) {
    return attn_with_n_rows(n_rows, [&](auto n) {
        return attn_add_vectors<attn_sums, decltype(n)::value>(d_v, sums, v, v_stride, cells, n_cells, weights);
    });
}

#endif // ATTN_ROWS_SIMD

// what fills no vectors is left to llama.cpp's function for a single row and cell
template <class value, class F>
static void attn_add_rest(int64_t d, int64_t d_v, int n_rows, value * const * sums, const char * v, size_t v_stride,
    const uint8_t * cells, int n_cells, const float * const * weights, F && add) {
    for (int c = 0; c < n_cells && d < d_v; ++c) {
        const value * x = (const value *) (v + cells[c] * v_stride);
        for (int r = 0; r < n_rows; ++r) {
            add(d_v - d, sums[r] + d, x + d, weights[r][cells[c]]);
        }
    }
}

void attn_add_values(int n_rows, int64_t d_v, ggml_fp16_t * const * sums, const char * v, size_t v_stride,
    const uint8_t * cells, int n_cells, const float * const * weights) {
    int64_t d = 0;
#ifdef ATTN_ROWS_SIMD
    d = attn_add_vectors<attn_f16_sums>(n_rows, d_v, sums, v, v_stride, cells, n_cells, weights);
#endif
    attn_add_rest(d, d_v, n_rows, sums, v, v_stride, cells, n_cells, weights, ggml_vec_mad_f16);
}

void attn_add_values(int n_rows, int64_t d_v, float * const * sums, const char * v, size_t v_stride,
    const uint8_t * cells, int n_cells, const float * const * weights) {
    int64_t d = 0;
#ifdef ATTN_ROWS_SIMD
    d = attn_add_vectors<attn_f32_sums>(n_rows, d_v, sums, v, v_stride, cells, n_cells, weights);
#endif
    attn_add_rest(d, d_v, n_rows, sums, v, v_stride, cells, n_cells, weights, ggml_vec_mad_f32);
}

void attn_load_query(const attn_keys & keys, const float * q, char * query) {
#ifdef ATTN_QUANTISED_KEYS
    if (attn_has_quantised_keys(keys)) {
        attn_load_quantised_query(keys, q, query);
        return;
    }
#endif
    const ggml_type_traits_cpu * traits = ggml_get_type_traits_cpu(keys.type);
    ggml_get_type_traits_cpu(traits->vec_dot_type)->from_float(q, query, keys.d);
#ifdef ATTN_ROWS_SIMD
    if (attn_in_vectors(keys)) {
        // from the end: a vector takes at least the place of what is loaded into it
        for (int64_t i = keys.d / GGML_F16_EPR - 1; i >= 0; --i) {
            ((GGML_F16_VEC *) query)[i] = GGML_F16_VEC_LOAD((const ggml_fp16_t *) query + i * GGML_F16_EPR, i);
        }
    }
#endif
}

void attn_multiply_keys(const attn_keys & keys, int n_rows, const char * const * queries, const char * k,
    const uint8_t * cells, int n_cells, float * const * scores) {
#ifdef ATTN_ROWS_SIMD
    if (attn_in_vectors(keys)) {
        attn_multiply_vectors(
            n_rows, keys.d, (const GGML_F16_VEC * const *) queries, k, keys.stride, cells, n_cells, scores);
        return;
    }
#endif
#ifdef ATTN_QUANTISED_KEYS
    if (attn_has_quantised_keys(keys)) {
        attn_multiply_quantised_keys(keys, n_rows, queries, k, cells, n_cells, scores);
        return;
    }
#endif
    const ggml_vec_dot_t vec_dot = ggml_get_type_traits_cpu(keys.type)->vec_dot;
    for (int c = 0; c < n_cells; ++c) {
        for (int r = 0; r < n_rows; ++r) {
            vec_dot(keys.d, &scores[r][cells[c]], 0, k + cells[c] * keys.stride, 0, queries[r], 0, 1);
        }
    }
}

float attn_finish_scores(
    float * scores, const float * bias, float scale, float logit_softcap, const uint8_t * cells, int n_cells) {
    if (n_cells == GGML_FA_TILE_KV && !bias && logit_softcap == 0.0f) {
        for (int c = 0; c < GGML_FA_TILE_KV; ++c) {
            scores[c] *= scale;
        }
        return attn_row_max(scores);
    }
    float top = -INFINITY;
    for (int i = 0; i < n_cells; ++i) {
        const int c = cells[i];
        float     s = scores[c] * scale;
        if (logit_softcap != 0.0f) {
            s = logit_softcap * tanhf(s);
        }
        s += bias ? bias[c] : 0.0f;
        scores[c] = s;
        top       = s > top ? s : top;
    }
    return top;
}

void attn_compute_weights(float * scores, float M, const uint8_t * cells, int n_cells) {
    if (n_cells > 0 && cells[n_cells - 1] - cells[0] == n_cells - 1) {
        attn_exp(scores + cells[0], n_cells, M);
        return;
    }
    for (int i = 0; i < n_cells; ++i) {
        scores[cells[i]] = expf(scores[cells[i]] - M);
    }
}

void attn_add_weights(int n_rows, const float * const * weights, float * S, const uint8_t * cells, int n_cells) {
    // sums wait for themselves alone, so those of some rows go side by side; who is not there is the first one again
    const float * w[ATTN_ROWS];
    float         sums[ATTN_ROWS];
    for (int r = 0; r < ATTN_ROWS; ++r) {
        w[r]    = weights[r < n_rows ? r : 0];
        sums[r] = S[r < n_rows ? r : 0];
    }
    for (int i = 0; i < n_cells; ++i) {
        for (int r = 0; r < ATTN_ROWS; ++r) {
            sums[r] += w[r][cells[i]];
        }
    }
    std::copy_n(sums, n_rows, S);
}
