// Emulation on one architecture, on a small model of random weights.
//
//   check-architecture --list                      one variant a line, such as "gemma3 dense" or "mixtral moe"
//   check-architecture ARCHITECTURE KIND [gpu]     prints one JSON object: the layers, and each comparison with its limit
//
// The limit of a comparison is 5 times the error of the same comparison without emulation, or with strength 0, on several
// texts: that is how far apart two right computations are on this model. On a GPU no limit is below that of flash attention against
// plain attention, as rows whose maximum and sum are kept may be computed in other tiles.
//
// The threshold is chosen so that some 5 to 30 keys of a row pass it, or fewer on a GPU, in the middle of a wide gap between weights
// there, however the text comes in batches. All runs must list the same number of keys: where one does not, rounding has moved a
// weight across the threshold, and the next widest gap is taken. Where no gap will do, the check fails.

#include "fixtures.h"

#include "llama-attn-capture.h"
#include "llama-attn-emulation.h"

#include "ggml-attn-emulation.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include <nlohmann/json.hpp>

using json = nlohmann::ordered_json;

static constexpr size_t SEED     = 1;
static constexpr int    N_TOKENS = 300; // more than the 256 cells of a cache for windowed layers: cells are used again
static constexpr float  STRENGTH = 0.5f;
static constexpr int    N_UBATCH = 320;
static constexpr int    N_TEXTS  = 6; // the first two are for emulation, all for the limits
static constexpr int    N_GAPS   = 60;
static constexpr int    LENS_K   = 3;

// weights that two ways of computing have, of the same queries and keys
static constexpr double LIMIT_CAPTURE = 1e-5;
static constexpr double LIMIT_LENS    = 1e-4; // of natural logarithms

// the least limit: a number or two that are rounded to F16 the other way make 1e-10 to 3e-8, and with luck none is
static constexpr double LEAST_LIMIT = 5e-8;

// a row of weights far from each other: as in trained models, a few keys get most of the attention
static void set_random_weights(ggml_tensor * tensor, void * data) {
    const std::string name = tensor->name;
    const llm_arch    arch = *(const llm_arch *) data;

    const auto has = [&](const char * part) {
        return name.find(part) != std::string::npos;
    };

    float mean  = 0.0f;
    float stdev = 0.1f;
    if (arch == LLM_ARCH_GEMMA3N && has("attn_q_norm")) {
        mean  = 0.125f; // attention is not scaled by the root of the head size
        stdev = 0.01f;
    } else if (arch == LLM_ARCH_GEMMA3N && has("post") && has("norm")) {
        mean = 0.1f; // 22 layers that each add as much as there was make noise grow beyond all measure
    } else if ((has("norm") && has(".weight")) || has("scale")) {
        mean = 1.0f;
    } else if (has("attn_sinks")) {
        mean  = 1.0f;
        stdev = 1.0f;
    } else if (arch == LLM_ARCH_T5 && has("attn_q.")) {
        stdev = 0.01f; // nor here
    } else if (has("attn_q_b") || has("attn_k_b") || has("attn_v_b") || has("attn_kv_b")) {
        stdev = 0.07f; // these have 512 inputs, twice as many as others
    } else if (has("blk.0.") && (has("attn_output") || has("ssm_out") || has("shortconv.out"))) {
        // layer 1, too, may be a source: what it gets must not differ between runs by the rounding of layer 0's attention
        stdev = 0.0f;
    }

    std::mt19937                    random(SEED ^ std::hash<std::string>{}(name));
    std::normal_distribution<float> normal(mean, stdev);

    std::vector<float> values(ggml_nelements(tensor));
    for (float & value : values) {
        value = normal(random);
        if (has("ssm_a")) {
            value = -std::fabs(value); // a state that decays
        }
    }
    if (tensor->type == GGML_TYPE_F32) {
        ggml_backend_tensor_set(tensor, values.data(), 0, ggml_nbytes(tensor));
    } else if (tensor->type == GGML_TYPE_F16) {
        std::vector<ggml_fp16_t> halves(values.size());
        ggml_fp32_to_fp16_row(values.data(), halves.data(), values.size());
        ggml_backend_tensor_set(tensor, halves.data(), 0, ggml_nbytes(tensor));
    } else {
        throw std::runtime_error(std::string("tensors of type ") + ggml_type_name(tensor->type) + " are not made here");
    }
}

struct batch_deleter {
    void operator()(llama_batch * batch) const {
        llama_batch_free(*batch);
        delete batch;
    }
};

using batch_ptr = std::unique_ptr<llama_batch, batch_deleter>;

using tokens = std::vector<llama_token>;
using logits = std::vector<float>; // [n_tokens][n_vocab]

// what patterns list, in a form that does not depend on how tokens were batched: another key in any row changes it, unless a
// row of the same length loses one
struct listed_keys {
    int64_t number  = 0;
    int64_t squares = 0; // of the numbers in each row

    // of each row's number, layer, head and position; of single sequences only
    uint64_t rows = 0;

