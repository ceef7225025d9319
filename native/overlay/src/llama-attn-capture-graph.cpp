#include "llama-attn-capture-graph.h"

#include "llama-attn-capture-state.h"
#include "llama-attn-emulation-memory.h"
#include "llama-attn-emulation-settings.h"
#include "llama-graph.h"
#include "llama-kv-cache.h"
#include "llama-model.h"

#include "ggml-attn-emulation.h"
#include "ggml-backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <new>
#include <stdexcept>

// inputs of the operation of a layer's attention
enum {
    ARG_Q       = 0, // or the weights themselves, [n_kv, n_q, n_head, n_stream]
    ARG_K       = 1,
    ARG_MASK    = 2,
    ARG_SINKS   = 3,
    ARG_PATTERN = 4, // of emulation
    ARG_SOURCE  = 5, // the operation of the source layer, so that it comes first
    N_ARGS      = 6,
};

static const int64_t tile_rows = 32;
static const int64_t k_block   = 64;
static const int64_t lens_rows = 64;

static const uint8_t no_class = LLAMA_ATTN_CAPTURE_CLASSES;

// The cells that some layers share
struct capture_cells {
    ggml_tensor *          k_idxs  = nullptr; // as llm_attn_own_cells
    int64_t                kv_size = 0;
    const llama_kv_cache * cache   = nullptr; // null: a key is at its token's index
    int64_t                n_kv    = 0;

    int32_t source_layer = -1;
    int64_t n_head       = 0; // of the source layer

    // of the running ubatch
    std::vector<int32_t> pos;        // [n_kv], -1 where a cell is not of the sequence
    std::vector<uint8_t> classes;    // [n_kv]
    int32_t              first = -1; // cell of the first token
    std::vector<int32_t> own;        // of each captured row

    std::vector<std::vector<std::vector<int32_t>>> patterns; // [head][row] cells, written by the source layer
};

// A custom operation's parameters, which live as long as its graph
struct capture_op {
    llm_graph_input_attn_capture * inputs = nullptr;

    int             il        = -1;
    int             layer     = -1; // among the captured ones
    capture_cells * cells     = nullptr;
    bool            is_source = false;
    bool            dense     = false;
    bool            alibi     = false;
    bool            all_keys  = false; // emulation scales all weights
    bool            normalize = false; // emulation's rows sum to 1 again
    float           scale     = 1.0f;
    float           max_bias  = 0.0f;
    float           softcap   = 0.0f;
    int64_t         n_head    = 0;
    int64_t         n_tokens  = 0;
    int64_t         n_stream  = 1;
    int64_t         first_row = 0; // lens: of its rows, and whether these are those with output
    bool            outputs   = false;
};

class llm_graph_input_attn_capture : public llm_graph_input_i {
  public:
    llm_graph_input_attn_capture(llama_attn_capture::handle state) : state(std::move(state)) {}

    void set_input(const llama_ubatch * ubatch) override;
    void prepare(const llama_ubatch & ubatch);

    // the rest is checked by llm_graph_params::allow_reuse
    bool can_reuse(const llm_graph_params & params) override {
        return count_rows(params.ubatch, false) == n_lens && count_rows(params.ubatch, true) == n_lens_outputs;
    }

    int64_t count_rows(const llama_ubatch & ubatch, bool only_outputs) const;

    capture_op & new_op(const llm_graph_context & graph, int layer, int il) {
        auto & op   = ops.emplace_back();
        op.inputs   = this;
        op.il       = il;
        op.layer    = layer;
        op.n_tokens = graph.n_tokens;
        return op;
    }

    const llama_attn_capture::handle state;

    std::deque<capture_cells> cells;
    std::deque<capture_op>    ops;

    // which rows the lens is applied to, I32: among all tokens, among those with output
    ggml_tensor * lens         = nullptr;
    ggml_tensor * lens_outputs = nullptr;

    int64_t n_lens         = 0;
    int64_t n_lens_outputs = 0;
};

int64_t llm_graph_input_attn_capture::count_rows(const llama_ubatch & ubatch, bool only_outputs) const {
    const auto & options = state->recording.options;
    if (options.lens_k == 0) {
        return 0;
    }
    int64_t n = 0;
    for (uint32_t i = 0; i < ubatch.n_tokens; ++i) {
        n += ubatch.seq_id[i][0] == options.seq_id && state->is_kept(ubatch.pos[i]) &&
            (!only_outputs || ubatch.output[i]);
    }
    return n;
}

