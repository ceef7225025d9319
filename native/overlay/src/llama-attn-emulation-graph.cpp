#include "llama-attn-emulation-graph.h"

#include "llama-graph.h"
#include "llama-cparams.h"
#include "llama-hparams.h"

#include "ggml-attn-emulation.h"
#include "ggml-backend.h"

#include <cmath>

static const char * const reason_no_attention = "the layer has no attention";
static const char * const reason_own_kind     = "the architecture computes this layer's attention in a way of its own";
static const char * const reason_source       = "the pattern is taken from this layer";
static const char * const reason_before       = "the layer comes before the source layer";
static const char * const reason_heads        = "its number of query heads differs from the source layer's";
static const char * const reason_cells        = "its number of keys differs from the source layer's";

class llm_graph_input_attn_emulation : public llm_graph_input_i {
  public:
    llm_graph_input_attn_emulation(const llama_attn_emulation & owner) : owner(owner) {}

    void set_input(const llama_ubatch * ubatch) override;

    // the number of tokens is checked by llm_graph_params::allow_reuse, and nothing else shapes these inputs
    bool can_reuse(const llm_graph_params &) override { return true; }

    const llama_attn_emulation & owner;

    ggml_tensor * strength = nullptr; // F32 [n_tokens]
    ggml_tensor * gain     = nullptr; // F32 [n_head, n_layer]

    struct own_cells {
        ggml_tensor * cells;  // I32 (fused) or F32 (dense) [n_tokens]
        ggml_tensor * k_idxs; // I64 [n_tokens], an input that is set before this one
        int64_t       kv_size;
    };

    std::vector<own_cells> own;
};

void llm_graph_input_attn_emulation::set_input(const llama_ubatch * ubatch) {
    const llama_attn_emulation_values & values = owner.values;

    if (strength->buffer) {
        GGML_ASSERT(ggml_backend_buffer_is_host(strength->buffer));
        float * data = (float *) strength->data;
        for (uint32_t i = 0; i < ubatch->n_tokens; ++i) {
            data[i] = values.strength_of(ubatch->seq_id[i][0]);
        }
    }
    if (gain->buffer) {
        ggml_backend_tensor_set(gain, values.gain.data(), 0, values.gain.size() * sizeof(float));
    }

    for (const auto & [cells, k_idxs, kv_size] : own) {
        if (!cells->buffer) {
            continue;
        }
        GGML_ASSERT(ggml_backend_buffer_is_host(cells->buffer));
        GGML_ASSERT(!k_idxs || k_idxs->data);
        for (uint32_t i = 0; i < ubatch->n_tokens; ++i) {
            const int64_t cell = k_idxs ? ((const int64_t *) k_idxs->data)[i] % kv_size : i;
            if (cells->type == GGML_TYPE_I32) {
                ((int32_t *) cells->data)[i] = cell;
            } else {
                ((float *) cells->data)[i] = cell;
            }
        }
    }
}

llm_attn_own_cells::llm_attn_own_cells(ggml_tensor * k_idxs, const ggml_tensor * k) :
    known(true),
    k_idxs(k_idxs),
    kv_size(k->nb[3] / k->nb[2]),
    storage(k->view_src) {}

llm_attn_emulation::llm_attn_emulation(const llm_graph_context & graph) {
    const auto & topology = graph.cparams.attn_emulation;

    // of an encoder-decoder only the decoder is emulated, which is the part with a cache
    if (topology.enabled && (graph.mctx || graph.hparams.dec_n_layer == 0)) {
        owner = topology.owner;
        for (int32_t il = 0; il < owner->values.n_layer; ++il) {
            const bool has_attention = graph.hparams.n_head(il) > 0 && !graph.hparams.is_recr(il);
            report.push_back({ false, false, has_attention ? reason_own_kind : reason_no_attention });
        }
    }
}

llm_attn_emulation::~llm_attn_emulation() {
    if (owner) {
        owner->set_report(std::move(report), pattern_size);
    }
}

bool llm_attn_emulation::needs_dense(
    const llm_graph_context & graph, const llm_attn_own_cells & own_cells, bool has_sinks, int il) const {
    const auto & topology = graph.cparams.attn_emulation;

    if (!owner || !own_cells.known || il < topology.source_layer) {
        return false;
    }
    // a row of sinks and equally scaled weights has no common factor
    return topology.dense || (topology.all_keys && topology.normalize && has_sinks);
}

