#pragma once

// The kernel that adds what the boost of many rows' listed cells changes, on tensor cores: for keys and values in F16 of one size.

#include "attn-emulation-rows.cuh"
#include "mma.cuh"

#define ATTN_BOOST_MMA_N_WARPS 4 // of a block: a row each

// F16 keeps less of small numbers: weights are this much larger there
#define ATTN_BOOST_MMA_SCALE 1024.0f

// A warp has a row and takes 16 of its listed cells at once. Lane 4*i + j loads its share of what is multiplied, 8 values side by side:
// of the keys of cells i and i + 8, those that are its turn among j; of the values of cells 2*j, 2*j + 1, 2*j + 8 and 2*j + 9, those that
// are its turn among i. Keys and queries are taken in the same order, which is another than theirs. Queries and weights are sums of two
// numbers of 16 bits: even columns have what is rounded, odd ones the rest.
template <int d>
__launch_bounds__(WARP_SIZE * ATTN_BOOST_MMA_N_WARPS, d <= 128 ? 4 : 2) static __global__ void attn_add_residual_mma(
    attn_rows rows, attn_boost boost, float * result) {
#ifdef TURING_MMA_AVAILABLE
    using namespace ggml_cuda_mma;
    typedef tile<16, 8, half2> tile_cells;
    typedef tile<8, 8, half2>  tile_row;
    typedef tile<16, 8, float> tile_sums;

    constexpr int n_slices = d / 32;     // of a key, of which a lane has 8 values each
    constexpr int n_chunks = d / 64;     // of a cell's values, likewise
    constexpr int n_tiles  = d / 16;     // of sums
    constexpr int n_own    = 2 * d / 64; // sums that a lane writes

    const int i      = threadIdx.x / 4;
    const int j      = threadIdx.x % 4;
    const int query  = blockIdx.x * ATTN_BOOST_MMA_N_WARPS + threadIdx.y;
    const int head   = blockIdx.y;
    const int stream = blockIdx.z;

    ggml_cuda_pdl_lc();
    ggml_cuda_pdl_sync();
    if (query >= rows.n_q) {
        return;
    }

    // all that nothing else has to be known for comes first, so that it comes at once
    const int64_t row         = attn_row_index(rows, query, head, stream);
    auto [list, g, n, listed] = attn_load_listed(rows, boost, query, head, stream, 0);
    const float log_sum       = attn_log_sum(attn_row_meta(rows, row));

    __align__(16) float before[n_own];
    result += row * d + n_own * j / 8 * 64 + 8 * i + n_own * j % 8;
#pragma unroll
    for (int o = 0; o < n_own; o += 4) {
        ggml_cuda_memcpy_1<(n_own < 4 ? n_own : 4) * sizeof(float)>(before + o, result + o);
    }

    __align__(16) half2 q_lane[n_slices][4];
#pragma unroll
    for (int s = 0; s < n_slices; ++s) {
        __align__(16) float q[8];
        const char *        from = rows.q + stream * rows.nb_q_stream + head * rows.nb_q_head + query * rows.nb_q;
        ggml_cuda_memcpy_1<16>(q, from + (32 * s + 8 * j) * sizeof(float));
        ggml_cuda_memcpy_1<16>(q + 4, from + (32 * s + 8 * j + 4) * sizeof(float));
#pragma unroll
        for (int u = 0; u < 8; u += 4) {
            const float4 rounded = attn_round_query(rows, make_float4(q[u], q[u + 1], q[u + 2], q[u + 3]));
            q[u]                 = rounded.x;
            q[u + 1]             = rounded.y;
            q[u + 2]             = rounded.z;
            q[u + 3]             = rounded.w;
        }
#pragma unroll
        for (int u = 0; u < 4; ++u) {
            q_lane[s][u] = attn_half_of_sum(q[2 * u], q[2 * u + 1], i % 2 != 0);
        }
    }

    if (n <= 0) {
        return;
    }
    const int    head_kv = head / (rows.n_head / rows.n_head_kv);
    const char * k       = rows.k + stream * rows.nb_k_stream + head_kv * rows.nb_k_head;
    const char * v       = boost.values.v + stream * boost.values.nb_v_stream + head_kv * boost.values.nb_v_head;
    const float  slope   = attn_slope(rows, head);

    tile_sums sums[n_tiles];
#pragma unroll 1
    for (int first = 0; first < n; first += 16) {
        // beyond the list's end its last cell is taken, times 0
        const int place[2] = { first + i, first + 8 + i };
        int       cell[2];
        bool      visible[2];
        float     bias[2];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            cell[h]    = __shfl_sync(0xFFFFFFFF, listed, min(place[h], n - 1) % WARP_SIZE, WARP_SIZE);
            bias[h]    = rows.mask ? slope * attn_mask(rows, query, stream, cell[h]) : 0.0f;
            visible[h] = bias[h] > -INFINITY;
        }

        tile_sums           scores;
        __align__(16) half2 keys[2][n_slices][4];
#pragma unroll
        for (int s = 0; s < n_slices; ++s) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                ggml_cuda_memcpy_1<16>(keys[h][s], k + cell[h] * rows.nb_k + (32 * s + 8 * j) * sizeof(half));
            }
        }
