#include "llama-attn-emulation-graph.h"

#include "llama-attn-emulation-memory.h"
#include "llama-attn-emulation-random.h"

#include "llama-graph.h"
#include "llama-cparams.h"
#include "llama-hparams.h"

#include "ggml-attn-emulation.h"
#include "ggml-backend.h"

#include <algorithm>
#include <cmath>

static const char * const reason_no_attention = "the layer has no attention";
static const char * const reason_own_kind     = "the architecture computes this layer's attention in a way of its own";
static const char * const reason_source       = "the pattern is taken from this layer";
static const char * const reason_before       = "the layer comes before the source layer";
static const char * const reason_heads        = "its number of query heads differs from the source layer's";
static const char * const reason_cells        = "its number of keys differs from the source layer's";
static const char * const reason_memory       = "this kind of memory does not say which token is in which cell";

class llm_graph_input_attn_emulation : public llm_graph_input_i {
  public:
    llm_graph_input_attn_emulation(const llama_attn_emulation & owner) : owner(owner) {}

    void set_input(const llama_ubatch * ubatch) override;

    // the number of tokens is checked by llm_graph_params::allow_reuse, and nothing else shapes these inputs
    bool can_reuse(const llm_graph_params &) override { return true; }

    const llama_attn_emulation & owner;

    // F32: the strength of each token, then the gains [n_head, n_layer]; together, as each input of a GPU is a copy that it waits for
    ggml_tensor * values = nullptr;

    struct own_cells {
        ggml_tensor * cells;  // I32 (fused) or F32 (dense) [n_tokens]
        ggml_tensor * k_idxs; // I64 [n_tokens], an input that is set before this one
        int64_t       kv_size;
    };

    std::vector<own_cells> own;

    struct cells {
        llm_attn_cells of;
        int64_t        n_kv;

        ggml_tensor * first_lists   = nullptr; // I32 [2, n_q, n_head, n_stream], pattern of the first token
        ggml_tensor * first         = nullptr; // F32 [n_tokens], the first token's cell, -1 if none is to be listed
        ggml_tensor * positions     = nullptr; // I32 [n_kv, n_stream], of the token in each cell
        ggml_tensor * own_positions = nullptr; // I32 [n_tokens]
        ggml_tensor * k_idxs        = nullptr; // as above
        int64_t       kv_size       = 0;
    };

    std::vector<cells> all_cells;

  private:
    void set_first(const llama_ubatch & ubatch, const cells & cells) const;
    void set_positions(const llama_ubatch & ubatch, const cells & cells) const;
};

static int64_t own_cell(ggml_tensor * k_idxs, int64_t kv_size, uint32_t token) {
    GGML_ASSERT(!k_idxs || k_idxs->data);
    return k_idxs ? ((const int64_t *) k_idxs->data)[token] % kv_size : token;
}

template <class T>
static void set_tensor(ggml_tensor * tensor, const std::vector<T> & values) {
    GGML_ASSERT(ggml_nbytes(tensor) == values.size() * sizeof(T));
    ggml_backend_tensor_set(tensor, values.data(), 0, ggml_nbytes(tensor));
}

void llm_graph_input_attn_emulation::set_first(const llama_ubatch & ubatch, const cells & cells) const {
    auto first = cells.of.first_cells(ubatch, cells.n_kv);
    for (uint32_t i = 0; i < ubatch.n_tokens; ++i) {
        if (first[i] == own_cell(cells.k_idxs, cells.kv_size, i)) {
            first[i] = -1;
        }
    }
    if (cells.first && cells.first->buffer) {
        set_tensor(cells.first, std::vector<float>(first.begin(), first.end()));
    }
    if (cells.first_lists && cells.first_lists->buffer) {
        const int64_t        n_q    = cells.first_lists->ne[1];
        const int64_t        n_head = cells.first_lists->ne[2];
        std::vector<int32_t> lists(ggml_nelements(cells.first_lists));
        for (size_t row = 0; row < lists.size() / 2; ++row) {
            const int32_t cell = first[row / n_q / n_head * n_q + row % n_q];
            lists[2 * row]     = cell >= 0;
            lists[2 * row + 1] = cell;
        }
        set_tensor(cells.first_lists, lists);
    }
}

