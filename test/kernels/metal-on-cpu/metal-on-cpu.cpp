// A Metal device that is a CPU: what ggml-metal-device.m and ggml-metal-context.m do with Apple's frameworks, done here with the
// translated kernels. All else of the backend is ggml's and ours as it is.
//
// Stricter than a device: commands between two barriers run in the reverse of their order, and so do threadgroups; all memory that
// was not written is NaN, and what follows a buffer must stay as it was.

#include "ggml-backend-impl.h"
#include "ggml-impl.h"
#include "ggml-metal-common.h"
#include "ggml-metal-context.h"
#include "ggml-metal-device.h"
#include "ggml-metal-fusion.h"
#include "ggml-metal-ops.h"
#include "ggml-metal.h"
#include "kernel-library.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

//
// pipelines
//

struct ggml_metal_cv {
    std::map<int, int32_t> values;
};

ggml_metal_cv_t ggml_metal_cv_init() {
    return new ggml_metal_cv();
}

void ggml_metal_cv_free(ggml_metal_cv_t cv) {
    delete cv;
}

void ggml_metal_cv_set_int16(ggml_metal_cv_t cv, int16_t value, int32_t idx) {
    cv->values[idx] = value;
}

void ggml_metal_cv_set_int32(ggml_metal_cv_t cv, int32_t value, int32_t idx) {
    cv->values[idx] = value;
}

void ggml_metal_cv_set_bool(ggml_metal_cv_t cv, bool value, int32_t idx) {
    cv->values[idx] = value;
}

struct ggml_metal_pipeline {
    kernel_runner run = nullptr;
    ggml_metal_cv constants;
    size_t        slack   = 0; // bytes of threadgroup memory past what it was given that the kernel writes
    lanes::trust  trusted = lanes::trust::barriers;
};

ggml_metal_pipeline_t ggml_metal_pipeline_init() {
    return new ggml_metal_pipeline();
}

void ggml_metal_pipeline_free(ggml_metal_pipeline_t pipeline) {
    delete pipeline;
}

int ggml_metal_pipeline_max_theads_per_threadgroup(ggml_metal_pipeline_with_params) {
    return 1024;
}

struct ggml_metal_library {
    ggml_metal_device_t    device;
    ggml_metal_pipelines_t pipelines = ggml_metal_pipelines_init();
};

ggml_metal_library_t ggml_metal_library_init(ggml_metal_device_t dev) {
    return new ggml_metal_library{ dev };
}

void ggml_metal_library_free(ggml_metal_library_t lib) {
    ggml_metal_pipelines_free(lib->pipelines);
    delete lib;
}

ggml_metal_device_t ggml_metal_library_get_device(ggml_metal_library_t lib) {
    return lib->device;
}

ggml_metal_pipeline_with_params ggml_metal_library_get_pipeline(ggml_metal_library_t lib, const char * name) {
    return { ggml_metal_pipelines_get(lib->pipelines, name), 0, 0, 0, 0, false, false };
}

ggml_metal_pipeline_with_params ggml_metal_library_compile_pipeline(
    ggml_metal_library_t lib, const char * base, const char * name, ggml_metal_cv_t cv) {
    const auto found = kernel_library::get().kernels.find(base);
    if (found == kernel_library::get().kernels.end()) {
        GGML_ABORT("%s is not among the kernels that translate.js takes", base);
    }
    ggml_metal_pipeline_t pipeline = ggml_metal_pipeline_init();
    pipeline->run                  = found->second;
    pipeline->constants            = cv ? *cv : ggml_metal_cv();
    if (strstr(base, "flash_attn_ext_vec_")) {
        // upstream's: in clearing its result, with some head sizes its upper lanes go up to 16 vectors past the end,
        // and its first lane writes sums over weights that others have just read
        pipeline->slack   = 256;
        pipeline->trusted = lanes::trust::lockstep;
    }
    ggml_metal_pipelines_add(lib->pipelines, name, pipeline);
    return ggml_metal_library_get_pipeline(lib, name);
}

//
// commands
//

struct command {
    ggml_metal_pipeline_t pipeline;
    kernel_arguments      arguments;
    size_t                threadgroup_memory;
    uint32_t              threadgroups[3];
    uint32_t              threads[3];
};

struct ggml_metal_encoder {
    command              next = {};
    std::vector<command> since_barrier;

    std::vector<char *> & buffers(int idx) {
        if ((int) next.arguments.buffers.size() <= idx) {
            next.arguments.buffers.resize(idx + 1);
            next.arguments.bytes.resize(idx + 1);
        }
        return next.arguments.buffers;
    }
};

static void set_constants(const ggml_metal_cv & cv) {
    kernel_library & library = kernel_library::get();
    // what a pipeline does not set, its kernel must not use: true and far too large show it
    for (auto & [index, value] : library.bool_constants) {
        const auto set = cv.values.find(index);
        *value         = set == cv.values.end() || set->second != 0;
    }
    for (auto & [index, value] : library.int_constants) {
        const auto set = cv.values.find(index);
        *value         = set == cv.values.end() ? 1 << 24 : set->second;
    }
}

