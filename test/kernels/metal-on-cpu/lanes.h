#pragma once

// A threadgroup of a GPU on one thread of the CPU: every lane is a fiber, which runs until it waits for the others of its simdgroup
// or threadgroup. What they wait for must be the same thing: where they diverge the program ends with an error.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

namespace lanes {

constexpr int simd_width = 32;

// where a lane is
struct position {
    uint32_t grid[3];  // of the threadgroup
    uint32_t group[3]; // threads of the threadgroup, in each direction
    uint32_t index;    // of the lane in its threadgroup
};

const position & here();
char *           threadgroup_memory();

// What a kernel counts on beyond what barriers promise.
enum class trust {
    barriers, // nothing: the lane that completes a meeting runs ahead of the others
    lockstep, // a simdgroup's lanes read before their first lane writes what comes after
};

// Runs `lane` once for every lane of every threadgroup, the last threadgroup first.
void run(const uint32_t threadgroups[3], const uint32_t threads[3], size_t threadgroup_memory_size, trust trusted,
    const std::function<void()> & lane);

// Waits for all lanes of the simdgroup, each of which brings a value of up to 16 bytes; returns those of all.
const char *     exchange(const void * value, size_t size, const char * what);
constexpr size_t exchanged_stride = 16;

void simdgroup_wait(const char * what);

// Waits for all lanes of the simdgroup, and does once what its first lane came with.
void simdgroup_do(void (*action)(void * data), void * data, const char * what);
void threadgroup_wait();

} // namespace lanes
