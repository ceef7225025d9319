// The fused kernels of a device against the reference, in all cases.
//
//   run-kernels [DEVICE [PART OF A CASE'S NAME | !PART OF THE NAME OF A CASE TO LEAVE OUT]]
//
// DEVICE is a name such as CPU or Vulkan0; without one the devices are listed. Plain flash attention is checked along with the
// pattern and the boost, as both stand on it. A case that the device does not claim to know is skipped and counted.

#include "attention-case.h"

#include "ggml-alloc.h"
#include "ggml-attn-emulation.h"
#include "ggml-backend.h"
#include "ggml-cpp.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

// chain: an op records, the next one in the graph boosts by what it wrote, which a device must not overlap
enum class run_mode { plain, record, boost, chain };

struct run_result {
    bool                 supported = false;
    std::vector<double>  output;
    std::vector<int32_t> pattern; // [rows][1 + capacity]
    int64_t              pattern_row = 0;
};

template <class T>
static void set(ggml_tensor * tensor, const std::vector<T> & values) {
    if (tensor) {
        GGML_ASSERT(ggml_nbytes(tensor) == values.size() * sizeof(T));
        ggml_backend_tensor_set(tensor, values.data(), 0, ggml_nbytes(tensor));
    }
}

static run_result run(ggml_backend_t backend, const attention_case & c, const attention_inputs & in,
    const attention_reference & ref, run_mode mode) {
    ggml_init_params init = { ggml_tensor_overhead() * 32 + ggml_graph_overhead(), nullptr, true };
    ggml_context_ptr holder(ggml_init(init));
    ggml_context *   ctx = holder.get();

    ggml_tensor * q     = ggml_new_tensor_4d(ctx, GGML_TYPE_F32, c.d_k, c.n_q, c.n_head, c.n_stream);
    ggml_tensor * k     = ggml_new_tensor_4d(ctx, c.type_k, c.d_k, c.n_kv, c.n_head_kv, c.n_stream);
    ggml_tensor * v     = c.mla ?
            ggml_view_4d(ctx, k, c.d_v, c.n_kv, c.n_head_kv, c.n_stream, k->nb[1], k->nb[2], k->nb[3], 0) :
            ggml_new_tensor_4d(ctx, c.type_v, c.d_v, c.n_kv, c.n_head_kv, c.n_stream);
    ggml_tensor * mask  = c.mask ? ggml_new_tensor_4d(ctx, GGML_TYPE_F16, c.n_kv, c.n_q, 1, c.n_stream) : nullptr;
    ggml_tensor * sinks = c.sinks ? ggml_new_tensor_1d(ctx, GGML_TYPE_F32, c.n_head) : nullptr;

    const auto attention = [&] {
        ggml_tensor * res = ggml_flash_attn_ext(ctx, q, k, v, mask, c.scale(), c.max_bias, c.logit_softcap);
        ggml_flash_attn_ext_add_sinks(res, sinks);
        ggml_prec_set_acc(res, GGML_PREC_F32);
        return res;
    };
    ggml_tensor * fa     = attention();
    ggml_tensor * source = mode == run_mode::chain ? attention() : nullptr;

    ggml_tensor * pattern  = ggml_attn_pattern_new(ctx, c.threshold, c.n_kv, c.n_q, c.n_head, c.n_stream);
    ggml_tensor * own      = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, c.n_q * c.n_stream);
    ggml_tensor * strength = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, c.n_q * c.n_stream);
    ggml_tensor * gain     = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, c.n_head);
    if (source) {
        ggml_flash_attn_ext_record_pattern(source, pattern, own, c.threshold);
    }
    if (mode == run_mode::record) {
        ggml_flash_attn_ext_record_pattern(fa, pattern, own, c.threshold);
    } else if (mode != run_mode::plain) {
        ggml_flash_attn_ext_boost_pattern(fa, pattern, strength, gain, c.normalize);
    }

    run_result res;
    if (!ggml_backend_dev_supports_op(ggml_backend_get_device(backend), fa)) {
        return res;
    }
    res.supported   = true;
    res.pattern_row = pattern->ne[0];

    ggml_backend_buffer_ptr buffer(ggml_backend_alloc_ctx_tensors(ctx, backend));
    set(q, in.q);
    set(k, in.k);
    set(c.mla ? nullptr : v, in.v);
    set(mask, in.mask);
    set(sinks, in.sinks);
    set(own, in.own);
    set(strength, in.strength);
    set(gain, in.gain);

    // what is there before must not matter
    std::vector<int32_t> lists(ggml_nelements(pattern), mode == run_mode::boost ? 0 : -7);
    for (size_t row = 0; mode == run_mode::boost && row < ref.pattern.size(); ++row) {
        lists[row * pattern->ne[0]] = ref.pattern[row].size();
        std::copy(ref.pattern[row].begin(), ref.pattern[row].end(), lists.begin() + row * pattern->ne[0] + 1);
    }
    set(pattern, lists);

    ggml_cgraph * graph = ggml_new_graph(ctx);
    if (source) {
        ggml_build_forward_expand(graph, source);
    }
    ggml_build_forward_expand(graph, fa);
    // twice: nothing may be left over from the first time
    for (int i = 0; i < 2; ++i) {
        GGML_ASSERT(ggml_backend_graph_compute(backend, graph) == GGML_STATUS_SUCCESS);
    }

    std::vector<float> output(ggml_nelements(fa));
    ggml_backend_tensor_get(fa, output.data(), 0, ggml_nbytes(fa));
    res.output.assign(output.begin(), output.end());
    ggml_backend_tensor_get(pattern, lists.data(), 0, ggml_nbytes(pattern));
    res.pattern = lists;
    return res;
}