void llm_graph_input_attn_emulation::set_positions(const llama_ubatch & ubatch, const cells & cells) const {
    set_tensor(cells.positions, cells.of.positions(ubatch, cells.n_kv, cells.positions->ne[1]));
    set_tensor(cells.own_positions, std::vector<int32_t>(ubatch.pos, ubatch.pos + ubatch.n_tokens));
}

void llm_graph_input_attn_emulation::set_input(const llama_ubatch * ubatch) {
    if (values->buffer) {
        GGML_ASSERT(ggml_backend_buffer_is_host(values->buffer));
        float * data = (float *) values->data;
        for (uint32_t i = 0; i < ubatch->n_tokens; ++i) {
            data[i] = owner.values.strength_of(ubatch->seq_id[i][0]);
        }
        std::copy(owner.values.gain.begin(), owner.values.gain.end(), data + ubatch->n_tokens);
    }
    for (const auto & cells : all_cells) {
        if (cells.first || cells.first_lists) {
            set_first(*ubatch, cells);
        } else if (cells.positions->buffer) {
            set_positions(*ubatch, cells);
        }
    }

    for (const auto & [cells, k_idxs, kv_size] : own) {
        if (!cells->buffer) {
            continue;
        }
        GGML_ASSERT(ggml_backend_buffer_is_host(cells->buffer));
        for (uint32_t i = 0; i < ubatch->n_tokens; ++i) {
            const int64_t cell = own_cell(k_idxs, kv_size, i);
            if (cells->type == GGML_TYPE_I32) {
                ((int32_t *) cells->data)[i] = cell;
            } else {
                ((float *) cells->data)[i] = cell;
            }
        }
    }
}

uint32_t llama_attn_emulation_n_nodes(const llama_attn_emulation_topology & topology, uint32_t n_layer) {
    // the dense form's, which any layer may turn out to need: 14 of the boost, 6 of normalising, a cast of V, and
    // inputs on the layer's device; in each source layer up to 16
    return topology.enabled ? 24 * n_layer + 64 : 0;
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
        dense = topology.dense || owner->refused;
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
    return dense || (topology.pattern == LLAMA_ATTN_EMULATION_PATTERN_ALL && topology.normalize && has_sinks);
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
        auto res    = std::make_unique<llm_graph_input_attn_emulation>(*owner);
        res->values = ggml_new_tensor_1d(graph.ctx0, GGML_TYPE_F32, graph.n_tokens + owner->values.gain.size());
        ggml_set_input(res->values);
        graph.cb(res->values, "attn_emulation_values", -1);

        inputs = (llm_graph_input_attn_emulation *) graph.res->add_input(std::move(res));
    }
    return *inputs;
}

ggml_tensor * llm_attn_emulation::on_device(const llm_graph_context & graph, ggml_tensor * input, int il) {
    const ggml_backend_dev_t device = owner->devices[il];
    if (!device || ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU) {
        return input;
    }
    for (const auto & known : inputs_on_devices) {
        if (known.input == input && known.device == device) {
            return known.result;
        }
    }
    ggml_tensor * result = ggml_cont(graph.ctx0, input);
    graph.cb(result, "attn_emulation_input", il);
    inputs_on_devices.push_back({ input, device, result });
    return result;
}

const llm_attn_emulation::pattern * llm_attn_emulation::find(const llm_attn_own_cells & own_cells) const {
    for (const auto & pattern : patterns) {
        if (pattern.k_idxs == own_cells.k_idxs) {
            return &pattern;
        }
    }
    return nullptr;
}

const llm_attn_emulation::pattern * llm_attn_emulation::find_for_layer(
    const llm_attn_own_cells & own_cells, int64_t n_head, int64_t n_kv, int il) {
    const pattern * source = find(own_cells);
    const char *    reason = !source->known ? reason_memory :
           source->n_head != n_head         ? reason_heads :
           source->n_kv != n_kv             ? reason_cells :
                                              nullptr;
    if (reason) {
        report[il].reason = reason;
        return nullptr;
    }
    return source;
}

ggml_tensor * llm_attn_emulation::build_others(
    const llm_graph_context & graph, ggml_tensor * cells, int64_t n_kv, int64_t n_q, int64_t n_stream) {
    ggml_context * ctx0 = graph.ctx0;

    ggml_tensor * all = ggml_repeat_4d(ctx0, ggml_arange(ctx0, 0.0f, n_kv, 1.0f), n_kv, n_q, 1, n_stream);
    return ggml_step(ctx0, ggml_abs(ctx0, ggml_sub(ctx0, all, ggml_reshape_4d(ctx0, cells, 1, n_q, 1, n_stream))));
}

