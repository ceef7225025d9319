// A device without the fused kernels: emulation is computed in the dense form, by the device.
//
//   gpu-fallback MODEL.gguf
//
// The kernels are denied to GPUs, as a backend does that has none; or only each operation that needs them, as one does that has kernels,
// but finds this model's operations too large for them. With flash attention and without, with caches of 16 bits and
// quantised: the report says dense, the scheduler cuts the graph in no more parts than without emulation, so that nothing goes to the
// CPU and back, and the logits are those of the CPU.

#include "ggml-attn-emulation.h"
#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "llama-attn-emulation.h"
#include "llama-context.h"
#include "llama-cpp.h"

#include <cstdio>
#include <random>
#include <string>
#include <vector>

static const int n_tokens = 150;

static int n_passed = 0;
static int n_failed = 0;

static void check(bool ok, const std::string & what, double value, double limit) {
    printf("%s  %-70s %.2g, limit %.2g\n", ok ? "ok  " : "FAIL", what.c_str(), value, limit);
    fflush(stdout);
    (ok ? n_passed : n_failed)++;
}

static llama_model_ptr load(const char * path, bool gpu) {
    // with a GPU at hand, large batches of a model on the CPU go there, too
    ggml_backend_dev_t no_device[] = { nullptr };
    llama_model_params params      = llama_model_default_params();
    params.devices                 = gpu ? nullptr : no_device;
    return llama_model_ptr(llama_model_load_from_file(path, params));
}

struct result {
    std::vector<float> logits; // of all positions
    int                n_splits;
    int                n_emulated = 0;
    int                n_fused    = 0;
};

static result run(const llama_model * model, llama_flash_attn_type flash_attn, ggml_type type, bool emulate) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx                = 256;
    params.n_batch              = n_tokens;
    params.n_ubatch             = n_tokens;
    params.n_outputs_max        = n_tokens;
    params.n_threads            = 1;
    params.n_threads_batch      = 1;
    params.flash_attn_type      = flash_attn;
    params.type_k               = type;
    params.type_v               = type;
    llama_context_ptr ctx(llama_init_from_model(const_cast<llama_model *>(model), params));
    GGML_ASSERT(ctx);

    if (emulate) {
        int32_t n_layer, n_head;
        llama_attn_emulation_shape(ctx.get(), &n_layer, &n_head);
        const std::vector<float> gain((size_t) n_layer * n_head, 1.0f);

        llama_attn_emulation_params emulation = llama_attn_emulation_default_params();
        emulation.strength                    = 1.0f;
        emulation.gain                        = gain.data();
        GGML_ASSERT(llama_set_attn_emulation(ctx.get(), &emulation) == nullptr);
    }

    std::mt19937             random(1);
    std::vector<llama_token> tokens(n_tokens);
    const int                n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    for (llama_token & token : tokens) {
        token = random() % n_vocab;
    }
    llama_batch batch = llama_batch_init(n_tokens, 0, 1);
    batch.n_tokens    = n_tokens;
    for (int i = 0; i < n_tokens; ++i) {
        batch.token[i]     = tokens[i];
        batch.pos[i]       = i;
        batch.n_seq_id[i]  = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i]    = true;
    }
    GGML_ASSERT(llama_decode(ctx.get(), batch) == 0);
    llama_batch_free(batch);

    result        res;
    const float * logits = llama_get_logits(ctx.get());
    res.logits.assign(logits, logits + (size_t) n_tokens * n_vocab);
    res.n_splits = ggml_backend_sched_get_n_splits(ctx->get_sched());
    if (emulate) {
        std::vector<llama_attn_emulation_layer> layers(llama_model_n_layer(model));
        GGML_ASSERT(!llama_attn_emulation_report(ctx.get(), layers.data(), layers.size()));
        for (const auto & layer : layers) {
            res.n_emulated += layer.emulated;
            res.n_fused += layer.emulated && layer.fused;
        }
    }
    return res;
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

static void check_dense(
    const std::string & name, const result & on, const result & off, const result & ref, const result & ref_off) {
    check(on.n_emulated > 0 && on.n_emulated == ref.n_emulated, name + ": layers emulated", on.n_emulated,
        ref.n_emulated);
    check(on.n_fused == 0, name + ": layers fused", on.n_fused, 0);
    check(on.n_splits == off.n_splits, name + ": parts of the graph", on.n_splits, off.n_splits);

    const double noise  = nmse(off.logits, ref_off.logits);
    const double effect = nmse(on.logits, off.logits);
    const double error  = nmse(on.logits, ref.logits);
    check(effect > 20 * noise, name + ": emulation has an effect", effect, 20 * noise);
    check(error <= 0.05 * effect, name + ": logits as on the CPU", error, 0.05 * effect);
}

int main(int argc, char ** argv) {
    if (argc != 2) {
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

    const llama_model_ptr gpu     = load(argv[1], true);
    const llama_model_ptr cpu     = load(argv[1], false);
    const bool            has_gpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_GPU) ||
        ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_IGPU);
    if (!gpu || !cpu || !has_gpu) {
        fprintf(stderr, "%s\n", gpu && cpu ? "there is no GPU" : "the model can't be loaded");
        return 1;
    }

    for (const ggml_type type : { GGML_TYPE_F16, GGML_TYPE_Q8_0 }) {
        for (const llama_flash_attn_type flash_attn :
            { LLAMA_FLASH_ATTN_TYPE_ENABLED, LLAMA_FLASH_ATTN_TYPE_DISABLED }) {
            const bool flash = flash_attn == LLAMA_FLASH_ATTN_TYPE_ENABLED;
            if (type != GGML_TYPE_F16 && !flash) {
                continue; // llama.cpp refuses it
            }
            const std::string name =
                std::string(ggml_type_name(type)) + (flash ? ", flash attention" : ", no flash attention");

            const result off     = run(gpu.get(), flash_attn, type, false);
            const result ref_off = run(cpu.get(), flash_attn, type, false);
            const result ref     = run(cpu.get(), flash_attn, type, true);

            for (const auto lack :
                { GGML_ATTN_EMULATION_GPU_LACKS_KERNELS, GGML_ATTN_EMULATION_GPU_LACKS_OPERATIONS }) {
                const bool kernels = lack == GGML_ATTN_EMULATION_GPU_LACKS_KERNELS;
                if (!kernels && !flash) {
                    continue; // there is no such operation
                }
                ggml_attn_emulation_set_gpu_lack(lack);
                check_dense(name + (kernels ? ", no kernels" : ", no operations"),
                    run(gpu.get(), flash_attn, type, true), off, ref, ref_off);
                ggml_attn_emulation_set_gpu_lack(GGML_ATTN_EMULATION_GPU_LACKS_NOTHING);
            }
        }
    }
    printf("%d passed, %d failed\n", n_passed, n_failed);
    return n_failed > 0;
}
