// What chooses the kernels; of it, only the parts on sparse masks and on types are linked.
#include "families.h"

#include "fattn.cu"

bool flash_attention_takes(ggml_type type) {
    return ggml_cuda_fattn_kv_type_supported(type);
}
