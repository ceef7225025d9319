#include "attn-emulation.cuh"

#if !defined(GGML_USE_HIP) && !defined(GGML_USE_MUSA)

#include "attn-emulation-boost-mma.cuh"
#include "attn-emulation-boost.cuh"
#include "attn-emulation-record.cuh"

bool ggml_cuda_supports_attn_emulation(ggml_backend_dev_t) {
    return true;
}

static attn_rows get_rows(
    const ggml_tensor * fa, const float2 * row_meta, attn_query_rounding rounding, const ggml_cuda_attn_kv & k) {
    const ggml_tensor * q    = fa->src[0];
    const ggml_tensor * mask = fa->src[3];

    attn_rows rows      = {};
    rows.q              = (const char *) q->data;
    rows.nb_q           = q->nb[1];
    rows.nb_q_head      = q->nb[2];
    rows.nb_q_stream    = q->nb[3];
    rows.k              = k.data;
    rows.nb_k           = k.nb_cell;
    rows.nb_k_head      = k.nb_head;
    rows.nb_k_stream    = k.nb_stream;
    rows.mask           = mask ? (const char *) mask->data : nullptr;
    rows.nb_mask        = mask ? mask->nb[1] : 0;
    rows.nb_mask_stream = mask ? mask->nb[3] : 0;
    rows.n_mask_streams = mask ? mask->ne[3] : 1;
    rows.meta           = row_meta;
    rows.meta_stride    = ggml_cuda_attn_meta_stride(fa, rounding);
    rows.sinks          = fa->src[4] ? (const float *) fa->src[4]->data : nullptr;
    rows.d_k            = q->ne[0];
    rows.n_q            = q->ne[1];
    rows.n_head         = q->ne[2];
    rows.n_head_kv      = fa->src[1]->ne[2];
    rows.n_kv           = fa->src[1]->ne[1];
    rows.n_stream       = q->ne[3];
    rows.score_scale    = ggml_get_op_params_f32(fa, 0);
    rows.rounding       = rounding;
    rows.max_bias       = ggml_get_op_params_f32(fa, 1);
    rows.logit_softcap  = ggml_get_op_params_f32(fa, 2);
    if (rows.logit_softcap != 0.0f) {
        rows.score_scale /= rows.logit_softcap;
    }
    if (rounding != ATTN_QUERY_F32) {
        const float scale = rows.score_scale;
        rows.query_scale  = rounding == ATTN_QUERY_F16 ? ggml_fp16_to_fp32(ggml_fp32_to_fp16(scale)) : scale;
        rows.score_scale  = 1.0f;
    }
    rows.n_head_log2 = 1u << uint32_t(floorf(log2f(float(rows.n_head))));
    rows.m0          = powf(2.0f, -rows.max_bias / rows.n_head_log2);
    rows.m1          = powf(2.0f, -rows.max_bias / 2.0f / rows.n_head_log2);

    GGML_ASSERT(rows.d_k % 4 == 0 && rows.d_k <= ATTN_MAX_D);
    GGML_ASSERT(ggml_cuda_is_aligned(q, sizeof(float4)));
    return rows;
}

static attn_lists get_lists(const ggml_tensor * pattern) {
    return { (char *) pattern->data, (int64_t) pattern->nb[1], (int64_t) pattern->nb[2], (int64_t) pattern->nb[3], 0,
        (int) pattern->ne[0] - 1 };
}

// calls f with a constant of the type
template <class F>
static void with_type(ggml_type type, F && f) {
    switch (type) {
        case GGML_TYPE_F16:
            return f(std::integral_constant<ggml_type, GGML_TYPE_F16>());
        case GGML_TYPE_BF16:
            return f(std::integral_constant<ggml_type, GGML_TYPE_BF16>());
        case GGML_TYPE_Q4_0:
            return f(std::integral_constant<ggml_type, GGML_TYPE_Q4_0>());
        case GGML_TYPE_Q4_1:
            return f(std::integral_constant<ggml_type, GGML_TYPE_Q4_1>());
        case GGML_TYPE_Q5_0:
            return f(std::integral_constant<ggml_type, GGML_TYPE_Q5_0>());
        case GGML_TYPE_Q5_1:
            return f(std::integral_constant<ggml_type, GGML_TYPE_Q5_1>());
        case GGML_TYPE_Q8_0:
            return f(std::integral_constant<ggml_type, GGML_TYPE_Q8_0>());
        default:
            GGML_ABORT("flash attention takes no keys or values of type %s", ggml_type_name(type));
    }
}

