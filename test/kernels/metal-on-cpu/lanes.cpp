#include "lanes.h"

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <ucontext.h>
#include <vector>

namespace lanes {
namespace {

constexpr size_t stack_size = 256 * 1024;
constexpr size_t guard_size = 256;
constexpr char   guard_byte = 0x5a;

struct meeting {
    int          n         = 0; // members
    int          n_arrived = 0;
    uint64_t     round     = 0;
    const char * what      = nullptr;
    void (*action)(void *) = nullptr; // to be done when all have arrived
    void * action_data     = nullptr;
    // of this round and the last one: a lane may be at the next meeting while others have yet to read what came of this one
    char values[2][simd_width * exchanged_stride];
};

struct lane {
    position                at;
    meeting *               simdgroup = nullptr;
    ucontext_t              start;
    jmp_buf                 resume;
    bool                    started = false;
    bool                    done    = false;
    std::unique_ptr<char[]> stack{ new char[stack_size] };
};

std::vector<std::unique_ptr<lane>> all; // kept, as their stacks are large
size_t                             n_lanes;
size_t                             current;
std::vector<meeting>               simdgroups;
meeting                            whole;
std::vector<char>                  memory;
const std::function<void()> *      body;
jmp_buf                            scheduler;
trust                              trusted;

[[noreturn]] void fail(const char * problem, const char * what) {
    fflush(stdout);
    fprintf(stderr, "%s: %s, lane %u of threadgroup %u, %u, %u\n", problem, what, here().index, here().grid[0],
        here().grid[1], here().grid[2]);
    abort();
}

void lane_main() {
    (*body)();
    all[current]->done = true;
    _longjmp(scheduler, 1);
}

// to the scheduler, which comes back after all others have had their turn
void yield() {
    if (_setjmp(all[current]->resume) == 0) {
        _longjmp(scheduler, 1);
    }
}

// returns the round
uint64_t meet(meeting & m, const char * what) {
    if (m.n_arrived > 0 && strcmp(m.what, what) != 0) {
        fprintf(stderr, "some lanes wait at %s\n", m.what);
        fail("others wait at", what);
    }
    m.what               = what;
    const uint64_t round = m.round;
    if (++m.n_arrived == m.n) {
        if (m.action) {
            m.action(m.action_data);
            m.action = nullptr;
        }
        m.n_arrived = 0;
        m.round++;
        if (trusted == trust::lockstep) {
            yield(); // the others come first, the first lane last
        }
        return round;
    }
    while (m.round == round) {
        yield();
    }
    return round;
}

void run_threadgroup(const uint32_t grid[3], const uint32_t threads[3], size_t memory_size) {
    memory.assign(memory_size + guard_size, guard_byte);
    memset(memory.data(), 0xff, memory_size); // NaN: what is read must have been written

    const size_t n_simdgroups = (n_lanes + simd_width - 1) / simd_width;
    simdgroups.assign(n_simdgroups, meeting());
    whole   = meeting();
    whole.n = n_lanes;
    for (size_t i = 0; i < n_lanes; ++i) {
        lane & l = *all[i];
        for (int d = 0; d < 3; ++d) {
            l.at.grid[d]  = grid[d];
            l.at.group[d] = threads[d];
        }
        l.at.index  = i;
        l.simdgroup = &simdgroups[i / simd_width];
        l.simdgroup->n++;
        l.done = l.started = false;
        getcontext(&l.start);
        l.start.uc_stack.ss_sp   = l.stack.get();
        l.start.uc_stack.ss_size = stack_size;
        l.start.uc_link          = nullptr;
        makecontext(&l.start, lane_main, 0);
    }

    // simdgroups in turns, the last one first; within one, all lanes up to where they wait
    // not on the stack, as a lane comes back by a jump
    static size_t n_done;
    static size_t turn;
    static bool   moved;
    for (n_done = 0; n_done < n_lanes;) {
        const uint64_t rounds   = whole.round;
        const size_t   n_before = n_done;
        moved                   = false;
        for (turn = n_lanes; turn-- > 0;) {
            current  = turn;
            lane & l = *all[current];
            if (l.done) {
                continue;
            }
            const uint64_t round     = l.simdgroup->round;
            const int      n_arrived = l.simdgroup->n_arrived + whole.n_arrived;
            if (_setjmp(scheduler) == 0) {
                if (l.started) {
                    _longjmp(l.resume, 1);
                }
                l.started = true;
                setcontext(&l.start);
            }
            lane & after = *all[current];
            n_done += after.done;
            moved |= after.simdgroup->round != round || after.simdgroup->n_arrived + whole.n_arrived != n_arrived;
        }
        if (!moved && whole.round == rounds && n_done == n_before) {
            current = 0;
            fail("lanes wait for others that never come", whole.what ? whole.what : "a simdgroup's function");
        }
    }
    for (size_t i = memory_size; i < memory.size(); ++i) {
        if (memory[i] != guard_byte) {
            fail("written past the end of", "threadgroup memory");
        }
    }
}

} // namespace

const position & here() {
    return all[current]->at;
}

char * threadgroup_memory() {
    return memory.data();
}

void run(const uint32_t threadgroups[3], const uint32_t threads[3], size_t threadgroup_memory_size, trust trusted_,
    const std::function<void()> & lane_body) {
    trusted = trusted_;
    body    = &lane_body;
    n_lanes = (size_t) threads[0] * threads[1] * threads[2];
    while (all.size() < n_lanes) {
        all.push_back(std::make_unique<lane>());
    }
    for (uint32_t z = threadgroups[2]; z-- > 0;) {
        for (uint32_t y = threadgroups[1]; y-- > 0;) {
            for (uint32_t x = threadgroups[0]; x-- > 0;) {
                const uint32_t grid[3] = { x, y, z };
                run_threadgroup(grid, threads, threadgroup_memory_size);
            }
        }
    }
}

const char * exchange(const void * value, size_t size, const char * what) {
    meeting & m      = *all[current]->simdgroup;
    char *    values = m.values[m.round % 2];
    memcpy(values + here().index % simd_width * exchanged_stride, value, size);
    meet(m, what);
    return values;
}

void simdgroup_wait(const char * what) {
    meet(*all[current]->simdgroup, what);
}

void simdgroup_do(void (*action)(void *), void * data, const char * what) {
    meeting & m = *all[current]->simdgroup;
    if (here().index % simd_width == 0) {
        m.action      = action;
        m.action_data = data;
    }
    meet(m, what);
}

void threadgroup_wait() {
    meet(whole, "threadgroup_barrier");
}

} // namespace lanes
