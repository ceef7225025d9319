#include "AddonAttentionCapture.h"
#include "AddonAttentionEmulation.h"
#include "AddonLogits.h"
#include "AddonRpcServers.h"
#include "node-llama-cpp.h"

// What JavaScript sees; src/binding.ts has the types.
static Napi::Object init(Napi::Env env, Napi::Object exports) {
    initNodeLlamaCpp(env, exports);
    AddonAttentionEmulation::init(exports);
    AddonAttentionCapture::init(exports);
    AddonLogits::init(exports);
    AddonRpcServers::init(exports);
    return exports;
}

NODE_API_MODULE(reattend, init)
