#pragma once

// The kernels of translated .metal sources, by their names on the host's side.

#include "lanes.h"

#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

struct kernel_arguments {
    std::vector<char *>            buffers; // by index; bytes that are set directly, too
    std::vector<std::vector<char>> bytes;
};

typedef void (*kernel_runner)(const kernel_arguments &);

struct kernel_library {
    std::map<std::string, kernel_runner> kernels;
    std::multimap<int, bool *>           bool_constants; // by index: every source has its own
    std::multimap<int, int32_t *>        int_constants;

    static kernel_library & get() {
        static kernel_library library;
        return library;
    }
};

// What a parameter of a kernel gets: a letter for each, as translate.js found it by its attribute.
template <class T>
T kernel_argument(const kernel_arguments & arguments, char kind, int buffer) {
    const lanes::position & at = lanes::here();
    using plain                = std::remove_cv_t<std::remove_reference_t<T>>;
    if constexpr (std::is_reference_v<T>) {
        return *(plain *) arguments.buffers.at(buffer);
    } else if constexpr (std::is_pointer_v<plain>) {
        return (plain) (kind == 'm' ? lanes::threadgroup_memory() : arguments.buffers.at(buffer));
    } else if constexpr (std::is_integral_v<plain>) {
        switch (kind) {
            case 'g':
                return at.grid[0];
            case 'p':
                return at.grid[0] * at.group[0] + at.index;
            case 'l':
                return at.index % lanes::simd_width;
            case 's':
                return at.index / lanes::simd_width;
            case 't':
                return at.index;
            case 'n':
                return at.group[0];
        }
        abort();
    } else {
        const uint32_t * xyz = kind == 'g' ? at.grid : at.group;
        return plain(xyz[0], xyz[1], xyz[2]);
    }
}

template <auto kernel, char... kinds>
struct kernel_call;

template <class... A, void (*kernel)(A...), char... kinds>
struct kernel_call<kernel, kinds...> {
    static void run(const kernel_arguments & arguments) { run(arguments, std::index_sequence_for<A...>()); }

    template <size_t... i>
    static void run(const kernel_arguments & arguments, std::index_sequence<i...>) {
        static_assert(sizeof...(A) == sizeof...(kinds), "a kind for each parameter");
        static constexpr char all[] = { kinds... };
        // buffers are numbered in the order of the parameters
        const auto number = [](size_t parameter) {
            int n = 0;
            for (size_t j = 0; j < parameter; ++j) {
                n += all[j] == 'b';
            }
            return n;
        };
        kernel(kernel_argument<A>(arguments, all[i], number(i))...);
    }
};

struct register_kernel {
    register_kernel(const char * name, kernel_runner runner) { kernel_library::get().kernels[name] = runner; }
};

struct register_constant {
    register_constant(int index, bool * value) { kernel_library::get().bool_constants.emplace(index, value); }

    register_constant(int index, int32_t * value) { kernel_library::get().int_constants.emplace(index, value); }
};
