#pragma once

// What the boost of listed cells adds, as one more part of each row: blocks of flash attention's own launch compute it while the others
// work on the row's cells, and llama.cpp's kernel adds it up with the other parts.

#include "attn-emulation.cuh"

// of each row, as flash attention splits its cells, and what the boost adds
template <int n_cols>
static __device__ __forceinline__ uint32_t ggml_cuda_attn_n_parts(const ggml_cuda_attn_task & task) {
    return n_cols == 1 && task.boost_block != UINT32_MAX ? gridDim.y + 1 : gridDim.y;
}

#ifdef GGML_CUDA_ATTN_BOOST_BLOCKS

#include "attn-emulation-rows.cuh"

// A warp has a row: its part is g * Σ exp(s - max) * v over the listed cells, and counts nothing in the row's sum of weights. Not inline,
// so that flash attention keeps the registers it has.
template <int d, ggml_type type_K, ggml_type type_V>
static __device__ __noinline__ void attn_boost_part(
    const ggml_cuda_attn_task & task, int row, float * part, float2 * meta) {
    const attn_rows &  rows  = task.rows;
    const attn_boost & boost = task.boost;

    constexpr int n_lanes  = d <= 128 ? 8 : 16; // that share a cell
    constexpr int n_quads  = d / (4 * n_lanes);
    constexpr int n_groups = WARP_SIZE / n_lanes;

    const int lane    = threadIdx.x;
    const int head    = row % rows.n_head;
    const int query   = row / rows.n_head % rows.n_q;
    const int stream  = row / rows.n_head / rows.n_q;
    const int head_kv = head / (rows.n_head / rows.n_head_kv);

    const char * k     = rows.k + stream * rows.nb_k_stream + head_kv * rows.nb_k_head;
    const char * v     = boost.values.v + stream * boost.values.nb_v_stream + head_kv * boost.values.nb_v_head;
    const float  slope = attn_slope(rows, head);

    auto [list, g, n, listed] = attn_load_listed(rows, boost, query, head, stream, 0);
    float4 q_lane[1][n_quads];
    attn_load_query<type_K, n_lanes>(rows, query, head, stream, q_lane[0]);

    float4 sum[n_quads];
#pragma unroll
    for (int i = 0; i < n_quads; ++i) {
        sum[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    float max = -FLT_MAX / 2.0f;
#pragma unroll 1
    for (int first = 0; first < n; first += WARP_SIZE) {
        const int   n_cells = min(WARP_SIZE, n - first);
        const int   cell    = __shfl_sync(0xFFFFFFFF, listed, min(lane, n_cells - 1), WARP_SIZE);
        const float bias    = rows.mask ? slope * attn_mask(rows, query, stream, cell) : 0.0f;
        if (first + WARP_SIZE < n) {
            listed = list[1 + min(first + WARP_SIZE + lane, n - 1)];
        }

        float scores[1];
        attn_scores<type_K, n_lanes, attn_n_at_once(type_K, n_lanes), false>(rows, k, cell, n_cells, q_lane, scores);

        const bool  visible = lane < n_cells && bias > -INFINITY;
        const float max_new = fmaxf(max, warp_reduce_max(visible ? scores[0] + bias : -INFINITY));
        const float scale   = expf(max - max_new);
        const float weight  = visible ? expf(scores[0] + bias - max_new) : 0.0f;
        max                 = max_new;
#pragma unroll
        for (int i = 0; i < n_quads; ++i) {
            sum[i] = make_float4(scale * sum[i].x, scale * sum[i].y, scale * sum[i].z, scale * sum[i].w);
        }

        // what is masked in this layer may hold anything: in its place another cell's values are taken, times 0
        const uint32_t seen = __ballot_sync(0xFFFFFFFF, visible);
        const int      of   = __shfl_sync(0xFFFFFFFF, cell, visible ? lane : __ffs(seen) - 1, WARP_SIZE);
        attn_add_values<type_V, n_lanes, attn_n_at_once(type_V, n_lanes)>(
            boost.values, v, of, seen != 0 ? n_cells : 0, weight, sum);
    }

#pragma unroll
    for (int i = 0; i < n_quads; ++i) {
        const float4 all = attn_sum_groups<n_lanes>(sum[i]);
        if (i % n_groups == lane / n_lanes) {
            *(float4 *) (part + 4 * (i * n_lanes + lane % n_lanes)) =
                make_float4(g * all.x, g * all.y, g * all.z, g * all.w);
        }
    }
    if (lane == 0) {
        meta[0] = make_float2(max, 0.0f);
    }
}

// Whether the block is one that boosts; then its work is done. parts and meta: [rows][parts of a row], the boost's is the last. Only
// kernels for one query may call this: in others, a call that the optimizer has to remove makes some spill registers.
template <int d, ggml_type type_K, ggml_type type_V>
static __device__ __forceinline__ bool ggml_cuda_attn_boost_in_block(
    const ggml_cuda_attn_task & task, float * parts, float2 * meta) {
    if (blockIdx.z < task.boost_block) {
        return false;
    }
    const uint32_t n_parts = ggml_cuda_attn_n_parts<1>(task);
    const int      block   = ((blockIdx.z - task.boost_block) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const int      row     = block * blockDim.y + threadIdx.y;
    ggml_cuda_pdl_sync();
    if (row < task.rows.n_q * task.rows.n_head * task.rows.n_stream) {
        const int64_t i = int64_t(row) * n_parts + n_parts - 1;
        attn_boost_part<d, type_K, type_V>(task, row, parts + i * d, meta + i);
    }
    return true;
}

#else

template <int d, ggml_type type_K, ggml_type type_V>
static __device__ __forceinline__ bool ggml_cuda_attn_boost_in_block(const ggml_cuda_attn_task &, float *, float2 *) {
    return false;
}

#endif // GGML_CUDA_ATTN_BOOST_BLOCKS