    void add_row(int64_t n, uint64_t layer, uint64_t head, uint64_t position) {
        number += n;
        squares += n * n;
        uint64_t row = n + 1000 * (position + 1000 * (head + 1000 * layer));
        row          = (row ^ row >> 15) * 0x9e3779b97f4a7c15;
        rows += row ^ row >> 32;
    }

    listed_keys operator+(const listed_keys & other) const {
        return { number + other.number, squares + other.squares, 0 };
    }

    bool operator!=(const listed_keys & other) const { return number != other.number || squares != other.squares; }
};

struct outcome {
    std::vector<logits>          of; // each sequence
    listed_keys                  listed;
    llama_attn_capture_recording captured; // of the first
};

enum class capture_kind { NONE, MATERIALIZED, COMPUTED };

struct run_options {
    bool flash_attn = true;
    bool emulate    = false;
    bool dense      = false;
    bool normalize  = false;
    bool unified    = false;
    int  n_seq_max  = 1;
    int  n_threads  = 1;

    capture_kind capture = capture_kind::NONE;

    llama_attn_emulation_pattern pattern = LLAMA_ATTN_EMULATION_PATTERN_EARLY_LAYER;

    // only these take the source layer's weights
    bool lists_keys() const {
        return pattern == LLAMA_ATTN_EMULATION_PATTERN_EARLY_LAYER || pattern == LLAMA_ATTN_EMULATION_PATTERN_RANDOM;
    }

    std::vector<tokens> sequences;
    std::vector<float>  strengths;             // of each sequence
    std::vector<int>    chunks = { N_TOKENS }; // lengths, the last one repeats
};

