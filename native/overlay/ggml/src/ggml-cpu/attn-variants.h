#pragma once

// Variants of the CPU's flash attention, as hooks over rows and blocks of cells: plain, recording the pattern of early-layer
// emulation, and boosting the weights that a pattern lists. See ggml-attn-emulation.h.
//
// A row is a (query, head) pair. Weights are exp(s - M) with M the running maximum of the row and S their running sum. S
// relative to M never shrinks as cells are added, so a weight that is not above threshold*S now never will be, and less
// than 1/threshold candidates survive any prefix of the row.

#include "ggml-attn-emulation.h"

#include "attn-block.h"
#include "attn-tile.h"
#include "attn-work.h"
#include "common.h"
#include "ggml-cpu-impl.h"
#include "vec.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

// one of the rows that a thread has in progress
struct attn_pattern_candidates {
    struct candidate {
        int32_t cell;
        float   weight; // relative to max
        float   max;    // of the row when the cell was seen
    };

    int32_t   n;
    candidate list[1]; // [capacity]

    // twice the survivors of a row, so that compaction always makes room, and a tile's worth more to make it rare
    static int64_t capacity(const ggml_tensor * pattern) { return 2 * pattern->ne[0] + 64; }

    static size_t size(const ggml_tensor * pattern) {
        return sizeof(attn_pattern_candidates) + (capacity(pattern) - 1) * sizeof(candidate);
    }

    template <class F>
    void filter(float threshold, float M, float S, F && keep) {
        const float bound = threshold * S;
        // neighbours were mostly seen under the same maximum
        float max   = M;
        float scale = 1.0f;
        for (int32_t i = 0; i < n; ++i) {
            const candidate & c = list[i];
            if (c.max != max) {
                max   = c.max;
                scale = expf(max - M);
            }
            if (c.weight * scale > bound) {
                keep(c);
            }
        }
    }

    void compact(float threshold, float M, float S) {
        int32_t n_kept = 0;
        filter(threshold, M, S, [&](const candidate & c) { list[n_kept++] = c; });
        n = n_kept;
    }
};

// rows that may be in progress at once: a few per thread, a tile of queries per thread, or (chunk of cells, head)
inline int64_t attn_pattern_n_slots(const ggml_tensor * fa, int n_threads) {
    const int64_t n_q = fa->src[0]->ne[1];
    return n_threads * (n_q == 1 ? fa->src[0]->ne[2] : n_q >= GGML_FA_TILE_Q ? GGML_FA_TILE_Q : ATTN_ROWS);
}

// the listed cells of a row that are still to come
struct attn_pattern_cursor {
    const int32_t * next = nullptr;
    const int32_t * end  = nullptr;

    // the next listed cell, or past all cells
    int64_t cell() const { return next < end ? *next : INT64_MAX; }

    // returns the factor of the row's listed weights; none is listed when it is 1
    float find_row(const ggml_tensor * fa, int iq1, int iq2, int iq3) {
        const ggml_tensor * pattern  = fa->src[5];
        const float *       strength = (const float *) fa->src[6]->data;
        const float *       gain     = (const float *) fa->src[7]->data;

        const int32_t * list   = (const int32_t *) ((const char *) pattern->data + iq1 * pattern->nb[1] +
            iq2 * pattern->nb[2] + iq3 * pattern->nb[3]);
        const float     factor = 1.0f + strength[iq3 * fa->src[0]->ne[1] + iq1] * gain[iq2];
        next                   = list + 1;
        end                    = next + (factor == 1.0f ? 0 : list[0]);
        return factor;
    }
};

struct attn_variant_plain {
    // whether apply returns another sum than it was given
    static constexpr bool CHANGES_SUM = false;

    attn_variant_plain(const ggml_compute_params *, const ggml_tensor *) {}

    void begin_row(int, int, int, int) {}

    // whether apply has nothing to do up to a cell
    bool is_idle(int, int64_t) const { return true; }

    // weights: of n cells, at most GGML_FA_TILE_KV, from the given one on, 0 where masked; M and S before them, and their sum,
    // of which it returns what is to be added to S
    ggml_float apply(int, int64_t, int, float *, float, float, ggml_float sum) { return sum; }

    void end_row(int, int, int, int, float, float) {}
};

struct attn_variant_record : attn_variant_plain {
    const ggml_tensor * fa;
    const ggml_tensor * pattern;
    const int32_t *     own_cells;
    float               threshold;
    char *              slots;
    size_t              slot_size;
    int64_t             capacity;
    int64_t             first_slot; // of this thread
    bool                split;      // this thread does a chunk of cells of each row, n_threads chunks in all

    // in progress; a decoded row is kept until its chunks are merged
    attn_pattern_candidates * rows[GGML_FA_TILE_Q];

