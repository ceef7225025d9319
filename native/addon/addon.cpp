#include "node-llama-cpp.h"

// What JavaScript sees; src/binding.ts has the types.
static Napi::Object init(Napi::Env env, Napi::Object exports) {
    return initNodeLlamaCpp(env, exports);
}

NODE_API_MODULE(reattend, init)