static void set_cells(capture_cells & cells, const llama_attn_capture_state & state, const llama_ubatch & ubatch) {
    const auto & recording = state.recording;
    const auto   seq_id    = recording.options.seq_id;

    cells.pos.assign(cells.n_kv, -1);
    cells.classes.assign(cells.n_kv, no_class);
    cells.own.clear();
    cells.first = -1;

    for (int64_t j = 0; j < cells.n_kv; ++j) {
        if (cells.cache) {
            const auto & kv = cells.cache->get_cells(seq_id);
            if (j < kv.size() && !kv.is_empty(j) && kv.seq_has(j, seq_id)) {
                cells.pos[j] = kv.pos_get(j);
            }
        } else if (j < ubatch.n_tokens && ubatch.seq_id[j][0] == seq_id) {
            cells.pos[j] = ubatch.pos[j];
        }

        const int32_t pos = cells.pos[j];
        if (pos < 0 || pos >= (int32_t) recording.tokens.size()) {
            cells.pos[j] = -1;
            continue;
        }
        const llama_token token = recording.tokens[pos];
        if (token >= 0 && token < (int32_t) recording.options.token_classes.size()) {
            cells.classes[j] = recording.options.token_classes[token];
        }
        if (pos == 0 && cells.first < 0) {
            cells.first = j;
        }
    }

    for (const auto & row : state.rows) {
        cells.own.push_back(
            cells.k_idxs ? ((const int64_t *) cells.k_idxs->data)[row.token] % cells.kv_size : row.token);
    }
    for (auto & head : cells.patterns) {
        head.assign(state.rows.size(), {});
    }
}

void llm_graph_input_attn_capture::set_input(const llama_ubatch * ubatch) {
    try {
        prepare(*ubatch);
    } catch (const std::bad_alloc &) {
        // what it says reaches whoever evaluates
        throw std::runtime_error(
            "There is not enough memory for what the context's capture keeps of this batch: choose fewer layers, heads "
            "or "
            "queries, or take rows away with onRows");
    }
}

void llm_graph_input_attn_capture::prepare(const llama_ubatch & ubatch) {
    state->begin(ubatch);

    for (auto & each : cells) {
        GGML_ASSERT(!each.k_idxs || each.k_idxs->data);
        set_cells(each, *state, ubatch);
    }

    std::vector<int32_t> indices;
    std::vector<int32_t> output_indices;
    for (const auto & row : state->rows) {
        if (row.kept < 0) {
            continue;
        }
        indices.push_back(row.token);
        if (state->output_index[row.token] >= 0) {
            output_indices.push_back(state->output_index[row.token]);
        }
    }
    // there are fewer where no more rows can be kept
    if (lens && lens->buffer) {
        indices.resize(lens->ne[0]);
        ggml_backend_tensor_set(lens, indices.data(), 0, ggml_nbytes(lens));
    }
    if (lens_outputs && lens_outputs->buffer) {
        output_indices.resize(lens_outputs->ne[0]);
        ggml_backend_tensor_set(lens_outputs, output_indices.data(), 0, ggml_nbytes(lens_outputs));
    }
}

//
// one head of a layer
//

// what the dense form rounds Q to before it meets K
static void round_q(float * q, int64_t n, ggml_type k_type) {
    ggml_type type = GGML_TYPE_Q8_0;
    if (!ggml_is_quantized(k_type)) {
        type = k_type;
    }
    if (type == GGML_TYPE_F32) {
        return;
    }
    const auto *         traits = ggml_get_type_traits(type);
    std::vector<uint8_t> rounded(ggml_row_size(type, n));
    traits->from_float_ref(q, rounded.data(), n);
    traits->to_float(rounded.data(), q, n);
}

static void read_k(const void * src, ggml_type type, float * dst, int64_t n) {
    if (type == GGML_TYPE_F32) {
        memcpy(dst, src, n * sizeof(float));
    } else if (type == GGML_TYPE_F16) {
        llama_attn_capture_from_f16((const uint16_t *) src, dst, n);
    } else {
        ggml_get_type_traits(type)->to_float(src, dst, n);
    }
}

static float alibi_slope(float max_bias, int64_t n_head, int64_t h) {
    if (max_bias <= 0.0f) {
        return 1.0f;
    }
    const int64_t n  = (int64_t) 1 << (int64_t) std::floor(std::log2((double) n_head));
    const float   m0 = std::pow(2.0f, -max_bias / n);
    const float   m1 = std::pow(2.0f, -max_bias / 2.0f / n);

    return h < n ? std::pow(m0, (float) (h + 1)) : std::pow(m1, (float) (2 * (h - n) + 1));
}

static float mask_value(const char * mask, bool is_f16, int64_t j) {
    return is_f16 ? ggml_fp16_to_fp32(((const ggml_fp16_t *) mask)[j]) : ((const float *) mask)[j];
}

