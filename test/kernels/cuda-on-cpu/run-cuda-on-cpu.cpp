// CUDA's kernels, executed on the CPU from their own source, against the reference.
//
//   run-cuda-on-cpu [--all] [PART OF A CASE'S NAME]
//
// First our kernels by themselves, in all cases, with the reference's (maximum, sum) of the rows. Then llama.cpp's flash attention
// with ours after it, as a device runs them: the launch decides how the work is split. A case runs as on one of several devices,
// some of mma's as on each; with --all all do, and cases of many cells run too.

#include "attention-op.h"
#include "device.h"
#include "families.h"
#include "guarded-memory.h"

#include "attn-emulation.cuh"
#include "ggml-cpp.h"

#include <algorithm>
#include <cfloat>
#include <list>

// our own kernels, under other names: flash attention finds those below, which look at what it exports
void own_record_pattern(ggml_backend_cuda_context & ctx, const ggml_tensor * fa, const float2 * row_meta,
    attn_query_rounding rounding, const ggml_cuda_attn_kv & k);
void own_boost_pattern(ggml_backend_cuda_context & ctx, const ggml_tensor * fa, const float2 * row_meta,
    attn_query_rounding rounding, const ggml_cuda_attn_kv & k, const ggml_cuda_attn_kv & v,
    const ggml_cuda_attn_parts & parts);

static attention_checks checks;

static bool cuda_takes(const attention_case & c) {
    return flash_attention_takes(c.type_k) && flash_attention_takes(c.type_v);
}

static bool own_kernels_take(const attention_case & c) {
    return cuda_takes(c) && c.type_k != GGML_TYPE_F32 && c.type_v != GGML_TYPE_F32; // F32 is made F16 before
}

// the op of a case, in memory of the CPU
struct operation {
    std::list<guarded_memory> memory;
    ggml_context_ptr          holder;
    ggml_tensor *             fa;
    ggml_tensor *             pattern;

    operation(
        const attention_case & c, const attention_inputs & in, const attention_reference & ref, attention_mode mode) {
        ggml_init_params init = { ggml_tensor_overhead() * 32, nullptr, true };
        holder.reset(ggml_init(init));
        ggml_context * ctx = holder.get();

        const attention_tensors tensors(ctx, c);
        for (ggml_tensor * t = ggml_get_first_tensor(ctx); t; t = ggml_get_next_tensor(ctx, t)) {
            if (!t->view_src) {
                t->data = memory.emplace_back(ggml_nbytes(t) + n_read_behind(tensors, t)).data();
            }
        }
        for (ggml_tensor * t = ggml_get_first_tensor(ctx); t; t = ggml_get_next_tensor(ctx, t)) {
            if (t->view_src) {
                t->data = (char *) t->view_src->data + t->view_offs;
            }
        }
        tensors.set(in, mode == attention_mode::boost ? &ref : nullptr,
            [](ggml_tensor * tensor, const void * data, size_t n) { memcpy(tensor->data, data, n); });
        pattern = tensors.pattern;

        fa = tensors.build(ctx, mode);

        // also has room for what flash attention puts behind it
        const int64_t n_kv_values = ggml_nelements(tensors.k) + ggml_nelements(tensors.v);
        const size_t  n_bytes     = ggml_nbytes(fa) + 2 * n_kv_values + 1024;

        // aligned as on a device
        const guarded_memory & result = memory.emplace_back(n_bytes + 256);
        memset(result.data(), 0xff, n_bytes + 256);
        fa->data = (void *) (((uintptr_t) result.data() + 255) / 256 * 256);
    }

    // upstream's kernels read whole tiles of the mask's rows where there are several streams, and of heads' sinks
    static size_t n_read_behind(const attention_tensors & tensors, const ggml_tensor * t) {
        return t == tensors.mask && t->ne[3] > 1 ? 64 * t->nb[1] : t == tensors.sinks ? 32 * sizeof(float) : 0;
    }

    std::vector<double> output() const {
        const float * data = (const float *) fa->data;
        return { data, data + ggml_nelements(fa) };
    }
};

static void check_pattern(
    const std::string & name, const attention_case & c, const attention_reference & ref, const operation & op) {
    checks.check_pattern(name, c, ref, (const int32_t *) op.pattern->data, op.pattern->ne[0]);
}

static void check_boost(const std::string & name, const attention_case & c, const attention_reference & ref,
    const operation & op, const std::vector<double> & plain, double limit) {
    const double error = attention_nmse(ref.boosted, op.output());
    checks.check(error <= limit, name, "boosted output's NMSE", error, limit);
    const double effect = attention_effect_nmse(ref, op.output(), plain);
    checks.check(effect <= attention_effect_limit(c), name, "the boost's NMSE", effect, attention_effect_limit(c));
    const double worst = attention_worst_effect(c, ref, op.output(), plain);
    checks.check(
        worst <= attention_row_limit(c), name, "the boost's error in the worst row", worst, attention_row_limit(c));
}

