// The fused kernels of a device against the reference, in all cases.
//
//   run-kernels [DEVICE [PART OF A CASE'S NAME | !PART OF THE NAME OF A CASE TO LEAVE OUT]]
//
// DEVICE is a name such as CPU or Vulkan0; without one the devices are listed. Plain flash attention is checked along with the
// pattern and the boost, as both stand on it. A case that the device refuses is skipped and counted where attention-case.cpp says that
// its backend may, and fails elsewhere.

#include "attention-op.h"

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpp.h"

#include <algorithm>
#include <cstdio>

struct run_result {
    bool                 supported = false;
    std::vector<double>  output;
    std::vector<int32_t> pattern; // [rows][1 + capacity]
    int64_t              n_per_row = 0;
};

// chain: an op before it records the pattern that this one boosts by, which a device must not overlap
static run_result run(ggml_backend_t backend, const attention_case & c, const attention_inputs & in,
    const attention_reference & ref, attention_mode mode, bool chain = false) {
    ggml_init_params init = { ggml_tensor_overhead() * 32 + ggml_graph_overhead(), nullptr, true };
    ggml_context_ptr holder(ggml_init(init));
    ggml_context *   ctx = holder.get();

    const attention_tensors tensors(ctx, c);
    ggml_tensor *           fa     = tensors.build(ctx, mode);
    ggml_tensor *           source = chain ? tensors.build(ctx, attention_mode::record) : nullptr;

    run_result res;
    if (!ggml_backend_dev_supports_op(ggml_backend_get_device(backend), fa)) {
        return res;
    }
    res.supported = true;
    res.n_per_row = tensors.pattern->ne[0];

    ggml_backend_buffer_ptr buffer(ggml_backend_alloc_ctx_tensors(ctx, backend));
    tensors.set(in, mode == attention_mode::boost && !chain ? &ref : nullptr,
        [](ggml_tensor * tensor, const void * data, size_t n) { ggml_backend_tensor_set(tensor, data, 0, n); });

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
    res.pattern.resize(ggml_nelements(tensors.pattern));
    ggml_backend_tensor_get(tensors.pattern, res.pattern.data(), 0, ggml_nbytes(tensors.pattern));
    return res;
}

static attention_checks checks;

// of a CPU, else null
static ggml_backend_set_n_threads_t set_n_threads;
static void (*set_use_ref)(ggml_backend_t backend, bool use_ref);

static int64_t count_different(const run_result & a, const run_result & b) {
    int64_t n_differ = 0;
    for (size_t i = 0; i < a.output.size(); ++i) {
        n_differ += !(a.output[i] == b.output[i]);
    }
    return n_differ;
}

// Flash attention of few queries must be llama.cpp's reference to the last bit: our loop takes the same steps. With one thread,
// as several share a row's cells where the reference does not.
static void check_against_llama_cpp(
    ggml_backend_t backend, const attention_case & c, const attention_inputs & in, const attention_reference & ref) {
    set_n_threads(backend, 1);
    const run_result ours = run(backend, c, in, ref, attention_mode::plain);
    set_use_ref(backend, true);
    const run_result theirs = run(backend, c, in, ref, attention_mode::plain);
    set_use_ref(backend, false);
    set_n_threads(backend, c.n_threads);

    const int64_t n_differ = count_different(ours, theirs);
    checks.check(n_differ == 0, c.name, "values that differ from llama.cpp's reference", n_differ, 0);
}

// a strength of 0 must change no bit, whatever is listed and whether weights are normalized
static void check_strength_0(ggml_backend_t backend, const attention_case & c, attention_inputs in,
    const attention_reference & ref, const run_result & plain) {
    std::fill(in.strength.begin(), in.strength.end(), 0.0f);
    attention_case as = c;
    for (const bool normalize : { false, true }) {
        as.normalize           = normalize;
        const int64_t n_differ = count_different(run(backend, as, in, ref, attention_mode::boost), plain);
        checks.check(n_differ == 0, c.name, "values that strength 0 changes", n_differ, 0);
    }
}

