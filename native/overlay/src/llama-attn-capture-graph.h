#pragma once

// Where capture enters a graph, see llama-attn-capture.h

#include "llama-attn-capture-settings.h"

#include <cstdint>

struct ggml_tensor;
struct llm_attn_own_cells;
struct llm_graph_context;

class llm_graph_input_attn_capture;

// Capture in one graph. Does nothing where it is off.
class llm_attn_capture {
  public:
    llm_attn_capture(const llm_graph_context & graph);

    // fa: flash attention, as emulation left it
    void fused(const llm_graph_context & graph, ggml_tensor * fa, const llm_attn_own_cells & own_cells, int il);

    // kq: the final softmax weights, [n_kv, n_q, n_head, n_stream]
    void dense(const llm_graph_context & graph, ggml_tensor * kq, ggml_tensor * kq_mask,
        const llm_attn_own_cells & own_cells, int il);

    // cur: any named tensor; what a layer leaves in the residual stream is captured
    void named(const llm_graph_context & graph, ggml_tensor * cur, const char * name, int il);

  private:
    llama_attn_capture_state *     state  = nullptr;
    llm_graph_input_attn_capture * inputs = nullptr;
    ggml_tensor *                  source = nullptr; // the last source layer's operation

    void add_attention(const llm_graph_context & graph, ggml_tensor * const * args, ggml_tensor * shape, bool dense,
        bool emulated, const llm_attn_own_cells & own_cells, int il);

    llm_graph_input_attn_capture & get_inputs(const llm_graph_context & graph);

    void add_lens(const llm_graph_context & graph, ggml_tensor * cur, int layer, int il);
};

// how many nodes it adds to the graph of a ubatch
uint32_t llama_attn_capture_n_nodes(const llama_attn_capture::handle & capture, uint32_t n_tokens);