// One head's rows of a ubatch, a tile at a time
class head_capture {
  public:
    head_capture(const ggml_tensor * dst, const capture_op & op, size_t head, llama_attn_capture_scratch & scratch) :
        op(op),
        state(*op.inputs->state),
        options(state.recording.options),
        cells(*op.cells),
        head(head),
        h(options.heads[head]),
        q(dst->src[ARG_Q]),
        k(dst->src[ARG_K]),
        mask(dst->src[ARG_MASK]),
        sinks(dst->src[ARG_SINKS]),
        pattern(dst->src[ARG_PATTERN]),
        scratch(scratch) {
        n_kv        = op.dense ? q->ne[0] : k->ne[1];
        mask_is_f16 = mask && mask->type == GGML_TYPE_F16;
        slope       = alibi_slope(op.max_bias, op.n_head, h);

        if (op.layer >= 0) {
            layer = &state.recording.layers[op.layer];
            sums  = &layer->heads[head];
        }
        const auto & emulation = state.emulation.values;
        if (op.all_keys || pattern) {
            factor = 1.0f + state.strength * emulation.gain[(size_t) op.il * emulation.n_head + h];
        }
    }

    void run() {
        for (size_t begin = 0; begin < state.rows.size(); begin += tile_rows) {
            run_tile(begin, std::min(begin + tile_rows, state.rows.size()));
        }
    }

  private:
    const capture_op &                 op;
    llama_attn_capture_state &         state;
    const llama_attn_capture_options & options;
    capture_cells &                    cells;
    const size_t                       head; // among the captured ones
    const int64_t                      h;
    const ggml_tensor *                q;
    const ggml_tensor *                k;
    const ggml_tensor *                mask;
    const ggml_tensor *                sinks;
    const ggml_tensor *                pattern;
    llama_attn_capture_scratch &       scratch;

    llama_attn_capture_layer * layer = nullptr; // null: only the pattern is wanted
    llama_attn_capture_head *  sums  = nullptr;

    int64_t n_kv        = 0;
    bool    mask_is_f16 = false;
    float   slope       = 1.0f;
    float   factor      = 1.0f; // of emulation

    int64_t stream_of(const llama_attn_capture_state::row & row) const {
        return row.token / (op.n_tokens / op.n_stream);
    }

    int64_t row_of(const llama_attn_capture_state::row & row) const { return row.token % (op.n_tokens / op.n_stream); }

    const char * mask_row(const llama_attn_capture_state::row & row) const {
        return mask ? (const char *) mask->data + row_of(row) * mask->nb[1] + (h % mask->ne[2]) * mask->nb[2] +
                (stream_of(row) % mask->ne[3]) * mask->nb[3] :
                      nullptr;
    }

    void run_tile(size_t begin, size_t end) {
        const size_t n = end - begin;

        int32_t lo = n_kv;
        int32_t hi = 0;
        scratch.runs.resize(tile_rows);
        for (size_t i = 0; i < n; ++i) {
            auto & runs = scratch.runs[i];
            llama_attn_capture_find_runs(mask_row(state.rows[begin + i]), mask_is_f16, n_kv, runs);
            if (!runs.empty()) {
                lo = std::min(lo, runs.front().first);
                hi = std::max(hi, runs.back().second);
            }
        }
        if (lo >= hi) {
            return;
        }

        scratch.scores.resize(tile_rows * n_kv);
        scratch.sum.resize(n_kv);
        scratch.above.resize(n_kv);
        std::fill(scratch.sum.begin() + lo, scratch.sum.begin() + hi, 0.0f);
        std::fill(scratch.above.begin() + lo, scratch.above.begin() + hi, 0);

        if (!op.dense) {
            compute_scores(begin, n, lo, hi);
        }
        for (size_t i = 0; i < n; ++i) {
            if (!scratch.runs[i].empty()) {
                reduce_row(begin + i, scratch.runs[i], scratch.scores.data() + i * n_kv);
            }
        }
        if (sums) {
            add_tile(begin, n, lo, hi);
        }
    }

    void compute_scores(size_t begin, size_t n, int32_t lo, int32_t hi) {
        const int64_t n_embd = k->ne[0];
        const int64_t h_kv   = h / (op.n_head / k->ne[2]);

        scratch.q.resize(tile_rows * n_embd);
        scratch.k.resize(k_block * n_embd);
        for (size_t i = 0; i < n; ++i) {
            const auto & row = state.rows[begin + i];
            float *      dst = scratch.q.data() + i * n_embd;
            const char * from =
                (const char *) q->data + row_of(row) * q->nb[1] + h * q->nb[2] + stream_of(row) * q->nb[3];
            memcpy(dst, from, n_embd * sizeof(float));
            round_q(dst, n_embd, k->type);
            for (int64_t d = 0; d < n_embd; ++d) {
                dst[d] *= op.scale;
            }
        }

        const char * keys = (const char *) k->data + h_kv * k->nb[2] + stream_of(state.rows[begin]) * k->nb[3];
        for (int64_t j = lo; j < hi; j += k_block) {
            const int64_t n_k = std::min<int64_t>(k_block, hi - j);

            // rows that see none of these: a causal mask has many
            size_t first = 0;
            while (first < n && !sees(scratch.runs[first], j, j + n_k)) {
                ++first;
            }
            if (first == n) {
                continue;
            }
            for (int64_t l = 0; l < n_k; ++l) {
                read_k(keys + (j + l) * k->nb[1], k->type, scratch.k.data() + l * n_embd, n_embd);
            }
            llama_attn_capture_dot(scratch.q.data() + first * n_embd, n - first, scratch.k.data(), n_k, n_embd,
                scratch.scores.data() + first * n_kv + j, n_kv);
        }
    }

