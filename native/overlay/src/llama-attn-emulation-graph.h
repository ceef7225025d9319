#pragma once

// Where early-layer attention pattern emulation enters a graph, see llama-attn-emulation.h

#include "llama-attn-emulation-settings.h"

#include "ggml-backend.h"
#include "ggml.h"

#include <cstdint>
#include <vector>

struct llm_graph_context;

class llm_graph_input_attn_emulation;

// how many nodes emulation adds to a graph, at most
uint32_t llama_attn_emulation_n_nodes(const llama_attn_emulation_topology & topology, uint32_t n_layer);

// How the cell of a query's own key is found. Attention without it (cross-attention) is left alone.
struct llm_attn_own_cells {
    bool          known = false;
    ggml_tensor * k_idxs =
        nullptr;         // where the batch's keys are stored, I64 [n_tokens]; null: a key is at its token's index
    int64_t kv_size = 0; // cells of a stream: k_idxs count them through all streams

    const ggml_tensor * storage = nullptr; // the cache's tensor that holds the keys

    llm_attn_own_cells() = default;

    static llm_attn_own_cells token_index() {
        llm_attn_own_cells res;
        res.known = true;
        return res;
    }

    // k: a view of the cache, [n_embd_head_k, n_head_kv, n_kv, n_stream]
    llm_attn_own_cells(ggml_tensor * k_idxs, const ggml_tensor * k);
};

// Emulation in one graph. Layers whose keys are stored in the same cells share a pattern: that of the first of them, from
// the source layer on.
class llm_attn_emulation {
  public:
    llm_attn_emulation(const llm_graph_context & graph);
    ~llm_attn_emulation(); // hands the report over

    // this layer's weights have to be materialised
    bool needs_dense(
        const llm_graph_context & graph, const llm_attn_own_cells & own_cells, bool has_sinks, int il) const;

    // fa: the result of flash attention, [n_embd_head_v, n_head, n_q, n_stream]
    ggml_tensor * fuse(const llm_graph_context & graph, ggml_tensor * fa, const llm_attn_own_cells & own_cells, int il);

    // kq: the softmax weights, [n_kv, n_q, n_head, n_stream]
    ggml_tensor * apply_dense(
        const llm_graph_context & graph, ggml_tensor * kq, const llm_attn_own_cells & own_cells, int il);

  private:
    struct pattern {
        ggml_tensor * k_idxs = nullptr;
        int64_t       n_head = 0;
        int64_t       n_kv   = 0;
        ggml_tensor * cells  = nullptr; // fused: I32 lists
        ggml_tensor * mask   = nullptr; // dense: F32 [n_kv, n_q, n_head, n_stream], 1 where listed
        bool          known  = true;    // false: there is none, as it is not known which token is in which cell
    };

    std::vector<pattern> patterns;

    llm_graph_input_attn_emulation * inputs = nullptr;

    llama_attn_emulation *                  owner = nullptr;
    std::vector<llama_attn_emulation_layer> report;
    size_t                                  pattern_size = 0;

    bool dense = false; // no fused kernels

    // tells the next graphs if the layer's device does not take what this one asks of it
    void check_refusal(const ggml_tensor * fa, int il);

    bool begin_layer(const llm_graph_context & graph, const llm_attn_own_cells & own_cells, int il);

    llm_graph_input_attn_emulation & get_inputs(const llm_graph_context & graph);

    // an input as a result on the layer's device: of an input itself, the scheduler copies each view anew
    ggml_tensor * on_device(const llm_graph_context & graph, ggml_tensor * input, int il);

    struct input_on_device {
        ggml_tensor *      input;
        ggml_backend_dev_t device;
        ggml_tensor *      result;
    };

    std::vector<input_on_device> inputs_on_devices;

    // the layer's pattern, in which the first layer of its kind is the source; null if the layer is left alone
    const pattern * find_for_layer(const llm_attn_own_cells & own_cells, int64_t n_head, int64_t n_kv, int il);

    // null if the layer is the first of its kind
    const pattern * find(const llm_attn_own_cells & own_cells) const;

    ggml_tensor * build_own_cells(
        const llm_graph_context & graph, ggml_type type, const llm_attn_own_cells & own_cells);

    // a pattern of the first token: fused or dense, as the pattern has it
    void build_first_token(const llm_graph_context & graph, pattern & pattern, const llm_attn_own_cells & own_cells,
        int64_t n_q, int64_t n_stream, bool dense);

    // a random pattern in place of one that was recorded; mask: which keys are visible
    ggml_tensor * build_random(const llm_graph_context & graph, ggml_tensor * recorded, ggml_tensor * after,
        ggml_tensor * mask, const llm_attn_own_cells & own_cells, int64_t n_kv);

    // F32 [n_kv, n_q, 1, n_stream]: 0 in the column of each query's cell, else 1
    ggml_tensor * build_others(
        const llm_graph_context & graph, ggml_tensor * cells, int64_t n_kv, int64_t n_q, int64_t n_stream);

    ggml_tensor * build_gain(const llm_graph_context & graph, int64_t n_head, int il); // F32 [n_head]
    ggml_tensor * build_strength(const llm_graph_context & graph, int il);             // F32 [n_tokens]

    // strength*gain
    ggml_tensor * build_factor(const llm_graph_context & graph, int64_t n_q, int64_t n_head, int64_t n_stream, int il);
    ggml_tensor * build_dense_factor(const llm_graph_context & graph, ggml_tensor * kq, int il);
};