// true if the layer may be emulated or be the source
bool llm_attn_emulation::begin_layer(const llm_graph_context & graph, const llm_attn_own_cells & own_cells, int il) {
    const auto & topology = graph.cparams.attn_emulation;

    if (!owner || il < 0 || il >= owner->values.n_layer) {
        return false;
    }
    if (!own_cells.known) {
        // a layer may have cross-attention beside attention that is emulated
        return false;
    }
    if (il < topology.source_layer) {
        report[il].reason = reason_before;
        return false;
    }
    return true;
}

llm_graph_input_attn_emulation & llm_attn_emulation::get_inputs(const llm_graph_context & graph) {
    if (!inputs) {
        auto res      = std::make_unique<llm_graph_input_attn_emulation>(*owner);
        res->strength = ggml_new_tensor_1d(graph.ctx0, GGML_TYPE_F32, graph.n_tokens);
        res->gain     = ggml_new_tensor_2d(graph.ctx0, GGML_TYPE_F32, owner->values.n_head, owner->values.n_layer);
        ggml_set_input(res->strength);
        ggml_set_input(res->gain);
        graph.cb(res->strength, "attn_emulation_strength", -1);
        graph.cb(res->gain, "attn_emulation_gain", -1);

        inputs = (llm_graph_input_attn_emulation *) graph.res->add_input(std::move(res));
    }
    return *inputs;
}

const llm_attn_emulation::pattern * llm_attn_emulation::find(const llm_attn_own_cells & own_cells) const {
    for (const auto & pattern : patterns) {
        if (pattern.k_idxs == own_cells.k_idxs) {
            return &pattern;
        }
    }
    return nullptr;
}

ggml_tensor * llm_attn_emulation::build_gain(const llm_graph_context & graph, int64_t n_head, int il) {
    ggml_tensor * gain = get_inputs(graph).gain;

    return ggml_view_1d(graph.ctx0, gain, n_head, il * gain->nb[1]);
}

ggml_tensor * llm_attn_emulation::build_factor(
    const llm_graph_context & graph, int64_t n_q, int64_t n_head, int64_t n_stream, int dim_head, int il) {
    ggml_context * ctx0 = graph.ctx0;

    ggml_tensor * gain     = build_gain(graph, n_head, il);
    ggml_tensor * strength = get_inputs(graph).strength;

    if (dim_head == 1) {
        gain     = ggml_reshape_4d(ctx0, gain, 1, n_head, 1, 1);
        strength = ggml_reshape_4d(ctx0, strength, 1, 1, n_q, n_stream);
        gain     = ggml_repeat_4d(ctx0, gain, 1, n_head, n_q, n_stream);
    } else {
        gain     = ggml_reshape_4d(ctx0, gain, 1, 1, n_head, 1);
        strength = ggml_reshape_4d(ctx0, strength, 1, n_q, 1, n_stream);
        gain     = ggml_repeat_4d(ctx0, gain, 1, n_q, n_head, n_stream);
    }
    return ggml_mul(ctx0, gain, strength);
}

ggml_tensor * llm_attn_emulation::build_own_cells(
    const llm_graph_context & graph, ggml_type type, const llm_attn_own_cells & own_cells) {
    ggml_tensor * cells = ggml_new_tensor_1d(graph.ctx0, type, graph.n_tokens);
    ggml_set_input(cells);
    graph.cb(cells, "attn_emulation_own_cells", -1);

    get_inputs(graph).own.push_back({ cells, own_cells.k_idxs, own_cells.kv_size });

    return cells;
}

