// A model that RPC servers compute against the same model computed here, with emulation and without.
//
//   rpc-against-local MODEL.gguf
//
// Two servers in threads of this process; the layers on both, on one, or half of them here; keys and values on the servers
// or here; fused and dense; strengths that change at every token while the servers repeat their graph. Both sides run the
// same code on the same numbers, so that the results are equal to the bit where the model's weights have one layout only.
// Where they have two, for the CPU and for others, the error must not grow by emulation.

#include "ggml-rpc.h"
#include "llama-attn-emulation.h"
#include "llama-cpp.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <random>
#include <string>
#include <thread>
#include <vector>

static const int n_prompt = 130;
static const int n_decode = 20;

static int n_failed = 0;
static int n_passed = 0;

static void check(bool ok, const std::string & what, double figure) {
    printf("%s  %-72s %.1e\n", ok ? "ok  " : "FAIL", what.c_str(), figure);
    (ok ? n_passed : n_failed)++;
}

static ggml_backend_dev_t start_server() {
    std::random_device random;
    while (true) {
        const std::string endpoint = "127.0.0.1:" + std::to_string(20000 + random() % 40000);
        std::thread([endpoint]() {
            ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
            ggml_backend_rpc_start_server(endpoint.c_str(), nullptr, 1, 1, &cpu); // returns where the port is in use
        }).detach();
        for (int i = 0; i < 100; ++i) {
            try {
                return ggml_backend_reg_dev_get(ggml_backend_rpc_add_server(endpoint.c_str()), 0);
            } catch (const std::exception &) {
                std::this_thread::sleep_for(std::chrono::milliseconds(20));
            }
        }
    }
}

struct run_options {
    bool emulate     = true;
    bool dense       = false;
    bool offload_kqv = true;
    bool varied      = true; // a strength of its own for each batch, else 0
};

struct run_result {
    std::vector<float> logits;
    bool               fused    = false;
    int                n_reused = 0;
};

static run_result run(llama_model * model, const std::vector<llama_token> & tokens, const run_options & options) {
    const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));

    llama_context_params params = llama_context_default_params();
    params.n_ctx                = 256;
    params.n_outputs_max        = n_prompt;
    params.n_threads            = 1;
    params.n_threads_batch      = 1;
    params.offload_kqv          = options.offload_kqv;
    params.flash_attn_type      = LLAMA_FLASH_ATTN_TYPE_ENABLED;

    llama_context_ptr ctx(llama_init_from_model(model, params));
    if (!ctx) {
        fprintf(stderr, "the context could not be created\n");
        exit(1);
    }

    int32_t n_layer, n_head;
    llama_attn_emulation_shape(ctx.get(), &n_layer, &n_head);
    const std::vector<float> gain((size_t) n_layer * n_head, 1.0f);
    if (options.emulate) {
        llama_attn_emulation_params emulation = llama_attn_emulation_default_params();
        emulation.strength                    = 0.0f;
        emulation.gain                        = gain.data();
        emulation.kernel = options.dense ? LLAMA_ATTN_EMULATION_KERNEL_DENSE : LLAMA_ATTN_EMULATION_KERNEL_AUTO;
        if (const char * error = llama_set_attn_emulation(ctx.get(), &emulation)) {
            fprintf(stderr, "%s\n", error);
            exit(1);
        }
    }

    run_result  result;
    llama_batch batch = llama_batch_init(n_prompt, 0, 1);
    for (int start = 0; start < (int) tokens.size(); start += batch.n_tokens) {
        if (options.emulate && options.varied) {
            llama_set_attn_emulation_strength(ctx.get(), 0.3f + 0.1f * (start % 7));
        }
        batch.n_tokens = start == 0 ? n_prompt : 1;
        for (int i = 0; i < batch.n_tokens; ++i) {
            batch.token[i]     = tokens[start + i];
            batch.pos[i]       = start + i;
            batch.n_seq_id[i]  = 1;
            batch.seq_id[i][0] = 0;
            batch.logits[i]    = true;
        }
        if (llama_decode(ctx.get(), batch) != 0) {
            fprintf(stderr, "decoding failed\n");
            exit(1);
        }
        for (int i = 0; i < batch.n_tokens; ++i) {
            const float * row = llama_get_logits_ith(ctx.get(), i);
            result.logits.insert(result.logits.end(), row, row + n_vocab);
        }
    }
    llama_batch_free(batch);

    std::vector<llama_attn_emulation_layer> layers(n_layer);
    result.fused =
        options.emulate && !llama_attn_emulation_report(ctx.get(), layers.data(), n_layer) && layers.back().fused;
    result.n_reused = llama_perf_context(ctx.get()).n_reused;

    return result;
}

