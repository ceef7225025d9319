#include "attn-variants.h"

#include "attn-candidates.h"
#include "attn-rows.h"
#include "attn-tile.h"
#include "attn-work.h"
#include "ggml-cpu-impl.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

attn_variant::attn_variant(bool changes_sums, bool only_scales, int64_t next_cell) :
    changes_sums(changes_sums),
    only_scales(only_scales) {
    std::fill_n(next_cells, GGML_FA_TILE_Q, next_cell);
}

namespace {

class plain final : public attn_variant {
  public:
    plain() : attn_variant(false, false, INT64_MAX) {}

    void begin_row(int, int, int, int) override {}

    void apply(int, int64_t, int, float *, float, float, ggml_float *) override {}

    void apply_tile(int, int64_t, float *, const float *, const float *, ggml_float *) override {}

    void end_row(int, int, int, int, float, float) override {}

    void merge_chunks(int, int64_t, float, float) override {}
};

// rows that may be in progress at once: a few per thread, a tile of queries per thread, or (chunk of cells, head)
int64_t n_slots(const ggml_tensor * fa, int n_threads) {
    const int64_t n_q = fa->src[0]->ne[1];
    return n_threads * (n_q == 1 ? fa->src[0]->ne[2] : n_q >= GGML_FA_TILE_Q ? GGML_FA_TILE_Q : ATTN_ROWS);
}

class record final : public attn_variant {
  public:
    record(const ggml_compute_params * params, const ggml_tensor * fa) :
        attn_variant(false, false, INT64_MIN),
        fa(fa),
        pattern(fa->src[5]),
        own_cells((const int32_t *) fa->src[6]->data),
        slots(ggml_cpu_attn_variant_work(params, fa)),
        slot_size(attn_candidates::size(pattern)),
        first_slot(params->ith * (n_slots(fa, params->nth) / params->nth)),
        split(fa->src[0]->ne[1] == 1) {
        memcpy(&threshold, fa->op_params + 6, sizeof(float));
    }

    void begin_row(int row, int, int iq2, int) override {
        candidates[row] = slot(first_slot + (split ? iq2 : row));
        candidates[row]->clear(pattern);
    }

    void apply(int row, int64_t cell, int n_cells, float * weights, float M, float S, ggml_float * sum) override {
        const float S_new = S + *sum;
        candidates[row]->add(cell, n_cells, weights, M, threshold * S_new);
    }

    void apply_tile(
        int n_rows, int64_t cell, float * weights, const float * M, const float * S, ggml_float * sums) override {
        for (int row = 0; row < n_rows; ++row) {
            apply(row, cell, GGML_FA_TILE_KV, weights + row * GGML_FA_TILE_KV, M[row], S[row], sums + row);
        }
    }

    void end_row(int row, int iq1, int iq2, int iq3, float M, float S) override {
        int32_t * dst = begin_pattern(iq1, iq2, iq3);
        append(dst, *candidates[row], iq1, iq3, M, S);
    }

    void merge_chunks(int iq2, int64_t n_chunks, float M, float S) override {
        int32_t * dst = begin_pattern(0, iq2, 0);
        for (int64_t chunk = 0; chunk < n_chunks; ++chunk) {
            append(dst, *slot(chunk * fa->src[0]->ne[2] + iq2), 0, 0, M, S);
        }
    }

  private:
    const ggml_tensor * fa;
    const ggml_tensor * pattern;
    const int32_t *     own_cells;
    float               threshold;
    char *              slots;
    size_t              slot_size;
    int64_t             first_slot; // of this thread
    bool                split;      // this thread does a chunk of cells of each row, n_threads chunks in all

    // in progress; a decoded row is kept until its chunks are merged
    attn_candidates * candidates[GGML_FA_TILE_Q];

    attn_candidates * slot(int64_t i) { return (attn_candidates *) (slots + i * slot_size); }

