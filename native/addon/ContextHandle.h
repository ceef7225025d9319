#pragma once

#include <functional>

#include "AddonContext.h"

// What our classes hold of an AddonContext of this addon, which their JavaScript constructors take as the first argument.
class ContextHandle {
  public:
    // for `DefineClass`: what a class's constructor finds in `info.Data()`
    static Napi::FunctionReference * classOf(Napi::Object exports);

    // throws a TypeError where there is no such context
    explicit ContextHandle(const Napi::CallbackInfo & info);

    // The context can neither be freed while `use` runs, nor be used after it has been freed: then this throws.
    Napi::Value with(Napi::Env env, const std::function<Napi::Value(llama_context *)> & use) const;

  private:
    AddonContext *        context;
    Napi::ObjectReference reference; // keeps the context from being collected
};
