#include "llama-attn-emulation-settings.h"

#include "llama-context.h"
#include "llama-hparams.h"
#include "llama-impl.h"
#include "llama-model.h"

#include "ggml-attn-emulation.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>

bool llama_attn_emulation_topology::operator==(const llama_attn_emulation_topology & other) const {
    return enabled == other.enabled && pattern == other.pattern && dense == other.dense &&
        normalize == other.normalize && source_layer == other.source_layer && threshold == other.threshold;
}

float llama_attn_emulation_values::strength_of(llama_seq_id seq_id) const {
    const auto it = seq_strength.find(seq_id);
    return it == seq_strength.end() ? strength : it->second;
}

// no weight may get below 0, nor so large that a sum in F16 of weighted values has no room for it
static const char * check_strength(const llama_attn_emulation_values & values, float strength) {
    if (!std::isfinite(strength)) {
        return "the strength must be a finite number";
    }
    for (const float gain : values.gain) {
        const float factor = 1.0f + strength * gain;
        if (!(factor >= 0.0f && factor <= LLAMA_ATTN_EMULATION_MAX_FACTOR)) {
            return "1 + strength*gain must be from 0 to 1000 in every layer and head";
        }
    }
    return nullptr;
}

void llama_attn_emulation::shape(const llama_hparams & hparams, int32_t & n_layer, int32_t & n_head) const {
    n_layer = hparams.dec_n_layer > 0 ? hparams.dec_n_layer : hparams.n_layer(); // an encoder is left alone
    n_head  = 0;
    for (uint32_t il = 0; il < hparams.n_layer(); ++il) {
        n_head = std::max(n_head, (int32_t) hparams.n_head(il));
    }
}

const char * llama_attn_emulation::set(const llama_hparams & hparams, const llama_attn_emulation_params * params) {
    llama_attn_emulation_topology topology;
    llama_attn_emulation_values   next;

    if (params) {
        shape(hparams, next.n_layer, next.n_head);

        if (params->pattern < LLAMA_ATTN_EMULATION_PATTERN_EARLY_LAYER ||
            params->pattern > LLAMA_ATTN_EMULATION_PATTERN_FIRST_TOKEN) {
            return "the pattern is unknown";
        }
        if (params->kernel != LLAMA_ATTN_EMULATION_KERNEL_AUTO && params->kernel != LLAMA_ATTN_EMULATION_KERNEL_DENSE) {
            return "the kernel is unknown";
        }
        if (params->source_layer < 0 || params->source_layer >= next.n_layer) {
            return "the source layer must be one of the model's layers";
        }
        if (!(params->threshold > 0.0f && params->threshold < 1.0f)) {
            return "the threshold must be above 0 and below 1";
        }

        topology.enabled      = true;
        topology.pattern      = params->pattern;
        topology.dense        = params->kernel == LLAMA_ATTN_EMULATION_KERNEL_DENSE;
        topology.normalize    = params->normalize;
        topology.source_layer = params->source_layer;
        topology.threshold    = params->threshold;
        topology.owner        = this;

        next.strength = params->strength;
        next.seed     = params->seed;
        next.gain.resize((size_t) next.n_layer * next.n_head);
        for (int32_t il = params->source_layer + 1; il < next.n_layer; ++il) {
            for (int32_t h = 0; h < next.n_head; ++h) {
                float & gain = next.gain[(size_t) il * next.n_head + h];
                gain =
                    params->gain ? params->gain[(size_t) il * next.n_head + h] : 1.0f - (float) il / (next.n_layer - 1);
                if (!std::isfinite(gain)) {
                    return "the gain of a layer and head must be a finite number";
                }
            }
        }
        if (const char * error = check_strength(next, params->strength)) {
            return error;
        }
    }

    std::lock_guard<std::mutex> lock(mutex);

    // `dense` may also have been forced by take(), so compare with what was asked for, not with what runs
    if (!(pending_topology == topology)) {
        pending_topology_changed = true;
        reported                 = false;
        pattern_size             = 0;
    }
    pending_topology       = topology;
    pending                = std::move(next);
    pending_values_changed = true;

    return nullptr;
}