void llm_attn_emulation::build_first_token(const llm_graph_context & graph, pattern & pattern,
    const llm_attn_own_cells & own_cells, int64_t n_q, int64_t n_stream, bool dense) {
    ggml_context * ctx0 = graph.ctx0;

    const auto of = own_cells.k_idxs ? llm_attn_cells(owner->memory, own_cells.storage) : llm_attn_cells();
    pattern.known = of.known();
    if (!pattern.known) {
        return;
    }
    llm_graph_input_attn_emulation::cells cells = { of, pattern.n_kv };
    cells.k_idxs                                = own_cells.k_idxs;
    cells.kv_size                               = own_cells.kv_size;
    if (dense) {
        cells.first = ggml_new_tensor_1d(ctx0, GGML_TYPE_F32, n_q * n_stream);
        ggml_set_input(cells.first);
        graph.cb(cells.first, "attn_emulation_first_cells", -1);

        ggml_tensor * others = build_others(graph, cells.first, pattern.n_kv, n_q, n_stream);
        pattern.mask         = ggml_repeat_4d(
                    ctx0, ggml_scale_bias(ctx0, others, -1.0f, 1.0f), pattern.n_kv, n_q, pattern.n_head, n_stream);
    } else {
        cells.first_lists = ggml_new_tensor_4d(ctx0, GGML_TYPE_I32, 2, n_q, pattern.n_head, n_stream);
        ggml_set_input(cells.first_lists);
        graph.cb(cells.first_lists, "attn_emulation_pattern", -1);
        pattern.cells = cells.first_lists;
    }
    get_inputs(graph).all_cells.push_back(cells);
}

ggml_tensor * llm_attn_emulation::build_random(const llm_graph_context & graph, ggml_tensor * recorded,
    ggml_tensor * after, ggml_tensor * mask, const llm_attn_own_cells & own_cells, int64_t n_kv) {
    ggml_context * ctx0     = graph.ctx0;
    const int64_t  n_stream = recorded->ne[3];

    const auto of = own_cells.k_idxs ? llm_attn_cells(owner->memory, own_cells.storage) : llm_attn_cells();
    if (!of.known()) {
        return nullptr;
    }
    llm_graph_input_attn_emulation::cells cells = { of, n_kv };
    cells.positions                             = ggml_new_tensor_2d(ctx0, GGML_TYPE_I32, n_kv, n_stream);
    cells.own_positions                         = ggml_new_tensor_1d(ctx0, GGML_TYPE_I32, graph.n_tokens);
    for (ggml_tensor * input : { cells.positions, cells.own_positions }) {
        ggml_set_input(input);
        graph.cb(input, "attn_emulation_positions", -1);
    }
    get_inputs(graph).all_cells.push_back(cells);

    llm_attn_random_inputs inputs;
    inputs.visible       = mask;
    inputs.own_cells     = build_own_cells(graph, GGML_TYPE_I32, own_cells);
    inputs.own_positions = cells.own_positions;
    inputs.positions     = cells.positions;

    ggml_tensor * random = llm_build_random_pattern(ctx0, recorded, after, inputs, *owner);
    graph.cb(random, "attn_emulation_random", -1);
    // other backends, and servers, have no such op, and some of them would not say so
    ggml_backend_sched_set_tensor_backend(graph.sched, random, graph.backend_cpu);
    ggml_build_forward_expand(graph.gf, random);

    pattern_size += ggml_nbytes(random);
    return random;
}

ggml_tensor * llm_attn_emulation::build_gain(const llm_graph_context & graph, int64_t n_head, int il) {
    const int64_t first = graph.n_tokens + il * int64_t(owner->values.n_head);

    return ggml_view_1d(graph.ctx0, on_device(graph, get_inputs(graph).values, il), n_head, first * sizeof(float));
}

ggml_tensor * llm_attn_emulation::build_strength(const llm_graph_context & graph, int il) {
    return ggml_view_1d(graph.ctx0, on_device(graph, get_inputs(graph).values, il), graph.n_tokens, 0);
}

