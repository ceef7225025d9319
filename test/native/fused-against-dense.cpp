// The fused kernels against the dense form, on any model: every path of the CPU's flash attention.
//
//   fused-against-dense MODEL.gguf [threshold [gpu]]
//
// With gpu, all layers are computed by the GPUs that there are.
//
// For each KV cache type: prefill in one batch, in uneven chunks and token by token, one and two threads, one and two
// sequences per batch, rows normalised or not; the other patterns in uneven chunks. The error between fused and dense is compared with the error between
// flash attention and plain attention without emulation: that is the tolerance's scale.
//
// Plain attention rounds queries to F16 and flash attention's tiles don't, so a weight next to the threshold passes it in one of them only.
// One threshold in three has no such weight among these 540 tokens, and which ones do depends on the machine's SIMD. On a CPU a check
// that fails is therefore made again at the next thresholds: what is wrong fails at all of them.

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

    float            threshold = 0.0f;
    float            strength  = 1.0f;
    ggml_type        type_k    = GGML_TYPE_F16;
    ggml_type        type_v    = GGML_TYPE_F16;
    int              n_threads = 1;
    int              n_seqs    = 1;
    int              n_most    = 540; // longer chunks are cut
    std::vector<int> chunks;          // lengths, the last one repeats
};

// how a sequence is cut into batches, and what computes them
struct shape {
    std::string      name;
    std::vector<int> chunks; // lengths, the last one repeats
    int              n_threads;
    int              n_seqs;
};

static llama_model * model;
static bool          gpu;
static float         threshold = 0.01f; // the first that is tried; each later one is 0.3 % higher
static int           n_failed  = 0;
static int           n_passed  = 0;

static std::vector<std::vector<llama_token>> sequences;

// logits of every position of the first sequence
static std::vector<float> run(const run_options & options) {
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
        emulation.threshold                   = options.threshold;
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
    int                n_left  = 0;
    for (int start = 0; start < n_tokens;) {
        if (n_left == 0) {
            n_left = options.chunks[std::min(i_chunk++, options.chunks.size() - 1)];
        }
        const int n = std::min({ n_left, options.n_most, n_tokens - start });
        n_left -= n;
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

// each shape against the dense form in one batch; scale: of the noise
static void check_against_dense(run_options options, const std::string & name, const std::vector<float> & plain,
    double scale, const std::vector<shape> & shapes) {
    const auto threshold_of = [&](size_t i_try) {
        return threshold * (float) std::pow(1.003, i_try);
    };

    run_options reference = options;
    reference.dense       = true;
    reference.n_threads   = 1;
    reference.n_seqs      = 1;
    reference.chunks      = { (int) sequences[0].size() };
    if (options.type_k == GGML_TYPE_F32) {
        // flash attention rounds F32 keys and values to F16: other keys would pass the threshold without it
        reference.type_k = GGML_TYPE_F16;
        reference.type_v = GGML_TYPE_F16;
    }
    std::vector<std::vector<float>> dense; // of each threshold so far
    const auto                      dense_of = [&](size_t i_try) -> const std::vector<float> & {
        if (i_try == dense.size()) {
            reference.threshold = threshold_of(i_try);
            dense.push_back(run(reference));
        }
        return dense[i_try];
    };

    const double effect = nmse(dense_of(0), plain);
    check(effect > (gpu ? 2 : 10) * scale, name + ": emulation has an effect",
        figures("%.1e, noise %.1e", effect, scale));

    // A GPU's dense form rounds in other ways than its flash attention, quantised keys' queries to 8 bits: other keys next to
    // any threshold pass it. What is wrong is off by as much as emulation does.
    const double share_of_effect = !gpu ? 0.0 : ggml_is_quantized(options.type_k) ? 0.2 : 0.15;
    const double limit           = std::max(5 * scale, share_of_effect * effect);
    const size_t n_tries         = gpu ? 1 : 20;

    for (const shape & shape : shapes) {
        options.chunks    = shape.chunks;
        options.n_threads = shape.n_threads;
        options.n_seqs    = shape.n_seqs;

        double error = 0.0;
        size_t i_try = 0;
        do {
            options.threshold = threshold_of(i_try);
            error             = nmse(run(options), dense_of(i_try));
        } while (error > limit && ++i_try < n_tries);
        check(error <= limit, name + ", " + shape.name,
            figures("%.1e, limit %.1e, threshold %.4f", error, limit, options.threshold));
    }
}

int main(int argc, char ** argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: %s MODEL.gguf [threshold [gpu]]\n", argv[0]);
        return 2;
    }
    if (argc > 2) {
        threshold = atof(argv[2]);
    }
    gpu = argc > 3 && std::string(argv[3]) == "gpu";

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
    std::mt19937 random(1);
    sequences.resize(2);
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
    std::vector<shape> shapes;
    for (const auto & [name, chunks] : std::vector<std::pair<std::string, std::vector<int>>>{
             { "uneven chunks", { 130, 7, 70, 1, 1, 63, 64, 65, 120, 1, 18 } },
             { "one batch", { 540 } },
             { "token by token", { 510, 1 } },
         }) {
        shapes.push_back({ name + ", 2 threads, 1 sequences", chunks, 2, 1 });
        shapes.push_back({ name + ", 1 threads, 2 sequences", chunks, 1, 2 });
    }
    const std::vector<shape> uneven(shapes.begin(), shapes.begin() + 2);

    for (const auto & [type_k, type_v, all_shapes] : kv_types) {
        run_options options;
        options.threshold = threshold;
        options.type_k    = type_k;
        options.type_v    = type_v;

        if (!gpu && type_k != GGML_TYPE_F16 && type_k != GGML_TYPE_F32) {
            // plain attention rounds queries much more for these keys than tiles, which have no rounding: none of 64 rows or more
            options.n_most = 63;
        }

        // how far apart two right computations are: other kernels, without emulation
        options.emulate    = false;
        options.chunks     = { 540 };
        const auto plain   = run(options);
        options.chunks     = { 50 };
        const auto other   = run(options);
        options.emulate    = true;
        options.dense      = true;
        options.strength   = 0.0f;
        options.chunks     = { 540 };
        const double scale = std::max({ nmse(other, plain), nmse(run(options), plain), 1e-12 });
        options.dense      = false;

        const std::string types = std::string(ggml_type_name(type_k)) + "/" + ggml_type_name(type_v);

        const auto zero = run(options);
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
            // the uneven chunks take every path of the CPU's: enough for types that go the same ways
            check_against_dense(options, types + (normalize ? ", normalised" : ""), plain, scale,
                all_shapes || gpu ? shapes : std::vector<shape>{ uneven[0] });
        }
        if (all_shapes || gpu) {
            options.pattern   = LLAMA_ATTN_EMULATION_PATTERN_RANDOM;
            options.normalize = false;
            check_against_dense(options, types + ", random", plain, scale, uneven);
            options.pattern   = LLAMA_ATTN_EMULATION_PATTERN_FIRST_TOKEN;
            options.normalize = true;
            check_against_dense(options, types + ", first token", plain, scale, uneven);
        }
    }

    llama_model_free(model);
    llama_backend_free();

    printf("\n%d passed, %d failed\n", n_passed, n_failed);
    return n_failed > 0;
}
