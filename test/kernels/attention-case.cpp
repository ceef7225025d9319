#include "attention-case.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <random>
#include <utility>

float attention_case::scale() const {
    return 1.0f / std::sqrt((float) d_k);
}

float attention_case::slope(int64_t head) const {
    if (max_bias <= 0.0f) {
        return 1.0f;
    }
    const int64_t n  = (int64_t) 1 << (int) std::floor(std::log2((double) n_head));
    const float   m0 = std::pow(2.0f, -max_bias / n);
    const float   m1 = std::pow(2.0f, -max_bias / 2.0f / n);
    return head < n ? std::pow(m0, head + 1) : std::pow(m1, 2 * (head - n) + 1);
}

int32_t attention_case::own_of(int64_t row) const {
    const int64_t i      = row % n_q;
    const int64_t stream = row / n_q / n_head;
    // streams are filled unevenly
    return mask ? std::max<int64_t>(n_kv - n_q + i - stream * 3, 0) : n_kv - n_q + i;
}

std::vector<attention_case> attention_cases() {
    std::vector<attention_case> cases;

    const auto add = [&](const std::string & name, auto && change) {
        attention_case c;
        change(c);
        // with and without few and many queries
        c.in_graph = cases.size() % 3 == 1;
        c.name     = name + (c.in_graph ? ", as in a graph" : "");
        cases.push_back(c);
    };

    const auto add_sizes = [&](int64_t n_q, int64_t n_kv) {
        add("queries " + std::to_string(n_q) + ", cells " + std::to_string(n_kv), [&](attention_case & c) {
            c.n_q  = n_q;
            c.n_kv = n_kv;
        });
    };

    // numbers of queries and cells, also those that fill no tile
    for (const int64_t n_q : { 1, 2, 7, 33, 70 }) {
        for (const int64_t n_kv : { 5, 96, 256, 1031 }) {
            if (n_q <= n_kv) {
                add_sizes(n_q, n_kv);
            }
        }
    }
    // around the sizes that a tile, and that cells shared among threads begin with
    for (const auto & [n_q, n_kv] :
        std::vector<std::pair<int64_t, int64_t>>{ { 1, 63 }, { 1, 64 }, { 1, 65 }, { 1, 511 }, { 1, 512 }, { 1, 513 },
            { 63, 64 }, { 64, 64 }, { 64, 65 }, { 65, 513 }, { 63, 511 }, { 128, 512 } }) {
        add_sizes(n_q, n_kv);
    }
    // more threads than have cells: of 24, the last has none
    for (const int n_threads : { 3, 24 }) {
        for (const bool sinks : { false, true }) {
            add("cells 529, threads " + std::to_string(n_threads) + (sinks ? ", sinks" : ""), [&](attention_case & c) {
                c.n_kv      = 529;
                c.n_threads = n_threads;
                c.sinks     = sinks;
            });
        }
    }
    // a list has room for one cell, and the only one is the query's own
    add("one cell", [](attention_case & c) {
        c.n_kv     = 1;
        c.n_stream = 2;
    });
    add("long decode", [](attention_case & c) { c.n_kv = 4096; });
    // most blocks of cells have none that is listed
    for (const ggml_type type : { GGML_TYPE_F16, GGML_TYPE_F32, GGML_TYPE_Q8_0 }) {
        add(std::string("few of many cells are listed, ") + ggml_type_name(type), [&](attention_case & c) {
            c.type_k = c.type_v = type;
            c.n_q               = 2; // with strengths above 0
            c.n_kv              = 2048;
            c.n_stream          = 2;
            c.sinks             = true;
        });
        add(std::string("decode, few of many cells are listed, ") + ggml_type_name(type), [&](attention_case & c) {
            c.type_k = c.type_v = type;
            c.n_kv              = 4096;
            c.max_bias          = 8.0f;
        });
    }

    // more rows than GPUs of today take for few
    for (const int64_t d : { 64, 128 }) {
        add("many rows, head size " + std::to_string(d), [&](attention_case & c) {
            c.d_k = c.d_v = d;
            c.n_q         = 200;
        });
    }

    for (const ggml_type type : { GGML_TYPE_F32, GGML_TYPE_BF16, GGML_TYPE_Q8_0, GGML_TYPE_Q5_1, GGML_TYPE_Q5_0,
             GGML_TYPE_Q4_1, GGML_TYPE_Q4_0, GGML_TYPE_IQ4_NL, GGML_TYPE_MXFP4 }) {
        // from 64 on the CPU computes in tiles
        for (const int64_t n_q : { 1, 70 }) {
            add(std::string(ggml_type_name(type)) + ", queries " + std::to_string(n_q), [&](attention_case & c) {
                c.type_k = type;
                c.type_v = type;
                c.n_q    = n_q;
                c.n_kv   = n_q == 1 ? 544 : 300;
            });
        }
    }
    // the CPU unpacks a key once for up to four heads
    for (const ggml_type type : { GGML_TYPE_Q8_0, GGML_TYPE_Q4_0 }) {
        for (const int64_t n_share : { 1, 2, 4, 5 }) {
            add(std::string(ggml_type_name(type)) + ", heads that share keys: " + std::to_string(n_share),
                [&](attention_case & c) {
                    c.type_k = c.type_v = type;
                    c.n_head_kv         = 2;
                    c.n_head            = 2 * n_share;
                    c.n_kv              = 333;
                });
        }
    }
    for (const auto & [type_k, type_v] :
        std::vector<std::pair<ggml_type, ggml_type>>{ { GGML_TYPE_Q8_0, GGML_TYPE_F16 },
            { GGML_TYPE_F16, GGML_TYPE_Q8_0 }, { GGML_TYPE_Q8_0, GGML_TYPE_Q4_0 } }) {
        for (const int64_t n_q : { 1, 70 }) {
            add(std::string(ggml_type_name(type_k)) + " keys, " + ggml_type_name(type_v) + " values, queries " +
                    std::to_string(n_q),
                [&](attention_case & c) {
                    c.type_k = type_k;
                    c.type_v = type_v;
                    c.n_q    = n_q;
                });
        }
    }
    for (const ggml_type type : { GGML_TYPE_Q8_0, GGML_TYPE_Q4_0 }) {
        for (const int64_t d : { 96, 256 }) {
            for (const int64_t n_q : { 1, 70 }) {
                add(std::string(ggml_type_name(type)) + ", head size " + std::to_string(d) + ", queries " +
                        std::to_string(n_q),
                    [&](attention_case & c) {
                        c.type_k = c.type_v = type;
                        c.d_k = c.d_v = d;
                        c.n_q         = n_q;
                    });
            }
        }
    }

    for (const int64_t d : { 32, 40, 80, 96, 112, 128, 256 }) {
        for (const int64_t n_q : { 1, 70 }) {
            add("head size " + std::to_string(d) + ", queries " + std::to_string(n_q), [&](attention_case & c) {
                c.d_k = d;
                c.d_v = d;
                c.n_q = n_q;
            });
        }
    }
    // the CPU's threads share a decoded row's cells: each adds its part of the sum, and one of them the sink
    for (const ggml_type type : { GGML_TYPE_F16, GGML_TYPE_F32 }) {
        for (const bool sinks : { false, true }) {
            for (const bool turn_off : { false, true }) {
                for (const bool normalize : { false, true }) {
                    if (sinks || turn_off || normalize) {
                        add(std::string("decode, ") + ggml_type_name(type) + (sinks ? ", sinks" : "") +
                                (turn_off ? ", turned off" : "") + (normalize ? ", normalized" : ""),
                            [&](attention_case & c) {
                                c.type_k = c.type_v = type;
                                c.n_kv              = 1031;
                                c.sinks             = sinks;
                                c.turn_off          = turn_off;
                                c.normalize         = normalize;
                            });
                    }
                }
            }
        }
    }
    for (const int64_t n_q : { 1, 70 }) {
        const std::string queries = ", queries " + std::to_string(n_q);

        for (const ggml_type type : { GGML_TYPE_F16, GGML_TYPE_Q8_0 }) {
            add("MLA" + queries + (type == GGML_TYPE_F16 ? "" : ", q8_0"), [&](attention_case & c) {
                c.type_k = c.type_v = type;
                c.d_k               = 576;
                c.d_v               = 512;
                c.n_head            = 16;
                c.n_head_kv         = 1;
                c.n_q               = n_q;
                c.mla               = true;
            });
        }
        add("keys of 192, values of 128" + queries, [&](attention_case & c) {
            c.d_k    = 192;
            c.d_v    = 128;
            c.n_head = c.n_head_kv = 8;
            c.n_q                  = n_q;
        });
        add("every head its own keys" + queries, [&](attention_case & c) {
            c.n_head = c.n_head_kv = 4;
            c.n_q                  = n_q;
        });
        add("8 heads to a key head" + queries, [&](attention_case & c) {
            c.n_head    = 8;
            c.n_head_kv = 1;
            c.n_q       = n_q;
        });
        add("sinks" + queries, [&](attention_case & c) {
            c.sinks = true;
            c.n_q   = n_q;
        });
        // CUDA's flash attention has no soft cap for smaller heads
        add("soft cap" + queries, [&](attention_case & c) {
            c.logit_softcap = 10.0f;
            c.d_k = c.d_v = 128;
            c.n_q         = n_q;
        });
        add("ALiBi" + queries, [&](attention_case & c) {
            c.max_bias = 8.0f;
            c.n_q      = n_q;
        });
        add("ALiBi, sinks" + queries, [&](attention_case & c) {
            c.max_bias = 8.0f;
            c.sinks    = true;
            c.n_q      = n_q;
        });
        add("ALiBi, 3 streams" + queries, [&](attention_case & c) {
            c.max_bias = 8.0f;
            c.n_stream = 3;
            c.n_q      = n_q;
        });
        // more and more weights that are above the threshold only until others follow
        add("rising rows" + queries, [&](attention_case & c) {
            c.max_bias  = 8.0f;
            c.sharpness = 0.1f;
            c.n_kv      = 1024;
            c.n_q       = n_q;
        });
        // whole tiles are left out, with cells in them that a pattern lists
        add("sliding window" + queries, [&](attention_case & c) {
            c.window = 200;
            c.n_kv   = 1031;
            c.n_q    = n_q;
        });
        add("no mask" + queries, [&](attention_case & c) {
            c.mask = false;
            c.n_q  = n_q;
        });
        add("3 streams" + queries, [&](attention_case & c) {
            c.n_stream = 3;
            c.n_q      = n_q;
        });
        add("streams, sinks, soft cap, q8_0, normalized" + queries, [&](attention_case & c) {
            c.n_stream      = 2;
            c.sinks         = true;
            c.logit_softcap = 12.0f;
            c.d_k = c.d_v = 128;
            c.type_k = c.type_v = GGML_TYPE_Q8_0;
            c.normalize         = true;
            c.n_q               = n_q;
        });
        add("normalized" + queries, [&](attention_case & c) {
            c.normalize = true;
            c.n_q       = n_q;
        });
        // large components that all keys have, as biases make them: rounding a query changes all scores of its row alike
        for (const auto & [type, common] : std::vector<std::pair<ggml_type, float>>{
                 { GGML_TYPE_F16, 1234.567f }, { GGML_TYPE_Q8_0, 33.333f }, { GGML_TYPE_Q4_0, 33.333f } }) {
            add(std::string("common score, ") + ggml_type_name(type) + queries, [&](attention_case & c) {
                c.type_k = c.type_v = type;
                c.common            = common;
                c.n_q               = n_q;
            });
        }
        // more than F16 can hold: 1000 times the sum of a row's listed values
        for (const bool normalize : { false, true }) {
            add("large weights" + std::string(normalize ? ", normalized" : "") + queries, [&](attention_case & c) {
                c.large     = true;
                c.normalize = normalize;
                c.sharpness = 0.1f;
                c.n_kv      = 90;
                c.n_q       = n_q;
            });
        }
        add("turned off, sinks, normalized" + queries, [&](attention_case & c) {
            c.turn_off  = true;
            c.sinks     = true;
            c.normalize = true;
            c.n_q       = n_q;
        });
        add("turned off, normalized" + queries, [&](attention_case & c) {
            c.turn_off  = true;
            c.normalize = true;
            c.sharpness = 0.1f;
            c.n_kv      = 90;
            c.n_q       = n_q;
        });
        add("turned off, next to nothing remains, normalized" + queries, [&](attention_case & c) {
            c.turn_off  = true;
            c.normalize = true;
            c.sharpness = 10.0f;
            c.threshold = 1e-8f;
            c.type_k = c.type_v = GGML_TYPE_F32;
            c.n_q               = n_q;
        });
        add("flat rows, nothing is listed" + queries, [&](attention_case & c) {
            c.sharpness = 0.1f;
            c.n_kv      = 1024;
            c.n_q       = n_q;
        });
        add("most keys are listed" + queries, [&](attention_case & c) {
            c.sharpness = 0.1f;
            c.n_kv      = 64;
            c.n_q       = n_q;
        });
        add("low threshold" + queries, [&](attention_case & c) {
            c.threshold = 0.0005f;
            c.n_kv      = 2048;
            c.sharpness = 1.0f;
            c.n_q       = n_q;
        });
        add("high threshold" + queries, [&](attention_case & c) {
            c.threshold = 0.6f;
            c.n_q       = n_q;
        });
        // each weight is 1/128: the first two thresholds are not below it
        for (const int n : { 127, 128, 129 }) {
            add("128 equal weights, threshold 1/" + std::to_string(n) + queries, [&](attention_case & c) {
                c.sharpness = 0.0f;
                c.mask      = false;
                c.n_kv      = 128;
                c.threshold = 1.0f / n;
                c.n_q       = n_q;
            });
        }
    }
    for (const int64_t n_q : { 1, 70 }) {
        add("common score, bf16, queries " + std::to_string(n_q), [&](attention_case & c) {
            c.type_k = c.type_v = GGML_TYPE_BF16;
            c.common            = 33.333f;
            c.n_q               = n_q;
        });
    }
    for (const int64_t n_q : { 2, 70 }) {
        add("rows that see no cell, queries " + std::to_string(n_q), [&](attention_case & c) {
            c.blind = true;
            c.n_q   = n_q;
        });
    }
    return cases;
}