ggml_tensor * llm_attn_emulation::fuse(
    const llm_graph_context & graph, ggml_tensor * fa, const llm_attn_own_cells & own_cells, int il) {
    if (!begin_layer(graph, own_cells, il)) {
        return fa;
    }

    ggml_context * ctx0 = graph.ctx0;

    const auto & topology = graph.cparams.attn_emulation;

    const int64_t n_head   = fa->ne[1];
    const int64_t n_q      = fa->ne[2];
    const int64_t n_stream = fa->ne[3];
    const int64_t n_kv     = fa->src[1]->ne[1];

    const pattern * source = find(own_cells);
    if (!source) {
        pattern next = { own_cells.k_idxs, nullptr, nullptr, n_head, n_kv };

        if (!topology.all_keys) {
            next.cells = ggml_attn_pattern_new(ctx0, topology.threshold, n_kv, n_q, n_head, n_stream);
            // the scheduler puts it where its first user runs, which writes it, and copies it for layers on other devices
            graph.cb(next.cells, "attn_emulation_pattern", il);

            ggml_flash_attn_ext_record_pattern(
                fa, next.cells, build_own_cells(graph, GGML_TYPE_I32, own_cells), topology.threshold);
            pattern_size += ggml_nbytes(next.cells);
        }

        patterns.push_back(next);
        report[il].reason = reason_source;
        return fa;
    }
    if (source->n_head != n_head || source->n_kv != n_kv) {
        report[il].reason = source->n_head != n_head ? reason_heads : reason_cells;
        return fa;
    }
    report[il] = { true, true, nullptr };

    if (topology.all_keys) {
        ggml_tensor * factor = ggml_scale_bias(ctx0, build_factor(graph, n_q, n_head, n_stream, 1, il), 1.0f, 1.0f);
        if (topology.normalize) {
            // equally scaled weights that sum to 1 again are the plain ones, but for a row that is turned off altogether
            factor = ggml_step(ctx0, factor);
        }
        return ggml_mul(ctx0, fa, factor);
    }

    ggml_flash_attn_ext_boost_pattern(
        fa, source->cells, get_inputs(graph).strength, build_gain(graph, n_head, il), topology.normalize);

    return fa;
}

ggml_tensor * llm_attn_emulation::apply_dense(
    const llm_graph_context & graph, ggml_tensor * kq, const llm_attn_own_cells & own_cells, int il) {
    if (!begin_layer(graph, own_cells, il)) {
        return kq;
    }

    ggml_context * ctx0 = graph.ctx0;

    const auto & topology = graph.cparams.attn_emulation;

    const int64_t n_kv     = kq->ne[0];
    const int64_t n_q      = kq->ne[1];
    const int64_t n_head   = kq->ne[2];
    const int64_t n_stream = kq->ne[3];

    const pattern * source = find(own_cells);
    if (!source) {
        pattern next = { own_cells.k_idxs, nullptr, nullptr, n_head, n_kv };

        if (!topology.all_keys) {
            ggml_tensor * own =
                ggml_reshape_4d(ctx0, build_own_cells(graph, GGML_TYPE_F32, own_cells), 1, n_q, 1, n_stream);

            ggml_tensor * others = ggml_repeat_4d(ctx0, ggml_arange(ctx0, 0.0f, n_kv, 1.0f), n_kv, n_q, 1, n_stream);
            others               = ggml_step(ctx0, ggml_abs(ctx0, ggml_sub(ctx0, others, own)));

            next.mask = ggml_step(ctx0, ggml_scale_bias(ctx0, kq, 1.0f, -topology.threshold));
            next.mask = ggml_mul(ctx0, next.mask, others);
            graph.cb(next.mask, "attn_emulation_mask", il);

            // now, so that the weights need not be kept for it
            ggml_build_forward_expand(graph.gf, next.mask);

            pattern_size += ggml_nbytes(next.mask);
        }

        patterns.push_back(next);
        report[il].reason = reason_source;
        return kq;
    }
    if (source->n_head != n_head || source->n_kv != n_kv) {
        report[il].reason = source->n_head != n_head ? reason_heads : reason_cells;
        return kq;
    }
    report[il] = { true, false, nullptr };

    ggml_tensor * extra = build_factor(graph, n_q, n_head, n_stream, 2, il);
    extra = topology.all_keys ? ggml_mul(ctx0, kq, extra) : ggml_mul(ctx0, kq, ggml_mul(ctx0, source->mask, extra));

    ggml_tensor * res = ggml_add(ctx0, kq, extra);
    if (topology.normalize) {
        ggml_tensor * sum = ggml_sum_rows(ctx0, res);
        if (kq->src[2]) {
            // a sink stays part of the row
            ggml_tensor * rest = ggml_scale_bias(ctx0, ggml_sum_rows(ctx0, kq), -1.0f, 1.0f);
            sum                = ggml_add(ctx0, sum, rest);
        }
        // a row that is turned off altogether stays so
        res = ggml_div(ctx0, res, ggml_clamp(ctx0, sum, 1e-30f, INFINITY));
    }
    graph.cb(res, "attn_emulation_weights", il);

    return res;
}