class architecture {
  public:
    architecture(llm_arch arch, bool moe, bool gpu) :
        gpu(gpu),
        // these read the whole text before they write, or at once
        encoder_decoder(arch == LLM_ARCH_T5),
        metadata(get_gguf_ctx(arch, moe)) {
        if (arch == LLM_ARCH_BAILINGMOE3) {
            gguf_remove_key(metadata.get(), "bailingmoe3.kda.safe_gate"); // as upstream's test does
        }

        llama_model_params params = llama_model_default_params();
        params.progress_callback  = silent_model_load_progress;
        ggml_backend_dev_t none[] = { nullptr };
        params.devices            = gpu ? nullptr : none;
        model.reset(llama_model_init_from_user(metadata.get(), set_random_weights, &arch, params));
        if (!model) {
            throw std::runtime_error("the model could not be made");
        }
        n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model.get()));

        std::mt19937 random(SEED);
        for (int i = 0; i < N_TEXTS; ++i) {
            const int length = i % 2 == 0 ? N_TOKENS : N_TOKENS * 2 / 3;
            tokens    sequence;
            for (int i = 0; i < length; ++i) {
                sequence.push_back(random() % n_vocab);
            }
            sequences.push_back(sequence);
        }

        llama_context_ptr ctx = make_context(run_options());
        cached                = llama_get_memory(ctx.get()) != nullptr;
        llama_attn_emulation_shape(ctx.get(), &n_layer, &n_head);
    }

    const bool gpu;
    const bool encoder_decoder;
    bool       cached     = false; // tokens may come in any number of batches
    int32_t    n_layer    = 0;
    int32_t    n_head     = 0;
    float      threshold  = 0.01f;
    bool       has_effect = false; // any layer is emulated
    bool       emulated   = false; // or would be, where sequences share a stream
    size_t     n_sources  = 0;

    std::vector<tokens> sequences; // every second one is shorter

    outcome run(const run_options & options) const {
        outcome res;
        res.of.resize(options.sequences.size());

        listing              listing = { &res.listed, 0 };
        llama_context_params params  = context_params(options);
        if (options.emulate && options.lists_keys() && options.strengths[0] != 0.0f) {
            params.cb_eval           = count_listed;
            params.cb_eval_user_data = &listing;
        }
        llama_context_ptr ctx(llama_init_from_model(model.get(), params));
        apply_emulation(ctx.get(), options);
        apply_capture(ctx.get(), options);
        decode(ctx.get(), options, listing.start, [&](const llama_batch & batch) {
            for (int i = 0; i < batch.n_tokens; ++i) {
                const float * row = llama_get_logits_ith(ctx.get(), i);
                if (!row) {
                    throw std::runtime_error("there are no logits");
                }
                logits & of_sequence = res.of[batch.seq_id[i][0]];
                of_sequence.insert(of_sequence.end(), row, row + n_vocab);
            }
        });
        llama_read_attn_capture(
            ctx.get(), [&](llama_attn_capture_recording & recording) { res.captured = std::move(recording); });
        return res;
    }

    std::vector<llama_attn_emulation_layer> report(const run_options & options) const {
        llama_context_ptr ctx = make_context(options);
        apply_emulation(ctx.get(), options);

        std::vector<llama_attn_emulation_layer> layers(n_layer);
        if (llama_attn_emulation_report(ctx.get(), layers.data(), n_layer)) {
            throw std::runtime_error("there is no report");
        }
        return layers;
    }

    bool emulates(const run_options & options) const {
        const auto layers = report(options);
        return std::any_of(
            layers.begin(), layers.end(), [](const llama_attn_emulation_layer & layer) { return layer.emulated; });
    }

    using weights = std::map<std::array<int64_t, 3>, std::vector<float>>; // of each row: layer, head, position

    // the weights above 0 of some layers' attention, of a single sequence
    weights read_weights(const run_options & options, const std::set<int> & layers) const {
        weight_reader reader{ {}, layers, 0 };

        llama_context_params params = context_params(options);
        params.cb_eval              = read_softmax;
        params.cb_eval_user_data    = &reader;
        llama_context_ptr ctx(llama_init_from_model(model.get(), params));
        apply_emulation(ctx.get(), options);
        decode(ctx.get(), options, reader.start, [](const llama_batch &) {});
        return std::move(reader.res);
    }

    // the logit lens of the last layer against the logits; none where there is no lens
    std::optional<double> lens_error(const outcome & res) const {
        const auto & recording = res.captured;
        const size_t last      = recording.layers.size() - 1;
        double       error     = 0.0;
        bool         has_lens  = false;
        bool         complete  = true;
        if (recording.options.layers.back() != n_layer - 1) {
            return std::nullopt; // the last layer has no attention
        }
        size_t position = 0;
        for (const auto & rows : recording.rows) {
            const size_t n_rows = rows.positions.size();
            for (size_t i = 0; i < n_rows; ++i, ++position) {
                const float * row = res.of[0].data() + position * n_vocab;
                const float   max = *std::max_element(row, row + n_vocab);
                double        sum = 0.0;
                for (int v = 0; v < n_vocab; ++v) {
                    sum += std::exp((double) row[v] - max);
                }
                for (size_t k = (last * n_rows + i) * LENS_K; k < (last * n_rows + i + 1) * LENS_K; ++k) {
                    if (rows.lens_tokens[k] == UINT32_MAX) {
                        complete = false;
                        continue;
                    }
                    has_lens                = true;
                    const double expected   = row[rows.lens_tokens[k]] - max - std::log(sum);
                    const double difference = std::fabs(rows.lens_logprobs[k] - expected);
                    error                   = std::isfinite(difference) ? std::max(error, difference) :
                                                                          std::numeric_limits<double>::infinity();
                }
            }
        }
        if (!has_lens) {
            return std::nullopt;
        }
        return complete ? error : std::numeric_limits<double>::infinity();
    }

    // the largest difference of any two captured weights of these layers
    static double capture_error(const llama_attn_capture_recording & a, const llama_attn_capture_recording & b,
        const std::vector<size_t> & layers) {
        if (a.rows.size() != b.rows.size()) {
            throw std::runtime_error("the numbers of captured batches differ");
        }
        double error = 0.0;
        for (size_t i = 0; i < a.rows.size(); ++i) {
            const size_t size = a.rows[i].weights.size() / a.layers.size();
            for (const size_t layer : layers) {
                for (size_t j = layer * size; j < (layer + 1) * size; ++j) {
                    const double difference = std::fabs((double) a.rows[i].weights[j] - b.rows[i].weights[j]);
                    error                   = std::isfinite(difference) ? std::max(error, difference) :
                                                                          std::numeric_limits<double>::infinity();
                }
            }
        }
        return error;
    }

    double nmse(const logits & a, const logits & b) const {
        if (a.size() != b.size()) {
            throw std::runtime_error("the numbers of logits differ");
        }
        double worst = 0.0;
        for (size_t start = 0; start < a.size(); start += n_vocab) {
            double error = 0.0;
            double scale = 0.0;
            for (size_t i = start; i < start + n_vocab; ++i) {
                error += ((double) a[i] - b[i]) * ((double) a[i] - b[i]);
                scale += (double) b[i] * b[i];
            }
            const double ratio = error == 0.0 ? 0.0 : error / scale;
            worst = std::isfinite(ratio) ? std::max(worst, ratio) : std::numeric_limits<double>::infinity();
        }
        return worst;
    }

  private:
    gguf_context_ptr metadata;
    llama_model_ptr  model;
    int              n_vocab = 0;

    struct listing {
        listed_keys * res;
        int           start; // position of the batch's first token
    };

    struct weight_reader {
        weights       res;
        std::set<int> layers;
        int           start; // as above
    };

    // start: of the batch that is being computed
    void decode(llama_context * ctx, const run_options & options, int & start,
        const std::function<void(const llama_batch &)> & done) const {
        const auto check = [&](const char * function, int error) {
            if (error) {
                throw std::runtime_error(std::string(function) + "() failed");
            }
        };
        if (encoder_decoder) {
            const batch_ptr batch = make_batch(options, 0, N_TOKENS);
            check("llama_encode", llama_encode(ctx, *batch));
        }
        size_t i_chunk = 0;
        for (start = 0; start < N_TOKENS;) {
            const int       length = options.chunks[std::min(i_chunk++, options.chunks.size() - 1)];
            const batch_ptr batch  = make_batch(options, start, length);
            if (batch->n_tokens == 0) {
                break;
            }
            check("llama_decode", llama_decode(ctx, *batch));
            done(*batch);
            start += length;
        }
    }

    // it may be on a device
    static std::vector<uint8_t> read_tensor(const ggml_tensor * tensor) {
        std::vector<uint8_t> bytes(ggml_nbytes(tensor));
        ggml_backend_tensor_get(tensor, bytes.data(), 0, bytes.size());
        return bytes;
    }

    static bool count_listed(ggml_tensor * tensor, bool ask, void * data) {
        const bool fused = tensor->op == GGML_OP_FLASH_ATTN_EXT &&
            ggml_flash_attn_ext_get_emulation(tensor) == GGML_ATTN_EMULATION_RECORD;
        int layer = -1;
        if (!fused && sscanf(tensor->name, "attn_emulation_mask-%d", &layer) != 1) {
            return !ask;
        }
        if (ask) {
            return true;
        }
        const ggml_tensor * rows = fused ? tensor->src[5] : tensor;
        if (fused) {
            sscanf(rows->name, "attn_emulation_pattern-%d", &layer);
        }
        const std::vector<uint8_t> bytes = read_tensor(rows);
        const auto & [res, start]        = *(const listing *) data;
        for (int64_t row = 0; row < ggml_nrows(rows); ++row) {
            // rows of the number of keys and the keys, or of 0 and 1
            const int32_t * list = (const int32_t *) bytes.data() + row * rows->ne[0];
            const float *   mask = (const float *) bytes.data() + row * rows->ne[0];
            res->add_row(fused ? list[0] : std::count(mask, mask + rows->ne[0], 1.0f), layer,
                row / rows->ne[1] % rows->ne[2], start + row % rows->ne[1]);
        }
        return true;
    }

    static bool read_softmax(ggml_tensor * tensor, bool ask, void * data) {
        auto & [res, layers, start] = *(weight_reader *) data;

        int il = -1;
        if (sscanf(tensor->name, "kq_soft_max-%d", &il) != 1 || !layers.count(il)) {
            return !ask;
        }
        if (ask) {
            return true;
        }
        const std::vector<uint8_t> bytes = read_tensor(tensor);
        for (int64_t row = 0; row < ggml_nrows(tensor); ++row) {
            const float * values = (const float *) bytes.data() + row * tensor->ne[0];
            auto &        of_row = res[{ il, row / tensor->ne[1] % tensor->ne[2], start + row % tensor->ne[1] }];
            std::copy_if(
                values, values + tensor->ne[0], std::back_inserter(of_row), [](float value) { return value > 0.0f; });
        }
        return true;
    }

    llama_context_params context_params(const run_options & options) const {
        llama_context_params params = llama_context_default_params();
        params.n_seq_max            = options.n_seq_max;
        params.n_ctx                = 512 * params.n_seq_max;
        params.n_batch              = N_UBATCH * params.n_seq_max;
        // as small as the chunks are: so is the cache of windowed layers
        params.n_ubatch        = options.chunks[0] == N_TOKENS || encoder_decoder ? params.n_batch : 64;
        params.n_outputs_max   = params.n_batch;
        params.n_threads       = options.n_threads;
        params.n_threads_batch = options.n_threads;
        params.kv_unified      = options.unified;
        params.flash_attn_type = options.flash_attn ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
        return params;
    }

    llama_context_ptr make_context(const run_options & options) const {
        llama_context_ptr ctx(llama_init_from_model(model.get(), context_params(options)));
        if (!ctx) {
            throw std::runtime_error("the context could not be made");
        }
        return ctx;
    }

    void apply_emulation(llama_context * ctx, const run_options & options) const {
        if (!options.emulate) {
            return;
        }
        // the same in every layer: no layer is too weak to be seen
        const std::vector<float>    gain((size_t) n_layer * n_head, 1.0f);
        llama_attn_emulation_params params = llama_attn_emulation_default_params();
        params.threshold                   = threshold;
        params.strength                    = 0.0f;
        params.normalize                   = options.normalize;
        params.gain                        = gain.data();
        params.pattern                     = options.pattern;
        params.kernel = options.dense ? LLAMA_ATTN_EMULATION_KERNEL_DENSE : LLAMA_ATTN_EMULATION_KERNEL_AUTO;

        const char * error = llama_set_attn_emulation(ctx, &params);
        for (size_t s = 0; s < options.strengths.size() && !error; ++s) {
            error = llama_set_attn_emulation_seq_strength(ctx, s, options.strengths[s]);
        }
        if (error) {
            throw std::runtime_error(error);
        }
    }

    void apply_capture(llama_context * ctx, const run_options & options) const {
        if (options.capture == capture_kind::NONE) {
            return;
        }
        llama_attn_capture_options capture;
        for (int32_t il = 0; il < n_layer; ++il) {
            if (llama_attn_capture_has_attention(ctx, il)) {
                capture.layers.push_back(il);
            }
        }
        for (int32_t h = 0; h < n_head; ++h) {
            capture.heads.push_back(h);
        }
        capture.all_queries   = true;
        capture.weights       = true;
        capture.lens_k        = LENS_K;
        capture.from_keys     = options.capture == capture_kind::COMPUTED;
        capture.token_classes = std::vector<uint8_t>(n_vocab);

        if (const char * error = llama_set_attn_capture(ctx, &capture)) {
            throw std::runtime_error(error);
        }
    }

    // the tokens at these positions, of all sequences that are long enough
    static batch_ptr make_batch(const run_options & options, int start, int length) {
        batch_ptr batch(new llama_batch(llama_batch_init(N_UBATCH * options.sequences.size(), 0, 1)));
        for (size_t s = 0; s < options.sequences.size(); ++s) {
            const tokens & sequence = options.sequences[s];
            for (int i = start; i < std::min<int>(start + length, sequence.size()); ++i) {
                common_batch_add(*batch, sequence[i], i, { (llama_seq_id) s }, true);
            }
        }
        return batch;
    }
};

