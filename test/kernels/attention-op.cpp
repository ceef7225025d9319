#include "attention-op.h"

#include "ggml-attn-emulation.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>

// of [n_stream][n_head][n] rows, as they are or with the heads of a token side by side
static ggml_tensor * new_rows(
    ggml_context * ctx, bool in_graph, ggml_type type, int64_t d, int64_t n, int64_t n_head, int64_t n_stream) {
    return in_graph ? ggml_permute(ctx, ggml_new_tensor_4d(ctx, type, d, n_head, n, n_stream), 0, 2, 1, 3) :
                      ggml_new_tensor_4d(ctx, type, d, n, n_head, n_stream);
}

// where the gains begin: after the strengths and another layer's gains, and never where a vector could be loaded from
static int64_t first_gain(const attention_case & c) {
    return (c.n_q * c.n_stream + c.n_head) | 1;
}

attention_tensors::attention_tensors(ggml_context * ctx, const attention_case & c) : c(c) {
    q = new_rows(ctx, c.in_graph, GGML_TYPE_F32, c.d_k, c.n_q, c.n_head, c.n_stream);
    k = new_rows(ctx, c.in_graph, c.type_k, c.d_k, c.n_kv, c.n_head_kv, c.n_stream);
    v = c.mla ? ggml_view_4d(ctx, k, c.d_v, c.n_kv, c.n_head_kv, c.n_stream, k->nb[1], k->nb[2], k->nb[3], 0) :
                new_rows(ctx, c.in_graph, c.type_v, c.d_v, c.n_kv, c.n_head_kv, c.n_stream);

    mask  = c.mask ? ggml_new_tensor_4d(ctx, GGML_TYPE_F16, c.n_kv, c.n_q, 1, c.n_stream) : nullptr;
    sinks = c.sinks ? ggml_new_tensor_1d(ctx, GGML_TYPE_F32, c.n_head) : nullptr;
    own   = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, c.n_q * c.n_stream);
    if (c.in_graph) {
        values   = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, first_gain(c) + 2 * c.n_head);
        strength = ggml_view_1d(ctx, values, c.n_q * c.n_stream, 0);
        gain     = ggml_view_1d(ctx, values, c.n_head, first_gain(c) * sizeof(float));
    } else {
        strength = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, c.n_q * c.n_stream);
        gain     = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, c.n_head);
    }
    pattern = ggml_attn_pattern_new(ctx, c.threshold, c.n_kv, c.n_q, c.n_head, c.n_stream);
}

ggml_tensor * attention_tensors::build(ggml_context * ctx, attention_mode mode) const {
    ggml_tensor * fa = ggml_flash_attn_ext(ctx, q, k, v, mask, c.scale(), c.max_bias, c.logit_softcap);
    ggml_flash_attn_ext_add_sinks(fa, sinks);
    ggml_prec_set_acc(fa, GGML_PREC_F32);
    if (mode == attention_mode::record) {
        ggml_flash_attn_ext_record_pattern(fa, pattern, own, c.threshold);
    } else if (mode == attention_mode::boost) {
        ggml_flash_attn_ext_boost_pattern(fa, pattern, strength, gain, c.normalize);
    }
    return fa;
}

// the first cells that are masked, n at most
static std::vector<int32_t> find_hidden_cells(
    const attention_case & c, const attention_inputs & in, int64_t row, size_t n) {
    const int64_t query = row / (c.n_head * c.n_q) * c.n_q + row % c.n_q;

    std::vector<int32_t> hidden;
    for (int64_t cell = 0; c.mask && cell < c.n_kv && hidden.size() < n; ++cell) {
        if (in.mask[query * c.n_kv + cell] == ggml_fp32_to_fp16(-INFINITY)) {
            hidden.push_back(cell);
        }
    }
    return hidden;
}

// rows of [n_stream][n_head][n] in the order of their tensor, as bytes
static std::vector<uint8_t> in_order_of(const ggml_tensor * tensor, const void * rows) {
    const size_t         row_size = ggml_row_size(tensor->type, tensor->ne[0]);
    const uint8_t *      row      = (const uint8_t *) rows;
    std::vector<uint8_t> ordered(ggml_nbytes(tensor));
    for (int64_t stream = 0; stream < tensor->ne[3]; ++stream) {
        for (int64_t head = 0; head < tensor->ne[2]; ++head) {
            for (int64_t i = 0; i < tensor->ne[1]; ++i, row += row_size) {
                std::copy_n(row, row_size, &ordered[i * tensor->nb[1] + head * tensor->nb[2] + stream * tensor->nb[3]]);
            }
        }
    }
    return ordered;
}