const char * llama_attn_emulation::set_strength(float strength) {
    std::lock_guard<std::mutex> lock(mutex);

    if (!pending_topology.enabled) {
        return "attention emulation is off in this context";
    }
    if (const char * error = check_strength(pending, strength)) {
        return error;
    }
    pending.strength       = strength;
    pending_values_changed = true;

    return nullptr;
}

const char * llama_attn_emulation::set_seq_strength(llama_seq_id seq_id, uint32_t n_seq_max, float strength) {
    std::lock_guard<std::mutex> lock(mutex);

    if (!pending_topology.enabled) {
        return "attention emulation is off in this context";
    }
    if (seq_id < 0 || (uint32_t) seq_id >= n_seq_max) {
        return "the sequence is not one of the context's";
    }
    if (std::isnan(strength)) {
        pending.seq_strength.erase(seq_id);
    } else {
        if (const char * error = check_strength(pending, strength)) {
            return error;
        }
        pending.seq_strength[seq_id] = strength;
    }
    pending_values_changed = true;

    return nullptr;
}

bool llama_attn_emulation::take(llama_attn_emulation_topology & topology) {
    std::lock_guard<std::mutex> lock(mutex);

    if (pending_values_changed) {
        values                 = pending;
        pending_values_changed = false;
    }
    if (!pending_topology_changed) {
        return false;
    }
    pending_topology_changed = false;

    llama_attn_emulation_topology next = pending_topology;
    next.dense                         = next.dense || only_dense;
    if (next == topology && (reported || !next.enabled)) {
        return false;
    }
    topology = next;

    return true;
}

void llama_attn_emulation::set_report(std::vector<llama_attn_emulation_layer> layers, size_t size) {
    std::lock_guard<std::mutex> lock(mutex);

    report   = std::move(layers);
    reported = !pending_topology_changed;
    if (reported) {
        pattern_size = std::max(pattern_size, size);
    }
}

void llama_attn_emulation::forget_report() {
    std::lock_guard<std::mutex> lock(mutex);

    reported = false;
}

bool llama_attn_emulation::get_report(llama_attn_emulation_layer * layers, int32_t n_layer) {
    std::lock_guard<std::mutex> lock(mutex);

    if (!reported || (int32_t) report.size() != n_layer) {
        return false;
    }
    std::copy(report.begin(), report.end(), layers);
    for (int32_t il = 0; il < n_layer; ++il) {
        const float * gain = pending.gain.data() + (size_t) il * pending.n_head;
        if (layers[il].emulated && std::all_of(gain, gain + pending.n_head, [](float g) { return g == 0.0f; })) {
            layers[il] = { false, false, "the schedule's gain is 0 in this layer" };
        }
    }
    return true;
}

bool llama_attn_emulation::get_pattern_size(size_t & size) {
    std::lock_guard<std::mutex> lock(mutex);

    size = pattern_size;
    return reported;
}

bool llama_attn_emulation::is_enabled() {
    std::lock_guard<std::mutex> lock(mutex);

    return pending_topology.enabled;
}

//
// llama_context
//

// Throws again what a reservation has thrown; where there was no memory, in words that name what takes it.
[[noreturn]] static void rethrow_in_words(const llama_cparams & cparams) {
    std::string text;
    try {
        throw;
    } catch (const std::bad_alloc & error) {
        text = error.what();
    } catch (const std::exception & error) {
        text = error.what();
        if (text.rfind("failed to allocate", 0) != 0) {
            throw;
        }
    }

    std::string what;
    if (cparams.attn_emulation.enabled) {
        what = cparams.attn_emulation.dense ? "attention emulation of kernel \"dense\"" : "attention emulation";
    }
    if (cparams.attn_capture) {
        what += what.empty() ? "attention capture" : " and capture";
    }
    if (what.empty()) {
        throw;
    }
    throw std::runtime_error(
        "There is not enough memory for the graphs of this context with " + what + " (" + text + ")");
}

