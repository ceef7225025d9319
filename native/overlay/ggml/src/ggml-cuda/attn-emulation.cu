#include "attn-emulation.cuh"

#if !defined(GGML_USE_HIP) && !defined(GGML_USE_MUSA)

#include "attn-emulation-kernels.cuh"

bool ggml_cuda_supports_attn_emulation(ggml_backend_dev_t) {
    return true;
}

static attn_rows get_rows(const ggml_tensor * fa, const float2 * row_meta, const ggml_cuda_attn_kv & k) {
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
    rows.sinks          = fa->src[4] ? (const float *) fa->src[4]->data : nullptr;
    rows.d_k            = q->ne[0];
    rows.n_q            = q->ne[1];
    rows.n_head         = q->ne[2];
    rows.n_head_kv      = fa->src[1]->ne[2];
    rows.n_kv           = fa->src[1]->ne[1];
    rows.scale          = ggml_get_op_params_f32(fa, 0);
    rows.max_bias       = ggml_get_op_params_f32(fa, 1);
    rows.logit_softcap  = ggml_get_op_params_f32(fa, 2);
    if (rows.logit_softcap != 0.0f) {
        rows.scale /= rows.logit_softcap;
    }
    rows.n_head_log2 = 1u << uint32_t(floorf(log2f(float(rows.n_head))));
    rows.m0          = powf(2.0f, -rows.max_bias / rows.n_head_log2);
    rows.m1          = powf(2.0f, -rows.max_bias / 2.0f / rows.n_head_log2);

    GGML_ASSERT(rows.d_k % 4 == 0 && rows.d_k <= ATTN_RESIDUAL_MAX_D);
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

template <int rows_per_warp>
static void list_cells(
    ggml_backend_cuda_context & ctx, const ggml_tensor * fa, const attn_rows & rows, ggml_type type) {
    const int64_t       n_rows     = attn_pattern_rows_per_block(rows_per_warp);
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
    const size_t    n_shared  = n_rows * rows.d_k * sizeof(float);

    const ggml_cuda_kernel_launch_params params(
        dim3(n_tiles, n_chunks, n_kv_heads), dim3(WARP_SIZE, ATTN_PATTERN_N_WARPS, 1), n_shared, ctx.stream());
    with_type(type, [&](auto type_K) {
        ggml_cuda_kernel_launch(
            attn_list_cells<type_K, rows_per_warp>, params, rows, own_cells, threshold, lists, n_per_chunk);
    });

    if (n_chunks > 1) {
        const ggml_cuda_kernel_launch_params params_join(
            dim3(rows.n_q, rows.n_head, q->ne[3]), dim3(WARP_SIZE, 1, 1), 0, ctx.stream());
        ggml_cuda_kernel_launch(attn_join_lists, params_join, lists, n_chunks, pattern);
    }
}

void ggml_cuda_attn_record_pattern(
    ggml_backend_cuda_context & ctx, const ggml_tensor * fa, const float2 * row_meta, const ggml_cuda_attn_kv & k) {
    const attn_rows rows   = get_rows(fa, row_meta, k);
    const int64_t   n_rows = int64_t(rows.n_q) * (rows.n_head / rows.n_head_kv); // that share their keys

    // more rows of a warp use a key more often; queries and keys have to fit into 48 KiB
    if (n_rows <= attn_pattern_rows_per_block(1)) {
        list_cells<1>(ctx, fa, rows, k.type);
    } else if (n_rows <= attn_pattern_rows_per_block(4) || rows.d_k > 256) {
        list_cells<4>(ctx, fa, rows, k.type);
    } else {
        list_cells<8>(ctx, fa, rows, k.type);
    }
}

void ggml_cuda_attn_boost_pattern(ggml_backend_cuda_context & ctx, const ggml_tensor * fa, const float2 * row_meta,
    const ggml_cuda_attn_kv & k, const ggml_cuda_attn_kv & v) {
    const attn_rows     rows    = get_rows(fa, row_meta, k);
    const attn_lists    pattern = get_lists(fa->src[5]);
    const ggml_tensor * q       = fa->src[0];
    const int           d_v     = fa->src[2]->ne[0];
    const attn_values   values  = { v.data, v.nb_cell, v.nb_head, v.nb_stream, d_v };

    const float * strength  = (const float *) fa->src[6]->data;
    const float * gain      = (const float *) fa->src[7]->data;
    const bool    normalize = ggml_flash_attn_ext_get_emulation_normalize(fa);
    float *       result    = (float *) fa->data;

    // where there are many rows, each gets by with fewer warps
    const int    n_warps  = rows.n_q == 1 ? ATTN_RESIDUAL_MAX_WARPS : 4;
    const size_t n_shared = n_warps * d_v * sizeof(float);
    GGML_ASSERT(d_v % 4 == 0 && d_v <= ATTN_RESIDUAL_MAX_D);

    const ggml_cuda_kernel_launch_params params(
        dim3(rows.n_q, rows.n_head, q->ne[3]), dim3(WARP_SIZE, n_warps, 1), n_shared, ctx.stream());
    with_type(k.type, [&](auto type_K) {
        with_type(v.type, [&](auto type_V) {
            ggml_cuda_kernel_launch(
                attn_add_residual<type_K, type_V>, params, rows, values, pattern, strength, gain, normalize, result);
        });
    });
}

#else // the same sources are built for HIP and MUSA, where nobody ran the kernels: the op is refused there

bool ggml_cuda_supports_attn_emulation(ggml_backend_dev_t) {
    return false;
}

void ggml_cuda_attn_record_pattern(
    ggml_backend_cuda_context &, const ggml_tensor *, const float2 *, const ggml_cuda_attn_kv &) {
    GGML_ABORT("attention emulation was not asked whether it is supported");
}

void ggml_cuda_attn_boost_pattern(ggml_backend_cuda_context &, const ggml_tensor *, const float2 *,
    const ggml_cuda_attn_kv &, const ggml_cuda_attn_kv &) {
    GGML_ABORT("attention emulation was not asked whether it is supported");
}

#endif // !defined(GGML_USE_HIP) && !defined(GGML_USE_MUSA)
