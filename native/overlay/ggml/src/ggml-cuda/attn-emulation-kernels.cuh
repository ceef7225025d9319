#pragma once

// The kernels of attn-emulation.cu, in a header of their own because a test executes them on the CPU, see test/kernels/cuda-on-cpu.

#include "fattn-common.cuh"

// what a row's scores are made of
struct attn_rows {
    const char *   q;
    int64_t        nb_q;
    int64_t        nb_q_head;
    int64_t        nb_q_stream;
    const char *   k;
    int64_t        nb_k;
    int64_t        nb_k_head;
    int64_t        nb_k_stream;
    const char *   mask; // may be null
    int64_t        nb_mask;
    int64_t        nb_mask_stream;
    const float2 * meta;  // (maximum, sum) of each row, sinks included
    const float *  sinks; // of each head, may be null

    int   d_k; // a multiple of 4
    int   n_q;
    int   n_head;
    int   n_head_kv;
    int   n_kv;
    int   n_mask_streams;
    float scale; // with a soft cap it is scale / cap, as in flash attention
    float logit_softcap;

    // ALiBi
    float    max_bias;
    float    m0;
    float    m1;
    uint32_t n_head_log2;
};

// lists of cells, each its length, then the cells; a row has one, or one for each chunk of its cells
struct attn_lists {
    char *  data;
    int64_t nb_q;
    int64_t nb_head;
    int64_t nb_stream;
    int64_t nb_chunk;
    int     capacity;

    __device__ int32_t * row(int query, int head, int stream, int chunk) const {
        return (int32_t *) (data + query * nb_q + head * nb_head + stream * nb_stream + chunk * nb_chunk);
    }
};

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

// ALiBi's slope is not in it
static __device__ __forceinline__ float attn_mask(const attn_rows & rows, int query, int stream, int cell) {
    const char * row = rows.mask + query * rows.nb_mask + (stream % rows.n_mask_streams) * rows.nb_mask_stream;
    return __half2float(((const half *) row)[cell]);
}

static __device__ __forceinline__ float attn_slope(const attn_rows & rows, int head) {
    return get_alibi_slope(rows.max_bias, head, rows.n_head_log2, rows.m0, rows.m1);
}

// the logarithm of a row's sum of exp(score), sinks included; infinite where the row sees nothing, so that all its weights are 0
static __device__ __forceinline__ float attn_log_sum(const attn_rows & rows, int query, int head, int stream) {
    const float2 meta = rows.meta[(int64_t(stream) * rows.n_q + query) * rows.n_head + head];
    return meta.y > 0.0f ? meta.x + logf(meta.y) : INFINITY;
}

#define ATTN_PATTERN_N_WARPS 4
#define ATTN_PATTERN_SLICE   64 // values of a key at once

static constexpr __host__ __device__ int attn_pattern_rows_per_block(int rows_per_warp) {
    return ATTN_PATTERN_N_WARPS * rows_per_warp;
}

