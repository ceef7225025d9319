// A module has one entry point, and node-llama-cpp's addon.cpp defines its own. Here it becomes an ordinary function.
#include "node-llama-cpp.h"

#undef NODE_API_MODULE
#define NODE_API_MODULE(name, init)                                      \
    Napi::Object initNodeLlamaCpp(Napi::Env env, Napi::Object exports) { \
        return init(env, exports);                                       \
    }

// in angle brackets: node-llama-cpp's, not the one in this folder
#include <addon.cpp>