std::unique_lock<std::recursive_mutex> llama_context::apply_attn_settings() {
    std::unique_lock<std::recursive_mutex> lock(attn_emulation.running);

    attn_emulation.memory = memory.get();

    if (attn_emulation.devices.empty()) {
        for (uint32_t il = 0; il < model.hparams.n_layer(); ++il) {
            attn_emulation.devices.push_back(cparams.offload_kqv ? model.dev_layer(il) : nullptr);
        }
        const auto & devices = attn_emulation.devices;
        // known before any graph: one with operations that are refused would reserve room for the cache on the CPU
        attn_emulation.only_dense = std::any_of(devices.begin(), devices.end(),
            [](ggml_backend_dev_t device) { return device && !ggml_attn_emulation_supported_device(device); });
    }
    if (attn_emulation.take(cparams.attn_emulation)) {
        sched_need_reserve = true;
    }
    if (attn_capture.take(cparams.attn_capture)) {
        sched_need_reserve = true;
    }
    try {
        sched_reserve();
    } catch (...) {
        // what it leaves can't be computed with, and a layer's report is made before there is room for it
        sched_need_reserve = true;
        attn_emulation.forget_report();
        rethrow_in_words(cparams);
    }
    return lock;
}

//
// interface
//

llama_attn_emulation_params llama_attn_emulation_default_params() {
    return {
        /*.pattern      =*/LLAMA_ATTN_EMULATION_PATTERN_EARLY_LAYER,
        /*.kernel       =*/LLAMA_ATTN_EMULATION_KERNEL_AUTO,
        /*.source_layer =*/0,
        /*.threshold    =*/0.01f,
        /*.strength     =*/0.2f,
        /*.normalize    =*/false,
        /*.seed         =*/0,
        /*.gain         =*/nullptr,
    };
}

void llama_attn_emulation_shape(const llama_context * ctx, int32_t * n_layer, int32_t * n_head) {
    ctx->attn_emulation.shape(ctx->get_model().hparams, *n_layer, *n_head);
}

const char * llama_set_attn_emulation(llama_context * ctx, const llama_attn_emulation_params * params) {
    if (params && ctx->get_model().split_mode() == LLAMA_SPLIT_MODE_TENSOR) {
        return "a model split by tensor over several devices can't be emulated, since its heads are not on one device";
    }
    return ctx->attn_emulation.set(ctx->get_model().hparams, params);
}

const char * llama_set_attn_emulation_strength(llama_context * ctx, float strength) {
    return ctx->attn_emulation.set_strength(strength);
}

const char * llama_set_attn_emulation_seq_strength(llama_context * ctx, llama_seq_id seq_id, float strength) {
    return ctx->attn_emulation.set_seq_strength(seq_id, ctx->n_seq_max(), strength);
}

// builds the graph if that has not been done since the topology changed
static const char * build_report(llama_context * ctx) {
    if (!ctx->attn_emulation.is_enabled()) {
        return "attention emulation is off in this context";
    }
    try {
        ctx->apply_attn_settings();
    } catch (const std::exception & err) {
        static thread_local std::string message;
        message = err.what();
        return message.c_str();
    }
    return nullptr;
}

const char * llama_attn_emulation_report(llama_context * ctx, llama_attn_emulation_layer * layers, int32_t n_layer) {
    if (ctx->attn_emulation.get_report(layers, n_layer)) {
        return nullptr;
    }
    if (const char * error = build_report(ctx)) {
        return error;
    }
    return ctx->attn_emulation.get_report(layers, n_layer) ? nullptr : "the settings have changed meanwhile; ask again";
}

size_t llama_attn_emulation_pattern_size(llama_context * ctx) {
    size_t size = 0;
    if (!ctx->attn_emulation.get_pattern_size(size) && !build_report(ctx)) {
        ctx->attn_emulation.get_pattern_size(size);
    }
    return size;
}