// [1, n_head, n_q, n_stream]
ggml_tensor * llm_attn_emulation::build_factor(
    const llm_graph_context & graph, int64_t n_q, int64_t n_head, int64_t n_stream, int il) {
    ggml_context * ctx0 = graph.ctx0;

    ggml_tensor * gain     = ggml_reshape_4d(ctx0, build_gain(graph, n_head, il), 1, n_head, 1, 1);
    ggml_tensor * strength = ggml_reshape_4d(ctx0, build_strength(graph, il), 1, 1, n_q, n_stream);

    return ggml_mul(ctx0, ggml_repeat_4d(ctx0, gain, 1, n_head, n_q, n_stream), strength);
}

// As many equal values side by side as the weights' operations take at once: CPUs go through a row in steps of what it is
// multiplied by, and with a single value that takes longer than the softmax. It must divide the rows' length.
static int64_t dense_factor_width(int64_t n_kv) {
    int64_t width = 1;
    while (width < 32 && n_kv % (2 * width) == 0) {
        width *= 2;
    }
    return width;
}

// [width, 1, n_q, n_head*n_stream]
ggml_tensor * llm_attn_emulation::build_dense_factor(const llm_graph_context & graph, ggml_tensor * kq, int il) {
    ggml_context * ctx0 = graph.ctx0;

    const int64_t width    = dense_factor_width(kq->ne[0]);
    const int64_t n_q      = kq->ne[1];
    const int64_t n_head   = kq->ne[2];
    const int64_t n_stream = kq->ne[3];

    ggml_tensor * gain     = ggml_reshape_4d(ctx0, build_gain(graph, n_head, il), 1, 1, n_head, 1);
    ggml_tensor * strength = ggml_reshape_4d(ctx0, build_strength(graph, il), 1, n_q, 1, n_stream);

    strength = ggml_repeat_4d(ctx0, strength, width, n_q, 1, n_stream);
    gain     = ggml_repeat_4d(ctx0, gain, width, 1, n_head, 1);
    gain     = ggml_repeat_4d(ctx0, gain, width, n_q, n_head, n_stream);

    return ggml_reshape_4d(ctx0, ggml_mul(ctx0, gain, strength), width, 1, n_q, n_head * n_stream);
}

// weights: [n_kv, n_q, n_head, n_stream]
static ggml_tensor * multiply_rows(ggml_context * ctx0, ggml_tensor * weights, ggml_tensor * factor) {
    const auto &  ne  = weights->ne;
    ggml_tensor * res = ggml_reshape_4d(ctx0, weights, factor->ne[0], ne[0] / factor->ne[0], ne[1], ne[2] * ne[3]);
    return ggml_reshape_4d(ctx0, ggml_mul(ctx0, res, factor), ne[0], ne[1], ne[2], ne[3]);
}

ggml_tensor * llm_attn_emulation::build_own_cells(
    const llm_graph_context & graph, ggml_type type, const llm_attn_own_cells & own_cells) {
    ggml_tensor * cells = ggml_new_tensor_1d(graph.ctx0, type, graph.n_tokens);
    ggml_set_input(cells);
    graph.cb(cells, "attn_emulation_own_cells", -1);

    get_inputs(graph).own.push_back({ cells, own_cells.k_idxs, own_cells.kv_size });

    return cells;
}