    static bool sees(const llama_attn_capture_runs & runs, int32_t begin, int32_t end) {
        const auto run = std::upper_bound(
            runs.begin(), runs.end(), begin, [](int32_t cell, const auto & run) { return cell < run.second; });
        return run != runs.end() && run->first < end;
    }

    // scores become exp(score - max); returned are their sum, the sum of each times (score - max), and the row's whole sum
    struct row_sum {
        double sum      = 0.0;
        double weighted = 0.0;
        double whole    = 0.0;
    };

    row_sum softmax(const llama_attn_capture_state::row & row, const llama_attn_capture_runs & runs, float * scores) {
        const char * mask_data = mask_row(row);

        float max = -INFINITY;
        for (const auto & [begin, end] : runs) {
            if (op.softcap != 0.0f) {
                for (int32_t j = begin; j < end; ++j) {
                    scores[j] = op.softcap * std::tanh(scores[j]);
                }
            }
            if (op.alibi && mask_data) {
                for (int32_t j = begin; j < end; ++j) {
                    scores[j] += slope * mask_value(mask_data, mask_is_f16, j);
                }
            }
            max = std::max(max, llama_attn_capture_max(scores + begin, end - begin));
        }
        const float sink = sinks ? ((const float *) sinks->data)[h] : -INFINITY;
        max              = std::max(max, sink);

        row_sum res;
        for (const auto & [begin, end] : runs) {
            const auto [sum, weighted] = llama_attn_capture_exp(scores + begin, end - begin, max);
            res.sum += sum;
            res.weighted += weighted;
        }
        res.whole = res.sum + std::exp((double) sink - max);
        return res;
    }

    row_sum read_weights(
        const llama_attn_capture_state::row & row, const llama_attn_capture_runs & runs, float * scores) {
        const float * from = (const float *) ((const char *) q->data + row_of(row) * q->nb[1] + h * q->nb[2] +
            stream_of(row) * q->nb[3]);

        row_sum res;
        res.whole = 1.0;
        for (const auto & [begin, end] : runs) {
            for (int32_t j = begin; j < end; ++j) {
                scores[j] = from[j];
                res.sum += from[j];
                res.weighted += from[j] > 0.0f ? (double) from[j] * std::log(from[j]) : 0.0;
            }
        }
        return res;
    }

    // emulation's pattern; what comes back is what all weights are multiplied by
    double emulate(const llama_attn_capture_state::row & row, const llama_attn_capture_runs & runs, row_sum & sum,
        float * scores) const {
        if (op.all_keys) {
            return op.normalize ? (factor > 0.0f ? 1.0 : 0.0) : factor;
        }
        if (!pattern) {
            return 1.0;
        }
        const int32_t * list = (const int32_t *) ((const char *) pattern->data + row_of(row) * pattern->nb[1] +
            h * pattern->nb[2] + stream_of(row) * pattern->nb[3]);

        double added = 0.0;
        for (int32_t l = 1; l <= list[0]; ++l) {
            // a list may be of layers that see more
            if (!sees(runs, list[l], list[l] + 1)) {
                continue;
            }
            float &      score = scores[list[l]];
            const double old   = score;
            const double log   = std::log(std::max(old, 1e-38));
            score *= factor;
            added += score - old;
            sum.weighted += (score > 0.0f ? score * (log + std::log(factor)) : 0.0) - old * log;
        }
        sum.sum += added;

        return op.normalize ? 1.0 / std::max(1.0 + added / sum.whole, 1e-30) : 1.0;
    }

