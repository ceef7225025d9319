#include "AddonAttentionCapture.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "llama-attn-capture.h"
#include "llama-attn-emulation.h"

AddonAttentionCapture::AddonAttentionCapture(const Napi::CallbackInfo & info) :
    Napi::ObjectWrap<AddonAttentionCapture>(info),
    context(info) {}

Napi::Value AddonAttentionCapture::withRecording(
    Napi::Env env, const std::function<Napi::Value(llama_attn_capture_recording &)> & use) {
    return context.with(env, [&](llama_context * ctx) -> Napi::Value {
        Napi::Value result;
        if (!llama_read_attn_capture(ctx, [&](llama_attn_capture_recording & recording) { result = use(recording); })) {
            throw Napi::Error::New(env, "There is no capture in this context");
        }
        return result;
    });
}

// -> {layers: boolean[], whether each may have attention, heads: number}
Napi::Value AddonAttentionCapture::GetAttentionLayers(const Napi::CallbackInfo & info) {
    return context.with(info.Env(), [&](llama_context * ctx) -> Napi::Value {
        int32_t emulatedLayers = 0;
        int32_t heads          = 0;
        llama_attn_emulation_shape(ctx, &emulatedLayers, &heads);

        const int32_t layerCount = llama_attn_capture_n_layer(ctx);

        auto layers = Napi::Array::New(info.Env(), layerCount);
        for (int32_t i = 0; i < layerCount; i++) {
            layers.Set(i, llama_attn_capture_has_attention(ctx, i));
        }
        auto result = Napi::Object::New(info.Env());
        result.Set("layers", layers);
        result.Set("heads", heads);
        return result;
    });
}

static std::vector<int32_t> integersOf(const Napi::Value & value) {
    const auto array = value.As<Napi::Int32Array>();
    return std::vector<int32_t>(array.Data(), array.Data() + array.ElementLength());
}

// (settings: see AddonCaptureSettings in src/binding.ts)
Napi::Value AddonAttentionCapture::Enable(const Napi::CallbackInfo & info) {
    return context.with(info.Env(), [&](llama_context * ctx) -> Napi::Value {
        const auto settings = info[0].As<Napi::Object>();
        const auto number   = [&](const char * name) {
            return settings.Get(name).As<Napi::Number>();
        };
        const auto boolean = [&](const char * name) {
            return settings.Get(name).As<Napi::Boolean>().Value();
        };

        llama_attn_capture_options options;
        options.seq_id        = number("sequenceId").Int32Value();
        options.layers        = integersOf(settings.Get("layers"));
        options.heads         = integersOf(settings.Get("heads"));
        options.all_queries   = boolean("allQueries");
        options.queries       = integersOf(settings.Get("queries"));
        options.source_layer  = number("sourceLayer").Int32Value();
        options.threshold     = number("threshold").FloatValue();
        options.top_k         = number("topK").Int32Value();
        options.weights       = boolean("weights");
        options.hidden_states = boolean("hiddenStates");
        options.lens_k        = number("logitLens").Int32Value();

        const auto classes    = settings.Get("tokenClasses").As<Napi::Uint8Array>();
        options.token_classes = std::vector<uint8_t>(classes.Data(), classes.Data() + classes.ElementLength());

        if (const char * refusal = llama_set_attn_capture(ctx, &options)) {
            throw Napi::Error::New(info.Env(), refusal);
        }
        return info.Env().Undefined();
    });
}

Napi::Value AddonAttentionCapture::Disable(const Napi::CallbackInfo & info) {
    return context.with(info.Env(), [&](llama_context * ctx) -> Napi::Value {
        llama_set_attn_capture(ctx, nullptr);
        return info.Env().Undefined();
    });
}

Napi::Value AddonAttentionCapture::Clear(const Napi::CallbackInfo & info) {
    return withRecording(info.Env(), [&](llama_attn_capture_recording & recording) -> Napi::Value {
        recording.clear();
        return info.Env().Undefined();
    });
}

// (tokens: Int32Array)
Napi::Value AddonAttentionCapture::Restart(const Napi::CallbackInfo & info) {
    return withRecording(info.Env(), [&](llama_attn_capture_recording & recording) -> Napi::Value {
        recording.restart(integersOf(info[0]));
        return info.Env().Undefined();
    });
}

// By its constructor in JavaScript, which throws where there is no memory: Napi's way of making one ends the process then.
template <class Array>
static Array newArray(Napi::Env env, const char * type, size_t length) {
    try {
        const auto constructor = env.Global().Get(type).As<Napi::Function>();
        return constructor.New({ Napi::Number::New(env, static_cast<double>(length)) }).As<Array>();
    } catch (const Napi::Error &) {
        throw Napi::Error::New(env,
            "There is not enough memory to read what was captured: choose fewer layers, heads or queries, or take rows "
            "away with onRows");
    }
}

static Napi::Float32Array newFloats(Napi::Env env, size_t length) {
    return newArray<Napi::Float32Array>(env, "Float32Array", length);
}

