#pragma once

// Early-layer attention pattern emulation after flash attention. Its kernels export each row's maximum and sum; with these, kernels of
// our own list the cells of a pattern, or add what the boost of the listed cells changes. See ggml-attn-emulation.h.
//
// A row is a (query, head) pair of a stream; its result is at index (stream*n_q + query)*n_head + head, and its (maximum, sum) at this
// index times the rows' meta_stride.

#include "common.cuh"
#include "ggml-attn-emulation.h"

// Blocks of flash attention's launch that boost, see attn-emulation-part.cuh, only where a kernel's parameter can be taken by
// reference: elsewhere each thread would begin with a copy of it, emulation or not.
#if !defined(GGML_USE_HIP) && !defined(GGML_USE_MUSA) && CUDART_VERSION >= 11070
static bool ggml_cuda_attn_has_boost_blocks(int cc) {
    return ggml_cuda_highest_compiled_arch(cc) >= GGML_CUDA_CC_VOLTA;
}
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= GGML_CUDA_CC_VOLTA
#define GGML_CUDA_ATTN_BOOST_BLOCKS
#endif
#else
static bool ggml_cuda_attn_has_boost_blocks(int) {
    return false;
}
#endif

#ifdef GGML_CUDA_ATTN_BOOST_BLOCKS
#define GGML_CUDA_ATTN_GRID_CONSTANT __grid_constant__
#else
#define GGML_CUDA_ATTN_GRID_CONSTANT
#endif

// keys or values as flash attention read them, which may be a copy in F16
struct ggml_cuda_attn_kv {
    const char * data;
    ggml_type    type;
    int64_t      nb_cell;
    int64_t      nb_head;
    int64_t      nb_stream;
};

// How a kernel of flash attention rounds queries for keys of 16 bits; for quantised keys all round them to 8 bits. Ours must do the same:
// what all keys have in common makes the same error in all of a row's scores, which its softmax doesn't show, but a weight does that
// is computed from another score than the row's sum.
enum attn_query_rounding {
    ATTN_QUERY_F32,
    ATTN_QUERY_F16,        // the scale and the query, then their product
    ATTN_QUERY_SCALED_F16, // their product
};

static attn_query_rounding ggml_cuda_attn_rounding(bool is_vec, bool is_mma, int cc) {
    return is_vec               ? ATTN_QUERY_F32 :
        is_mma                  ? ATTN_QUERY_F16 :
        fast_fp16_available(cc) ? ATTN_QUERY_SCALED_F16 :
                                  ATTN_QUERY_F32;
}

// From a row's (maximum, sum) to the next one's. mma's kernels have no register left for a row's number: they put the pair as far from
// where the row's result begins as the first pair is from the first result, so it takes the room of a result.
static int ggml_cuda_attn_meta_stride(const ggml_tensor * fa, attn_query_rounding rounding) {
    const bool is_mma = rounding == ATTN_QUERY_F16;
    return is_mma ? fa->ne[0] * sizeof(float) / sizeof(float2) : 1;
}

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
    int   n_stream;
    int   n_mask_streams;
    int   meta_stride; // in pairs
    float score_scale; // with a soft cap it is scale / cap, as in flash attention; 1 where queries are rounded with it

    attn_query_rounding rounding;
    float               query_scale; // of queries that are rounded

    float logit_softcap;

    // ALiBi
    float    max_bias;
    float    m0;
    float    m1;
    uint32_t n_head_log2;
};

struct attn_values {
    const char * v;
    int64_t      nb_v;
    int64_t      nb_v_head;
    int64_t      nb_v_stream;
    int          d_v; // a multiple of 4
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

// how much the listed cells' weights of a row change: by strength * gain
struct attn_boost {
    attn_values   values;
    attn_lists    pattern;
    const float * strength; // of each query
    const float * gain;     // of each head
};

// the results of n blocks that share a row's cells, and their (maximum, sum), for each row; none where n is at most 1
struct ggml_cuda_attn_parts {
    const float *  values; // [n_rows][n][d_v]
    const float2 * meta;   // [n_rows][n]
    int            n;
};

void ggml_cuda_attn_record_pattern(ggml_backend_cuda_context & ctx, const ggml_tensor * fa, const float2 * row_meta,
    attn_query_rounding rounding, const ggml_cuda_attn_kv & k);

void ggml_cuda_attn_boost_pattern(ggml_backend_cuda_context & ctx, const ggml_tensor * fa, const float2 * row_meta,
    attn_query_rounding rounding, const ggml_cuda_attn_kv & k, const ggml_cuda_attn_kv & v,
    const ggml_cuda_attn_parts & parts);

// What a kernel of flash attention does for a pattern.
struct ggml_cuda_attn_task {
    float2 * row_meta; // where it puts the (maximum, sum) of the rows, null if nobody asks for it

