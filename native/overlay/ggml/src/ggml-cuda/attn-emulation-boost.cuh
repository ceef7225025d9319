#pragma once

// The kernel that adds what the boost of listed cells changes.

#include "attn-emulation-rows.cuh"

#define ATTN_RESIDUAL_MAX_WARPS 5 // of a row: the first one is enough for 32 cells, the others do the rest
#define ATTN_RESIDUAL_MAX_ROWS  4 // of a block

// Many rows come from kernels that have made keys and values F16.
static constexpr __host__ __device__ int attn_residual_blocks_per_sm(ggml_type type_K, ggml_type type_V, int n_lanes) {
    if (attn_n_at_once(type_K, 1) < 4 || attn_n_at_once(type_V, 1) < 4) {
        return 1;
    }
    return n_lanes < WARP_SIZE && type_K == type_V ? 3 : 2; // two types at once need more registers
}

static __device__ __forceinline__ bool attn_is_listed(const int32_t * list, int n, int cell) {
    int first = 1;
    for (int last = n; first < last;) {
        const int middle = (first + last) / 2;
        if (list[middle] < cell) {
            first = middle + 1;
        } else {
            last = middle;
        }
    }
    return list[first] == cell;
}

// Adds up the weighted values of a row's listed cells, or of all cells, of which the listed ones weigh 1 + g times as much. The warps of
// a row take 32 cells at a time, a lane a cell; of their values, each lane adds up those of its place in its group of lanes, so that a
// sum is spread over all groups. listed: the lane's entry of the warp's first 32 of the list. Returns the lane's share of the weights.
template <ggml_type type_K, ggml_type type_V, int n_lanes, bool all>
static __device__ __forceinline__ float attn_sum_cells(const attn_rows & rows, const attn_values & values, int query,
    int head, int stream, float log_sum, const int32_t * list, int listed, int n, float g,
    float4 (&sum)[attn_n_quads(n_lanes)]) {
    constexpr int n_at_once = all ? 1 : attn_n_at_once(type_V, n_lanes);

    const int    head_kv = head / (rows.n_head / rows.n_head_kv);
    const char * k       = rows.k + stream * rows.nb_k_stream + head_kv * rows.nb_k_head;
    const char * v       = values.v + stream * values.nb_v_stream + head_kv * values.nb_v_head;
    const float  slope   = attn_slope(rows, head);

    float4 q_lane[1][attn_n_quads(n_lanes)];
    attn_load_query<type_K, n_lanes>(rows, query, head, stream, q_lane[0]);

    float     weight = 0.0f;
    const int n_all  = all ? rows.n_kv : n;
#pragma unroll 1
    for (int first = threadIdx.y * WARP_SIZE; first < n_all; first += blockDim.y * WARP_SIZE) {
        const int   n_cells = min(WARP_SIZE, n_all - first);
        const int   i       = min(int(threadIdx.x), n_cells - 1);
        const int   cell    = all ? first + i : __shfl_sync(0xFFFFFFFF, listed, i, WARP_SIZE);
        const float bias    = rows.mask ? slope * attn_mask(rows, query, stream, cell) : 0.0f;

        float scores[1];
        attn_scores<type_K, n_lanes, attn_n_at_once(type_K, n_lanes), false>(rows, k, cell, n_cells, q_lane, scores);

        float w = 0.0f;
        if (int(threadIdx.x) < n_cells && bias > -INFINITY) {
            const float factor = !all ? g : attn_is_listed(list, n, cell) ? 1.0f + g : 1.0f;
            w                  = factor * expf(fminf(scores[0] + bias - log_sum, 0.0f));
        }
        weight += w;

        // what is masked in this layer may hold anything: in its place another cell's values are taken, times 0
        const uint32_t visible = __ballot_sync(0xFFFFFFFF, bias > -INFINITY);
        const int      seen    = __shfl_sync(0xFFFFFFFF, cell, __ffs(visible) - 1, WARP_SIZE);
        const int      of      = bias > -INFINITY ? cell : seen;
        attn_add_values<type_V, n_lanes, n_at_once>(values, v, of, visible != 0 ? n_cells : 0, w, sum);
        if (!all && first + int(blockDim.y) * WARP_SIZE < n) {
            listed = list[1 + min(first + int(blockDim.y) * WARP_SIZE + int(threadIdx.x), n - 1)];
        }
    }
    return weight;
}

// the (maximum, sum) of a row in parts
static __device__ __forceinline__ float2 attn_join_meta(const float2 * meta, int n) {
    float max = -FLT_MAX / 2.0f;
    for (int i = threadIdx.x; i < n; i += WARP_SIZE) {
        max = fmaxf(max, meta[i].x);
    }
    max       = warp_reduce_max(max);
    float sum = 0.0f;
    for (int i = threadIdx.x; i < n; i += WARP_SIZE) {
        sum += expf(meta[i].x - max) * meta[i].y;
    }
    return make_float2(max, warp_reduce_sum(sum));
}

// a value of a row in parts, to the last bit as flash_attn_combine_results computes it
static __device__ __forceinline__ float attn_join_value(
    const float * values, int d_v, const float2 * meta, int n, float max) {
    float value = 0.0f;
    float sum   = 0.0f;
#pragma unroll 4
    for (int i = 0; i < n; ++i) {
        const float w = expf(meta[i].x - max);
        value += w * values[int64_t(i) * d_v];
        sum += w * meta[i].y;
    }
    return value / sum;
}

