// Short blocks of work on a model, one for each line of standard input, so that two builds of llama.cpp can take turns:
//
//   run-blocks MODEL.gguf THREADS CONTEXT wall|cpu [KV_TYPE] [flash|dense]
//
//   prefill N      a prompt of N tokens in an empty context
//   fill N         the same, but only to decode on top of it
//   save FILE      the context as it was filled, and
//   load FILE N    such a one again, of N tokens
//   append N       N tokens as one batch; then the context is as it was
//   decode N       N tokens, one by one, each of them timed; then the context is as it was
//   steer S        emulation with strength S and the defaults from here on, where the build has it; 0: none
//   logits N M     a prompt of N tokens and M more, one by one, with the logits of all
//
// The answer is a line of JSON: `seconds` of each piece of work, as time passes or as all threads together compute, and a
// hash of all logits that it yielded.

#include "llama.h"

#if __has_include("llama-attn-emulation.h")
#include "llama-attn-emulation.h"
#define HAS_EMULATION
#endif

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

static llama_context * ctx;
static bool            cpu_time = false;

static uint64_t hash = 0;

// FNV-1a of the bits of the last batch's logits
static void add_logits_to_hash(int n_outputs) {
    const auto * bytes = reinterpret_cast<const unsigned char *>(llama_get_logits(ctx));
    const size_t size  = sizeof(float) * llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(ctx))) * n_outputs;
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ bytes[i]) * 1099511628211ull;
    }
}

// the tokens at the positions from begin to end, the same ones at each call
static void evaluate(int begin, int end, bool all_logits = false) {
    llama_batch batch = llama_batch_init(end - begin, 0, 1);

    const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(ctx)));
    for (int position = begin; position < end; position++) {
        const int i        = batch.n_tokens++;
        batch.token[i]     = std::minstd_rand(1 + position)() % n_vocab;
        batch.pos[i]       = position;
        batch.n_seq_id[i]  = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i]    = all_logits || position == end - 1;
    }
    if (llama_decode(ctx, batch) != 0) {
        fprintf(stderr, "run-blocks: llama_decode failed at position %d\n", begin);
        exit(1);
    }
    llama_synchronize(ctx);
    llama_batch_free(batch);
}

static void evaluate_prompt(int n_tokens, bool all_logits = false) {
    llama_memory_clear(llama_get_memory(ctx), false);

    const int n_batch = llama_n_batch(ctx);
    for (int begin = 0; begin < n_tokens; begin += n_batch) {
        const int end = std::min(begin + n_batch, n_tokens);
        evaluate(begin, end, all_logits);
        if (all_logits) {
            add_logits_to_hash(end - begin);
        }
    }
}