// how a text may come
struct split {
    const char *     name;
    std::vector<int> chunks;
    int              n_threads;
};

static const std::vector<split> SPLITS = {
    { "uneven chunks", { 50, 7, 64, 1, 1, 30, 64, 40, 43 }, 2 },
    { "token by token", { 1 }, 1 },
};

// in the middle of the widest gaps between weights, among those that leave some 6 to 25 keys a row, and as many in each however
// the text comes
static std::vector<float> choose_thresholds(const architecture & arch, const std::set<int> & sources) {
    std::vector<run_options> ways(1);
    for (const split & split : SPLITS) {
        if (arch.cached) {
            ways.emplace_back();
            ways.back().chunks    = split.chunks;
            ways.back().n_threads = split.n_threads;
        }
    }

    std::vector<std::vector<architecture::weights>> weights(2); // of each text, each way
    std::vector<float>                              values;
    size_t                                          n_rows = 0;
    for (size_t s = 0; s < weights.size(); ++s) {
        for (run_options & options : ways) {
            options.emulate   = true;
            options.dense     = true;
            options.sequences = { arch.sequences[s] };
            weights[s].push_back(arch.read_weights(options, sources));
            for (auto & [row, of_row] : weights[s].back()) {
                std::sort(of_row.begin(), of_row.end());
                values.insert(values.end(), of_row.begin(), of_row.end());
            }
            n_rows += weights[s].back().size();
        }
    }
    std::sort(values.begin(), values.end(), std::greater<float>());

    const auto same_in_all_ways = [&](float threshold) {
        const auto n_below = [&](const std::vector<float> & of_row) {
            return std::lower_bound(of_row.begin(), of_row.end(), threshold) - of_row.begin();
        };
        for (const auto & of_text : weights) {
            for (const auto & of_way : of_text) {
                for (const auto & [row, of_row] : of_way) {
                    const auto & expected = of_text[0].at(row);
                    if (of_row.size() - n_below(of_row) != expected.size() - n_below(expected)) {
                        return false;
                    }
                }
            }
        }
        return true;
    };
    // where runs differ by much, as on GPUs, only where fewer keys pass are gaps wide enough
    std::vector<float> res;
    for (const auto & [least, most] : { std::pair(6, 25), std::pair(1, 6) }) {
        std::vector<std::pair<float, float>> gaps; // width, threshold
        for (size_t i = least * n_rows; i < std::min<size_t>(values.size() - 1, most * n_rows); ++i) {
            if (values[i] < 0.9f) {
                gaps.emplace_back(values[i] / values[i + 1], std::sqrt(values[i] * values[i + 1]));
            }
        }
        std::sort(gaps.begin(), gaps.end(), std::greater<std::pair<float, float>>());
        for (const auto & [width, threshold] : gaps) {
            if (res.size() < N_GAPS && same_in_all_ways(threshold)) {
                res.push_back(threshold);
            }
        }
    }
    return res;
}

