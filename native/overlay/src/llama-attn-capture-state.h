#pragma once

// What writes a recording while a ubatch is computed

#include "llama-attn-capture.h"
#include "llama-attn-capture-rows.h"

#include <cstdint>
#include <memory>
#include <vector>

struct llama_attn_emulation;
struct llama_memory_i;
struct llama_model;
struct llama_ubatch;

// memory of one thread
struct llama_attn_capture_scratch {
    std::vector<float>    q;
    std::vector<float>    k;
    std::vector<float>    scores; // [rows of a tile][n_kv]
    std::vector<float>    sum;    // [n_kv]
    std::vector<uint32_t> above;  // [n_kv]
    std::vector<uint32_t> seen;   // [n_kv]

    std::vector<llama_attn_capture_runs>   runs;
    std::vector<std::pair<float, int32_t>> strongest;

    size_t size() const;
};

struct llama_attn_capture_state {
    llama_attn_capture_state(const llama_model & model, const llama_attn_emulation & emulation, llama_memory_i * memory,
        const llama_attn_capture_options & options);

    const llama_model &          model;
    const llama_attn_emulation & emulation;
    llama_memory_i *             memory; // null: none

    llama_attn_capture_recording recording;

    std::vector<int32_t> layer_index; // [n_layer], -1: not captured

    // a query row of the running ubatch
    struct row {
        int32_t token; // index in the ubatch
        int32_t pos;
        int32_t kept; // index among the kept ones, or -1
    };

    std::vector<row>          rows;
    llama_attn_capture_rows * kept = nullptr;
    std::vector<int32_t>      output_index; // [n_tokens], -1: no output
    float                     strength = 0.0f;

    std::vector<llama_attn_capture_scratch> scratch; // one of each thread

    // forgets everything and frees the memory; graphs that hold this stay valid
    void release();

    bool keeps_rows() const;
    bool is_kept(int32_t pos) const;

    // if it throws, what was recorded is as it was, or, where tokens were taken back, empty
    void begin(const llama_ubatch & ubatch);

  private:
    void make_layers();
};