    void reduce_row(size_t index, const llama_attn_capture_runs & runs, float * scores) {
        const auto & row = state.rows[index];

        row_sum      sum    = op.dense ? read_weights(row, runs, scores) : softmax(row, runs, scores);
        const double common = op.dense ? 1.0 : emulate(row, runs, sum, scores);
        const float  weight = common / sum.whole; // of a score of 1

        // the own key counts for classes of tokens only
        const int32_t own        = cells.own[index];
        const bool    sees_own   = sees(runs, own, own + 1);
        const float   own_weight = sees_own ? scores[own] * weight : 0.0f;
        if (sees_own) {
            scores[own] = 0.0f;
        }
        for (const auto & [begin, end] : runs) {
            llama_attn_capture_add(scores + begin, end - begin, weight, options.threshold, scratch.sum.data() + begin,
                scratch.above.data() + begin);
        }

        if (op.is_source) {
            auto & list = cells.patterns[head][index];
            for (const auto & [begin, end] : runs) {
                for (int32_t j = begin; j < end; ++j) {
                    if (scores[j] > options.threshold) {
                        list.push_back(j);
                    }
                }
            }
        }
        if (!sums) {
            return;
        }
        if (has_patterns()) {
            for (const int32_t j : cells.patterns[head][index]) {
                sums->agreement += sees(runs, j, j + 1) ? scores[j] : 0.0f;
            }
        }
        if (common != 0.0 && !(sum.sum <= 0.0)) { // NAN stays NAN
            sums->entropy += std::log(sum.sum) - sum.weighted / sum.sum;
        }
        if (sees_own) {
            scores[own] = own_weight;
            if (cells.classes[own] != no_class) {
                sums->classes[cells.classes[own]] += own_weight;
            }
            if (own == cells.first) {
                sums->first += own_weight;
            }
        }
        if (row.kept >= 0) {
            keep(row.kept, runs, scores);
        }
    }

    bool has_patterns() const {
        return cells.source_layer >= 0 && cells.source_layer <= op.il && cells.n_head == op.n_head;
    }

    void keep(int32_t kept, const llama_attn_capture_runs & runs, const float * scores) {
        auto &       rows  = *state.kept;
        const size_t index = (op.layer * options.heads.size() + head) * rows.positions.size() + kept;

        if (options.weights) {
            float * dst = rows.weights.data() + index * rows.n_tokens;
            for (const auto & [begin, end] : runs) {
                for (int32_t j = begin; j < end; ++j) {
                    if (cells.pos[j] >= 0) {
                        dst[cells.pos[j]] = scores[j];
                    }
                }
            }
        }
        if (options.top_k == 0) {
            return;
        }

        // a heap whose first is the weakest
        auto & strongest = scratch.strongest;
        strongest.clear();
        const auto stronger = [](const auto & a, const auto & b) {
            return a.first > b.first || (a.first == b.first && a.second < b.second);
        };
        const size_t capacity = options.top_k;
        for (const auto & [begin, end] : runs) {
            for (int32_t block = begin; block < end; block += k_block) {
                const int32_t block_end = std::min<int32_t>(block + k_block, end);
                if (strongest.size() == capacity &&
                    llama_attn_capture_max(scores + block, block_end - block) <= strongest.front().first) {
                    continue;
                }
                for (int32_t j = block; j < block_end; ++j) {
                    const bool is_full = strongest.size() == capacity;
                    if ((is_full && scores[j] <= strongest.front().first) || cells.pos[j] < 0) {
                        continue;
                    }
                    if (is_full) {
                        std::pop_heap(strongest.begin(), strongest.end(), stronger);
                        strongest.pop_back();
                    }
                    strongest.push_back({ scores[j], cells.pos[j] });
                    std::push_heap(strongest.begin(), strongest.end(), stronger);
                }
            }
        }
        std::sort_heap(strongest.begin(), strongest.end(), stronger);
        for (size_t l = 0; l < strongest.size(); ++l) {
            rows.top_weights[index * options.top_k + l] = strongest[l].first;
            rows.top_keys[index * options.top_k + l]    = strongest[l].second;
        }
    }

    void add_tile(size_t begin, size_t n, int32_t lo, int32_t hi) {
        for (int32_t j = lo; j < hi; ++j) {
            const int32_t pos = cells.pos[j];
            if (pos < 0) {
                continue;
            }
            sums->received[pos] += scratch.sum[j];
            sums->received_by[pos] += scratch.above[j];
            sums->above += scratch.above[j];
            if (cells.classes[j] != no_class) {
                sums->classes[cells.classes[j]] += scratch.sum[j];
            }
        }
        if (cells.first >= lo && cells.first < hi) {
            sums->first += scratch.sum[cells.first];
        }

        if (head == 0) {
            for (size_t i = 0; i < n; ++i) {
                for (const auto & [run_begin, run_end] : scratch.runs[i]) {
                    for (int32_t j = run_begin; j < run_end; ++j) {
                        if (cells.pos[j] >= 0 && j != cells.own[begin + i]) {
                            ++layer->seen_by[cells.pos[j]];
                        }
                    }
                }
            }
        }
    }
};

static void capture_attention(ggml_tensor * dst, int ith, int nth, void * userdata) {
    const auto & op    = *(const capture_op *) userdata;
    auto &       state = *op.inputs->state;

    const auto & heads = state.recording.options.heads;
    for (size_t head = ith; head < heads.size(); head += nth) {
        if (heads[head] < op.n_head) {
            head_capture(dst, op, head, state.scratch[ith]).run();
        }
    }
    if (ith == 0 && op.layer >= 0) {
        auto & layer = state.recording.layers[op.layer];
        layer.n_rows += state.rows.size();
        if (op.cells->source_layer >= 0 && op.cells->source_layer <= op.il && op.cells->n_head == op.n_head) {
            layer.n_patterns += state.rows.size();
        }
    }
}

