#pragma once

// As much of CUDA as flash attention needs, for executing its kernels on a CPU: a block's threads are fibers that take turns at
// barriers, a warp's lanes meet at shuffles, tensor cores are a few loops. It stands in for CUDA's headers; nothing of CUDA is needed.
//
// The code sees compute capability 8.6. Values are rounded as on a GPU, but for the order of sums and the precision of expf().

#include <algorithm>
#include <cfloat>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <tuple>
#include <utility>
#include <vector>

#define __CUDA_ARCH__      860
#define __CUDA_ARCH_LIST__ 860
#define CUDART_VERSION     11070 // before kernels could start ahead of time and movmatrix was used

#define __host__
#define __device__
#define __global__
#define __constant__
#define __forceinline__ inline
#define __noinline__
#define __grid_constant__
#define __inline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__   static // blocks run one after another

#define __builtin_assume(condition) ((void) 0)

//
// types
//

struct uint3 {
    unsigned int x, y, z;
};

struct dim3 {
    unsigned int x, y, z;

    dim3(unsigned int x = 1, unsigned int y = 1, unsigned int z = 1) : x(x), y(y), z(z) {}
};

#define CUDA_ON_CPU_VECTORS(type, name, alignment)                  \
    struct __align__(2 * alignment) name##2 {                       \
        type x, y;                                                  \
    };                                                              \
    struct __align__(4 * alignment) name##4 {                       \
        type x, y, z, w;                                            \
    };                                                              \
    inline name##2 make_##name##2(type x, type y) {                 \
        return { x, y };                                            \
    }                                                               \
    inline name##4 make_##name##4(type x, type y, type z, type w) { \
        return { x, y, z, w };                                      \
    }

CUDA_ON_CPU_VECTORS(float, float, 4)
CUDA_ON_CPU_VECTORS(int, int, 4)
CUDA_ON_CPU_VECTORS(unsigned int, uint, 4)

struct float3 {
    float x, y, z;
};

struct char4 {
    signed char x, y, z, w;
};

inline uint3 make_uint3(unsigned int x, unsigned int y, unsigned int z) {
    return { x, y, z };
}

typedef _Float16 half;
typedef _Float16 __half;

struct __align__(4) half2 {
    half x, y;
};

typedef half2 __half2;

struct nv_bfloat16 {
    uint16_t bits;

    nv_bfloat16() = default;

    nv_bfloat16(float value) {
        uint32_t u;
        memcpy(&u, &value, sizeof(u));
        bits = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    }

    operator float() const {
        const uint32_t u = uint32_t(bits) << 16;
        float          value;
        memcpy(&value, &u, sizeof(value));
        return value;
    }
};

struct __align__(4) nv_bfloat162 {
    nv_bfloat16 x, y;
};

typedef nv_bfloat16  __nv_bfloat16;
typedef nv_bfloat162 __nv_bfloat162;

//
// arithmetic
//

inline half __float2half(float x) {
    return (half) x;
}

inline half __float2half_rn(float x) {
    return (half) x;
}

inline float __half2float(half x) {
    return (float) x;
}

inline half2 make_half2(half x, half y) {
    return { x, y };
}

inline half2 __halves2half2(half x, half y) {
    return { x, y };
}

inline half2 __half2half2(half x) {
    return { x, x };
}

inline half2 __float2half2_rn(float x) {
    return { (half) x, (half) x };
}

inline half2 __floats2half2_rn(float x, float y) {
    return { (half) x, (half) y };
}

inline half2 __float22half2_rn(float2 x) {
    return { (half) x.x, (half) x.y };
}

inline float2 __half22float2(half2 x) {
    return { (float) x.x, (float) x.y };
}

inline half __low2half(half2 x) {
    return x.x;
}

inline half __high2half(half2 x) {
    return x.y;
}

inline float __low2float(half2 x) {
    return (float) x.x;
}

inline float __high2float(half2 x) {
    return (float) x.y;
}

inline half2 __lows2half2(half2 a, half2 b) {
    return { a.x, b.x };
}

inline half2 __highs2half2(half2 a, half2 b) {
    return { a.y, b.y };
}

inline half2 operator+(half2 a, half2 b) {
    return { (half) (a.x + b.x), (half) (a.y + b.y) };
}

inline half2 operator-(half2 a, half2 b) {
    return { (half) (a.x - b.x), (half) (a.y - b.y) };
}

inline half2 operator*(half2 a, half2 b) {
    return { (half) (a.x * b.x), (half) (a.y * b.y) };
}

inline half2 & operator+=(half2 & a, half2 b) {
    return a = a + b;
}

inline half2 & operator*=(half2 & a, half2 b) {
    return a = a * b;
}

inline half2 __hadd2(half2 a, half2 b) {
    return a + b;
}

inline half2 __hmul2(half2 a, half2 b) {
    return a * b;
}

inline half __hmax(half a, half b) {
    return a > b ? a : b;
}

inline half2 __hmax2(half2 a, half2 b) {
    return { __hmax(a.x, b.x), __hmax(a.y, b.y) };
}

