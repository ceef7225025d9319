#include "attn-variants.h"

size_t ggml_cpu_attn_pattern_work_size(const ggml_tensor * fa, int n_threads) {
    if (ggml_flash_attn_ext_get_emulation(fa) != GGML_ATTN_EMULATION_RECORD) {
        return 0;
    }
    return attn_pattern_n_slots(fa, n_threads) * attn_pattern_candidates::size(fa->src[5]) +
        alignof(attn_pattern_candidates);
}

// With more cells than this for each listed one, stopping there takes less time than a comparison in every cell: a stop is
// mostly a mispredicted branch. Measured on x86 with 64 values per head.
static constexpr int64_t CELLS_PER_STOP = 96;

bool ggml_cpu_attn_boost_is_sparse(const ggml_tensor * fa) {
    const ggml_tensor * q = fa->src[0];
    const ggml_tensor * k = fa->src[1];

    const bool may_be_tiled = q->ne[1] >= GGML_FA_TILE_Q;
    if (may_be_tiled || ggml_flash_attn_ext_get_emulation_normalize(fa)) {
        return false;
    }
    int64_t n_listed = 0;
    for (int64_t iq3 = 0; iq3 < q->ne[3]; ++iq3) {
        for (int64_t iq2 = 0; iq2 < q->ne[2]; ++iq2) {
            for (int64_t iq1 = 0; iq1 < q->ne[1]; ++iq1) {
                attn_pattern_cursor row;
                if (row.find_row(fa, iq1, iq2, iq3) < 1.0f) {
                    return false; // what is taken away again leaves rounding errors
                }
                n_listed += row.end - row.next;
            }
        }
    }
    return n_listed * CELLS_PER_STOP < ggml_nrows(q) * k->ne[1];
}

void attn_sparse_boost::begin_row(int iq1, int iq2, int iq3, int64_t first_cell) {
    extra = row.find_row(fa, iq1, iq2, iq3) - 1.0f;
    if (first_cell > 0) {
        row.next = std::lower_bound(row.next, row.end, (int32_t) first_cell);
    }
}

void attn_sparse_boost::add_listed(
    int64_t cell, float weight, int iv2, int iv3, ggml_fp16_t * VKQ16, float * VKQ32, float * V32) const {
    const ggml_tensor * v      = fa->src[2];
    const char *        v_data = (const char *) v->data + cell * v->nb[1] + iv2 * v->nb[2] + iv3 * v->nb[3];
    if (v->type == GGML_TYPE_F16) {
        ggml_vec_mad_f16(v->ne[0], VKQ16, (const ggml_fp16_t *) v_data, extra * weight);
    } else {
        ggml_vec_mad_f32(v->ne[0], VKQ32, v->type == GGML_TYPE_F32 ? (const float *) v_data : V32, extra * weight);
    }
}