ggml_metal_encoder_t ggml_metal_encoder_init(ggml_metal_cmd_buf_t, bool) {
    return new ggml_metal_encoder();
}

void ggml_metal_encoder_free(ggml_metal_encoder_t encoder) {
    delete encoder;
}

void ggml_metal_encoder_debug_group_push(ggml_metal_encoder_t, const char *) {}

void ggml_metal_encoder_debug_group_pop(ggml_metal_encoder_t) {}

void ggml_metal_encoder_set_pipeline(ggml_metal_encoder_t encoder, ggml_metal_pipeline_with_params pipeline) {
    encoder->next.pipeline = pipeline.pipeline;
}

void ggml_metal_encoder_set_bytes(ggml_metal_encoder_t encoder, void * data, size_t size, int idx) {
    encoder->buffers(idx);
    encoder->next.arguments.bytes[idx].assign((char *) data, (char *) data + size);
}

void ggml_metal_encoder_set_buffer(ggml_metal_encoder_t encoder, ggml_metal_buffer_id buffer, int idx) {
    encoder->buffers(idx)[idx] = (char *) buffer.metal + buffer.offs;
    encoder->next.arguments.bytes[idx].clear();
}

void ggml_metal_encoder_set_threadgroup_memory_size(ggml_metal_encoder_t encoder, size_t size, int idx) {
    GGML_ASSERT(idx == 0 && size % 16 == 0 && "what Metal asks for");
    encoder->next.threadgroup_memory = size;
}

void ggml_metal_encoder_dispatch_threadgroups(
    ggml_metal_encoder_t encoder, int tg0, int tg1, int tg2, int tptg0, int tptg1, int tptg2) {
    command c = encoder->next;
    for (size_t i = 0; i < c.arguments.buffers.size(); ++i) {
        if (!c.arguments.bytes[i].empty()) {
            c.arguments.buffers[i] = c.arguments.bytes[i].data();
        }
    }
    const int threadgroups[] = { tg0, tg1, tg2 };
    const int threads[]      = { tptg0, tptg1, tptg2 };
    std::copy_n(threadgroups, 3, c.threadgroups);
    std::copy_n(threads, 3, c.threads);
    encoder->since_barrier.push_back(std::move(c));
}

void ggml_metal_encoder_memory_barrier(ggml_metal_encoder_t encoder) {
    for (auto c = encoder->since_barrier.rbegin(); c != encoder->since_barrier.rend(); ++c) {
        set_constants(c->pipeline->constants);
        lanes::run(c->threadgroups, c->threads, c->threadgroup_memory + c->pipeline->slack, c->pipeline->trusted,
            [&] { c->pipeline->run(c->arguments); });
    }
    encoder->since_barrier.clear();
}

void ggml_metal_encoder_end_encoding(ggml_metal_encoder_t encoder) {
    ggml_metal_encoder_memory_barrier(encoder);
}

//
// buffers
//

static constexpr size_t guard_size = 4096;
static constexpr char   guard_byte = 0x5a;

struct ggml_metal_buffer {
    char * base;
    size_t size;
};

ggml_metal_buffer_t ggml_metal_buffer_init(ggml_metal_device_t, size_t size, bool) {
    char * base = (char *) aligned_alloc(4096, GGML_PAD(size + guard_size, 4096));
    memset(base, 0xff, size);
    memset(base + size, guard_byte, guard_size);
    return new ggml_metal_buffer{ base, size };
}

ggml_metal_buffer_t ggml_metal_buffer_map(ggml_metal_device_t, void *, size_t, size_t) {
    GGML_ABORT("models are not mapped here");
}

void ggml_metal_buffer_free(ggml_metal_buffer_t buf) {
    for (size_t i = 0; i < guard_size; ++i) {
        GGML_ASSERT(buf->base[buf->size + i] == guard_byte && "nothing is written past the end of a buffer");
    }
    free(buf->base);
    delete buf;
}

void * ggml_metal_buffer_get_base(ggml_metal_buffer_t buf) {
    return buf->base;
}

bool ggml_metal_buffer_is_shared(ggml_metal_buffer_t) {
    return true;
}

void ggml_metal_buffer_memset_tensor(
    ggml_metal_buffer_t, ggml_tensor * tensor, uint8_t value, size_t offset, size_t size) {
    memset((char *) tensor->data + offset, value, size);
}

void ggml_metal_buffer_set_tensor(
    ggml_metal_buffer_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    memcpy((char *) tensor->data + offset, data, size);
}

void ggml_metal_buffer_get_tensor(
    ggml_metal_buffer_t, const ggml_tensor * tensor, void * data, size_t offset, size_t size) {
    memcpy(data, (const char *) tensor->data + offset, size);
}

bool ggml_metal_buffer_cpy_tensor(ggml_metal_buffer_t, const ggml_tensor *, ggml_tensor *) {
    return false;
}

void ggml_metal_buffer_clear(ggml_metal_buffer_t buf, uint8_t value) {
    memset(buf->base, value, buf->size);
}

ggml_metal_buffer_id ggml_metal_buffer_get_id(ggml_metal_buffer_t buf, const ggml_tensor * t) {
    return { buf->base, (size_t) ((char *) t->data - buf->base) };
}