// Lists a chunk of each row's cells. A block has rows that share their keys, consecutive in (query, head of the key head); each warp
// has rows of its own and takes 32 cells at once, a lane a cell, so that a ballot orders what it finds.
template <ggml_type type_K, int rows_per_warp>
__launch_bounds__(WARP_SIZE * ATTN_PATTERN_N_WARPS, 3) static __global__ void attn_list_cells(
    attn_rows rows, const int32_t * own_cells, float threshold, attn_lists lists, int n_per_chunk) {
    constexpr int n_threads = WARP_SIZE * ATTN_PATTERN_N_WARPS;
    constexpr int slice4    = ATTN_PATTERN_SLICE / 4;
    constexpr int n_rows    = attn_pattern_rows_per_block(rows_per_warp);

    extern __shared__ float4 attn_queries[]; // [n_rows][d_k/4]
    __shared__ float4        keys[WARP_SIZE][slice4 + 1];

    const int lane   = threadIdx.x;
    const int warp   = threadIdx.y;
    const int thread = warp * WARP_SIZE + lane;

    const int gqa       = rows.n_head / rows.n_head_kv;
    const int stream    = blockIdx.z / rows.n_head_kv;
    const int head_kv   = blockIdx.z % rows.n_head_kv;
    const int row_first = blockIdx.x * n_rows; // of n_q*gqa
    const int row_end   = rows.n_q * gqa;
    const int chunk     = blockIdx.y;
    const int d4        = rows.d_k / 4;

    const int cell_first = chunk * n_per_chunk;
    const int cell_end   = min(cell_first + n_per_chunk, rows.n_kv);

    const char * k = rows.k + stream * rows.nb_k_stream + head_kv * rows.nb_k_head;

    ggml_cuda_pdl_sync();

    for (int i = thread; i < n_rows * d4; i += n_threads) {
        const int row = row_first + i / d4;
        float4    q   = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (row < row_end) {
            const int head = head_kv * gqa + row % gqa;
            q              = *(const float4 *) (rows.q + stream * rows.nb_q_stream + head * rows.nb_q_head +
                (row / gqa) * rows.nb_q + (i % d4) * sizeof(float4));
            q.x *= rows.scale;
            q.y *= rows.scale;
            q.z *= rows.scale;
            q.w *= rows.scale;
        }
        attn_queries[i] = q;
    }

    float bound[rows_per_warp]; // what a listed cell's score exceeds
    int   own[rows_per_warp];
    int   count[rows_per_warp];
#pragma unroll
    for (int r = 0; r < rows_per_warp; ++r) {
        const int row = row_first + warp * rows_per_warp + r;
        bound[r]      = INFINITY;
        own[r]        = -1;
        count[r]      = 0;
        if (row < row_end) {
            const int query = row / gqa;
            bound[r]        = attn_log_sum(rows, query, head_kv * gqa + row % gqa, stream) + logf(threshold);
            own[r]          = own_cells[stream * rows.n_q + query];
        }
    }

    for (int cell0 = cell_first; cell0 < cell_end; cell0 += WARP_SIZE) {
        const int cell = cell0 + lane;

        float bias[rows_per_warp];
        bool  visible = false;
#pragma unroll
        for (int r = 0; r < rows_per_warp; ++r) {
            const int row = row_first + warp * rows_per_warp + r;
            bias[r]       = -INFINITY;
            if (row < row_end && cell < cell_end) {
                bias[r] = rows.mask ?
                    attn_slope(rows, head_kv * gqa + row % gqa) * attn_mask(rows, row / gqa, stream, cell) :
                    0.0f;
            }
            visible |= bias[r] > -FLT_MAX;
        }
        // also waits until the last keys have been used
        if (!__syncthreads_or(visible)) {
            continue;
        }

        float score[rows_per_warp] = { 0.0f };
        for (int d0 = 0; d0 < d4; d0 += slice4) {
            const int n_slice = min(slice4, d4 - d0);
            if (d0 > 0) {
                __syncthreads();
            }
            for (int i = thread; i < WARP_SIZE * slice4; i += n_threads) {
                const int key = i / slice4;
                const int d   = i % slice4;
                if (d < n_slice && cell0 + key < cell_end) {
                    keys[key][d] = attn_load4<type_K>(k + (cell0 + key) * rows.nb_k, 4 * (d0 + d));
                }
            }
            __syncthreads();

            const float4 * queries = attn_queries + warp * rows_per_warp * d4 + d0;
#pragma unroll 4
            for (int d = 0; d < n_slice; ++d) {
                const float4 key = keys[lane][d];
#pragma unroll
                for (int r = 0; r < rows_per_warp; ++r) {
                    score[r] += attn_dot(queries[r * d4 + d], key);
                }
            }
        }

#pragma unroll
        for (int r = 0; r < rows_per_warp; ++r) {
            if (rows.logit_softcap != 0.0f) {
                score[r] = rows.logit_softcap * tanhf(score[r]);
            }
            const bool     listed = score[r] + bias[r] > bound[r] && cell != own[r];
            const uint32_t all    = __ballot_sync(0xFFFFFFFF, listed);
            if (listed) {
                const int row = row_first + warp * rows_per_warp + r;
                const int i   = count[r] + __popc(all & ((1u << lane) - 1));
                if (i < lists.capacity) {
                    lists.row(row / gqa, head_kv * gqa + row % gqa, stream, chunk)[1 + i] = cell;
                }
            }
            count[r] += __popc(all);
        }
    }

#pragma unroll
    for (int r = 0; r < rows_per_warp; ++r) {
        const int row = row_first + warp * rows_per_warp + r;
        if (lane == 0 && row < row_end) {
            lists.row(row / gqa, head_kv * gqa + row % gqa, stream, chunk)[0] = min(count[r], lists.capacity);
        }
    }
}

// Makes one list of those of a row's chunks. A block is one warp and has one row, a lane a chunk.
__launch_bounds__(WARP_SIZE) static __global__ void attn_join_lists(
    attn_lists chunks, int n_chunks, attn_lists pattern) {
    const int lane   = threadIdx.x;
    const int query  = blockIdx.x;
    const int head   = blockIdx.y;
    const int stream = blockIdx.z;

    ggml_cuda_pdl_sync();

    int32_t * dst   = pattern.row(query, head, stream, 0);
    int       total = 0;
    for (int chunk0 = 0; chunk0 < n_chunks; chunk0 += WARP_SIZE) {
        const int32_t * src = chunks.row(query, head, stream, chunk0 + lane);
        const int       n   = chunk0 + lane < n_chunks ? src[0] : 0;
        const int       end = total + warp_prefix_inclusive_sum(n);
        for (int i = 0; i < n && end - n + i < pattern.capacity; ++i) {
            dst[1 + end - n + i] = src[1 + i];
        }
        total = __shfl_sync(0xFFFFFFFF, end, WARP_SIZE - 1);
    }
    if (lane == 0) {
        dst[0] = min(total, pattern.capacity);
    }
}

#define ATTN_RESIDUAL_MAX_WARPS 8
#define ATTN_RESIDUAL_MAX_D     576

struct attn_values {
    const char * v;
    int64_t      nb_v;
    int64_t      nb_v_head;
    int64_t      nb_v_stream;
    int          d_v; // a multiple of 4
};

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