struct exception {
    const char * backend;
    const char * part; // of a case's name
    const char * reason;
};

// what llama.cpp's flash attention does not have there
static const exception MAY_BE_REFUSED[] = {
    { "CUDA", "iq4_nl", "no such keys" },
    { "CUDA", "mxfp4", "no such keys" },
    { "CUDA", "head size 32,", "no such head size" },
    { "CUDA", "keys of 192, values of 128", "only where 8 heads share a key" },
    { "Vulkan", "mxfp4", "no such keys" },
    { "MTL", "iq4_nl", "no such keys" },
    { "MTL", "mxfp4", "no such keys" },
    { "MTL", "bf16", "only where the device has the type" },
    { "MTL", " keys, ", "keys and values are of one type" },
};

static const exception LEFT_OUT[] = {
#ifdef __aarch64__
    { "CPU", "common score, f16", "flash attention is off by it: it adds up products in F16 where the processor does" },
#endif
    { "CUDA", "rows that see no cell", "llama.cpp divides by their sum, which is 0" },
    { "CUDA", "threshold 1/128",
        "the kernel for tensor cores has sums of exp(-log(8)), which are rounded: equal is not equal" },
    { "Vulkan", "threshold 1/128", "a driver's exp and log are rounded: equal is not equal" },
};

