#pragma once

// The random pattern: as many keys of each row as another pattern lists, but any of those that the row can see.
//
// Which ones follows from the seed, the head, and the positions of the query and of the keys alone. So the same are chosen
// by the fused and by the dense form, in any batches, and beside any other sequences.

#include "llama-attn-emulation-settings.h"

#include "ggml.h"

struct llm_attn_random_inputs {
    ggml_tensor * visible       = nullptr; // mask of the attention, F16 or F32 [n_kv, n_q, 1, 1 or n_stream]; null: all
    ggml_tensor * own_cells     = nullptr; // I32 [n_q*n_stream], never chosen
    ggml_tensor * own_positions = nullptr; // I32 [n_q*n_stream]
    ggml_tensor * positions     = nullptr; // I32 [n_kv, n_stream], of the token in each cell
};

// pattern: lists, I32 [1 + capacity, n_q, n_head, n_stream], or F32 [n_kv, n_q, n_head, n_stream], 1 where listed
// after:   what must have been computed before, as a list is written by an op that it is no result of
// returns a tensor like the pattern; it has to be computed on the CPU
ggml_tensor * llm_build_random_pattern(ggml_context * ctx, ggml_tensor * pattern, ggml_tensor * after,
    const llm_attn_random_inputs & inputs, const llama_attn_emulation & owner);