static void skip(const attention_case & c, const char * reason) {
    printf("skipped %s: %s\n", c.name.c_str(), reason);
    ++checks.n_skipped;
}

static void run_case(ggml_backend_t backend, const attention_case & c) {
    const std::string name = ggml_backend_reg_name(ggml_backend_dev_backend_reg(ggml_backend_get_device(backend)));
    if (const char * reason = attention_is_left_out(name, c)) {
        return skip(c, reason);
    }
    const attention_inputs    in  = make_attention_inputs(c);
    const attention_reference ref = compute_attention_reference(c, in);

    // A CPU's threads wait for each other without sleeping: more of them than cores take many times as long. Two share a row's cells.
    if (set_n_threads) {
        set_n_threads(backend, c.n_threads);
    }
    const run_result plain  = run(backend, c, in, ref, attention_mode::plain);
    const run_result record = run(backend, c, in, ref, attention_mode::record);
    const run_result boost  = run(backend, c, in, ref, attention_mode::boost);
    if (!plain.supported || !record.supported || !boost.supported) {
        const char * reason = attention_may_be_refused(name, c);
        if (reason && !plain.supported) {
            return skip(c, reason);
        }
        return checks.check(false, c.name, plain.supported ? "operations refused" : "flash attention refused", 1, 0);
    }

    const auto check_output = [&](const char * what, const std::vector<double> & expected, const run_result & actual) {
        const double error = attention_nmse(expected, actual.output);
        checks.check(error <= attention_output_limit(c), c.name, what, error, attention_output_limit(c));
    };
    check_output("plain output's NMSE", ref.plain, plain);
    check_output("output's NMSE while recording", ref.plain, record);
    check_output("boosted output's NMSE", ref.boosted, boost);
    // where little remains of a row, a key at the threshold makes all the difference
    if (!c.turn_off) {
        check_output("NMSE of an output boosted by a pattern of the same graph", ref.boosted,
            run(backend, c, in, ref, attention_mode::boost, true));
    }

    // against the output while recording, which is computed in the same pieces as the boosted one, so that where nothing
    // is listed nothing may change
    const double effect = attention_effect_nmse(ref, boost.output, record.output);
    checks.check(effect <= attention_effect_limit(c), c.name, "the boost's NMSE", effect, attention_effect_limit(c));
    const double worst = attention_worst_effect(c, ref, boost.output, record.output);
    checks.check(
        worst <= attention_row_limit(c), c.name, "the boost's error in the worst row", worst, attention_row_limit(c));
    checks.check_pattern(c.name, c, ref, record.pattern.data(), record.n_per_row);
    if (set_use_ref) {
        check_strength_0(backend, c, in, ref, plain);
        if (c.n_q < 64) { // from there on in tiles
            check_against_llama_cpp(backend, c, in, ref);
        }
    }
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

    const auto find = [&](const char * name) {
        return ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), name);
    };
    set_n_threads = (ggml_backend_set_n_threads_t) find("ggml_backend_set_n_threads");
    set_use_ref   = (void (*)(ggml_backend_t, bool)) find("ggml_backend_cpu_set_use_ref");

    for (const attention_case & c : attention_cases()) {
        const char * part    = argc < 3 ? "" : argv[2];
        const bool   without = *part == '!';
        const bool   found   = c.name.find(part + without) != std::string::npos;
        if (found != without) {
            run_case(backend.get(), c);
        } else if (without) {
            ++checks.n_skipped;
        }
    }
    if (checks.n_passed + checks.n_failed + checks.n_skipped == 0) {
        fprintf(stderr, "no case has \"%s\" in its name\n", argv[2]);
    }
    printf("%d passed, %d failed, %d skipped\n", checks.n_passed, checks.n_failed, checks.n_skipped);
    return checks.n_failed > 0 || checks.n_passed == 0;
}
