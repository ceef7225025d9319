#pragma once

// Variants of the CPU's flash attention, as hooks over (row, cell): plain, recording the pattern of early-layer emulation,
// and boosting the weights that a pattern lists. See ggml-attn-emulation.h.
//
// A row is a (query, head) pair. Weights are exp(s - M) with M the running maximum of the row and S their running sum. S
// relative to M never shrinks as cells are added, so a weight that is not above threshold*S now never will be, and less
// than 1/threshold candidates survive any prefix of the row.

#include "ggml-attn-emulation.h"

#ifdef __cplusplus
extern "C" {
#endif

// bytes that flash attention needs at the end of the work buffer to record a pattern, 0 if it records none
size_t ggml_cpu_attn_pattern_work_size(const struct ggml_tensor * fa, int n_threads);

// Whether so few cells are listed that boosting them is left to attn_variant_plain, which stops its loop after each of them.
bool ggml_cpu_attn_boost_is_sparse(const struct ggml_tensor * fa);

#ifdef __cplusplus
}

#include "attn-tile.h"
#include "common.h"
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

// rows that may be in progress at once: one per thread, a tile of queries per thread, or (chunk of cells, head)
inline int64_t attn_pattern_n_slots(const ggml_tensor * fa, int n_threads) {
    const int64_t n_q = fa->src[0]->ne[1];
    return n_threads * (n_q == 1 ? fa->src[0]->ne[2] : n_q >= GGML_FA_TILE_Q ? GGML_FA_TILE_Q : 1);
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

// What a row's listed cells gain where they are few. The loop over cells stays that of attention without emulation, in
// pieces that end after a listed cell, which is then added once more with the rest of its weight.
struct attn_sparse_boost {
    const ggml_tensor * fa; // null: no boost

    attn_pattern_cursor row;
    float               extra; // by which a listed weight grows, relative to itself

    void begin_row(int iq1, int iq2, int iq3, int64_t first_cell);

    void add_listed(
        int64_t cell, float weight, int iv2, int iv3, ggml_fp16_t * VKQ16, float * VKQ32, float * V32) const;
};

// The loop of attention without emulation, which a boost of few cells shares, so that both have the same instructions in it.
struct attn_variant_plain {
    attn_sparse_boost boost;

    attn_variant_plain(const ggml_compute_params *, const ggml_tensor * fa) :
        boost{ ggml_flash_attn_ext_get_emulation(fa) == GGML_ATTN_EMULATION_BOOST ? fa : nullptr, {}, 0.0f } {}

    // a single row, cell by cell
    void begin_row(int iq1, int iq2, int iq3, int64_t first_cell) {
        if (boost.fa) {
            boost.begin_row(iq1, iq2, iq3, first_cell);
        }
    }

    // where the loop is left for at_stop
    int64_t find_stop(int64_t, int64_t last_cell) const {
        return boost.row.next < boost.row.end && *boost.row.next < last_cell ? *boost.row.next + 1 : last_cell;
    }

    // mask, weight: of the last cell; iv2, iv3: the head of V; VKQ16 is in use if V is F16, else VKQ32, and V32 if V is quantised
    void at_stop(
        int64_t cell, float mask, float weight, int iv2, int iv3, ggml_fp16_t * VKQ16, float * VKQ32, float * V32) {
        if (boost.row.next < boost.row.end && *boost.row.next == cell) {
            ++boost.row.next;
            if (mask != -INFINITY) {
                boost.add_listed(cell, weight, iv2, iv3, VKQ16, VKQ32, V32);
            }
        }
    }

    float weight(int64_t, float weight) { return weight; } // what multiplies V

    float summand(float weight) const { return weight; } // what is added to S

    void seen(int64_t, float, float, float) {} // the cell is part of M and S

    void end_row(int, int, int, float, float) {}

    // the rows of a tile of queries; returns what a tile of cells adds to S
    void begin_tile_row(int, int, int, int) {}

    ggml_float tile_row(int, int64_t, float *, float, float, ggml_float sum) { return sum; }

    void end_tile_row(int, int, int, int, float, float) {}
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

    attn_pattern_candidates * row = nullptr;

    attn_variant_record(const ggml_compute_params * params, const ggml_tensor * fa) :
        attn_variant_plain(params, fa),
        fa(fa),
        pattern(fa->src[5]),
        own_cells((const int32_t *) fa->src[6]->data) {
        memcpy(&threshold, fa->op_params + 6, sizeof(float));

        const int64_t n_slots = attn_pattern_n_slots(fa, params->nth);
        slot_size             = attn_pattern_candidates::size(pattern);
        capacity              = attn_pattern_candidates::capacity(pattern);
        // the end of the work buffer: flash attention's own scratch is at its start
        slots = (char *) params->wdata + params->wsize - n_slots * slot_size;
        slots -= (uintptr_t) slots % alignof(attn_pattern_candidates);
        split      = fa->src[0]->ne[1] == 1;
        first_slot = params->ith * (n_slots / params->nth);
    }

    attn_pattern_candidates * slot(int64_t i) { return (attn_pattern_candidates *) (slots + i * slot_size); }

    void push(int64_t cell, float weight, float M, float S) {
        if (row->n == capacity) {
            row->compact(threshold, M, S);
        }
        row->list[row->n++] = { (int32_t) cell, weight, M };
    }

    int64_t find_stop(int64_t, int64_t last_cell) const { return last_cell; }

    void at_stop(int64_t, float, float, int, int, ggml_fp16_t *, float *, float *) {}

    void begin_row(int, int iq2, int, int64_t) {
        row    = slot(first_slot + (split ? iq2 : 0));
        row->n = 0;
    }

    void seen(int64_t cell, float weight, float M, float S) {
        if (weight > threshold * S) {
            push(cell, weight, M, S);
        }
    }

    void end_row(int iq1, int iq2, int iq3, float M, float S) {
        int32_t * dst = begin_pattern(iq1, iq2, iq3);
        append(dst, *row, iq1, iq3, M, S);
    }

    void begin_tile_row(int tq, int, int, int) { slot(first_slot + tq)->n = 0; }

    ggml_float tile_row(int tq, int64_t cell, float * weights, float M, float S, ggml_float sum) {
        const float S_new = S + sum;
        uint64_t    above = attn_find_above(weights, threshold * S_new); // weights past the last cell are 0
        if (above == 0) {
            return sum;
        }
        row = slot(first_slot + tq);
        if (row->n > capacity - GGML_FA_TILE_KV) {
            row->compact(threshold, M, S_new);
        }
        for (; above != 0; above &= above - 1) {
            const int i         = attn_lowest_bit(above);
            row->list[row->n++] = { (int32_t) cell + i, weights[i], M };
        }
        return sum;
    }

    void end_tile_row(int tq, int iq1, int iq2, int iq3, float M, float S) {
        row = slot(first_slot + tq);
        end_row(iq1, iq2, iq3, M, S);
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
    const ggml_tensor * fa;

    // a single row
    attn_pattern_cursor row;
    float               factor;
    int64_t             next_cell; // listed, or past all cells
    float               counted;   // what the last cell adds to S if normalize

    // the rows of a tile
    attn_pattern_cursor rows[GGML_FA_TILE_Q];
    float               factors[GGML_FA_TILE_Q];
    int64_t             next_cells[GGML_FA_TILE_Q];

    attn_variant_boost(const ggml_compute_params * params, const ggml_tensor * fa) :
        attn_variant_plain(params, fa),
        fa(fa) {}

    int64_t find_stop(int64_t, int64_t last_cell) const { return last_cell; }

    void at_stop(int64_t, float, float, int, int, ggml_fp16_t *, float *, float *) {}

    void begin_row(int iq1, int iq2, int iq3, int64_t first_cell) {
        factor    = row.find_row(fa, iq1, iq2, iq3);
        row.next  = std::lower_bound(row.next, row.end, (int32_t) first_cell);
        next_cell = row.cell();
    }

    // called for every visible cell, so all but a comparison is out of the way
    float weight(int64_t cell, float weight) {
        if (cell >= next_cell) {
            weight = boost(cell, weight);
        } else if (normalize) {
            counted = weight;
        }
        return weight;
    }

    float summand(float weight) const { return normalize ? counted : weight; }

    void begin_tile_row(int tq, int iq1, int iq2, int iq3) {
        factors[tq] = rows[tq].find_row(fa, iq1, iq2, iq3);
        // between two layers the lists have left the caches: the rest of this one, and the beginning of one to come
        for (const int32_t * line = rows[tq].next + 15; line < rows[tq].end; line += 16) {
            attn_prefetch(line);
        }
        attn_prefetch((const char *) rows[tq].next + 8 * fa->src[5]->nb[1]);
        next_cells[tq] = rows[tq].cell();
    }

    ggml_float tile_row(int tq, int64_t cell, float * weights, float, float, ggml_float sum) {
        if (next_cells[tq] >= cell + GGML_FA_TILE_KV) {
            return sum;
        }
        for (; next_cells[tq] < cell + GGML_FA_TILE_KV; next_cells[tq] = rows[tq].cell()) {
            // before the tile are cells that are masked in this layer
            if (next_cells[tq] >= cell) {
                weights[next_cells[tq] - cell] *= factors[tq];
            }
            ++rows[tq].next;
        }
        if (normalize) {
            // anew: what remains of a sum may be far smaller than what is taken from it
            sum = 0.0;
            for (int i = 0; i < GGML_FA_TILE_KV; ++i) {
                sum += weights[i];
            }
        }
        return sum;
    }

  private:
    float boost(int64_t cell, float weight) {
        counted = weight;
        // cells that are masked in this layer are not visited
        while (row.next < row.end && *row.next < cell) {
            ++row.next;
        }
        if (row.next < row.end && *row.next == cell) {
            counted = weight * factor;
            ++row.next;
        }
        next_cell = row.cell();
        return counted;
    }
};

#endif // __cplusplus