inline float __bfloat162float(nv_bfloat16 x) {
    return x;
}

inline nv_bfloat16 __float2bfloat16(float x) {
    return x;
}

inline float2 __bfloat1622float2(nv_bfloat162 x) {
    return { x.x, x.y };
}

inline int __popc(unsigned int x) {
    return __builtin_popcount(x);
}

inline int __ffs(int x) {
    return __builtin_ffs(x);
}

inline int __clz(int x) {
    return x == 0 ? 32 : __builtin_clz(x);
}

inline unsigned int __umulhi(unsigned int a, unsigned int b) {
    return (uint64_t(a) * b) >> 32;
}

inline float __fdividef(float a, float b) {
    return a / b;
}

inline float __expf(float x) {
    return expf(x);
}

inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}

inline unsigned int __float_as_uint(float x) {
    unsigned int u;
    memcpy(&u, &x, sizeof(u));
    return u;
}

inline float __uint_as_float(unsigned int u) {
    float x;
    memcpy(&x, &u, sizeof(x));
    return x;
}

inline unsigned int __byte_perm(unsigned int x, unsigned int y, unsigned int s) {
    const uint64_t bytes = (uint64_t(y) << 32) | x;
    unsigned int   r     = 0;
    for (int i = 0; i < 4; ++i) {
        r |= (unsigned int) ((bytes >> (8 * ((s >> (4 * i)) & 7))) & 0xff) << (8 * i);
    }
    return r;
}

// four bytes at once
template <class F>
int cuda_on_cpu_bytes(int a, int b, F && f) {
    int8_t x[4], y[4], r[4];
    memcpy(x, &a, 4);
    memcpy(y, &b, 4);
    for (int i = 0; i < 4; ++i) {
        r[i] = (int8_t) f(x[i], y[i]);
    }
    int res;
    memcpy(&res, r, 4);
    return res;
}

inline int __vsubss4(int a, int b) {
    return cuda_on_cpu_bytes(a, b, [](int x, int y) { return std::clamp(x - y, -128, 127); });
}

inline int __vsub4(int a, int b) {
    return cuda_on_cpu_bytes(a, b, [](int x, int y) { return x - y; });
}

inline int __vcmpeq4(int a, int b) {
    return cuda_on_cpu_bytes(a, b, [](int x, int y) { return x == y ? -1 : 0; });
}

inline int __vcmpne4(int a, int b) {
    return cuda_on_cpu_bytes(a, b, [](int x, int y) { return x != y ? -1 : 0; });
}

inline int __dp4a(int a, int b, int c) {
    int8_t x[4], y[4];
    memcpy(x, &a, 4);
    memcpy(y, &b, 4);
    for (int i = 0; i < 4; ++i) {
        c += x[i] * y[i];
    }
    return c;
}

using std::max;
using std::min;

inline unsigned int min(unsigned int a, int b) {
    return std::min(a, (unsigned int) b);
}

inline unsigned int min(int a, unsigned int b) {
    return std::min((unsigned int) a, b);
}

inline int64_t min(int64_t a, int b) {
    return std::min<int64_t>(a, b);
}

inline int64_t min(int a, int64_t b) {
    return std::min<int64_t>(a, b);
}

inline int64_t max(int64_t a, int b) {
    return std::max<int64_t>(a, b);
}

inline int64_t max(int a, int64_t b) {
    return std::max<int64_t>(a, b);
}

//
// threads
//

namespace cuda_on_cpu {

struct thread_index {
    unsigned int x, y, z;
};

extern thread_index threadIdx; // of the fiber that runs
extern thread_index blockIdx;
extern dim3         blockDim;
extern dim3         gridDim;

// Runs all blocks of a grid. Blocks and threads take turns in ascending or descending order: what depends on it lacks a barrier.
void        run_grid(dim3 grid, dim3 block, size_t n_shared, const std::function<void()> & kernel);
extern bool descending;

// where rows' pairs were exported, in order: that nobody writes one twice can't be seen by its value
extern std::vector<const float2 *> counted_writes;

inline void write_counted(float2 * to, float2 value) {
    counted_writes.push_back(to);
    *to = value;
}

void * dynamic_shared();
void   wait_for_block();
int    lane();

// Every lane of the warp gives a value and gets those of all.
const uint64_t * exchange(uint64_t value);
bool             any_of_block(bool value);

// Executes an instruction of a warp.
void ptx(const char * instruction, std::initializer_list<uint32_t *> outputs, std::initializer_list<uint64_t> inputs);

template <class... Params, class... Args>
void launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t n_shared, void *, Args &&... args) {
    const std::tuple<Params...> params(std::forward<Args>(args)...);
    run_grid(grid, block, n_shared, [&] { std::apply(kernel, params); });
}

template <class T>
T shuffle(T value, int source) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "shuffles take up to 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    const uint64_t * all = exchange(bits);
    memcpy(&value, all + source, sizeof(T));
    return value;
}

} // namespace cuda_on_cpu

