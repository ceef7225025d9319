#include "attn-rows.h"

#include "attn-block.h"
#include "attn-quantised.h"
#include "attn-tile.h"
#include "attn-variants.h"
#include "attn-work.h"
#include "common.h"
#include "ggml-cpu.h"
#include "ggml-cpu-impl.h"
#include "vec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

static constexpr int ATTN_BLOCK     = GGML_FA_TILE_KV; // cells
static constexpr int ATTN_N_AT_ONCE = 8;               // values of as many cells are dequantised before they are added

namespace {

constexpr std::array<uint8_t, ATTN_BLOCK> EACH_CELL = [] {
    std::array<uint8_t, ATTN_BLOCK> cells{};
    for (int i = 0; i < ATTN_BLOCK; ++i) {
        cells[i] = i;
    }
    return cells;
}();

// heads with the same keys and values
int64_t count_sharing_heads(const ggml_tensor * fa) {
    return fa->src[0]->ne[2] / std::max(fa->src[1]->ne[2], fa->src[2]->ne[2]);
}

// a (query, head) pair
struct attn_row {
    int64_t             iq1, iq2;
    float               slope;
    const ggml_fp16_t * mask;

    bool sums_in_f16; // as llama.cpp has them where values are F16

    float M; // the maximum of the scores so far
    float S; // the sum of exp(score - M)

    // of a block of cells
    int             n_visible;
    const uint8_t * visible; // EACH_CELL or some_cells
    const float *   bias;    // null: none

    uint8_t some_cells[ATTN_BLOCK];
    float   some_bias[ATTN_BLOCK];
};

// what a thread needs for the rows in progress: parts of the work buffer
struct attn_rows_scratch {
    char *        q[ATTN_ROWS];        // as keys need it
    float *       sums[ATTN_ROWS];     // of weight * value
    ggml_fp16_t * sums_f16[ATTN_ROWS]; // instead of them, see attn_row::sums_in_f16
    float *       v;                   // [ATTN_N_AT_ONCE][d_v], dequantised

    float (*weights)[ATTN_BLOCK]; // [ATTN_ROWS + 1], scores at first; the variant may read a block from any cell on
    attn_row * rows;              // [ATTN_ROWS]

    attn_rows_scratch(char * work, const ggml_tensor * fa) {
        const size_t q_size   = size_of_query(fa);
        const size_t sum_size = size_of_values(fa);
        for (int r = 0; r < ATTN_ROWS; ++r, work += q_size + 2 * sum_size) {
            q[r]        = work;
            sums[r]     = (float *) (work + q_size);
            sums_f16[r] = (ggml_fp16_t *) (work + q_size + sum_size);
        }
        v = (float *) work;
        work += ATTN_N_AT_ONCE * sum_size;
        weights = (float(*)[ATTN_BLOCK]) work;
        rows    = (attn_row *) (work + (ATTN_ROWS + 1) * ATTN_BLOCK * sizeof(float));
    }

    static size_t size(const ggml_tensor * fa) {
        return ATTN_ROWS * (size_of_query(fa) + 2 * size_of_values(fa)) + ATTN_N_AT_ONCE * size_of_values(fa) +
            (ATTN_ROWS + 1) * ATTN_BLOCK * sizeof(float) + ATTN_ROWS * sizeof(attn_row);
    }

  private:
    static size_t size_of_query(const ggml_tensor * fa) { return GGML_PAD(fa->src[1]->ne[0] * sizeof(float), 64); }

