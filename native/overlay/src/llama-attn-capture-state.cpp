#include "llama-attn-capture-state.h"

#include "llama-attn-capture-settings.h"
#include "llama-attn-emulation-settings.h"
#include "llama-context.h"
#include "llama-model.h"

#include <algorithm>
#include <cmath>

//
// llama_attn_capture
//

void llama_attn_capture::set(handle next) {
    std::lock_guard<std::mutex> lock(mutex);

    if (pending) {
        ended.push_back(pending);
    }
    pending = std::move(next);
}

llama_attn_capture::handle llama_attn_capture::get() {
    std::lock_guard<std::mutex> lock(mutex);

    return pending;
}

bool llama_attn_capture::take(handle & running) {
    std::lock_guard<std::mutex> lock(mutex);

    const bool changed = running != pending;
    running            = pending;
    release_ended_locked();

    return changed;
}

void llama_attn_capture::release_ended() {
    std::lock_guard<std::mutex> lock(mutex);

    release_ended_locked();
}

void llama_attn_capture::release_ended_locked() {
    for (const auto & each : ended) {
        each->release();
    }
    ended.clear();
}

//
// llama_attn_capture_recording
//

double llama_attn_capture_recording::kept_bytes(size_t n_more, size_t n_tokens) const {
    const double per_head = 8.0 * options.top_k + (options.weights ? 4.0 * n_tokens : 0.0);
    const double per_layer =
        options.heads.size() * per_head + (options.hidden_states ? 4.0 * n_embd : 0.0) + 8.0 * options.lens_k;

    size_t n_rows = n_more;
    for (const auto & kept : rows) {
        n_rows += kept.positions.size();
    }
    return n_rows * options.layers.size() * per_layer;
}

void llama_attn_capture_recording::clear() {
    n_rows  = 0;
    is_full = false;
    rows.clear();
    for (auto & layer : layers) {
        layer.n_rows     = 0;
        layer.n_patterns = 0;
        layer.seen_by.clear();
        for (auto & head : layer.heads) {
            head = {};
        }
    }
}

void llama_attn_capture_recording::restart(std::vector<llama_token> held) {
    clear();
    tokens = std::move(held);
}

//
// llama_attn_capture_state
//

// of an encoder-decoder only the decoder is captured
static int32_t count_layers(const llama_hparams & hparams) {
    return hparams.dec_n_layer > 0 ? hparams.dec_n_layer : hparams.n_layer();
}

size_t llama_attn_capture_scratch::size() const {
    return sizeof(float) * (q.capacity() + k.capacity() + scores.capacity() + sum.capacity()) +
        sizeof(uint32_t) * (above.capacity() + seen.capacity());
}

llama_attn_capture_state::llama_attn_capture_state(const llama_model & model, const llama_attn_emulation & emulation,
    llama_memory_i * memory, const llama_attn_capture_options & options) :
    model(model),
    emulation(emulation),
    memory(memory),
    scratch(GGML_MAX_N_THREADS) {
    recording.options = options;
    make_layers();

    layer_index.resize(count_layers(model.hparams), -1);
    for (size_t i = 0; i < options.layers.size(); ++i) {
        layer_index[options.layers[i]] = i;
    }
}

void llama_attn_capture_state::make_layers() {
    recording.n_embd = model.hparams.n_embd;
    recording.layers.resize(recording.options.layers.size());
    for (auto & layer : recording.layers) {
        layer.heads.resize(recording.options.heads.size());
    }
}

void llama_attn_capture_state::release() {
    kept    = nullptr;
    rows    = std::vector<row>();
    scratch = std::vector<llama_attn_capture_scratch>(GGML_MAX_N_THREADS);

    llama_attn_capture_recording empty;
    empty.options = std::move(recording.options);
    recording     = std::move(empty);
    make_layers();
}

// what is resized to n next has room for it then, and grows as fast as by resizing alone
template <class T>
static void make_room(std::vector<T> & values, size_t n) {
    if (values.capacity() < n) {
        values.reserve(std::max(n, 2 * values.size()));
    }
}

bool llama_attn_capture_state::keeps_rows() const {
    const auto & options = recording.options;

    return options.top_k > 0 || options.weights || options.hidden_states || options.lens_k > 0;
}

bool llama_attn_capture_state::is_kept(int32_t pos) const {
    const auto & options = recording.options;

    return keeps_rows() &&
        (options.all_queries || std::binary_search(options.queries.begin(), options.queries.end(), pos));
}

static llama_attn_capture_rows make_rows(
    const llama_attn_capture_recording & recording, std::vector<int32_t> positions, size_t n_tokens) {
    const auto & options   = recording.options;
    const size_t per_layer = positions.size();
    const size_t n_layer   = options.layers.size();
    const size_t n_rows    = n_layer * options.heads.size() * per_layer;

    llama_attn_capture_rows rows;
    rows.positions = std::move(positions);
    rows.n_tokens  = n_tokens;
    rows.top_keys.resize(n_rows * options.top_k, UINT32_MAX);
    rows.top_weights.resize(n_rows * options.top_k, 0.0f);
    if (options.weights) {
        rows.weights.resize(n_rows * n_tokens, 0.0f);
    }
    if (options.hidden_states) {
        rows.hidden_states.resize(n_layer * per_layer * recording.n_embd, NAN);
    }
    rows.lens_tokens.resize(n_layer * per_layer * options.lens_k, UINT32_MAX);
    rows.lens_logprobs.resize(n_layer * per_layer * options.lens_k, NAN);
    return rows;
}

