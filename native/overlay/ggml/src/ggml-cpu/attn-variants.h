#pragma once

// Variants of the CPU's flash attention, as hooks over rows and tiles of cells: plain, recording the pattern of early-layer
// emulation, and boosting the weights that a pattern lists. See ggml-attn-emulation.h.
//
// A row is a (query, head) pair. Its weights are exp(s - M) with M the running maximum of the row and S their running sum.

#include "common.h"
#include "ggml-attn-emulation.h"
#include "ggml.h"
#include "vec.h"

#include <cstdint>

struct ggml_compute_params;

// of one thread; rows in progress are counted from 0
class attn_variant {
  public:
    // whether apply changes the sums
    const bool changes_sums;
    // whether scale is all that apply does, which takes less time than a call of it
    const bool only_scales;

    virtual void begin_row(int row, int iq1, int iq2, int iq3) = 0;

    // whether a row's weights may be so large that F16 can't hold their sum times a value of a model
    virtual bool has_large_weights(int) const { return false; }

    // whether apply has nothing to do for a row up to a cell
    bool is_idle(int row, int64_t end) const { return next_cells[row] >= end; }

    // weights: of n_cells from the given one on, 0 where masked
    // M, and S without these cells
    // sum: of the weights, to be added to S
    virtual void apply(int row, int64_t cell, int n_cells, float * weights, float M, float S, ggml_float * sum) = 0;

    // multiplies the weights of the row's listed cells by its factor; those that come before are masked in this layer, or another
    // thread's
    void scale(int row, int64_t cell, int n_cells, float * weights) {
        listed &        x      = rows[row];
        const int32_t * end    = x.end;
        const float     factor = x.factor;
        const int32_t * next   = x.next;
        next_cells[row]        = INT64_MAX;
        for (; next < end; ++next) {
            const int32_t i = *next - (int32_t) cell;
            if (i >= n_cells) {
                next_cells[row] = *next;
                break;
            }
            if (i >= 0) {
                weights[i] *= factor;
            }
        }
        x.next = next;
    }

    // as apply for a tile of rows from 0 on: weights are [n_rows][GGML_FA_TILE_KV], the others [n_rows]
    virtual void apply_tile(
        int n_rows, int64_t cell, float * weights, const float * M, const float * S, ggml_float * sums) = 0;

    virtual void end_row(int row, int iq1, int iq2, int iq3, float M, float S) = 0;

    // instead of end_row where a row's cells were split into chunks, once its M and S are final
    virtual void merge_chunks(int iq2, int64_t n_chunks, float M, float S) = 0;

  protected:
    // the listed cells of a row that are still to come, and the factor of their weights
    struct listed {
        const int32_t * next;
        const int32_t * end;
        float           factor;
        bool            dense; // see boost::apply_tile
    };

    listed  rows[GGML_FA_TILE_Q];
    int64_t next_cells[GGML_FA_TILE_Q]; // for each row, the next cell that apply has to see, or past all cells

    attn_variant(bool changes_sums, bool only_scales, int64_t next_cell);
    ~attn_variant() = default;
};

// calls compute with the variant that an operation asks for
void attn_with_variant(const ggml_compute_params * params, ggml_tensor * fa,
    void (*compute)(const ggml_compute_params * params, ggml_tensor * fa, attn_variant & variant));

// bytes of the work buffer that all threads' variants need, see attn-work.h
size_t attn_variant_work_size(const ggml_tensor * fa, int n_threads);
