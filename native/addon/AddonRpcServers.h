#pragma once

#include <ggml-backend.h>
#include <ggml-cpp.h>

#include <string>
#include <vector>

#include "AddonModel.h"

// The RPC servers that the models of one Llama instance may use. llama.cpp's registry of devices does not know them: it is
// the whole process's.
class AddonRpcServers : public Napi::ObjectWrap<AddonRpcServers> {
  public:
    AddonRpcServers(const Napi::CallbackInfo & info);

    Napi::Value Connect(const Napi::CallbackInfo & info);
    Napi::Value OfferTo(const Napi::CallbackInfo & info);
    Napi::Value GetMemory(const Napi::CallbackInfo & info);
    Napi::Value Dispose(const Napi::CallbackInfo & info);

    // to be called from any thread; throws std::runtime_error
    void connect();

    static void init(Napi::Object exports);

  private:
    std::vector<std::string>        addresses;
    std::vector<ggml_backend_dev_t> devices;     // never freed by llama.cpp
    std::vector<ggml_backend_ptr>   connections; // one of each server, open until disposed
    std::vector<ggml_backend_dev_t> offered;     // to models: `devices`, this machine's GPUs, null
};