void attention_tensors::set(
    const attention_inputs & in, const attention_reference * reference, const writer & write) const {
    const auto set = [&](ggml_tensor * tensor, const auto & values) {
        if (tensor) {
            GGML_ASSERT(ggml_nbytes(tensor) == values.size() * sizeof(values[0]));
            write(tensor, values.data(), ggml_nbytes(tensor));
        }
    };
    const auto set_rows = [&](ggml_tensor * tensor, const void * rows) {
        set(tensor->view_src ? tensor->view_src : tensor, in_order_of(tensor, rows));
    };
    set_rows(q, in.q.data());
    set_rows(k, in.k.data());
    if (!c.mla) {
        set_rows(v, in.v.data());
    }
    set(mask, in.mask);
    set(sinks, in.sinks);
    set(own, in.own);
    if (values) {
        std::vector<float> all(ggml_nelements(values), 7.0f); // other layers'
        std::copy(in.strength.begin(), in.strength.end(), all.begin());
        std::copy(in.gain.begin(), in.gain.end(), all.begin() + first_gain(c));
        set(values, all);
    } else {
        set(strength, in.strength);
        set(gain, in.gain);
    }

    std::vector<int32_t> lists(ggml_nelements(pattern), reference ? 0 : -7);
    for (size_t row = 0; reference && row < reference->pattern.size(); ++row) {
        auto cells = reference->pattern[row];
        // some that the source layer saw and this layer doesn't: they change nothing
        const size_t n_free = pattern->ne[0] - 1 - cells.size();
        const auto   hidden = find_hidden_cells(c, in, row, std::min<size_t>(n_free, 10));
        cells.insert(cells.end(), hidden.begin(), hidden.end());
        std::inplace_merge(cells.begin(), cells.end() - hidden.size(), cells.end());
        lists[row * pattern->ne[0]] = cells.size();
        std::copy(cells.begin(), cells.end(), lists.begin() + row * pattern->ne[0] + 1);
    }
    set(pattern, lists);
}

void attention_checks::check(bool good, const std::string & name, const char * what, double value, double limit) {
    (good ? n_passed : n_failed)++;
    if (!good) {
        printf("FAILED  %s: %s is %.3g, limit %.3g\n", name.c_str(), what, value, limit);
    }
}

void attention_checks::check_pattern(const std::string & name, const attention_case & c,
    const attention_reference & reference, const int32_t * pattern, int64_t n_per_row) {
    int64_t errors = 0;
    for (int64_t row = 0; row < (int64_t) reference.pattern.size(); ++row) {
        const int32_t * list = pattern + row * n_per_row;
        const bool      fits = list[0] >= 0 && list[0] < n_per_row;
        errors += fits ? count_pattern_errors(c, reference, row, list + 1, list[0]) : 1;
    }
    check(errors == 0, name, "number of wrong keys", errors, 0);
}

static std::vector<double> difference(const std::vector<double> & a, const std::vector<double> & b) {
    std::vector<double> res(a.size());
    std::transform(a.begin(), a.end(), b.begin(), res.begin(), std::minus<double>());
    return res;
}

double attention_effect_nmse(
    const attention_reference & reference, const std::vector<double> & boosted, const std::vector<double> & plain) {
    return attention_nmse(difference(reference.boosted, reference.plain), difference(boosted, plain));
}

double attention_worst_effect(const attention_case & c, const attention_reference & reference,
    const std::vector<double> & boosted, const std::vector<double> & plain) {
    const std::vector<double> expected = difference(reference.boosted, reference.plain);
    const std::vector<double> actual   = difference(boosted, plain);

    double worst = 0.0;
    for (size_t row = 0; row < expected.size(); row += c.d_v) {
        double error = 0.0;
        double scale = 1e-30;
        for (size_t i = row; i < row + c.d_v; ++i) {
            error += (actual[i] - expected[i]) * (actual[i] - expected[i]);
            scale += expected[i] * expected[i] + 1e-3 * reference.plain[i] * reference.plain[i];
        }
        worst = error / scale <= worst ? worst : error / scale; // what is no number stays
        if (std::isnan(worst)) {
            break;
        }
    }
    return worst;
}
