#include "AddonLogits.h"

#include <algorithm>
#include <cmath>

#include "llama.h"

AddonLogits::AddonLogits(const Napi::CallbackInfo & info) : Napi::ObjectWrap<AddonLogits>(info), context(info) {}

// The row whose index in the batch is the first argument.
Napi::Value AddonLogits::withRow(
    const Napi::CallbackInfo & info, const std::function<Napi::Value(const float *, int32_t)> & use) {
    return context.with(info.Env(), [&](llama_context * ctx) -> Napi::Value {
        const float * logits = llama_get_logits_ith(ctx, info[0].As<Napi::Number>().Int32Value());
        if (logits == nullptr) {
            throw Napi::RangeError::New(info.Env(), "The last batch has no logits there");
        }
        return use(logits, llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(ctx))));
    });
}

// log(sum(exp(logits))): a logit minus this is the logarithm of the token's probability
static double logSumExp(const float * logits, int32_t count) {
    const float most = *std::max_element(logits, logits + count);
    double      sum  = 0;
    for (int32_t i = 0; i < count; i++) {
        sum += std::exp(logits[i] - most);
    }
    return most + std::log(sum);
}

// (row: number) -> the token with the largest logit, the first one of several; -1 where a logit is no number
Napi::Value AddonLogits::GetLikeliestToken(const Napi::CallbackInfo & info) {
    return withRow(info, [&](const float * logits, int32_t count) -> Napi::Value {
        const bool broken = std::any_of(logits, logits + count, [](float logit) { return std::isnan(logit); });
        const auto token  = broken ? -1 : std::max_element(logits, logits + count) - logits;
        return Napi::Number::New(info.Env(), static_cast<double>(token));
    });
}

// (row: number, tokens: Uint32Array) -> Float64Array, the natural logarithm of each token's probability
Napi::Value AddonLogits::GetLogProbabilities(const Napi::CallbackInfo & info) {
    return withRow(info, [&](const float * logits, int32_t count) -> Napi::Value {
        const auto tokens = info[1].As<Napi::Uint32Array>();
        const auto total  = logSumExp(logits, count);

        auto result = Napi::Float64Array::New(info.Env(), tokens.ElementLength());
        for (size_t i = 0; i < tokens.ElementLength(); i++) {
            if (tokens[i] >= static_cast<uint32_t>(count)) {
                throw Napi::RangeError::New(info.Env(), "A token is not in the vocabulary");
            }
            result[i] = logits[tokens[i]] - total;
        }
        return result;
    });
}

// (row: number) -> Float32Array, the natural logarithm of the probability of every token of the vocabulary
Napi::Value AddonLogits::CopyLogProbabilities(const Napi::CallbackInfo & info) {
    return withRow(info, [&](const float * logits, int32_t count) -> Napi::Value {
        const auto total  = logSumExp(logits, count);
        auto       result = Napi::Float32Array::New(info.Env(), count);
        std::transform(
            logits, logits + count, result.Data(), [&](float logit) { return static_cast<float>(logit - total); });
        return result;
    });
}

// (row: number, reference: Float32Array, as CopyLogProbabilities gives it) -> {divergence, sameTop}: the Kullback-Leibler
// divergence of the row from the reference, in nats, and whether both have the same likeliest token
Napi::Value AddonLogits::GetDivergence(const Napi::CallbackInfo & info) {
    return withRow(info, [&](const float * logits, int32_t count) -> Napi::Value {
        const auto reference = info[1].As<Napi::Float32Array>();
        if (reference.ElementLength() != static_cast<size_t>(count)) {
            throw Napi::RangeError::New(info.Env(), "The reference has another vocabulary");
        }

        const float * expected   = reference.Data();
        const auto    total      = logSumExp(logits, count);
        double        divergence = 0;
        for (int32_t i = 0; i < count; i++) {
            // a token that the reference all but excludes adds nothing, also where its logarithm is -infinity
            if (expected[i] > -80) {
                divergence += std::exp(static_cast<double>(expected[i])) * (expected[i] - (logits[i] - total));
            }
        }

        auto result = Napi::Object::New(info.Env());
        result.Set("divergence", divergence);
        result.Set("sameTop",
            std::max_element(logits, logits + count) - logits ==
                std::max_element(expected, expected + count) - expected);
        return result;
    });
}

void AddonLogits::init(Napi::Object exports) {
    exports.Set("AddonLogits",
        DefineClass(exports.Env(), "AddonLogits",
            {
                InstanceMethod("getLikeliestToken", &AddonLogits::GetLikeliestToken),
                InstanceMethod("getLogProbabilities", &AddonLogits::GetLogProbabilities),
                InstanceMethod("copyLogProbabilities", &AddonLogits::CopyLogProbabilities),
                InstanceMethod("getDivergence", &AddonLogits::GetDivergence),
            },
            ContextHandle::classOf(exports)));
}
