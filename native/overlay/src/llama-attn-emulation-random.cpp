#include "llama-attn-emulation-random.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

// a bijection that leaves no pattern in its results: the last step of MurmurHash3
static uint32_t mix(uint32_t bits) {
    bits ^= bits >> 16;
    bits *= 0x85ebca6b;
    bits ^= bits >> 13;
    bits *= 0xc2b2ae35;
    bits ^= bits >> 16;
    return bits;
}

struct mask_row {
    const char * data;
    ggml_type    type;

    bool is_visible(int64_t cell) const {
        if (!data) {
            return true;
        }
        return type == GGML_TYPE_F16 ? ggml_fp16_to_fp32(((const ggml_fp16_t *) data)[cell]) != -INFINITY :
                                       ((const float *) data)[cell] != -INFINITY;
    }
};

// in chosen, for the k cells with the largest hashes: (hash, cell), in no order
static void choose(std::vector<std::pair<uint32_t, int32_t>> & chosen, int64_t k, uint32_t row_hash,
    const int32_t * positions, int64_t n_kv, int32_t own_cell, const mask_row & mask) {
    chosen.clear();
    if (k <= 0) {
        return;
    }
    const auto greater = std::greater<std::pair<uint32_t, int32_t>>();
    for (int64_t cell = 0; cell < n_kv; ++cell) {
        const std::pair<uint32_t, int32_t> candidate = { mix(row_hash ^ ((uint32_t) positions[cell] * 0x9e3779b9)),
            (int32_t) cell };

        const bool full = (int64_t) chosen.size() == k;
        if ((full && candidate < chosen.front()) || cell == own_cell || positions[cell] < 0 || !mask.is_visible(cell)) {
            continue;
        }
        if (full) {
            std::pop_heap(chosen.begin(), chosen.end(), greater);
            chosen.pop_back();
        }
        chosen.push_back(candidate);
        std::push_heap(chosen.begin(), chosen.end(), greater); // the least in front
    }
}

static void compute(ggml_tensor * dst, int ith, int nth, void * userdata) {
    const uint32_t seed = ((const llama_attn_emulation *) userdata)->values.seed;

    const ggml_tensor * pattern       = dst->src[0];
    const int32_t *     own_cells     = (const int32_t *) dst->src[2]->data;
    const int32_t *     own_positions = (const int32_t *) dst->src[3]->data;
    const ggml_tensor * positions     = dst->src[4];
    const ggml_tensor * visible       = dst->src[5];

    const int64_t n_q    = dst->ne[1];
    const int64_t n_head = dst->ne[2];
    const int64_t n_kv   = positions->ne[0];

    std::vector<std::pair<uint32_t, int32_t>> chosen;

    for (int64_t row = ith; row < ggml_nrows(dst); row += nth) {
        const int64_t iq     = row % n_q;
        const int64_t head   = row / n_q % n_head;
        const int64_t stream = row / n_q / n_head;
        const int64_t token  = stream * n_q + iq;

        const auto row_of = [&](const ggml_tensor * t) {
            return (char *) t->data + iq * t->nb[1] + head * t->nb[2] + stream * t->nb[3];
        };
        mask_row mask = { nullptr, GGML_TYPE_F32 };
        if (visible) {
            mask = { (const char *) visible->data + iq * visible->nb[1] + head % visible->ne[2] * visible->nb[2] +
                    stream % visible->ne[3] * visible->nb[3],
                visible->type };
        }
        const uint32_t hash = mix(mix(mix(seed) ^ (uint32_t) head) ^ (uint32_t) own_positions[token]);
        const auto     put  = [&](int64_t k) {
            const auto * cells = (const int32_t *) ((const char *) positions->data + stream * positions->nb[1]);
            choose(chosen, k, hash, cells, n_kv, own_cells[token], mask);
        };

        if (pattern->type == GGML_TYPE_I32) {
            int32_t * list = (int32_t *) row_of(dst);
            put(*(const int32_t *) row_of(pattern));
            list[0] = chosen.size();
            std::transform(chosen.begin(), chosen.end(), list + 1, [](const auto & c) { return c.second; });
            std::sort(list + 1, list + 1 + list[0]);
        } else {
            const float * listed = (const float *) row_of(pattern);
            float *       res    = (float *) row_of(dst);
            put(std::count(listed, listed + n_kv, 1.0f));
            std::fill(res, res + n_kv, 0.0f);
            for (const auto & [_, cell] : chosen) {
                res[cell] = 1.0f;
            }
        }
    }
}

ggml_tensor * llm_build_random_pattern(ggml_context * ctx, ggml_tensor * pattern, ggml_tensor * after,
    const llm_attn_random_inputs & inputs, const llama_attn_emulation & owner) {
    GGML_ASSERT(pattern->type == GGML_TYPE_I32 || pattern->type == GGML_TYPE_F32);

    std::vector<ggml_tensor *> args = { pattern, ggml_view_1d(ctx, after, 1, 0), inputs.own_cells, inputs.own_positions,
        inputs.positions };
    if (inputs.visible) {
        args.push_back(inputs.visible);
    }
    return ggml_custom_4d(ctx, pattern->type, pattern->ne[0], pattern->ne[1], pattern->ne[2], pattern->ne[3],
        args.data(), args.size(), compute, GGML_N_TASKS_MAX, (void *) &owner);
}
