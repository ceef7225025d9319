// The fused kernels against the dense form, on any model: every path of the CPU's flash attention.
//
//   fused-against-dense MODEL.gguf [threshold [gpu]]
//
// With gpu, all layers are computed by the GPUs that there are.
//
// For each KV cache type: prefill in one batch, in uneven chunks and token by token, one and two threads, one and two
// sequences per batch, rows normalised or not; the other patterns in uneven chunks. The error between fused and dense is compared with the error between
// flash attention and plain attention without emulation: that is the tolerance's scale.

#include "llama-attn-emulation.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <vector>

struct run_options {
    bool emulate   = true;
    bool dense     = false;
    bool normalize = false;

    llama_attn_emulation_pattern pattern = LLAMA_ATTN_EMULATION_PATTERN_EARLY_LAYER;

    float            strength  = 1.0f;
    ggml_type        type_k    = GGML_TYPE_F16;
    ggml_type        type_v    = GGML_TYPE_F16;
    int              n_threads = 1;
    int              n_seqs    = 1;
    std::vector<int> chunks; // lengths, the last one repeats
};

static llama_model * model;
static float         threshold = 0.01f;
static int           n_failed  = 0;
static int           n_passed  = 0;

// logits of every position of the first sequence
static std::vector<float> run(const std::vector<std::vector<llama_token>> & sequences, const run_options & options) {
    const int n_tokens = sequences[0].size();
    const int n_vocab  = llama_vocab_n_tokens(llama_model_get_vocab(model));

    llama_context_params params = llama_context_default_params();
    params.n_ctx                = (n_tokens + 64) * options.n_seqs;
    params.n_batch              = n_tokens * options.n_seqs;
    params.n_ubatch             = n_tokens * options.n_seqs;
    params.n_seq_max            = options.n_seqs;
    params.n_outputs_max        = n_tokens * options.n_seqs;
    params.n_threads            = options.n_threads;
    params.n_threads_batch      = options.n_threads;
    params.type_k               = options.type_k;
    params.type_v               = options.type_v;
    params.flash_attn_type      = LLAMA_FLASH_ATTN_TYPE_ENABLED;

    llama_context * ctx = llama_init_from_model(model, params);
    if (!ctx) {
        fprintf(stderr, "the context could not be created\n");
        exit(1);
    }

    if (options.emulate) {
        // the same in every layer, as some models have only two
        int32_t n_layer, n_head;
        llama_attn_emulation_shape(ctx, &n_layer, &n_head);
        const std::vector<float> gain((size_t) n_layer * n_head, 1.0f);

        llama_attn_emulation_params emulation = llama_attn_emulation_default_params();
        emulation.threshold                   = threshold;
        emulation.strength                    = options.strength;
        emulation.normalize                   = options.normalize;
        emulation.pattern                     = options.pattern;
        emulation.gain                        = gain.data();
        emulation.kernel = options.dense ? LLAMA_ATTN_EMULATION_KERNEL_DENSE : LLAMA_ATTN_EMULATION_KERNEL_AUTO;
        if (const char * error = llama_set_attn_emulation(ctx, &emulation)) {
            fprintf(stderr, "%s\n", error);
            exit(1);
        }
    }

    std::vector<float> logits;
    llama_batch        batch   = llama_batch_init(n_tokens * options.n_seqs, 0, 1);
    size_t             i_chunk = 0;
    for (int start = 0; start < n_tokens;) {
        const int n    = std::min(options.chunks[std::min(i_chunk++, options.chunks.size() - 1)], n_tokens - start);
        batch.n_tokens = 0;
        for (int s = 0; s < options.n_seqs; ++s) {
            for (int i = 0; i < n; ++i) {
                batch.token[batch.n_tokens]     = sequences[s][start + i];
                batch.pos[batch.n_tokens]       = start + i;
                batch.n_seq_id[batch.n_tokens]  = 1;
                batch.seq_id[batch.n_tokens][0] = s;
                batch.logits[batch.n_tokens]    = true;
                batch.n_tokens++;
            }
        }
        if (llama_decode(ctx, batch) != 0) {
            fprintf(stderr, "decoding failed\n");
            exit(1);
        }
        for (int i = 0; i < n; ++i) {
            const float * row = llama_get_logits_ith(ctx, i);
            logits.insert(logits.end(), row, row + n_vocab);
        }
        start += n;
    }
    llama_batch_free(batch);
    llama_free(ctx);

    return logits;
}