    static size_t size_of_values(const ggml_tensor * fa) { return GGML_PAD(fa->src[2]->ne[0] * sizeof(float), 64); }
};

class attn_rows {
  public:
    attn_rows(const ggml_compute_params * params, ggml_tensor * dst, attn_variant & variant) :
        dst(dst),
        q(dst->src[0]),
        k(dst->src[1]),
        v(dst->src[2]),
        mask(dst->src[3]),
        sinks(dst->src[4]),
        variant(variant),
        scratch(ggml_cpu_attn_rows_work(params, dst), dst),
        keys{ k->type, k->ne[0], k->nb[1] },
        v_to_float(attn_to_float(v->type)) {
        memcpy(&scale, dst->op_params + 0, sizeof(float));
        memcpy(&max_bias, dst->op_params + 1, sizeof(float));
        memcpy(&logit_softcap, dst->op_params + 2, sizeof(float));
        if (logit_softcap != 0.0f) {
            scale /= logit_softcap;
        }
        GGML_ASSERT(ggml_get_type_traits_cpu(k->type)->vec_dot && "fattn: unsupported K-type");
        GGML_ASSERT((v->type == GGML_TYPE_F32 || v_to_float) && "fattn: unsupported V-type");
    }

    void compute(int ir0, int ir1, int64_t ic_start, int64_t ic_end, float * partials, int64_t partial_stride) {
        for (int ir = ir0; ir < ir1; ir += n_rows) {
            begin_rows(ir, ir1);
            for (int64_t ic = ic_start; ic < ic_end; ic += ATTN_BLOCK) {
                add_block(ic, std::min<int64_t>(ATTN_BLOCK, ic_end - ic));
            }
            for (int r = 0; r < n_rows; ++r) {
                end_row(r, ic_start == 0, partials ? partials + (ir + r) * partial_stride : nullptr);
            }
        }
    }

  private:
    ggml_tensor *       dst;
    const ggml_tensor * q;
    const ggml_tensor * k;
    const ggml_tensor * v;
    const ggml_tensor * mask;
    const ggml_tensor * sinks;
    attn_variant &      variant;
    attn_rows_scratch   scratch;
    attn_keys           keys;
    ggml_to_float_t     v_to_float;

    float scale;
    float max_bias;
    float logit_softcap;

    // those in progress, all with the same keys and values
    int          n_rows;
    int64_t      iq3;
    const char * k_head;
    const char * v_head;

    void begin_rows(int ir, int ir_end) {
        const int64_t n_q     = q->ne[1];
        const int64_t iq2     = ir / n_q % q->ne[2];
        const int64_t n_share = count_sharing_heads(dst);
        const int64_t n_same  = n_q == 1 ? n_share - iq2 % n_share : n_q - ir % n_q;

        n_rows = std::min<int64_t>(std::min(ATTN_ROWS, ir_end - ir), n_same);
        iq3    = ir / n_q / q->ne[2];
        k_head =
            (const char *) k->data + iq2 / (q->ne[2] / k->ne[2]) * k->nb[2] + iq3 / (q->ne[3] / k->ne[3]) * k->nb[3];
        v_head =
            (const char *) v->data + iq2 / (q->ne[2] / v->ne[2]) * v->nb[2] + iq3 / (q->ne[3] / v->ne[3]) * v->nb[3];
        for (int r = 0; r < n_rows; ++r) {
            begin_row(r, (ir + r) % n_q, (ir + r) / n_q % q->ne[2]);
        }
    }

    float slope_of(int64_t head) const {
        if (max_bias <= 0.0f) {
            return 1.0f;
        }
        const uint32_t n_head_log2 = 1u << (uint32_t) floor(log2(q->ne[2]));
        const float    m0          = powf(2.0f, -(max_bias) / n_head_log2);
        const float    m1          = powf(2.0f, -(max_bias / 2.0f) / n_head_log2);
        return head < n_head_log2 ? powf(m0, head + 1) : powf(m1, 2 * (head - n_head_log2) + 1);
    }