template <size_t n>
static const char * find_reason(
    const exception (&exceptions)[n], const std::string & backend, const attention_case & c) {
    for (const exception & e : exceptions) {
        if (backend == e.backend && c.name.find(e.part) != std::string::npos) {
            return e.reason;
        }
    }
    return nullptr;
}

const char * attention_may_be_refused(const std::string & backend, const attention_case & c) {
    return find_reason(MAY_BE_REFUSED, backend, c);
}

const char * attention_is_left_out(const std::string & backend, const attention_case & c) {
    return find_reason(LEFT_OUT, backend, c);
}

static std::vector<uint8_t> quantize(
    const std::vector<float> & values, int64_t n_per_row, ggml_type type, std::vector<float> & back) {
    const int64_t n_rows = values.size() / n_per_row;

    std::vector<uint8_t> rows(n_rows * ggml_row_size(type, n_per_row));
    if (type == GGML_TYPE_F32) {
        std::copy_n((const uint8_t *) values.data(), rows.size(), rows.data());
        back = values;
    } else {
        ggml_quantize_chunk(type, values.data(), rows.data(), 0, n_rows, n_per_row, nullptr);
        back.resize(values.size());
        ggml_get_type_traits(type)->to_float(rows.data(), back.data(), values.size());
    }
    return rows;
}