static double nmse(const std::vector<float> & a, const std::vector<float> & b) {
    double error = 0.0;
    double scale = 0.0;
    for (size_t i = 0; i < a.size(); ++i) {
        error += ((double) a[i] - b[i]) * ((double) a[i] - b[i]);
        scale += (double) b[i] * b[i];
    }
    return error / scale;
}

static llama_model_ptr load(const char * path, std::vector<ggml_backend_dev_t> devices, int n_gpu_layers) {
    devices.push_back(nullptr);

    llama_model_params params = llama_model_default_params();
    params.devices            = devices.data();
    params.n_gpu_layers       = n_gpu_layers;

    llama_model_ptr model(llama_model_load_from_file(path, params));
    if (!model) {
        exit(1);
    }
    return model;
}

int main(int argc, char ** argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: %s MODEL.gguf\n", argv[0]);
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

    {
        const llama_model_ptr local   = load(argv[1], {}, 0);
        const int             n_layer = llama_model_n_layer(local.get());

        std::mt19937             random(1);
        std::vector<llama_token> tokens(n_prompt + n_decode);
        for (auto & token : tokens) {
            token = random() % llama_vocab_n_tokens(llama_model_get_vocab(local.get()));
        }

        ggml_backend_dev_t first  = start_server();
        ggml_backend_dev_t second = start_server();

        struct {
            const char *                    name;
            std::vector<ggml_backend_dev_t> devices;
            int                             n_gpu_layers;
        } const places[] = {
            { "both servers", { first, second }, n_layer + 1 },
            { "one server", { first }, n_layer + 1 },
            { "half here, one server", { first }, n_layer / 2 },
            { "half here, two servers", { first, second }, n_layer / 2 },
        };

        const auto local_plain = run(local.get(), tokens, { false });
        for (const auto & place : places) {
            const llama_model_ptr model = load(argv[1], place.devices, place.n_gpu_layers);

            for (const bool offload_kqv : { true, false }) {
                const std::string where = std::string(place.name) + (offload_kqv ? "" : ", keys and values here");

                run_options options;
                options.offload_kqv = offload_kqv;
                options.emulate     = false;
                const auto   plain  = run(model.get(), tokens, options);
                const double scale  = nmse(plain.logits, local_plain.logits);
                check(scale <= 5e-6, where + ": without emulation", scale);

                options.emulate = true;
                options.varied  = false;
                check(run(model.get(), tokens, options).logits == plain.logits, where + ": strength 0 changes nothing",
                    0.0);

                options.varied = true;
                for (const bool dense : { false, true }) {
                    options.dense            = dense;
                    run_options on_local     = options;
                    on_local.offload_kqv     = true;
                    const auto        here   = run(local.get(), tokens, on_local);
                    const auto        there  = run(model.get(), tokens, options);
                    const double      error  = nmse(there.logits, here.logits);
                    const double      effect = nmse(here.logits, local_plain.logits);
                    const std::string what   = where + (dense ? ": dense" : ": fused");

                    check(error <= 5 * scale, what, error);
                    check(effect > 10 * std::max(error, 1e-12), what + " has an effect", effect);
                    check(there.fused == !dense, what + " is what the report says", there.fused);
                    check(there.n_reused >= n_decode - 2, what + " repeats its graphs", there.n_reused);
                }
            }
        }
    }

    printf("\n%d passed, %d failed\n", n_passed, n_failed);
    fflush(stdout);
    std::_Exit(n_failed > 0); // the servers still wait for clients
}
