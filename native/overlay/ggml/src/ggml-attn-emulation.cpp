#include "ggml-attn-emulation.h"
#include "ggml-backend-impl.h"
#include "ggml-impl.h"

#include <algorithm>
#include <atomic>
#include <cmath>

// inputs and parameters of GGML_OP_FLASH_ATTN_EXT after those that upstream uses
#define SRC_PATTERN         5
#define SRC_OWN_OR_STRENGTH 6
#define SRC_GAIN            7
#define PARAM_MODE          5
#define PARAM_THRESHOLD     6 // bits of a float
#define PARAM_NORMALIZE     7

struct ggml_tensor * ggml_attn_pattern_new(
    struct ggml_context * ctx, float threshold, int64_t n_kv, int64_t n_q, int64_t n_head, int64_t n_stream) {
    GGML_ASSERT(threshold > 0.0f && threshold < 1.0f);

    const double  most     = std::ceil(1.0 / threshold);
    const int64_t capacity = most < (double) n_kv ? (int64_t) most : n_kv;

    return ggml_new_tensor_4d(ctx, GGML_TYPE_I32, 1 + capacity, n_q, n_head, n_stream);
}

static void check_pattern(const struct ggml_tensor * fa, const struct ggml_tensor * pattern) {
    const struct ggml_tensor * q = fa->src[0];

    GGML_ASSERT(fa->op == GGML_OP_FLASH_ATTN_EXT);
    GGML_ASSERT(fa->src[SRC_PATTERN] == NULL);
    GGML_ASSERT(pattern->type == GGML_TYPE_I32);
    GGML_ASSERT(pattern->ne[1] == q->ne[1] && pattern->ne[2] == q->ne[2] && pattern->ne[3] == q->ne[3]);
}

void ggml_flash_attn_ext_record_pattern(
    struct ggml_tensor * fa, struct ggml_tensor * pattern, struct ggml_tensor * own_cells, float threshold) {
    check_pattern(fa, pattern);
    GGML_ASSERT(own_cells->type == GGML_TYPE_I32 && ggml_is_contiguous(own_cells));
    GGML_ASSERT(ggml_nelements(own_cells) == fa->src[0]->ne[1] * fa->src[0]->ne[3]);

    fa->src[SRC_PATTERN]         = pattern;
    fa->src[SRC_OWN_OR_STRENGTH] = own_cells;
    ggml_set_op_params_i32(fa, PARAM_MODE, GGML_ATTN_EMULATION_RECORD);
    ggml_set_op_params_f32(fa, PARAM_THRESHOLD, threshold);
}

void ggml_flash_attn_ext_boost_pattern(struct ggml_tensor * fa, struct ggml_tensor * pattern,
    struct ggml_tensor * strength, struct ggml_tensor * gain, bool normalize) {
    check_pattern(fa, pattern);
    GGML_ASSERT(strength->type == GGML_TYPE_F32 && ggml_is_contiguous(strength));
    GGML_ASSERT(ggml_nelements(strength) == fa->src[0]->ne[1] * fa->src[0]->ne[3]);
    GGML_ASSERT(gain->type == GGML_TYPE_F32 && ggml_is_contiguous(gain));
    GGML_ASSERT(ggml_nelements(gain) == fa->src[0]->ne[2]);

    fa->src[SRC_PATTERN]         = pattern;
    fa->src[SRC_OWN_OR_STRENGTH] = strength;
    fa->src[SRC_GAIN]            = gain;
    ggml_set_op_params_i32(fa, PARAM_MODE, GGML_ATTN_EMULATION_BOOST);
    ggml_set_op_params_i32(fa, PARAM_NORMALIZE, normalize);
}

enum ggml_attn_emulation_mode ggml_flash_attn_ext_get_emulation(const struct ggml_tensor * fa) {
    return (enum ggml_attn_emulation_mode) ggml_get_op_params_i32(fa, PARAM_MODE);
}

bool ggml_flash_attn_ext_get_emulation_normalize(const struct ggml_tensor * fa) {
    return ggml_get_op_params_i32(fa, PARAM_NORMALIZE) != 0;
}

