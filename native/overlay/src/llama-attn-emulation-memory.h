#pragma once

// Which token's key is in which cell, for the patterns that choose keys by what they are, not by their weights.

#include "llama.h"

#include <cstdint>
#include <vector>

struct ggml_tensor;
struct llama_memory_i;
struct llama_ubatch;

class llama_kv_cache;

// those that store the keys of whole layers
std::vector<const llama_kv_cache *> llama_attn_caches(llama_memory_i * memory);

// the one of them whose keys are in this tensor, null if there is none
const llama_kv_cache * llama_attn_find_cache(
    const std::vector<const llama_kv_cache *> & caches, const ggml_tensor * k_storage);

// Where the keys of some layers are stored. Cells are counted within a stream, as in patterns.
class llm_attn_cells {
  public:
    // keys are not stored: each is at its token's index in the batch
    llm_attn_cells() = default;

    // k_storage: the keys of a layer in the cache. known() is false if no cache of a kind that is known has them
    llm_attn_cells(llama_memory_i * memory, const ggml_tensor * k_storage);

    bool known() const { return !caches.empty() || !stored; }

    // the position of the token in each cell, -1 in a free one: [n_stream][n_kv]
    std::vector<int32_t> positions(const llama_ubatch & ubatch, int64_t n_kv, int64_t n_stream) const;

    // for each token, the cell of the first token of its sequence, -1 if that one is not, or no longer, stored here
    std::vector<int32_t> first_cells(const llama_ubatch & ubatch, int64_t n_kv) const;

  private:
    bool stored = false;

    // the one with these keys first, then others that may have stored earlier tokens
    std::vector<const llama_kv_cache *> caches;

    int32_t find_first_cell(const llama_ubatch & ubatch, llama_seq_id seq_id, int64_t n_kv) const;
};