//
// the residual stream
//

static void capture_hidden_states(ggml_tensor * dst, int ith, int nth, void * userdata) {
    GGML_UNUSED(nth);
    const auto & op    = *(const capture_op *) userdata;
    auto &       state = *op.inputs->state;
    if (ith != 0 || !state.kept) {
        return;
    }

    const ggml_tensor * src        = dst->src[0];
    const bool          is_outputs = src->ne[1] != op.n_tokens;
    const size_t        width      = src->ne[0];
    for (const auto & row : state.rows) {
        const int32_t from = is_outputs ? state.output_index[row.token] : row.token;
        if (row.kept >= 0 && from >= 0) {
            memcpy(state.kept->hidden_states.data() + (op.layer * state.kept->positions.size() + row.kept) * width,
                (const char *) src->data + from * src->nb[1], width * sizeof(float));
        }
    }
}

// the most probable tokens of some rows of logits
static void capture_lens(ggml_tensor * dst, int ith, int nth, void * userdata) {
    const auto & op    = *(const capture_op *) userdata;
    auto &       state = *op.inputs->state;
    if (!state.kept) {
        return;
    }

    const ggml_tensor * logits  = dst->src[0];
    const int64_t       n_vocab = logits->ne[0];
    const int32_t       n_top   = state.recording.options.lens_k;

    // the rows that the lens has, in order
    std::vector<int32_t> kept;
    for (const auto & row : state.rows) {
        if (row.kept >= 0 && (!op.outputs || state.output_index[row.token] >= 0)) {
            kept.push_back(row.kept);
        }
    }

    std::vector<int32_t> order(n_vocab);
    for (int64_t i = ith; i < logits->ne[1]; i += nth) {
        const float * row = (const float *) ((const char *) logits->data + i * logits->nb[1]);
        const float   max = *std::max_element(row, row + n_vocab);

        double sum = 0.0;
        for (int64_t v = 0; v < n_vocab; ++v) {
            order[v] = v;
            sum += std::exp((double) row[v] - max);
        }
        if (std::isnan(sum)) {
            continue; // NANs have no order
        }
        const int32_t n = std::min<int64_t>(n_top, n_vocab);
        std::partial_sort(order.begin(), order.begin() + n, order.end(),
            [&](int32_t a, int32_t b) { return row[a] > row[b] || (row[a] == row[b] && a < b); });

        const size_t index = (op.layer * state.kept->positions.size() + kept[op.first_row + i]) * (size_t) n_top;
        for (int32_t l = 0; l < n; ++l) {
            state.kept->lens_tokens[index + l]   = order[l];
            state.kept->lens_logprobs[index + l] = row[order[l]] - max - std::log(sum);
        }
    }
}

// what an architecture multiplies its logits by
static float lens_scale(llm_arch arch, const llama_hparams & hparams) {
    if (hparams.f_logit_scale == 0.0f) {
        return 1.0f;
    }
    switch (arch) {
        case LLM_ARCH_GRANITE:
        case LLM_ARCH_GRANITE_MOE:
        case LLM_ARCH_GRANITE_HYBRID:
        case LLM_ARCH_MINICPM:
            return 1.0f / hparams.f_logit_scale;
        default:
            return hparams.f_logit_scale;
    }
}

// what an architecture calls what a layer leaves in the residual stream
static const char * stream_name(llm_arch arch) {
    switch (arch) {
        case LLM_ARCH_NEMOTRON_H:
        case LLM_ARCH_NEMOTRON_H_MOE:
            return "nemotron_h_block_out";
        case LLM_ARCH_KIMI_K3:
            return ""; // the last norm sees a mixture of layers
        default:
            return "l_out";
    }
}

static bool has_logit_softcap(llm_arch arch) {
    switch (arch) {
        case LLM_ARCH_GROK:
        case LLM_ARCH_GEMMA2:
        case LLM_ARCH_GEMMA3:
        case LLM_ARCH_GEMMA3N:
        case LLM_ARCH_GEMMA4:
        case LLM_ARCH_MUSE_GLIMMER:
            return true;
        default:
            return false;
    }
}

//
// the graph
//

llm_attn_capture::llm_attn_capture(const llm_graph_context & graph) {
    // of an encoder-decoder only the decoder, as with emulation
    if (graph.cparams.attn_capture && (graph.mctx || graph.hparams.dec_n_layer == 0)) {
        state = graph.cparams.attn_capture.get();
    }
}

llm_graph_input_attn_capture & llm_attn_capture::get_inputs(const llm_graph_context & graph) {
    if (!inputs) {
        inputs = (llm_graph_input_attn_capture *) graph.res->add_input(
            std::make_unique<llm_graph_input_attn_capture>(graph.cparams.attn_capture));
    }
    return *inputs;
}