// as upstream's vec kernel rounds them where keys are quantised, and ours, too
static attention_inputs with_rounded_queries(attention_inputs in) {
    for (size_t begin = 0; begin < in.q.size(); begin += 32) {
        float max = 0.0f;
        for (size_t i = begin; i < begin + 32; ++i) {
            max = std::max(max, std::fabs(in.q[i]));
        }
        for (size_t i = begin; i < begin + 32; ++i) {
            in.q[i] = max == 0.0f ? 0.0f : std::round(in.q[i] / (max / 127)) * (max / 127);
        }
    }
    return in;
}

static void run_own_kernels(const attention_case & c, const attention_inputs & in, const attention_reference & exact) {
    const attention_reference ref =
        ggml_is_quantized(c.type_k) ? compute_attention_reference(c, with_rounded_queries(in)) : exact;
    const guarded_memory memory(ref.log_sum.size() * sizeof(float2));
    float2 *             meta = (float2 *) memory.data();
    for (int64_t row = 0; row < (int64_t) ref.log_sum.size(); ++row) {
        const int64_t i      = row % c.n_q;
        const int64_t head   = row / c.n_q % c.n_head;
        const int64_t stream = row / c.n_q / c.n_head;
        // any maximum will do, as long as the sum is relative to it; where no cell is seen, llama.cpp's kernels leave their first one
        meta[(stream * c.n_q + i) * c.n_head + head] = std::isinf(ref.log_sum[row]) ?
            float2{ -FLT_MAX / 2.0f, 0.0f } :
            float2{ (float) (ref.log_sum[row] - 1.25), std::exp(1.25f) };
    }

    ggml_backend_cuda_context ctx(0);

    const auto keys_of = [](const ggml_tensor * t) {
        return ggml_cuda_attn_kv{ (const char *) t->data, t->type, (int64_t) t->nb[1], (int64_t) t->nb[2],
            (int64_t) t->nb[3] };
    };
    // one for which a row's cells stay together, and one for which they are split
    for (const int n_sm : { 1, 100 }) {
        set_device(860, n_sm, 2);
        const std::string name = "our kernels, " + std::to_string(n_sm) + " SMs, " + c.name;

        operation record(c, in, ref, attention_mode::record);
        own_record_pattern(ctx, record.fa, meta, ATTN_QUERY_F32, keys_of(record.fa->src[1]));
        check_pattern(name, c, ref, record);

        operation boost(c, in, ref, attention_mode::boost);
        std::copy(ref.plain.begin(), ref.plain.end(), (float *) boost.fa->data);
        const std::vector<double> plain = boost.output();
        own_boost_pattern(
            ctx, boost.fa, meta, ATTN_QUERY_F32, keys_of(boost.fa->src[1]), keys_of(boost.fa->src[2]), {});
        check_boost(name, c, ref, boost, plain, attention_output_limit(c));
    }
}

//
// flash attention
//

// between flash attention and our kernels: what they are given
static std::vector<float2> exported;
static std::vector<int>    times_exported; // of each row, by how many writes

static void take_exported(const ggml_tensor * fa, const float2 * row_meta, attn_query_rounding rounding) {
    const size_t n_rows = ggml_nrows(fa);
    const size_t stride = ggml_cuda_attn_meta_stride(fa, rounding);
    exported.resize(n_rows);
    times_exported.assign(n_rows, 0);
    for (size_t row = 0; row < n_rows; ++row) {
        exported[row] = row_meta[row * stride];
    }
    for (const float2 * written : cuda_on_cpu::counted_writes) {
        // vec and tile write to the parts of split rows, too, at the same place of their source
        if (written >= row_meta && written < row_meta + n_rows * stride) {
            ++times_exported[(written - row_meta) / stride];
        }
    }
}

void ggml_cuda_attn_record_pattern(ggml_backend_cuda_context & ctx, const ggml_tensor * fa, const float2 * row_meta,
    attn_query_rounding rounding, const ggml_cuda_attn_kv & k) {
    take_exported(fa, row_meta, rounding);
    own_record_pattern(ctx, fa, row_meta, rounding, k);
}

// rows in parts have a pair for each part, and none may have been written for the whole
static void take_exported_parts(
    const ggml_tensor * fa, const float2 * row_meta, attn_query_rounding rounding, const ggml_cuda_attn_parts & parts) {
    take_exported(fa, row_meta, rounding);
    for (size_t row = 0; row < exported.size(); ++row) {
        const float2 * meta  = parts.meta + row * parts.n;
        float2         whole = meta[0];
        for (int i = 1; i < parts.n; ++i) {
            const float max = std::max(whole.x, meta[i].x);
            whole           = { max, whole.y * std::exp(whole.x - max) + meta[i].y * std::exp(meta[i].x - max) };
        }
        exported[row] = whole;
        ++times_exported[row];
    }
}