    int32_t * begin_pattern(int iq1, int iq2, int iq3) {
        int32_t * dst =
            (int32_t *) ((char *) pattern->data + iq1 * pattern->nb[1] + iq2 * pattern->nb[2] + iq3 * pattern->nb[3]);
        dst[0] = 0;
        return dst;
    }

    void append(int32_t * dst, attn_candidates & from, int iq1, int iq3, float M, float S) {
        const int32_t own = own_cells[iq3 * fa->src[0]->ne[1] + iq1];
        dst[0] += from.finish(M, threshold * S, own, dst + 1 + dst[0], pattern->ne[0] - 1 - dst[0]);
    }
};

class boost final : public attn_variant {
  public:
    boost(const ggml_compute_params * params, const ggml_tensor * fa) :
        attn_variant(ggml_flash_attn_ext_get_emulation_normalize(fa), !ggml_flash_attn_ext_get_emulation_normalize(fa),
            INT64_MAX),
        fa(fa),
        pattern(fa->src[5]),
        strength((const float *) fa->src[6]->data),
        gain((const float *) fa->src[7]->data),
        to_prefetch((fa->src[0]->ne[1] >= GGML_FA_TILE_Q ? GGML_FA_TILE_Q : ATTN_ROWS) * pattern->nb[1]),
        n_tiles(count_tiles(fa)),
        due((uint64_t *) (ggml_cpu_attn_variant_work(params, fa) + params->ith * due_size(fa))) {}

    // bytes
    static size_t due_size(const ggml_tensor * fa) { return GGML_PAD((count_tiles(fa) + 1) * sizeof(uint64_t), 64); }

    void begin_row(int row, int iq1, int iq2, int iq3) override {
        const int32_t * list   = (const int32_t *) ((const char *) pattern->data + iq1 * pattern->nb[1] +
            iq2 * pattern->nb[2] + iq3 * pattern->nb[3]);
        const float     factor = 1.0f + strength[iq3 * fa->src[0]->ne[1] + iq1] * gain[iq2];

        listed & x = rows[row];
        x.factor   = factor;
        x.next     = list + 1;
        x.end      = x.next + (factor == 1.0f ? 0 : list[0]);
        x.dense    = x.end - x.next > MANY * n_tiles;
        // between two layers the lists have left the caches: the rest of this one, and the beginning of one to come
        for (const int32_t * line = x.next + 15; line < x.end; line += 16) {
            attn_prefetch(line);
        }
        attn_prefetch((const char *) x.next + to_prefetch);
        attn_prefetch((const char *) x.next + to_prefetch + 60);
        next_cells[row] = x.next < x.end ? *x.next : INT64_MAX;
        next_tile       = -1;
    }

    bool has_large_weights(int row) const override {
        return (rows[row].end - rows[row].next) * rows[row].factor > LARGE_SUM;
    }

    void apply(int row, int64_t cell, int n_cells, float * weights, float, float, ggml_float * sum) override {
        scale(row, cell, n_cells, weights);
        if (changes_sums) {
            *sum = add(weights, n_cells);
        }
    }

    void apply_tile(
        int n_rows, int64_t cell, float * weights, const float *, const float *, ggml_float * sums) override {
        if (next_tile < 0) {
            begin_tiles(n_rows);
        }
        const int64_t tile = cell / GGML_FA_TILE_KV;
        for (; next_tile < tile; ++next_tile) {
            // none unless the tile was left out
            take_due(next_tile, [&](int row) { rows[row].next = skip(rows[row].next, rows[row].end, cell); });
        }
        ++next_tile;
        uint64_t changed = due[tile];
        while (due[tile] != 0) {
            take_due(tile, [&](int row) {
                float * w = weights + row * GGML_FA_TILE_KV;
                if (rows[row].dense) {
                    scale(row, cell, GGML_FA_TILE_KV, w);
                } else {
                    w[*rows[row].next++ - cell] *= rows[row].factor;
                }
            });
        }
        for (; changes_sums && changed != 0; changed &= changed - 1) {
            const int row = attn_lowest_bit(changed);
            sums[row]     = add(weights + row * GGML_FA_TILE_KV, GGML_FA_TILE_KV);
        }
    }

