#pragma once

// Early-layer attention pattern emulation (Liao & Vargas, arXiv 2403.14932).
//
// With P_l the softmax weights of layer l, for head h, query i and key j:
//
//   M(h,i,j) = P_source(h,i,j) > threshold and j is not the query's own key
//   P'_l     = P_l * (1 + strength(i) * gain(l,h) * M)        for every layer l after the source layer
//
// Settings are pending until the next llama_decode() or llama_encode() of the context takes a snapshot of them, so all
// setters may be called while another thread decodes. Nothing outlives a batch: memory, state files and sequence
// operations are not affected.

#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LLAMA_ATTN_EMULATION_MAX_FACTOR 1000.0f // of a weight: 1 + strength*gain

enum llama_attn_emulation_pattern {
    LLAMA_ATTN_EMULATION_PATTERN_EARLY_LAYER = 0, // M as above
    LLAMA_ATTN_EMULATION_PATTERN_ALL         = 1, // M is 1 for every key, the query's own included

    // for as many keys of each row as above, drawn from all that the row can see but the query's own
    LLAMA_ATTN_EMULATION_PATTERN_RANDOM = 2,

    // for the first token of the sequence that is in the memory, unless it is the query's own or out of a layer's window
    LLAMA_ATTN_EMULATION_PATTERN_FIRST_TOKEN = 3,
};

enum llama_attn_emulation_kernel {
    LLAMA_ATTN_EMULATION_KERNEL_AUTO  = 0, // fused with flash attention where possible, else dense
    LLAMA_ATTN_EMULATION_KERNEL_DENSE = 1, // always from stock operations, with the weights materialised
};

struct llama_attn_emulation_params {
    enum llama_attn_emulation_pattern pattern;
    enum llama_attn_emulation_kernel  kernel;

    int32_t source_layer; // [0, n_layer)
    float   threshold;    // (0, 1)
    float   strength;     // of sequences without one of their own
    bool    normalize;    // rows sum to 1 again

    uint32_t seed; // of the random pattern

    // gain of each layer and head, F32 [n_layer][n_head] (see llama_attn_emulation_shape), copied;
    // rows of the source layer and of those before it are ignored. NULL: 1 - l/(n_layer - 1), the paper's
    const float * gain;
};

struct llama_attn_emulation_layer {
    bool         emulated;
    bool         fused;  // false: dense (only if emulated)
    const char * reason; // why the layer is left alone, NULL if it is emulated; valid for the life of the process
};

LLAMA_API struct llama_attn_emulation_params llama_attn_emulation_default_params(void);

// the number of layers, and the largest number of query heads of any of them: the shape of the gains
LLAMA_API void llama_attn_emulation_shape(const struct llama_context * ctx, int32_t * n_layer, int32_t * n_head);

// params == NULL turns emulation off and forgets the strengths of all sequences.
// returns NULL, or a sentence that says what is refused and why; then nothing has changed.
LLAMA_API const char * llama_set_attn_emulation(
    struct llama_context * ctx, const struct llama_attn_emulation_params * params);

// no rebuild of the graph, also when it becomes or ceases to be 0
// returns NULL, or a sentence that says what is refused and why (a weight would get below 0); then nothing has changed.
LLAMA_API const char * llama_set_attn_emulation_strength(struct llama_context * ctx, float strength);

// strength == NAN: the sequence follows the context's strength again
LLAMA_API const char * llama_set_attn_emulation_seq_strength(
    struct llama_context * ctx, llama_seq_id seq_id, float strength);

// what is done in each layer, n_layer entries; builds the graph if that has not been done since the settings changed,
// and waits for a running llama_decode() in that case only.
// returns NULL, or a sentence that says why there is no report
LLAMA_API const char * llama_attn_emulation_report(
    struct llama_context * ctx, struct llama_attn_emulation_layer * layers, int32_t n_layer);

// bytes of the pattern in the largest ubatch's graph; 0 if emulation is off
LLAMA_API size_t llama_attn_emulation_pattern_size(struct llama_context * ctx);

#ifdef __cplusplus
}
#endif