void ggml_cuda_attn_boost_pattern(ggml_backend_cuda_context & ctx, const ggml_tensor * fa, const float2 * row_meta,
    attn_query_rounding rounding, const ggml_cuda_attn_kv & k, const ggml_cuda_attn_kv & v,
    const ggml_cuda_attn_parts & parts) {
    if (parts.n > 1) {
        take_exported_parts(fa, row_meta, rounding, parts);
    } else {
        take_exported(fa, row_meta, rounding);
    }
    own_boost_pattern(ctx, fa, row_meta, rounding, k, v, parts);
}

static void check_exported(
    const std::string & name, const attention_case & c, const attention_reference & ref, double limit) {
    double worst = 0.0;
    for (int64_t row = 0; row < (int64_t) ref.log_sum.size(); ++row) {
        const int64_t i      = row % c.n_q;
        const int64_t head   = row / c.n_q % c.n_head;
        const int64_t stream = row / c.n_q / c.n_head;
        const float2  meta   = exported[(stream * c.n_q + i) * c.n_head + head];
        const double  error  = std::fabs(meta.x + std::log((double) meta.y) - ref.log_sum[row]);
        worst = error <= limit ? std::max(worst, error) : INFINITY; // a row that nobody wrote is no number
    }
    checks.check(worst <= limit, name, "error of a row's logarithm of the sum", worst, limit);

    const auto [least, most] = std::minmax_element(times_exported.begin(), times_exported.end());
    checks.check(*least == 1 && *most == 1, name, "writes of a row's pair", *least == 1 ? *most : *least, 1);
}

struct device_size {
    int compute_capability; // from 8.9 on the mma kernels always split work evenly among blocks ("stream-k")
    int n_sm;
    int blocks_per_sm;
};

// Where keys are quantised, upstream's vec kernel rounds queries to 8 bits, in blocks of 32; the others, as ours, to F16.
static bool rounds_queries(const kernel_instance & kernel, const attention_case & c) {
    return ggml_is_quantized(c.type_k) && kernel.name.rfind("vec", 0) == 0;
}

static bool boosts_in_blocks(const kernel_instance & kernel, const attention_case & c) {
    return kernel.name.rfind("vec", 0) == 0 && c.n_q == 1 && !c.normalize;
}

// On some of the devices mma's tiles are spread over blocks, which a fixup puts together: the uniform one for 3 queries, the general
// one for 67. All that the turn of devices would leave out.
static bool has_fixups(const kernel_instance & kernel, const attention_case & c) {
    return kernel.name.rfind("mma", 0) == 0 && c.name.rfind("all at once", 0) == 0 && (c.d_k == 80 || c.d_k == 256) &&
        (c.n_q == 3 || c.n_q == 67);
}

// what decides how work is split
static const std::vector<device_size> device_sizes = { { 860, 1, 1 }, { 860, 23, 2 }, { 890, 5, 1 }, { 890, 48, 2 } };

static void run_flash_attention(const kernel_instance & kernel, const attention_case & c, const device_size & size,
    const attention_inputs & in, const attention_reference & exact) {
    set_device(size.compute_capability, size.n_sm, size.blocks_per_sm);
    const std::string name = kernel.name + ", " + std::to_string(size.n_sm) + " SMs of " +
        std::to_string(size.compute_capability) + ", " + c.name;

    ggml_backend_cuda_context ctx(0);

    operation plain(c, in, exact, attention_mode::plain);
    exported.clear();
    kernel.run(ctx, plain.fa);
    // scores as sharp as these show that queries are rounded
    const bool   rounds      = rounds_queries(kernel, c);
    const double exact_limit = rounds ? 10 * attention_output_limit(c) : attention_output_limit(c);
    const double error       = attention_nmse(exact.plain, plain.output());
    checks.check(error <= exact_limit, name, "plain output's NMSE", error, exact_limit);

    // it is nothing else; but other types' offsets are multiplied by sums of queries that are not rounded
    const bool                is_exact = !rounds || c.type_k == GGML_TYPE_Q8_0;
    const attention_reference ref =
        rounds && is_exact ? compute_attention_reference(c, with_rounded_queries(in)) : exact;
    const double limit = is_exact ? attention_output_limit(c) : exact_limit;
    // what is in all scores of a row is in the sum, too
    const double log_sum_limit = c.common != 0.0f ? DBL_MAX : is_exact ? 0.02 : 0.25;
    if (rounds && is_exact) {
        const double rest = attention_nmse(ref.plain, plain.output());
        checks.check(rest <= limit / 10, name, "plain output's NMSE, queries rounded", rest, limit / 10);
    }
    checks.check(exported.empty(), name, "rows exported without emulation", exported.size(), 0);

    operation record(c, in, ref, attention_mode::record);
    cuda_on_cpu::counted_writes.clear();
    kernel.run(ctx, record.fa);
    checks.check(record.output() == plain.output(), name, "difference while recording", 1, 0);
    check_exported(name, c, ref, log_sum_limit);
    check_pattern(name, c, ref, record);

    operation boost(c, in, ref, attention_mode::boost);
    cuda_on_cpu::counted_writes.clear();
    exported.clear();
    kernel.run(ctx, boost.fa);
    // where flash attention's own blocks boost, nothing comes after it
    if (boosts_in_blocks(kernel, c)) {
        checks.check(exported.empty(), name, "rows exported while its own blocks boost", exported.size(), 0);
    } else {
        check_exported(name, c, ref, log_sum_limit);
    }
    check_boost(name, c, ref, boost, plain.output(), limit);
}

