#pragma once

// What the kernels that record and those that boost have in common. They are headers because a test executes them on the CPU, see
// test/kernels/cuda-on-cpu.

#include "fattn-common.cuh"

// numbers rounded to 16 bits, or what is lost by that
static __device__ __forceinline__ half2 attn_half_of_sum(float x, float y, bool rest) {
    const half2  rounded = __float22half2_rn(make_float2(x, y));
    const float2 back    = __half22float2(rounded);
    return rest ? __float22half2_rn(make_float2(x - back.x, y - back.y)) : rounded;
}

static __device__ __forceinline__ float attn_dot(const float4 & a, const float4 & b) {
    return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
}

template <ggml_type type>
static __device__ __forceinline__ float4 attn_load4(const char * row, int i) {
    __align__(16) float4     values;
    constexpr dequantize_V_t dequantize = get_dequantize_V<type, float, 4>();
    dequantize(row, &values, i);
    return values;
}

static __device__ __forceinline__ auto attn_mask_row(const attn_rows & rows, int query, int stream) {
    return (const half *) (rows.mask + query * rows.nb_mask + (stream % rows.n_mask_streams) * rows.nb_mask_stream);
}

// ALiBi's slope is not in it
static __device__ __forceinline__ float attn_mask(const attn_rows & rows, int query, int stream, int cell) {
    return __half2float(attn_mask_row(rows, query, stream)[cell]);
}

static __device__ __forceinline__ float attn_slope(const attn_rows & rows, int head) {
    return get_alibi_slope(rows.max_bias, head, rows.n_head_log2, rows.m0, rows.m1);
}

static __device__ __forceinline__ int64_t attn_row_index(const attn_rows & rows, int query, int head, int stream) {
    return (int64_t(stream) * rows.n_q + query) * rows.n_head + head;
}

// in 32 bits, as flash attention's own places of results are: more make attn_list_cells_of_few spill for sm_120
static __device__ __forceinline__ float2 attn_row_meta(const attn_rows & rows, int64_t row) {
    return rows.meta[uint32_t(row) * uint32_t(rows.meta_stride)];
}

// a row's listed cells, and how much their weights change
struct attn_listed {
    const int32_t * list;
    float           g;
    int             n;    // 0 if nothing changes
    int             cell; // the lane's, of 32 that are in the list side by side
};

// Nothing of it waits for anything else of it, so that it comes at once.
static __device__ __forceinline__ attn_listed attn_load_listed(
    const attn_rows & rows, const attn_boost & boost, int query, int head, int stream, int first) {
    const int       capacity = boost.pattern.capacity;
    const int32_t * list     = boost.pattern.row(query, head, stream, 0);
    const float     g        = boost.strength[stream * rows.n_q + query] * boost.gain[head];
    const int       n        = list[0];
    const int       cell     = list[min(1 + first + int(threadIdx.x), capacity)];
    return { list, g, g == 0.0f ? 0 : min(n, capacity), cell };
}

// the logarithm of a row's sum of exp(score), sinks included; infinite where the row sees nothing, so that all its weights are 0
static __device__ __forceinline__ float attn_log_sum(float2 meta) {
    return meta.y > 0.0f ? meta.x + logf(meta.y) : INFINITY;
}

// Lanes of a warp that share a cell: groups of them take a cell each.
static constexpr __host__ __device__ int attn_n_lanes(int d) {
    return d <= 64 ? 4 : d <= 128 ? 8 : d <= 256 ? 16 : WARP_SIZE;
}

#define ATTN_MAX_D 576

// quads of values that a lane has of a cell
static constexpr __host__ __device__ int attn_n_quads(int n_lanes) {
    return (n_lanes < WARP_SIZE ? 16 * n_lanes : ATTN_MAX_D + 4 * WARP_SIZE - 1) / (4 * n_lanes);
}

// steps whose cells are loaded side by side, as registers allow
static constexpr __host__ __device__ int attn_n_at_once(ggml_type type, int n_lanes) {
    return (type == GGML_TYPE_F16 || type == GGML_TYPE_BF16 ? 4 : 2) / (n_lanes < WARP_SIZE ? 1 : 2);
}

