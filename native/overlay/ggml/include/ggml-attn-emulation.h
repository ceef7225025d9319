#pragma once

// Early-layer attention pattern emulation, as extra inputs of ggml_flash_attn_ext().
//
// The pattern of a row (query, head) lists the KV cells whose softmax weight exceeds a threshold, in ascending order. At
// most 1/threshold weights of a row can do so, hence its storage does not depend on the number of cells.
//
// A backend that knows these inputs exports GGML_ATTN_EMULATION_PROC from its registry, which says on which of its devices;
// others are never given them, see ggml_backend_dev_supports_op().

#include "ggml-backend.h"

#ifdef __cplusplus
extern "C" {
#endif

#define GGML_ATTN_EMULATION_PROC "ggml_backend_supports_attn_emulation"

typedef bool (*ggml_backend_supports_attn_emulation_t)(ggml_backend_dev_t device);

enum ggml_attn_emulation_mode {
    GGML_ATTN_EMULATION_NONE   = 0,
    GGML_ATTN_EMULATION_RECORD = 1, // writes the pattern of its rows
    GGML_ATTN_EMULATION_BOOST  = 2, // scales the weights that the pattern lists
};

// I32 [1 + capacity, n_q, n_head, n_stream], each row its number of cells, then the cells
GGML_API struct ggml_tensor * ggml_attn_pattern_new(
    struct ggml_context * ctx, float threshold, int64_t n_kv, int64_t n_q, int64_t n_head, int64_t n_stream);

// the op also writes `pattern`, which must live on the device that runs the op
// own_cells: I32 [n_q*n_stream], the cell of the query's own key, which is never listed
GGML_API void ggml_flash_attn_ext_record_pattern(
    struct ggml_tensor * fa, struct ggml_tensor * pattern, struct ggml_tensor * own_cells, float threshold);

// weights of the listed cells are multiplied by 1 + strength[query]*gain[head] before they meet V;
// the row's sum stays that of the plain weights, unless normalize is set
// strength: F32 [n_q*n_stream], gain: F32 [n_head]
GGML_API void ggml_flash_attn_ext_boost_pattern(struct ggml_tensor * fa, struct ggml_tensor * pattern,
    struct ggml_tensor * strength, struct ggml_tensor * gain, bool normalize);

// false if the op carries a pattern that the device's backend would not look at
GGML_API bool ggml_attn_emulation_supported(ggml_backend_dev_t device, const struct ggml_tensor * op);
GGML_API bool ggml_attn_emulation_supported_device(ggml_backend_dev_t device);
// true if the device runs this flash attention, but not with the pattern that it carries: too large, for example
GGML_API bool ggml_attn_emulation_refused(ggml_backend_dev_t device, const struct ggml_tensor * fa);
GGML_API bool ggml_attn_emulation_any_device(ggml_backend_dev_t device); // true: what a backend may export

// for tests of what is done where a GPU has no kernels, or has them but refuses each operation
enum ggml_attn_emulation_gpu_lack {
    GGML_ATTN_EMULATION_GPU_LACKS_NOTHING,
    GGML_ATTN_EMULATION_GPU_LACKS_KERNELS,
    GGML_ATTN_EMULATION_GPU_LACKS_OPERATIONS,
};

GGML_API void ggml_attn_emulation_set_gpu_lack(enum ggml_attn_emulation_gpu_lack lack);

GGML_API enum ggml_attn_emulation_mode ggml_flash_attn_ext_get_emulation(const struct ggml_tensor * fa);
GGML_API bool                          ggml_flash_attn_ext_get_emulation_normalize(const struct ggml_tensor * fa);

// What a server of RPC says of itself in a byte of its HELLO that upstream leaves 0: which version of the inputs above it
// knows, and whether all of its devices have kernels for them. Raised when the inputs change.
#define GGML_ATTN_EMULATION_RPC_VERSION 1

GGML_API uint8_t ggml_attn_emulation_rpc_hello(const ggml_backend_t * backends, size_t n_backends);
GGML_API int     ggml_attn_emulation_rpc_version(uint8_t hello); // 0: a server of upstream
GGML_API bool    ggml_attn_emulation_rpc_fused(uint8_t hello);

// A client can't ask a server's device about an operation, so the server does, lest the device end the process. Logs what is too much.
GGML_API bool ggml_attn_emulation_rpc_takes(ggml_backend_t backend, const struct ggml_cgraph * graph);

#ifdef __cplusplus
}
#endif
