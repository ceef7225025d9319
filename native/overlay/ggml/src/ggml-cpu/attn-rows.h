#pragma once

// The CPU's flash attention for few queries, as in decoding: a block of cells at a time, for heads that share keys and values.
//
// Each row takes the same steps in the same order as in llama.cpp's loop, which goes cell by cell and head by head, so results are
// the same to the last bit. What it saves: sums stay in registers over a block, keys and values are read and converted
// once for several heads, and weights of different cells don't wait for each other.

#include "attn-block.h"
#include "attn-variants.h"
#include "ggml.h"

#include <cstdint>

// Rows [ir0, ir1) over cells [ic_start, ic_end). Partials are what llama.cpp combines with those of other cells.
void attn_compute_rows(const ggml_compute_params * params, ggml_tensor * dst, attn_variant & variant, int ir0, int ir1,
    int64_t ic_start, int64_t ic_end, float * partials, int64_t partial_stride);

// How many rows a thread takes at a time: in decoding, heads that share keys and values stay together, as these are read and
// unpacked once for all, unless threads would be left without any.
int64_t attn_rows_at_a_time(const ggml_tensor * fa, int64_t n_rows, int n_threads);

// bytes of the work buffer that a thread needs, see attn-work.h
size_t attn_rows_work_size(const ggml_tensor * fa);