void llama_attn_capture_state::begin(const llama_ubatch & ubatch) {
    const auto & options = recording.options;

    rows.clear();
    output_index.assign(ubatch.n_tokens, -1);
    kept     = nullptr;
    strength = emulation.values.strength_of(options.seq_id);

    std::vector<int32_t> positions;
    int32_t              first     = INT32_MAX;
    int32_t              last      = -1;
    int32_t              n_outputs = 0;
    for (uint32_t i = 0; i < ubatch.n_tokens; ++i) {
        if (ubatch.output[i]) {
            output_index[i] = n_outputs++;
        }
        if (ubatch.seq_id[i][0] != options.seq_id) {
            continue;
        }
        const int32_t pos = ubatch.pos[i];
        first             = std::min(first, pos);
        last              = std::max(last, pos);
        rows.push_back({ (int32_t) i, pos, is_kept(pos) ? (int32_t) positions.size() : -1 });
        if (rows.back().kept >= 0) {
            positions.push_back(pos);
        }
    }
    if (rows.empty()) {
        return;
    }

    auto & tokens = recording.tokens;
    if (first < (int32_t) tokens.size()) {
        // what was there has been taken back: sums can't be, so they start anew
        recording.clear();
        tokens.resize(first);
    }
    const size_t n_tokens = std::max<size_t>(tokens.size(), last + 1);

    // memory may run out, so there is room for everything before anything changes
    llama_attn_capture_rows next;
    if (!positions.empty()) {
        if (recording.kept_bytes(positions.size(), n_tokens) > LLAMA_ATTN_CAPTURE_MOST_KEPT) {
            recording.is_full = true;
            positions.clear();
            for (auto & row : rows) {
                row.kept = -1;
            }
        } else {
            next = make_rows(recording, std::move(positions), n_tokens);
            make_room(recording.rows, recording.rows.size() + 1);
        }
    }
    make_room(tokens, n_tokens);
    for (auto & layer : recording.layers) {
        make_room(layer.seen_by, n_tokens);
        for (auto & head : layer.heads) {
            make_room(head.received, n_tokens);
            make_room(head.received_by, n_tokens);
        }
    }

    tokens.resize(n_tokens, -1);
    if (ubatch.token) {
        for (const auto & row : rows) {
            tokens[row.pos] = ubatch.token[row.token];
        }
    }
    for (auto & layer : recording.layers) {
        layer.seen_by.resize(n_tokens);
        for (auto & head : layer.heads) {
            head.received.resize(n_tokens);
            head.received_by.resize(n_tokens);
        }
    }
    recording.n_rows += rows.size();
    if (!next.positions.empty()) {
        recording.rows.push_back(std::move(next));
        kept = &recording.rows.back();
    }
}

//
// interface
//

static void set_capture(llama_context * ctx, llama_attn_capture::handle next) {
    ctx->attn_capture.set(std::move(next));

    // a running batch may write to what has just ended, and nobody should wait for it here: the next call or batch does it then
    std::unique_lock<std::recursive_mutex> lock(ctx->attn_emulation.running, std::try_to_lock);
    if (lock.owns_lock()) {
        ctx->attn_capture.release_ended();
    }
}

const char * llama_set_attn_capture(llama_context * ctx, const llama_attn_capture_options * options) {
    if (!options) {
        set_capture(ctx, nullptr);
        return nullptr;
    }

    const auto & model   = ctx->get_model();
    const auto & hparams = model.hparams;
    const auto   n_layer = count_layers(hparams);

    if (model.split_mode() == LLAMA_SPLIT_MODE_TENSOR) {
        return "a model split by tensor over several devices can't be captured, since its heads are not on one device";
    }
    if (options->seq_id < 0 || (uint32_t) options->seq_id >= ctx->n_seq_max()) {
        return "the sequence is not one of the context's";
    }
    for (const int32_t il : options->layers) {
        if (il < 0 || il >= n_layer) {
            return "a layer must be one of the model's layers";
        }
    }
    if (options->source_layer < 0 || options->source_layer >= n_layer) {
        return "the source layer must be one of the model's layers";
    }
    if (!(options->threshold > 0.0f && options->threshold < 1.0f)) {
        return "the threshold must be above 0 and below 1";
    }
    if (options->token_classes.size() != model.vocab.n_tokens()) {
        return "there must be a class of each token of the vocabulary";
    }
    if (options->lens_k > 0 && !model.output && !model.tok_embd) {
        return "the model has no output matrix, which the logit lens needs";
    }

    set_capture(
        ctx, std::make_shared<llama_attn_capture_state>(model, ctx->attn_emulation, ctx->get_memory(), *options));

    return nullptr;
}

bool llama_read_attn_capture(llama_context * ctx, const std::function<void(llama_attn_capture_recording &)> & use) {
    std::lock_guard<std::recursive_mutex> lock(ctx->attn_emulation.running);

    const auto state = ctx->attn_capture.get();
    if (!state) {
        return false;
    }
    state->recording.scratch = 0;
    for (const auto & scratch : state->scratch) {
        state->recording.scratch += scratch.size();
    }
    use(state->recording);

    return true;
}

int32_t llama_attn_capture_n_layer(const llama_context * ctx) {
    return count_layers(ctx->get_model().hparams);
}

bool llama_attn_capture_has_attention(const llama_context * ctx, int32_t layer) {
    const auto & hparams = ctx->get_model().hparams;

    // a recurrent layer may have attention, too
    return layer >= (int32_t) hparams.n_layer() || hparams.n_head(layer) > 0;
}
