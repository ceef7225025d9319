#pragma once

// Kernels that list the cells of a pattern: for few rows, as in decoding; for many; for many on tensor cores.

#include "attn-emulation-rows.cuh"
#include "mma.cuh"

#define ATTN_FEW_ROWS_N_WARPS 4

// Lists the cells of few rows: a bit for each cell, in words of 32. A warp has a word of each of n_rows rows that share their keys.
template <ggml_type type_K, int n_lanes, int n_rows>
__launch_bounds__(WARP_SIZE * ATTN_FEW_ROWS_N_WARPS) static __global__ void attn_list_cells_of_few(
    attn_rows rows, const int32_t * own_cells, float threshold, uint32_t * words, int n_words) {
    const int gqa       = rows.n_head / rows.n_head_kv;
    const int stream    = blockIdx.z / rows.n_head_kv;
    const int head_kv   = blockIdx.z % rows.n_head_kv;
    const int row_first = blockIdx.x * n_rows; // of n_q*gqa
    const int word      = blockIdx.y * ATTN_FEW_ROWS_N_WARPS + threadIdx.y;
    const int cell      = word * WARP_SIZE + threadIdx.x;
    const int n_cells   = min(WARP_SIZE, rows.n_kv - word * WARP_SIZE);

    ggml_cuda_pdl_lc();
    ggml_cuda_pdl_sync();
    if (word >= n_words) {
        return;
    }

    float4 q_lane[n_rows][attn_n_quads(n_lanes)];
    float  bias[n_rows];
    float2 meta[n_rows];
    int    own[n_rows];
#pragma unroll
    for (int r = 0; r < n_rows; ++r) {
        // what there is no row for does the last one's work again
        const int row   = min(row_first + r, rows.n_q * gqa - 1);
        const int query = row / gqa;
        const int head  = head_kv * gqa + row % gqa;
        attn_load_query<type_K, n_lanes>(rows, query, head, stream, q_lane[r]);
        bias[r] = rows.mask ? attn_slope(rows, head) * attn_mask(rows, query, stream, min(cell, rows.n_kv - 1)) : 0.0f;
        meta[r] = attn_row_meta(rows, attn_row_index(rows, query, head, stream));
        own[r]  = own_cells[stream * rows.n_q + query];
    }

    const char * k = rows.k + stream * rows.nb_k_stream + head_kv * rows.nb_k_head;
    float        scores[n_rows];
    attn_scores<type_K, n_lanes, attn_n_at_once(type_K, n_lanes), true>(rows, k, cell, n_cells, q_lane, scores);

#pragma unroll
    for (int r = 0; r < n_rows; ++r) {
        const bool     is_listed = scores[r] + bias[r] > attn_log_sum(meta[r]) + logf(threshold);
        const uint32_t listed    = __ballot_sync(0xFFFFFFFF, is_listed && int(threadIdx.x) < n_cells && cell != own[r]);
        const int      row       = row_first + r;
        if (threadIdx.x == 0 && row < rows.n_q * gqa) {
            words[attn_row_index(rows, row / gqa, head_kv * gqa + row % gqa, stream) * n_words + word] = listed;
        }
    }
}

#define ATTN_JOIN_N_WARPS 4

// Makes a list of a row's words. A warp has one row, a lane a word.
__launch_bounds__(WARP_SIZE * ATTN_JOIN_N_WARPS) static __global__ void attn_join_words(
    attn_rows rows, const uint32_t * words, int n_words, attn_lists pattern) {
    const int lane   = threadIdx.x;
    const int query  = blockIdx.x;
    const int head   = blockIdx.y * ATTN_JOIN_N_WARPS + threadIdx.y;
    const int stream = blockIdx.z;

    ggml_cuda_pdl_lc();
    ggml_cuda_pdl_sync();
    if (head >= rows.n_head) {
        return;
    }

    words += attn_row_index(rows, query, head, stream) * n_words;
    int32_t * dst   = pattern.row(query, head, stream, 0);
    int       total = 0;
    for (int word0 = 0; word0 < n_words; word0 += WARP_SIZE) {
        uint32_t  word = word0 + lane < n_words ? words[word0 + lane] : 0;
        const int n    = __popc(word);
        const int end  = total + warp_prefix_inclusive_sum(n);
        for (int i = end - n; word != 0 && i < pattern.capacity; ++i) {
            dst[1 + i] = (word0 + lane) * WARP_SIZE + __ffs(word) - 1;
            word &= word - 1;
        }
        total = __shfl_sync(0xFFFFFFFF, end, WARP_SIZE - 1);
    }
    if (lane == 0) {
        dst[0] = min(total, pattern.capacity);
    }
}