    attn_variant_record(const ggml_compute_params * params, const ggml_tensor * fa) :
        attn_variant_plain(params, fa),
        fa(fa),
        pattern(fa->src[5]),
        own_cells((const int32_t *) fa->src[6]->data) {
        memcpy(&threshold, fa->op_params + 6, sizeof(float));

        slot_size  = attn_pattern_candidates::size(pattern);
        capacity   = attn_pattern_candidates::capacity(pattern);
        slots      = ggml_cpu_attn_pattern_work(params, fa);
        split      = fa->src[0]->ne[1] == 1;
        first_slot = params->ith * (attn_pattern_n_slots(fa, params->nth) / params->nth);
    }

    attn_pattern_candidates * slot(int64_t i) { return (attn_pattern_candidates *) (slots + i * slot_size); }

    void begin_row(int tq, int, int iq2, int) {
        rows[tq]    = slot(first_slot + (split ? iq2 : tq));
        rows[tq]->n = 0;
    }

    bool is_idle(int, int64_t) const { return false; }

    ggml_float apply(int tq, int64_t cell, int n_cells, float * weights, float M, float S, ggml_float sum) {
        const float S_new = S + sum;
        uint64_t    above = attn_find_above(weights, threshold * S_new);
        if (n_cells < GGML_FA_TILE_KV) {
            above &= ((uint64_t) 1 << n_cells) - 1;
        }
        if (above == 0) {
            return sum;
        }
        attn_pattern_candidates * row = rows[tq];
        if (row->n > capacity - GGML_FA_TILE_KV) {
            row->compact(threshold, M, S_new);
        }
        for (; above != 0; above &= above - 1) {
            const int i         = attn_lowest_bit(above);
            row->list[row->n++] = { (int32_t) cell + i, weights[i], M };
        }
        return sum;
    }

    void end_row(int tq, int iq1, int iq2, int iq3, float M, float S) {
        int32_t * dst = begin_pattern(iq1, iq2, iq3);
        append(dst, *rows[tq], iq1, iq3, M, S);
    }

    // a row whose cells were split into chunks, once its M and S are final
    void merge_chunks(int iq2, int64_t n_chunks, float M, float S) {
        int32_t * dst = begin_pattern(0, iq2, 0);
        for (int64_t chunk = 0; chunk < n_chunks; ++chunk) {
            append(dst, *slot(chunk * fa->src[0]->ne[2] + iq2), 0, 0, M, S);
        }
    }

  private:
    int32_t * begin_pattern(int iq1, int iq2, int iq3) {
        int32_t * dst =
            (int32_t *) ((char *) pattern->data + iq1 * pattern->nb[1] + iq2 * pattern->nb[2] + iq3 * pattern->nb[3]);
        dst[0] = 0;
        return dst;
    }

    void append(int32_t * dst, attn_pattern_candidates & from, int iq1, int iq3, float M, float S) {
        const int32_t own = own_cells[iq3 * fa->src[0]->ne[1] + iq1];
        from.filter(threshold, M, S, [&](const attn_pattern_candidates::candidate & c) {
            if (c.cell != own && dst[0] < pattern->ne[0] - 1) {
                dst[++dst[0]] = c.cell;
            }
        });
    }
};

template <bool normalize>
struct attn_variant_boost : attn_variant_plain {
    static constexpr bool CHANGES_SUM = normalize;

    const ggml_tensor * fa;

    // those in progress
    attn_pattern_cursor rows[GGML_FA_TILE_Q];
    float               factors[GGML_FA_TILE_Q];
    int64_t             next_cells[GGML_FA_TILE_Q]; // listed, or past all cells

    attn_variant_boost(const ggml_compute_params * params, const ggml_tensor * fa) :
        attn_variant_plain(params, fa),
        fa(fa) {}

    void begin_row(int tq, int iq1, int iq2, int iq3) {
        factors[tq] = rows[tq].find_row(fa, iq1, iq2, iq3);
        // between two layers the lists have left the caches: the rest of this one, and the beginning of one to come
        for (const int32_t * line = rows[tq].next + 15; line < rows[tq].end; line += 16) {
            attn_prefetch(line);
        }
        attn_prefetch((const char *) rows[tq].next + 8 * fa->src[5]->nb[1]);
        next_cells[tq] = rows[tq].cell();
    }

    bool is_idle(int tq, int64_t end) const { return next_cells[tq] >= end; }

    ggml_float apply(int tq, int64_t cell, int n_cells, float * weights, float, float, ggml_float sum) {
        if (next_cells[tq] >= cell + n_cells) {
            return sum;
        }
        attn_pattern_cursor row    = rows[tq];
        const float         factor = factors[tq];
        // before the first one are cells that are masked in this layer, or another thread's
        while (row.next < row.end && *row.next < cell) {
            ++row.next;
        }
        for (; row.next < row.end && *row.next < cell + n_cells; ++row.next) {
            weights[*row.next - cell] *= factor;
        }
        rows[tq]       = row;
        next_cells[tq] = row.cell();
        if (normalize) {
            // anew: what remains of a sum may be far smaller than what is taken from it
            sum = 0.0;
            for (int i = 0; i < n_cells; ++i) {
                sum += weights[i];
            }
        }
        return sum;
    }
};
