#include "ggml-vulkan-attn-emulation.h"

#include "ggml-attn-emulation.h"

#include <algorithm>
#include <cstring>

static constexpr uint32_t PATTERN_ROWS  = 32; // of a workgroup of attn_emulation_pattern.comp
static constexpr uint32_t PATTERN_CELLS = 64; // of its tile
static constexpr uint32_t BOOST_THREADS = 128;
static constexpr int64_t  MAX_D_K       = 1024; // of attn_emulation_boost.comp

vk_attn_rounding ggml_vk_attn_emulation_rounding(
    const vk_device & device, FaCodePath path, ggml_type k_type, bool scalar_mmq) {
    if (path != FA_SCALAR) {
        return k_type == GGML_TYPE_BF16 ? VK_ATTN_ROUNDING_BF16 : VK_ATTN_ROUNDING_F16;
    }
    if (scalar_mmq) {
        return device->fp16 ? VK_ATTN_ROUNDING_Q8_F16 : VK_ATTN_ROUNDING_Q8;
    }
    return device->fp16 && k_type != GGML_TYPE_BF16 ? VK_ATTN_ROUNDING_F16 : VK_ATTN_ROUNDING_NONE;
}

void * ggml_vk_attn_emulation_proc_address(ggml_backend_reg_t, const char * name) {
    return strcmp(name, GGML_ATTN_EMULATION_PROC) == 0 ? (void *) ggml_attn_emulation_any_device : nullptr;
}

bool ggml_vk_attn_emulation_used(const ggml_tensor * fa) {
    return ggml_flash_attn_ext_get_emulation(fa) != GGML_ATTN_EMULATION_NONE;
}

// bytes of a buffer that one operation may use
static uint64_t max_scratch_size(const vk_device & device) {
    return std::min<uint64_t>({ device->properties.limits.maxStorageBufferRange, device->max_buffer_size,
        device->max_memory_allocation_size });
}

bool ggml_vk_attn_emulation_supports(const vk_device & device, const ggml_tensor * fa) {
    if (!ggml_vk_attn_emulation_used(fa)) {
        return true;
    }
    const ggml_tensor * q = fa->src[0];
    const ggml_tensor * k = fa->src[1];
    const ggml_tensor * v = fa->src[2];

    // what splits store, three where two would be uneven: flash attention ends the process where it is too much
    const uint64_t split_k_size = 3 * (v->ne[0] + 2) * ggml_nrows(q) * sizeof(float);

    // of the boost and of the reduction of splits; those of recording are fewer
    const uint32_t * n_groups = device->properties.limits.maxComputeWorkGroupCount;

    return k->ne[0] <= MAX_D_K && v->ne[0] / 4 <= BOOST_THREADS && k->ne[2] == v->ne[2] && q->ne[2] % k->ne[2] == 0 &&
        k->ne[3] == q->ne[3] && v->ne[3] == q->ne[3] && split_k_size <= max_scratch_size(device) &&
        q->ne[1] <= n_groups[0] && q->ne[2] <= n_groups[1] && q->ne[1] * q->ne[3] <= n_groups[2];
}

const ggml_tensor * ggml_vk_attn_emulation_written(const ggml_tensor * op) {
    const bool records =
        op->op == GGML_OP_FLASH_ATTN_EXT && ggml_flash_attn_ext_get_emulation(op) == GGML_ATTN_EMULATION_RECORD;
    return records ? op->src[5] : nullptr;
}

// Rows of a small batch are few for a whole device: their cells are divided into chunks then.
static uint32_t count_chunks(const ggml_backend_vk_context * ctx, const ggml_tensor * fa, uint64_t split_k_size) {
    const ggml_tensor * q = fa->src[0];
    const ggml_tensor * k = fa->src[1];

    const uint32_t n_cores  = ctx->device->shader_core_count ? ctx->device->shader_core_count : 16;
    const uint32_t n_blocks = CEIL_DIV(q->ne[1] * q->ne[2] / k->ne[2], PATTERN_ROWS) * k->ne[2] * q->ne[3];
    const uint32_t wanted   = CEIL_DIV(2 * n_cores, n_blocks);
    const uint32_t most     = CEIL_DIV((uint32_t) k->ne[1], 4 * PATTERN_CELLS);
    const uint64_t room     = (max_scratch_size(ctx->device) - split_k_size) / ggml_nbytes(fa->src[5]);
    return std::max<uint64_t>(1, std::min<uint64_t>(room, std::min(wanted, most)));
}