// of a query, from another one on in each stream
static const float STRENGTHS[] = { 1.0f, -0.5f, 0.2f, 0.0f, 3.0f };

attention_inputs make_attention_inputs(const attention_case & c) {
    std::mt19937                    random(1);
    std::normal_distribution<float> normal;

    const auto make = [&](int64_t n, float deviation) {
        std::vector<float> values(n);
        for (float & value : values) {
            value = deviation * normal(random);
        }
        return values;
    };

    attention_inputs in;
    in.q = make(c.n_stream * c.n_head * c.n_q * c.d_k, c.sharpness);

    std::vector<float> k = make(c.n_stream * c.n_head_kv * c.n_kv * c.d_k, 1.0f);
    if (c.common != 0.0f) {
        // of 16 bits for keys, of more for queries
        for (size_t i = 0; i < in.q.size(); i += c.d_k) {
            in.q[i] = c.common / 16.0f / c.scale();
        }
        for (size_t i = 0; i < k.size(); i += c.d_k) {
            k[i] = 16.0f;
        }
    }
    in.k = quantize(k, c.d_k, c.type_k, in.k_f32);
    if (c.mla) {
        for (int64_t row = 0; row < c.n_stream * c.n_head_kv * c.n_kv; ++row) {
            in.v_f32.insert(in.v_f32.end(), in.k_f32.begin() + row * c.d_k, in.k_f32.begin() + row * c.d_k + c.d_v);
        }
    } else {
        std::vector<float> v = make(c.n_stream * c.n_head_kv * c.n_kv * c.d_v, 1.0f);
        for (float & value : v) {
            value += c.large ? 2.0f : 0.0f;
        }
        in.v = quantize(v, c.d_v, c.type_v, in.v_f32);
    }

    for (int64_t stream = 0; stream < c.n_stream; ++stream) {
        for (int64_t i = 0; i < c.n_q; ++i) {
            // a cell in the middle is of another sequence or empty
            const int64_t own  = c.own_of(stream * c.n_head * c.n_q + i);
            const int64_t hole = own > 8 ? own / 2 : -1;

            in.own.push_back(own);
            in.strength.push_back(c.turn_off ? -1.0f :
                    c.large                  ? 999.0f :
                                               STRENGTHS[(i + 2 * stream) % std::size(STRENGTHS)]);
            for (int64_t j = 0; c.mask && j < c.n_kv; ++j) {
                const bool  far   = c.window > 0 && j <= own - c.window;
                const bool  blind = c.blind && i % 3 == 1;
                const float value = j > own || j == hole || far || blind ? -INFINITY :
                    c.max_bias > 0.0f                                    ? (float) (j - own) :
                                                                           0.0f;
                in.mask.push_back(ggml_fp32_to_fp16(value));
            }
        }
    }
    for (int64_t head = 0; head < c.n_head; ++head) {
        in.gain.push_back(c.turn_off ? 1.0f : head == 1 ? 0.0f : 1.0f - 0.1f * head);
        if (c.sinks) {
            // the scores' standard deviations, of which the greatest of some hundreds is three above the mean
            in.sinks.push_back(head == 0 ? 30.0f : head % 3 == 2 ? 3.0f * c.sharpness : normal(random));
        }
    }
    return in;
}

