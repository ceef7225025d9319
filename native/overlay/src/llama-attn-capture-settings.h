#pragma once

// The capture of a context, see llama-attn-capture.h

#include "llama-attn-capture.h"

#include <memory>
#include <mutex>
#include <vector>

struct llama_attn_capture_state; // a recording and what a graph needs to write it

struct llama_attn_capture {
    // part of llama_cparams while a batch runs, and of the graphs that write it; null: off
    using handle = std::shared_ptr<llama_attn_capture_state>;

    void   set(handle next);
    handle get();

    // takes the pending one over, returns true if it has changed; no batch may run
    bool take(handle & running);

    // Frees the memory of those that have ended, which graphs and cparams hold until the next batch. No batch may run.
    void release_ended();

  private:
    std::mutex          mutex;
    handle              pending;
    std::vector<handle> ended;

    void release_ended_locked();
};