// runs on the CPU, whatever device its inputs are on
static ggml_tensor * add_op(const llm_graph_context & graph, ggml_tensor ** args, int n_args, ggml_custom_op_t function,
    int n_tasks, capture_op & op, const char * name) {
    ggml_tensor * node = ggml_custom_4d(graph.ctx0, GGML_TYPE_F32, 1, 1, 1, 1, args, n_args, function, n_tasks, &op);
    graph.cb(node, name, op.il);
    ggml_backend_sched_set_tensor_backend(graph.sched, node, graph.backend_cpu);
    ggml_build_forward_expand(graph.gf, node);

    return node;
}

// null where there is nothing to do
capture_op * llm_attn_capture::add_attention(const llm_graph_context & graph, int64_t n_kv, int64_t n_head,
    int64_t n_stream, const llm_attn_own_cells & own_cells, int il) {
    if (!state || !own_cells.known || il < 0 || il >= (int) state->layer_index.size()) {
        return nullptr;
    }

    auto & in    = get_inputs(graph);
    auto   cells = std::find_if(in.cells.begin(), in.cells.end(),
          [&](const auto & each) { return each.k_idxs == own_cells.k_idxs && each.n_kv == n_kv; });
    if (cells == in.cells.end()) {
        capture_cells next;
        next.k_idxs  = own_cells.k_idxs;
        next.kv_size = own_cells.kv_size;
        next.n_kv    = n_kv;
        next.cache = next.k_idxs ? llama_attn_find_cache(llama_attn_caches(state->memory), own_cells.storage) : nullptr;
        if (next.k_idxs && !next.cache) {
            return nullptr;
        }
        cells = in.cells.insert(in.cells.end(), std::move(next));
    }

    const int  layer     = state->layer_index[il];
    const bool is_source = il >= state->recording.options.source_layer && cells->source_layer < 0;
    if (is_source) {
        cells->source_layer = il;
        cells->n_head       = n_head;
        cells->patterns.resize(state->recording.options.heads.size());
    } else if (layer < 0) {
        return nullptr;
    }
    if (layer >= 0) {
        state->recording.layers[layer].seen   = true;
        state->recording.layers[layer].n_head = n_head;
    }

    auto & op    = in.new_op(graph, layer, il);
    op.cells     = &*cells;
    op.is_source = is_source;
    op.n_head    = n_head;
    op.n_stream  = n_stream;

    return &op;
}

void llm_attn_capture::finish(const llm_graph_context & graph, ggml_tensor ** args, capture_op & op) {
    args[ARG_SOURCE]   = source;
    ggml_tensor * node = add_op(graph, args, N_ARGS, capture_attention, GGML_N_TASKS_MAX, op, "attn_capture");
    if (op.is_source) {
        source = node;
    }
}

void llm_attn_capture::fused(
    const llm_graph_context & graph, ggml_tensor * fa, const llm_attn_own_cells & own_cells, int il) {
    // emulation scales the result as a whole where all keys count
    const bool all_keys = fa->op != GGML_OP_FLASH_ATTN_EXT;
    if (all_keys) {
        fa = fa->src[0];
    }
    const ggml_tensor * q = fa->src[0];
    ggml_tensor *       k = fa->src[1];

    capture_op * op = add_attention(graph, k->ne[1], q->ne[2], q->ne[3], own_cells, il);
    if (!op) {
        return;
    }
    float params[3]; // of flash attention
    memcpy(params, fa->op_params, sizeof(params));
    op->softcap   = params[2];
    op->scale     = op->softcap == 0.0f ? params[0] : params[0] / op->softcap;
    op->max_bias  = params[1];
    op->alibi     = graph.hparams.use_alibi;
    op->all_keys  = all_keys;
    op->normalize = graph.cparams.attn_emulation.enabled && graph.cparams.attn_emulation.normalize;

    // writes the pattern of emulation
    ggml_build_forward_expand(graph.gf, fa);

    const bool    boosted      = ggml_flash_attn_ext_get_emulation(fa) == GGML_ATTN_EMULATION_BOOST;
    ggml_tensor * args[N_ARGS] = { fa->src[0], k, fa->src[3], fa->src[4], boosted ? fa->src[5] : nullptr, nullptr };
    finish(graph, args, *op);
}

