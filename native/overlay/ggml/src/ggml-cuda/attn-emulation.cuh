#pragma once

// Early-layer attention pattern emulation after flash attention. Its kernels export each row's maximum and sum; with these, kernels of
// our own list the cells of a pattern, or add what the boost of the listed cells changes. See ggml-attn-emulation.h.
//
// A row is a (query, head) pair of a stream; its result and its (maximum, sum) are at index (stream*n_q + query)*n_head + head.

#include "common.cuh"
#include "ggml-attn-emulation.h"

// keys or values as flash attention read them, which may be a copy in F16
struct ggml_cuda_attn_kv {
    const char * data;
    ggml_type    type;
    int64_t      nb_cell;
    int64_t      nb_head;
    int64_t      nb_stream;
};

// the results of n blocks that share a row's cells, and their (maximum, sum), for each row; none where n is at most 1
struct ggml_cuda_attn_parts {
    const float *  values; // [n_rows][n][d_v]
    const float2 * meta;   // [n_rows][n]
    int            n;
};

void ggml_cuda_attn_record_pattern(
    ggml_backend_cuda_context & ctx, const ggml_tensor * fa, const float2 * row_meta, const ggml_cuda_attn_kv & k);

void ggml_cuda_attn_boost_pattern(ggml_backend_cuda_context & ctx, const ggml_tensor * fa, const float2 * row_meta,
    const ggml_cuda_attn_kv & k, const ggml_cuda_attn_kv & v, const ggml_cuda_attn_parts & parts);

// what a launch of flash attention has to do for the op's pattern; nothing where it has none
struct ggml_cuda_attn_emulation {
    ggml_cuda_attn_emulation(ggml_cuda_pool & pool, const ggml_tensor * fa) :
        mode(ggml_flash_attn_ext_get_emulation(fa)),
        rows(pool) {
        if (mode != GGML_ATTN_EMULATION_NONE) {
            rows.alloc(ggml_nrows(fa));
        }
    }

    // where the kernels put the (maximum, sum) of the rows, null if nobody asks for it
    float2 * row_meta() { return rows.ptr; }

    // whether launch() also combines the results of blocks that share a row's cells
    bool combines() const { return mode == GGML_ATTN_EMULATION_BOOST; }

    void launch(ggml_backend_cuda_context & ctx, const ggml_tensor * fa, const ggml_cuda_attn_kv & k,
        const ggml_cuda_attn_kv & v, const ggml_cuda_attn_parts & parts) {
        if (mode == GGML_ATTN_EMULATION_RECORD) {
            ggml_cuda_attn_record_pattern(ctx, fa, rows.ptr, k);
        } else if (mode == GGML_ATTN_EMULATION_BOOST) {
            ggml_cuda_attn_boost_pattern(ctx, fa, rows.ptr, k, v, parts);
        }
    }

  private:
    ggml_attn_emulation_mode     mode;
    ggml_cuda_pool_alloc<float2> rows;
};

// the (maximum, sum) of one column of a tile of ncols1 queries and ncols2 heads, for a kernel that has a tile's rows in one piece
template <int ncols1, int ncols2>
static __device__ __forceinline__ void ggml_cuda_attn_write_row_meta(
    float2 * row_meta, int query_tile, int head_tile, int column, uint3 n_q, int n_head, int gqa_ratio, float2 value) {
    const int query = query_tile * ncols1 + column / ncols2;
    const int head  = column % ncols2; // of the tile
    if (row_meta && (ncols1 == 1 || query < int(n_q.z)) && (ncols2 == 1 || head_tile * ncols2 + head < gqa_ratio)) {
        row_meta[query * n_head + head] = value;
    }
}

// what the registry exports: CUDA only, as the kernels were never built for HIP and MUSA
bool ggml_cuda_supports_attn_emulation(ggml_backend_dev_t device);