// Adds strength*gain times the listed cells' weighted values to the result, which may still be in parts: flash attention that splits
// a row's cells leaves that to this kernel. A block has as many rows as threadIdx.z counts, consecutive queries of a head; a row has as
// many warps as threadIdx.y counts, and more than one only where it is alone.
// Where little remains of a row that is normalized, a difference would be too coarse: the row is computed anew, from all cells.
template <ggml_type type_K, ggml_type type_V, int n_lanes>
__launch_bounds__(WARP_SIZE * ATTN_RESIDUAL_MAX_WARPS,
    attn_residual_blocks_per_sm(type_K, type_V, n_lanes)) static __global__ void attn_add_residual(attn_rows rows,
    attn_boost boost, bool normalize, ggml_cuda_attn_parts parts, float * result) {
    constexpr int n_quads  = attn_n_quads(n_lanes);
    constexpr int n_groups = WARP_SIZE / n_lanes;

    extern __shared__ float attn_sums[]; // [n_warps][d_v], where a row has several
    __shared__ float        weights[ATTN_RESIDUAL_MAX_WARPS];

    const int lane    = threadIdx.x;
    const int group   = lane / n_lanes;
    const int n_warps = blockDim.y;
    const int warp    = threadIdx.y;
    const int query   = blockIdx.x * blockDim.z + threadIdx.z;
    const int head    = blockIdx.y;
    const int stream  = blockIdx.z;

    ggml_cuda_pdl_lc();
    ggml_cuda_pdl_sync();
    if (query >= rows.n_q) {
        return;
    }

    // All that nothing else has to be known for comes first, so that it comes at once. Written out, as nvcc spills registers for sm_75
    // and sm_90 where attn_load_listed does it here.
    const int64_t   row       = attn_row_index(rows, query, head, stream);
    const bool      has_parts = parts.n > 1;
    const float2 *  part_meta = parts.meta + row * parts.n;
    const int32_t * list      = boost.pattern.row(query, head, stream, 0);
    const float     g         = boost.strength[stream * rows.n_q + query] * boost.gain[head];
    const int       n_listed  = list[0];
    const int       listed    = list[min(1 + warp * WARP_SIZE + lane, boost.pattern.capacity)];
    const float2    meta      = has_parts ? attn_join_meta(part_meta, parts.n) : attn_row_meta(rows, row);
    const float     log_sum   = attn_log_sum(meta);

    const int n = g == 0.0f ? 0 : min(n_listed, boost.pattern.capacity);
    if (n <= 0 && !has_parts) {
        return;
    }

    // what is added to
    result += row * boost.values.d_v;
    const auto value_before = [&](int d) {
        return has_parts ? attn_join_value(parts.values + row * parts.n * boost.values.d_v + d, boost.values.d_v,
                               part_meta, parts.n, meta.x) :
                           result[d];
    };
    // a row's warps but the first, which has cells, have a value of a lane at a time
    const int d_first      = (warp - 1) * WARP_SIZE + lane;
    float     before_first = 0.0f;
    if (n_warps > 1 && warp > 0 && d_first < boost.values.d_v) {
        before_first = value_before(d_first);
    }

    float4 sum[n_quads];
#pragma unroll
    for (int i = 0; i < n_quads; ++i) {
        sum[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    float weight = attn_sum_cells<type_K, type_V, n_lanes, false>(
        rows, boost.values, query, head, stream, log_sum, list, listed, n, g, sum);

    // of all warps of the row
    const auto total_weight = [&]() {
        const float of_warp = warp_reduce_sum(weight);
        if (n_warps == 1) {
            return of_warp;
        }
        if (lane == 0) {
            weights[warp] = of_warp;
        }
        __syncthreads();
        float total = 0.0f;
        for (int w = 0; w < n_warps; ++w) {
            total += weights[w];
        }
        __syncthreads(); // all have read what may be written again
        return total;
    };

    bool  anew  = false;
    float total = 1.0f;
    if (normalize) {
        total += total_weight();
        anew = total < 0.5f;
        if (anew) {
#pragma unroll
            for (int i = 0; i < n_quads; ++i) {
                sum[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            }
            weight = attn_sum_cells<type_K, type_V, n_lanes, true>(
                rows, boost.values, query, head, stream, log_sum, list, listed, n, g, sum);
            total = total_weight() + (rows.sinks ? expf(rows.sinks[head] - log_sum) : 0.0f);
        }
    }
    const float scale = total > 0.0f ? 1.0f / total : 0.0f; // a row that is turned off altogether stays so

    // The sums of all groups, of which each takes its share, so that a warp has its quads side by side.
#pragma unroll
    for (int i = 0; i < n_quads; ++i) {
        sum[i]      = attn_sum_groups<n_lanes>(sum[i]);
        const int d = 4 * (i * n_lanes + lane % n_lanes);
        if (i % n_groups != group || d >= boost.values.d_v) {
            continue;
        }
        if (n_warps > 1) {
            *(float4 *) (attn_sums + warp * boost.values.d_v + d) = sum[i];
            continue;
        }
        float4 before = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (has_parts && !anew) {
            before = make_float4(value_before(d), value_before(d + 1), value_before(d + 2), value_before(d + 3));
        } else if (!anew) {
            before = *(const float4 *) (result + d);
        }
        *(float4 *) (result + d) = make_float4(scale * (before.x + sum[i].x), scale * (before.y + sum[i].y),
            scale * (before.z + sum[i].z), scale * (before.w + sum[i].w));
    }
    if (n_warps == 1) {
        return;
    }

    __syncthreads();
    if (warp == 0) {
        return;
    }
    for (int d = d_first; d < boost.values.d_v; d += (n_warps - 1) * WARP_SIZE) {
        float value = anew ? 0.0f : d == d_first ? before_first : value_before(d);
        for (int w = 0; w < n_warps; ++w) {
            value += attn_sums[w * boost.values.d_v + d];
        }
        result[d] = scale * value;
    }
}
