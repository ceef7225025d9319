#include "ggml-metal-attn-emulation.h"
#include "ggml-attn-emulation.h"
#include "ggml-backend-impl.h"
#include "ggml-impl.h"
#include "ggml-metal-impl.h"
#include "ggml-metal-ops.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

// the shader has the same: padded at the end only, each field is where it is here
static_assert(sizeof(ggml_metal_kargs_attn_emulation) == 15 * 8 + 19 * 4 + 4, "padding");

bool ggml_metal_supports_attn_emulation(ggml_backend_dev_t device) {
    return ggml_metal_device_get_props((ggml_metal_device_t) device->context)->has_simdgroup_mm;
}

size_t ggml_metal_attn_emulation_lse_size(const ggml_tensor * op) {
    if (ggml_flash_attn_ext_get_emulation(op) == GGML_ATTN_EMULATION_NONE) {
        return 0;
    }
    // what follows must be aligned for the vectors of any type
    return GGML_PAD(sizeof(float) * ggml_nrows(op), 32);
}

static ggml_metal_buffer_id buffer_of(const ggml_tensor * t) {
    ggml_backend_buffer_t buffer = t->view_src ? t->view_src->buffer : t->buffer;
    return ggml_metal_buffer_get_id((ggml_metal_buffer_t) buffer->context, t);
}

static ggml_metal_pipeline_with_params pipeline_of(ggml_metal_library_t lib, const char * name) {
    ggml_metal_pipeline_with_params pipeline = ggml_metal_library_get_pipeline(lib, name);
    return pipeline.pipeline ? pipeline : ggml_metal_library_compile_pipeline(lib, name, name, nullptr);
}

// the names of kernels have that of the keys' type, and that of queries where it isn't F16
static const char * types_of(const ggml_tensor * op) {
    const ggml_type k = op->src[1]->type;
    return k == GGML_TYPE_BF16 && !ggml_metal_op_flash_attn_ext_use_vec(op) ? "bf16_bf16" : ggml_type_name(k);
}

static ggml_metal_kargs_attn_emulation arguments_of(const ggml_tensor * op) {
    const ggml_tensor * q       = op->src[0];
    const ggml_tensor * k       = op->src[1];
    const ggml_tensor * v       = op->src[2];
    const ggml_tensor * mask    = op->src[3];
    const ggml_tensor * pattern = op->src[5];

    float scale;
    float max_bias;
    float logit_softcap;
    float threshold;
    memcpy(&scale, op->op_params + 0, sizeof(float));
    memcpy(&max_bias, op->op_params + 1, sizeof(float));
    memcpy(&logit_softcap, op->op_params + 2, sizeof(float));
    memcpy(&threshold, op->op_params + 6, sizeof(float));

    const int32_t n_head_log2 = 1 << (int) std::floor(std::log2((float) q->ne[2]));

    ggml_metal_kargs_attn_emulation args = {};
    args.nb01                            = q->nb[1];
    args.nb02                            = q->nb[2];
    args.nb03                            = q->nb[3];
    args.nb11                            = k->nb[1];
    args.nb12                            = k->nb[2];
    args.nb13                            = k->nb[3];
    args.nb21                            = v->nb[1];
    args.nb22                            = v->nb[2];
    args.nb23                            = v->nb[3];
    args.nb31                            = mask ? mask->nb[1] : 0;
    args.nb32                            = mask ? mask->nb[2] : 0;
    args.nb33                            = mask ? mask->nb[3] : 0;
    args.nb51                            = pattern->nb[1];
    args.nb52                            = pattern->nb[2];
    args.nb53                            = pattern->nb[3];
    args.ne00                            = q->ne[0];
    args.ne01                            = q->ne[1];
    args.ne02                            = q->ne[2];
    args.ne11                            = k->ne[1];
    args.ne20                            = v->ne[0];
    args.ne32                            = mask ? mask->ne[2] : 1;
    args.ne33                            = mask ? mask->ne[3] : 1;
    args.r2                              = q->ne[2] / k->ne[2];
    args.r3                              = q->ne[3] / k->ne[3];
    args.capacity                        = pattern->ne[0] - 1;
    args.n_head_log2                     = n_head_log2;
    args.has_mask                        = mask != nullptr;
    args.has_sinks                       = op->src[4] != nullptr;
    args.normalize                       = ggml_flash_attn_ext_get_emulation_normalize(op);
    args.scale                           = logit_softcap != 0.0f ? scale / logit_softcap : scale;
    args.logit_softcap                   = logit_softcap;
    args.m0                              = std::pow(2.0f, -max_bias / n_head_log2);
    args.m1                              = std::pow(2.0f, -max_bias / 2.0f / n_head_log2);
    args.log_threshold                   = std::log(threshold);
    return args;
}