static __device__ __forceinline__ float4 attn_times(const float4 & x, float factor) {
    return make_float4(factor * x.x, factor * x.y, factor * x.z, factor * x.w);
}

static __device__ __forceinline__ float4 attn_to_f16(const float4 & x) {
    const float2 xy = __half22float2(__float22half2_rn(make_float2(x.x, x.y)));
    const float2 zw = __half22float2(__float22half2_rn(make_float2(x.z, x.w)));
    return make_float4(xy.x, xy.y, zw.x, zw.y);
}

// a part of a query, as flash attention has it for keys in F16; products of two numbers of 16 bits are exact
static __device__ __forceinline__ float4 attn_round_query(const attn_rows & rows, float4 q) {
    if (rows.rounding == ATTN_QUERY_F32) {
        return q;
    }
    if (rows.rounding == ATTN_QUERY_F16) {
        q = attn_to_f16(q);
    }
    return attn_to_f16(attn_times(q, rows.query_scale));
}

static constexpr __host__ __device__ bool attn_is_quantised(ggml_type type) {
    return type != GGML_TYPE_F32 && type != GGML_TYPE_F16 && type != GGML_TYPE_BF16;
}

static __device__ __forceinline__ float attn_max_abs(const float4 & x) {
    return fmaxf(fmaxf(fabsf(x.x), fabsf(x.y)), fmaxf(fabsf(x.z), fabsf(x.w)));
}

// rounded to 8 bits as quantize_q8_1_to_shared does it; most: of the absolute values of a block
static __device__ __forceinline__ float4 attn_to_q8(const float4 & x, float most) {
    const float d = most / 127;
    return d == 0.0f ? make_float4(0.0f, 0.0f, 0.0f, 0.0f) :
                       make_float4(d * roundf(x.x / d), d * roundf(x.y / d), d * roundf(x.z / d), d * roundf(x.w / d));
}