    void begin_row(int r, int64_t iq1, int64_t iq2) {
        attn_row & x = scratch.rows[r];
        x.iq1        = iq1;
        x.iq2        = iq2;
        x.slope      = slope_of(iq2);
        x.mask       = mask ? (const ggml_fp16_t *) ((const char *) mask->data + iq1 * mask->nb[1] +
                            iq2 % mask->ne[2] * mask->nb[2] + iq3 % mask->ne[3] * mask->nb[3]) :
                              nullptr;
        x.M          = -INFINITY;
        x.S          = 0.0f;

        attn_load_query(keys,
            (const float *) ((const char *) q->data + iq1 * q->nb[1] + iq2 * q->nb[2] + iq3 * q->nb[3]), scratch.q[r]);
        memset(scratch.sums[r], 0, v->ne[0] * sizeof(float));
        memset(scratch.sums_f16[r], 0, v->ne[0] * sizeof(ggml_fp16_t));
        variant.begin_row(r, iq1, iq2, iq3);
        x.sums_in_f16 = v->type == GGML_TYPE_F16 && !variant.has_large_weights(r);
    }

    void add_block(int64_t ic, int n_cells) {
        bool same = true;
        for (int r = 0; r < n_rows; ++r) {
            find_visible(r, ic, n_cells);
            same = same && same_visible(scratch.rows[0], scratch.rows[r]);
        }
        if (same) {
            add_block(ic, 0, n_rows);
        } else {
            for (int r = 0; r < n_rows; ++r) {
                add_block(ic, r, 1);
            }
        }
    }

    // rows that see the same cells
    void add_block(int64_t ic, int first, int n) {
        if (scratch.rows[first].n_visible == 0) {
            return;
        }
        multiply_keys(first, n, ic);

        // those whose maximum stays take the rest together
        int ready[ATTN_ROWS];
        int n_ready = 0;
        for (int r = first; r < first + n; ++r) {
            const attn_row & x = scratch.rows[r];
            const float      top =
                attn_finish_scores(scratch.weights[r], x.bias, scale, logit_softcap, x.visible, x.n_visible);
            if (top > x.M) {
                add_rising_row(r, ic);
            } else {
                ready[n_ready++] = r;
            }
        }
        if (n_ready > 0) {
            compute_weights(ready, n_ready, ic);
            add_values(ready, n_ready, ic, 0, scratch.rows[first].n_visible);
        }
    }

    void compute_weights(const int * which, int n, int64_t ic) {
        const attn_row & same = scratch.rows[which[0]];

        float * w[ATTN_ROWS];
        float   S[ATTN_ROWS];
        for (int i = 0; i < n; ++i) {
            w[i] = scratch.weights[which[i]];
            S[i] = scratch.rows[which[i]].S;
            attn_compute_weights(w[i], scratch.rows[which[i]].M, same.visible, same.n_visible);
        }
        attn_add_weights(n, w, S, same.visible, same.n_visible);
        for (int i = 0; i < n; ++i) {
            std::swap(scratch.rows[which[i]].S, S[i]);
            apply_variant(which[i], ic, 0, same.n_visible, S[i]);
        }
    }

    void find_visible(int r, int64_t ic, int n_cells) {
        attn_row & x = scratch.rows[r];
        if (r > 0 && x.mask == scratch.rows[0].mask && x.slope == scratch.rows[0].slope) {
            x.n_visible = scratch.rows[0].n_visible;
            x.visible   = scratch.rows[0].visible;
            x.bias      = scratch.rows[0].bias;
        } else if (!x.mask || attn_mask_is_zero((const char *) (x.mask + ic), 0, 1, n_cells)) {
            x.n_visible = n_cells;
            x.visible   = EACH_CELL.data();
            x.bias      = nullptr;
        } else {
            x.n_visible = 0;
            for (int c = 0; c < n_cells; ++c) {
                x.some_bias[c] = x.slope * GGML_CPU_FP16_TO_FP32(x.mask[ic + c]);
                if (x.some_bias[c] != -INFINITY) {
                    x.some_cells[x.n_visible++] = c;
                }
            }
            x.visible = x.some_cells;
            x.bias    = x.some_bias;
        }
        if (x.n_visible < ATTN_BLOCK) {
            std::fill_n(scratch.weights[r], ATTN_BLOCK, 0.0f);
        }
    }

    static bool same_visible(const attn_row & a, const attn_row & b) {
        return a.n_visible == b.n_visible && (a.visible == b.visible || memcmp(a.visible, b.visible, a.n_visible) == 0);
    }