static std::atomic<ggml_attn_emulation_gpu_lack> gpu_lack{ GGML_ATTN_EMULATION_GPU_LACKS_NOTHING };

void ggml_attn_emulation_set_gpu_lack(enum ggml_attn_emulation_gpu_lack lack) {
    gpu_lack = lack;
}

static bool lacks(ggml_backend_dev_t device, ggml_attn_emulation_gpu_lack lack) {
    return gpu_lack == lack && ggml_backend_dev_type(device) != GGML_BACKEND_DEVICE_TYPE_CPU;
}

bool ggml_attn_emulation_supported_device(ggml_backend_dev_t device) {
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(device);
    if (!reg) {
        return true; // devices made of others have no registry, and ask those
    }
    if (lacks(device, GGML_ATTN_EMULATION_GPU_LACKS_KERNELS)) {
        return false;
    }
    const auto supports =
        (ggml_backend_supports_attn_emulation_t) ggml_backend_reg_get_proc_address(reg, GGML_ATTN_EMULATION_PROC);
    return supports && supports(device);
}

// asked with every op, so cheap for all but the few that carry a pattern
bool ggml_attn_emulation_supported(ggml_backend_dev_t device, const struct ggml_tensor * op) {
    return op->op != GGML_OP_FLASH_ATTN_EXT || ggml_flash_attn_ext_get_emulation(op) == GGML_ATTN_EMULATION_NONE ||
        (ggml_attn_emulation_supported_device(device) && !lacks(device, GGML_ATTN_EMULATION_GPU_LACKS_OPERATIONS));
}

bool ggml_attn_emulation_refused(ggml_backend_dev_t device, const struct ggml_tensor * fa) {
    if (ggml_backend_dev_supports_op(device, fa)) {
        return false;
    }
    struct ggml_tensor plain = *fa;

    plain.src[SRC_PATTERN]         = NULL;
    plain.src[SRC_OWN_OR_STRENGTH] = NULL;
    plain.src[SRC_GAIN]            = NULL;
    ggml_set_op_params_i32(&plain, PARAM_MODE, GGML_ATTN_EMULATION_NONE);
    return ggml_backend_dev_supports_op(device, &plain);
}

bool ggml_attn_emulation_any_device(ggml_backend_dev_t) {
    return true;
}

//
// RPC
//

#define RPC_FUSED 0x80

uint8_t ggml_attn_emulation_rpc_hello(const ggml_backend_t * backends, size_t n_backends) {
    const bool fused = std::all_of(backends, backends + n_backends,
        [](ggml_backend_t backend) { return ggml_attn_emulation_supported_device(ggml_backend_get_device(backend)); });
    return GGML_ATTN_EMULATION_RPC_VERSION | (fused ? RPC_FUSED : 0);
}

int ggml_attn_emulation_rpc_version(uint8_t hello) {
    return hello & ~RPC_FUSED;
}

bool ggml_attn_emulation_rpc_fused(uint8_t hello) {
    return (hello & RPC_FUSED) != 0;
}

bool ggml_attn_emulation_rpc_takes(ggml_backend_t backend, const struct ggml_cgraph * graph) {
    ggml_backend_dev_t device = ggml_backend_get_device(backend);
    for (int i = 0; i < graph->n_nodes; ++i) {
        const struct ggml_tensor * fa = graph->nodes[i];
        if (fa && fa->op == GGML_OP_FLASH_ATTN_EXT &&
            ggml_flash_attn_ext_get_emulation(fa) != GGML_ATTN_EMULATION_NONE &&
            !ggml_backend_dev_supports_op(device, fa)) {
            GGML_LOG_ERROR(
                "attention emulation of %lld queries of %lld heads at once is more than %s takes: the client should "
                "use "
                "smaller batches\n",
                (long long) fa->src[0]->ne[1], (long long) fa->src[0]->ne[2], ggml_backend_dev_name(device));
            return false;
        }
    }
    return true;
}
