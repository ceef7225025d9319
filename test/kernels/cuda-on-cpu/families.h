#pragma once

// Instances of flash attention's kernels that are executed: of each family some sizes, each with its own way of splitting the work.

#include "attention-case.h"

#include <string>
#include <vector>

struct ggml_backend_cuda_context;
struct ggml_tensor;

// fattn.cu's answer: keys or values of another type are no case for any of the kernels
bool flash_attention_takes(ggml_type type);

struct kernel_instance {
    std::string name;
    bool (*takes)(const attention_case & c); // as fattn.cu chooses by shapes
    void (*run)(ggml_backend_cuda_context & ctx, ggml_tensor * fa);
};

std::vector<kernel_instance> vec_kernels();
std::vector<kernel_instance> tile_kernels();
std::vector<kernel_instance> mma_kernels();