uint64_t ggml_vk_attn_emulation_scratch_size(
    const ggml_backend_vk_context * ctx, const ggml_tensor * fa, uint64_t split_k_size) {
    const ggml_tensor * pattern = ggml_vk_attn_emulation_written(fa);
    const uint32_t      n       = pattern ? count_chunks(ctx, fa, split_k_size) : 1;
    return n > 1 ? ggml_nbytes(pattern) * n : 0;
}

static vk_op_attn_emulation_push_constants get_push_constants(
    const ggml_tensor * fa, vk_attn_rounding rounding, uint32_t n_split_k) {
    const ggml_tensor * q       = fa->src[0];
    const ggml_tensor * k       = fa->src[1];
    const ggml_tensor * v       = fa->src[2];
    const ggml_tensor * mask    = fa->src[3];
    const ggml_tensor * pattern = fa->src[5];

    const float scale         = ggml_get_op_params_f32(fa, 0);
    const float max_bias      = ggml_get_op_params_f32(fa, 1);
    const float logit_softcap = ggml_get_op_params_f32(fa, 2);

    vk_op_attn_emulation_push_constants pc = {};

    pc.n_q         = q->ne[1];
    pc.n_kv        = k->ne[1];
    pc.n_head      = q->ne[2];
    pc.heads_per_k = q->ne[2] / k->ne[2];
    pc.d_k         = k->ne[0];
    pc.d_v         = v->ne[0];
    for (int i = 0; i < 3; ++i) {
        pc.q_nb[i] = q->nb[i + 1] / sizeof(float);
        pc.k_nb[i] = k->nb[i + 1];
        pc.v_nb[i] = v->nb[i + 1];
        if (mask) {
            pc.mask_nb[i] = mask->nb[i + 1] / sizeof(ggml_fp16_t);
        }
    }
    if (mask) {
        pc.mask_ne2 = mask->ne[2];
        pc.mask_ne3 = mask->ne[3];
    }
    pc.scale              = logit_softcap != 0.0f ? scale / logit_softcap : scale;
    pc.logit_softcap      = logit_softcap;
    pc.n_head_log2        = 1u << (uint32_t) floorf(log2f((float) q->ne[2]));
    pc.m0                 = powf(2.0f, -max_bias / pc.n_head_log2);
    pc.m1                 = powf(2.0f, -max_bias / 2.0f / pc.n_head_log2);
    pc.n_split_k          = n_split_k;
    pc.rounding_and_sinks = rounding << 1 | (fa->src[4] != nullptr);
    pc.list_stride        = pattern->ne[0];
    pc.n_chunks           = 1;
    return pc;
}

