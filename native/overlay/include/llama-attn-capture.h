#pragma once

// Capture of attention: what each head looks at, while a context evaluates as usual, with flash attention or without.
//
// A custom operation beside each layer's attention computes the softmax weights of a few rows at a time from Q and K, as the
// dense form does, with emulation applied. It reduces them at once, so that nothing of size n_q x n_kv is ever held.
// Off, graphs are as if this did not exist.

#include "llama.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

struct llama_attn_capture_options {
    llama_seq_id seq_id = 0; // whose tokens are captured

    std::vector<int32_t> layers; // ascending
    std::vector<int32_t> heads;  // ascending, query heads

    // positions of the query rows that are kept, ascending; measures are of all rows
    bool                 all_queries = false;
    std::vector<int32_t> queries;

    // a row's pattern: the keys above the threshold in the source layer, but for the query's own
    int32_t source_layer = 0;
    float   threshold    = 0.01f;

    int32_t top_k         = 0;     // strongest keys of each kept row
    bool    weights       = false; // kept rows as a whole
    bool    hidden_states = false; // of kept rows, after each layer
    int32_t lens_k        = 0;     // of kept rows, most probable tokens if the model ended after each layer

    std::vector<uint8_t> token_classes; // of each token of the vocabulary, below LLAMA_ATTN_CAPTURE_CLASSES

    bool from_keys = false; // weights are computed even where they are materialised, without emulation: for tests
};

#define LLAMA_ATTN_CAPTURE_CLASSES 4

// bytes of kept rows
#define LLAMA_ATTN_CAPTURE_MOST_KEPT (1024.0 * 1024.0 * 1024.0)

// Sums over query rows. n: tokens of the sequence so far
struct llama_attn_capture_head {
    double entropy                             = 0.0; // nats, of rows that sum to 1 again
    double first                               = 0.0; // weight of the sequence's first token
    double agreement                           = 0.0; // weight of the row's pattern
    double above                               = 0.0; // weights above the threshold, own key left out
    double classes[LLAMA_ATTN_CAPTURE_CLASSES] = {};  // weight per class of tokens

    std::vector<float>    received;    // [n] weight that each token gets from others
    std::vector<uint32_t> received_by; // [n] how many of these are above the threshold
};

struct llama_attn_capture_layer {
    bool    seen       = false; // a graph had attention that could be captured
    bool    has_states = false; // and named what the layer leaves in the residual stream
    int32_t n_head     = 0;
    int64_t n_rows     = 0;
    int64_t n_patterns = 0; // rows with a pattern of the source layer

    std::vector<uint32_t>                seen_by; // [n] how many other tokens see each
    std::vector<llama_attn_capture_head> heads;   // one of each captured head
};

// What is kept of the selected query rows of one ubatch; L layers, H heads, R rows
struct llama_attn_capture_rows {
    std::vector<int32_t> positions; // [R]
    int64_t              n_tokens = 0;

    std::vector<uint32_t> top_keys;    // [L][H][R][top_k], UINT32_MAX where there are fewer
    std::vector<float>    top_weights; // [L][H][R][top_k]
    std::vector<float>    weights;     // [L][H][R][n_tokens]

    std::vector<float>    hidden_states; // [L][R][n_embd], NAN where a layer does not compute the row
    std::vector<uint32_t> lens_tokens;   // [L][R][lens_k]
    std::vector<float>    lens_logprobs; // [L][R][lens_k]
};

struct llama_attn_capture_recording {
    llama_attn_capture_options options;

    int32_t n_embd  = 0;
    int64_t n_rows  = 0;     // query rows so far
    bool    is_full = false; // rows were left out, as kept ones must not take more than LLAMA_ATTN_CAPTURE_MOST_KEPT
    int64_t scratch = 0;     // bytes of the largest batch's scratch memory
    std::vector<llama_token> tokens; // [n] by position, -1 where unknown

    std::vector<llama_attn_capture_layer> layers; // one of each captured layer
    std::vector<llama_attn_capture_rows>  rows;

    // of kept rows and as many more, weights as wide as a sequence of so many tokens
    double kept_bytes(size_t n_more, size_t n_tokens) const;

    // forgets all but the tokens
    void clear();

    // forgets all: the sequence holds these tokens now, by position
    void restart(std::vector<llama_token> held);
};

// options == NULL ends it. Takes effect with the next batch.
// returns NULL, or a sentence that says what is refused and why; then nothing has changed.
LLAMA_API const char * llama_set_attn_capture(llama_context * ctx, const llama_attn_capture_options * options);

// Waits for a running batch. `use` may take kept rows away. returns false if there is no capture
LLAMA_API bool llama_read_attn_capture(
    llama_context * ctx, const std::function<void(llama_attn_capture_recording &)> & use);

// how many layers there are to capture
LLAMA_API int32_t llama_attn_capture_n_layer(const llama_context * ctx);

// whether the layer may have attention
LLAMA_API bool llama_attn_capture_has_attention(const llama_context * ctx, int32_t layer);