// what a block has that lists a chunk of its rows' cells
struct attn_chunk_block {
    int          gqa;
    int          stream;
    int          head_kv;
    int          row_first; // of n_q*gqa
    int          row_end;
    int          chunk;
    int          cell_first;
    int          cell_end;
    const char * k;
};

static __device__ __forceinline__ attn_chunk_block attn_block_of_chunk(
    const attn_rows & rows, int n_rows, int n_per_chunk) {
    attn_chunk_block block;
    block.gqa        = rows.n_head / rows.n_head_kv;
    block.stream     = blockIdx.z / rows.n_head_kv;
    block.head_kv    = blockIdx.z % rows.n_head_kv;
    block.row_first  = blockIdx.x * n_rows;
    block.row_end    = rows.n_q * block.gqa;
    block.chunk      = blockIdx.y;
    block.cell_first = block.chunk * n_per_chunk;
    block.cell_end   = min(block.cell_first + n_per_chunk, rows.n_kv);
    block.k          = rows.k + block.stream * rows.nb_k_stream + block.head_kv * rows.nb_k_head;
    return block;
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

    const auto [gqa, stream, head_kv, row_first, row_end, chunk, cell_first, cell_end, k] =
        attn_block_of_chunk(rows, n_rows, n_per_chunk);
    const int d4 = rows.d_k / 4;

    ggml_cuda_pdl_lc();
    ggml_cuda_pdl_sync();

    for (int i = thread; i < n_rows * d4; i += n_threads) {
        const int row = row_first + i / d4;
        float4    q   = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (row < row_end) {
            const int head = head_kv * gqa + row % gqa;
            q              = *(const float4 *) (rows.q + stream * rows.nb_q_stream + head * rows.nb_q_head +
                (row / gqa) * rows.nb_q + (i % d4) * sizeof(float4));
        }
        if constexpr (attn_is_quantised(type_K)) {
            // 8 threads have a block
            float most = attn_max_abs(q);
#pragma unroll
            for (int offset = 1; offset < 8; offset *= 2) {
                most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFF, most, offset, WARP_SIZE));
            }
            q = attn_to_q8(q, most);
        } else {
            q = attn_round_query(rows, q);
        }
        attn_queries[i] = attn_times(q, rows.score_scale);
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
            const int head  = head_kv * gqa + row % gqa;
            bound[r] = attn_log_sum(attn_row_meta(rows, attn_row_index(rows, query, head, stream))) + logf(threshold);
            own[r]   = own_cells[stream * rows.n_q + query];
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

#define ATTN_PATTERN_MMA_N_KEYS 32 // at once
#define ATTN_PATTERN_MMA_MAX_D  256

static constexpr __host__ __device__ int attn_pattern_mma_n_warps(int d_max) {
    return d_max <= 128 ? 4 : 2;
}

static constexpr __host__ __device__ int attn_pattern_mma_n_rows(int d_max) {
    return 16 * attn_pattern_mma_n_warps(d_max); // of a block
}

// of a row of queries or keys in shared memory, in pairs of values; padded, so that 8 rows are in banks of their own
static constexpr __host__ __device__ int attn_pattern_mma_stride(int d_max) {
    return d_max / 2 + 4;
}

static constexpr __host__ __device__ size_t attn_pattern_mma_n_shared(int d_max) {
    return (2 * attn_pattern_mma_n_rows(d_max) + ATTN_PATTERN_MMA_N_KEYS) * attn_pattern_mma_stride(d_max) *
        sizeof(half2);
}

