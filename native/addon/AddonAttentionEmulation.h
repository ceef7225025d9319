#pragma once

#include "ContextHandle.h"

// Emulation settings of one AddonContext. Making an instance changes nothing in the context.
// All methods run on the main thread and may be called while a worker thread decodes: see llama-attn-emulation.h.
class AddonAttentionEmulation : public Napi::ObjectWrap<AddonAttentionEmulation> {
  public:
    AddonAttentionEmulation(const Napi::CallbackInfo & info);

    Napi::Value GetShape(const Napi::CallbackInfo & info);
    Napi::Value Enable(const Napi::CallbackInfo & info);
    Napi::Value Disable(const Napi::CallbackInfo & info);
    Napi::Value SetStrength(const Napi::CallbackInfo & info);
    Napi::Value SetSequenceStrength(const Napi::CallbackInfo & info);
    Napi::Value GetReport(const Napi::CallbackInfo & info);
    Napi::Value GetPatternSize(const Napi::CallbackInfo & info);
    Napi::Value GetReusedGraphs(const Napi::CallbackInfo & info);

    static void init(Napi::Object exports);

  private:
    ContextHandle context;
};