    // The op's result, for mma. By the kernel's own pointer to it, the compiler would know where a row's pair goes before it reads the
    // keys, and keep that meanwhile.
    const float2 * result;

    // Blocks from this one on in z, of kernels that have such, compute what the boost adds, as one more part of each row: as long as
    // other blocks work on the row's cells, it takes no time of its own.
    uint32_t   boost_block;
    attn_rows  rows;
    attn_boost boost;
};

ggml_cuda_attn_task ggml_cuda_attn_get_task(const ggml_tensor * fa, float2 * row_meta, attn_query_rounding rounding,
    const ggml_cuda_attn_kv & k, const ggml_cuda_attn_kv & v, bool has_boost_blocks);

// what a launch of flash attention has to do for the op's pattern; nothing where it has none
struct ggml_cuda_attn_emulation {
    ggml_cuda_attn_emulation(
        ggml_cuda_pool & pool, const ggml_tensor * fa, attn_query_rounding rounding, bool has_boost_blocks) :
        mode(ggml_flash_attn_ext_get_emulation(fa)),
        fa(fa),
        rounding(rounding),
        // what remains of a normalized row may be too little for a sum of parts
        boosts_in_blocks(
            has_boost_blocks && mode == GGML_ATTN_EMULATION_BOOST && !ggml_flash_attn_ext_get_emulation_normalize(fa)),
        meta(pool) {
        if (mode != GGML_ATTN_EMULATION_NONE && !boosts_in_blocks) {
            meta.alloc(ggml_nrows(fa) * ggml_cuda_attn_meta_stride(fa, rounding));
        }
    }

    // where the kernels put the (maximum, sum) of the rows, null if nobody asks for it
    float2 * row_meta() { return meta.ptr; }

    // makes room for what the boost adds: one more part of each row, and blocks that compute it, each warp a row
    void add_part(dim3 & grid, int n_warps, int & n_parts) const {
        if (boosts_in_blocks) {
            const uint32_t n_per_z = n_warps * grid.x * grid.y;
            grid.z += (ggml_nrows(fa) + n_per_z - 1) / n_per_z;
            ++n_parts;
        }
    }

    ggml_cuda_attn_task task(const ggml_cuda_attn_kv & k, const ggml_cuda_attn_kv & v) const {
        return mode == GGML_ATTN_EMULATION_NONE ?
            ggml_cuda_attn_task{ nullptr, nullptr, UINT32_MAX, {}, {} } :
            ggml_cuda_attn_get_task(fa, meta.ptr, rounding, k, v, boosts_in_blocks);
    }

    // whether launch() also combines the results of blocks that share a row's cells
    bool combines() const { return mode == GGML_ATTN_EMULATION_BOOST && !boosts_in_blocks; }

    void launch(ggml_backend_cuda_context & ctx, const ggml_cuda_attn_kv & k, const ggml_cuda_attn_kv & v,
        const ggml_cuda_attn_parts & parts) const {
        if (mode == GGML_ATTN_EMULATION_RECORD) {
            ggml_cuda_attn_record_pattern(ctx, fa, meta.ptr, rounding, k);
        } else if (combines()) {
            ggml_cuda_attn_boost_pattern(ctx, fa, meta.ptr, rounding, k, v, parts);
        }
    }

  private:
    ggml_attn_emulation_mode     mode;
    const ggml_tensor *          fa;
    attn_query_rounding          rounding;
    bool                         boosts_in_blocks;
    ggml_cuda_pool_alloc<float2> meta;
};

// what the registry exports: CUDA only, as the kernels were never built for HIP and MUSA
bool ggml_cuda_supports_attn_emulation(ggml_backend_dev_t device);