    void end_row(int, int, int, int, float, float) override {}

    void merge_chunks(int, int64_t, float, float) override {}

  private:
    static constexpr int   MANY = 8; // listed cells in a tile, above which a loop over them is faster
    static constexpr float LARGE_SUM =
        256.0f; // of weights, while F16 ends at 65504; a plain row of as many cells comes to it, too

    const ggml_tensor * fa;
    const ggml_tensor * pattern;
    const float *       strength;
    const float *       gain;
    size_t              to_prefetch; // bytes from a list to that of the row that takes its place

    // For each tile of cells, a bit for each row whose next listed cell is there; at the end, for rows without one. How many
    // cells a row lists in a tile can't be predicted, so they are taken one by one, one of each row after the other.
    static_assert(GGML_FA_TILE_Q == 64, "as many rows as bits");
    int64_t    n_tiles;
    uint64_t * due;
    int64_t    next_tile; // not yet seen; -1 until the first one is

    static int64_t count_tiles(const ggml_tensor * fa) {
        return (fa->src[1]->ne[1] + GGML_FA_TILE_KV - 1) / GGML_FA_TILE_KV;
    }

    void begin_tiles(int n_rows) {
        next_tile = 0;
        std::fill_n(due, n_tiles + 1, 0);
        for (int row = 0; row < n_rows; ++row) {
            set_due(row);
        }
    }

    template <class F>
    void take_due(int64_t tile, F && take) {
        uint64_t which = due[tile];
        due[tile]      = 0;
        for (; which != 0; which &= which - 1) {
            const int row = attn_lowest_bit(which);
            take(row);
            set_due(row);
        }
    }

    void set_due(int row) {
        const listed & x    = rows[row];
        const int64_t  tile = x.next < x.end ? (uint32_t) *x.next / GGML_FA_TILE_KV : n_tiles;
        due[std::min(tile, n_tiles)] |= (uint64_t) 1 << row;
    }

    // cells that are masked in this layer
    static const int32_t * skip(const int32_t * next, const int32_t * end, int64_t cell) {
        while (next < end && *next < cell) {
            ++next;
        }
        return next;
    }

    // anew, as what remains of a sum may be far smaller than what is taken from it
    static ggml_float add(const float * weights, int n_cells) {
        ggml_float sum = 0.0;
        for (int i = 0; i < n_cells; ++i) {
            sum += weights[i];
        }
        return sum;
    }
};

} // namespace

void attn_with_variant(const ggml_compute_params * params, ggml_tensor * fa,
    void (*compute)(const ggml_compute_params * params, ggml_tensor * fa, attn_variant & variant)) {
    switch (ggml_flash_attn_ext_get_emulation(fa)) {
        case GGML_ATTN_EMULATION_NONE:
            {
                plain variant;
                return compute(params, fa, variant);
            }
        case GGML_ATTN_EMULATION_RECORD:
            {
                record variant(params, fa);
                return compute(params, fa, variant);
            }
        case GGML_ATTN_EMULATION_BOOST:
            {
                boost variant(params, fa);
                return compute(params, fa, variant);
            }
    }
}

size_t attn_variant_work_size(const ggml_tensor * fa, int n_threads) {
    switch (ggml_flash_attn_ext_get_emulation(fa)) {
        case GGML_ATTN_EMULATION_NONE:
            return 0;
        case GGML_ATTN_EMULATION_RECORD:
            return n_slots(fa, n_threads) * attn_candidates::size(fa->src[5]);
        case GGML_ATTN_EMULATION_BOOST:
            return n_threads * boost::due_size(fa);
    }
    return 0;
}