// The same as attn_list_cells, for many rows and keys in F16, on tensor cores: a warp has 16 rows. A query that flash attention did not
// round is the sum of two numbers of 16 bits.
template <int d_max>
__launch_bounds__(WARP_SIZE * attn_pattern_mma_n_warps(d_max), 3) static __global__ void attn_list_cells_mma(
    attn_rows rows, const int32_t * own_cells, float threshold, attn_lists lists, int n_per_chunk) {
#ifdef TURING_MMA_AVAILABLE
    using namespace ggml_cuda_mma;
    typedef tile<16, 8, half2>  tile_rows; // of queries or keys
    typedef tile<16, 16, float> tile_scores;

    constexpr int n_warps   = attn_pattern_mma_n_warps(d_max);
    constexpr int n_threads = WARP_SIZE * n_warps;
    constexpr int n_rows    = attn_pattern_mma_n_rows(d_max);
    constexpr int n_keys    = ATTN_PATTERN_MMA_N_KEYS;
    constexpr int n_tiles   = n_keys / 16;
    constexpr int stride    = attn_pattern_mma_stride(d_max);

    extern __shared__ half2 attn_halves[];
    half2 *                 queries = attn_halves;     // [n_rows][stride]
    half2 * rests = attn_halves + n_rows * stride;     // [n_rows][stride], what is lost by rounding queries to 16 bits
    half2 * keys  = attn_halves + 2 * n_rows * stride; // [n_keys][stride]

    const int lane   = threadIdx.x;
    const int warp   = threadIdx.y;
    const int thread = warp * WARP_SIZE + lane;

    const auto [gqa, stream, head_kv, row_first, row_end, chunk, cell_first, cell_end, k] =
        attn_block_of_chunk(rows, n_rows, n_per_chunk);
    const int  n_steps   = (rows.d_k + 15) / 16;
    const bool has_rests = rows.rounding == ATTN_QUERY_F32;

    ggml_cuda_pdl_lc();
    ggml_cuda_pdl_sync();

    for (int i = thread; i < n_rows * 4 * n_steps; i += n_threads) {
        const int row  = row_first + i / (4 * n_steps);
        const int d    = 4 * (i % (4 * n_steps));
        float     q[4] = { 0.0f };
        if (row < row_end && d < rows.d_k) {
            const int head = head_kv * gqa + row % gqa;
            ggml_cuda_memcpy_1<sizeof(q)>(q,
                rows.q + stream * rows.nb_q_stream + head * rows.nb_q_head + (row / gqa) * rows.nb_q +
                    d * sizeof(float));
        }
        const float4 rounded4 =
            attn_times(attn_round_query(rows, make_float4(q[0], q[1], q[2], q[3])), rows.score_scale);
        q[0] = rounded4.x;
        q[1] = rounded4.y;
        q[2] = rounded4.z;
        q[3] = rounded4.w;
#pragma unroll
        for (int j = 0; j < 4; j += 2) {
            const float2 q2      = make_float2(q[j], q[j + 1]);
            const half2  rounded = __float22half2_rn(q2);
            const float2 back    = __half22float2(rounded);
            const int    to      = (i / (4 * n_steps)) * stride + (d + j) / 2;
            queries[to]          = rounded;
            rests[to]            = __float22half2_rn(make_float2(q2.x - back.x, q2.y - back.y));
        }
    }

    // a lane has scores of two rows
    float        bound[2]; // what a listed cell's score exceeds
    float        slope[2];
    const half * mask[2];
    int          own[2];
    int          count[2] = { 0, 0 };
    int32_t *    list[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int row   = row_first + 16 * warp + tile_scores::get_i(2 * r);
        const int query = row / gqa;
        const int head  = head_kv * gqa + row % gqa;
        bound[r]        = INFINITY;
        slope[r]        = attn_slope(rows, head);
        mask[r]         = nullptr;
        own[r]          = -1;
        list[r]         = nullptr;
        if (row < row_end) {
            bound[r] = attn_log_sum(attn_row_meta(rows, attn_row_index(rows, query, head, stream))) + logf(threshold);
            own[r]   = own_cells[stream * rows.n_q + query];
            list[r]  = lists.row(query, head, stream, chunk);
            if (rows.mask) {
                mask[r] = attn_mask_row(rows, query, stream);
            }
        }
    }

    for (int cell0 = cell_first; cell0 < cell_end; cell0 += n_keys) {
        float bias[n_tiles][tile_scores::ne];
        bool  visible = false;
#pragma unroll
        for (int t = 0; t < n_tiles; ++t) {
#pragma unroll
            for (int l = 0; l < tile_scores::ne; ++l) {
                const int r    = l / 2 % 2;
                const int cell = cell0 + 16 * t + tile_scores::get_j(l);
                bias[t][l]     = -INFINITY;
                if (list[r] && cell < cell_end) {
                    bias[t][l] = mask[r] ? slope[r] * __half2float(mask[r][cell]) : 0.0f;
                }
                visible |= bias[t][l] > -FLT_MAX;
            }
        }
        // also waits until the last keys have been used
        if (!__syncthreads_or(visible)) {
            continue;
        }

        for (int i = thread; i < n_keys * 2 * n_steps; i += n_threads) {
            const int key   = i / (2 * n_steps);
            const int d     = 8 * (i % (2 * n_steps));
            half2     k8[4] = { { 0.0f, 0.0f } };
            if (cell0 + key < cell_end && d < rows.d_k) {
                ggml_cuda_memcpy_1<sizeof(k8)>(k8, k + (cell0 + key) * rows.nb_k + d * sizeof(half));
            }
            ggml_cuda_memcpy_1<sizeof(k8)>(keys + key * stride + d / 2, k8);
        }
        __syncthreads();

        tile_scores scores[n_tiles];
#pragma unroll 4
        for (int step = 0; step < n_steps; ++step) {
            tile_rows q;
            tile_rows rest;
            load_ldmatrix(q, queries + 16 * warp * stride + 8 * step, stride);
            if (has_rests) {
                load_ldmatrix(rest, rests + 16 * warp * stride + 8 * step, stride);
            }
#pragma unroll
            for (int t = 0; t < n_tiles; ++t) {
                tile_rows key;
                load_ldmatrix(key, keys + 16 * t * stride + 8 * step, stride);
                mma(scores[t], q, key);
                if (has_rests) {
                    mma(scores[t], rest, key);
                }
            }
        }

#pragma unroll
        for (int r = 0; r < 2; ++r) {
            uint32_t listed = 0; // a bit for each cell
#pragma unroll
            for (int t = 0; t < n_tiles; ++t) {
#pragma unroll
                for (int l = 0; l < tile_scores::ne; ++l) {
                    if (l / 2 % 2 != r) {
                        continue;
                    }
                    float score = scores[t].x[l];
                    if (rows.logit_softcap != 0.0f) {
                        score = rows.logit_softcap * tanhf(score);
                    }
                    const int i = 16 * t + tile_scores::get_j(l);
                    listed |= uint32_t(score + bias[t][l] > bound[r] && cell0 + i != own[r]) << i;
                }
            }
            // the four lanes that share the row
            listed |= __shfl_xor_sync(0xFFFFFFFF, listed, 1, WARP_SIZE);
            listed |= __shfl_xor_sync(0xFFFFFFFF, listed, 2, WARP_SIZE);

            // each of them writes some
            for (uint32_t rest = listed & (0xFFu << (8 * (lane % 4))); rest != 0; rest &= rest - 1) {
                const int i  = __ffs(rest) - 1;
                const int to = count[r] + __popc(listed & ((1u << i) - 1));
                if (to < lists.capacity) {
                    list[r][1 + to] = cell0 + i;
                }
            }
            count[r] += __popc(listed);
        }
    }

#pragma unroll
    for (int r = 0; r < 2; ++r) {
        if (lane % 4 == 0 && list[r]) {
            list[r][0] = min(count[r], lists.capacity);
        }
    }
#else
    GGML_UNUSED_VARS(rows, own_cells, threshold, lists, n_per_chunk);
    NO_DEVICE_CODE;
#endif // TURING_MMA_AVAILABLE
}

// Makes one list of those of a row's chunks. A warp has one row, a lane a chunk.
__launch_bounds__(WARP_SIZE * ATTN_JOIN_N_WARPS) static __global__ void attn_join_lists(
    attn_lists chunks, int n_chunks, int n_head, attn_lists pattern) {
    const int lane   = threadIdx.x;
    const int query  = blockIdx.x;
    const int head   = blockIdx.y * ATTN_JOIN_N_WARPS + threadIdx.y;
    const int stream = blockIdx.z;

    ggml_cuda_pdl_lc();
    ggml_cuda_pdl_sync();
    if (head >= n_head) {
        return;
    }

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
