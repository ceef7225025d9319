// Shared by the shaders of early-layer attention pattern emulation, see ggml-vulkan-attn-emulation.cpp.
//
// The scores of flash attention are computed again for the rows and cells at hand, in 32 bits and from the cache as it is, but of
// queries that are rounded as flash attention has them. What all keys have in common makes the same error in all of a row's scores,
// which is in its maximum and sum, too.

#extension GL_EXT_control_flow_attributes : enable
#extension GL_EXT_shader_16bit_storage : require

#include "types.glsl"
#include "fa_types.glsl"

layout (constant_id = 0) const uint FaTypeK = 0;
layout (constant_id = 1) const uint FaTypeV = 0;
layout (constant_id = 2) const uint FaBlockBytesK = 2;
layout (constant_id = 3) const uint FaBlockBytesV = 2;

#define BINDING_IDX_K 0u
#define BINDING_IDX_V 1u

#include "flash_attn_dequant.glsl"

// of vk_op_attn_emulation_push_constants
layout (push_constant) uniform parameter {
    uint n_q;
    uint n_kv;
    uint n_head;
    uint heads_per_k; // query heads that share a key head
    uint d_k;
    uint d_v;

    uint q_nb1, q_nb2, q_nb3;          // floats
    uint k_nb1, k_nb2, k_nb3;          // bytes
    uint v_nb1, v_nb2, v_nb3;          // bytes
    uint mask_nb1, mask_nb2, mask_nb3; // halves
    uint mask_ne2, mask_ne3;           // 0: no mask

    float scale;
    float logit_softcap;
    float m0, m1; // ALiBi, 1 without
    uint  n_head_log2;
    uint  rounding_and_sinks;

    uint n_split_k; // splits of flash attention

    uint  list_stride; // of a list: 1 + its capacity
    uint  list_offset; // of the first list that is written
    uint  n_chunks;    // that the cells are divided into, each with a list of its own
    uint  gain_offset;
    float threshold_or_normalize;
} p;

#define HAS_SINKS ((p.rounding_and_sinks & 1) != 0)

// vk_attn_rounding
#define ROUNDING      (p.rounding_and_sinks >> 1)
#define ROUNDING_F16    1
#define ROUNDING_BF16   2
#define ROUNDING_Q8     3
#define ROUNDING_Q8_F16 4 // with a scale in F16

#define ROUNDS_TO_Q8 (ROUNDING >= ROUNDING_Q8)

layout (binding = 0) readonly buffer Q       { vec4 data_q[]; };
layout (binding = 1) readonly buffer K_F16   { f16vec4 data_k_f16[]; };
layout (binding = 2) readonly buffer V_F16   { f16vec4 data_v_f16[]; };
layout (binding = 3) readonly buffer MASK    { float16_t data_mask[]; };
layout (binding = 4) readonly buffer SINKS   { float data_sinks[]; };
layout (binding = 5) readonly buffer SPLIT_K { float data_split_k[]; };

vec4 load_k(uint row_bytes, uint d) {
    if (FaTypeK == GGML_TYPE_F16) {
        return vec4(data_k_f16[(row_bytes / 2 + d) / 4]);
    }
    const uint n = fa_block_elems(FaTypeK);
    return dequantize4(d / n, d % n, row_bytes / FaBlockBytesK, BINDING_IDX_K);
}

vec4 load_v(uint row_bytes, uint d) {
    if (FaTypeV == GGML_TYPE_F16) {
        return vec4(data_v_f16[(row_bytes / 2 + d) / 4]);
    }
    const uint n = fa_block_elems(FaTypeV);
    return dequantize4(d / n, d % n, row_bytes / FaBlockBytesV, BINDING_IDX_V);
}

// without the last n bits; what is too small for F16's exponent makes no difference to a score
vec4 round_off(vec4 x, uint n) {
    const uvec4 bits = floatBitsToUint(x);
    const uvec4 half_a_bit = uvec4((1u << (n - 1)) - 1) + ((bits >> n) & 1u);
    return uintBitsToFloat((bits + half_a_bit) & ~((1u << n) - 1u));
}

// times the scale; ROUNDS_TO_Q8 needs a block, see round_to_q8
vec4 round_query(vec4 q) {
    q *= p.scale;
    return ROUNDING == ROUNDING_F16 ? round_off(q, 13) : ROUNDING == ROUNDING_BF16 ? round_off(q, 16) : q;
}

float max_abs(vec4 x) {
    const vec4 y = abs(x);
    return max(max(y.x, y.y), max(y.z, y.w));
}

// as flash_attn.comp does it; most: of the absolute values of a block of 32
vec4 round_to_q8(vec4 q, float most) {
    const float d     = most / 127.0;
    const float d_inv = d != 0.0 ? 1.0 / d : 0.0;
    const float d_f16 = unpackHalf2x16(packHalf2x16(vec2(d, 0.0))).x;
    return round(q * d_inv) * (ROUNDING == ROUNDING_Q8_F16 ? d_f16 : d);
}

float alibi_slope(uint head) {
    const bool first = head < p.n_head_log2;
    return pow(first ? p.m0 : p.m1, float(first ? head + 1 : 2 * (head - p.n_head_log2) + 1));
}

uint mask_row(uint query, uint head, uint stream) {
    return query * p.mask_nb1 + (head % p.mask_ne2) * p.mask_nb2 + (stream % p.mask_ne3) * p.mask_nb3;
}

// from a dot product with a query times the scale
float score(float dot_product, float mask, float slope) {
    float s = dot_product;
    if (p.logit_softcap != 0.0) {
        s = p.logit_softcap * tanh(s);
    }
    return p.mask_ne2 == 0 ? s : s + slope * mask;
}

// A row's maximum, and 1 over its sum of exp(score - maximum), sinks included; a row that sees nothing has 0 for the latter.
// Flash attention's splits store theirs one after the other, behind all of their outputs: see flash_attn_split_k_reduce.comp.
vec2 row_max_and_scale(uint query, uint head, uint stream, uint n_stream) {
    const uint first = p.d_v * p.n_head * p.n_q * n_stream * p.n_split_k + p.n_head * 2 * p.n_split_k * (query + p.n_q * stream) + head;

    float row_max = -1.0 / 0.0;
    for (uint i = 0; i < p.n_split_k; ++i) {
        row_max = max(row_max, data_split_k[first + (2 * i + 1) * p.n_head]);
    }
    float sum = 0.0;
    for (uint i = 0; i < p.n_split_k; ++i) {
        sum += exp(data_split_k[first + (2 * i + 1) * p.n_head] - row_max) * data_split_k[first + 2 * i * p.n_head];
    }
    if (HAS_SINKS) {
        const float sink = data_sinks[head];
        if (sink > row_max) {
            sum     = sum * exp(row_max - sink) + 1.0;
            row_max = sink;
        } else {
            sum += exp(sink - row_max);
        }
    }
    return vec2(row_max, sum == 0.0 ? 0.0 : 1.0 / sum);
}
