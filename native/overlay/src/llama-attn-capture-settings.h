#pragma once

// The capture of a context, see llama-attn-capture.h

#include "llama-attn-capture.h"

#include <memory>
#include <mutex>

struct llama_attn_capture_state; // a recording and what a graph needs to write it

struct llama_attn_capture {
    // part of llama_cparams while a batch runs, and of the graphs that write it; null: off
    using handle = std::shared_ptr<llama_attn_capture_state>;

    void   set(handle next);
    handle get();

    // takes the pending one over, returns true if it has changed
    bool take(handle & running);

  private:
    std::mutex mutex;
    handle     pending;
};
