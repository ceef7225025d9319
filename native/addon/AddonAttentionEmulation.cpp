#include "AddonAttentionEmulation.h"

#include <map>
#include <string>
#include <vector>

#include "llama-attn-emulation.h"

// refusals of the C API: a sentence, or null where there is nothing to refuse
static void throwIfRefused(Napi::Env env, const char * refusal) {
    if (refusal != nullptr) {
        throw Napi::Error::New(env, refusal);
    }
}

static llama_attn_emulation_pattern patternOf(const std::string & name) {
    static const std::map<std::string, llama_attn_emulation_pattern> patterns = {
        { "early-layer", LLAMA_ATTN_EMULATION_PATTERN_EARLY_LAYER },
        { "all", LLAMA_ATTN_EMULATION_PATTERN_ALL },
        { "random", LLAMA_ATTN_EMULATION_PATTERN_RANDOM },
        { "first-token", LLAMA_ATTN_EMULATION_PATTERN_FIRST_TOKEN },
    };
    return patterns.at(name);
}

AddonAttentionEmulation::AddonAttentionEmulation(const Napi::CallbackInfo & info) :
    Napi::ObjectWrap<AddonAttentionEmulation>(info),
    context(info) {}

// -> {layers: number, heads: number}
Napi::Value AddonAttentionEmulation::GetShape(const Napi::CallbackInfo & info) {
    return context.with(info.Env(), [&](llama_context * ctx) -> Napi::Value {
        int32_t layers = 0;
        int32_t heads  = 0;
        llama_attn_emulation_shape(ctx, &layers, &heads);

        auto shape = Napi::Object::New(info.Env());
        shape.Set("layers", layers);
        shape.Set("heads", heads);
        return shape;
    });
}

// (settings: {strength, threshold, sourceLayer, gains: Float32Array [layers][heads], pattern, seed, normalize, dense})
Napi::Value AddonAttentionEmulation::Enable(const Napi::CallbackInfo & info) {
    return context.with(info.Env(), [&](llama_context * ctx) -> Napi::Value {
        const auto settings = info[0].As<Napi::Object>();
        const auto gains    = settings.Get("gains").As<Napi::Float32Array>();

        int32_t layers = 0;
        int32_t heads  = 0;
        llama_attn_emulation_shape(ctx, &layers, &heads);
        if (gains.ElementLength() != static_cast<size_t>(layers) * heads) {
            throw Napi::RangeError::New(info.Env(), "The gains don't have one value for each layer and head");
        }

        auto params         = llama_attn_emulation_default_params();
        params.strength     = settings.Get("strength").As<Napi::Number>().FloatValue();
        params.threshold    = settings.Get("threshold").As<Napi::Number>().FloatValue();
        params.source_layer = settings.Get("sourceLayer").As<Napi::Number>().Int32Value();
        params.gain         = gains.Data();
        params.pattern      = patternOf(settings.Get("pattern").As<Napi::String>());
        params.seed         = settings.Get("seed").As<Napi::Number>().Uint32Value();
        params.normalize    = settings.Get("normalize").As<Napi::Boolean>().Value();
        params.kernel       = settings.Get("dense").As<Napi::Boolean>().Value() ? LLAMA_ATTN_EMULATION_KERNEL_DENSE :
                                                                                  LLAMA_ATTN_EMULATION_KERNEL_AUTO;

        throwIfRefused(info.Env(), llama_set_attn_emulation(ctx, &params));
        return info.Env().Undefined();
    });
}

Napi::Value AddonAttentionEmulation::Disable(const Napi::CallbackInfo & info) {
    return context.with(info.Env(), [&](llama_context * ctx) -> Napi::Value {
        throwIfRefused(info.Env(), llama_set_attn_emulation(ctx, nullptr));
        return info.Env().Undefined();
    });
}

// (strength: number)
Napi::Value AddonAttentionEmulation::SetStrength(const Napi::CallbackInfo & info) {
    return context.with(info.Env(), [&](llama_context * ctx) -> Napi::Value {
        const auto strength = info[0].As<Napi::Number>().FloatValue();
        throwIfRefused(info.Env(), llama_set_attn_emulation_strength(ctx, strength));
        return info.Env().Undefined();
    });
}

// (sequenceId: number, strength: number), NaN: the context's strength again
Napi::Value AddonAttentionEmulation::SetSequenceStrength(const Napi::CallbackInfo & info) {
    return context.with(info.Env(), [&](llama_context * ctx) -> Napi::Value {
        const llama_seq_id sequenceId = info[0].As<Napi::Number>().Int32Value();
        const auto         strength   = info[1].As<Napi::Number>().FloatValue();
        throwIfRefused(info.Env(), llama_set_attn_emulation_seq_strength(ctx, sequenceId, strength));
        return info.Env().Undefined();
    });
}

// -> {emulated: boolean, fused: boolean, reason?: string}[], one of each layer
Napi::Value AddonAttentionEmulation::GetReport(const Napi::CallbackInfo & info) {
    return context.with(info.Env(), [&](llama_context * ctx) -> Napi::Value {
        int32_t layerCount = 0;
        int32_t heads      = 0;
        llama_attn_emulation_shape(ctx, &layerCount, &heads);

        std::vector<llama_attn_emulation_layer> layers(layerCount);
        throwIfRefused(info.Env(), llama_attn_emulation_report(ctx, layers.data(), layerCount));

        auto report = Napi::Array::New(info.Env(), layerCount);
        for (int32_t i = 0; i < layerCount; i++) {
            auto layer = Napi::Object::New(info.Env());
            layer.Set("emulated", layers[i].emulated);
            layer.Set("fused", layers[i].fused);
            if (layers[i].reason != nullptr) {
                layer.Set("reason", std::string(layers[i].reason));
            }
            report.Set(i, layer);
        }
        return report;
    });
}

// -> bytes
Napi::Value AddonAttentionEmulation::GetPatternSize(const Napi::CallbackInfo & info) {
    return context.with(info.Env(), [&](llama_context * ctx) -> Napi::Value {
        return Napi::Number::New(info.Env(), static_cast<double>(llama_attn_emulation_pattern_size(ctx)));
    });
}

// -> how many decodes of the context could reuse the graph of the one before: a change of strength must not prevent that
Napi::Value AddonAttentionEmulation::GetReusedGraphs(const Napi::CallbackInfo & info) {
    return context.with(info.Env(), [&](llama_context * ctx) -> Napi::Value {
        return Napi::Number::New(info.Env(), llama_perf_context(ctx).n_reused);
    });
}

void AddonAttentionEmulation::init(Napi::Object exports) {
    exports.Set("AddonAttentionEmulation",
        DefineClass(exports.Env(), "AddonAttentionEmulation",
            {
                InstanceMethod("getShape", &AddonAttentionEmulation::GetShape),
                InstanceMethod("enable", &AddonAttentionEmulation::Enable),
                InstanceMethod("disable", &AddonAttentionEmulation::Disable),
                InstanceMethod("setStrength", &AddonAttentionEmulation::SetStrength),
                InstanceMethod("setSequenceStrength", &AddonAttentionEmulation::SetSequenceStrength),
                InstanceMethod("getReport", &AddonAttentionEmulation::GetReport),
                InstanceMethod("getPatternSize", &AddonAttentionEmulation::GetPatternSize),
                InstanceMethod("getReusedGraphs", &AddonAttentionEmulation::GetReusedGraphs),
            },
            ContextHandle::classOf(exports)));
}