struct key_flipped : std::runtime_error {
    using runtime_error::runtime_error;
};

// Compares what must be the same.
class checker {
  public:
    checker(architecture & arch) : arch(arch) {
        for (const split & split : SPLITS) {
            splits.push_back({ split });
        }
        measure_limits();
    }

    // throws key_flipped where runs list different numbers of keys
    json check(float threshold) {
        arch.threshold = threshold;
        comparisons    = json::array();
        ok             = true;

        run_options options;
        options.emulate   = true;
        options.sequences = { arch.sequences[0] };

        options.strengths = { 0.0f };
        compare("strength 0", arch.nmse(arch.run(options).of[0], plain[0]), least_limit);
        options.flash_attn = false;
        compare("strength 0, no flash attention", arch.nmse(arch.run(options).of[0], plain_no_flash), least_limit);
        options.flash_attn = true;

        options.strengths   = { STRENGTH };
        const outcome fused = arch.run(options);
        check_dense(options, fused);
        check_splits(options, fused);
        check_two_sequences();
        const double effect = arch.nmse(fused.of[0], plain[0]);
        check_control(options, LLAMA_ATTN_EMULATION_PATTERN_RANDOM, "random keys", effect);
        check_control(options, LLAMA_ATTN_EMULATION_PATTERN_FIRST_TOKEN, "first token", effect);
        check_capture();

        if (arch.has_effect) {
            require_narrow_limits(effect);
        }

        return { { "ok", ok }, { "threshold", threshold }, { "effect", effect }, { "captured", captured_layers },
            { "lens", has_lens },
            { "keys_per_row",
                arch.emulated ? (double) fused.listed.number / ((double) N_TOKENS * arch.n_head * arch.n_sources) :
                                0.0 },
            { "comparisons", comparisons } };
    }