// of the worst position
static double nmse(const std::vector<float> & a, const std::vector<float> & b) {
    const size_t n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    double       worst   = 0.0;
    for (size_t start = 0; start < a.size(); start += n_vocab) {
        double error = 0.0;
        double scale = 0.0;
        for (size_t i = start; i < start + n_vocab; ++i) {
            error += ((double) a[i] - b[i]) * ((double) a[i] - b[i]);
            scale += (double) b[i] * b[i];
        }
        const double ratio = error / scale;
        worst              = std::isfinite(ratio) ? std::max(worst, ratio) : std::numeric_limits<double>::infinity();
    }
    return worst;
}

static void check(bool ok, const std::string & what, const std::string & figures) {
    printf("%s  %-62s %s\n", ok ? "ok  " : "FAIL", what.c_str(), figures.c_str());
    (ok ? n_passed : n_failed)++;
}

static std::string figures(const char * format, double a, double b = 0.0, double c = 0.0) {
    char buffer[160];
    snprintf(buffer, sizeof(buffer), format, a, b, c);
    return buffer;
}

int main(int argc, char ** argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: %s MODEL.gguf [threshold [gpu]]\n", argv[0]);
        return 2;
    }
    if (argc > 2) {
        threshold = atof(argv[2]);
    }
    const bool gpu = argc > 3 && std::string(argv[3]) == "gpu";

    llama_log_set(
        [](ggml_log_level level, const char * text, void *) {
            if (level == GGML_LOG_LEVEL_ERROR) {
                fputs(text, stderr);
            }
        },
        nullptr);
    llama_backend_init();

    llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers       = gpu ? -1 : 0;
    model                           = llama_model_load_from_file(argv[1], model_params);
    if (!model) {
        return 1;
    }

    // 540 tokens: more than 512 cells, where decoding splits them among threads
    std::mt19937                          random(1);
    std::vector<std::vector<llama_token>> sequences(2);
    for (auto & sequence : sequences) {
        for (int i = 0; i < 540; ++i) {
            sequence.push_back(random() % llama_vocab_n_tokens(llama_model_get_vocab(model)));
        }
    }

    struct kv_types {
        ggml_type type_k;
        ggml_type type_v;
        bool      all_shapes;
    };

    // test/model/cache-types.test.ts has all others, with a model that coarse types make no noise in
    const std::vector<kv_types> kv_types = {
        { GGML_TYPE_F16, GGML_TYPE_F16, true },
        { GGML_TYPE_F32, GGML_TYPE_F32, false },
        { GGML_TYPE_BF16, GGML_TYPE_BF16, false },
        { GGML_TYPE_Q8_0, GGML_TYPE_Q8_0, true },
        { GGML_TYPE_Q4_0, GGML_TYPE_Q4_0, false },
        { GGML_TYPE_Q8_0, GGML_TYPE_F16, false },
        { GGML_TYPE_F16, GGML_TYPE_Q8_0, false },
        { GGML_TYPE_BF16, GGML_TYPE_Q5_1, false },
    };
    const std::vector<std::pair<const char *, std::vector<int>>> shapes = {
        { "uneven chunks", { 130, 7, 70, 1, 1, 63, 64, 65, 120, 1, 18 } },
        { "one batch", { 540 } },
        { "token by token", { 510, 1 } },
    };

    for (const auto & [type_k, type_v, all_shapes] : kv_types) {
        run_options options;
        options.type_k = type_k;
        options.type_v = type_v;

        // how far apart two right computations are: other kernels, without emulation
        options.emulate    = false;
        options.chunks     = { 540 };
        const auto plain   = run(sequences, options);
        options.chunks     = { 63 };
        const auto other   = run(sequences, options);
        options.emulate    = true;
        options.dense      = true;
        options.strength   = 0.0f;
        options.chunks     = { 540 };
        const double scale = std::max({ nmse(other, plain), nmse(run(sequences, options), plain), 1e-12 });
        options.dense      = false;

        // A GPU's dense form rounds in other ways than its flash attention, quantised keys' queries to 8 bits: other keys next to
        // the threshold pass it. What is wrong is off by as much as emulation does.
        const double share_of_effect = !gpu ? 0.0 : ggml_is_quantized(type_k) ? 0.2 : 0.15;
        const auto   limit_of        = [&](double effect) {
            return std::max(5 * scale, share_of_effect * effect);
        };
        const double least_effect = (gpu ? 2 : 10) * scale;

        const std::string types = std::string(ggml_type_name(type_k)) + "/" + ggml_type_name(type_v);

        const auto zero = run(sequences, options);
        if (gpu) {
            // what a device stores of a row for the boost may need other tiles
            check(nmse(zero, plain) <= 5 * scale, types + ": strength 0 is as without",
                figures("%.1e, limit %.1e", nmse(zero, plain), 5 * scale));
        } else {
            check(zero == plain, types + ": strength 0 is bit-identical", "");
        }
        options.strength = 1.0f;

        for (const bool normalize : { false, true }) {
            options.normalize = normalize;
            options.n_threads = 1;
            options.n_seqs    = 1;
            options.chunks    = { 540 };

            run_options reference = options;
            reference.dense       = true;
            if (type_k == GGML_TYPE_F32) {
                // flash attention rounds F32 keys and values to F16: other keys would pass the threshold without it
                reference.type_k = GGML_TYPE_F16;
                reference.type_v = GGML_TYPE_F16;
            }
            const auto dense = run(sequences, reference);

            const double effect = nmse(dense, plain);
            check(effect > least_effect, types + (normalize ? ", normalised" : "") + ": emulation has an effect",
                figures("%.1e, noise %.1e", effect, scale));
            const double limit = limit_of(effect);

            for (const auto & [name, chunks] : shapes) {
                for (const auto & [n_threads, n_seqs] : { std::pair{ 2, 1 }, std::pair{ 1, 2 } }) {
                    // the uneven chunks take every path of the CPU's: enough for types that go the same ways
                    if (!all_shapes && !gpu && (&chunks != &shapes[0].second || n_seqs > 1)) {
                        continue;
                    }
                    options.chunks     = chunks;
                    options.n_threads  = n_threads;
                    options.n_seqs     = n_seqs;
                    const double error = nmse(run(sequences, options), dense);
                    check(error <= limit,
                        types + (normalize ? ", normalised, " : ", ") + name + ", " + std::to_string(n_threads) +
                            " threads, " + std::to_string(n_seqs) + " sequences",
                        figures("%.1e, limit %.1e", error, limit));
                }
            }
        }

        for (const auto pattern : { LLAMA_ATTN_EMULATION_PATTERN_RANDOM, LLAMA_ATTN_EMULATION_PATTERN_FIRST_TOKEN }) {
            if (!all_shapes && !gpu) {
                continue;
            }
            options.pattern   = pattern;
            options.normalize = pattern == LLAMA_ATTN_EMULATION_PATTERN_FIRST_TOKEN;
            options.n_threads = 1;
            options.n_seqs    = 1;
            options.chunks    = { 540 };

            run_options reference = options;
            reference.dense       = true;
            if (type_k == GGML_TYPE_F32) {
                reference.type_k = GGML_TYPE_F16;
                reference.type_v = GGML_TYPE_F16;
            }
            const auto        dense = run(sequences, reference);
            const std::string name =
                types + (pattern == LLAMA_ATTN_EMULATION_PATTERN_RANDOM ? ", random" : ", first token");

            const double effect = nmse(dense, plain);
            check(effect > least_effect, name + " has an effect", figures("%.1e, noise %.1e", effect, scale));
            const double limit = limit_of(effect);

            options.chunks = shapes[0].second;
            for (const auto & [n_threads, n_seqs] : { std::pair{ 2, 1 }, std::pair{ 1, 2 } }) {
                options.n_threads  = n_threads;
                options.n_seqs     = n_seqs;
                const double error = nmse(run(sequences, options), dense);
                check(error <= limit,
                    name + ", " + std::to_string(n_threads) + " threads, " + std::to_string(n_seqs) + " sequences",
                    figures("%.1e, limit %.1e", error, limit));
            }
        }
    }

    llama_model_free(model);
    llama_backend_free();

    printf("\n%d passed, %d failed\n", n_passed, n_failed);
    return n_failed > 0;
}
