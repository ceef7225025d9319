#pragma once

// Early-layer attention pattern emulation on Vulkan, see ggml-attn-emulation.h. Flash attention is made to split its cells, which
// leaves each row's maximum and sum in memory. From these, further shaders record the pattern, or add to the result what its cells
// have more.

#include "ggml-vulkan-common.h"

// the parameters of vulkan-shaders/attn_emulation.glsl
struct vk_op_attn_emulation_push_constants {
    uint32_t n_q, n_kv, n_head, heads_per_k, d_k, d_v;
    uint32_t q_nb[3], k_nb[3], v_nb[3];
    uint32_t mask_nb[3], mask_ne2, mask_ne3;
    float    scale, logit_softcap, m0, m1;
    uint32_t n_head_log2, rounding_and_sinks;
    uint32_t n_split_k;
    uint32_t list_stride, list_offset, n_chunks, gain_offset;
    float    threshold_or_normalize;
};

static_assert(
    sizeof(vk_op_attn_emulation_push_constants) <= 128, "sizeof(vk_op_attn_emulation_push_constants) must be <= 128");

struct vk_op_attn_emulation_merge_push_constants {
    uint32_t n_chunks, list_stride, list_offset;
};

// of flash attention's queries
enum vk_attn_rounding : uint32_t {
    VK_ATTN_ROUNDING_NONE,
    VK_ATTN_ROUNDING_F16,
    VK_ATTN_ROUNDING_BF16,
    VK_ATTN_ROUNDING_Q8,
    VK_ATTN_ROUNDING_Q8_F16, // with a scale in F16
};

// scalar_mmq: whether the scalar shader multiplies quantised keys by integers
vk_attn_rounding ggml_vk_attn_emulation_rounding(
    const vk_device & device, FaCodePath path, ggml_type k_type, bool scalar_mmq);

// the registry's get_proc_address
void * ggml_vk_attn_emulation_proc_address(ggml_backend_reg_t reg, const char * name);

// asked of flash attention that the device supports otherwise
bool ggml_vk_attn_emulation_supports(const vk_device & device, const ggml_tensor * fa);

// false if the op carries no pattern
bool ggml_vk_attn_emulation_used(const ggml_tensor * fa);

// the pattern that the op writes, though it is a source of it; else null
const ggml_tensor * ggml_vk_attn_emulation_written(const ggml_tensor * op);

// bytes needed behind what flash attention leaves of its splits
uint64_t ggml_vk_attn_emulation_scratch_size(
    const ggml_backend_vk_context * ctx, const ggml_tensor * fa, uint64_t split_k_size);

// to be called once fa is complete; split_k_size: bytes of what its splits left
void ggml_vk_attn_emulation(ggml_backend_vk_context * ctx, vk_context & subctx, ggml_tensor * fa,
    vk_attn_rounding rounding, uint32_t n_split_k, uint64_t split_k_size);