  private:
    struct limited_split : split {
        double limit = 0.0;
    };

    architecture &             arch;
    json                       comparisons;
    bool                       ok = true;
    std::vector<logits>        plain; // of each text
    logits                     plain_no_flash;
    double                     limit_dense     = 0.0;
    double                     least_limit     = 0.0; // of what is the same but for the pattern
    double                     limit_two[2][2] = {};  // [unified][chunked]
    std::vector<limited_split> splits;
    std::vector<int32_t>       captured_layers;
    bool                       has_lens = false;

    static double limit(double noise) { return std::max(5.0 * noise, LEAST_LIMIT); }

    void compare(const std::string & name, double error, double limit) {
        const bool passed = error <= limit;
        comparisons.push_back({ { "name", name }, { "error", error }, { "limit", limit }, { "ok", passed } });
        ok = ok && passed;
    }

    // what emulation does must stand out from the noise, or the comparisons say nothing
    void require_narrow_limits(double effect, size_t first = 0) {
        for (size_t i = first; i < comparisons.size(); ++i) {
            const auto & comparison = comparisons[i];
            if (comparison["limit"] > effect / 10) {
                throw std::runtime_error("the limit of \"" + comparison["name"].get<std::string>() +
                    "\" is too near to what emulation does");
            }
        }
    }

    void require_same_number(const std::string & name, const outcome & res, const listed_keys & listed) const {
        if (arch.emulated && res.listed != listed) {
            throw key_flipped(name + " lists other keys");
        }
    }

    // of single sequences, where a key less in one row and one more in another are seen, too
    void require_same_rows(const std::string & name, const outcome & res, const outcome & other) const {
        require_same_number(name, res, other.listed);
        if (arch.emulated && res.listed.rows != other.listed.rows) {
            throw key_flipped(name + " lists other keys");
        }
    }

    // all comparisons without emulation, or with strength 0
    void measure_limits() {
        double              dense = 0.0;
        std::vector<double> of_split(splits.size());
        for (const tokens & text : arch.sequences) {
            run_options options;
            options.sequences = { text };
            plain.push_back(arch.run(options).of[0]);

            if (arch.cached) {
                for (size_t i = 0; i < splits.size(); ++i) {
                    options.chunks = splits[i].chunks;
                    of_split[i]    = std::max(of_split[i], arch.nmse(arch.run(options).of[0], plain.back()));
                }
            }

            options.chunks    = { N_TOKENS };
            options.emulate   = true;
            options.dense     = true;
            options.strengths = { 0.0f };
            dense             = std::max(dense, arch.nmse(arch.run(options).of[0], plain.back()));
        }
        run_options options;
        options.sequences  = { arch.sequences[0] };
        options.flash_attn = false;
        plain_no_flash     = arch.run(options).of[0];
        options.flash_attn = true;

        limit_dense = limit(dense);
        least_limit = arch.gpu ? limit_dense : 0.0;
        for (size_t i = 0; i < splits.size(); ++i) {
            splits[i].limit = limit(of_split[i]);
        }
        for (const bool unified : { false, true }) {
            for (const bool chunked : { false, true }) {
                double noise = 0.0;
                for (size_t i = 0; i < arch.sequences.size(); i += 2) {
                    options.sequences = { arch.sequences[i], arch.sequences[i + 1] };
                    if (set_shape(options, unified, chunked)) {
                        noise = std::max(noise, compare_with_alone(options));
                    }
                }
                limit_two[unified][chunked] = std::max(limit(noise), least_limit);
            }
        }
    }

