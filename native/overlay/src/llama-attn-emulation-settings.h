#pragma once

// What early-layer attention pattern emulation does in a context, see llama-attn-emulation.h

#include "llama-attn-emulation.h"

#include "ggml-backend.h"

#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

struct llama_attn_emulation;
struct llama_hparams;
struct llama_memory_i;

// what the topology of a graph depends on; part of llama_cparams
struct llama_attn_emulation_topology {
    bool    enabled      = false;
    bool    dense        = false; // no fused kernels
    bool    normalize    = false;
    int32_t source_layer = 0;
    float   threshold    = 0.0f;

    llama_attn_emulation_pattern pattern = LLAMA_ATTN_EMULATION_PATTERN_EARLY_LAYER;

    llama_attn_emulation * owner = nullptr; // for the values that a graph reads and the report that it writes

    bool operator==(const llama_attn_emulation_topology & other) const;
};

// what graphs take as inputs: changes freely between batches
struct llama_attn_emulation_values {
    float strength = 0.0f;

    uint32_t seed = 0; // of the random pattern

    std::map<llama_seq_id, float> seq_strength;

    int32_t n_layer = 0;
    int32_t n_head  = 0; // the largest of all layers

    std::vector<float> gain; // [n_layer][n_head]

    float strength_of(llama_seq_id seq_id) const;
};

// The settings of a context: setters write pending ones, a batch takes them over as a whole when it starts.
struct llama_attn_emulation {
    // the values of the running batch
    llama_attn_emulation_values values;

    // the context's, null if it has none
    llama_memory_i * memory = nullptr;

    // whose kernels each layer's flash attention takes, null if the CPU's
    std::vector<ggml_backend_dev_t> devices;

    bool only_dense = false; // one of them has no kernels for it

    // one of them has refused what a graph asked of it: all graphs after that one are dense
    bool refused = false;

    std::recursive_mutex running; // held while a batch runs or is waited for, or a graph is reserved

    // setters and getters, from any thread
    void shape(const llama_hparams & hparams, int32_t & n_layer, int32_t & n_head) const;

    const char * set(const llama_hparams & hparams, const llama_attn_emulation_params * params);
    const char * set_strength(float strength);
    const char * set_seq_strength(llama_seq_id seq_id, uint32_t n_seq_max, float strength);

    // takes the pending settings over, returns true if the topology has changed
    bool take(llama_attn_emulation_topology & topology);

    // called when a graph has been built
    void set_report(std::vector<llama_attn_emulation_layer> layers, size_t pattern_size);
    void forget_report(); // there is no room for that graph

    bool get_report(
        llama_attn_emulation_layer * layers, int32_t n_layer); // false: not built since the settings changed
    bool get_pattern_size(size_t & size);                      // the same
    bool is_enabled();

  private:
    std::mutex mutex; // of all that follows

    llama_attn_emulation_topology pending_topology;
    llama_attn_emulation_values   pending;
    bool                          pending_topology_changed = false;
    bool                          pending_values_changed   = false;

    bool                                    reported = false;
    std::vector<llama_attn_emulation_layer> report;
    size_t                                  pattern_size = 0; // of the largest graph
};
