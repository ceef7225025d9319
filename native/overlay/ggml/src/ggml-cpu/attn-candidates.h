#pragma once

// The cells of a row that may turn out to be above the threshold, see attn-variants.cpp.
//
// Weights are exp(s - M) with M the running maximum of the row and S their running sum. S relative to M never shrinks as cells
// are added, so a weight that is not above threshold*S now never will be, and less than 1/threshold candidates survive any
// prefix of the row.

#include "attn-tile.h"
#include "ggml.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

class attn_candidates {
  public:
    // twice the survivors of a row, so that dropping the others always makes room, and a tile's worth more to make it rare
    static int64_t capacity(const ggml_tensor * pattern) { return 2 * pattern->ne[0] + GGML_FA_TILE_KV; }

    // bytes
    static size_t size(const ggml_tensor * pattern) {
        return sizeof(attn_candidates) + (capacity(pattern) + STORED) * (sizeof(int32_t) + sizeof(float));
    }

    void clear(const ggml_tensor * pattern) {
        n     = 0;
        n_max = (int32_t) capacity(pattern);
        max   = -INFINITY;
    }

    // of a tile of cells, those with weights above the bound; the weights are relative to M
    void add(int64_t first_cell, int n_cells, const float * tile, float M, float bound) {
        uint64_t above = attn_find_above(tile, bound);
        if (n_cells < GGML_FA_TILE_KV) {
            above &= ((uint64_t) 1 << n_cells) - 1;
        }
        if (above == 0) {
            return;
        }
        if (M != max) {
            rescale(M);
        }
        if (n > n_max - GGML_FA_TILE_KV) {
            keep_above(bound, -1);
        }
        append(first_cell, tile, above);
    }

    // those with a weight above the bound, which is relative to M; copies the cells, without one of them, and returns how many
    int32_t finish(float M, float bound, int32_t without, int32_t * dst, int64_t n_dst) {
        if (M != max) {
            rescale(M);
        }
        keep_above(bound, without);
        const int32_t n_copied = (int32_t) std::min<int64_t>(n, n_dst);
        std::copy_n(cells(), n_copied, dst);
        return n_copied;
    }

  private:
    static constexpr int STORED = 16; // at once; what follows the last candidate is overwritten

    int32_t n;
    int32_t n_max;
    float   max; // weights are relative to it

    // [n_max + STORED] each
    int32_t * cells() { return (int32_t *) (this + 1); }

    float * weights() { return (float *) (cells() + n_max + STORED); }

    void rescale(float M) {
        if (n > 0) {
            const float scale = expf(max - M);
            float *     w     = weights();
            for (int32_t i = 0; i < n; ++i) {
                w[i] *= scale;
            }
        }
        max = M;
    }

#if defined(__AVX512F__)
    void append(int64_t first_cell, const float * tile, uint64_t above) {
        int32_t * c     = cells();
        float *   w     = weights();
        __m512i   cell  = _mm512_add_epi32(_mm512_set1_epi32((int32_t) first_cell), counting());
        int32_t   n_all = n;
        for (int i = 0; i < GGML_FA_TILE_KV; i += STORED, above >>= STORED) {
            const __mmask16 keep = (__mmask16) above;
            _mm512_storeu_si512(c + n_all, _mm512_maskz_compress_epi32(keep, cell));
            _mm512_storeu_ps(w + n_all, _mm512_maskz_compress_ps(keep, _mm512_loadu_ps(tile + i)));
            n_all += _mm_popcnt_u32(keep);
            cell = _mm512_add_epi32(cell, _mm512_set1_epi32(STORED));
        }
        n = n_all;
    }

    void keep_above(float bound, int32_t without) {
        int32_t * c      = cells();
        float *   w      = weights();
        int32_t   n_kept = 0;
        for (int32_t i = 0; i < n; i += STORED) {
            const __m512i cell   = _mm512_loadu_si512(c + i);
            const __m512  weight = _mm512_loadu_ps(w + i);
            const int32_t n_left = n - i;
            __mmask16     keep   = n_left < STORED ? (__mmask16) ((1u << n_left) - 1) : (__mmask16) 0xffff;
            keep                 = _mm512_mask_cmp_ps_mask(keep, weight, _mm512_set1_ps(bound), _CMP_GT_OQ);
            keep                 = _mm512_mask_cmpneq_epi32_mask(keep, cell, _mm512_set1_epi32(without));
            _mm512_storeu_si512(c + n_kept, _mm512_maskz_compress_epi32(keep, cell));
            _mm512_storeu_ps(w + n_kept, _mm512_maskz_compress_ps(keep, weight));
            n_kept += _mm_popcnt_u32(keep);
        }
        n = n_kept;
    }

    static __m512i counting() {
        return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    }
#else
    void append(int64_t first_cell, const float * tile, uint64_t above) {
        int32_t * c = cells();
        float *   w = weights();
        for (; above != 0; above &= above - 1, ++n) {
            const int i = attn_lowest_bit(above);
            c[n]        = (int32_t) first_cell + i;
            w[n]        = tile[i];
        }
    }

    void keep_above(float bound, int32_t without) {
        int32_t * c      = cells();
        float *   w      = weights();
        int32_t   n_kept = 0;
        for (int32_t i = 0; i < n; ++i) {
            const int32_t cell   = c[i];
            const float   weight = w[i];
            c[n_kept]            = cell;
            w[n_kept]            = weight;
            n_kept += (weight > bound) & (cell != without);
        }
        n = n_kept;
    }
#endif
};