static void record(ggml_backend_vk_context * ctx, vk_context & subctx, const ggml_tensor * fa,
    vk_op_attn_emulation_push_constants pc, uint64_t split_k_size, const vk_subbuffer (&inputs)[5]) {
    const ggml_tensor * q       = fa->src[0];
    const ggml_tensor * k       = fa->src[1];
    const vk_subbuffer  split_k = ggml_vk_subbuffer(ctx, ctx->prealloc_split_k, 0);
    const vk_subbuffer  own     = ggml_vk_tensor_subbuffer(ctx, fa->src[6]);
    const vk_subbuffer  pattern = ggml_vk_tensor_subbuffer(ctx, fa->src[5]);

    pc.n_chunks               = count_chunks(ctx, fa, split_k_size);
    pc.threshold_or_normalize = ggml_get_op_params_f32(fa, 6);
    if (pc.n_chunks > 1) {
        pc.list_offset = split_k_size / sizeof(int32_t);
    }

    vk_pipeline & pipeline = ctx->device->pipeline_attn_emulation_pattern[k->type];
    ggml_pipeline_request_descriptor_sets(ctx, pipeline, 1);
    ggml_vk_dispatch_pipeline(ctx, subctx, pipeline,
        { inputs[0], inputs[1], inputs[2], inputs[3], inputs[4], split_k, own, pc.n_chunks > 1 ? split_k : pattern },
        pc,
        { CEIL_DIV(pc.n_q * pc.heads_per_k, PATTERN_ROWS) * pc.n_chunks, (uint32_t) k->ne[2], (uint32_t) k->ne[3] });

    if (pc.n_chunks > 1) {
        const vk_op_attn_emulation_merge_push_constants merge = { pc.n_chunks, pc.list_stride, pc.list_offset };

        ggml_vk_sync_buffers(ctx, subctx);
        ggml_pipeline_request_descriptor_sets(ctx, ctx->device->pipeline_attn_emulation_merge, 1);
        ggml_vk_dispatch_pipeline(ctx, subctx, ctx->device->pipeline_attn_emulation_merge, { split_k, pattern }, merge,
            { (uint32_t) q->ne[1], (uint32_t) q->ne[2], (uint32_t) q->ne[3] });
    }
}

static void boost(ggml_backend_vk_context * ctx, vk_context & subctx, ggml_tensor * fa,
    vk_op_attn_emulation_push_constants pc, const vk_subbuffer (&inputs)[5]) {
    const ggml_tensor * q    = fa->src[0];
    const ggml_tensor * gain = fa->src[7];

    pc.threshold_or_normalize = ggml_flash_attn_ext_get_emulation_normalize(fa);
    pc.gain_offset            = get_misalign_bytes(ctx, gain) / sizeof(float); // a layer's part of a larger tensor

    vk_pipeline pipeline;
    {
        std::lock_guard<std::mutex> guard(ctx->device->compile_mutex);

        vk_pipeline & entry = ctx->device->pipeline_attn_emulation_boost[{ fa->src[1]->type, fa->src[2]->type }];
        if (!entry) {
            entry = std::make_shared<vk_pipeline_struct>();
        }
        pipeline = entry;
    }
    ggml_pipeline_request_descriptor_sets(ctx, pipeline, 1);

    ggml_vk_sync_buffers(ctx, subctx);
    ggml_vk_dispatch_pipeline(ctx, subctx, pipeline,
        { inputs[0], inputs[1], inputs[2], inputs[3], inputs[4], ggml_vk_subbuffer(ctx, ctx->prealloc_split_k, 0),
            ggml_vk_tensor_subbuffer(ctx, fa->src[5]), ggml_vk_tensor_subbuffer(ctx, fa->src[6]),
            ggml_vk_tensor_subbuffer(ctx, gain, true), ggml_vk_tensor_subbuffer(ctx, fa) },
        pc, { (uint32_t) q->ne[1], (uint32_t) q->ne[2], (uint32_t) q->ne[3] });
}

void ggml_vk_attn_emulation(ggml_backend_vk_context * ctx, vk_context & subctx, ggml_tensor * fa,
    vk_attn_rounding rounding, uint32_t n_split_k, uint64_t split_k_size) {
    const vk_subbuffer q         = ggml_vk_tensor_subbuffer(ctx, fa->src[0]);
    const vk_subbuffer inputs[5] = { q, ggml_vk_tensor_subbuffer(ctx, fa->src[1]),
        ggml_vk_tensor_subbuffer(ctx, fa->src[2]), fa->src[3] ? ggml_vk_tensor_subbuffer(ctx, fa->src[3]) : q,
        fa->src[4] ? ggml_vk_tensor_subbuffer(ctx, fa->src[4]) : q };

    const vk_op_attn_emulation_push_constants pc = get_push_constants(fa, rounding, n_split_k);
    if (ggml_flash_attn_ext_get_emulation(fa) == GGML_ATTN_EMULATION_RECORD) {
        record(ctx, subctx, fa, pc, split_k_size, inputs);
    } else {
        boost(ctx, subctx, fa, pc, inputs);
    }
}