static double now() {
    return cpu_time ? double(std::clock()) / CLOCKS_PER_SEC :
                      std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <typename F>
static double time(F action) {
    const double start = now();
    action();
    return now() - start;
}

// What comes on top of a filled context. The name is what callgrind is told to count.
extern "C" __attribute__((noinline)) void evaluate_on_top(int begin, int end) {
    evaluate(begin, end);
}

static void fail(const std::string & what) {
    fprintf(stderr, "run-blocks: %s\n", what.c_str());
    exit(1);
}

static std::vector<double> run_block(const std::string & line, int & n_filled) {
    std::string        name;
    std::string        argument;
    int                n_more = 0;
    std::istringstream words(line);
    words >> name >> argument >> n_more;
    const float first    = atof(argument.c_str());
    const int   n_tokens = int(first);

    std::vector<double> seconds;
    if (name == "prefill" || name == "fill") {
        seconds.push_back(time([&] { evaluate_prompt(n_tokens); }));
        n_filled = n_tokens;
        if (n_tokens > 0) {
            add_logits_to_hash(1);
        }
    } else if (name == "save") {
        if (!llama_state_save_file(ctx, argument.c_str(), nullptr, 0)) {
            fail("cannot write " + argument);
        }
    } else if (name == "load") {
        size_t n_prompt = 0;
        if (!llama_state_load_file(ctx, argument.c_str(), nullptr, 0, &n_prompt)) {
            fail("cannot read " + argument);
        }
        n_filled = n_more;
    } else if (name == "append" || name == "decode") {
        const int n_at_once = name == "append" ? n_tokens : 1;
        evaluate(n_filled, n_filled + 1); // wakes the threads, and makes room for graphs after a change
        llama_memory_seq_rm(llama_get_memory(ctx), 0, n_filled, -1);
        for (int i = 0; i < n_tokens; i += n_at_once) {
            seconds.push_back(time([&] { evaluate_on_top(n_filled + i, n_filled + i + n_at_once); }));
            add_logits_to_hash(1);
        }
        llama_memory_seq_rm(llama_get_memory(ctx), 0, n_filled, -1);
    } else if (name == "logits") {
        evaluate_prompt(n_tokens, true);
        for (int i = 0; i < n_more; i++) {
            evaluate(n_tokens + i, n_tokens + i + 1);
            add_logits_to_hash(1);
        }
        n_filled = n_tokens + n_more;
#ifdef HAS_EMULATION
    } else if (name == "steer") {
        llama_attn_emulation_params params = llama_attn_emulation_default_params();
        params.strength                    = first;
        const char * refusal               = llama_set_attn_emulation(ctx, first == 0.0f ? nullptr : &params);
        if (refusal != nullptr) {
            fail(refusal);
        }
#endif
    } else {
        fprintf(stderr, "run-blocks: there is no block \"%s\"\n", name.c_str());
        exit(2);
    }
    return seconds;
}

static ggml_type find_type(const std::string & name) {
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        if (name == ggml_type_name(ggml_type(i))) {
            return ggml_type(i);
        }
    }
    fprintf(stderr, "run-blocks: there is no type \"%s\"\n", name.c_str());
    exit(2);
}

int main(int argc, char ** argv) {
    if (argc < 5 || argc > 7) {
        fprintf(stderr, "usage: run-blocks MODEL.gguf THREADS CONTEXT wall|cpu [KV_TYPE] [flash|dense]\n");
        return 2;
    }
    cpu_time = std::string(argv[4]) == "cpu";
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_backend_init();

    llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers       = 0;
    llama_model * model             = llama_model_load_from_file(argv[1], model_params);
    if (model == nullptr) {
        fprintf(stderr, "run-blocks: cannot load %s\n", argv[1]);
        return 1;
    }

    // as node-llama-cpp sets them
    llama_context_params params = llama_context_default_params();
    params.n_ctx                = atoi(argv[3]);
    params.n_batch = params.n_ubatch = std::min<uint32_t>(params.n_ctx, 512);
    params.n_threads                 = atoi(argv[2]);
    params.n_threads_batch           = params.n_threads;
    params.flash_attn_type           = LLAMA_FLASH_ATTN_TYPE_AUTO;
    if (argc > 5) {
        params.type_k = params.type_v = find_type(argv[5]);
    }
    if (argc > 6) {
        params.flash_attn_type =
            std::string(argv[6]) == "dense" ? LLAMA_FLASH_ATTN_TYPE_DISABLED : LLAMA_FLASH_ATTN_TYPE_ENABLED;
    }
    ctx = llama_init_from_model(model, params);
    if (ctx == nullptr) {
        fprintf(stderr, "run-blocks: cannot make a context\n");
        return 1;
    }

    int n_filled = 0;
    for (std::string line; std::getline(std::cin, line);) {
        hash                              = 14695981039346656037ull;
        const std::vector<double> seconds = run_block(line, n_filled);

        printf("{\"seconds\":[");
        for (size_t i = 0; i < seconds.size(); i++) {
            printf("%s%.9f", i == 0 ? "" : ",", seconds[i]);
        }
        printf("],\"hash\":\"%016" PRIx64 "\"}\n", hash);
        fflush(stdout);
    }
    llama_free(ctx);
    llama_model_free(model);
    llama_backend_free();
    return 0;
}
