#include "llama-attn-emulation-memory.h"

#include "llama-batch.h"
#include "llama-kv-cache-dsa-iswa.h"
#include "llama-kv-cache-dsa.h"
#include "llama-kv-cache-iswa.h"
#include "llama-kv-cache-msa.h"
#include "llama-kv-cache.h"
#include "llama-memory-hybrid-iswa.h"
#include "llama-memory-hybrid.h"

#include <algorithm>
#include <map>

std::vector<const llama_kv_cache *> llama_attn_caches(llama_memory_i * memory) {
    if (const auto * cache = dynamic_cast<const llama_kv_cache *>(memory)) {
        return { cache };
    }
    if (const auto * iswa = dynamic_cast<const llama_kv_cache_iswa *>(memory)) {
        return { iswa->get_base(), iswa->get_swa() };
    }
    if (const auto * hybrid = dynamic_cast<const llama_memory_hybrid *>(memory)) {
        return { hybrid->get_mem_attn() };
    }
    if (const auto * hybrid = dynamic_cast<const llama_memory_hybrid_iswa *>(memory)) {
        return llama_attn_caches(hybrid->get_mem_attn());
    }
    if (const auto * dsa = dynamic_cast<const llama_kv_cache_dsa *>(memory)) {
        return { dsa->get_mla() };
    }
    if (const auto * dsa = dynamic_cast<const llama_kv_cache_dsa_iswa *>(memory)) {
        auto caches = llama_attn_caches(dsa->get_dsa());
        caches.push_back(dsa->get_swa());
        return caches;
    }
    if (const auto * msa = dynamic_cast<const llama_kv_cache_msa *>(memory)) {
        return { msa->get_base() };
    }
    return {};
}

static bool stores(const llama_kv_cache & cache, const ggml_tensor * k_storage) {
    const auto layers = cache.get_layer_ids();
    return std::any_of(layers.begin(), layers.end(), [&](uint32_t il) { return cache.get_k_storage(il) == k_storage; });
}

const llama_kv_cache * llama_attn_find_cache(
    const std::vector<const llama_kv_cache *> & caches, const ggml_tensor * k_storage) {
    const auto found = std::find_if(
        caches.begin(), caches.end(), [&](const llama_kv_cache * cache) { return stores(*cache, k_storage); });
    return found != caches.end() ? *found : nullptr;
}

llm_attn_cells::llm_attn_cells(llama_memory_i * memory, const ggml_tensor * k_storage) : stored(true) {
    auto all = llama_attn_caches(memory);
    if (const auto * cache = llama_attn_find_cache(all, k_storage)) {
        std::iter_swap(all.begin(), std::find(all.begin(), all.end(), cache));
        caches = all;
    }
}

std::vector<int32_t> llm_attn_cells::positions(const llama_ubatch & ubatch, int64_t n_kv, int64_t n_stream) const {
    if (!stored) {
        return std::vector<int32_t>(ubatch.pos, ubatch.pos + ubatch.n_tokens);
    }
    std::vector<int32_t> res(n_kv * n_stream, -1);
    for (int64_t s = 0; s < n_stream; ++s) {
        const auto & cells = caches[0]->get_cells(ubatch.seq_id[s * ubatch.n_tokens / n_stream][0]);
        for (int64_t i = 0; i < std::min<int64_t>(n_kv, cells.size()); ++i) {
            if (!cells.is_empty(i)) {
                res[s * n_kv + i] = cells.pos_get(i);
            }
        }
    }
    return res;
}

int32_t llm_attn_cells::find_first_cell(const llama_ubatch & ubatch, llama_seq_id seq_id, int64_t n_kv) const {
    if (!stored) {
        int32_t first = -1;
        for (uint32_t i = 0; i < ubatch.n_tokens; ++i) {
            if (ubatch.seq_id[i][0] == seq_id && (first < 0 || ubatch.pos[i] < ubatch.pos[first])) {
                first = i;
            }
        }
        return first;
    }

    const auto & cells = caches[0]->get_cells(seq_id);
    const auto   pos   = cells.seq_pos_min(seq_id);
    for (const auto * cache : caches) {
        const auto other = cache->get_cells(seq_id).seq_pos_min(seq_id);
        if (other >= 0 && other < pos) {
            return -1; // a window has left the first token behind
        }
    }
    for (int64_t i = 0; i < std::min<int64_t>(n_kv, cells.size()); ++i) {
        if (!cells.is_empty(i) && cells.seq_has(i, seq_id) && cells.pos_get(i) == pos) {
            return i;
        }
    }
    return -1;
}

std::vector<int32_t> llm_attn_cells::first_cells(const llama_ubatch & ubatch, int64_t n_kv) const {
    std::map<llama_seq_id, int32_t> first;
    std::vector<int32_t>            res(ubatch.n_tokens);
    for (uint32_t i = 0; i < ubatch.n_tokens; ++i) {
        const llama_seq_id seq_id = ubatch.seq_id[i][0];
        const auto         known  = first.find(seq_id);
        res[i] = known != first.end() ? known->second : (first[seq_id] = find_first_cell(ubatch, seq_id, n_kv));
    }
    return res;
}