// of keys and values, as flash attention has kernels for; it converts others to F16
template <class F>
static void with_types(ggml_type type_K, ggml_type type_V, F && f) {
#define ATTN_WITH_TYPES(K, V)                                            \
    if constexpr (GGML_CUDA_FA_##K##_##V) {                              \
        if (type_K == GGML_TYPE_##K && type_V == GGML_TYPE_##V) {        \
            return f(std::integral_constant<ggml_type, GGML_TYPE_##K>(), \
                std::integral_constant<ggml_type, GGML_TYPE_##V>());     \
        }                                                                \
    }
#define ATTN_WITH_TYPES_ALL_K(V) \
    ATTN_WITH_TYPES(F16, V)      \
    ATTN_WITH_TYPES(BF16, V)     \
    ATTN_WITH_TYPES(Q4_0, V)     \
    ATTN_WITH_TYPES(Q4_1, V)     \
    ATTN_WITH_TYPES(Q5_0, V)     \
    ATTN_WITH_TYPES(Q5_1, V)     \
    ATTN_WITH_TYPES(Q8_0, V)
    ATTN_WITH_TYPES_ALL_K(F16)
    ATTN_WITH_TYPES_ALL_K(BF16)
    ATTN_WITH_TYPES_ALL_K(Q4_0)
    ATTN_WITH_TYPES_ALL_K(Q4_1)
    ATTN_WITH_TYPES_ALL_K(Q5_0)
    ATTN_WITH_TYPES_ALL_K(Q5_1)
    ATTN_WITH_TYPES_ALL_K(Q8_0)
#undef ATTN_WITH_TYPES_ALL_K
#undef ATTN_WITH_TYPES
    GGML_ABORT("flash attention was not built for keys of type %s and values of type %s", ggml_type_name(type_K),
        ggml_type_name(type_V));
}

template <class F>
static void with_lanes(int n_lanes, F && f) {
    switch (n_lanes) {
        case 4:
            return f(std::integral_constant<int, 4>());
        case 8:
            return f(std::integral_constant<int, 8>());
        case 16:
            return f(std::integral_constant<int, 16>());
        default:
            return f(std::integral_constant<int, WARP_SIZE>());
    }
}

static bool is_aligned_to(const ggml_cuda_attn_kv & k, int64_t n) {
    return (uintptr_t) k.data % n == 0 && k.nb_cell % n == 0 && k.nb_head % n == 0 && k.nb_stream % n == 0;
}

static ggml_cuda_kernel_launch_params join_params(
    ggml_backend_cuda_context & ctx, const attn_rows & rows, int64_t n_stream) {
    const int n_blocks = (rows.n_head + ATTN_JOIN_N_WARPS - 1) / ATTN_JOIN_N_WARPS; // of a query's heads
    return { dim3(rows.n_q, n_blocks, n_stream), dim3(WARP_SIZE, ATTN_JOIN_N_WARPS, 1), 0, ctx.stream() };
}

// launches a kernel that lists cells, whose blocks have n_rows rows that share their keys
template <class Kernel>
static void list_cells(ggml_backend_cuda_context & ctx, const ggml_tensor * fa, const attn_rows & rows, Kernel kernel,
    int n_rows, int n_warps, size_t n_shared) {
    const int64_t       n_tiles    = (int64_t(rows.n_q) * (rows.n_head / rows.n_head_kv) + n_rows - 1) / n_rows;
    const ggml_tensor * q          = fa->src[0];
    const int64_t       n_kv_heads = rows.n_head_kv * q->ne[3];

    // few rows leave most of the device idle: then each row's cells are split into chunks, with a list for each
    const int     n_sm        = ggml_cuda_info().devices[ctx.device].nsm;
    const int64_t most_chunks = (rows.n_kv + 255) / 256;
    const int64_t wanted      = std::min<int64_t>(std::max<int64_t>(4 * n_sm / (n_tiles * n_kv_heads), 1), most_chunks);
    const int     n_per_chunk = GGML_PAD((rows.n_kv + wanted - 1) / wanted, WARP_SIZE);
    const int     n_chunks    = (rows.n_kv + n_per_chunk - 1) / n_per_chunk;

    const attn_lists          pattern = get_lists(fa->src[5]);
    attn_lists                lists   = pattern;
    ggml_cuda_pool_alloc<int> of_chunks(ctx.pool());
    if (n_chunks > 1) {
        lists.capacity  = std::min(pattern.capacity, n_per_chunk);
        lists.nb_chunk  = (1 + lists.capacity) * sizeof(int32_t);
        lists.nb_q      = n_chunks * lists.nb_chunk;
        lists.nb_head   = rows.n_q * lists.nb_q;
        lists.nb_stream = rows.n_head * lists.nb_head;
        lists.data      = (char *) of_chunks.alloc(q->ne[3] * lists.nb_stream / sizeof(int32_t));
    }

    const int32_t * own_cells = (const int32_t *) fa->src[6]->data;
    const float     threshold = ggml_get_op_params_f32(fa, 6);

    const ggml_cuda_kernel_launch_params params(
        dim3(n_tiles, n_chunks, n_kv_heads), dim3(WARP_SIZE, n_warps, 1), n_shared, ctx.stream());
    ggml_cuda_kernel_launch(kernel, params, rows, own_cells, threshold, lists, n_per_chunk);

    if (n_chunks > 1) {
        const ggml_cuda_kernel_launch_params params_join = join_params(ctx, rows, q->ne[3]);
        ggml_cuda_kernel_launch(attn_join_lists, params_join, lists, n_chunks, rows.n_head, pattern);
    }
}

template <int rows_per_warp>
static void list_cells(
    ggml_backend_cuda_context & ctx, const ggml_tensor * fa, const attn_rows & rows, ggml_type type) {
    const int    n_rows   = attn_pattern_rows_per_block(rows_per_warp);
    const size_t n_shared = n_rows * rows.d_k * sizeof(float);
    with_type(type, [&](auto type_K) {
        list_cells(ctx, fa, rows, attn_list_cells<type_K, rows_per_warp>, n_rows, ATTN_PATTERN_N_WARPS, n_shared);
    });
}

static void list_cells_of_few(
    ggml_backend_cuda_context & ctx, const ggml_tensor * fa, const attn_rows & rows, ggml_type type, int64_t n_rows) {
    const ggml_tensor * q         = fa->src[0];
    const int32_t *     own_cells = (const int32_t *) fa->src[6]->data;
    const float         threshold = ggml_get_op_params_f32(fa, 6);
    const int           n_words   = (rows.n_kv + WARP_SIZE - 1) / WARP_SIZE;

    ggml_cuda_pool_alloc<uint32_t> words(ctx.pool(), ggml_nrows(fa) * n_words);

    const auto launch = [&](auto kernel, int n_of_warp) {
        const ggml_cuda_kernel_launch_params params(
            dim3((n_rows + n_of_warp - 1) / n_of_warp, (n_words + ATTN_FEW_ROWS_N_WARPS - 1) / ATTN_FEW_ROWS_N_WARPS,
                rows.n_head_kv * q->ne[3]),
            dim3(WARP_SIZE, ATTN_FEW_ROWS_N_WARPS, 1), 0, ctx.stream());
        ggml_cuda_kernel_launch(kernel, params, rows, own_cells, threshold, words.get(), n_words);
    };
    with_type(type, [&](auto type_K) {
        with_lanes(attn_n_lanes(rows.d_k), [&](auto n_lanes) {
            if (n_rows == 1) {
                launch(attn_list_cells_of_few<type_K, n_lanes, 1>, 1);
            } else {
                launch(attn_list_cells_of_few<type_K, n_lanes, 4>, 4);
            }
        });
    });

    const ggml_cuda_kernel_launch_params params_join = join_params(ctx, rows, q->ne[3]);
    ggml_cuda_kernel_launch(attn_join_words, params_join, rows, words.get(), n_words, get_lists(fa->src[5]));
}

template <int d_max>
static void list_cells_mma(ggml_backend_cuda_context & ctx, const ggml_tensor * fa, const attn_rows & rows) {
    const size_t n_shared = attn_pattern_mma_n_shared(d_max);
    CUDA_SET_SHARED_MEMORY_LIMIT(attn_list_cells_mma<d_max>, n_shared);
    list_cells(ctx, fa, rows, attn_list_cells_mma<d_max>, attn_pattern_mma_n_rows(d_max),
        attn_pattern_mma_n_warps(d_max), n_shared);
}

void ggml_cuda_attn_record_pattern(ggml_backend_cuda_context & ctx, const ggml_tensor * fa, const float2 * row_meta,
    attn_query_rounding rounding, const ggml_cuda_attn_kv & k) {
    const attn_rows rows   = get_rows(fa, row_meta, rounding, k);
    const int64_t   n_rows = int64_t(rows.n_q) * (rows.n_head / rows.n_head_kv); // that share their keys

    const bool takes_mma = turing_mma_available(ggml_cuda_info().devices[ctx.device].cc) && k.type == GGML_TYPE_F16 &&
        is_aligned_to(k, 16) && rows.d_k % 8 == 0 && rows.d_k <= ATTN_PATTERN_MMA_MAX_D;

    // more rows of a warp use a key more often; queries and keys have to fit into 48 KiB
    if (n_rows <= 16) {
        list_cells_of_few(ctx, fa, rows, k.type, n_rows);
    } else if (takes_mma && rows.d_k <= 128) {
        list_cells_mma<128>(ctx, fa, rows);
    } else if (takes_mma) {
        list_cells_mma<256>(ctx, fa, rows);
    } else if (n_rows <= attn_pattern_rows_per_block(4) || rows.d_k > 256) {
        list_cells<4>(ctx, fa, rows, k.type);
    } else {
        list_cells<8>(ctx, fa, rows, k.type);
    }
}

static attn_boost get_boost(const ggml_tensor * fa, const ggml_cuda_attn_kv & v) {
    const int d_v = fa->src[2]->ne[0];
    GGML_ASSERT(d_v % 4 == 0 && d_v <= ATTN_MAX_D);

    const attn_values values = { v.data, v.nb_cell, v.nb_head, v.nb_stream, d_v };
    return { values, get_lists(fa->src[5]), (const float *) fa->src[6]->data, (const float *) fa->src[7]->data };
}

ggml_cuda_attn_task ggml_cuda_attn_get_task(const ggml_tensor * fa, float2 * row_meta, attn_query_rounding rounding,
    const ggml_cuda_attn_kv & k, const ggml_cuda_attn_kv & v, bool has_boost_blocks) {
    const float2 * result = (const float2 *) fa->data;
    if (!has_boost_blocks) {
        return { row_meta, result, UINT32_MAX, {}, {} };
    }
    const attn_rows rows = get_rows(fa, row_meta, rounding, k);
    return { row_meta, result, uint32_t(rows.n_head * rows.n_stream), rows, get_boost(fa, v) };
}

static bool boosts_by_mma(ggml_backend_cuda_context & ctx, const attn_rows & rows, const attn_boost & boost,
    const ggml_cuda_attn_kv & k, const ggml_cuda_attn_kv & v) {
    const int d = rows.d_k;
    return turing_mma_available(ggml_cuda_info().devices[ctx.device].cc) && k.type == GGML_TYPE_F16 &&
        v.type == GGML_TYPE_F16 && is_aligned_to(k, 16) && is_aligned_to(v, 16) && boost.values.d_v == d &&
        (d == 64 || d == 128 || d == 256);
}

template <int d>
static void add_residual_mma(
    ggml_backend_cuda_context & ctx, const attn_rows & rows, const attn_boost & boost, float * result) {
    const int                            n_blocks = (rows.n_q + ATTN_BOOST_MMA_N_WARPS - 1) / ATTN_BOOST_MMA_N_WARPS;
    const ggml_cuda_kernel_launch_params params(
        dim3(n_blocks, rows.n_head, rows.n_stream), dim3(WARP_SIZE, ATTN_BOOST_MMA_N_WARPS, 1), 0, ctx.stream());
    ggml_cuda_kernel_launch(attn_add_residual_mma<d>, params, rows, boost, result);
}

static void add_residual_mma(
    ggml_backend_cuda_context & ctx, const attn_rows & rows, const attn_boost & boost, float * result) {
    switch (rows.d_k) {
        case 64:
            return add_residual_mma<64>(ctx, rows, boost, result);
        case 128:
            return add_residual_mma<128>(ctx, rows, boost, result);
        default:
            return add_residual_mma<256>(ctx, rows, boost, result);
    }
}

void ggml_cuda_attn_boost_pattern(ggml_backend_cuda_context & ctx, const ggml_tensor * fa, const float2 * row_meta,
    attn_query_rounding rounding, const ggml_cuda_attn_kv & k, const ggml_cuda_attn_kv & v,
    const ggml_cuda_attn_parts & parts) {
    const attn_rows  rows      = get_rows(fa, row_meta, rounding, k);
    const attn_boost boost     = get_boost(fa, v);
    const bool       normalize = ggml_flash_attn_ext_get_emulation_normalize(fa);
    float *          result    = (float *) fa->data;

    const int64_t n_rows = int64_t(rows.n_q) * rows.n_head * rows.n_stream;
    const bool    many   = n_rows > 8 * ggml_cuda_info().devices[ctx.device].nsm;
    if (many && !normalize && parts.n <= 1 && boosts_by_mma(ctx, rows, boost, k, v)) {
        return add_residual_mma(ctx, rows, boost, result);
    }

    // many rows fill the device with a warp each; of few, each is done sooner by all
    const int    n_warps     = many ? 1 : ATTN_RESIDUAL_MAX_WARPS;
    const int    n_per_block = many ? ATTN_RESIDUAL_MAX_ROWS : 1;
    const int    n_blocks    = (rows.n_q + n_per_block - 1) / n_per_block;
    const size_t n_shared    = many ? 0 : n_warps * boost.values.d_v * sizeof(float);

    const ggml_cuda_kernel_launch_params params(
        dim3(n_blocks, rows.n_head, rows.n_stream), dim3(WARP_SIZE, n_warps, n_per_block), n_shared, ctx.stream());
    with_types(k.type, v.type, [&](auto type_K, auto type_V) {
        with_lanes(attn_n_lanes(std::max(rows.d_k, boost.values.d_v)), [&](auto n_lanes) {
            ggml_cuda_kernel_launch(
                attn_add_residual<type_K, type_V, n_lanes>, params, rows, boost, normalize, parts, result);
        });
    });
}

#else // the same sources are built for HIP and MUSA, where nobody ran the kernels: the op is refused there

bool ggml_cuda_supports_attn_emulation(ggml_backend_dev_t) {
    return false;
}

void ggml_cuda_attn_record_pattern(
    ggml_backend_cuda_context &, const ggml_tensor *, const float2 *, attn_query_rounding, const ggml_cuda_attn_kv &) {
    GGML_ABORT("attention emulation was not asked whether it is supported");
}

ggml_cuda_attn_task ggml_cuda_attn_get_task(
    const ggml_tensor *, float2 *, attn_query_rounding, const ggml_cuda_attn_kv &, const ggml_cuda_attn_kv &, bool) {
    GGML_ABORT("attention emulation was not asked whether it is supported");
}

void ggml_cuda_attn_boost_pattern(ggml_backend_cuda_context &, const ggml_tensor *, const float2 *, attn_query_rounding,
    const ggml_cuda_attn_kv &, const ggml_cuda_attn_kv &, const ggml_cuda_attn_parts &) {
    GGML_ABORT("attention emulation was not asked whether it is supported");
}

#endif // !defined(GGML_USE_HIP) && !defined(GGML_USE_MUSA)