    void multiply_keys(int first, int n, int64_t ic) {
        float * scores[ATTN_ROWS];
        for (int i = 0; i < n; ++i) {
            scores[i] = scratch.weights[first + i];
        }
        const attn_row & x = scratch.rows[first];
        attn_multiply_keys(keys, n, scratch.q + first, k_head + ic * keys.stride, x.visible, x.n_visible, scores);
    }

    // visible cells [begin, end), whose weights are relative to the present maximum; S_before: without them
    void apply_variant(int r, int64_t ic, int begin, int end, float S_before) {
        if (variant.is_idle(r, ic + ATTN_BLOCK)) {
            return;
        }
        attn_row & x     = scratch.rows[r];
        const int  first = x.visible[begin];
        const int  n     = x.visible[end - 1] + 1 - first;
        float *    w     = scratch.weights[r] + first;
        if (variant.only_scales) {
            variant.scale(r, ic + first, n, w);
            return;
        }
        if (!variant.changes_sums) {
            ggml_float none = 0.0;
            variant.apply(r, ic + first, n, w, x.M, x.S, &none);
            return;
        }
        ggml_float sum = 0.0;
        for (int c = 0; c < n; ++c) {
            sum += w[c];
        }
        ggml_float changed = sum;
        variant.apply(r, ic + first, n, w, x.M, S_before, &changed);
        if (changed != sum) {
            x.S = S_before + changed;
        }
    }

    // the maximum grows on the way: a run of cells is all that have the same one
    void add_rising_row(int r, int64_t ic) {
        attn_row & x        = scratch.rows[r];
        float *    w        = scratch.weights[r];
        float      S_before = x.S;
        int        begin    = 0;
        while (begin < x.n_visible) {
            int         rest = begin; // of the run, without a new maximum
            const float s    = w[x.visible[begin]];
            if (s > x.M) {
                const float ms = expf(x.M - s);
                if (x.sums_in_f16) {
                    ggml_vec_scale_f16(v->ne[0], scratch.sums_f16[r], ms);
                } else {
                    ggml_vec_scale_f32(v->ne[0], scratch.sums[r], ms);
                }
                S_before = fmaf(x.S, ms, 0.0f); // a plain product would keep the compiler from fusing the one below

                x.M                  = s;
                x.S                  = x.S * ms + 1.0f;
                w[x.visible[rest++]] = 1.0f;
            }
            int end = rest;
            while (end < x.n_visible && !(w[x.visible[end]] > x.M)) {
                ++end;
            }
            attn_compute_weights(w, x.M, x.visible + rest, end - rest);
            for (int i = rest; i < end; ++i) {
                x.S += w[x.visible[i]];
            }
            apply_variant(r, ic, begin, end, S_before);
            add_values(&r, 1, ic, begin, end);
            begin = end;
        }
    }

    // the visible cells [begin, end) of rows that see the same ones
    void add_values(const int * which, int n, int64_t ic, int begin, int end) {
        const uint8_t * cells   = scratch.rows[which[0]].visible + begin;
        const int       n_cells = end - begin;
        const char *    values  = v_head + ic * v->nb[1];

        float *       sums[ATTN_ROWS];
        const float * w[ATTN_ROWS];
        int           n_f32 = 0;
        ggml_fp16_t * sums_f16[ATTN_ROWS];
        const float * w_f16[ATTN_ROWS];
        int           n_f16 = 0;
        for (int i = 0; i < n; ++i) {
            const int r = which[i];
            if (scratch.rows[r].sums_in_f16) {
                sums_f16[n_f16] = scratch.sums_f16[r];
                w_f16[n_f16++]  = scratch.weights[r];
            } else {
                sums[n_f32] = scratch.sums[r];
                w[n_f32++]  = scratch.weights[r];
            }
        }
        if (n_f16 > 0) {
            attn_add_values(n_f16, v->ne[0], sums_f16, values, v->nb[1], cells, n_cells, w_f16);
        }
        if (n_f32 > 0 && v->type == GGML_TYPE_F32) {
            attn_add_values(n_f32, v->ne[0], sums, values, v->nb[1], cells, n_cells, w);
        } else if (n_f32 > 0) {
            add_dequantised(n_f32, sums, values, cells, n_cells, w);
        }
    }

