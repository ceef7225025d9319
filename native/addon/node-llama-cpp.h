#pragma once

#include <napi.h>

// Everything that node-llama-cpp's own addon exports.
Napi::Object initNodeLlamaCpp(Napi::Env env, Napi::Object exports);
