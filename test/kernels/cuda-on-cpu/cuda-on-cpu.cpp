#include "cuda-on-cpu.h"

#include <csetjmp>
#include <memory>
#include <ucontext.h>
#include <vector>

namespace cuda_on_cpu {

thread_index threadIdx;
thread_index blockIdx;
dim3         blockDim;
dim3         gridDim;
bool         descending    = false;
int          blocks_per_sm = 2;

std::vector<const float2 *> counted_writes;

enum class state { ready, at_block_barrier, at_warp_barrier, done };

// makecontext() starts a fiber on its stack, from then on jumps go to and fro: swapcontext() makes a system call each time
struct fiber {
    static constexpr size_t n_stack = 256 * 1024;

    std::unique_ptr<char[]> stack = std::make_unique<char[]>(n_stack);
    ucontext_t              start;
    jmp_buf                 here;
    bool                    entered = false;
    state                   now     = state::ready;
    thread_index            index;
    int                     number; // in the block
    unsigned int            n_exchanges = 0;
    unsigned int            n_votes     = 0;
};

struct warp {
    // two of them, used in turn: a lane may be at the next exchange while another still reads the last one
    uint64_t values[2][32];
};

static std::vector<fiber>            fibers;
static std::vector<warp>             warps;
static std::vector<char>             shared;
static bool                          votes[2];
static fiber *                       current;
static jmp_buf                       scheduler;
static const std::function<void()> * body;

static void enter() {
    (*body)();
    current->now = state::done;
    _longjmp(scheduler, 1);
}

static void wait_at(state barrier) {
    current->now = barrier;
    if (_setjmp(current->here) == 0) {
        _longjmp(scheduler, 1);
    }
}

static void resume(fiber & f) {
    current   = &f;
    threadIdx = f.index;
    if (_setjmp(scheduler) == 0) {
        if (f.entered) {
            _longjmp(f.here, 1);
        }
        f.entered = true;
        setcontext(&f.start);
    }
}

// lets the fibers of a range go on once all that have not returned are at the barrier
static bool release(size_t begin, size_t end, state barrier) {
    bool any      = false;
    bool returned = false;
    for (size_t i = begin; i < end; ++i) {
        if (fibers[i].now != barrier && fibers[i].now != state::done) {
            return false;
        }
        any |= fibers[i].now == barrier;
        returned |= fibers[i].now == state::done;
    }
    if (any && returned && barrier == state::at_warp_barrier) {
        fprintf(stderr, "lanes of a warp exchange values with others that have returned\n");
        abort();
    }
    for (size_t i = begin; i < end; ++i) {
        if (fibers[i].now == barrier) {
            fibers[i].now = state::ready;
        }
    }
    return any;
}

static void run_block(size_t n_threads) {
    for (size_t i = 0; i < n_threads; ++i) {
        fiber & f     = fibers[i];
        f.entered     = false;
        f.now         = state::ready;
        f.n_exchanges = f.n_votes = 0;
        getcontext(&f.start);
        f.start.uc_stack.ss_sp   = f.stack.get();
        f.start.uc_stack.ss_size = fiber::n_stack;
        f.start.uc_link          = nullptr;
        makecontext(&f.start, enter, 0);
    }
    // what is there before must not matter
    std::fill(shared.begin(), shared.end(), (char) 0xff);
    votes[0] = votes[1] = false;

    for (;;) {
        bool any = false;
        for (size_t w = 0; w < (n_threads + 31) / 32; ++w) {
            const size_t first = 32 * (descending ? (n_threads + 31) / 32 - 1 - w : w);
            const size_t last  = std::min(first + 32, n_threads);
            do {
                for (size_t i = first; i < last; ++i) {
                    fiber & f = fibers[descending ? last - 1 - (i - first) : i];
                    if (f.now == state::ready) {
                        any = true;
                        resume(f);
                    }
                }
            } while (release(first, last, state::at_warp_barrier));
        }
        if (!any && !release(0, n_threads, state::at_block_barrier)) {
            break;
        }
    }
    for (size_t i = 0; i < n_threads; ++i) {
        if (fibers[i].now != state::done) {
            fprintf(stderr, "a kernel hangs: some threads of a block or warp wait for others at a barrier\n");
            abort();
        }
    }
}

void run_grid(dim3 grid, dim3 threads, size_t n_shared, const std::function<void()> & kernel) {
    const size_t n_threads = threads.x * threads.y * threads.z;
    if (fibers.size() < n_threads) {
        fibers.resize(n_threads);
        warps.resize((n_threads + 31) / 32);
    }
    for (size_t i = 0; i < n_threads; ++i) {
        fibers[i].number = i;
        fibers[i].index  = { (unsigned int) (i % threads.x), (unsigned int) (i / threads.x % threads.y),
             (unsigned int) (i / threads.x / threads.y) };
    }
    gridDim  = grid;
    blockDim = threads;
    body     = &kernel;
    // aligned as much as any load wants, and as large as what a GPU has at most
    shared.resize(std::max<size_t>(n_shared, 1) + 256);
    const size_t n_blocks = (size_t) grid.x * grid.y * grid.z;
    for (size_t i = 0; i < n_blocks; ++i) {
        const size_t b = descending ? n_blocks - 1 - i : i;
        blockIdx       = { (unsigned int) (b % grid.x), (unsigned int) (b / grid.x % grid.y),
                  (unsigned int) (b / grid.x / grid.y) };
        run_block(n_threads);
    }
}

void * dynamic_shared() {
    return (void *) (((uintptr_t) shared.data() + 127) / 128 * 128);
}

int lane() {
    return current->number % 32;
}

void wait_for_block() {
    wait_at(state::at_block_barrier);
}

const uint64_t * exchange(uint64_t value) {
    uint64_t * values = warps[current->number / 32].values[current->n_exchanges++ % 2];
    values[lane()]    = value;
    wait_at(state::at_warp_barrier);
    return values;
}

bool any_of_block(bool value) {
    bool & vote = votes[current->n_votes++ % 2];
    vote |= value;
    wait_for_block();
    const bool res = vote;
    wait_for_block();
    vote = false;
    return res;
}

//
// tensor cores, with the layouts of fragments as the PTX manual gives them
//

// 8x8 matrices of 16 bits; lane l has the elements (l/4, 2*(l%4)) and the next one
static void ldmatrix(uint32_t * const * outputs, int n, uint64_t address, bool transpose) {
    const uint64_t * addresses = exchange(address);
    const uint64_t   row       = lane() / 4;
    const uint64_t   column    = 2 * (lane() % 4);
    for (int i = 0; i < n; ++i) {
        uint16_t pair[2];
        for (int j = 0; j < 2; ++j) {
            pair[j] = transpose ? ((const uint16_t *) addresses[8 * i + column + j])[row] :
                                  ((const uint16_t *) addresses[8 * i + row])[column + j];
        }
        memcpy(outputs[i], pair, sizeof(pair));
    }
}

static float half_of(uint64_t pair, int which) {
    const uint16_t bits = (uint16_t) (pair >> (16 * which));
    half           value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

// D[16][8] += A[16][16] * B[16][8]
static void mma_m16n8k16(uint32_t * const * d, const uint64_t * inputs, bool f32) {
    float a[16][16];
    float b[16][8];
    for (int r = 0; r < 6; ++r) {
        const uint64_t * all = exchange(inputs[r]);
        for (int l = 0; l < 32; ++l) {
            for (int j = 0; j < 2; ++j) {
                if (r < 4) {
                    a[l / 4 + 8 * (r % 2)][2 * (l % 4) + j + 8 * (r / 2)] = half_of(all[l], j);
                } else {
                    b[2 * (l % 4) + j + 8 * (r - 4)][l / 4] = half_of(all[l], j);
                }
            }
        }
    }
    for (int i = 0; i < 4; ++i) {
        const int row    = lane() / 4 + 8 * (i / 2);
        const int column = 2 * (lane() % 4) + i % 2;
        float     sum    = 0.0f;
        for (int k = 0; k < 16; ++k) {
            sum += a[row][k] * b[k][column];
        }
        if (f32) {
            float & value = *(float *) d[i];
            value += sum;
        } else {
            half & value = ((half *) d[i / 2])[i % 2];
            value        = (half) ((float) value + sum);
        }
    }
}

void ptx(const char * instruction, std::initializer_list<uint32_t *> outputs, std::initializer_list<uint64_t> inputs) {
    const auto starts_with = [&](const char * name) {
        return strncmp(instruction, name, strlen(name)) == 0;
    };

    if (starts_with("ldmatrix.sync.aligned.m8n8.")) {
        ldmatrix(outputs.begin(), (int) outputs.size(), *inputs.begin(), strstr(instruction, ".trans") != nullptr);
    } else if (starts_with("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16")) {
        mma_m16n8k16(outputs.begin(), inputs.begin(), false);
    } else if (starts_with("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32")) {
        mma_m16n8k16(outputs.begin(), inputs.begin(), true);
    } else if (starts_with("cp.async.cg.shared.global")) {
        memcpy((char *) dynamic_shared() + inputs.begin()[0], (const void *) inputs.begin()[1], 16);
    } else if (!starts_with("cp.async.wait_all")) {
        fprintf(stderr, "this instruction is not known here: %s\n", instruction);
        abort();
    }
}

} // namespace cuda_on_cpu

unsigned int __ballot_sync(unsigned int, int predicate) {
    const uint64_t * all    = cuda_on_cpu::exchange(predicate != 0);
    unsigned int     ballot = 0;
    for (int i = 0; i < 32; ++i) {
        ballot |= (unsigned int) all[i] << i;
    }
    return ballot;
}

int __reduce_add_sync(unsigned int, int value) {
    const uint64_t * all = cuda_on_cpu::exchange((uint32_t) value);
    uint32_t         sum = 0;
    for (int i = 0; i < 32; ++i) {
        sum += (uint32_t) all[i];
    }
    return (int) sum;
}

size_t __cvta_generic_to_shared(const void * pointer) {
    return (const char *) pointer - (const char *) cuda_on_cpu::dynamic_shared();
}
