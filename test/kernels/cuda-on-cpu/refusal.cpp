// What attn-emulation.cu is for HIP and MUSA. It is only compiled: what has other parameters than were declared is an error.
#include "attn-emulation.cuh"

#define GGML_USE_HIP // from here on, as no header knows it
#include "attn-emulation.cu"
