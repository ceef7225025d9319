// What ggml-cuda.cu and convert.cu give to flash attention, for a device that is a CPU.
#include "common.cuh"
#include "convert.cuh"
#include "device.h"
#include "guarded-memory.h"

#include "ggml-impl.h"

#include <list>

static ggml_cuda_device_info make_info() {
    ggml_cuda_device_info info = {};
    info.device_count          = 1;
    info.devices[0].cc         = 860;
    info.devices[0].nsm        = 4;
    info.devices[0].warp_size  = 32;
    return info;
}

static ggml_cuda_device_info device_info = make_info();

void set_device(int compute_capability, int n_sm, int blocks_per_sm) {
    device_info.devices[0].cc  = compute_capability;
    device_info.devices[0].nsm = n_sm;
    cuda_on_cpu::blocks_per_sm = blocks_per_sm;
}

const ggml_cuda_device_info & ggml_cuda_info() {
    return device_info;
}

void ggml_cuda_set_device(int) {}

int ggml_cuda_get_device() {
    return 0;
}

void ggml_cuda_error(const char * stmt, const char *, const char *, int, const char *) {
    GGML_ABORT("%s", stmt);
}

ggml_backend_cuda_context::~ggml_backend_cuda_context() {}

// frees in reverse order, as the device's does, and what it gives out is no number
struct pool_on_cpu : ggml_cuda_pool {
    std::list<guarded_memory> given;

    void * alloc(size_t size, size_t * actual_size) override {
        *actual_size = size;

        char * data = given.emplace_back(size).data();
        memset(data, 0xff, size);
        return data;
    }

    void free(void * ptr, size_t) override {
        GGML_ASSERT(given.back().data() == ptr);
        given.pop_back();
    }
};

std::unique_ptr<ggml_cuda_pool> ggml_backend_cuda_context::new_pool_for_device(int, int) {
    return std::make_unique<pool_on_cpu>();
}

template <ggml_type type>
static void to_fp16(const void * x, half * y, int64_t n, cudaStream_t) {
    std::vector<float> values(n);
    if (type == GGML_TYPE_F32) {
        std::copy_n((const float *) x, n, values.begin());
    } else {
        ggml_get_type_traits(type)->to_float(x, values.data(), n);
    }
    std::copy(values.begin(), values.end(), y);
}

template <ggml_type type>
static void to_fp16_nc(const void * x, half * y, int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3, int64_t s1,
    int64_t s2, int64_t s3, cudaStream_t stream) {
    for (int64_t i = 0; i < ne1 * ne2 * ne3; ++i) {
        const int64_t block = i % ne1 * s1 + i / ne1 % ne2 * s2 + i / ne1 / ne2 * s3;
        to_fp16<type>((const char *) x + block * ggml_type_size(type), y + i * ne0, ne0, stream);
    }
}

#define FOR_TYPE(function, type) \
    case type:                   \
        return function<type>
#define FOR_TYPES(function)             \
    FOR_TYPE(function, GGML_TYPE_F32);  \
    FOR_TYPE(function, GGML_TYPE_BF16); \
    FOR_TYPE(function, GGML_TYPE_Q4_0); \
    FOR_TYPE(function, GGML_TYPE_Q4_1); \
    FOR_TYPE(function, GGML_TYPE_Q5_0); \
    FOR_TYPE(function, GGML_TYPE_Q5_1); \
    FOR_TYPE(function, GGML_TYPE_Q8_0); \
    default:                            \
        GGML_ABORT("no conversion of %s", ggml_type_name(type))

to_fp16_cuda_t ggml_get_to_fp16_cuda(ggml_type type) {
    switch (type) { FOR_TYPES(to_fp16); }
}

to_fp16_nc_cuda_t ggml_get_to_fp16_nc_cuda(ggml_type type) {
    switch (type) { FOR_TYPES(to_fp16_nc); }
}