// rounded as flash attention has it; keys in BF16 are for the vec kernel alone, which does not round
template <ggml_type type_K, int n_lanes, int n_quads>
static __device__ __forceinline__ void attn_load_query(
    const attn_rows & rows, int query, int head, int stream, float4 (&q_lane)[n_quads]) {
    const char * q = rows.q + stream * rows.nb_q_stream + head * rows.nb_q_head + query * rows.nb_q;
#pragma unroll
    for (int i = 0; i < n_quads; ++i) {
        const int d = 4 * (i * n_lanes + threadIdx.x % n_lanes);
        q_lane[i]   = d < rows.d_k ? *(const float4 *) (q + d * sizeof(float)) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    if (type_K == GGML_TYPE_F16 && rows.rounding != ATTN_QUERY_F32) { // asked once, as nvcc spills registers else
#pragma unroll
        for (int i = 0; i < n_quads; ++i) {
            q_lane[i] = attn_round_query(rows, q_lane[i]);
        }
    }
    if constexpr (attn_is_quantised(type_K)) {
        // a block of 32 values is a quad of each of 8 lanes, or two of each of 4
        float most[n_quads];
#pragma unroll
        for (int i = 0; i < n_quads; ++i) {
            most[i] = attn_max_abs(q_lane[i]);
#pragma unroll
            for (int offset = 1; offset < (n_lanes < 8 ? n_lanes : 8); offset *= 2) {
                most[i] = fmaxf(most[i], __shfl_xor_sync(0xFFFFFFFF, most[i], offset, WARP_SIZE));
            }
        }
#pragma unroll
        for (int i = 0; i < n_quads; ++i) {
            q_lane[i] = attn_to_q8(q_lane[i], n_lanes < 8 ? fmaxf(most[i], most[i ^ 1]) : most[i]);
        }
    }
}

// Scores of up to 32 cells with each of n_rows queries, before the mask. A lane gives a cell and gets its scores. all_32: go through
// all steps, whatever n_cells is.
// Groups take the cells in turns: in step s, group g takes cell s*(number of groups) + g. There are no branches, so that keys are
// loaded side by side: a group without a cell takes the last one, and lanes beyond a key's end take its end, times 0.
template <ggml_type type_K, int n_lanes, int n_at_once, bool all_32, int n_rows, int n_quads>
static __device__ __forceinline__ void attn_scores(const attn_rows & rows, const char * k, int cell, int n_cells,
    const float4 (&q_lane)[n_rows][n_quads], float (&scores)[n_rows]) {
    constexpr int n_groups = WARP_SIZE / n_lanes;

    const int lane    = threadIdx.x % n_lanes;
    const int group   = threadIdx.x / n_lanes;
    const int n_steps = all_32 ? n_lanes : (n_cells + n_groups - 1) / n_groups;

#pragma unroll
    for (int r = 0; r < n_rows; ++r) {
        scores[r] = 0.0f;
    }
#pragma unroll n_at_once
    for (int step = 0; step < n_steps; ++step) {
        const int    i   = min(step * n_groups + group, n_cells - 1);
        const char * key = k + __shfl_sync(0xFFFFFFFF, cell, i, WARP_SIZE) * rows.nb_k;

        float sum[n_rows] = { 0.0f };
#pragma unroll
        for (int j = 0; j < n_quads; ++j) {
            const float4 values = attn_load4<type_K>(key, min(4 * (j * n_lanes + lane), rows.d_k - 4));
#pragma unroll
            for (int r = 0; r < n_rows; ++r) {
                sum[r] += attn_dot(q_lane[r][j], values);
            }
        }
#pragma unroll
        for (int r = 0; r < n_rows; ++r) {
            sum[r]    = warp_reduce_sum<n_lanes>(sum[r]);
            scores[r] = lane == step ? sum[r] : scores[r];
        }
    }
    // from the lane that kept a cell's score to the cell's lane
    const int from = threadIdx.x % n_groups * n_lanes + threadIdx.x / n_groups;
#pragma unroll
    for (int r = 0; r < n_rows; ++r) {
        scores[r] = rows.score_scale * __shfl_sync(0xFFFFFFFF, scores[r], from, WARP_SIZE);
        if (rows.logit_softcap != 0.0f) {
            scores[r] = rows.logit_softcap * tanhf(scores[r]);
        }
    }
}

// Adds weighted values of up to 32 cells, each lane those of its place in its group. A lane gives a cell and its weight.
template <ggml_type type_V, int n_lanes, int n_at_once, int n_quads>
static __device__ __forceinline__ void attn_add_values(
    const attn_values & values, const char * v, int cell, int n_cells, float weight, float4 (&sum)[n_quads]) {
    constexpr int n_groups = WARP_SIZE / n_lanes;

    const int n_steps = (n_cells + n_groups - 1) / n_groups;
#pragma unroll n_at_once
    for (int step = 0; step < n_steps; ++step) {
        const int    from  = step * n_groups + threadIdx.x / n_lanes;
        const float  w     = __shfl_sync(0xFFFFFFFF, weight, from, WARP_SIZE);
        const char * value = v + __shfl_sync(0xFFFFFFFF, cell, from, WARP_SIZE) * values.nb_v;
#pragma unroll
        for (int j = 0; j < n_quads; ++j) {
            const int    d = min(4 * (j * n_lanes + int(threadIdx.x) % n_lanes), values.d_v - 4);
            const float4 x = attn_load4<type_V>(value, d);
            sum[j].x += w * x.x;
            sum[j].y += w * x.y;
            sum[j].z += w * x.z;
            sum[j].w += w * x.w;
        }
    }
}

// the sum over a warp's groups of lanes
template <int n_lanes>
static __device__ __forceinline__ float4 attn_sum_groups(float4 sum) {
#pragma unroll
    for (int offset = n_lanes; offset < WARP_SIZE; offset *= 2) {
        sum.x += __shfl_xor_sync(0xFFFFFFFF, sum.x, offset, WARP_SIZE);
        sum.y += __shfl_xor_sync(0xFFFFFFFF, sum.y, offset, WARP_SIZE);
        sum.z += __shfl_xor_sync(0xFFFFFFFF, sum.z, offset, WARP_SIZE);
        sum.w += __shfl_xor_sync(0xFFFFFFFF, sum.w, offset, WARP_SIZE);
    }
    return sum;
}