static int n_passed  = 0;
static int n_failed  = 0;
static int n_skipped = 0;

static void check(bool good, const attention_case & c, const char * what, double value, double limit) {
    (good ? n_passed : n_failed)++;
    if (!good) {
        printf("FAILED  %s: %s is %.3g, limit %.3g\n", c.name.c_str(), what, value, limit);
    }
}

static std::vector<double> difference(const std::vector<double> & a, const std::vector<double> & b) {
    std::vector<double> res(a.size());
    std::transform(a.begin(), a.end(), b.begin(), res.begin(), std::minus<double>());
    return res;
}

static void run_case(ggml_backend_t backend, const attention_case & c) {
    const attention_inputs    in  = make_attention_inputs(c);
    const attention_reference ref = compute_attention_reference(c, in);

    const run_result plain  = run(backend, c, in, ref, run_mode::plain);
    const run_result record = run(backend, c, in, ref, run_mode::record);
    const run_result boost  = run(backend, c, in, ref, run_mode::boost);
    const run_result chain  = run(backend, c, in, ref, run_mode::chain);
    if (!plain.supported || !record.supported || !boost.supported) {
        printf("skipped %s: the device has no %s\n", c.name.c_str(),
            plain.supported ? "emulation for it" : "flash attention for it");
        ++n_skipped;
        return;
    }

    const double limit = attention_output_limit(c);
    check(attention_nmse(ref.plain, plain.output) <= limit, c, "plain output's NMSE",
        attention_nmse(ref.plain, plain.output), limit);
    check(attention_nmse(ref.plain, record.output) <= limit, c, "output's NMSE while recording",
        attention_nmse(ref.plain, record.output), limit);
    check(attention_nmse(ref.boosted, boost.output) <= limit, c, "boosted output's NMSE",
        attention_nmse(ref.boosted, boost.output), limit);

    // where little remains of a row, a key at the threshold makes all the difference
    if (!c.turn_off) {
        check(attention_nmse(ref.boosted, chain.output) <= limit, c,
            "NMSE of an output boosted by a pattern of the same graph", attention_nmse(ref.boosted, chain.output),
            limit);
    }

    // what the boost does, by itself: against the output while recording, which is computed in the same pieces as the boosted one,
    // so that where nothing is listed nothing may change
    const double effect = attention_nmse(difference(ref.boosted, ref.plain), difference(boost.output, record.output));
    const double effect_limit = attention_effect_limit(c);
    check(effect <= effect_limit, c, "the boost's NMSE", effect, effect_limit);

    int64_t errors = 0;
    for (int64_t row = 0; row < (int64_t) ref.pattern.size(); ++row) {
        const int32_t * list = record.pattern.data() + row * record.pattern_row;
        const bool      fits = list[0] >= 0 && list[0] < record.pattern_row;
        errors += fits ? count_pattern_errors(c, ref, row, list + 1, list[0]) : 1;
    }
    check(errors == 0, c, "number of wrong keys", errors, 0);
}

int main(int argc, char ** argv) {
    ggml_backend_load_all();

    if (argc < 2) {
        for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
            printf("%s: %s\n", ggml_backend_dev_name(ggml_backend_dev_get(i)),
                ggml_backend_dev_description(ggml_backend_dev_get(i)));
        }
        return 0;
    }
    ggml_backend_dev_t device = ggml_backend_dev_by_name(argv[1]);
    if (!device) {
        fprintf(stderr, "there is no device %s; without arguments this lists them\n", argv[1]);
        return 2;
    }
    ggml_backend_ptr backend(ggml_backend_dev_init(device, nullptr));

    for (const attention_case & c : attention_cases()) {
        const char * part    = argc < 3 ? "" : argv[2];
        const bool   without = *part == '!';
        const bool   found   = c.name.find(part + without) != std::string::npos;
        if (found != without) {
            run_case(backend.get(), c);
        } else if (without) {
            ++n_skipped;
        }
    }
    printf("%d passed, %d failed, %d skipped\n", n_passed, n_failed, n_skipped);
    return n_failed > 0 || n_passed == 0;
}