using cuda_on_cpu::blockDim;
using cuda_on_cpu::blockIdx;
using cuda_on_cpu::gridDim;
using cuda_on_cpu::threadIdx;

inline void __syncthreads() {
    cuda_on_cpu::wait_for_block();
}

inline int __syncthreads_or(int value) {
    return cuda_on_cpu::any_of_block(value);
}

inline void __syncwarp(unsigned int = 0xffffffff) {
    cuda_on_cpu::exchange(0);
}

template <class T>
T __shfl_sync(unsigned int, T value, int source, int width = 32) {
    // any number names a lane: its last bits, as widths are powers of 2
    const int first = cuda_on_cpu::lane() / width * width;
    return cuda_on_cpu::shuffle(value, first + (source & (width - 1)));
}

template <class T>
T __shfl_xor_sync(unsigned int, T value, int mask, int width = 32) {
    const int source = cuda_on_cpu::lane() ^ mask;
    return cuda_on_cpu::shuffle(value, source / width == cuda_on_cpu::lane() / width ? source : cuda_on_cpu::lane());
}

template <class T>
T __shfl_up_sync(unsigned int, T value, int offset, int width = 32) {
    const int lane = cuda_on_cpu::lane();
    return cuda_on_cpu::shuffle(value, lane % width >= offset ? lane - offset : lane);
}

template <class T>
T __shfl_down_sync(unsigned int, T value, int offset, int width = 32) {
    const int lane = cuda_on_cpu::lane();
    return cuda_on_cpu::shuffle(value, lane % width + offset < width ? lane + offset : lane);
}

unsigned int __ballot_sync(unsigned int mask, int predicate);
int          __reduce_add_sync(unsigned int mask, int value);

inline int __all_sync(unsigned int mask, int predicate) {
    return __ballot_sync(mask, !predicate) == 0;
}

inline int __any_sync(unsigned int mask, int predicate) {
    return __ballot_sync(mask, predicate) != 0;
}

size_t __cvta_generic_to_shared(const void * pointer);

[[noreturn]] inline void __trap() {
    abort();
}

template <class T>
T __ldg(const T * pointer) {
    return *pointer;
}

//
// host
//

typedef int    cudaError_t;
typedef int    CUresult;
typedef void * cudaStream_t;
typedef void * cudaEvent_t;
typedef void * cudaGraph_t;
typedef void * cudaGraphExec_t;
typedef void * cudaGraphNode_t;
typedef void * cublasHandle_t;
typedef int    cublasStatus_t;

enum { cudaSuccess, cudaEventDisableTiming, cudaStreamNonBlocking, cudaFuncAttributeMaxDynamicSharedMemorySize };

enum { CUDA_SUCCESS, CUBLAS_TF32_TENSOR_OP_MATH };

enum {
    CUBLAS_STATUS_SUCCESS,
    CUBLAS_STATUS_NOT_INITIALIZED,
    CUBLAS_STATUS_ALLOC_FAILED,
    CUBLAS_STATUS_INVALID_VALUE,
    CUBLAS_STATUS_ARCH_MISMATCH,
    CUBLAS_STATUS_MAPPING_ERROR,
    CUBLAS_STATUS_EXECUTION_FAILED,
    CUBLAS_STATUS_INTERNAL_ERROR,
    CUBLAS_STATUS_NOT_SUPPORTED
};

inline const char * cudaGetErrorString(cudaError_t) {
    return "error";
}

inline const char * cublasGetStatusString(cublasStatus_t) {
    return "error";
}

inline cudaError_t cudaGetLastError() {
    return cudaSuccess;
}

inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) {
    return cudaSuccess;
}

inline cudaError_t cudaGraphDestroy(cudaGraph_t) {
    return cudaSuccess;
}

inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t *, int) {
    return cudaSuccess;
}

inline cudaError_t cudaEventDestroy(cudaEvent_t) {
    return cudaSuccess;
}

inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *, int) {
    return cudaSuccess;
}

inline cublasStatus_t cublasCreate(cublasHandle_t *) {
    return CUBLAS_STATUS_SUCCESS;
}

inline cublasStatus_t cublasSetMathMode(cublasHandle_t, int) {
    return CUBLAS_STATUS_SUCCESS;
}

inline cublasStatus_t cublasSetStream(cublasHandle_t, cudaStream_t) {
    return CUBLAS_STATUS_SUCCESS;
}

inline cudaError_t cudaMalloc(void **, size_t) {
    return 1;
}

inline cublasStatus_t cublasSetWorkspace(cublasHandle_t, void *, size_t) {
    return CUBLAS_STATUS_SUCCESS;
}

inline CUresult cuGetErrorString(CUresult, const char **) {
    return CUDA_SUCCESS;
}

template <class F>
cudaError_t cudaFuncSetAttribute(F, int, size_t) {
    return cudaSuccess;
}

namespace cuda_on_cpu {
extern int blocks_per_sm; // what occupancy is said to be
}

template <class F>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int * n, F, int, size_t) {
    *n = cuda_on_cpu::blocks_per_sm;
    return cudaSuccess;
}