static Napi::Uint32Array newIntegers(Napi::Env env, size_t length) {
    return newArray<Napi::Uint32Array>(env, "Uint32Array", length);
}

// indices among the captured layers of those that had something to capture
static std::vector<size_t> seenLayers(const llama_attn_capture_recording & recording) {
    std::vector<size_t> seen;
    for (size_t i = 0; i < recording.layers.size(); i++) {
        if (recording.layers[i].seen) {
            seen.push_back(i);
        }
    }
    return seen;
}

static Napi::Int32Array layerNumbers(
    Napi::Env env, const llama_attn_capture_recording & recording, const std::vector<size_t> & seen) {
    auto numbers = Napi::Int32Array::New(env, seen.size());
    for (size_t i = 0; i < seen.size(); i++) {
        numbers[i] = recording.options.layers[seen[i]];
    }
    return numbers;
}

// -> AddonMeasures in src/binding.ts
static Napi::Object readMeasures(Napi::Env env, const llama_attn_capture_recording & recording) {
    const auto   seen   = seenLayers(recording);
    const size_t heads  = recording.options.heads.size();
    const size_t each   = seen.size() * heads;
    const size_t tokens = recording.tokens.size();

    auto result = Napi::Object::New(env);
    auto floats = [&](const char * name, size_t length) {
        auto array = newFloats(env, length);
        result.Set(name, array);
        return array.Data();
    };
    float * entropy     = floats("entropy", each);
    float * first       = floats("firstTokenMass", each);
    float * agreement   = floats("agreement", each);
    float * above       = floats("keysPerRow", each);
    float * classes     = floats("classMass", each * LLAMA_ATTN_CAPTURE_CLASSES);
    float * received    = floats("received", each * tokens);
    auto    receivedBy  = newIntegers(env, each * tokens);
    auto    tokenNumber = newArray<Napi::Int32Array>(env, "Int32Array", tokens);
    std::copy(recording.tokens.begin(), recording.tokens.end(), tokenNumber.Data());
    result.Set("receivedBy", receivedBy);
    result.Set("tokens", tokenNumber);
    result.Set("layers", layerNumbers(env, recording, seen));
    result.Set("queries", Napi::Number::New(env, static_cast<double>(recording.n_rows)));
    result.Set("hasStates",
        std::any_of(recording.layers.begin(), recording.layers.end(),
            [](const llama_attn_capture_layer & layer) { return layer.has_states; }));
    result.Set("scratchBytes", Napi::Number::New(env, static_cast<double>(recording.scratch)));

    size_t index = 0;
    for (const size_t i : seen) {
        const auto & layer = recording.layers[i];
        for (size_t h = 0; h < heads; h++, index++) {
            const auto & head = layer.heads[h];

            // NAN where there is no such head or no row
            const bool   exists = recording.options.heads[h] < layer.n_head && layer.n_rows > 0;
            const double rows   = exists ? static_cast<double>(layer.n_rows) : NAN;
            entropy[index]      = static_cast<float>(head.entropy / rows);
            first[index]        = static_cast<float>(head.first / rows);
            above[index]        = static_cast<float>(head.above / rows);
            agreement[index]    = layer.n_patterns > 0 ? static_cast<float>(head.agreement / layer.n_patterns) : NAN;
            for (size_t c = 0; c < LLAMA_ATTN_CAPTURE_CLASSES; c++) {
                classes[index * LLAMA_ATTN_CAPTURE_CLASSES + c] = static_cast<float>(head.classes[c] / rows);
            }
            for (size_t t = 0; t < head.received.size(); t++) {
                received[index * tokens + t] =
                    layer.seen_by[t] > 0 ? head.received[t] / static_cast<float>(layer.seen_by[t]) : 0.0f;
                receivedBy[index * tokens + t] = head.received_by[t];
            }
        }
    }
    return result;
}

// [outer][rows of a ubatch][width of it] of each ubatch -> [chosen of outer][all rows][width], the rest left as it is
template <class type>
static void mergeRows(type * result, const std::vector<llama_attn_capture_rows> & ubatches,
    std::vector<type> llama_attn_capture_rows::*values, const std::vector<size_t> & chosen, size_t allRows,
    size_t width, const std::function<size_t(const llama_attn_capture_rows &)> & widthOf) {
    size_t before = 0;
    for (const auto & ubatch : ubatches) {
        const size_t rows = ubatch.positions.size();
        const size_t own  = widthOf(ubatch);
        for (size_t i = 0; i < chosen.size(); i++) {
            for (size_t row = 0; row < rows; row++) {
                const type * from = (ubatch.*values).data() + (chosen[i] * rows + row) * own;
                std::copy(from, from + own, result + (i * allRows + before + row) * width);
            }
        }
        before += rows;
    }
}