//
// the device
//

struct ggml_metal_device {
    ggml_metal_device_props  props = {};
    ggml_metal_library_t     library;
    ggml_metal_fusion_info * fusion;
};

ggml_metal_device_t ggml_metal_device_init(int, int) {
    ggml_metal_device_t dev = new ggml_metal_device();

    ggml_metal_device_props & props = dev->props;
    strcpy(props.name, "MTL0");
    strcpy(props.desc, "Metal kernels on the CPU");
    props.max_buffer_size            = (size_t) 1 << 32;
    props.max_working_set_size       = (size_t) 1 << 32;
    props.max_theadgroup_memory_size = 32 * 1024;
    props.has_simdgroup_reduction    = true;
    props.has_simdgroup_mm           = true;
    props.has_unified_memory         = true;
    props.has_bfloat                 = true;
    props.use_shared_buffers         = true;
    props.supports_gpu_family_apple7 = true;

    dev->library = ggml_metal_library_init(dev);
    dev->fusion  = ggml_metal_fusion_info_init(false, 0);
    return dev;
}

void ggml_metal_device_free(ggml_metal_device_t dev) {
    ggml_metal_fusion_info_free(dev->fusion);
    ggml_metal_library_free(dev->library);
    delete dev;
}

const char * ggml_metal_device_id_token(ggml_metal_device_id) {
    return "cpu";
}

ggml_metal_library_t ggml_metal_device_get_library(ggml_metal_device_t dev) {
    return dev->library;
}

const ggml_metal_device_props * ggml_metal_device_get_props(ggml_metal_device_t dev) {
    return &dev->props;
}

ggml_metal_fusion_info * ggml_metal_device_get_fusion_info(ggml_metal_device_t dev) {
    return dev->fusion;
}

void ggml_metal_device_get_memory(ggml_metal_device_t dev, size_t * free, size_t * total) {
    *free = *total = dev->props.max_working_set_size;
}

bool ggml_metal_device_supports_op(ggml_metal_device_t dev, const ggml_tensor * op) {
    const bool has_simdgroup_mm = dev->props.has_simdgroup_mm;
    const bool has_bfloat       = dev->props.has_bfloat;
    if (op->op == GGML_OP_NONE) {
        return true;
    }
    if (op->op != GGML_OP_FLASH_ATTN_EXT) {
        return false;
    }
#include "flash-attention-supported.inc"
}

//
// the context
//

struct ggml_metal {
    ggml_metal_device_t device;
};

ggml_metal_t ggml_metal_init(ggml_metal_device_t dev) {
    return new ggml_metal{ dev };
}

void ggml_metal_free(ggml_metal_t ctx) {
    delete ctx;
}

const char * ggml_metal_get_name(ggml_metal_t ctx) {
    return ctx->device->props.name;
}

ggml_status ggml_metal_graph_compute(ggml_metal_t ctx, ggml_cgraph * gf) {
    ggml_metal_op_t op =
        ggml_metal_op_init(ctx->device, nullptr, gf, ctx->device->fusion, 0, ggml_graph_n_nodes(gf), true, false, 0);
    for (int i = 0; i < ggml_metal_op_n_nodes(op);) {
        i += ggml_metal_op_encode(op, i);
    }
    ggml_metal_op_free(op);
    return GGML_STATUS_SUCCESS;
}

void ggml_metal_graph_optimize(ggml_metal_t, ggml_cgraph * gf) {
    ggml_graph_optimize(gf);
}

void ggml_metal_set_tensor_async(ggml_metal_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    memcpy((char *) tensor->data + offset, data, size);
}

void ggml_metal_get_tensor_async(ggml_metal_t, const ggml_tensor * tensor, void * data, size_t offset, size_t size) {
    memcpy(data, (const char *) tensor->data + offset, size);
}

bool ggml_metal_cpy_tensor_async(ggml_metal_t, ggml_metal_t, const ggml_tensor *, ggml_tensor *) {
    return false;
}

// commands are done when they are encoded: there is nothing to wait for
void ggml_metal_synchronize(ggml_metal_t) {}

void ggml_metal_set_n_cb(ggml_metal_t, int) {}

void ggml_metal_set_abort_callback(ggml_metal_t, ggml_abort_callback, void *) {}

void ggml_metal_capture_next_compute(ggml_metal_t) {}

bool ggml_metal_supports_family(ggml_metal_t, int) {
    return true;
}

void ggml_metal_event_record(ggml_metal_t, ggml_metal_event_t) {}

void ggml_metal_event_wait(ggml_metal_t, ggml_metal_event_t) {}

ggml_metal_event_t ggml_metal_device_event_init(ggml_metal_device_t) {
    return nullptr;
}

void ggml_metal_device_event_free(ggml_metal_device_t, ggml_metal_event_t) {}

void ggml_metal_device_event_synchronize(ggml_metal_device_t, ggml_metal_event_t) {}

void ggml_metal_device_rsets_keep_alive(ggml_metal_device_t) {}

// so that programs find it by name
static const bool registered = (ggml_backend_register(ggml_backend_metal_reg()), true);