attention_reference compute_attention_reference(const attention_case & c, const attention_inputs & in) {
    attention_reference ref;
    ref.weights.resize(c.n_stream * c.n_head * c.n_q * c.n_kv);
    ref.log_sum.resize(c.n_stream * c.n_head * c.n_q);
    ref.pattern.resize(c.n_stream * c.n_head * c.n_q);
    ref.plain.resize(c.n_stream * c.n_q * c.n_head * c.d_v);
    ref.boosted.resize(ref.plain.size());

    for (int64_t row = 0; row < c.n_stream * c.n_head * c.n_q; ++row) {
        const int64_t i       = row % c.n_q;
        const int64_t head    = row / c.n_q % c.n_head;
        const int64_t stream  = row / c.n_q / c.n_head;
        const int64_t kv_head = stream * c.n_head_kv + head / (c.n_head / c.n_head_kv);
        const float * q       = in.q.data() + row * c.d_k;

        std::vector<double> scores(c.n_kv);
        for (int64_t j = 0; j < c.n_kv; ++j) {
            const float * k   = in.k_f32.data() + (kv_head * c.n_kv + j) * c.d_k;
            double        sum = 0.0;
            for (int64_t d = 0; d < c.d_k; ++d) {
                sum += (double) q[d] * k[d];
            }
            sum *= c.scale();
            if (c.logit_softcap > 0.0f) {
                sum = c.logit_softcap * std::tanh(sum / c.logit_softcap);
            }
            if (c.mask) {
                sum += c.slope(head) * ggml_fp16_to_fp32(in.mask[(stream * c.n_q + i) * c.n_kv + j]);
            }
            scores[j] = sum;
        }
        double max = *std::max_element(scores.begin(), scores.end());
        if (c.sinks) {
            max = std::max(max, (double) in.sinks[head]);
        }
        double sum = c.sinks ? std::exp(in.sinks[head] - max) : 0.0;
        for (const double score : scores) {
            sum += max == -INFINITY ? 0.0 : std::exp(score - max);
        }
        ref.log_sum[row] = max + std::log(sum);
        const bool blind = max == -INFINITY; // all weights are 0

        const double factor = 1.0 + (double) in.strength[stream * c.n_q + i] * in.gain[head];
        const int    own    = in.own[stream * c.n_q + i];
        double *     w      = ref.weights.data() + row * c.n_kv;
        double       total  = 1.0; // what the sink takes is part of it
        for (int64_t j = 0; j < c.n_kv; ++j) {
            w[j] = blind ? 0.0 : std::exp(scores[j] - max) / sum;
            if (w[j] > c.threshold && j != own) {
                ref.pattern[row].push_back(j);
                total += w[j] * (factor - 1.0);
            }
        }

        double * plain   = ref.plain.data() + ((stream * c.n_q + i) * c.n_head + head) * c.d_v;
        double * boosted = ref.boosted.data() + ((stream * c.n_q + i) * c.n_head + head) * c.d_v;
        auto     listed  = ref.pattern[row].begin();
        for (int64_t j = 0; j < c.n_kv; ++j) {
            double changed = w[j];
            if (listed != ref.pattern[row].end() && *listed == j) {
                changed *= factor;
                ++listed;
            }
            if (c.normalize) {
                changed /= total;
            }
            const float * v = in.v_f32.data() + (kv_head * c.n_kv + j) * c.d_v;
            for (int64_t d = 0; d < c.d_v; ++d) {
                plain[d] += w[j] * v[d];
                boosted[d] += changed * v[d];
            }
        }
    }
    return ref;
}