    void add_dequantised(
        int n, float * const * sums, const char * values, const uint8_t * cells, int n_cells, const float * const * w) {
        static const uint8_t ORDER[ATTN_N_AT_ONCE] = { 0, 1, 2, 3, 4, 5, 6, 7 };

        const size_t  v_size = ggml_row_size(v->type, v->ne[0]);
        float         some[ATTN_ROWS][ATTN_N_AT_ONCE];
        const float * some_of[ATTN_ROWS] = { some[0], some[1], some[2], some[3] };
        for (int begin = 0; begin < n_cells; begin += ATTN_N_AT_ONCE) {
            const int n_some = std::min(ATTN_N_AT_ONCE, n_cells - begin);
            for (int c = 0; c < n_some; ++c) {
                const char * value = values + cells[begin + c] * v->nb[1];
                attn_prefetch(value, v->nb[1], v_size);
                v_to_float(value, scratch.v + c * v->ne[0], v->ne[0]);
                for (int r = 0; r < n; ++r) {
                    some[r][c] = w[r][cells[begin + c]];
                }
            }
            attn_add_values(
                n, v->ne[0], sums, (const char *) scratch.v, v->ne[0] * sizeof(float), ORDER, n_some, some_of);
        }
    }

    void end_row(int r, bool first_cells, float * partial) {
        attn_row &    x   = scratch.rows[r];
        float *       sum = scratch.sums[r];
        const int64_t d_v = v->ne[0];
        if (x.sums_in_f16) {
            for (int64_t d = 0; d < d_v; ++d) {
                sum[d] = GGML_CPU_FP16_TO_FP32(scratch.sums_f16[r][d]);
            }
        }
        if (sinks && first_cells) {
            add_sink(x, sum, ((const float *) sinks->data)[x.iq2]);
        }
        if (partial) {
            partial[0] = x.M;
            partial[1] = x.S;
            memcpy(partial + 2, sum, d_v * sizeof(float));
            return;
        }
        variant.end_row(r, x.iq1, x.iq2, iq3, x.M, x.S);
        ggml_vec_scale_f32(d_v, sum, x.S == 0.0f ? 0.0f : 1.0f / x.S);
        memcpy(
            (char *) dst->data + x.iq2 * dst->nb[1] + x.iq1 * dst->nb[2] + iq3 * dst->nb[3], sum, d_v * sizeof(float));
    }

    void add_sink(attn_row & x, float * sum, float s) {
        float ms = 1.0f;
        float vs = 1.0f;
        if (s > x.M) {
            ms  = expf(x.M - s);
            x.M = s;
            ggml_vec_scale_f32(v->ne[0], sum, ms);
        } else {
            vs = expf(s - x.M);
        }
        x.S = x.S * ms + vs;
    }
};

} // namespace

void attn_compute_rows(const ggml_compute_params * params, ggml_tensor * dst, attn_variant & variant, int ir0, int ir1,
    int64_t ic_start, int64_t ic_end, float * partials, int64_t partial_stride) {
    attn_rows(params, dst, variant).compute(ir0, ir1, ic_start, ic_end, partials, partial_stride);
}

int64_t attn_rows_at_a_time(const ggml_tensor * fa, int64_t n_rows, int n_threads) {
    const int64_t n_q     = fa->src[0]->ne[1];
    const int64_t n_all   = n_q * fa->src[0]->ne[2] * fa->src[0]->ne[3];
    const int64_t n_share = count_sharing_heads(fa);
    if (n_q > 1 || n_all < n_threads * n_share) {
        return n_rows;
    }
    return (n_rows + n_share - 1) / n_share * n_share;
}

size_t attn_rows_work_size(const ggml_tensor * fa) {
    return attn_rows_scratch::size(fa);
}
