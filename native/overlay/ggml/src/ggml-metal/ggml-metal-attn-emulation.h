#pragma once

// Early-layer attention pattern emulation, after flash attention: see ggml-attn-emulation.h.

#include "ggml-backend.h"
#include "ggml-metal-device.h"

#ifdef __cplusplus
extern "C" {
#endif

// What ggml_backend_supports_attn_emulation answers: true where flash attention runs.
bool ggml_metal_supports_attn_emulation(ggml_backend_dev_t device);

// bytes between the op's result and its other scratch: a log-sum-exp for each row; 0 without emulation
size_t ggml_metal_attn_emulation_lse_size(const struct ggml_tensor * op);

// Records the pattern or boosts the result, by the log-sum-exp that flash attention has written: the caller waits for that
// before, and after recording, as the pattern is written although it is an input.
void ggml_metal_attn_emulation_encode(
    ggml_metal_library_t lib, ggml_metal_encoder_t enc, const struct ggml_tensor * op);

#ifdef __cplusplus
}
#endif
