#include "AddonRpcServers.h"

#include <ggml-rpc.h>

#include <cctype>
#include <csignal>
#include <cstdlib>
#include <stdexcept>

// a backend and what it must be asked with; it may be a library that is loaded at run time
template <class function>
static function findRpcFunction(const char * name) {
    ggml_backend_reg_t reg   = ggml_backend_reg_by_name("RPC");
    void *             found = reg != nullptr ? ggml_backend_reg_get_proc_address(reg, name) : nullptr;
    if (found == nullptr) {
        throw std::runtime_error("this build of llama.cpp has no RPC backend");
    }
    return reinterpret_cast<function>(found);
}

static std::string sentence(const std::exception & error) {
    std::string message = error.what();
    message[0]          = std::toupper(static_cast<unsigned char>(message[0]));
    return message;
}

static std::vector<ggml_backend_dev_t> findDevices(enum ggml_backend_dev_type type) {
    std::vector<ggml_backend_dev_t> devices;
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        if (ggml_backend_dev_type(ggml_backend_dev_get(i)) == type) {
            devices.push_back(ggml_backend_dev_get(i));
        }
    }
    return devices;
}

// integrated GPUs count where there are no others, as in llama.cpp
static std::vector<ggml_backend_dev_t> findGpus() {
    const auto gpus = findDevices(GGML_BACKEND_DEVICE_TYPE_GPU);
    return gpus.empty() ? findDevices(GGML_BACKEND_DEVICE_TYPE_IGPU) : gpus;
}

class AddonRpcServersConnectWorker : public Napi::AsyncWorker {
  public:
    AddonRpcServersConnectWorker(const Napi::Env & env, AddonRpcServers * servers) :
        Napi::AsyncWorker(env, "AddonRpcServersConnectWorker"),
        servers(servers),
        deferred(Napi::Promise::Deferred::New(env)) {
        servers->Ref();
    }

    ~AddonRpcServersConnectWorker() { servers->Unref(); }

    Napi::Promise GetPromise() { return deferred.Promise(); }

  protected:
    void Execute() {
        try {
            servers->connect();
        } catch (const std::exception & error) {
            SetError(sentence(error));
        }
    }

    void OnOK() { deferred.Resolve(Env().Undefined()); }

    void OnError(const Napi::Error & error) { deferred.Reject(error.Value()); }

  private:
    AddonRpcServers *       servers;
    Napi::Promise::Deferred deferred;
};

// (addresses: string[])
AddonRpcServers::AddonRpcServers(const Napi::CallbackInfo & info) : Napi::ObjectWrap<AddonRpcServers>(info) {
    const auto list = info[0].As<Napi::Array>();
    for (uint32_t i = 0; i < list.Length(); i++) {
        addresses.push_back(list.Get(i).As<Napi::String>().Utf8Value());
    }
}

void AddonRpcServers::connect() {
    const auto addServer = findRpcFunction<decltype(&ggml_backend_rpc_add_server)>("ggml_backend_rpc_add_server");

    for (const auto & address : addresses) {
        ggml_backend_reg_t server = addServer(address.c_str());
        if (server == nullptr) {
            throw std::runtime_error("the RPC server at " + address + " offers no devices");
        }
        for (size_t i = 0; i < ggml_backend_reg_dev_count(server); i++) {
            devices.push_back(ggml_backend_reg_dev_get(server, i));
        }
        connections.emplace_back(ggml_backend_dev_init(devices.back(), nullptr));
    }

    offered = devices;
    for (ggml_backend_dev_t gpu : findGpus()) {
        offered.push_back(gpu);
    }
    // those that llama.cpp adds itself count, too
    const size_t most = llama_max_devices() - 1 - findDevices(GGML_BACKEND_DEVICE_TYPE_ACCEL).size();
    if (offered.size() > most) {
        throw std::runtime_error("the RPC servers and this machine have " + std::to_string(offered.size()) +
            " devices; llama.cpp takes at most " + std::to_string(most));
    }
    offered.push_back(nullptr);
}

// -> Promise<void>, once
Napi::Value AddonRpcServers::Connect(const Napi::CallbackInfo & info) {
    const auto worker = new AddonRpcServersConnectWorker(info.Env(), this);
    worker->Queue();
    return worker->GetPromise();
}

// (model: AddonModel), before it is loaded; this must outlive it
Napi::Value AddonRpcServers::OfferTo(const Napi::CallbackInfo & info) {
    const auto model            = Napi::ObjectWrap<AddonModel>::Unwrap(info[0].As<Napi::Object>());
    model->model_params.devices = offered.data();
    return info.Env().Undefined();
}

// -> {total: number, free: number} of all servers, in bytes
Napi::Value AddonRpcServers::GetMemory(const Napi::CallbackInfo & info) {
    double allTotal = 0;
    double allFree  = 0;
    try {
        for (ggml_backend_dev_t device : devices) {
            size_t free, total;
            ggml_backend_dev_memory(device, &free, &total);
            allFree += free;
            allTotal += total;
        }
    } catch (const std::exception & error) {
        throw Napi::Error::New(info.Env(), sentence(error));
    }

    auto memory = Napi::Object::New(info.Env());
    memory.Set("total", allTotal);
    memory.Set("free", allFree);
    return memory;
}

// connections stay open while models use them
Napi::Value AddonRpcServers::Dispose(const Napi::CallbackInfo & info) {
    connections.clear();
    return info.Env().Undefined();
}

// (address: string, threads: number): serves this machine's GPUs, or its CPU where it has none, until a signal ends the
// process; returns if that can't be
static Napi::Value serveRpc(const Napi::CallbackInfo & info) {
    const std::string address = info[0].As<Napi::String>().Utf8Value();
    const size_t      threads = info[1].As<Napi::Number>().Uint32Value();

    // JavaScript, which takes log messages and signals otherwise, does not get to run any more
    ggml_log_set(nullptr, nullptr);
    std::signal(SIGINT, [](int) { std::_Exit(130); });
    std::signal(SIGTERM, [](int) { std::_Exit(143); });

    try {
        const auto start = findRpcFunction<decltype(&ggml_backend_rpc_start_server)>("ggml_backend_rpc_start_server");

        auto devices = findGpus();
        if (devices.empty()) {
            devices = findDevices(GGML_BACKEND_DEVICE_TYPE_CPU);
        }
        start(address.c_str(), nullptr, threads, devices.size(), devices.data());
    } catch (const std::exception & error) {
        throw Napi::Error::New(info.Env(), sentence(error));
    }
    return info.Env().Undefined();
}

void AddonRpcServers::init(Napi::Object exports) {
    exports.Set("AddonRpcServers",
        DefineClass(exports.Env(), "AddonRpcServers",
            {
                InstanceMethod("connect", &AddonRpcServers::Connect),
                InstanceMethod("offerTo", &AddonRpcServers::OfferTo),
                InstanceMethod("getMemory", &AddonRpcServers::GetMemory),
                InstanceMethod("dispose", &AddonRpcServers::Dispose),
            }));
    exports.Set("serveRpc", Napi::Function::New(exports.Env(), serveRpc, "serveRpc"));
}