void llm_attn_emulation::check_refusal(const ggml_tensor * fa, int il) {
    ggml_backend_dev_t device = owner->devices[il];

    owner->refused = owner->refused || (device && ggml_attn_emulation_refused(device, fa));
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

    if (!find(own_cells)) {
        pattern next = { own_cells.k_idxs, n_head, n_kv };

        if (topology.pattern == LLAMA_ATTN_EMULATION_PATTERN_FIRST_TOKEN) {
            build_first_token(graph, next, own_cells, n_q, n_stream, false);
            pattern_size += next.cells ? ggml_nbytes(next.cells) : 0;
        } else if (topology.pattern != LLAMA_ATTN_EMULATION_PATTERN_ALL) {
            next.cells = ggml_attn_pattern_new(ctx0, topology.threshold, n_kv, n_q, n_head, n_stream);
            // the scheduler puts it where its first user runs, which writes it, and copies it for layers on other devices
            graph.cb(next.cells, "attn_emulation_pattern", il);

            ggml_flash_attn_ext_record_pattern(
                fa, next.cells, build_own_cells(graph, GGML_TYPE_I32, own_cells), topology.threshold);
            check_refusal(fa, il);
            pattern_size += ggml_nbytes(next.cells);

            if (topology.pattern == LLAMA_ATTN_EMULATION_PATTERN_RANDOM) {
                next.cells = build_random(graph, next.cells, fa, fa->src[3], own_cells, n_kv);
                next.known = next.cells != nullptr;
            }
        }

        patterns.push_back(next);
        report[il].reason = reason_source;
        return fa;
    }
    const pattern * source = find_for_layer(own_cells, n_head, n_kv, il);
    if (!source) {
        return fa;
    }
    report[il] = { true, true, nullptr };

    if (topology.pattern == LLAMA_ATTN_EMULATION_PATTERN_ALL) {
        ggml_tensor * factor = ggml_scale_bias(ctx0, build_factor(graph, n_q, n_head, n_stream, il), 1.0f, 1.0f);
        if (topology.normalize) {
            // equally scaled weights that sum to 1 again are the plain ones, but for a row that is turned off altogether
            factor = ggml_step(ctx0, factor);
        }
        return ggml_mul(ctx0, fa, factor);
    }

    ggml_flash_attn_ext_boost_pattern(
        fa, source->cells, build_strength(graph, il), build_gain(graph, n_head, il), topology.normalize);
    check_refusal(fa, il);

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

    if (!find(own_cells)) {
        pattern next = { own_cells.k_idxs, n_head, n_kv };

        if (topology.pattern == LLAMA_ATTN_EMULATION_PATTERN_FIRST_TOKEN) {
            build_first_token(graph, next, own_cells, n_q, n_stream, true);
            pattern_size += next.mask ? ggml_nbytes(next.mask) : 0;
        } else if (topology.pattern != LLAMA_ATTN_EMULATION_PATTERN_ALL) {
            ggml_tensor * others =
                build_others(graph, build_own_cells(graph, GGML_TYPE_F32, own_cells), n_kv, n_q, n_stream);

            next.mask = ggml_step(ctx0, ggml_scale_bias(ctx0, kq, 1.0f, -topology.threshold));
            next.mask = ggml_mul(ctx0, next.mask, others);
            graph.cb(next.mask, "attn_emulation_mask", il);

            // now, so that the weights need not be kept for it
            ggml_build_forward_expand(graph.gf, next.mask);

            pattern_size += ggml_nbytes(next.mask);

            if (topology.pattern == LLAMA_ATTN_EMULATION_PATTERN_RANDOM) {
                next.mask  = build_random(graph, next.mask, next.mask, kq->src[1], own_cells, n_kv);
                next.known = next.mask != nullptr;
            }
        }

        patterns.push_back(next);
        report[il].reason = reason_source;
        return kq;
    }
    const pattern * source = find_for_layer(own_cells, n_head, n_kv, il);
    if (!source) {
        return kq;
    }
    report[il] = { true, false, nullptr };

    ggml_tensor * plain_sum = nullptr;
    if (topology.normalize) {
        plain_sum = ggml_sum_rows(ctx0, kq);
        // now, so that the weights need not be kept for it
        ggml_build_forward_expand(graph.gf, plain_sum);
    }

    ggml_tensor * factor = build_dense_factor(graph, kq, il);
    ggml_tensor * res;
    if (source->mask) {
        res = ggml_add(ctx0, kq, multiply_rows(ctx0, ggml_mul(ctx0, kq, source->mask), factor));
    } else {
        res = multiply_rows(ctx0, kq, ggml_scale_bias(ctx0, factor, 1.0f, 1.0f));
    }
    if (topology.normalize) {
        // Plain weights sum to 1 but for rounding. What rows are divided by must be 1 to the last bit where nothing has changed.
        ggml_tensor * sum = ggml_sum_rows(ctx0, res);
        if (kq->src[2]) {
            // a sink stays part of the row
            sum = ggml_scale_bias(ctx0, ggml_sub(ctx0, sum, plain_sum), 1.0f, 1.0f);
        } else {
            sum = ggml_div(ctx0, sum, plain_sum);
        }
        // a row that is turned off altogether stays so
        res = ggml_div(ctx0, res, ggml_clamp(ctx0, sum, 1e-30f, INFINITY));
    }
    graph.cb(res, "attn_emulation_weights", il);

    return res;
}
