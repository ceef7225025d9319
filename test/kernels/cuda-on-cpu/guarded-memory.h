#pragma once

// Memory that ends where nothing may be read or written: a kernel that goes beyond it ends the program.

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

class guarded_memory {
  public:
    // aligned to 32 bytes, so that as many may lie between its end and the guard
    explicit guarded_memory(size_t size) {
        n_mapped = (size + page - 1) / page * page + page;

        void * pages = mmap(nullptr, n_mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pages == MAP_FAILED || mprotect((char *) pages + n_mapped - page, page, PROT_NONE) != 0) {
            perror("memory with a guard");
            abort();
        }
        mapped = (char *) pages;
        begin  = mapped + (n_mapped - page - size) / 32 * 32;
    }

    guarded_memory(const guarded_memory &) = delete;

    ~guarded_memory() { munmap(mapped, n_mapped); }

    char * data() const { return begin; }

  private:
    static constexpr size_t page = 4096;

    char * mapped;
    size_t n_mapped;
    char * begin;
};
