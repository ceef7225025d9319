// One flash attention on the CPU, for counting its instructions: the shape of a model of 360M parameters, 15 query heads
// over 5 KV heads of 64.
//
//   flash-attention off|record|boost KV_TYPE N_QUERIES N_KV KEYS_PER_ROW [TIMES]
//
// What is done TIMES is the attention alone, so that the rest can be subtracted. Prints the number of keys that the pattern has in its rows on average.

#include "ggml-attn-emulation.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

static constexpr int64_t N_HEAD    = 15;
static constexpr int64_t N_HEAD_KV = 5;
static constexpr int64_t D_HEAD    = 64;

static ggml_type find_type(const std::string & name) {
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        if (name == ggml_type_name((ggml_type) i)) {
            return (ggml_type) i;
        }
    }
    fprintf(stderr, "there is no type %s\n", name.c_str());
    exit(2);
}

static void fill(ggml_tensor * tensor, std::mt19937 & random) {
    std::normal_distribution<float> normal;

    std::vector<float> values(ggml_nelements(tensor));
    for (float & value : values) {
        value = normal(random);
    }
    const int64_t row = tensor->ne[0];
    if (tensor->type == GGML_TYPE_F32) {
        memcpy(tensor->data, values.data(), ggml_nbytes(tensor));
    } else {
        ggml_quantize_chunk(tensor->type, values.data(), tensor->data, 0, values.size() / row, row, nullptr);
    }
}

int main(int argc, char ** argv) {
    if (argc < 6 || argc > 7) {
        fprintf(stderr, "usage: %s off|record|boost KV_TYPE N_QUERIES N_KV KEYS_PER_ROW [TIMES]\n", argv[0]);
        return 2;
    }
    const std::string mode         = argv[1];
    const ggml_type   type         = find_type(argv[2]);
    const int64_t     n_q          = atoi(argv[3]);
    const int64_t     n_kv         = atoi(argv[4]);
    const int64_t     keys_per_row = atoi(argv[5]);
    const int         times        = argc > 6 ? atoi(argv[6]) : 1;

    ggml_init_params init = { (size_t) 1 << 30, nullptr, false };
    ggml_context *   ctx  = ggml_init(init);

    // the layouts that llama.cpp gives it: heads beside each other for a token or a cell
    ggml_tensor * q    = ggml_permute(ctx, ggml_new_tensor_3d(ctx, GGML_TYPE_F32, D_HEAD, N_HEAD, n_q), 0, 2, 1, 3);
    ggml_tensor * k    = ggml_permute(ctx, ggml_new_tensor_3d(ctx, type, D_HEAD, N_HEAD_KV, n_kv), 0, 2, 1, 3);
    ggml_tensor * v    = ggml_permute(ctx, ggml_new_tensor_3d(ctx, type, D_HEAD, N_HEAD_KV, n_kv), 0, 2, 1, 3);
    ggml_tensor * mask = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, n_kv, n_q);

    std::mt19937 random(1);
    fill(q->src[0], random);
    fill(k->src[0], random);
    fill(v->src[0], random);
    for (int64_t i = 0; i < n_q; ++i) {
        for (int64_t j = 0; j < n_kv; ++j) {
            const bool visible                         = j <= n_kv - n_q + i;
            ((ggml_fp16_t *) mask->data)[i * n_kv + j] = ggml_fp32_to_fp16(visible ? 0.0f : -INFINITY);
        }
    }

    // sharp enough that some 20 keys of a row pass 0.01
    ggml_tensor * fa = ggml_flash_attn_ext(ctx, q, k, v, mask, 0.3f, 0.0f, 0.0f);
    ggml_prec_set_acc(fa, GGML_PREC_F32);

    ggml_tensor * pattern = ggml_attn_pattern_new(ctx, 0.01f, n_kv, n_q, N_HEAD, 1);
    if (mode == "record") {
        ggml_tensor * own = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, n_q);
        for (int64_t i = 0; i < n_q; ++i) {
            ((int32_t *) own->data)[i] = n_kv - n_q + i;
        }
        ggml_flash_attn_ext_record_pattern(fa, pattern, own, 0.01f);
    } else if (mode == "boost") {
        ggml_tensor * strength = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, n_q);
        ggml_tensor * gain     = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, N_HEAD);
        std::fill_n((float *) strength->data, n_q, 0.2f);
        std::fill_n((float *) gain->data, N_HEAD, 1.0f);
        for (int64_t row = 0; row < ggml_nrows(pattern); ++row) {
            int32_t *     list    = (int32_t *) ((char *) pattern->data + row * pattern->nb[1]);
            const int64_t visible = n_kv - n_q + row % n_q;
            list[0]               = std::min(keys_per_row, visible);
            for (int32_t i = 0; i < list[0]; ++i) {
                list[1 + i] = i * visible / list[0];
            }
        }
        ggml_flash_attn_ext_boost_pattern(fa, pattern, strength, gain, false);
    } else if (mode != "off") {
        fprintf(stderr, "the mode is %s; allowed are off, record, boost\n", mode.c_str());
        return 2;
    }

    ggml_cgraph * graph = ggml_new_graph(ctx);
    ggml_build_forward_expand(graph, fa);
    ggml_backend_t backend = ggml_backend_cpu_init();
    ggml_backend_cpu_set_n_threads(backend, 1);
    for (int i = 0; i < times; ++i) {
        ggml_backend_graph_compute(backend, graph);
    }

    if (mode != "off") {
        int64_t listed = 0;
        for (int64_t row = 0; row < ggml_nrows(pattern); ++row) {
            listed += *(const int32_t *) ((const char *) pattern->data + row * pattern->nb[1]);
        }
        printf("%.1f\n", (double) listed / ggml_nrows(pattern));
    }
    ggml_backend_free(backend);
    ggml_free(ctx);
    return 0;
}
