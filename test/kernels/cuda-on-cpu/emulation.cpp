// Our kernels and their launches, under names of their own: see run-cuda-on-cpu.cpp.
#define ggml_cuda_attn_record_pattern own_record_pattern
#define ggml_cuda_attn_boost_pattern  own_boost_pattern
#include "attn-emulation.cu"