int64_t count_pattern_errors(
    const attention_case & c, const attention_reference & ref, int64_t row, const int32_t * cells, int64_t n_cells) {
    const double         margin = c.sharpness == 0.0f ? 0.0 :
                ggml_is_quantized(c.type_k)           ? 0.15 :
                c.type_k == GGML_TYPE_BF16            ? 0.1 :
                                                        0.02;
    const double *       w      = ref.weights.data() + row * c.n_kv;
    std::vector<int32_t> actual(cells, cells + n_cells);
    // an unsorted list is wrong whatever is in it
    if (std::adjacent_find(actual.begin(), actual.end(), std::greater_equal<int32_t>()) != actual.end()) {
        return n_cells;
    }
    std::vector<int32_t> differ;
    std::set_symmetric_difference(
        actual.begin(), actual.end(), ref.pattern[row].begin(), ref.pattern[row].end(), std::back_inserter(differ));
    const int32_t own = c.own_of(row);
    return std::count_if(differ.begin(), differ.end(), [&](int32_t cell) {
        return cell < 0 || cell >= c.n_kv || cell == own || margin == 0.0 ||
            std::fabs(w[cell] / c.threshold - 1.0) > margin;
    });
}

// upstream's limit for flash attention
// What is left of a row that is turned off is a part of it, but GPUs, which take the listed keys off the whole, leave the rounding of all.
double attention_output_limit(const attention_case & c) {
    return c.turn_off ? 2e-3 : 5e-4;
}

double attention_effect_limit(const attention_case & c) {
    // normalizing changes little, and the CPU sums values up in F16
    return c.normalize ? 1e-2 : ggml_is_quantized(c.type_k) || c.type_k == GGML_TYPE_BF16 ? 5e-3 : 1e-3;
}

// The CPU's sums in F16 make 2e-3 where a decoded row is normalized, of which the boost changes little; kernels that round queries to
// 8 bits where keys are quantised, as CUDA's vec does, make 2e-2. A row that is left out is off by as much as the boost does, so it is
// seen where that is more than half a percent or so of the row's length.
double attention_row_limit(const attention_case & c) {
    return ggml_is_quantized(c.type_k) ? 5e-2 : 1e-2;
}

double attention_nmse(const std::vector<double> & expected, const std::vector<double> & actual) {
    double error = 0.0;
    double total = 0.0;
    for (size_t i = 0; i < expected.size(); ++i) {
        error += (expected[i] - actual[i]) * (expected[i] - actual[i]);
        total += expected[i] * expected[i];
    }
    return error / std::max(total, 1e-30);
}