    // the worse of two sequences in one batch, each against itself alone in such a context
    double compare_with_alone(run_options options) const {
        const outcome both = arch.run(options);

        const run_options together = options;
        double            error    = 0.0;
        listed_keys       listed;
        for (size_t s = 0; s < 2; ++s) {
            options.sequences = { together.sequences[s] };
            options.chunks    = { N_TOKENS };
            if (options.emulate) {
                options.strengths = { together.strengths[s] };
            }
            const outcome alone = arch.run(options);
            error               = std::max(error, arch.nmse(both.of[s], alone.of[0]));
            listed              = listed + alone.listed;
        }
        require_same_number("a batch of two sequences", both, listed);
        return error;
    }

    // false where this shape is not for this model
    bool set_shape(run_options & options, bool unified, bool chunked) const {
        options.n_seq_max = 2;
        options.unified   = unified;
        options.chunks    = chunked ? splits[0].chunks : std::vector<int>{ N_TOKENS };

        // relative position buckets are made for one stream
        return (arch.cached || !chunked) && (!arch.encoder_decoder || unified);
    }

    void check_dense(run_options options, const outcome & fused) {
        options.dense       = true;
        const outcome dense = arch.run(options);
        require_same_rows("the dense form", dense, fused);
        compare("fused against dense", arch.nmse(fused.of[0], dense.of[0]), limit_dense);

        options.normalize       = true;
        const logits normalized = arch.run(options).of[0];
        options.dense           = false;
        compare("fused against dense, normalised", arch.nmse(arch.run(options).of[0], normalized), limit_dense);
        options.normalize = false;

        options.pattern  = LLAMA_ATTN_EMULATION_PATTERN_ALL;
        const logits all = arch.run(options).of[0];
        options.dense    = true;
        compare("fused against dense, all keys", arch.nmse(all, arch.run(options).of[0]), limit_dense);
    }

    // the patterns that depend on which token is in which cell
    void check_control(
        run_options options, llama_attn_emulation_pattern pattern, const std::string & name, double pattern_effect) {
        const size_t first   = comparisons.size();
        options.pattern      = pattern;
        const outcome fused  = arch.run(options);
        const double  effect = arch.nmse(fused.of[0], plain[0]);

        const auto compare_with_fused = [&](const std::string & what, double limit) {
            const outcome res = arch.run(options);
            require_same_number(what, res, fused.listed);
            // where a row lists a key less and another one more, other keys are drawn for both
            const bool other_keys =
                pattern == LLAMA_ATTN_EMULATION_PATTERN_RANDOM && res.listed.rows != fused.listed.rows;
            compare(what + ", " + name, arch.nmse(res.of[0], fused.of[0]),
                other_keys ? std::max(limit, std::min(effect, pattern_effect) / 10) : limit);
        };
        options.dense = true;
        compare_with_fused("fused against dense", limit_dense);
        options.dense = false;

        if (arch.cached) {
            options.chunks    = splits[0].chunks;
            options.n_threads = splits[0].n_threads;
            compare_with_fused(splits[0].name, splits[0].limit);

            run_options two = options;
            two.sequences   = { arch.sequences[0], arch.sequences[1] };
            two.strengths   = { STRENGTH, -0.5f };
            set_shape(two, true, true);
            compare("two sequences, one stream, chunks, " + name, compare_with_alone(two), limit_two[true][true]);
        }
        if (arch.emulates(options)) {
            require_narrow_limits(effect, first);
        }
    }

    void check_splits(run_options options, const outcome & fused) {
        if (!arch.cached) {
            return;
        }
        for (const limited_split & split : splits) {
            options.chunks    = split.chunks;
            options.n_threads = split.n_threads;
            const outcome res = arch.run(options);
            require_same_rows(split.name, res, fused);
            compare(split.name, arch.nmse(res.of[0], fused.of[0]), split.limit);
        }
    }

    void check_capture() {
        run_options options;
        options.sequences   = { arch.sequences[0] };
        options.capture     = capture_kind::COMPUTED;
        const outcome fused = arch.run(options);
        compare("with a capture", arch.nmse(fused.of[0], plain[0]), 0.0);

        options.flash_attn     = false;
        const outcome computed = arch.run(options);
        options.capture        = capture_kind::MATERIALIZED;
        const outcome dense    = arch.run(options);
        compare("with a capture, no flash attention", arch.nmse(dense.of[0], plain_no_flash), 0.0);

        std::vector<size_t> seen;
        for (size_t i = 0; i < dense.captured.layers.size(); ++i) {
            // MiniMax-M3 has attention of its own kind with flash attention only
            if (dense.captured.layers[i].seen && fused.captured.layers[i].seen) {
                seen.push_back(i);
            }
        }
        run_options emulated;
        emulated.emulate = true;

        const auto layers = arch.report(emulated);
        int        missed = 0;
        for (size_t i = 0; i < dense.captured.layers.size(); ++i) {
            missed += layers[dense.captured.options.layers[i]].emulated && !dense.captured.layers[i].seen;
        }
        compare("layers that are emulated but not captured", missed, 0.0);

        captured_layers.clear();
        for (const size_t i : seen) {
            captured_layers.push_back(dense.captured.options.layers[i]);
        }
        if (seen.empty()) {
            return;
        }
        compare("captured weights, computed against materialised",
            arch.capture_error(computed.captured, dense.captured, seen), LIMIT_CAPTURE);
        // what comes before the first attention is the same, and so are keys, but flash attention rounds those of no cache to F16
        if (arch.cached) {
            compare("captured weights, flash attention against dense",
                arch.capture_error(fused.captured, dense.captured, { seen.front() }), LIMIT_CAPTURE);
        }

        const std::optional<double> lens = arch.lens_error(fused);
        has_lens                         = lens.has_value();
        if (has_lens) {
            compare("logit lens of the last layer against the logits", *lens, LIMIT_LENS);
        }
    }