// shapes that the kernels split in their own ways; all their cells fill whole strides, as some kernels want
static std::vector<attention_case> flash_attention_cases() {
    std::vector<attention_case> cases = attention_cases();

    const auto add = [&](const std::string & name, auto && change) {
        attention_case c;
        c.n_kv = 512;
        change(c);
        c.name = name;
        cases.push_back(c);
    };
    for (const int64_t n_q : { 1, 3, 12, 67 }) {
        const std::string queries = ", queries " + std::to_string(n_q);
        for (const int64_t d : { 64, 80, 128, 256 }) {
            add("all at once, head size " + std::to_string(d) + queries, [&](attention_case & c) {
                c.d_k = c.d_v   = d;
                c.n_q           = n_q;
                c.n_stream      = 2;
                c.sinks         = true;
                c.n_head        = 8;
                c.n_head_kv     = 2;
                c.logit_softcap = d > 80 ? 15.0f : 0.0f;
            });
        }
        for (const ggml_type type : { GGML_TYPE_BF16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0 }) {
            add(std::string(ggml_type_name(type)) + " in whole strides" + queries, [&](attention_case & c) {
                c.type_k = c.type_v = type;
                c.n_q               = n_q;
                c.d_k = c.d_v = ggml_is_quantized(type) ? 128 : 64;
            });
        }
    }
    for (const int64_t d : { 64, 128, 256 }) {
        add("many keys are listed, head size " + std::to_string(d), [&](attention_case & c) {
            c.d_k = c.d_v = d;
            c.sharpness   = 1.0f;
            c.threshold   = 0.001f;
        });
    }
    add("q8_0 keys, f16 values, head size 128", [](attention_case & c) {
        c.type_k = GGML_TYPE_Q8_0;
        c.d_k = c.d_v = 128;
    });
    return cases;
}

int main(int argc, char ** argv) {
    const bool        all  = argc > 1 && strcmp(argv[1], "--all") == 0;
    const std::string part = argc > (all ? 2 : 1) ? argv[all ? 2 : 1] : "";

    const auto wanted = [&](const std::string & name) {
        return name.find(part) != std::string::npos;
    };

    for (const attention_case & c : attention_cases()) {
        if (wanted("our kernels, " + c.name) && own_kernels_take(c)) {
            const attention_inputs    in  = make_attention_inputs(c);
            const attention_reference ref = compute_attention_reference(c, in);
            for (const bool descending : { false, true }) {
                cuda_on_cpu::descending = descending;
                run_own_kernels(c, in, ref);
            }
        }
    }
    size_t turn = 0;
    for (const auto & kernels : { vec_kernels(), tile_kernels(), mma_kernels() }) {
        for (const kernel_instance & kernel : kernels) {
            int n_cases = 0;
            for (const attention_case & c : flash_attention_cases()) {
                const bool small = c.n_kv <= 512;
                if (!cuda_takes(c) || attention_is_left_out("CUDA", c) || !kernel.takes(c) ||
                    !wanted(kernel.name + ", " + c.name) || !(small || all)) {
                    continue;
                }
                const attention_inputs    in     = make_attention_inputs(c);
                const attention_reference ref    = compute_attention_reference(c, in);
                const bool                on_all = all || has_fixups(kernel, c);
                for (size_t i = 0; i < (on_all ? device_sizes.size() : 1); ++i) {
                    cuda_on_cpu::descending = turn / device_sizes.size() % 2 == 1;
                    run_flash_attention(kernel, c, device_sizes[turn++ % device_sizes.size()], in, ref);
                }
                ++n_cases;
            }
            if (n_cases > 0) {
                printf("%s: %d cases\n", kernel.name.c_str(), n_cases);
                fflush(stdout);
            }
        }
    }
    printf("%d passed, %d failed\n", checks.n_passed, checks.n_failed);
    return checks.n_failed > 0 || checks.n_passed == 0;
}