// -> AddonRows in src/binding.ts
static Napi::Object readRows(Napi::Env env, const llama_attn_capture_recording & recording) {
    const auto & options = recording.options;
    const auto   seen    = seenLayers(recording);
    const size_t tokens  = recording.tokens.size();

    // rows of earlier batches are padded
    if (recording.is_full || recording.kept_bytes(0, tokens) > LLAMA_ATTN_CAPTURE_MOST_KEPT) {
        throw Napi::Error::New(env,
            "The rows to keep take more than 1 GiB: choose fewer layers, heads or queries, or take rows away with "
            "onRows");
    }
    const size_t heads = options.heads.size();

    std::vector<size_t> seenHeads; // layers and heads
    for (const size_t i : seen) {
        for (size_t h = 0; h < heads; h++) {
            seenHeads.push_back(i * heads + h);
        }
    }

    const auto & ubatches = recording.rows;

    size_t rows = 0;
    for (const auto & ubatch : ubatches) {
        rows += ubatch.positions.size();
    }

    auto   result    = Napi::Object::New(env);
    auto   positions = newIntegers(env, rows);
    size_t before    = 0;
    for (const auto & ubatch : ubatches) {
        std::copy(ubatch.positions.begin(), ubatch.positions.end(), positions.Data() + before);
        before += ubatch.positions.size();
    }
    result.Set("rowIndices", positions);
    result.Set("layers", layerNumbers(env, recording, seen));
    result.Set("tokenCount", Napi::Number::New(env, static_cast<double>(tokens)));

    const auto fixed = [](size_t width) {
        return [width](const llama_attn_capture_rows &) {
            return width;
        };
    };
    const auto floats = [&](const char * name, std::vector<float> llama_attn_capture_rows::*values,
                            const std::vector<size_t> & chosen, size_t width,
                            const std::function<size_t(const llama_attn_capture_rows &)> & widthOf) {
        auto array = newFloats(env, chosen.size() * rows * width);
        mergeRows<float>(array.Data(), ubatches, values, chosen, rows, width, widthOf);
        result.Set(name, array);
    };
    const auto integers = [&](const char * name, std::vector<uint32_t> llama_attn_capture_rows::*values,
                              const std::vector<size_t> & chosen, size_t width) {
        auto array = newIntegers(env, chosen.size() * rows * width);
        mergeRows<uint32_t>(array.Data(), ubatches, values, chosen, rows, width, fixed(width));
        result.Set(name, array);
    };

    const size_t topK = options.top_k;
    const size_t lens = options.lens_k;
    integers("topKeys", &llama_attn_capture_rows::top_keys, seenHeads, topK);
    floats("topWeights", &llama_attn_capture_rows::top_weights, seenHeads, topK, fixed(topK));
    if (options.weights) {
        floats("weights", &llama_attn_capture_rows::weights, seenHeads, tokens,
            [](const llama_attn_capture_rows & ubatch) { return static_cast<size_t>(ubatch.n_tokens); });
    }
    if (options.hidden_states) {
        floats(
            "hiddenStates", &llama_attn_capture_rows::hidden_states, seen, recording.n_embd, fixed(recording.n_embd));
    }
    if (lens > 0) {
        integers("lensTokens", &llama_attn_capture_rows::lens_tokens, seen, lens);
        floats("lensLogProbabilities", &llama_attn_capture_rows::lens_logprobs, seen, lens, fixed(lens));
    }
    return result;
}

// -> {measures: AddonMeasures, rows: AddonRows}, of the same moment
Napi::Value AddonAttentionCapture::Read(const Napi::CallbackInfo & info) {
    return withRecording(info.Env(), [&](llama_attn_capture_recording & recording) -> Napi::Value {
        auto result = Napi::Object::New(info.Env());
        result.Set("measures", readMeasures(info.Env(), recording));
        result.Set("rows", readRows(info.Env(), recording));
        return result;
    });
}

// -> AddonRows; they are no longer kept
Napi::Value AddonAttentionCapture::TakeRows(const Napi::CallbackInfo & info) {
    return withRecording(info.Env(), [&](llama_attn_capture_recording & recording) -> Napi::Value {
        const auto rows = readRows(info.Env(), recording);
        recording.rows.clear();
        return rows;
    });
}

void AddonAttentionCapture::init(Napi::Object exports) {
    exports.Set("AddonAttentionCapture",
        DefineClass(exports.Env(), "AddonAttentionCapture",
            {
                InstanceMethod("getAttentionLayers", &AddonAttentionCapture::GetAttentionLayers),
                InstanceMethod("enable", &AddonAttentionCapture::Enable),
                InstanceMethod("disable", &AddonAttentionCapture::Disable),
                InstanceMethod("clear", &AddonAttentionCapture::Clear),
                InstanceMethod("restart", &AddonAttentionCapture::Restart),
                InstanceMethod("read", &AddonAttentionCapture::Read),
                InstanceMethod("takeRows", &AddonAttentionCapture::TakeRows),
            },
            ContextHandle::classOf(exports)));
}