void llm_attn_capture::dense(const llm_graph_context & graph, ggml_tensor * kq, const dense_inputs & from,
    const llm_attn_own_cells & own_cells, int il) {
    capture_op * op = add_attention(graph, kq->ne[0], kq->ne[2], kq->ne[3], own_cells, il);
    if (!op) {
        return;
    }
    if (state->recording.options.from_keys && !from.kq_b && graph.arch != LLM_ARCH_GROK) {
        const float softcap = graph.hparams.attn_soft_cap ? graph.hparams.f_attn_logit_softcapping : 0.0f;

        op->softcap  = softcap;
        op->scale    = softcap == 0.0f ? from.kq_scale : from.kq_scale / softcap;
        op->max_bias = graph.hparams.f_max_alibi_bias;
        op->alibi    = graph.hparams.use_alibi;

        ggml_tensor * args[N_ARGS] = { from.q, from.k, from.kq_mask, from.sinks, nullptr, nullptr };
        finish(graph, args, *op);
    } else {
        op->dense                  = true;
        ggml_tensor * args[N_ARGS] = { kq, nullptr, from.kq_mask, nullptr, nullptr, nullptr };
        finish(graph, args, *op);
    }
}

void llm_attn_capture::named(const llm_graph_context & graph, ggml_tensor * cur, const char * name, int il) {
    if (!state || il < 0 || il >= (int) state->layer_index.size() || strcmp(name, stream_name(graph.arch)) != 0) {
        return;
    }
    const auto & options = state->recording.options;
    const int    layer   = state->layer_index[il];
    if (layer < 0 || (!options.hidden_states && options.lens_k == 0) || cur->type != GGML_TYPE_F32 ||
        cur->ne[0] != graph.n_embd || cur->ne[2] != 1 || cur->ne[3] != 1 ||
        (cur->ne[1] != graph.n_tokens && cur->ne[1] != graph.n_outputs)) {
        return;
    }

    state->recording.layers[layer].has_states = true;

    if (options.hidden_states) {
        add_op(graph, &cur, 1, capture_hidden_states, 1, get_inputs(graph).new_op(graph, layer, il),
            "hidden_states_capture");
    }
    if (options.lens_k > 0) {
        add_lens(graph, cur, layer, il);
    }
}

// what the model would say if this layer was its last
void llm_attn_capture::add_lens(const llm_graph_context & graph, ggml_tensor * cur, int layer, int il) {
    const auto & model   = state->model;
    const auto & hparams = graph.hparams;
    auto *       ctx0    = graph.ctx0;
    auto &       in      = get_inputs(graph);

    if (!in.lens) {
        in.n_lens         = in.count_rows(graph.ubatch, false);
        in.n_lens_outputs = in.count_rows(graph.ubatch, true);
    }
    const bool    outputs = cur->ne[1] != graph.n_tokens;
    const int64_t n_rows  = outputs ? in.n_lens_outputs : in.n_lens;
    auto *&       indices = outputs ? in.lens_outputs : in.lens;
    if (n_rows == 0) {
        return;
    }
    if (!indices) {
        indices = ggml_new_tensor_1d(ctx0, GGML_TYPE_I32, n_rows);
        ggml_set_input(indices);
        graph.cb(indices, "lens_rows", -1);
    }

    cur                   = ggml_get_rows(ctx0, cur, indices);
    const bool layer_norm = hparams.f_norm_rms_eps == 0.0f && hparams.f_norm_eps > 0.0f;
    cur = graph.build_norm(cur, model.output_norm, model.output_norm_b, layer_norm ? LLM_NORM : LLM_NORM_RMS, il);

    for (int64_t first = 0; first < n_rows; first += lens_rows) {
        const int64_t n = std::min(lens_rows, n_rows - first);

        ggml_tensor * logits = ggml_view_2d(ctx0, cur, cur->ne[0], n, cur->nb[1], first * cur->nb[1]);
        logits = graph.build_lora_mm(model.output ? model.output : model.tok_embd, logits, model.output_s);
        // these leave their bias out, should they have one
        if (model.output_b && graph.arch != LLM_ARCH_QWEN2VL && graph.arch != LLM_ARCH_DREAM) {
            logits = ggml_add(ctx0, logits, model.output_b);
        }
        if (const float scale = lens_scale(graph.arch, hparams); scale != 1.0f) {
            logits = ggml_scale(ctx0, logits, scale);
        }
        if (const float cap = hparams.f_final_logit_softcapping; cap != 0.0f && has_logit_softcap(graph.arch)) {
            logits = ggml_scale(ctx0, ggml_tanh(ctx0, ggml_scale(ctx0, logits, 1.0f / cap)), cap);
        }

        auto & op    = in.new_op(graph, layer, il);
        op.first_row = first;
        op.outputs   = outputs;
        add_op(graph, &logits, 1, capture_lens, GGML_N_TASKS_MAX, op, "lens_capture");
    }
}

uint32_t llama_attn_capture_n_nodes(const llama_attn_capture::handle & capture, uint32_t n_tokens) {
    if (!capture) {
        return 0;
    }
    const uint32_t n_lens = capture->recording.options.lens_k > 0 ? 6 + 9 * (1 + n_tokens / lens_rows) : 0;
    return capture->layer_index.size() * (2 + n_lens) + 2;
}
