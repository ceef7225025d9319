#pragma once

// The loops of attn-rows.h over a block of cells, which all variants share, so that none runs other instructions than attention
// without emulation does. Cells are counted from the block's first; k and v point to it.
//
// Each product and each sum is that of ggml_vec_dot, ggml_vec_mad_f16 or ggml_vec_mad_f32, called for one row and one cell after the other.

#include "ggml.h"

#include <cstddef>
#include <cstdint>
#include <type_traits>

static constexpr int ATTN_ROWS = 4; // how many at once

// calls f with their number as a constant, so that what is kept of each is in registers
template <class F>
auto attn_with_n_rows(int n_rows, F && f) {
    static_assert(ATTN_ROWS == 4, "as many as there are cases");
    switch (n_rows) {
        case 1:
            return f(std::integral_constant<int, 1>());
        case 2:
            return f(std::integral_constant<int, 2>());
        case 3:
            return f(std::integral_constant<int, 3>());
        default:
            return f(std::integral_constant<int, 4>());
    }
}

// the keys of a head
struct attn_keys {
    ggml_type type;
    int64_t   d;
    size_t    stride; // bytes from a cell to the next
};

// query: as the products with keys need it, aligned to 64 bytes, of at most 4 bytes for each of q's values
void attn_load_query(const attn_keys & keys, const float * q, char * query);

// scores[row][cell] = query of the row * key of the cell
void attn_multiply_keys(const attn_keys & keys, int n_rows, const char * const * queries, const char * k,
    const uint8_t * cells, int n_cells, float * const * scores);

// scaled, capped and biased, without any bias if it is null; returns the largest
float attn_finish_scores(
    float * scores, const float * bias, float scale, float logit_softcap, const uint8_t * cells, int n_cells);

// scores become weights exp(score - M), with M the maximum of their row
void attn_compute_weights(float * scores, float M, const uint8_t * cells, int n_cells);

// S[row] grows by the sum of the row's weights, cell by cell
void attn_add_weights(int n_rows, const float * const * weights, float * S, const uint8_t * cells, int n_cells);

// sums[row] += weights[row][cell] * v[cell], cell by cell; sums of F16 values are rounded to F16 after each
void attn_add_values(int n_rows, int64_t d_v, ggml_fp16_t * const * sums, const char * v, size_t v_stride,
    const uint8_t * cells, int n_cells, const float * const * weights);
void attn_add_values(int n_rows, int64_t d_v, float * const * sums, const char * v, size_t v_stride,
    const uint8_t * cells, int n_cells, const float * const * weights);
