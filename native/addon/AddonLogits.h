#pragma once

#include <functional>

#include "ContextHandle.h"

// Reads the logits that the last batch of an AddonContext left, row by row, without handing whole vocabularies to JavaScript.
// All methods run on the main thread, between two batches: node-llama-cpp calls a request's `mapLogits` there.
class AddonLogits : public Napi::ObjectWrap<AddonLogits> {
  public:
    AddonLogits(const Napi::CallbackInfo & info);

    Napi::Value GetLikeliestToken(const Napi::CallbackInfo & info);
    Napi::Value GetLogProbabilities(const Napi::CallbackInfo & info);
    Napi::Value CopyLogProbabilities(const Napi::CallbackInfo & info);
    Napi::Value GetDivergence(const Napi::CallbackInfo & info);

    static void init(Napi::Object exports);

  private:
    ContextHandle context;

    Napi::Value withRow(
        const Napi::CallbackInfo & info, const std::function<Napi::Value(const float *, int32_t)> & use);
};
