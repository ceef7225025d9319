#pragma once

// Where capture enters a graph, see llama-attn-capture.h

#include "llama-attn-capture-settings.h"

#include <cstdint>

struct ggml_tensor;
struct llm_attn_own_cells;
struct llm_graph_context;

struct capture_op;

class llm_graph_input_attn_capture;

// Capture in one graph. Does nothing where it is off.
class llm_attn_capture {
  public:
    llm_attn_capture(const llm_graph_context & graph);

    // fa: flash attention, as emulation left it
    void fused(const llm_graph_context & graph, ggml_tensor * fa, const llm_attn_own_cells & own_cells, int il);

    // what the dense form computes weights from
    struct dense_inputs {
        ggml_tensor * q;
        ggml_tensor * k;
        ggml_tensor * kq_b;
        ggml_tensor * kq_mask;
        ggml_tensor * sinks;
        float         kq_scale;
    };

    // kq: the final softmax weights, [n_kv, n_q, n_head, n_stream]
    void dense(const llm_graph_context & graph, ggml_tensor * kq, const dense_inputs & from,
        const llm_attn_own_cells & own_cells, int il);

    // cur: any named tensor; what a layer leaves in the residual stream is captured
    void named(const llm_graph_context & graph, ggml_tensor * cur, const char * name, int il);

  private:
    llama_attn_capture_state *     state  = nullptr;
    llm_graph_input_attn_capture * inputs = nullptr;
    ggml_tensor *                  source = nullptr; // the last source layer's operation

    // null where the layer is left alone
    capture_op * add_attention(const llm_graph_context & graph, int64_t n_kv, int64_t n_head, int64_t n_stream,
        const llm_attn_own_cells & own_cells, int il);

    // adds its node to the graph
    void finish(const llm_graph_context & graph, ggml_tensor ** args, capture_op & op);

    llm_graph_input_attn_capture & get_inputs(const llm_graph_context & graph);

    void add_lens(const llm_graph_context & graph, ggml_tensor * cur, int layer, int il);
};

// how many nodes it adds to the graph of a ubatch
uint32_t llama_attn_capture_n_nodes(const llama_attn_capture::handle & capture, uint32_t n_tokens);