#pragma unroll
        for (int s = 0; s < n_slices; ++s) {
#pragma unroll
            for (int u = 0; u < 4; u += 2) {
                tile_cells a;
                tile_row   b;
                a.x[0] = keys[0][s][u];
                a.x[1] = keys[1][s][u];
                a.x[2] = keys[0][s][u + 1];
                a.x[3] = keys[1][s][u + 1];
                b.x[0] = q_lane[s][u];
                b.x[1] = q_lane[s][u + 1];
                mma(scores, a, b);
            }
        }

        float weight[2];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float score = rows.score_scale * (scores.x[2 * h] + scores.x[2 * h + 1]);
            if (rows.logit_softcap != 0.0f) {
                score = rows.logit_softcap * tanhf(score);
            }
            weight[h] =
                place[h] < n && visible[h] ? ATTN_BOOST_MMA_SCALE * expf(fminf(score + bias[h] - log_sum, 0.0f)) : 0.0f;
        }

        // what is masked in this layer may hold anything: in its place another cell's values are taken, times 0
        const uint32_t seen[2] = { __ballot_sync(0xFFFFFFFF, visible[0]), __ballot_sync(0xFFFFFFFF, visible[1]) };
        if ((seen[0] | seen[1]) != 0) {
            const int of = __shfl_sync(
                0xFFFFFFFF, seen[0] != 0 ? cell[0] : cell[1], __ffs(seen[0] != 0 ? seen[0] : seen[1]) - 1, WARP_SIZE);

            __align__(16) half2 v_lane[4][n_chunks][4];
            float               w[4];
#pragma unroll
            for (int m = 0; m < 4; ++m) {
                const int from    = 8 * j + 4 * (m % 2);
                w[m]              = __shfl_sync(0xFFFFFFFF, weight[m / 2], from, WARP_SIZE);
                const int64_t row = __shfl_sync(0xFFFFFFFF, visible[m / 2] ? cell[m / 2] : of, from, WARP_SIZE);
#pragma unroll
                for (int c = 0; c < n_chunks; ++c) {
                    ggml_cuda_memcpy_1<16>(v_lane[m][c], v + row * boost.values.nb_v + (64 * c + 8 * i) * sizeof(half));
                }
            }
            tile_row b;
            b.x[0] = attn_half_of_sum(w[0], w[1], i % 2 != 0);
            b.x[1] = attn_half_of_sum(w[2], w[3], i % 2 != 0);
#pragma unroll
            for (int t = 0; t < n_tiles; ++t) {
                tile_cells a;
#pragma unroll
                for (int l = 0; l < 4; ++l) {
                    const int   e    = t + l % 2 * n_tiles; // of the lane's values of a cell
                    const half2 even = v_lane[l / 2 * 2][e / 8][e % 8 / 2];
                    const half2 odd  = v_lane[l / 2 * 2 + 1][e / 8][e % 8 / 2];
                    a.x[l]           = e % 2 == 0 ? __lows2half2(even, odd) : __highs2half2(even, odd);
                }
                mma(sums[t], a, b);
            }
        }
        if (first % WARP_SIZE != 0 && first + 16 < n) {
            listed = list[1 + min(first + 16 + int(threadIdx.x), n - 1)];
        }
    }

    // all lanes of the same i have the same sums: each writes its share
    const float factor = g / ATTN_BOOST_MMA_SCALE;
#pragma unroll
    for (int e = 0; e < 2 * n_tiles; ++e) {
        const tile_sums & of  = sums[e % n_tiles];
        const float       sum = of.x[e / n_tiles * 2] + of.x[e / n_tiles * 2 + 1];
        if (e / n_own == j) {
            before[e % n_own] += factor * sum;
        }
    }
#pragma unroll
    for (int o = 0; o < n_own; o += 4) {
        ggml_cuda_memcpy_1<(n_own < 4 ? n_own : 4) * sizeof(float)>(result + o, before + o);
    }
#else
    GGML_UNUSED_VARS(rows, boost, result);
    NO_DEVICE_CODE;
#endif // TURING_MMA_AVAILABLE
}
