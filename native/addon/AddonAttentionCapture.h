#pragma once

#include <functional>

#include "ContextHandle.h"

struct llama_attn_capture_recording;

// Capture of attention in one AddonContext. Making an instance changes nothing in the context.
// All methods run on the main thread. Reading waits for a batch that a worker thread evaluates.
class AddonAttentionCapture : public Napi::ObjectWrap<AddonAttentionCapture> {
  public:
    AddonAttentionCapture(const Napi::CallbackInfo & info);

    Napi::Value GetAttentionLayers(const Napi::CallbackInfo & info);
    Napi::Value Enable(const Napi::CallbackInfo & info);
    Napi::Value Disable(const Napi::CallbackInfo & info);
    Napi::Value Clear(const Napi::CallbackInfo & info);
    Napi::Value Restart(const Napi::CallbackInfo & info);
    Napi::Value Read(const Napi::CallbackInfo & info);
    Napi::Value TakeRows(const Napi::CallbackInfo & info);

    static void init(Napi::Object exports);

  private:
    ContextHandle context;

    Napi::Value withRecording(Napi::Env env, const std::function<Napi::Value(llama_attn_capture_recording &)> & use);
};
