#include "ContextHandle.h"

#include <mutex>

Napi::FunctionReference * ContextHandle::classOf(Napi::Object exports) {
    // each environment (worker threads have their own) has its own class of contexts
    const auto contextClass =
        new Napi::FunctionReference(Napi::Persistent(exports.Get("AddonContext").As<Napi::Function>()));
    exports.AddFinalizer([](Napi::Env, Napi::FunctionReference * reference) { delete reference; }, contextClass);
    return contextClass;
}

ContextHandle::ContextHandle(const Napi::CallbackInfo & info) {
    const auto contextClass = static_cast<Napi::FunctionReference *>(info.Data());

    // objects of another addon, such as stock node-llama-cpp's contexts, have another layout: unwrapping them would crash
    if (info.Length() < 1 || !info[0].IsObject() || !info[0].As<Napi::Object>().InstanceOf(contextClass->Value())) {
        throw Napi::TypeError::New(info.Env(), "The context was not made by this build of llama.cpp");
    }

    const auto object = info[0].As<Napi::Object>();
    context           = Napi::ObjectWrap<AddonContext>::Unwrap(object);
    reference         = Napi::Persistent(object);
}

Napi::Value ContextHandle::with(Napi::Env env, const std::function<Napi::Value(llama_context *)> & use) const {
    std::lock_guard<std::mutex> lock(context->disposeMutex);

    if (!context->contextLoaded || context->ctx == nullptr) {
        throw Napi::Error::New(env, "The context is disposed or not loaded");
    }
    return use(context->ctx);
}