void ggml_metal_attn_emulation_encode(ggml_metal_library_t lib, ggml_metal_encoder_t enc, const ggml_tensor * op) {
    ggml_metal_kargs_attn_emulation args = arguments_of(op);

    const char * types    = types_of(op);
    const int    n_q      = op->src[0]->ne[1];
    const int    n_head   = op->src[0]->ne[2];
    const int    n_stream = op->src[0]->ne[3];

    ggml_metal_buffer_id dst   = buffer_of(op);
    ggml_metal_buffer_id lse   = dst;
    ggml_metal_buffer_id mask  = buffer_of(op->src[op->src[3] ? 3 : 0]); // not read if there is none
    ggml_metal_buffer_id sinks = buffer_of(op->src[op->src[4] ? 4 : 0]);
    lse.offs += ggml_nbytes(op);

    char name[64];
    if (ggml_flash_attn_ext_get_emulation(op) == GGML_ATTN_EMULATION_RECORD) {
        // with more queries to a threadgroup, a key is loaded once for all of them
        const int nq = n_q < 4 ? 1 : 4;
        snprintf(name, sizeof(name), "kernel_attn_emulation_record_%s_q%d", types, nq);
        const ggml_metal_pipeline_with_params pipeline = pipeline_of(lib, name);

        const int nth = std::min(ggml_metal_pipeline_max_theads_per_threadgroup(pipeline), 256) / 32 * 32;

        ggml_metal_encoder_set_pipeline(enc, pipeline);
        ggml_metal_encoder_set_bytes(enc, &args, sizeof(args), 0);
        ggml_metal_encoder_set_buffer(enc, buffer_of(op->src[0]), 1);
        ggml_metal_encoder_set_buffer(enc, buffer_of(op->src[1]), 2);
        ggml_metal_encoder_set_buffer(enc, mask, 3);
        ggml_metal_encoder_set_buffer(enc, lse, 4);
        ggml_metal_encoder_set_buffer(enc, buffer_of(op->src[6]), 5);
        ggml_metal_encoder_set_buffer(enc, buffer_of(op->src[5]), 6);

        // the queries in 16 bits, and two chunks' counts
        const size_t smem = nq * args.ne00 * sizeof(ggml_fp16_t) + 2 * nth / 32 * sizeof(uint32_t);
        ggml_metal_encoder_set_threadgroup_memory_size(enc, GGML_PAD(smem, 16), 0);
        ggml_metal_encoder_dispatch_threadgroups(enc, (n_q + nq - 1) / nq, n_head, n_stream, nth, 1, 1);
    } else {
        GGML_ASSERT(args.ne20 <= OP_ATTN_EMULATION_MAX_DV);
        snprintf(name, sizeof(name), "kernel_attn_emulation_boost_%s", types);

        ggml_metal_encoder_set_pipeline(enc, pipeline_of(lib, name));
        ggml_metal_encoder_set_bytes(enc, &args, sizeof(args), 0);
        ggml_metal_encoder_set_buffer(enc, buffer_of(op->src[0]), 1);
        ggml_metal_encoder_set_buffer(enc, buffer_of(op->src[1]), 2);
        ggml_metal_encoder_set_buffer(enc, buffer_of(op->src[2]), 3);
        ggml_metal_encoder_set_buffer(enc, mask, 4);
        ggml_metal_encoder_set_buffer(enc, lse, 5);
        ggml_metal_encoder_set_buffer(enc, buffer_of(op->src[6]), 6);
        ggml_metal_encoder_set_buffer(enc, buffer_of(op->src[7]), 7);
        ggml_metal_encoder_set_buffer(enc, buffer_of(op->src[5]), 8);
        ggml_metal_encoder_set_buffer(enc, dst, 9);
        ggml_metal_encoder_set_buffer(enc, sinks, 10);
        ggml_metal_encoder_dispatch_threadgroups(enc, n_q, n_head, n_stream, 32, 1, 1);
    }
}