    void check_two_sequences() {
        run_options options;
        options.emulate   = true;
        options.sequences = { arch.sequences[0], arch.sequences[1] };
        options.strengths = { STRENGTH, -0.5f };
        for (const bool unified : { false, true }) {
            for (const bool chunked : { false, true }) {
                if (set_shape(options, unified, chunked)) {
                    compare(std::string("two sequences, ") + (unified ? "one stream" : "two streams") +
                            (chunked ? ", chunks" : ""),
                        compare_with_alone(options), limit_two[unified][chunked]);
                }
            }
        }
    }
};

static json check(architecture & arch, const std::set<int> & sources) {
    checker checker(arch);
    if (sources.empty() || !arch.emulated) {
        return checker.check(0.01f);
    }
    std::string flipped = "no weight lies where a threshold could be";
    for (const float threshold : choose_thresholds(arch, sources)) {
        try {
            return checker.check(threshold);
        } catch (const key_flipped & err) {
            flipped = err.what();
            fprintf(stderr, "threshold %g will not do: %s\n", threshold, err.what());
        }
    }
    throw std::runtime_error("whatever the threshold, runs differ: " + flipped);
}

static json check_variant(llm_arch arch_id, bool moe, bool gpu) {
    json result = { { "architecture", llm_arch_name(arch_id) }, { "kind", moe ? "moe" : "dense" } };
    try {
        architecture arch(arch_id, moe, gpu);

        run_options options;
        options.emulate      = true;
        options.sequences    = { arch.sequences[0] };
        json          layers = json::array();
        std::set<int> sources;
        bool          emulated = false;
        for (const auto & layer : arch.report(options)) {
            if (layer.reason && std::string(layer.reason) == "the pattern is taken from this layer") {
                sources.insert(layers.size());
            }
            layers.push_back({ { "emulated", layer.emulated }, { "fused", layer.fused } });
            if (layer.reason) {
                layers.back()["reason"] = layer.reason;
            }
            emulated = emulated || layer.emulated;
        }
        // MiniMax-M3 has attention of its own kind, but not where sequences share a stream
        options.n_seq_max = 2;
        options.unified   = true;
        arch.has_effect   = emulated;
        arch.emulated     = emulated;
        for (const auto & layer : arch.report(options)) {
            arch.emulated = arch.emulated || layer.emulated;
        }
        arch.n_sources     = sources.size();
        result["emulated"] = emulated;
        result["layers"]   = layers;
        result.update(check(arch, sources));
    } catch (const std::exception & err) {
        result["ok"]    = false;
        result["error"] = err.what();
    }
    return result;
}

static std::vector<std::pair<llm_arch, bool>> list_variants() {
    std::vector<std::pair<llm_arch, bool>> res;
    for (const llm_arch & arch : llm_arch_all()) {
        if (arch == LLM_ARCH_UNKNOWN || !arch_supported(arch) || arch == LLM_ARCH_EAGLE3 || arch == LLM_ARCH_DFLASH) {
            continue;
        }
        for (const bool moe : { false, true }) {
            if (moe ? moe_implemented(arch) : !moe_mandatory(arch)) {
                res.emplace_back(arch, moe);
            }
        }
    }
    return res;
}

int main(int argc, char ** argv) {
    if (argc == 2 && std::string(argv[1]) == "--list") {
        for (const auto & [arch, moe] : list_variants()) {
            printf("%s %s\n", llm_arch_name(arch), moe ? "moe" : "dense");
        }
        return 0;
    }
    const bool gpu = argc == 4 && std::string(argv[3]) == "gpu";
    if (argc != (gpu ? 4 : 3) || llm_arch_from_string(argv[1]) == LLM_ARCH_UNKNOWN) {
        fprintf(stderr, "usage: %s --list | ARCHITECTURE dense|moe [gpu]\n", argv[0]);
        return 2;
    }

    llama_log_set(
        [](ggml_log_level level, const char * text, void *) {
            if (level == GGML_LOG_LEVEL_ERROR) {
                fputs(text, stderr);
            }
        },
        nullptr);
    llama_backend_init();
    const json result = check_variant(llm_arch_from_string(argv[1]), std::string(argv[2]) == "moe", gpu);
    printf("%s\n", result.dump().c_str());
    llama_backend_free();

    return result["ok"] ? 0 : 1;
}