// Adds strength*gain times the listed cells' weighted values to the result. A block has one row, its warps take turns at the cells.
// Where little remains of a row that is normalized, a difference would be too coarse: the row is computed anew, from all cells.
template <ggml_type type_K, ggml_type type_V>
__launch_bounds__(WARP_SIZE * ATTN_RESIDUAL_MAX_WARPS, 2) static __global__ void attn_add_residual(attn_rows rows,
    attn_values values, attn_lists pattern, const float * strength, const float * gain, bool normalize,
    float * result) {
    constexpr int n_quads = (ATTN_RESIDUAL_MAX_D + 4 * WARP_SIZE - 1) / (4 * WARP_SIZE); // of a lane

    extern __shared__ float attn_sums[]; // [n_warps][d_v]
    __shared__ float        weights[ATTN_RESIDUAL_MAX_WARPS];

    const int lane   = threadIdx.x;
    const int warp   = threadIdx.y;
    const int query  = blockIdx.x;
    const int head   = blockIdx.y;
    const int stream = blockIdx.z;

    ggml_cuda_pdl_sync();

    const float     g    = strength[stream * rows.n_q + query] * gain[head];
    const int32_t * list = pattern.row(query, head, stream, 0);
    const int       n    = min(list[0], pattern.capacity);
    if (g == 0.0f || n <= 0) {
        return;
    }

    const int    head_kv = head / (rows.n_head / rows.n_head_kv);
    const char * k       = rows.k + stream * rows.nb_k_stream + head_kv * rows.nb_k_head;
    const char * v       = values.v + stream * values.nb_v_stream + head_kv * values.nb_v_head;
    const char * q       = rows.q + stream * rows.nb_q_stream + head * rows.nb_q_head + query * rows.nb_q;
    const float  slope   = attn_slope(rows, head);
    const float  log_sum = attn_log_sum(rows, query, head, stream);

    float4 q_lane[n_quads];
    float4 sum[n_quads];
#pragma unroll
    for (int i = 0; i < n_quads; ++i) {
        const int d = 4 * (i * WARP_SIZE + lane);
        q_lane[i]   = d < rows.d_k ? *(const float4 *) (q + d * sizeof(float)) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }

    result += ((int64_t(stream) * rows.n_q + query) * rows.n_head + head) * values.d_v;

    bool  anew = false;
    float total;
    while (true) {
        float weight = 0.0f; // of all cells of this warp
#pragma unroll
        for (int i = 0; i < n_quads; ++i) {
            sum[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        }

        for (int j = warp; j < (anew ? rows.n_kv : n); j += blockDim.y) {
            const int   cell = anew ? j : list[1 + j];
            const float bias = rows.mask ? slope * attn_mask(rows, query, stream, cell) : 0.0f;
            if (bias == -INFINITY) {
                continue; // what is masked in this layer may hold anything
            }

            float score = 0.0f;
#pragma unroll
            for (int i = 0; i < n_quads; ++i) {
                const int d = 4 * (i * WARP_SIZE + lane);
                if (d < rows.d_k) {
                    score += attn_dot(q_lane[i], attn_load4<type_K>(k + cell * rows.nb_k, d));
                }
            }
            score = rows.scale * warp_reduce_sum(score);
            if (rows.logit_softcap != 0.0f) {
                score = rows.logit_softcap * tanhf(score);
            }
            const float factor = !anew ? g : attn_is_listed(list, n, cell) ? 1.0f + g : 1.0f;
            const float w      = factor * expf(score + bias - log_sum);
            weight += w;

#pragma unroll
            for (int i = 0; i < n_quads; ++i) {
                const int d = 4 * (i * WARP_SIZE + lane);
                if (d < values.d_v) {
                    const float4 value = attn_load4<type_V>(v + cell * values.nb_v, d);
                    sum[i].x += w * value.x;
                    sum[i].y += w * value.y;
                    sum[i].z += w * value.z;
                    sum[i].w += w * value.w;
                }
            }
        }

#pragma unroll
        for (int i = 0; i < n_quads; ++i) {
            const int d = 4 * (i * WARP_SIZE + lane);
            if (d < values.d_v) {
                *(float4 *) (attn_sums + warp * values.d_v + d) = sum[i];
            }
        }
        if (lane == 0) {
            weights[warp] = weight;
        }
        __syncthreads();

        total = !anew ? 1.0f : rows.sinks ? expf(rows.sinks[head] - log_sum) : 0.0f;
        for (int w = 0; normalize && w < int(blockDim.y); ++w) {
            total += weights[w];
        }
        if (!normalize || anew || total >= 0.5f) {
            break;
        }
        anew = true;
        __syncthreads(); // all have read what is written again
    }

    const float scale = total > 0.0f ? 1.0f / total : 0.0f; // a row that is turned off altogether stays so
    for (int d = warp * WARP_SIZE + lane; d < values.d_v; d += blockDim.y * WARP_SIZE) {
        float value = anew ? 0.0f : result[d];
        for (int w = 0; w < int(blockDim.y); ++w) {
            value += attn_sums[w * values.d_v + d];
        }
        result[d] = scale * value;
    }
}
